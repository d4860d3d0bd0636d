"""How far a file was read and how large it was judged to be: what a monitor's successor begins with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lognot import files
from lognot.files import Files, Stream
from lognot.frequency import NEVER_NS
from lognot.ledger import Anchor, Ledger, Position
from lognot.messages import LogLooked, LogOpened, Message, Notice, Start, StreamDropped


class World:
    """One file, and the monitors that read it one after the other."""

    def __init__(self, content: bytes) -> None:
        self.ledger = Ledger()
        self.fd = os.memfd_create("log")
        self.settled = True
        self.said: list[Notice] = []
        self.told: list[Message] = []
        os.write(self.fd, content)

    def files(self, start: Start, history: int = 0) -> Files:
        """Those of a monitor that has just been told of the file."""
        notes: Any = SimpleNamespace(say=lambda notice, *words: self.said.append(notice))
        files = Files(self.ledger, notes, self.told.append, lambda: self.settled, lambda: None)
        files.configure({1}, 1024)
        files.opened(LogOpened(1, 1, 0, 1, start, os.fstat(self.fd).st_size, history), os.dup(self.fd))
        return files

    @contextmanager
    def monitor(self, start: Start, history: int = 0) -> Iterator[tuple[Files, Stream]]:
        """One that has just been told of the file, as the log's current one."""
        files = self.files(start, history)
        files.looked(LogLooked(1, 1, ()))
        (stream,) = files.of_log(1)
        yield files, stream
        files.configure(set(), 1024)

    def read(self, files: Files) -> None:
        """What the monitor does with each block, as far as sizes go."""
        while files.dirty:
            for stream, _ in files.readings():
                files.judged(stream, os.fstat(self.fd).st_size)
        files.commit()

    def judged(self) -> int:
        """What the next monitor would begin with."""
        with self.monitor(Start.COMMITTED) as (_, stream):
            return stream.judged_size


@pytest.fixture
def world() -> Iterator[World]:
    made = World(b"history\nunfin")
    yield made
    os.close(made.fd)


def test_at_first_it_is_the_size_at_the_start(world: World) -> None:
    with world.monitor(Start.END):
        pass
    assert world.judged() == 13


def test_an_unfinished_line_belongs_to_it(world: World) -> None:
    with world.monitor(Start.BEGIN) as (files, stream):
        assert stream.judged_size == 0
        world.read(files)
    assert world.ledger.position(0).offset == 8
    assert world.judged() == 13


def test_without_a_line_it_is_written_down_too(world: World) -> None:
    with world.monitor(Start.END) as (files, _):
        world.read(files)
        os.write(world.fd, b"ished, not yet")
        files.read_all()
        world.read(files)
    assert world.ledger.position(0).offset == 8
    assert world.judged() == 27


def test_not_before_what_came_of_it_outlives_the_monitor(world: World) -> None:
    world.settled = False
    with world.monitor(Start.BEGIN) as (files, _):
        world.read(files)
        assert files.uncommitted
        assert world.judged() == 0
        world.settled = True
        files.commit()
    assert world.judged() == 13


def test_without_an_item_that_waits_for_a_size_it_is_what_was_read(world: World) -> None:
    with world.monitor(Start.BEGIN) as (files, _):
        while files.dirty:
            for _ in files.readings():
                pass
    assert world.judged() == 8


def test_an_emptied_file_begins_at_zero(world: World) -> None:
    with world.monitor(Start.BEGIN) as (files, _):
        world.read(files)
    os.truncate(world.fd, 0)
    os.pwrite(world.fd, b"another\n", 0)
    assert world.judged() == 0


def test_an_emptied_file_begins_at_zero_while_it_is_read(world: World) -> None:
    with world.monitor(Start.BEGIN) as (files, stream):
        world.read(files)
        os.truncate(world.fd, 0)
        files.read_all()
        [(_, reading)] = files.readings()
        assert reading.truncated
        assert stream.judged_size == 0


def test_a_file_that_has_lost_no_more_than_its_end_does_not(world: World) -> None:
    with world.monitor(Start.BEGIN) as (files, _):
        world.read(files)
    os.truncate(world.fd, 10)
    assert world.judged() == 10


def test_what_a_hostile_monitor_left_is_no_reason_not_to_begin(world: World) -> None:
    with world.monitor(Start.BEGIN) as (files, _):
        world.read(files)
    known = world.ledger.position(0)
    for size in (0, 2**62, 2**62 + 1, 2**64 - 1):
        world.ledger.assign(0, Position(1, known.offset, digest=known.digest, judged_size=size))
        assert world.judged() in (8, 13)


# A file that has lost its end, as after a loss of power.


@pytest.fixture
def lost() -> Iterator[World]:
    """It was read up to line 30, and before that up to line 10; now the lines from 20 on are others."""
    made = World(b"".join(b"line %02d\n" % number for number in range(30)))
    with made.monitor(Start.BEGIN) as (files, _):
        made.read(files)
    newest = made.ledger.position(0)
    first = World(os.pread(made.fd, 80, 0))
    with first.monitor(Start.BEGIN) as (files, _):
        first.read(files)
    older = first.ledger.position(0)
    os.close(first.fd)
    anchor = Anchor(older.offset, older.skipping, older.digest)
    made.ledger.assign(0, replace(newest, anchor=anchor))
    os.truncate(made.fd, 160)
    os.pwrite(made.fd, b"another\n" * 5, 160)
    yield made
    os.close(made.fd)


@pytest.mark.parametrize("start", [Start.COMMITTED, Start.LEFTOVER])
def test_it_is_read_again_from_the_anchor(lost: World, start: Start) -> None:
    files = lost.files(start)
    [(stream, reading)] = files.readings()
    assert b"".join(block.lines for block in reading.blocks) == os.pread(lost.fd, 200, 80)
    assert stream.tail.generation == 0
    assert stream.judged_size == 200
    assert lost.said == [Notice.END_LOST]
    assert lost.ledger.position(0).anchor is None  # what is known now is exact
    files.configure(set(), 1024)


@pytest.mark.parametrize("fill", [b"", bytes(100)])
def test_the_end_may_be_missing_or_empty(lost: World, fill: bytes) -> None:
    os.truncate(lost.fd, 160)
    os.pwrite(lost.fd, fill, 160)
    with lost.monitor(Start.COMMITTED) as (_, stream):
        assert stream.tail.offset == 80


def test_without_loss_the_anchor_is_of_no_interest(lost: World) -> None:
    os.pwrite(lost.fd, b"".join(b"line %02d\n" % number for number in range(20, 30)), 160)
    with lost.monitor(Start.COMMITTED) as (_, stream):
        assert stream.tail.offset == 240
    assert lost.said == []
    assert lost.ledger.position(0).anchor is None


def test_where_the_anchor_is_lost_too_it_was_emptied(lost: World) -> None:
    os.pwrite(lost.fd, b"LINE", 72)
    with lost.monitor(Start.COMMITTED) as (_, stream):
        assert (stream.tail.offset, stream.tail.generation) == (0, 1)


def test_where_the_anchor_is_lost_too_a_rotated_file_is_none_of_ours(lost: World) -> None:
    os.pwrite(lost.fd, b"LINE", 72)
    files = lost.files(Start.LEFTOVER)
    assert not files.dirty
    assert lost.said == []
    assert lost.told == [StreamDropped(1)]
    files.configure(set(), 1024)


def test_an_executor_that_stands_still_puts_a_commit_off_for_a_while_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.monitor(Start.BEGIN) as (monitor, _):
        assert monitor.commit_ns == NEVER_NS, "there is nothing to commit"
        world.settled = False
        before_ns = time.monotonic_ns()
        world.read(monitor)
        assert world.ledger.position(0).offset == 0
        first_ns = monitor.commit_ns
        assert before_ns <= first_ns - files.UNSETTLED_NS <= time.monotonic_ns()
        monitor.commit()
        assert monitor.commit_ns == first_ns, "more lines do not put it off further"
        monkeypatch.setattr(files, "UNSETTLED_NS", 0)
        monitor.commit()
        assert world.ledger.position(0).offset == 8
        assert monitor.commit_ns == NEVER_NS


def test_a_commit_that_has_become_needless_is_not_waited_for(world: World) -> None:
    """Its log is in the config no more: a deadline that nobody meets would have the loop turn without end."""
    with world.monitor(Start.BEGIN) as (monitor, _):
        world.settled = False
        world.read(monitor)
        assert monitor.commit_ns < NEVER_NS
        monitor.configure(set(), 1024)
        monitor.commit()
        assert monitor.commit_ns == NEVER_NS


@pytest.mark.parametrize(("history", "said"), [(0, Notice.EMPTIED_UNSEEN), (3, Notice.TRUNCATED)])
def test_who_tells_of_a_file_that_was_emptied_unseen(world: World, history: int, said: Notice) -> None:
    """Of what happened before the start the supervisor says whether there was a copy to finish."""
    with world.monitor(Start.BEGIN) as (monitor, _):
        world.read(monitor)
    os.ftruncate(world.fd, 3)
    with world.monitor(Start.COMMITTED, history=history):
        pass
    assert world.said == [said]
