"""Which item matches which line of a block."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import scan
from lognot.budget import (
    CAPACITY_NS,
    FAILED_NS,
    FREE_NS,
    TINY_CAPACITY_NS,
    TINY_DEATHS,
    TINY_LINE_BYTES,
    Budget,
    Rein,
)
from lognot.errors import MatchLimitError, PatternError
from lognot.pattern import SHORT_LINE_BYTES, Pattern, Spans, choose_engine, compile_pattern
from lognot.prefilter import Prefilter
from lognot.scan import Failure, Hit, LeftOut, Overspent, Scanner


def engine_or_skip(engine: str) -> str:
    try:
        return choose_engine(engine)
    except PatternError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["pcre", "pcre2"])
def engine(request: pytest.FixtureRequest) -> str:
    return engine_or_skip(request.param)


def patterns(engine: str, *regexes: bytes) -> list[tuple[int, Pattern]]:
    return [(key, compile_pattern(regex, engine)) for key, regex in enumerate(regexes, 1)]


Found = tuple[int, bytes, int, Spans]  # the line's start, the line, the item's key, and where it matches


def hits(scanner: Scanner, block: bytes) -> list[Found]:
    found = [hit for hit in scanner.scan(block) if isinstance(hit, Hit)]
    return [(hit.start, hit.line, hit.key, hit.spans) for hit in found]


def naive(searched: list[tuple[int, Pattern]], block: bytes) -> Iterator[Found]:
    start = 0
    while start < len(block):
        raw = block[start : block.index(b"\n", start) + 1]
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        for key, pattern in searched:
            spans = pattern.search(line)
            if spans is not None:
                yield start, line, key, spans
        start += len(raw)


class Skip(Pattern):
    """Gives up on every line; counts what it was asked."""

    def __init__(self) -> None:
        super().__init__(b"", "none", 0)
        self.lines: list[bytes] = []

    def match(self, line: bytes) -> None:
        self.lines.append(line)
        raise MatchLimitError("too hard")

    def whole(self, line: bytes, match: object) -> tuple[int, int]:
        raise AssertionError

    def spans(self, line: bytes, match: object) -> Spans:
        raise AssertionError


def test_line_order_then_item_order(engine: str) -> None:
    searched = patterns(engine, rb"b", rb".*", rb"(a)(z)?")
    assert hits(Scanner(searched), b"ab\nxx\nb\n") == [
        (0, b"ab", 1, ((1, 2),)),
        (0, b"ab", 2, ((0, 2),)),
        (0, b"ab", 3, ((0, 1), (0, 1), (-1, -1))),
        (3, b"xx", 2, ((0, 2),)),
        (6, b"b", 1, ((0, 1),)),
        (6, b"b", 2, ((0, 1),)),
    ]


def test_newlines_are_stripped(engine: str) -> None:
    hits = Scanner(patterns(engine, rb".*")).scan(b"a\r\n\r\nb\r\r\n\nc\rd\n")
    assert [(hit.start, hit.line) for hit in hits] == [
        (0, b"a"),
        (3, b""),
        (5, b"b\r"),
        (9, b""),
        (10, b"c\rd"),
    ]


def test_nothing_to_scan(engine: str) -> None:
    assert list(Scanner(patterns(engine, rb".*")).scan(b"")) == []
    assert list(Scanner([]).scan(b"a\n")) == []


def test_unfinished_line_is_a_mistake_of_the_caller(engine: str) -> None:
    with pytest.raises(ValueError, match="no newline"):
        Scanner(patterns(engine, rb".*")).scan(b"a\nb")


@given(
    lines=st.lists(st.binary(max_size=12) | st.sampled_from([b"\r", b"a\r", b"abab", b"\xe9b", b"\x00"])),
    regexes=st.lists(
        st.sampled_from([rb".*", rb"a", rb"(b)|a", rb"^$", rb"\r", rb"[^a]$", rb"\x00", rb"\xe9"])
    ),
)
def test_equals_the_naive_loop(lines: list[bytes], regexes: list[bytes]) -> None:
    searched = patterns("auto", *regexes)
    block = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    assert hits(Scanner(searched), block) == list(naive(searched, block))


def test_a_failure_does_not_stop_the_scan(engine: str) -> None:
    hard = b"a" * 5000 + b"!"
    results = list(Scanner(patterns(engine, rb"(a+)+$", rb"!")).scan(hard + b"\nx!\n"))
    assert [(type(result), result.start, result.key) for result in results] == [
        (Failure, 0, 1),
        (Hit, 0, 2),
        (Hit, 5002, 2),
    ]
    failure = results[0]
    assert isinstance(failure, Failure)
    assert failure.line == hard
    assert "limit" in str(failure.error)


def test_guard_is_entered_around_long_lines_only(engine: str) -> None:
    events: list[tuple[str, int, int]] = []

    @contextmanager
    def guard(key: int, start: int, length: int, calls: bool) -> Iterator[bool]:
        events.append(("enter", key, start))
        yield key != 2
        events.append(("exit", key, start))

    searched = patterns(engine, rb"a", rb"a", rb"b$")
    found = Scanner(searched, 4, guard).scan(b"aaaa\r\naaaab\n")
    assert [(hit.start, hit.key) for hit in found] == [(0, 1), (0, 2), (6, 1), (6, 3)]
    assert events == [(what, key, 6) for key, what in itertools.product((1, 2, 3), ("enter", "exit"))]


def test_guard_sees_the_failure_and_may_raise_one() -> None:
    seen: list[type[BaseException]] = []

    @contextmanager
    def guard(key: int, start: int, length: int, calls: bool) -> Iterator[bool]:
        if key == 2:
            raise MatchLimitError("took too long last time")
        try:
            yield True
        except MatchLimitError as error:
            seen.append(type(error))
            raise

    hard = Skip()
    results = list(Scanner([(1, hard), (2, hard)], 0, guard).scan(b"line\n"))
    assert [(result.key, str(result.error)) for result in results if isinstance(result, Failure)] == [
        (1, "too hard"),
        (2, "took too long last time"),
    ]
    assert hard.lines == [b"line"]
    assert seen == [MatchLimitError]


def test_long_line_bytes_may_change_between_scans() -> None:
    entered: list[int] = []

    @contextmanager
    def guard(key: int, start: int, length: int, calls: bool) -> Iterator[bool]:
        entered.append(start)
        yield True

    scanner = Scanner(patterns("auto", rb"a"), 100, guard)
    list(scanner.scan(b"a\n"))
    assert entered == []
    scanner.long_line_bytes = 0
    list(scanner.scan(b"a\na\n"))
    assert entered == [0, 2]


def test_a_flood_is_seen_and_its_end_too(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most lines hold one item's literal: it is tried on all of them, until they do no more."""
    searched = patterns(engine, rb"flood (\d+)", rb"rare", rb"[xyz]")
    scanner = Scanner(searched)
    flood = b"".join(b"a flood %d of lines\n" % number for number in range(1000)) + b"a rare line\n"
    calm = b"a calm line\n" * 2000 + b"flood 1\nrare z\n"
    monkeypatch.setattr(scan, "FLOOD_LASTS_BYTES", 3 * len(flood))
    for block in (calm, *(flood,) * 6, *(calm,) * 6, flood, calm):
        assert hits(scanner, block) == list(naive(searched, block))


def test_a_flood_that_changes_does_not_have_us_compile_for_each_block(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile log: blocks full of one item's literal and then of another's, small ones between."""
    made: list[object] = []
    monkeypatch.setattr(scan, "Prefilter", lambda *arguments: made.append(0) or Prefilter(*arguments))
    searched = patterns(engine, rb"one (\d+)", rb"two", rb"three")
    scanner = Scanner(searched)
    large = [(word + b" and more\n") * 2000 for word in (b"one 1", b"two")]
    expected = {block: list(naive(searched, block)) for block in (*large, b"x\n")}
    for number in range(200):
        for block in (large[number % 2], *(b"x\n",) * 40):
            assert hits(scanner, block) == expected[block]
    assert 2 <= len(made) <= 4


# What searches cost.


class Slow(Pattern):
    """Matches nothing, in a time that it is given; counts how it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took_ns: int) -> None:
        super().__init__(b"", "none", 0)
        self.took_ns = took_ns
        self.now_ns = 10**9
        self.asked: list[str] = []
        for clock in ("monotonic_ns", "thread_time_ns"):
            monkeypatch.setattr(scan.time, clock, lambda: self.now_ns)

    def _asked(self, how: str) -> None:
        self.asked.append(how)
        self.now_ns += self.took_ns

    def match(self, line: bytes) -> None:
        self._asked("short")

    def match_long(self, line: bytes) -> None:
        self._asked("long")

    def match_least(self, line: bytes) -> None:
        self._asked("least")

    def whole(self, line: bytes, match: object) -> tuple[int, int]:
        raise AssertionError

    def spans(self, line: bytes, match: object) -> Spans:
        raise AssertionError


MIDDLE = b"x" * (TINY_LINE_BYTES + 1) + b"\n"
LONG = b"x" * (SHORT_LINE_BYTES + 1) + b"\n"


def test_a_slow_item_is_put_on_a_rein_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, budget = Slow(monkeypatch, 2 * CAPACITY_NS), Budget()
    scanner = Scanner([(7, slow)], SHORT_LINE_BYTES, budgets=[budget])
    assert scanner.scan(MIDDLE) == []  # seen to be slow: from here on the CPU clock is asked
    found = scanner.scan(MIDDLE)
    assert [(type(one), one.key, one.line) for one in found] == [(Overspent, 7, MIDDLE[:-1])]
    assert slow.asked == ["short", "short"]
    slow.took_ns = 1000
    assert [type(one) for one in scanner.scan(MIDDLE + LONG)] == [LeftOut]
    assert slow.asked[2:] == ["least"]
    slow.now_ns += 2 * 10**9
    assert scanner.scan(MIDDLE + LONG) == []
    assert slow.asked[3:] == ["short", "long"]


def test_a_rein_holds_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch, CAPACITY_NS // 2 + 2 * FREE_NS)
    Scanner([(7, slow)], SHORT_LINE_BYTES, budgets=[Budget()]).scan(MIDDLE * 100)
    # Slow under a short rein too, it gets a shorter one, under which it looks at no such line.
    assert slow.asked == ["short"] * 4 + ["least"] * 2


TINY = b"x" * (TINY_LINE_BYTES - 1) + b"\n"
SLOW_NS = 600_000  # a back-reference on such a line, which meets no limit


@pytest.mark.parametrize("lines", [1, 20, 500])
def test_a_flood_of_tiny_lines_is_paid_for(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """However many come at once: the item is told of, and then searched as often as it can pay for."""
    slow, budget = Slow(monkeypatch, SLOW_NS), Budget()
    scanner, found = Scanner([(7, slow)], SHORT_LINE_BYTES, budgets=[budget]), []
    begin_ns = slow.now_ns
    for _ in range(10_000 // lines):
        found += scanner.scan(TINY * lines)
        slow.now_ns += 250_000 * lines
    told = [one for one in found if isinstance(one, Overspent)]
    assert (told[0].key, told[0].line) == (7, TINY[:-1])
    assert any(isinstance(one, LeftOut) for one in found)
    spent_ns = len(slow.asked) * SLOW_NS
    unseen_ns = 2 * scan.STRIDE_BYTES // len(TINY) * SLOW_NS  # until the clock is looked at
    assert spent_ns < 1.2 * (TINY_CAPACITY_NS + 0.02 * (slow.now_ns - begin_ns)) + unseen_ns
    # It recovers by itself.
    slow.now_ns += 3 * 10**9
    slow.took_ns = 1000
    assert scanner.scan(TINY * 10) == []
    assert slow.asked[-10:] == ["short"] * 10


def test_a_block_of_tiny_lines_takes_no_longer_than_a_stride_and_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(monkeypatch, SLOW_NS)
    begin_ns = slow.now_ns
    Scanner([(7, slow)], SHORT_LINE_BYTES, budgets=[Budget()]).scan(TINY * 512)
    assert slow.now_ns - begin_ns < 1.2 * TINY_CAPACITY_NS + (scan.STRIDE_BYTES // len(TINY) + 1) * SLOW_NS


def test_a_busy_log_of_cheap_lines_costs_no_item_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand a second, by a regex that takes all the time that there is."""
    busy, budget = Slow(monkeypatch, 10_000), Budget()
    scanner = Scanner([(7, busy)], SHORT_LINE_BYTES, budgets=[budget])
    for _ in range(200):
        assert scanner.scan(b"x" * 99 + b"\n" + b"x\n" * 999) == []
    assert budget.rein is Rein.FREE
    assert busy.asked == ["short"] * 200_000


def test_one_that_waits_for_the_processor_is_not_taken_for_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, budget = Slow(monkeypatch, SLOW_NS), Budget()
    monkeypatch.setattr(scan.time, "thread_time_ns", lambda: waiting.now_ns // 100)
    scanner = Scanner([(7, waiting)], SHORT_LINE_BYTES, budgets=[budget])
    assert scanner.scan(TINY * 2000) == []
    assert budget.rein is Rein.FREE


def test_the_one_that_is_slow_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = Slow(monkeypatch, SLOW_NS), Slow(monkeypatch, 0)
    for clock in ("monotonic_ns", "thread_time_ns"):
        monkeypatch.setattr(scan.time, clock, lambda: slow.now_ns)
    budgets = [Budget(), Budget()]
    found = Scanner([(1, quick), (2, slow)], SHORT_LINE_BYTES, budgets=budgets).scan(TINY * 512)
    assert {one.key for one in found} == {2}
    assert [budget.rein for budget in budgets] == [Rein.FREE, Rein.NOTHING]
    assert len(quick.asked) == 512


def test_limits_that_are_met_again_and_again_put_an_item_on_a_rein() -> None:
    hard, budget = Skip(), Budget()
    found = Scanner([(7, hard)], SHORT_LINE_BYTES, budgets=[budget]).scan(
        b"line\n" * (2 * CAPACITY_NS // FAILED_NS)
    )
    assert [type(one) for one in found].count(Overspent) == 1
    assert budget.rein is Rein.FEW_STEPS
    assert len(hard.lines) == 2 * CAPACITY_NS // FAILED_NS  # it was asked all the same


def test_other_items_are_searched_as_ever(engine: str) -> None:
    budget = Budget()
    for _ in range(TINY_DEATHS):
        budget.ban(10**18, 4)
    searched = patterns(engine, rb"a", rb"a(b)?")
    scanner = Scanner(searched, SHORT_LINE_BYTES, budgets=[budget, Budget()])
    found = scanner.scan(b"ab\n\n" + b"b" * 2000 + b"a\n")
    assert [(type(one), one.start, one.key) for one in found] == [
        (LeftOut, 0, 1),
        (Hit, 0, 2),
        (LeftOut, 4, 1),
        (Hit, 4, 2),
    ]


def test_what_calls_its_groups_is_guarded_on_every_line() -> None:
    entered: list[tuple[int, int, bool]] = []

    @contextmanager
    def guard(key: int, start: int, length: int, calls: bool) -> Iterator[bool]:
        entered.append((key, length, calls))
        yield True

    searched = patterns("auto", rb"(a(?1)?b)", rb"a")
    Scanner(searched, 5, guard).scan(b"aabb\naaabbb\n")
    assert entered == [(1, 4, True), (1, 6, True), (2, 6, False)]


@given(
    line=st.binary(max_size=80).filter(lambda line: b"\n" not in line)
    | st.text("ab!x", max_size=80).map(str.encode),
    regex=st.sampled_from(
        [
            rb"a*a*a*[xy]",
            rb"(a|b)*x",
            rb"(a+)+$",
            rb"(a*)\1x",
            rb"b.*a",
            rb"(?=.*x)a",
            rb"[^a]+$",
            rb"(\w+\s?)+$",
        ]
    ),
)
def test_few_steps_give_the_true_match_or_none(line: bytes, regex: bytes) -> None:
    for engine in ("pcre", "pcre2"):
        try:
            choose_engine(engine)
        except PatternError:
            continue
        pattern = compile_pattern(regex, engine)
        try:
            match = pattern.match_least(line)
        except MatchLimitError:
            continue
        assert (None if match is None else pattern.spans(line, match)) == pattern.search(line)
