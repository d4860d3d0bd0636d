"""Patterns that explode on lines that were made for it: the item suffers, nothing else does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import ENGINES
from integration.harness import Service, append

LENGTHS = (40, 1_000, 8_000, 64_000, 1_000_000)


def _run(service: Callable[..., Service], log: Path, engine: str, regex: str) -> Service:
    """Write hostile lines and innocent ones in turn; wait until all of the innocent ones were seen."""
    log.touch()
    lognot = service(
        f"[general]\nregex_engine = {engine}\n"
        f"[HOSTILE]\npath = {log}\nregex = {regex}\nupbound_action = echo hostile\n"
        f"[GOOD]\npath = {log}\nregex = ^marker (\\d+)$\nupbound_action = echo $1\n"
    ).start()
    for number, length in enumerate(LENGTHS):
        append(log, b"a" * length + b"!\nmarker %d\n" % number)
    lognot.wait_log(r"\[GOOD\] says: \d+$", len(LENGTHS))
    seen = re.findall(r"\[GOOD\] says: (\d+)$", lognot.log, re.MULTILINE)
    assert sorted(seen) == [str(number) for number in range(len(LENGTHS))]
    assert "[HOSTILE] says" not in lognot.log
    return lognot


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("regex", [r"(a+)+$", r"(?:.|\n)*[xy]"])
def test_a_pattern_that_explodes_is_given_up_and_reported_once(
    service: Callable[..., Service], tmp_path: Path, engine: str, regex: str
) -> None:
    lognot = _run(service, tmp_path / "log", engine, regex)
    lognot.wait_log(r"warning: \[HOSTILE\] regex gave up on \d+ lines")
    assert len(re.findall(r"\[HOSTILE\] regex gave up", lognot.log)) == 1  # in this minute
    assert lognot.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_search_without_end_costs_its_line_only(
    service: Callable[..., Service], tmp_path: Path, engine: str
) -> None:
    """This pattern stays under the limits at each offset of the line, and tries a million of them."""
    lognot = _run(service, tmp_path / "log", engine, r"(?=a)[a-z]+[0-9]")
    lognot.wait_log(r"error: \[HOSTILE\] regex was left out on one line")
    assert lognot.stop() == 0
