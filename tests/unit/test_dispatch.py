"""The monitor's side of a connection to an executor: nothing that waits is lost, nothing is said twice."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from lognot import channel as channel_module
from lognot import dispatch
from lognot.channel import MAX_MESSAGE_BYTES, Channel, socket_pair
from lognot.dispatch import PATIENCE_NS, Dispatcher, occasion
from lognot.loop import Loop
from lognot.messages import (
    MONITOR_TO_EXECUTOR,
    ActionStarting,
    ActionTaken,
    Begin,
    Kind,
    RunAction,
)
from lognot.startmark import new_start_mark, set_start_mark


class Bench:
    """A dispatcher, and executors that a test plays."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.broken = 0
        self.dispatcher = Dispatcher(self.loop, self._on_broken)

    def _on_broken(self) -> None:
        self.broken += 1

    def executor(self, mark_fd: int = -1) -> Channel:
        """Connect a new executor, with a copy of a start mark or one of its own."""
        ours, theirs = socket_pair()
        self.dispatcher.connect(ours, os.dup(mark_fd) if mark_fd >= 0 else new_start_mark())
        return Channel(theirs, MONITOR_TO_EXECUTOR, MAX_MESSAGE_BYTES)

    def turn(self) -> None:
        """Let the dispatcher take what was sent."""
        for _ in range(3):
            self.loop.turn(wait=False)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.dispatcher.give_up()
    made.loop._selector.close()


@pytest.fixture
def mark_fd() -> Iterator[int]:
    fd = new_start_mark()
    yield fd
    os.close(fd)


def action(position: int, line: bytes = b"a line") -> RunAction:
    return RunAction(1, Kind.UPBOUND, 7, position, 1, line, ((0, 1),))


def taken(position: int) -> ActionTaken:
    return ActionTaken(1, Kind.UPBOUND, 7, position)


def starting(position: int) -> ActionStarting:
    return ActionStarting(1, Kind.UPBOUND, 7, position)


def positions(channel: Channel) -> list[int]:
    return [message.position for message, _ in channel.receive() if isinstance(message, RunAction)]


def test_what_was_not_taken_goes_to_the_next_executor(bench: Bench) -> None:
    first = bench.executor()
    for position in range(4):
        bench.dispatcher.run(action(position))
    assert positions(first) == [0, 1, 2, 3]
    first.send(taken(0))
    first.send(taken(2))
    first.close()
    bench.turn()
    assert not bench.dispatcher.settled
    second = bench.executor()
    assert positions(second) == [1, 3]
    assert bench.dispatcher.settled


def test_before_there_is_an_executor_actions_wait(bench: Bench) -> None:
    assert bench.dispatcher.settled
    bench.dispatcher.run(action(1))
    assert not bench.dispatcher.settled
    assert positions(bench.executor()) == [1]
    assert bench.dispatcher.settled


@pytest.mark.parametrize("started", [True, False])
def test_the_mark_decides_about_the_one_that_was_being_started(
    bench: Bench, mark_fd: int, started: bool
) -> None:
    first = bench.executor(mark_fd)
    for position in (1, 2):
        bench.dispatcher.run(action(position))
    first.send(starting(1))
    set_start_mark(mark_fd)
    if started:
        os.ftruncate(mark_fd, 0)  # as the new process does
    first.close()
    bench.turn()
    assert positions(bench.executor()) == ([2] if started else [1, 2])


def test_a_new_connection_waits_for_the_last_word_of_the_old_one(bench: Bench, mark_fd: int) -> None:
    """The new process of an action holds the channel of a dead executor until it has become the shell."""
    first = bench.executor(mark_fd)
    bench.dispatcher.run(action(1))
    first.send(starting(1))
    set_start_mark(mark_fd)
    held = socket.socket(fileno=os.dup(first.fileno()))
    first.close()
    second = bench.executor()
    bench.turn()
    assert positions(second) == []
    os.ftruncate(mark_fd, 0)
    held.close()
    bench.turn()
    assert positions(second) == []
    bench.dispatcher.run(action(2))
    assert positions(second) == [2]


def test_what_an_executor_hands_back_is_kept(bench: Bench) -> None:
    first = bench.executor()
    first.send(action(5))
    bench.turn()
    first.close()
    bench.turn()
    assert positions(bench.executor()) == [5]


def test_what_an_executor_hands_back_comes_before_what_was_read_since(bench: Bench) -> None:
    """An executor takes positions that only grow; and what it hands back was read by the last monitor."""
    first = bench.executor()
    for position in (6, 7, 8):  # 6 was not committed, so it was read again
        bench.dispatcher.run(action(position))
    for position in (4, 5, 6):
        first.send(action(position))
    bench.turn()
    bench.dispatcher.run(action(5))
    assert positions(first) == [6, 7, 8], "what it has is not said again"
    first.send(taken(4))
    first.close()
    bench.turn()
    second = bench.executor()
    assert positions(second) == [5, 6, 7, 8]
    for position in (5, 6, 7, 8):
        second.send(taken(position))
    bench.turn()
    second.close()
    bench.turn()
    assert bench.dispatcher.settled, "nothing waits any more"


def test_what_is_given_up_is_what_no_executor_has(bench: Bench) -> None:
    for position in range(3):
        bench.dispatcher.run(action(position))
    executor = bench.executor()
    line = b"x" * 50_000
    sent = 3
    while bench.dispatcher.settled:
        bench.dispatcher.run(action(sent, line))
        sent += 1
    for position in range(sent, sent + 4):
        bench.dispatcher.run(action(position, line))
    given_up = bench.dispatcher.give_up()
    arrived = positions(executor)
    assert given_up == {1: 5}
    assert bench.dispatcher.settled  # nothing waits: the lines that it came from are done with
    assert arrived == list(range(sent - 1))


def test_without_an_executor_all_is_given_up(bench: Bench) -> None:
    executor = bench.executor()
    executor.send(action(1))
    for position in (2, 3):
        bench.dispatcher.run(action(position))
    bench.turn()
    executor.close()
    bench.turn()
    assert bench.dispatcher.give_up() == {1: 3}


def test_too_many_are_refused_and_room_comes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_WAITING", 2)
    executor = bench.executor()
    for position in range(2):
        assert bench.dispatcher.has_room(action(position))
        bench.dispatcher.run(action(position))
    assert not bench.dispatcher.has_room(action(2))
    executor.send(taken(0))
    bench.turn()
    assert bench.dispatcher.has_room(action(2))


def test_too_many_bytes_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_WAITING_BYTES", 1200)
    bench.dispatcher.run(action(1, b"x" * 900))
    assert not bench.dispatcher.has_room(action(2, b"x" * 900))
    assert bench.dispatcher.has_room(action(3, b"x"))


def test_nonsense_is_reported(bench: Bench) -> None:
    ours, theirs = socket_pair()
    bench.dispatcher.connect(ours, new_start_mark())
    Channel(theirs, MONITOR_TO_EXECUTOR).send(Begin(1))  # no executor may say that
    bench.turn()
    assert bench.broken == 1


def test_retired_waits_for_nothing(bench: Bench) -> None:
    executor = bench.executor()
    bench.dispatcher.run(action(1))
    assert bench.dispatcher.retire() == {}, "the executor has it"
    executor.send(action(2))  # of the monitor before
    executor.close()
    bench.turn()
    assert bench.dispatcher.settled


def test_what_no_executor_has_is_told_when_it_is_retired(bench: Bench) -> None:
    bench.executor().close()
    bench.turn()
    for position in (1, 2):
        bench.dispatcher.run(action(position))
    assert bench.dispatcher.retire() == {1: 2}
    assert bench.dispatcher.settled


def test_occasions_tell_apart() -> None:
    assert occasion(action(1)) == occasion(taken(1)) == occasion(starting(1))
    assert occasion(action(1)) != occasion(action(2))


def test_an_executor_that_gives_back_more_than_may_wait_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_WAITING", 5)
    executor = bench.executor()
    for position in range(100):
        executor.send(action(position))
    for _ in range(5):
        bench.turn()
    assert bench.broken == 1
    assert len(bench.dispatcher._handed_back) == 10


def test_offsets_outside_of_the_line_are_reported(bench: Bench) -> None:
    """They would cost the next executor its trust in us."""
    executor = bench.executor()
    executor.send(RunAction(1, Kind.UPBOUND, 7, 1, 1, b"abc", ((0, 4),)))
    bench.turn()
    assert bench.broken == 1
    assert not bench.dispatcher._waiting


def test_an_executor_that_takes_actions_and_does_not_read_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_PENDING_BYTES", 100_000)
    executor = bench.executor()
    position = 0
    while not bench.broken:
        position += 1
        assert position < 10_000
        executor.send(taken(position))
        bench.dispatcher.run(action(position, b"x" * 1000))
        bench.turn()
    assert bench.broken == 1


def test_who_is_handed_a_lot_is_waited_for_but_not_for_long(bench: Bench) -> None:
    executor = bench.executor()
    assert bench.dispatcher.behind_until_ns(5) == 0
    position = 0
    while bench.dispatcher.settled:
        bench.dispatcher.run(action(position, b"x" * 50_000))
        position += 1
    assert bench.dispatcher.behind_until_ns(5) == 5 + PATIENCE_NS
    assert bench.dispatcher.behind_until_ns(5 + PATIENCE_NS - 1) == 5 + PATIENCE_NS
    for now_ns in (5 + PATIENCE_NS, 100 * PATIENCE_NS):
        assert bench.dispatcher.behind_until_ns(now_ns) == 0
    while not bench.dispatcher.settled:
        positions(executor)
        bench.turn()
    assert bench.dispatcher.behind_until_ns(101 * PATIENCE_NS) == 0
    while bench.dispatcher.settled:
        bench.dispatcher.run(action(position, b"x" * 50_000))
        position += 1
    assert bench.dispatcher.behind_until_ns(102 * PATIENCE_NS) == 103 * PATIENCE_NS


def test_without_an_executor_what_waits_is_waited_for_but_not_for_long(bench: Bench) -> None:
    assert bench.dispatcher.behind_until_ns(5) == 0
    bench.dispatcher.run(action(1))
    assert bench.dispatcher.behind_until_ns(5) == 5 + PATIENCE_NS
    assert bench.dispatcher.behind_until_ns(5 + PATIENCE_NS) == 0
