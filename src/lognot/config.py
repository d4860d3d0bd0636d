"""The config file and its drop-ins: bytes in, a checked Config or every problem at once out.

Run by the supervisor, with whatever privilege it was started with, and by the executor. Neither compiles a
regex here, since the root process must not load the regex engine: `lognot.check` does that elsewhere.

The values live in `lognot.settings`, the table of options in `lognot.options`, the reading of the files in
`lognot.sources`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lognot.errors import Problem, in_reading_order
from lognot.ini import Source, parse_ini
from lognot.items import Checker
from lognot.settings import (
    EVERY_MATCH,
    Config,
    Frequency,
    Item,
    config_from_json,
    config_to_json,
)
from lognot.sources import read_sources
from lognot.users import SYSTEM_USERS, Account, UserDatabase, current_account

__all__ = [
    "EVERY_MATCH",
    "Config",
    "Frequency",
    "Item",
    "Source",
    "config_from_json",
    "config_to_json",
    "draft_config",
    "parse_config",
]


def draft_config(
    path: str,
    *,
    uid: str | None = None,
    gid: str | None = None,
    base_dir: str,
    users: UserDatabase = SYSTEM_USERS,
) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return what could be understood of the file `path` and its drop-ins, and all problems in reading order.

    Arguments as of `parse_config`. With an error among the problems it is a draft that must not be used, but
    can be searched for further errors (lognot.check), so that all are said at once. None only when the file
    `path` cannot be read, which is one problem.
    """
    sources, unread = read_sources(path)
    if not sources:
        return None, unread
    config, problems = _parse(sources, uid, gid, base_dir, None, users)
    return config, in_reading_order((*unread, *problems))


def parse_config(
    data: bytes,
    source: str,
    *,
    dropins: Sequence[Source] = (),
    uid: str | None = None,
    gid: str | None = None,
    base_dir: str = "/",
    started_by: Account | None = None,
    users: UserDatabase = SYSTEM_USERS,
) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return the config, None when there is an error in it, and all problems in reading order.

    `data` is what the file `source` holds; `dropins` are read after it. `uid` and `gid` come from the command
    line and each replace the option of that name everywhere. `base_dir` (absolute) is where relative paths
    begin. `started_by` is who actions run as when nothing else is said, by default the user of this process.
    Never raises because of what the files, `uid` or `gid` say.
    """
    config, problems = _parse((Source(source, data), *dropins), uid, gid, base_dir, started_by, users)
    return (None if any(not problem.warning for problem in problems) else config), problems


def _parse(
    sources: Sequence[Source],
    uid: str | None,
    gid: str | None,
    base_dir: str,
    started_by: Account | None,
    users: UserDatabase,
) -> tuple[Config, tuple[Problem, ...]]:
    sections, syntax_problems = parse_ini(sources)
    main, *dropins = (source.path for source in sources)
    overrides = {name: value for name, value in (("uid", uid), ("gid", gid)) if value is not None}
    started_by = started_by or current_account(users)
    checker = Checker(main, tuple(dropins), overrides, base_dir, started_by, users)
    checker.problems.update(dict.fromkeys(syntax_problems))
    config = checker.check(sections)
    return config, in_reading_order(checker.problems)
