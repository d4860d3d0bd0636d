"""Who actions run as, and who the monitor is: names and numbers to complete accounts. Changes no process.

The databases (passwd(5), group(5) and whatever nsswitch.conf(5) adds) are passed in: tests need no users.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass, replace

from lognot.errors import LognotError
from lognot.shown import shown

MONITOR_USER = "_lognot"
FALLBACK_MONITOR_USER = "nobody"

MAX_NAME_BYTES = 255  # LOGIN_NAME_MAX less its NUL; nss-systemd aborts the whole process over a very long one
MAX_ID = 2**32 - 2  # 2**32 - 1 is -1, which setresuid(2) takes for "leave it as it is"


class AccountError(LognotError):
    """A user or group that cannot be had; `option` is the setting to blame, "uid" or "gid"."""

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


@dataclass(frozen=True, slots=True)
class Account:
    """All ids that a process needs to become this user."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # for setgroups(2), ascending; holds gid too wherever the user has a passwd entry
    name: str  # the number as text where there is no passwd entry
    home: str


@dataclass(frozen=True, slots=True)
class UserDatabase:
    """The look-ups that this module makes; each raises KeyError for what it does not know."""

    user_by_name: Callable[[str], pwd.struct_passwd] = pwd.getpwnam
    user_by_id: Callable[[int], pwd.struct_passwd] = pwd.getpwuid
    group_by_name: Callable[[str], grp.struct_group] = grp.getgrnam
    groups_of: Callable[[str, int], list[int]] = os.getgrouplist


SYSTEM_USERS = UserDatabase()


def resolve_account(
    uid_text: str | None, gid_text: str | None, *, default: Account, users: UserDatabase = SYSTEM_USERS
) -> Account:
    """Return the account that a uid and a gid setting name; None stands for a setting that is not there.

    Only digits are a number, everything else is a name. Without a gid it is the user's own; without a uid it
    is `default`'s user with that gid. Supplementary groups are those of initgroups(3): the gid and all groups
    that list the user. A number without a passwd entry has none.

    Raises AccountError with what is wrong and expected.
    """
    gid = None if gid_text is None else _find_gid(gid_text, users)
    if uid_text is None:
        if gid is None:
            return default
        entry = _user_by_id(default.uid, users)
        groups = () if entry is None else _groups(entry.pw_name, gid, users)
        return replace(default, gid=gid, groups=groups)
    uid = _number("uid", uid_text)
    entry = _user_by_name(uid_text, users) if uid is None else _user_by_id(uid, users)
    if entry is not None:
        return _account(entry, gid, users)
    if uid is None:
        raise AccountError("uid", f"there is no user {shown(uid_text)}; expected a user name or number")
    if gid is None:
        raise AccountError(
            "uid", f"{uid} has no passwd entry that would name its group; expected gid to be set too"
        )
    return Account(uid, gid, (), str(uid), "/")


def current_account(users: UserDatabase = SYSTEM_USERS) -> Account:
    """Return who this process is, with the groups that it has now, not those that a new login would get."""
    uid = os.geteuid()
    entry = _user_by_id(uid, users)
    name, home = (str(uid), "/") if entry is None else (entry.pw_name, entry.pw_dir)
    return Account(uid, os.getegid(), tuple(sorted({os.getegid(), *os.getgroups()})), name, home)


def monitor_account(users: UserDatabase = SYSTEM_USERS) -> Account:
    """Return the monitor's account, without other groups: `_lognot`, or `nobody` where there is none.

    Raises AccountError where neither exists or the one found is root.
    """
    for name in (MONITOR_USER, FALLBACK_MONITOR_USER):
        entry = _user_by_name(name, users)
        if entry is None:
            continue
        if entry.pw_uid == 0:
            raise AccountError(
                "uid", f"the monitor's user {shown(name)} is root; expected an unprivileged user"
            )
        return Account(entry.pw_uid, entry.pw_gid, (), entry.pw_name, entry.pw_dir)
    text = f"there is neither a user {MONITOR_USER!r} nor {FALLBACK_MONITOR_USER!r} for the monitor to run as"
    raise AccountError("uid", text)


def _account(entry: pwd.struct_passwd, gid: int | None, users: UserDatabase) -> Account:
    gid = entry.pw_gid if gid is None else gid
    return Account(entry.pw_uid, gid, _groups(entry.pw_name, gid, users), entry.pw_name, entry.pw_dir)


def _groups(name: str, gid: int, users: UserDatabase) -> tuple[int, ...]:
    try:
        return tuple(sorted({gid, *users.groups_of(name, gid)}))
    except OSError as error:
        raise AccountError("uid", f"cannot read the groups of {shown(name)}: {error.strerror}") from error


def _number(option: str, text: str) -> int | None:
    """Return the id that `text` is, None for a name. Raises AccountError for a number that is no id."""
    if not (text.isascii() and text.isdigit()):
        return None
    significant = text.lstrip("0") or "0"
    if len(significant) > len(str(MAX_ID)) or int(significant) > MAX_ID:
        raise AccountError(option, f"expected a name or a number up to {MAX_ID}, got {shown(text)}")
    return int(significant)


def _find_gid(text: str, users: UserDatabase) -> int:
    gid = _number("gid", text)
    if gid is not None:
        return gid
    try:
        return users.group_by_name(_possible(text)).gr_gid
    except (KeyError, ValueError) as error:
        raise AccountError(
            "gid", f"there is no group {shown(text)}; expected a group name or number"
        ) from error


def _user_by_id(uid: int, users: UserDatabase) -> pwd.struct_passwd | None:
    try:
        return users.user_by_id(uid)
    except KeyError:
        return None


def _user_by_name(name: str, users: UserDatabase) -> pwd.struct_passwd | None:
    try:
        return users.user_by_name(_possible(name))
    except (KeyError, ValueError):  # ValueError: a name that no C string can be, such as one with a NUL
        return None


def _possible(name: str) -> str:
    """Give a name as it is. Raises KeyError for one that is too long to be any user's or group's."""
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise KeyError(name)
    return name
