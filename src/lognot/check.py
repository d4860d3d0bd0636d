"""What can be said about a config only with the regex engine, the shell's rules or a look at the file system.

Run by `--test` and, before a start or a reload, in an unprivileged child: never in the supervisor, which must
not load the regex engine. Nothing in here raises because of what a config says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from lognot.action import parse_template, placeholders, plain_template
from lognot.errors import PatternError, Problem, in_reading_order
from lognot.lint import action_warnings
from lognot.pattern import choose_engine, compile_pattern
from lognot.quoting import TemplateError
from lognot.settings import Config, Item

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def check_config(config: Config) -> tuple[Problem, ...]:
    """Return what the three checks below have to say, in reading order."""
    return in_reading_order([*check_patterns(config), *check_actions(config), *check_logs(config)])


def check_patterns(config: Config) -> tuple[Problem, ...]:
    """Return what is wrong with the regexes and with the groups that upbound actions use, in reading order.

    Where no engine can be had, that is the only problem.
    """
    try:
        engine = choose_engine(config.regex_engine)
    except PatternError as error:
        line = config.lines.get("regex_engine", 0)
        return (Problem(config.source, line, "general", "regex_engine", str(error)),)
    found: dict[bytes, int | PatternError] = {}  # a regex in [general] is compiled once
    problems: list[Problem] = []
    for item in config.items:
        if item.regex not in found:
            found[item.regex] = _group_count(item.regex, engine)
        count = found[item.regex]
        if isinstance(count, PatternError):
            problems.append(_problem(config, item, "regex", str(count)))
        else:
            problems.extend(_missing_groups(config, item, count))
    return in_reading_order(problems)


def check_actions(config: Config) -> tuple[Problem, ...]:
    """Return what is wrong (errors) and what is risky (warnings) in the actions' texts, in reading order."""
    problems: list[Problem] = []
    for item in config.items:
        for option, action in (
            ("downbound_action", item.downbound_action),
            ("size_action", item.size_action),
        ):
            try:
                plain_template(action or b"")
            except TemplateError as error:
                problems.append(_problem(config, item, option, str(error)))
        try:
            parse_template(item.upbound_action or b"")
            texts = action_warnings(item.upbound_action or b"")
        except TemplateError as error:
            problems.append(_problem(config, item, "upbound_action", str(error)))
        else:
            problems.extend(_problem(config, item, "upbound_action", text, warning=True) for text in texts)
    return in_reading_order(problems)


def check_logs(config: Config) -> tuple[Problem, ...]:
    """Return what is to be said about the logs as they are now, in reading order.

    A log that does not exist yet, or that this user may not look at, is a warning. One that is no regular
    file is an error, since lognot would refuse to open it.
    """
    problems: list[Problem] = []
    for item in config.items:
        if not item.path:  # of a draft, and said already
            continue
        try:
            mode = os.stat(item.path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            text = "does not exist yet; will be watched when it appears"
            problems.append(_problem(config, item, "path", text, warning=True))
        except OSError as error:
            text = f"cannot be looked at: {error.strerror}"
            problems.append(_problem(config, item, "path", text, warning=True))
        else:
            if not stat.S_ISREG(mode):
                kind = _KINDS.get(stat.S_IFMT(mode), "something else")
                problems.append(_problem(config, item, "path", f"is {kind}; expected a regular file"))
    return in_reading_order(problems)


def _group_count(regex: bytes, engine: str) -> int | PatternError:
    """Return how many groups a regex has, or why it does not compile."""
    try:
        return compile_pattern(regex, engine).groups
    except PatternError as error:
        return error


def _missing_groups(config: Config, item: Item, count: int) -> Iterator[Problem]:
    try:
        used = placeholders(item.upbound_action or b"")
    except TemplateError:
        return  # said by check_actions()
    has = "no group" if not count else "only 1 group" if count == 1 else f"only {count} groups"
    for number in sorted(used):
        if number > count:
            text = f"${number}: the regex has {has}; expected \\${number} if the shell's own is meant"
            yield _problem(config, item, "upbound_action", text)


def _problem(config: Config, item: Item, option: str, text: str, *, warning: bool = False) -> Problem:
    return Problem(*config.place_of(item, option), item.name, option, text, warning)
