"""What a search that does not come back leaves behind, and what the next monitor makes of it."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lognot import guard
from lognot.errors import MatchLimitError
from lognot.files import Stream
from lognot.guard import CAREFUL_LIMIT_S, SEARCH_LIMIT_S, SEARCH_LIMIT_S_PER_BYTE, SearchGuard
from lognot.ledger import Ledger, Search
from lognot.pattern import Pattern, Spans
from lognot.scan import Failure, Hit, Scanner
from lognot.tail import Block, Tail

ITEM = 3
LONG_LINE_BYTES = 768
LONG = b"x" * 1000
BLOCK = Block(b"one\n" + LONG + b"\nthree\n", start=100)
LONG_AT = 4  # in the block
LONG_LIMIT_S = SEARCH_LIMIT_S + len(LONG) * SEARCH_LIMIT_S_PER_BYTE


@pytest.fixture(autouse=True)
def with_jit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LONG_LINE_BYTES", LONG_LINE_BYTES)


@pytest.fixture
def supervisors() -> Ledger:
    return Ledger()


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    fd = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR)
    yield Stream(7, 1, fd, 0, Tail(fd, 4096, generation=2), 0)
    os.close(fd)


class Probe(Pattern):
    """Matches whatever `look`, which is called with each line, does not raise for."""

    def __init__(self, look: Callable[[bytes], None], regex: bytes = b"") -> None:
        super().__init__(regex, "none", 0)
        self._look = look

    def match(self, line: bytes) -> int:
        self._look(line)
        return len(line)

    def whole(self, line: bytes, match: object) -> tuple[int, int]:
        raise AssertionError

    def spans(self, line: bytes, match: object) -> Spans:
        raise AssertionError


class Monitor:
    """As much of one as searches; a new one goes on with the memory that the last one has left."""

    def __init__(self, supervisors: Ledger, look: Callable[[bytes], None], regex: bytes = b"") -> None:
        self.skipped: list[tuple[int, bytes]] = []
        self.guard = SearchGuard(
            copy.copy(supervisors), lambda item_id, line: self.skipped.append((item_id, line))
        )
        self.scanner = Scanner([(ITEM, Probe(look, regex))], LONG_LINE_BYTES, self.guard.search)

    def scan(self, stream: Stream, block: Block = BLOCK) -> list[Hit | Failure]:
        return self.guard.scan(self.scanner, stream, block)


def look_at_nothing(line: bytes) -> None:
    pass


def starts(found: list[Hit | Failure]) -> list[int]:
    return [one.start for one in found if isinstance(one, Hit)]


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Limits are noted and not set: to collect pytest's garbage may take as long."""
    found: list[float] = []

    def setitimer(which: int, limit_s: float) -> None:
        assert which == signal.ITIMER_VIRTUAL
        found.append(limit_s)

    monkeypatch.setattr(signal, "setitimer", setitimer)
    return found


def test_a_search_without_end_is_ended_and_left_out_by_the_next_monitor(
    supervisors: Ledger, stream: Stream
) -> None:
    def never_come_back(line: bytes) -> None:
        while line == LONG:
            pass

    with supervisors.shared():
        pid = os.fork()
    if not pid:
        try:
            Monitor(supervisors, never_come_back).scan(stream)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGVTALRM
    supervisors.convict_search()

    monitor = Monitor(supervisors, never_come_back)
    (death,) = monitor.guard.deaths_of(ITEM)
    assert (death.stream_id, death.position, death.line_bytes) == (7, (2 << 48) + 100 + LONG_AT, len(LONG))
    assert monitor.guard.deaths_of(ITEM + 1) == []
    assert starts(monitor.scan(stream)) == [0, LONG_AT + len(LONG) + 1]
    assert monitor.skipped == [(ITEM, LONG)]
    assert monitor.guard.is_fatal(ITEM, LONG_AT)
    assert not monitor.guard.is_fatal(ITEM, 0)
    assert not monitor.guard.is_fatal(ITEM + 1, LONG_AT)


@pytest.mark.usefixtures("timers")
def test_after_a_truncation_it_is_another_line(supervisors: Ledger, stream: Stream) -> None:
    ledger = copy.copy(supervisors)
    ledger.begin_search(Search(7, stream.tail.position_of(100 + LONG_AT), ITEM))
    supervisors.convict_search()
    stream.tail.generation += 1
    monitor = Monitor(supervisors, look_at_nothing)
    assert len(starts(monitor.scan(stream))) == 3
    assert monitor.skipped == []


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (b"", [LONG_LIMIT_S, 0]),
        # It calls its own groups: any line may take long.
        (
            b"([a-z](?1)?)",
            [
                *(SEARCH_LIMIT_S + 3 * SEARCH_LIMIT_S_PER_BYTE, 0),
                *(LONG_LIMIT_S, 0),
                *(SEARCH_LIMIT_S + 5 * SEARCH_LIMIT_S_PER_BYTE, 0),
            ],
        ),
    ],
)
def test_what_may_take_long_is_limited(
    supervisors: Ledger, stream: Stream, timers: list[float], regex: bytes, expected: list[float]
) -> None:
    Monitor(supervisors, look_at_nothing, regex).scan(stream)
    assert timers == expected


def test_a_search_that_was_given_up_came_back(
    supervisors: Ledger, stream: Stream, timers: list[float]
) -> None:
    def give_up(line: bytes) -> None:
        raise MatchLimitError("too hard")

    found = Monitor(supervisors, give_up).scan(stream)
    assert [type(one) for one in found] == [Failure] * 3
    assert timers == [LONG_LIMIT_S, 0]
    supervisors.convict_search()  # it died of something else
    assert Monitor(supervisors, give_up).guard.deaths_of(ITEM) == []


def test_in_a_block_that_a_monitor_died_in_each_search_is_noted(
    supervisors: Ledger, stream: Stream, timers: list[float]
) -> None:
    def die(line: bytes) -> None:
        if line == b"three":
            raise MemoryError

    with pytest.raises(MemoryError):
        Monitor(supervisors, die).scan(stream)
    assert timers == [LONG_LIMIT_S, 0]

    timers.clear()
    second = Monitor(supervisors, look_at_nothing)
    second.scan(stream, Block(b"four\n", BLOCK.start + len(BLOCK.lines)))
    assert timers == []
    second.scan(stream)
    assert timers == [CAREFUL_LIMIT_S, 0, LONG_LIMIT_S, 0, CAREFUL_LIMIT_S, 0]

    timers.clear()
    third = Monitor(supervisors, look_at_nothing)  # the second one has come through
    third.scan(stream)
    assert timers == [LONG_LIMIT_S, 0]


def test_deaths_are_told_in_their_order_and_none_of_the_future(
    supervisors: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.monotonic_ns()
    found = [Search(1, number, ITEM, died_ns=now_ns - 20 + number) for number in range(20)]
    future = Search(1, 9, ITEM, died_ns=now_ns + 10**15)
    monkeypatch.setattr(Ledger, "fatal_searches", lambda ledger: frozenset({*found, future}))
    monitor = Monitor(supervisors, look_at_nothing)
    assert monitor.guard.deaths_of(ITEM) == found
