"""The options of a config: ONE table of what there is, and the parsers of the values. Pure.

A parser takes the text of a value and returns what it means, or raises ValueError with what is wrong and what
is expected. The table is what the man page, the installed config and the check of a config have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lognot.settings import (
    ENGINES,
    EVERY_MATCH,
    MAX_ACTION_TIMEOUT_S,
    MAX_ATHREAD_COUNT,
    MAX_COMPONENT_BYTES,
    MAX_COUNT,
    MAX_LINE_BYTES,
    MAX_PATH_BYTES,
    MAX_PERIOD_S,
    MAX_SIZE_BYTES,
    MIN_LINE_BYTES,
    Frequency,
)
from lognot.shown import shown

_UNITS = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SWITCH = {"0": False, "1": True, "no": False, "yes": True, "false": False, "true": True}


class Where(Enum):
    """The sections that an option may stand in."""

    GENERAL = "[general]"
    ITEM = "an item"
    ANYWHERE = "an item, or [general] as the default of every item"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    name: str
    where: Where
    form: str  # what a value looks like, for people
    parse: Callable[[str], object]  # raises ValueError
    default: str | None  # as it would be written; None: there is none, and help says what that means
    help: str


def parse_text(text: str) -> str:
    """Return `text`, which must not be empty."""
    if not text:
        raise ValueError("is empty; expected a name or a number")
    return text


def parse_path(text: str) -> str:
    """Return the name of a log as written. Raises ValueError for what cannot be a file's name."""
    if not text:
        raise ValueError("is empty; expected the name of a log file")
    if "\0" in text:
        raise ValueError("holds a NUL byte; expected the name of a log file")
    if text.rpartition("/")[2] in ("", ".", ".."):
        raise ValueError(f"{shown(text)} names a directory; expected the name of a log file")
    if any(len(_encoded(component)) > MAX_COMPONENT_BYTES for component in text.split("/")):
        raise ValueError(f"a name between slashes is longer than {MAX_COMPONENT_BYTES} bytes")
    if len(_encoded(text)) > MAX_PATH_BYTES:
        raise ValueError(f"is longer than {MAX_PATH_BYTES} bytes")
    return text


def parse_directory(text: str) -> str:
    """Return the name of a directory, absolute; "" for an empty value, which is the default one."""
    if text and not text.startswith("/"):
        raise ValueError(f"expected an absolute path, got {shown(text)}")
    if "\0" in text or len(_encoded(text)) > MAX_PATH_BYTES:
        raise ValueError(f"expected a path without NUL of at most {MAX_PATH_BYTES} bytes")
    return text


def absolute_path(text: str, base_dir: str) -> str:
    """Return what `parse_path` returned as an absolute path, a relative one below `base_dir` (absolute).

    Only `//` and `/./` are folded. `..` stays: behind a symlink, `a/..` is not where `a` stands.
    Raises ValueError when the whole is too long.
    """
    joined = text if text.startswith("/") else f"{base_dir}/{text}"
    path = "/" + "/".join(component for component in joined.split("/") if component not in ("", "."))
    return parse_path(path)


def parse_regex(text: str) -> bytes:
    """Return a regex as the bytes that the file holds; whether it compiles is another process's business."""
    if not text:
        raise ValueError("is empty; expected a PCRE, or leave the option out to match every line")
    return _encoded(text)


def parse_action(text: str) -> bytes | None:
    """Return a shell command as bytes; an empty value is no action, to go without the one in [general].

    Whether the command can be run is for `lognot.action` to say, called by `lognot.check`.
    """
    return _encoded(text) or None


def parse_upbound_freq(text: str) -> Frequency:
    """Return COUNT/SECONDS; EVERY_MATCH for an empty value and every COUNT of 0."""
    return _frequency(text) or EVERY_MATCH


def parse_downbound_freq(text: str) -> Frequency | None:
    """Return COUNT/SECONDS; None, which is off, for an empty value and every COUNT of 0."""
    return _frequency(text)


def parse_switch(text: str) -> bool:
    """Return what a yes or no in one of its spellings means."""
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError(f"expected yes or no (1 or 0, true or false), got {shown(text)}") from None


def parse_size(text: str) -> int | None:
    """Return NUMBER[B K M G] in bytes; None, which is off, for an empty value."""
    if not text:
        return None
    size = _size(text)
    if not 1 <= size <= MAX_SIZE_BYTES:
        raise ValueError(f"expected a size from 1 byte to 8 EiB, got {shown(text)}")
    return size


def parse_max_line(text: str) -> int:
    """Return the length in bytes at which a line is cut."""
    size = _size(text)
    if not MIN_LINE_BYTES <= size <= MAX_LINE_BYTES:
        raise ValueError(f"expected a size from 1K to 16M, got {shown(text)}")
    return size


def parse_engine(text: str) -> str:
    """Return the name of a regex engine in lower case."""
    if text.lower() not in ENGINES:
        raise ValueError(f"expected {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, got {shown(text)}")
    return text.lower()


def parse_athread_count(text: str) -> int:
    """Return how many actions may run at the same time."""
    return _between(text, 1, MAX_ATHREAD_COUNT)


def parse_action_timeout(text: str) -> int:
    """Return a time in seconds."""
    return _between(text, 1, MAX_ACTION_TIMEOUT_S)


OPTIONS = (
    Option(
        "athread_count",
        Where.GENERAL,
        "NUMBER",
        parse_athread_count,
        "2",
        "actions that may run at the same time",
    ),
    Option(
        "regex_engine", Where.GENERAL, "auto|pcre|pcre2", parse_engine, "auto", "the library that matches"
    ),
    Option("max_line", Where.GENERAL, "NUMBER[B K M G]", parse_max_line, "1M", "where a longer line is cut"),
    Option(
        "state_dir",
        Where.GENERAL,
        "DIRECTORY",
        parse_directory,
        "",
        "where resume keeps what it needs; unset: /var/lib/lognot",
    ),
    Option("path", Where.ITEM, "FILE", parse_path, None, "the log to watch; every item needs one"),
    Option("regex", Where.ANYWHERE, "PCRE", parse_regex, ".*", "the lines to count"),
    Option("upbound_action", Where.ANYWHERE, "COMMAND", parse_action, "", "runs on too many matches"),
    Option(
        "upbound_freq",
        Where.ANYWHERE,
        "COUNT/SECONDS",
        parse_upbound_freq,
        "0/0",
        "more than COUNT matches within SECONDS are too many; 0/0: every match",
    ),
    Option("downbound_action", Where.ANYWHERE, "COMMAND", parse_action, "", "runs on too few matches"),
    Option(
        "downbound_freq",
        Where.ANYWHERE,
        "COUNT/SECONDS",
        parse_downbound_freq,
        "0/0",
        "fewer than COUNT matches within SECONDS are too few; 0/0: off",
    ),
    Option(
        "usecrc", Where.ANYWHERE, "yes|no", parse_switch, "no", "count each distinct matched text on its own"
    ),
    Option(
        "size", Where.ANYWHERE, "NUMBER[B K M G]", parse_size, "", "size_action runs at each multiple of it"
    ),
    Option(
        "size_action",
        Where.ANYWHERE,
        "COMMAND",
        parse_action,
        "",
        "runs when the log reaches a multiple of size",
    ),
    Option(
        "uid", Where.ANYWHERE, "USER", parse_text, None, "user that actions run as; unset: who started lognot"
    ),
    Option(
        "gid", Where.ANYWHERE, "GROUP", parse_text, None, "group that actions run as; unset: that user's own"
    ),
    Option(
        "action_timeout",
        Where.ANYWHERE,
        "SECONDS",
        parse_action_timeout,
        "300",
        "an action that runs longer is ended",
    ),
    Option(
        "resume",
        Where.ANYWHERE,
        "yes|no",
        parse_switch,
        "no",
        "go on after a restart where reading ended, and miss nothing",
    ),
)

OPTIONS_BY_NAME = {option.name: option for option in OPTIONS}


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _whole_number(text: str) -> int | None:
    """Return the number that ASCII digits make, None for anything else. A long one is only very large."""
    if not (text.isascii() and text.isdigit()):
        return None
    # int() raises above 4,300 digits; 20 are above every bound in here.
    return int((text.lstrip("0") or "0")[:20])


def _between(text: str, low: int, high: int) -> int:
    number = _whole_number(text)
    if number is None or not low <= number <= high:
        raise ValueError(f"expected a whole number from {low} to {high}, got {shown(text)}")
    return number


def _frequency(text: str) -> Frequency | None:
    """Return COUNT/SECONDS, None when COUNT is 0 or the text is empty."""
    if not text:
        return None
    count_text, _, seconds_text = text.partition("/")
    count, seconds = _whole_number(count_text.strip(" \t")), _whole_number(seconds_text.strip(" \t"))
    if count is None or seconds is None:
        raise ValueError(f"expected COUNT/SECONDS, got {shown(text)}")
    if count and not seconds:
        raise ValueError(f"expected SECONDS above 0 when COUNT is, got {shown(text)}")
    if count > MAX_COUNT:
        raise ValueError(f"expected a COUNT up to {MAX_COUNT}, got {shown(text)}")
    if seconds > MAX_PERIOD_S:
        raise ValueError(f"expected SECONDS up to {MAX_PERIOD_S} (366 days), got {shown(text)}")
    return Frequency(count, seconds) if count else None


def _size(text: str) -> int:
    unit = text.lstrip("0123456789")
    number, unit = _whole_number(text.removesuffix(unit)), unit.strip(" \t")
    if number is None or (unit and not unit.isalpha()):
        raise ValueError(f"expected NUMBER[B K M G], got {shown(text)}")
    if unit.upper() not in _UNITS:
        raise ValueError(f"unknown unit {shown(unit)}; expected B, K, M or G, or none for bytes")
    return number * _UNITS[unit.upper()]
