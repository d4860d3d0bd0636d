"""The event loop, as far as no role shows it; and peers that are not honest."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import messages as m
from lognot.channel import MAX_MESSAGE_BYTES, Channel, socket_pair
from lognot.errors import LognotError, ProtocolError
from lognot.loop import FEW_TIMERS, Loop
from unit.descriptors import nothing_leaks

PING = b"\0" + m.encode(m.Ping())


class Pair:
    """A channel on a loop, and a bare socket of its peer."""

    def __init__(self, *accepts: type[m.Message], holds_back: bool = False) -> None:
        self.loop = Loop()
        ours, self.peer = socket_pair()
        self.channel = Channel(ours, frozenset(accepts))
        self.messages: list[m.Message] = []
        self.errors: list[LognotError] = []
        self.answer: m.Message | None = None
        self.loop.attach(self.channel, self._on_message, self.errors.append, holds_back=holds_back)

    def _on_message(self, message: m.Message, fd: int) -> None:
        self.messages.append(message)
        if fd >= 0:
            os.close(fd)
        if isinstance(message, m.UseStartMark):
            raise ProtocolError("no")
        if self.answer:
            self.loop.send(self.channel, self.answer)

    def close(self) -> None:
        self.loop.detach(self.channel)
        self.peer.close()
        self.loop._selector.close()


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    gc.collect()  # what other tests have left
    with nothing_leaks():
        yield


def fill(peer: socket.socket, packet: bytes) -> int:
    """Send until nothing fits any more; give how many fitted."""
    count = 0
    try:
        while True:
            peer.send(packet)
            count += 1
    except BlockingIOError:
        return count


def test_who_does_not_read_the_answers_is_not_heard() -> None:
    """What waits for it stays the same, however much it asks; once it reads, all is answered."""
    pair = Pair(m.Ping, holds_back=True)
    pair.answer = m.Note(m.Notice.ROLE_FAILED, 0, 0, b"x" * m.MAX_QUOTE_BYTES)
    asked = waits = 0
    for _ in range(50):
        asked += fill(pair.peer, PING)
        pair.loop.turn(wait=False)
        waits = max(waits, pair.channel.pending_bytes)
    assert pair.channel.pending_bytes == waits
    assert len(pair.messages) < 200 < asked
    answers = 0
    while answers < asked:
        try:
            pair.peer.recv(10_000)
            answers += 1
        except BlockingIOError:
            pair.loop.turn(wait=False)
    assert len(pair.messages) == asked
    assert not pair.errors
    pair.close()


def test_the_end_of_one_who_does_not_read_is_noticed() -> None:
    pair = Pair(m.Ping, holds_back=True)
    pair.answer = m.Note(m.Notice.ROLE_FAILED, 0, 0, b"x" * m.MAX_QUOTE_BYTES)
    while not pair.channel.pending_bytes:
        fill(pair.peer, PING)
        pair.loop.turn(wait=False)
    pair.peer.close()
    for _ in range(20):
        pair.loop.turn(wait=False)
    assert [type(error).__name__ for error in pair.errors] == ["ChannelClosed"]
    pair.close()


def test_what_a_dead_peer_leaves_behind_is_not_heard_for_ever() -> None:
    """Another process has its end, and sends all the time."""
    pair = Pair(m.Ping)
    orphan = os.fork()
    if orphan == 0:
        try:
            pair.channel._sock.close()  # else it would be its own reader
            pair.peer.setblocking(True)
            while True:
                pair.peer.send(PING)
        finally:
            os._exit(0)
    try:
        pair.loop.drain(pair.channel)
        assert pair.channel.fileno() < 0
    finally:
        pair.close()
        os.waitpid(orphan, 0)


def test_one_channel_is_heard_out_of_turn() -> None:
    """With what a turn makes of nonsense and of an end."""
    pair = Pair(m.Ping)
    assert not pair.loop.hear(pair.channel)
    pair.peer.send(PING)
    assert pair.loop.hear(pair.channel)
    assert pair.messages == [m.Ping()]
    assert not pair.loop.hear(pair.channel)
    pair.peer.close()
    assert pair.loop.hear(pair.channel)
    assert [type(error).__name__ for error in pair.errors] == ["ChannelClosed"]
    assert not pair.loop.hear(pair.channel)
    pair.close()


def test_descriptors_behind_nonsense_are_closed() -> None:
    pair = Pair(m.UseStartMark)
    for _ in range(3):
        socket.send_fds(pair.peer, [b"\0" + m.encode(m.UseStartMark())], [0])
    pair.loop.turn(wait=False)
    assert len(pair.messages) == 1
    assert [str(error) for error in pair.errors] == ["no"]
    pair.close()


def test_it_says_when_all_that_waited_has_gone_out() -> None:
    one, other = socket_pair()
    ours = Channel(one, frozenset())
    peer = Channel(other, m.MONITOR_TO_EXECUTOR, MAX_MESSAGE_BYTES)
    loop = Loop()
    flushed: list[bool] = []
    loop.attach(ours, lambda message, fd: None, lambda error: None, lambda: flushed.append(True))
    loop.turn(wait=False)
    assert flushed == [], "nothing has waited"
    number = 0
    while not ours.pending_bytes:
        loop.send(ours, m.RunAction(1, m.Kind.UPBOUND, 1, number, 1, b"x" * 200_000, ()))
        number += 1
    loop.turn(wait=False)
    assert flushed == []
    arrived = 0
    while arrived < number:
        arrived += len(peer.receive())
        loop.turn(wait=False)
    assert flushed == [True]
    loop.detach(ours)
    peer.close()
    loop._selector.close()


# Timers.


def test_cancelled_timers_do_not_pile_up() -> None:
    loop = Loop()
    for _ in range(20_000):
        loop.call_later(86_400, lambda: None).cancel()
    assert len(loop._timers) <= FEW_TIMERS
    loop._selector.close()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=300))
def test_timers_are_called_in_order_whatever_was_cancelled(made: list[tuple[int, bool]]) -> None:
    loop = Loop()
    called: list[tuple[int, int]] = []
    timers = [loop.call_at(at, partial(called.append, (at, index))) for index, (at, _) in enumerate(made)]
    for timer, (_, is_cancelled) in zip(timers, made, strict=True):
        if is_cancelled:
            timer.cancel()
    for _ in range(FEW_TIMERS):
        loop.call_at(6, lambda: None).cancel()
    loop.turn(wait=False)
    assert called == sorted((at, index) for index, (at, is_cancelled) in enumerate(made) if not is_cancelled)
    loop._selector.close()


def test_a_timer_may_set_and_cancel_others() -> None:
    """Also so many that the cancelled ones are let go of meanwhile."""
    loop = Loop()
    called: list[int] = []

    def set_others() -> None:
        for number in range(3 * FEW_TIMERS):
            loop.call_at(2, partial(called.append, number))
            loop.call_at(2, lambda: None).cancel()

    loop.call_at(1, set_others)
    loop.turn(wait=False)
    assert called == list(range(3 * FEW_TIMERS))
    loop._selector.close()
