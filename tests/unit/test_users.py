"""Names and numbers to accounts, with made-up user databases."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from typing import Never

import pytest

from lognot.users import (
    MAX_NAME_BYTES,
    SYSTEM_USERS,
    Account,
    AccountError,
    UserDatabase,
    current_account,
    monitor_account,
    resolve_account,
)
from unit.people import BOB, ROOT, USERS, database


@pytest.mark.parametrize(
    ("uid", "gid", "expected"),
    [
        (None, None, ROOT),
        ("bob", None, BOB),
        ("1000", None, BOB),
        ("0001000", None, BOB),
        ("bob", "wheel", Account(1000, 10, (2, 4, 10, 1000), "bob", "/home/bob")),
        ("bob", "4", Account(1000, 4, (2, 4, 1000), "bob", "/home/bob")),
        ("1000", "77", Account(1000, 77, (2, 4, 77, 1000), "bob", "/home/bob")),
        ("4711", "wheel", Account(4711, 10, (), "4711", "/")),
        ("4711", "77", Account(4711, 77, (), "4711", "/")),
        (None, "wheel", Account(0, 10, (4, 10), "root", "/root")),
    ],
)
def test_settings_name_an_account(uid: str | None, gid: str | None, expected: Account) -> None:
    assert resolve_account(uid, gid, default=ROOT, users=USERS) == expected


def test_only_a_gid_for_a_user_without_passwd_entry_brings_no_other_group() -> None:
    default = Account(4711, 4711, (4711, 5), "4711", "/")
    assert resolve_account(None, "wheel", default=default, users=USERS) == Account(4711, 10, (), "4711", "/")


@pytest.mark.parametrize(
    ("uid", "gid", "option", "text"),
    [
        ("eve", None, "uid", "there is no user 'eve'; expected a user name or number"),
        ("", None, "uid", "there is no user ''; expected a user name or number"),
        ("a\0b", None, "uid", r"there is no user 'a\x00b'; expected a user name or number"),
        ("-1", None, "uid", "there is no user '-1'; expected a user name or number"),
        (
            "4711",
            None,
            "uid",
            "4711 has no passwd entry that would name its group; expected gid to be set too",
        ),
        ("4294967295", "0", "uid", "expected a name or a number up to 4294967294, got '4294967295'"),
        ("9" * 5000, "0", "uid", f"expected a name or a number up to 4294967294, got '{'9' * 57}...'"),
        ("bob", "eve", "gid", "there is no group 'eve'; expected a group name or number"),
        ("bob", "a\0b", "gid", r"there is no group 'a\x00b'; expected a group name or number"),
        (None, "4294967295", "gid", "expected a name or a number up to 4294967294, got '4294967295'"),
    ],
)
def test_each_error_names_its_option(uid: str | None, gid: str | None, option: str, text: str) -> None:
    with pytest.raises(AccountError) as raised:
        resolve_account(uid, gid, default=ROOT, users=USERS)
    assert (raised.value.option, str(raised.value)) == (option, text)


def test_groups_that_cannot_be_read_are_an_error() -> None:
    def groups_of(name: str, gid: int) -> list[int]:
        raise OSError(5, "Input/output error")

    users = UserDatabase(USERS.user_by_name, USERS.user_by_id, USERS.group_by_name, groups_of)
    with pytest.raises(AccountError, match=r"^cannot read the groups of 'bob': Input/output error$"):
        resolve_account("bob", None, default=ROOT, users=users)


def test_the_monitor_is_lognot_without_other_groups() -> None:
    expected = Account(990, 990, (), "_lognot", "/home/_lognot")
    assert monitor_account(USERS) == expected


def test_the_monitor_falls_back_to_nobody() -> None:
    found = monitor_account(database({"nobody": (65534, 65534)}, {}))
    assert found == Account(65534, 65534, (), "nobody", "/home/nobody")


def test_without_either_user_there_is_no_monitor() -> None:
    with pytest.raises(
        AccountError, match=r"^there is neither a user '_lognot' nor 'nobody' for the monitor"
    ):
        monitor_account(database({}, {}))


def test_a_monitor_that_is_root_is_refused() -> None:
    with pytest.raises(
        AccountError, match=r"^the monitor's user '_lognot' is root; expected an unprivileged user$"
    ):
        monitor_account(database({"_lognot": (0, 0), "nobody": (65534, 65534)}, {}))


def test_the_current_account_is_this_process() -> None:
    account = current_account()
    assert (account.uid, account.gid) == (os.geteuid(), os.getegid())
    assert account.groups == tuple(sorted({os.getegid(), *os.getgroups()}))


def test_the_current_account_may_have_no_passwd_entry() -> None:
    account = current_account(database({}, {}))
    assert (account.uid, account.name, account.home) == (os.geteuid(), str(os.geteuid()), "/")


def test_the_real_database_knows_root() -> None:
    default = Account(1, 1, (), "x", "/")
    root = resolve_account("root", None, default=default, users=SYSTEM_USERS)
    assert (root.uid, root.gid, root.name) == (0, pwd.getpwnam("root").pw_gid, "root")
    assert resolve_account("0", None, default=default) == root
    assert root.gid in root.groups


@pytest.mark.parametrize(
    "name", ["u" * (MAX_NAME_BYTES + 1), "ü" * (MAX_NAME_BYTES // 2 + 1), "u" * 16 * 1024**2]
)
def test_a_name_that_nobody_can_have_is_not_looked_up(name: str) -> None:
    """Whoever answers may not be made for it: nss-systemd ends the process that asks with megabytes."""

    def refuse(name: str) -> Never:
        pytest.fail("it was looked up")

    users = replace(USERS, user_by_name=refuse, group_by_name=refuse)
    for uid, gid in ((name, None), (None, name)):
        with pytest.raises(AccountError, match="there is no"):
            resolve_account(uid, gid, default=ROOT, users=users)


def test_the_longest_name_is_looked_up() -> None:
    name = "u" * MAX_NAME_BYTES
    assert resolve_account(name, None, default=ROOT, users=database({name: (5, 5)}, {})).uid == 5
