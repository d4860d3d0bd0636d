"""A made-up user database and the accounts in it."""

from __future__ import annotations

import grp
import pwd

from lognot.users import Account, UserDatabase

ROOT = Account(0, 0, (0,), "root", "/root")


def database(
    users: dict[str, tuple[int, int]], groups: dict[str, tuple[int, tuple[str, ...]]]
) -> UserDatabase:
    """Make a database of name: (uid, gid) and name: (gid, members), which raises what the real one raises."""

    # Entries are made anew for each answer: Python 3.11 trips over struct sequences that live until its end.
    def by_name(name: str) -> pwd.struct_passwd:
        if "\0" in name:
            raise ValueError("embedded null byte")
        uid, gid = users[name]
        return pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", ""))

    def by_id(uid: int) -> pwd.struct_passwd:
        return by_name({number: name for name, (number, _) in users.items()}[uid])

    def group_by_name(name: str) -> grp.struct_group:
        if "\0" in name:
            raise ValueError("embedded null byte")
        gid, members = groups[name]
        return grp.struct_group((name, "x", gid, list(members)))

    def groups_of(name: str, gid: int) -> list[int]:
        return [gid, *(number for number, members in groups.values() if name in members)]

    return UserDatabase(by_name, by_id, group_by_name, groups_of)


USERS = database(
    {"root": (0, 0), "bob": (1000, 1000), "_lognot": (990, 990)},
    {"adm": (4, ("bob", "root")), "wheel": (10, ()), "backup": (2, ("bob",)), "bob": (1000, ("bob",))},
)
BOB = Account(1000, 1000, (2, 4, 1000), "bob", "/home/bob")
