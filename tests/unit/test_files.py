"""How far a file was read and how large it was judged to be: what a monitor's successor begins with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lognot.files import Files, Stream
from lognot.ledger import Ledger, Position
from lognot.messages import LogLooked, LogOpened, Start


class World:
    """One file, and the monitors that read it one after the other."""

    def __init__(self, content: bytes) -> None:
        self.ledger = Ledger()
        self.fd = os.memfd_create("log")
        self.settled = True
        os.write(self.fd, content)

    @contextmanager
    def monitor(self, start: Start) -> Iterator[tuple[Files, Stream]]:
        """One that has just been told of the file, as the log's current one."""
        notes: Any = SimpleNamespace(say=lambda *words: None)
        files = Files(self.ledger, notes, lambda message: None, lambda: self.settled, lambda: None)
        files.configure({1}, 1024)
        files.opened(LogOpened(1, 1, 0, 1, start, os.fstat(self.fd).st_size, 0), os.dup(self.fd))
        files.looked(LogLooked(1, 1, ()))
        stream = files.current(1)
        assert stream is not None
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
