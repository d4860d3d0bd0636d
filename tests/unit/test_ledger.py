"""What outlives a monitor: exactly what it has committed, whenever it is killed."""

from __future__ import annotations

import copy
import faulthandler
import os
import resource
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import ledger as module
from lognot.files import MAX_UNCOMMITTED, Files
from lognot.ledger import (
    FATAL_DEATHS,
    JOURNAL_RECORDS,
    MAX_FATAL,
    MAX_KEY_BYTES,
    MAX_OFFSET,
    MAX_STREAMS,
    SUSPECT_BYTES,
    Anchor,
    Counted,
    Ledger,
    Position,
    Record,
    Search,
    SuspectBlock,
    restated_records,
)
from lognot.messages import LogOpened, Notice, Start

SEARCH = Search(stream_id=7, position=2**48 + 5, item_id=3)


@pytest.fixture
def supervisors() -> Ledger:
    return Ledger()


def new_monitor(supervisors: Ledger) -> Ledger:
    """What a fork does: the same memory, and everything else as the supervisor has it."""
    return copy.copy(supervisors)


def write(ledger: Ledger, one: Record) -> None:
    ledger.count(one.time_ns, one.item_id, one.kind, (one.key,))


def record(number: int, key: bytes | None = None) -> Record:
    return Record(number, number % 7, Counted.MATCH, key)


positions = st.builds(
    Position,
    stream_id=st.integers(1, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
    generation=st.integers(0, 2**32 - 1),
    skipping=st.booleans(),
    digest=st.sampled_from([b"", b"0123456789abcdef", bytes(16)]),
    judged_size=st.integers(0, MAX_OFFSET),
    anchor=st.none()
    | st.builds(
        Anchor, st.integers(1, MAX_OFFSET), st.booleans(), st.sampled_from([b"fedcba9876543210", bytes(16)])
    ),
)
records = st.builds(
    Record,
    time_ns=st.integers(0, 2**63),
    item_id=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(list(Counted)),
    key=st.none() | st.binary(max_size=MAX_KEY_BYTES),
)


@examples(50)
@given(st.dictionaries(st.sampled_from([0, 1, 2, MAX_STREAMS - 1]), positions), st.lists(records, max_size=5))
def test_what_is_committed_comes_back(committed: dict[int, Position], counted: list[Record]) -> None:
    supervisors = Ledger()
    monitor = new_monitor(supervisors)
    for one in counted:
        write(monitor, one)
    monitor.commit([*committed.items(), (3, Position(1))])
    successor = new_monitor(supervisors)
    assert list(successor.replay()) == counted
    assert {slot: successor.position(slot) for slot in committed} == committed


def test_what_is_not_committed_does_not_come_back(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    monitor.assign(0, Position(1))
    write(monitor, record(1))
    monitor.commit([(0, Position(1, offset=10))])
    write(monitor, record(2))
    monitor.assign(1, Position(2, offset=20))  # another file begins: no reason to commit anything
    successor = new_monitor(supervisors)
    assert list(successor.replay()) == [record(1)]
    assert successor.position(0) == Position(1, offset=10)
    assert successor.position(1) == Position(2, offset=20)
    write(successor, record(3))
    successor.commit([(0, Position(1, offset=11))])
    assert list(new_monitor(supervisors).replay()) == [record(1), record(3)]


def test_settled_records_need_no_lines(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    started = Record(5, 1, Counted.STARTED)
    write(monitor, started)
    assert list(new_monitor(supervisors).replay()) == []
    monitor.settle()
    assert list(new_monitor(supervisors).replay()) == [started]


def test_a_slot_is_used_again(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    monitor.assign(0, Position(1))
    monitor.assign(1, Position(2))
    write(monitor, record(1))
    monitor.commit([(1, Position(2, 100, 3, True, b"x" * 16))])
    supervisors.assign(1, Position(3))  # the file with the highest head is gone
    assert supervisors.position(1) == Position(3)
    successor = new_monitor(supervisors)
    assert list(successor.replay()) == [record(1)]


def test_the_oldest_records_give_way(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    for number in range(JOURNAL_RECORDS + 10):
        write(monitor, record(number))
    monitor.commit([(0, Position(1))])
    kept = list(new_monitor(supervisors).replay())
    assert kept == [record(number) for number in range(10, JOURNAL_RECORDS + 10)]


def test_uncommitted_records_are_never_taken_for_those_that_they_replaced(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    for number in range(JOURNAL_RECORDS):
        write(monitor, record(number))
    monitor.commit([(0, Position(1))])
    for number in range(100):
        write(monitor, record(10**9 + number))
    kept = [record(number) for number in range(100, JOURNAL_RECORDS)]
    successor = new_monitor(supervisors)
    assert list(successor.replay()) == kept
    # Its own, fewer ones do not bring the others back.
    for number in range(10):
        write(successor, record(2 * 10**9 + number))
    successor.commit([(0, Position(1, offset=1))])
    after_that = list(new_monitor(supervisors).replay())
    assert after_that == kept + [record(2 * 10**9 + number) for number in range(10)]


def test_the_statistics_add_up(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    monitor.add_statistics(3, 2, 1)
    new_monitor(supervisors).add_statistics(30, 20, 10)
    assert supervisors.statistics() == (33, 22, 11)


# Killed between any two stores.


class Memory:
    """Stands in for the shared memory, and writes down each store."""

    def __init__(self, size: int) -> None:
        self.raw = bytearray(size)
        self.stores: list[tuple[int, bytes]] = []

    def store(self, at: int, data: bytes) -> None:
        self.raw[at : at + len(data)] = data
        self.stores.append((at, data))

    def __getitem__(self, at: int) -> int:
        return self.raw[at]

    def __setitem__(self, at: int | slice, value: int | bytes) -> None:
        if isinstance(at, slice):
            assert isinstance(value, bytes)
            assert at.stop - at.start == len(value)
            for number, byte in enumerate(value):
                self.store(at.start + number, bytes((byte,)))
        else:
            assert isinstance(value, int)
            self.store(at, bytes((value,)))


class Words:
    """The memory as words, each of which is stored at once."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __getitem__(self, index: int) -> int:
        return int.from_bytes(self._memory.raw[index * 8 : index * 8 + 8], sys.byteorder)

    def __setitem__(self, index: int, value: int) -> None:
        self._memory.store(index * 8, value.to_bytes(8, sys.byteorder))


def put_into(ledger: Ledger, memory: Memory) -> None:
    ledger._memory = memory  # type: ignore[assignment]
    ledger._words = Words(memory)  # type: ignore[assignment]


class Stores:
    """A struct as CPython has it: what it packs into is cleared first; then it stores byte by byte."""

    def __init__(self, real: struct.Struct) -> None:
        self._real = real
        self.size = real.size

    def pack_into(self, memory: Memory, at: int, *values: Any) -> None:
        for data in (bytes(self.size), self._real.pack(*values)):
            for number, byte in enumerate(data):
                memory.store(at + number, bytes((byte,)))

    def unpack_from(self, memory: Memory, at: int) -> tuple[Any, ...]:
        return self._real.unpack_from(memory.raw, at)


@pytest.fixture
def byte_by_byte() -> Iterator[None]:
    names = ("_SEARCH", "_FATAL", "_POSITION", "_RECORD", "_CHANGE")
    structs = {name: Stores(getattr(module, name)) for name in names}
    with patch.multiple(module, **structs):
        yield


@pytest.mark.usefixtures("byte_by_byte")
def test_a_commit_is_all_or_nothing_at_every_store() -> None:
    supervisors = Ledger()
    memory = Memory(len(supervisors._memory))
    put_into(supervisors, memory)
    monitor = new_monitor(supervisors)
    monitor.assign(0, Position(1, 2**40 - 1, 0, False, b"a" * 16))
    monitor.assign(1, Position(2, 255))
    for number in range(255):  # so that the next numbers change more than one byte
        write(monitor, record(number, b"key"))
    monitor.commit([(0, Position(1, 2**40 - 1, 0, False, b"a" * 16)), (1, Position(2, 255))])

    def state(ledger: Ledger) -> tuple[list[Record], Position, Position]:
        return list(ledger.replay()), ledger.position(0), ledger.position(1)

    before = state(new_monitor(supervisors))
    image = bytearray(memory.raw)
    memory.stores.clear()
    for number in range(3):
        write(monitor, record(2**32 + number, b"another"))
    monitor.commit([(0, Position(1, 2**40, 1, True, b"b" * 16)), (1, Position(2, 256, 0, False, b"c" * 16))])
    after = state(new_monitor(supervisors))
    assert len(after[0]) == len(before[0]) + 3
    assert after[1] != before[1]
    assert after[2] != before[2]

    found = []
    for at, data in [(0, bytes(image[:1])), *memory.stores]:
        image[at : at + len(data)] = data
        killed = Memory(0)
        killed.raw = bytearray(image)
        survivors = copy.copy(supervisors)
        put_into(survivors, killed)
        found.append(state(new_monitor(survivors)))
        # Nor does it matter when the next one is killed while it puts things right.
        repair, killed.stores = killed.stores, []
        for count in range(len(repair)):
            again = Memory(0)
            again.raw = bytearray(image)
            for where, what in repair[:count]:
                again.raw[where : where + len(what)] = what
            put_into(survivors, again)
            assert state(new_monitor(survivors)) == found[-1]
    assert len(found) > 200
    switch = found.index(after)
    assert found == [before] * switch + [after] * (len(found) - switch)


@pytest.mark.usefixtures("byte_by_byte")
def test_at_every_store_what_was_settled_stays() -> None:
    supervisors = Ledger()
    memory = Memory(len(supervisors._memory))
    put_into(supervisors, memory)
    monitor = new_monitor(supervisors)
    image = bytearray(memory.raw)
    for number in range(3):
        write(monitor, record(number))
        monitor.settle()
    found = []
    for at, data in memory.stores:
        image[at : at + len(data)] = data
        killed = Memory(0)
        killed.raw = bytearray(image)
        survivors = copy.copy(supervisors)
        put_into(survivors, killed)
        found.append(len(list(new_monitor(survivors).replay())))
    assert sorted(found) == found
    assert set(found) == {0, 1, 2, 3}


def test_killed_at_any_moment_for_real(supervisors: Ledger) -> None:
    """Each commit moves two files to N, with two records; the next monitor goes on from there."""
    supervisors.assign(0, Position(1))
    supervisors.assign(1, Position(2))
    reached = 0
    deaths = 0
    while deaths < 40:
        deadline = time.monotonic() + 60
        with supervisors.shared():
            pid = os.fork()
        if pid == 0:
            try:
                _count_for_ever(new_monitor(supervisors))
            finally:
                os._exit(1)
        while supervisors.position(0).offset < reached + 1 + deaths * 7 % 50:
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        deaths += 1
        successor = new_monitor(supervisors)
        times = [one.time_ns for one in successor.replay()]
        reached = successor.position(0).offset
        assert successor.position(1).offset == reached
        first = max(1, reached + 1 - JOURNAL_RECORDS)
        assert times == [number for number in range(first, reached + 1) for _ in range(2)][-JOURNAL_RECORDS:]


def _count_for_ever(monitor: Ledger) -> None:
    for _ in monitor.replay():
        pass
    number = monitor.position(0).offset
    while True:
        number += 1
        monitor.count(number, 1, Counted.MATCH, (b"key",))
        monitor.count(number, 2, Counted.MATCH)
        monitor.commit([(0, Position(1, number)), (1, Position(2, number, digest=b"%016d" % number))])


# Searches that kill.


def test_a_search_that_came_back_is_not_fatal(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    monitor.begin_search(SEARCH)
    monitor.end_search()
    supervisors.convict_search()  # it died of something else
    assert new_monitor(supervisors).fatal_searches() == frozenset()


def test_one_death_may_be_a_coincidence(supervisors: Ledger) -> None:
    new_monitor(supervisors).begin_search(SEARCH)
    second = new_monitor(supervisors)
    assert second.fatal_searches() == frozenset()
    second.begin_search(SEARCH)
    assert new_monitor(supervisors).fatal_searches() == {SEARCH}


def test_two_deaths_in_two_searches_are_two_coincidences(supervisors: Ledger) -> None:
    other = Search(7, 9, 3)
    new_monitor(supervisors).begin_search(SEARCH)
    second = new_monitor(supervisors)
    second.fatal_searches()
    second.begin_search(other)
    third = new_monitor(supervisors)
    assert third.fatal_searches() == frozenset()
    third.begin_search(SEARCH)  # seen before, but not by the last one
    assert new_monitor(supervisors).fatal_searches() == frozenset()


def test_a_search_that_was_survived_once_is_innocent(supervisors: Ledger) -> None:
    new_monitor(supervisors).begin_search(SEARCH)
    second = new_monitor(supervisors)
    second.fatal_searches()
    second.begin_search(SEARCH)
    second.end_search()
    assert new_monitor(supervisors).fatal_searches() == frozenset()


def test_a_death_of_its_own_making_is_enough(supervisors: Ledger) -> None:
    new_monitor(supervisors).begin_search(SEARCH)
    supervisors.convict_search()
    assert new_monitor(supervisors).fatal_searches() == {SEARCH}
    assert new_monitor(supervisors).fatal_searches() == {SEARCH}  # for every later one, too


def test_the_next_monitors_know_when_it_was_and_how_long_the_line(supervisors: Ledger) -> None:
    before_ns = time.monotonic_ns()
    new_monitor(supervisors).begin_search(Search(1, 2, 3, line_bytes=70_000))
    supervisors.convict_search()
    (fatal,) = new_monitor(supervisors).fatal_searches()
    (again,) = new_monitor(supervisors).fatal_searches()
    assert (fatal.line_bytes, fatal.died_ns) == (again.line_bytes, again.died_ns)
    assert fatal.line_bytes == 70_000
    assert before_ns <= fatal.died_ns <= time.monotonic_ns()


def test_several_fatal_searches_are_all_remembered(supervisors: Ledger) -> None:
    """Else two lines that kill, in one block, would kill in turns for ever."""
    searches = [Search(1, position, 1) for position in range(MAX_FATAL)]
    for search in searches:
        new_monitor(supervisors).begin_search(search)
        supervisors.convict_search()
        new_monitor(supervisors).fatal_searches()
    assert new_monitor(supervisors).fatal_searches() == set(searches)
    new_monitor(supervisors).begin_search(SEARCH)
    supervisors.convict_search()
    assert new_monitor(supervisors).fatal_searches() == {*searches[1:], SEARCH}  # the oldest gives way


def test_the_deaths_needed_are_few() -> None:
    assert FATAL_DEATHS == 2


# A monitor that was taken over may have left anything.


@examples(30)
@given(st.data())
def test_garbage_never_raises_nor_takes_for_ever(data: st.DataObject) -> None:
    supervisors = Ledger()
    header = data.draw(st.binary(min_size=256, max_size=256))
    supervisors._memory[: len(header)] = header
    supervisors._memory[4096:4224] = data.draw(st.binary(min_size=128, max_size=128))
    begin = time.process_time()
    monitor = new_monitor(supervisors)
    assert sum(1 for _ in monitor.replay()) <= JOURNAL_RECORDS
    monitor.fatal_searches()
    monitor.position(0)
    write(monitor, record(1))
    monitor.commit([(0, Position(1))])
    assert supervisors.position(0) == Position(1)
    assert time.process_time() - begin < 5


def test_the_block_that_a_monitor_died_in_is_known(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    assert monitor.suspect_block() is None
    monitor.begin_block(SuspectBlock(7, 2**48 + 5, 2**48 + 105))
    assert new_monitor(supervisors).suspect_block() == SuspectBlock(7, 2**48 + 5, 2**48 + 105)
    monitor.end_block()
    assert new_monitor(supervisors).suspect_block() is None


@pytest.mark.parametrize(
    ("begin", "end", "overlaps"),
    [(0, 9, False), (0, 10, False), (0, 11, True), (10, 20, True), (19, 30, True), (20, 30, False)],
)
def test_blocks_that_overlap(begin: int, end: int, overlaps: bool) -> None:
    suspect = SuspectBlock(7, 10, 20)
    assert suspect.overlaps(SuspectBlock(7, begin, end)) == overlaps
    assert SuspectBlock(7, begin, end).overlaps(suspect) == overlaps
    assert not suspect.overlaps(SuspectBlock(8, begin, end))


# What a monitor that was taken over leaves.


def test_nobody_can_have_all_that_follows_suspected(supervisors: Ledger) -> None:
    monitor = new_monitor(supervisors)
    monitor.begin_block(SuspectBlock(7, 5, 2**64 + 5))
    assert new_monitor(supervisors).suspect_block() == SuspectBlock(7, 5, 5 + SUSPECT_BYTES)


@pytest.mark.parametrize("number", [2**62 + 1, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("place", ["_HEAD", "_TIP", "_CHANGES_HEAD"])
def test_no_number_of_records_ends_the_next_monitor(supervisors: Ledger, place: str, number: int) -> None:
    supervisors._words[getattr(module, place)] = number
    supervisors._words[module._CHANGES_COUNT] = 1
    for _ in range(2):
        successor = new_monitor(supervisors)
        list(successor.replay())
        write(successor, record(1))
        successor.commit([(0, Position(1, 5))])
    assert record(1) in new_monitor(supervisors).replay()


def test_statistics_may_overflow(supervisors: Ledger) -> None:
    supervisors.add_statistics(2**64 - 1, 2**64 - 1, 5)
    supervisors.add_statistics(3, 1, 1)
    assert supervisors.statistics() == (2, 0, 6)


def test_a_file_that_was_truncated_more_often_than_can_be(supervisors: Ledger) -> None:
    supervisors.assign(0, Position(1, 5, generation=2**32 - 1))
    known = supervisors.position(0)
    supervisors.commit([(0, Position(1, 5, generation=known.generation + 1))])
    assert supervisors.position(0) == Position(1, 5, generation=0)


@pytest.mark.parametrize(("shared", "end"), [(True, 0), (False, signal.SIGSEGV)])
def test_nobody_has_it_but_whom_it_is_shared_with(supervisors: Ledger, shared: bool, end: int) -> None:
    with supervisors.shared() if shared else nullcontext():
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            supervisors.statistics()
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == end


@pytest.mark.parametrize("offset", [2**62 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1])
def test_a_position_that_makes_no_sense_is_the_end_of_the_file(supervisors: Ledger, offset: int) -> None:
    supervisors.assign(0, Position(1, offset, 2**32 - 1, True, b"x" * 16))
    said: list[object] = []
    notes: Any = SimpleNamespace(say=lambda *words: said.append(words))
    files = Files(new_monitor(supervisors), notes, lambda message: None, lambda: True, lambda: None)
    files.configure({1}, 1024)
    fd = os.memfd_create("log")
    os.write(fd, b"old\nunfinished")
    files.opened(LogOpened(1, 1, 0, 1, Start.COMMITTED, 0, 0), fd)
    os.write(fd, b" line\n")
    [(_, reading)] = files.readings()
    assert [block.lines for block in reading.blocks] == [b"unfinished line\n"]
    assert said == [(Notice.POSITION_LOST, 1)]
    files.configure(set(), 1024)


@pytest.mark.parametrize("size", [MAX_OFFSET + 1, 2**64 - 1])
def test_a_size_that_makes_no_sense_is_not_used(supervisors: Ledger, size: int) -> None:
    supervisors.assign(0, Position(1, 5, digest=b"x" * 16, judged_size=size))
    assert supervisors.position(0) == Position(1, 5, digest=b"x" * 16)


@pytest.mark.parametrize("offset", [MAX_OFFSET + 1, 2**64 - 1])
def test_an_anchor_that_makes_no_sense_is_not_used(supervisors: Ledger, offset: int) -> None:
    supervisors.assign(0, Position(1, 5, anchor=Anchor(offset, False, bytes(16))))
    assert supervisors.position(0) == Position(1, 5)


@pytest.mark.parametrize("length", [1, 15, 17, 255])
def test_a_digest_is_whole_or_none(supervisors: Ledger, length: int) -> None:
    """It is saved, and one of another length would not be accepted again."""
    supervisors.assign(0, Position(1, 5, digest=b"x" * length))
    assert len(supervisors.position(0).digest) == 16


def test_when_an_executor_stands_still_some_matches_are_not_committed_but_not_too_many(
    supervisors: Ledger,
) -> None:
    ledger = new_monitor(supervisors)
    notes: Any = SimpleNamespace(say=lambda *words: None)
    files = Files(ledger, notes, lambda message: None, lambda: False, lambda: None)
    files.configure({1}, 1024)
    fd = os.memfd_create("log")
    files.opened(LogOpened(1, 1, 0, 1, Start.BEGIN, 0, 0), fd)
    for number, matches in enumerate((MAX_UNCOMMITTED, 1), 1):
        os.pwrite(fd, b"line\n", 5 * number - 5)
        files.read_all()
        for _ in files.readings():
            ledger.count(1, 1, Counted.MATCH, (None,) * matches)
        committed = number == 2
        assert ledger.uncommitted == (0 if committed else MAX_UNCOMMITTED)
        assert supervisors.position(0).offset == (10 if committed else 0)
    files.configure(set(), 1024)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_what_was_not_committed_is_counted_as_of_then_again(steps: list[tuple[int, bool]]) -> None:
    supervisors = Ledger()
    monitor = new_monitor(supervisors)
    assert monitor.times_to_use_again() == {}
    list(monitor.replay())
    expected: dict[int, list[int]] = {}
    for number, (item_id, commits) in enumerate(steps):
        monitor.count(number, item_id, Counted.MATCH, (None, b"key"), (1,))
        expected.setdefault(item_id, []).extend((number, number))
        if commits:
            monitor.commit([(0, Position(1, number))])
            expected.clear()
    successor = new_monitor(supervisors)
    again = successor.times_to_use_again()
    assert {item_id: list(times) for item_id, times in again.items()} == expected
    list(successor.replay())
    assert new_monitor(supervisors).times_to_use_again() == again, "it was killed at once"
    successor.commit([(0, Position(1, 1000))])
    assert new_monitor(supervisors).times_to_use_again() == {}


def test_times_that_make_no_sense_are_not_used_again() -> None:
    supervisors = Ledger()
    monitor = new_monitor(supervisors)
    for time_ns in (5, 6, 4, 7):  # what was being written when it was killed
        monitor.count(time_ns, 1, Counted.MATCH)
    assert {1: deque((5, 6))} == new_monitor(supervisors).times_to_use_again()
    monitor.commit([(0, Position(1, 1))])
    monitor.count(2**63, 1, Counted.MATCH)
    assert new_monitor(supervisors).times_to_use_again() == {}
    monitor.count(8, 1, Counted.MATCH, (None,) * (JOURNAL_RECORDS + 1))
    assert new_monitor(supervisors).times_to_use_again() == {}


def test_a_restated_bound_may_say_anything(supervisors: Ledger) -> None:
    """Times that cannot be are none, and so are those of other records."""
    monitor = new_monitor(supervisors)
    monitor.restate(100, 1, 5, [6, 7, 8, 9, 10])
    monitor.restate(100, 1, 101, [])
    monitor.count(100, 1, Counted.RESTATED, [b"x" * 9, b"", None, b"\xff" * MAX_KEY_BYTES])
    monitor.settle()
    told = [record.times_ns for record in new_monitor(supervisors).replay()]
    assert told == [(5, 6, 7, 8), (9, 10), (), (), (), (), ()]
    assert restated_records(5) == 2
