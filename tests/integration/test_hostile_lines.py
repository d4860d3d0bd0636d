"""Patterns that explode on lines that were made for it: the item suffers, nothing else does."""

from __future__ import annotations

import multiprocessing
import re
import select
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import accounts
from integration.conftest import ENGINES
from integration.harness import Service, append, lines_of, wait_for
from integration.writer import Writer, assert_each_line_once, counting_items

LENGTHS = (40, 1_000, 8_000, 64_000, 1_000_000)
ALARM = "killed by SIGVTALRM"
LINES = 600
ROUNDS = 8


def _run(
    service: Callable[..., Service], log: Path, engine: str, regex: str, lengths: tuple[int, ...] = LENGTHS
) -> Service:
    """Write hostile lines and innocent ones in turn; wait until all of the innocent ones were seen."""
    log.touch()
    lognot = service(
        f"[general]\nregex_engine = {engine}\n"
        f"[HOSTILE]\npath = {log}\nregex = {regex}\nupbound_action = echo hostile\n"
        f"[GOOD]\npath = {log}\nregex = ^marker (\\d+)$\nupbound_action = echo $1\n"
    ).start()
    for number, length in enumerate(lengths):
        append(log, b"a" * length + b"!\nmarker %d\n" % number)
    lognot.wait_log(r"\[GOOD\] says: \d+$", len(lengths))
    seen = re.findall(r"\[GOOD\] says: (\d+)$", lognot.log, re.MULTILINE)
    assert sorted(seen) == [str(number) for number in range(len(lengths))]
    assert "[HOSTILE] says" not in lognot.log
    return lognot


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pattern_that_explodes_is_given_up_and_reported_once(
    service: Callable[..., Service], tmp_path: Path, engine: str
) -> None:
    lognot = _run(service, tmp_path / "log", engine, r"(a+)+$")
    lognot.wait_log(r"warning: \[HOSTILE\] regex gave up on \d+ lines?")
    assert len(re.findall(r"\[HOSTILE\] regex gave up", lognot.log)) == 1  # in this minute
    assert lognot.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("regex", "lengths"),
    # What takes hardly longer than a tick of the timer, as the first does on 8,000, may end before it.
    [(r"(?=a)[a-z]+[0-9]", (40, 1_000, 64_000, 1_000_000)), (r"(?:.|\n)*[xy]", LENGTHS)],
)
def test_a_search_without_end_costs_its_line_only(
    service: Callable[..., Service], tmp_path: Path, engine: str, regex: str, lengths: tuple[int, ...]
) -> None:
    """These stay under the limits at each offset of the line, and try all of them."""
    lognot = _run(service, tmp_path / "log", engine, regex, lengths)
    lognot.wait_log(r"error: \[HOSTILE\] regex was left out on one line.*: 'aaaa")
    lognot.wait_log(rf"monitor ended \({ALARM}\), will be started again now")
    assert lognot.stop() == 0


def test_a_line_that_many_items_die_of_keeps_no_service_from_starting(
    service: Callable[..., Service], tmp_path: Path, environment: dict[str, str]
) -> None:
    """It has more logs than the monitor takes messages at once, so it had read before it was told all."""
    items, logs = 6, 40
    config = "[general]\nresume = yes\n"
    for number in range(items):
        config += f"[SLOW {number}]\npath = @/log\nregex = (a*)\\1[xy]{number}\nupbound_action = true\n"
    for number in range(logs):
        config += f"[OTHER {number}]\npath = @/log{number}\nupbound_action = echo seen\n"
        (tmp_path / f"log{number}").touch()
    (tmp_path / "log").touch()
    lognot = service(config, environment=environment).start()
    lognot.signal(signal.SIGTERM)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    append(tmp_path / "log", b"a" * 20_000 + b" 0 1 2 3 4 5\n")
    lognot.start()
    lognot.wait_log("regex was left out on one line", items)
    append(tmp_path / "log7", "word\n")
    lognot.wait_log(r"\[OTHER 7\] says: seen")
    assert lognot.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_item_that_costs_too_much_is_limited_and_others_miss_nothing(
    service: Callable[..., Service], tmp_path: Path, engine: str
) -> None:
    """Hostile lines, short and long ones, while numbered lines go on in the same log and in another one."""
    same, other = tmp_path / "same", tmp_path / "other"
    short, long = b"\x1b[31m" + b"a" * 750 + b"!\n", b"a" * 64_000 + b"!\n"
    lognot = service(
        f"[general]\nregex_engine = {engine}\n"
        f"[HOSTILE]\npath = {same}\nregex = (a*)\\1[xy]$\nupbound_action = echo hostile\n"
        + counting_items(str(same), LINES)
        + counting_items(str(other), LINES, "2")
    )
    same.touch()
    other.touch()
    lognot.start()
    with Writer(same, LINES, 0.0005, allowed=0) as first, Writer(other, LINES, 0.0005, allowed=0) as second:
        for number in range(ROUNDS):
            append(same, (short if number % 4 else long) * 3)
            if number == 0:  # a death first: afterwards long lines are left out anyway
                lognot.wait_log(r"error: \[HOSTILE\] regex was left out on one line.*: 'aaaa")
            for writer in (first, second):
                writer.round(number, ROUNDS)
        first.finish()
        second.finish()
    # What the lines said is escaped, and told.
    lognot.wait_log(r"warning: \[HOSTILE\] regex has used up its time .* a line such as '\\x1b\[31maaa")
    assert 1 <= lognot.log.count(f"monitor ended ({ALARM})") <= 3  # long lines are not tried again and again
    lognot.wait_log(r"\[ALL2\] fired")
    assert_each_line_once(lognot)
    assert "[TWICE2] fired" not in lognot.log
    assert "[HOSTILE] fired" not in lognot.log
    name = f"lines made for another item's regex ({engine})"
    accounts.fault(name, times=3 * ROUNDS, written=2 * LINES, seen=2 * LINES)


# By PCRE's count this takes few steps, but half a millisecond on each of these lines.
REPEATED = r"(\w+)\1c"
TINY = b"a" * 250 + b"bc-a\n"
FLOOD_S = 3.0
MARKERS = 20  # at least, however long they take
LINES_AT_ONCE, PAUSE_S = 20, 0.005  # 4,000 lines a second
MEDIAN_S = 0.1  # on a busy machine; a few milliseconds on others
WORST_S = 2.0


def _flood(log: Path) -> None:
    """In a process of its own: write until it is killed, or much later."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        append(log, TINY * LINES_AT_ONCE)
        select.select([], [], [], PAUSE_S)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flood_of_tiny_lines_holds_no_other_item_up(
    service: Callable[..., Service], tmp_path: Path, engine: str
) -> None:
    """They meet no limit, and no single one of them takes long."""
    hostile, other, out = tmp_path / "hostile", tmp_path / "other", tmp_path / "out"
    hostile.touch()
    other.touch()
    lognot = service(
        f"[general]\nregex_engine = {engine}\n"
        f"[HOSTILE]\npath = {hostile}\nregex = {REPEATED}\nupbound_action = echo hostile\n"
        f"[SAME]\npath = {hostile}\nregex = ^marker (\\d+)$\nupbound_action = echo $1 >> {out}\n"
        f"[OTHER]\npath = {other}\nregex = ^marker (\\d+)$\nupbound_action = echo $1 >> {out}\n"
    ).start()
    flood = multiprocessing.get_context("fork").Process(target=_flood, args=(hostile,))
    flood.start()
    taken_s: list[float] = []
    try:
        lognot.wait_log(r"warning: \[HOSTILE\] regex has used up its time .* a line such as 'aaaa")
        end_s = time.monotonic() + FLOOD_S
        while time.monotonic() < end_s or len(taken_s) < MARKERS:
            begin_s = time.monotonic()
            append((hostile, other)[len(taken_s) % 2], b"marker %d\n" % len(taken_s))
            wait_for(lambda: len(lines_of(out)) > len(taken_s), "the action of a line of another item")
            taken_s.append(time.monotonic() - begin_s)
    finally:
        flood.kill()
        flood.join()
    assert statistics.median(taken_s) < MEDIAN_S
    assert max(taken_s) < WORST_S
    assert lines_of(out) == [str(number) for number in range(len(taken_s))]
    # It recovers by itself: what it is for is found again.
    wait_for(lambda: _found_again(lognot, hostile), "a match of the item that was limited")
    assert "monitor ended" not in lognot.log
    assert lognot.stop() == 0


def _found_again(lognot: Service, log: Path) -> bool:
    append(log, b"an ababc\n")
    return "[HOSTILE] says: hostile" in lognot.log
