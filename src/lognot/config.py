"""The config file: bytes in, a checked Config or every problem at once out.

Run by the supervisor, with whatever privilege it was started with, and by the executor. Neither compiles a
regex here, since the root process must not load the regex engine: `lognot.check` does that elsewhere.

The values live in `lognot.settings`, the table of options in `lognot.options`.
"""

from __future__ import annotations

from lognot.errors import ConfigError, Problem
from lognot.ini import parse_ini
from lognot.items import Checker
from lognot.settings import (
    EVERY_MATCH,
    Config,
    Frequency,
    Item,
    config_from_json,
    config_to_json,
)
from lognot.users import SYSTEM_USERS, Account, UserDatabase, current_account

__all__ = [
    "EVERY_MATCH",
    "Config",
    "Frequency",
    "Item",
    "config_from_json",
    "config_to_json",
    "draft_config",
    "load_config",
    "parse_config",
    "read_config",
]

MAX_CONFIG_BYTES = 16 * 1024**2  # MAX_ITEMS items of 4 KiB: `--config /dev/zero` must come to an end


def load_config(
    path: str,
    *,
    uid: str | None = None,
    gid: str | None = None,
    base_dir: str,
    users: UserDatabase = SYSTEM_USERS,
) -> Config:
    """Return the config in the file `path`. `read_config` takes the same and returns the warnings too.

    Raises ConfigError with all problems, warnings among them, when any of them is an error.
    """
    config, problems = read_config(path, uid=uid, gid=gid, base_dir=base_dir, users=users)
    if config is None:
        raise ConfigError(problems)
    return config


def read_config(
    path: str,
    *,
    uid: str | None = None,
    gid: str | None = None,
    base_dir: str,
    users: UserDatabase = SYSTEM_USERS,
) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return what `parse_config` makes of the file `path`. Not being able to read it is one problem."""
    return _without_errors(*draft_config(path, uid=uid, gid=gid, base_dir=base_dir, users=users))


def draft_config(
    path: str,
    *,
    uid: str | None = None,
    gid: str | None = None,
    base_dir: str,
    users: UserDatabase = SYSTEM_USERS,
) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return the same as `read_config`, but what could be understood of a config with errors too.

    Such a draft is to be searched for further errors (lognot.check), so that all are said at once, and must
    not be used. None only when the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return None, (Problem(path, 0, "", "", f"cannot read the config: {reason}"),)
    if len(data) > MAX_CONFIG_BYTES:
        return None, (Problem(path, 0, "", "", f"is longer than {MAX_CONFIG_BYTES} bytes"),)
    return _parse(data, path, uid, gid, base_dir, None, users)


def parse_config(
    data: bytes,
    source: str,
    *,
    uid: str | None = None,
    gid: str | None = None,
    base_dir: str = "/",
    started_by: Account | None = None,
    users: UserDatabase = SYSTEM_USERS,
) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return the config that `data` holds, None when there is an error in it, and all problems in line order.

    `uid` and `gid` come from the command line and each replace the option of that name everywhere. `base_dir`
    (absolute) is where relative paths begin. `started_by` is who actions run as when nothing else is said, by
    default the user of this process. Never raises because of `data`, `uid` or `gid`.
    """
    return _without_errors(*_parse(data, source, uid, gid, base_dir, started_by, users))


def _parse(
    data: bytes,
    source: str,
    uid: str | None,
    gid: str | None,
    base_dir: str,
    started_by: Account | None,
    users: UserDatabase,
) -> tuple[Config, tuple[Problem, ...]]:
    sections, syntax_problems = parse_ini(data, source)
    overrides = {name: value for name, value in (("uid", uid), ("gid", gid)) if value is not None}
    checker = Checker(source, overrides, base_dir, started_by or current_account(users), users)
    checker.problems.update(dict.fromkeys(syntax_problems))
    config = checker.check(sections)
    return config, tuple(sorted(checker.problems, key=lambda problem: problem.line))


def _without_errors(
    config: Config | None, problems: tuple[Problem, ...]
) -> tuple[Config | None, tuple[Problem, ...]]:
    return (None if any(not problem.warning for problem in problems) else config), problems
