"""`--test` and `--retest`: try a config or a regex. Start nothing, need no privilege."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from lognot.check import check_config
from lognot.config import Config, draft_config
from lognot.errors import MatchLimitError, PatternError, in_reading_order
from lognot.options import OPTIONS_BY_NAME, parse_max_line
from lognot.pattern import choose_engine, compile_pattern
from lognot.shown import counted, printable


def try_config(path: str, uid: str | None, gid: str | None, directory: str | None) -> int:
    """Check a config and print every problem, one a line; give 0 when it can be used, else 1."""
    base_dir = os.path.abspath(directory or os.getcwd())
    config, problems = draft_config(path, uid=uid, gid=gid, base_dir=base_dir)
    if config is not None:
        problems = (*problems, *check_config(config))
    for problem in in_reading_order(problems):
        print(printable(str(problem)), file=sys.stderr)
    if any(not problem.warning for problem in problems):
        return 1
    assert config is not None
    print(printable(f"{path}: ok, {_summary(config)}"))
    return 0


def _summary(config: Config) -> str:
    text = counted(len(config.items), "item")
    if not config.dropins:
        return text
    count, files = sum(item.source != config.source for item in config.items), len(config.dropins)
    directory = os.path.dirname(config.dropins[0])
    return f"{text} ({count} of them in {counted(files, 'file')} in {directory})"


def _cut_lines(lines: BinaryIO) -> Iterator[bytes]:
    """Give lines, cut where the service cuts them: a hole in a log is a line of any length."""
    max_bytes = parse_max_line(OPTIONS_BY_NAME["max_line"].default or "")
    while line := lines.readline(max_bytes + 1):
        yield line[:max_bytes].removesuffix(b"\n").removesuffix(b"\r")
        while line and not line.endswith(b"\n"):
            line = lines.readline(max_bytes)


def try_regex(regex: str, lines: BinaryIO, output: TextIO) -> int:
    """Print for each line what the regex finds in it; give 0 when it found anything, else 1.

    What comes from the lines is escaped: it goes to a terminal.
    """
    try:
        pattern = compile_pattern(os.fsencode(regex), choose_engine("auto"))
    except PatternError as error:
        print(printable(f"lognot: regex: {error}"), file=sys.stderr)
        return 1
    matched = False
    for number, line in enumerate(_cut_lines(lines), 1):
        try:
            spans = pattern.search(line)
        except MatchLimitError as error:
            print(f"{number}: no match, the regex gave up: {error}", file=output)
            continue
        if spans is None:
            print(f"{number}: no match", file=output)
            continue
        matched = True
        for group, (start, end) in enumerate(spans):
            text = line[start:end] if start >= 0 else b""
            print(f"{number}: ${group} = {printable(text)}", file=output)
    return 0 if matched else 1
