"""The scanner beside the plain way, which tries every pattern on every line: not one line differs."""

from __future__ import annotations

from random import Random

import pytest

from effort import times
from lognot.errors import MatchLimitError, PatternError
from lognot.pattern import Pattern, choose_engine, compile_pattern
from lognot.scan import Failure, Hit, Scanner
from unit.regexes import make_case

REGEXES = times(50_000)  # half of them for each engine, each tried on 7 lines of its own and its neighbours'
TOGETHER = 4  # regexes of one scanner
SEED = 20261123

ENGINES = ("pcre", "pcre2")
PARTS = 8  # tests of each engine, so that a failure is named sooner


def compiled(regex: bytes, engine: str) -> Pattern | None:
    try:
        return compile_pattern(regex, engine)
    except PatternError:
        return None


def plain(patterns: list[tuple[int, Pattern]], lines: list[bytes]) -> list[tuple[int, int, object]]:
    """(line, item, spans) of every match."""
    found = []
    for number, line in enumerate(lines):
        for key, pattern in patterns:
            try:
                spans = pattern.search(line)
            except MatchLimitError:
                continue
            if spans is not None:
                found.append((number, key, spans))
    return found


def scanned(scanner: Scanner, lines: list[bytes]) -> list[tuple[int, int, object]]:
    numbers = {}
    start = 0
    for number, line in enumerate(lines):
        numbers[start] = number
        start += len(line) + 1
    found = []
    for hit in scanner.scan(b"".join(line + b"\n" for line in lines)):
        if isinstance(hit, Failure):
            continue
        assert isinstance(hit, Hit)
        assert hit.line == lines[numbers[hit.start]]
        found.append((numbers[hit.start], hit.key, hit.spans))
    return found


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("engine", ENGINES)
def test_not_one_line_differs(engine: str, part: int) -> None:
    try:
        choose_engine(engine)
    except PatternError as error:
        pytest.skip(str(error))
    random = Random(f"{SEED} {engine} {part}")
    tried = cases = prefiltered = matches = 0
    while tried < REGEXES // len(ENGINES) // PARTS:
        patterns: list[tuple[int, Pattern]] = []
        lines: list[bytes] = []
        for key in range(random.choice((1, TOGETHER))):
            regex, texts = make_case(random)
            tried += 1
            pattern = compiled(regex, engine)
            if pattern is not None:
                patterns.append((key, pattern))
                lines += texts
        random.shuffle(lines)
        cases += len(patterns) * len(lines)
        expected = plain(patterns, lines)
        scanner = Scanner(patterns)
        found = scanned(scanner, lines)
        assert found == expected, [pattern.regex for _, pattern in patterns]
        matches += len(found)
        prefiltered += scanner.has_prefilter
    assert cases > 16 * tried  # a pattern and a line each
    assert matches > tried  # most lines are meant to match something
    assert prefiltered > tried // TOGETHER // 4
