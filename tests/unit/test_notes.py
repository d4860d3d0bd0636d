"""Notes come at once when they are rare, and together when they are not."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import notes as notes_module
from lognot.loop import Loop, Timer
from lognot.messages import MAX_QUOTE_BYTES, Note, Notice, encode
from lognot.notes import INTERVAL_NS, Notes

CUT, FAILED = Notice.LINE_CUT, Notice.MATCH_FAILED


class Clock(Loop):
    """A loop whose time passes only when it is told so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**15
        self.order = itertools.count()
        self.due: list[tuple[int, int, Callable[[], None]]] = []
        patch.setattr(notes_module.time, "monotonic_ns", lambda: self.now_ns)

    def call_at(self, deadline_ns: int, call: Callable[[], None]) -> Timer:
        heapq.heappush(self.due, (deadline_ns, next(self.order), call))
        return Timer(call)

    def pass_ns(self, span_ns: int) -> None:
        end_ns = self.now_ns + span_ns
        while self.due and self.due[0][0] <= end_ns:
            self.now_ns, _, call = heapq.heappop(self.due)
            call()
        self.now_ns = end_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_first_is_said_at_once_and_nothing_wakes_for_it(clock: Clock) -> None:
    sent: list[Note] = []
    Notes(clock, sent.append).say(CUT, 3, 2, b"text")
    assert sent == [Note(CUT, 3, 2, b"text")]
    assert not clock.due


def test_repeats_are_said_together_after_a_minute_with_the_last_text(clock: Clock) -> None:
    sent: list[Note] = []
    notes = Notes(clock, sent.append)
    for number in range(1, 5):
        notes.say(FAILED, 3, number, b"text %d" % number)
        clock.pass_ns(10**9)
    assert sent == [Note(FAILED, 3, 1, b"text 1")]
    clock.pass_ns(INTERVAL_NS)
    assert sent[1:] == [Note(FAILED, 3, 2 + 3 + 4, b"text 4")]
    assert not clock.due


def test_what_has_gathered_is_said_before_the_end_and_only_once(clock: Clock) -> None:
    sent: list[Note] = []
    notes = Notes(clock, sent.append)
    for about in (3, 3, 4, 4, 4):
        notes.say(CUT, about, 1, b"text")
    notes.flush()
    assert sent[2:] == [Note(CUT, 3, 1, b"text"), Note(CUT, 4, 2, b"text")]
    clock.pass_ns(2 * INTERVAL_NS)
    notes.flush()
    assert len(sent) == 4


def test_after_a_quiet_minute_it_is_said_at_once_again(clock: Clock) -> None:
    sent: list[Note] = []
    notes = Notes(clock, sent.append)
    for _ in range(3):
        notes.say(CUT, 1)
        clock.pass_ns(INTERVAL_NS)
    assert len(sent) == 3


def test_kinds_and_things_do_not_hold_up_each_other(clock: Clock) -> None:
    sent: list[Note] = []
    notes = Notes(clock, sent.append)
    for notice, about in ((CUT, 1), (CUT, 2), (FAILED, 1)):
        notes.say(notice, about)
    assert [(note.notice, note.about) for note in sent] == [(CUT, 1), (CUT, 2), (FAILED, 1)]


def test_a_long_text_is_cut(clock: Clock) -> None:
    sent: list[Note] = []
    notes = Notes(clock, sent.append)
    for _ in range(2):
        notes.say(FAILED, 1, 1, b"x" * 10**6)
    clock.pass_ns(INTERVAL_NS)
    assert [len(note.text) for note in sent] == [MAX_QUOTE_BYTES] * 2
    assert all(encode(note) for note in sent)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 40)), max_size=100))
def test_nothing_is_lost_and_no_kind_comes_twice_a_minute(steps: list[tuple[int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        sent: list[tuple[int, Note]] = []
        notes = Notes(clock, lambda note: sent.append((clock.now_ns, note)))
        for about, number, seconds in steps:
            notes.say(CUT, about, number)
            clock.pass_ns(seconds * 10**9)
        clock.pass_ns(2 * INTERVAL_NS)
        for about in range(3):
            said = [(at_ns, note.number) for at_ns, note in sent if note.about == about]
            assert sum(number for _, number in said) == sum(n for other, n, _ in steps if other == about)
            times = [at_ns for at_ns, _ in said]
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert all(gap >= INTERVAL_NS for gap in gaps)
