"""Descriptors that take long to close, over real sockets: they hold up nobody for long."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from lingering import Lingering
from lognot import messages as m
from lognot.channel import Channel, socket_pair
from lognot.dispatch import Dispatcher
from lognot.errors import LognotError, ProtocolError
from lognot.linger import LIMIT_S, LingerLimit
from lognot.loop import Loop
from lognot.service import SignalQueue
from lognot.startmark import new_start_mark
from unit.descriptors import nothing_leaks

LINGER_S = 20  # where nothing ends it
SOON_S = 15.0  # far more than LIMIT_S, on a machine that does much else, and less than LINGER_S
PONG = b"\0" + m.encode(m.Pong())
TAKEN = b"\0" + m.encode(m.ActionTaken(1, m.Kind.UPBOUND, 1, 1))


@pytest.fixture(autouse=True)
def _alarm_and_descriptors_as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGALRM)
    gc.collect()
    with nothing_leaks():
        yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.signal(signal.SIGALRM, handler)


@pytest.fixture
def lingering() -> Iterator[Callable[[], Lingering]]:
    made: list[Lingering] = []

    def make() -> Lingering:
        made.append(Lingering(LINGER_S))
        return made[-1]

    yield make
    for one in made:
        one.end()


class Receiver:
    """A channel on a loop, whose peer is hostile; as on a kernel that cannot refuse descriptors."""

    def __init__(self, *accepts: type[m.Message]) -> None:
        self.loop = Loop(linger_limit=True)
        self.errors: list[LognotError] = []
        ours, self.peer = socket_pair()
        self.channel = Channel(ours, frozenset(accepts))
        self.loop.attach(self.channel, lambda message, fd: None, self.errors.append)

    def close(self) -> None:
        self.loop.detach(self.channel)
        self.peer.close()
        self.loop._selector.close()


def took_s(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def test_a_descriptor_for_which_there_is_no_room(lingering: Callable[[], Lingering]) -> None:
    """The kernel closes it within recvmsg(2)."""
    receiver = Receiver(m.Pong)
    lingering().send(receiver.peer, PONG)
    assert took_s(lambda: receiver.loop.turn(wait=False)) < SOON_S
    [error] = receiver.errors
    assert isinstance(error, ProtocolError)
    receiver.close()


def test_descriptors_behind_what_broke_the_protocol(lingering: Callable[[], Lingering]) -> None:
    """They are closed with the channel, all of them at the cost of one."""
    receiver = Receiver(m.Pong)
    for _ in range(20):
        lingering().send(receiver.peer, PONG)
    assert took_s(lambda: receiver.loop.turn(wait=False)) < SOON_S
    assert len(receiver.errors) == 1
    receiver.close()


def test_what_a_dead_peer_has_left(lingering: Callable[[], Lingering]) -> None:
    receiver = Receiver(m.Pong)
    lingering().send(receiver.peer, PONG)
    assert took_s(lambda: receiver.loop.drain(receiver.channel)) < SOON_S
    receiver.close()


def test_a_monitor_is_not_held_up_by_an_executor(lingering: Callable[[], Lingering]) -> None:
    loop = Loop(linger_limit=True)
    broken: list[bool] = []
    dispatcher = Dispatcher(loop, lambda: broken.append(True))
    ours, peer = socket_pair()
    dispatcher.connect(ours, new_start_mark())
    for _ in range(3):
        lingering().send(peer, TAKEN)
    peer.close()
    assert took_s(lambda: (loop.turn(wait=False), loop.turn(wait=False))) < SOON_S
    assert broken == [True]
    loop._selector.close()


def test_the_timer_runs_only_where_a_close_can_wait() -> None:
    """Not while the loop sleeps, which would wake it, nor in what a message brings about."""
    loop = Loop(linger_limit=True)
    ours, peer = socket_pair()
    channel = Channel(ours, frozenset({m.Pong}))
    timers: list[tuple[float, float]] = []
    loop.attach(
        channel,
        lambda message, fd: timers.append(signal.getitimer(signal.ITIMER_REAL)),
        lambda error: timers.append(signal.getitimer(signal.ITIMER_REAL)),
    )
    peer.send(PONG)
    loop.turn()
    peer.close()
    loop.turn()
    assert timers == [(0.0, 0.0)] * 2
    loop._selector.close()


def test_the_signal_is_none_that_a_service_waits_for() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGIO, signal.SIGPIPE)}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        queue = SignalQueue((signal.SIGHUP,))
        with LingerLimit():
            assert select.select([queue], [], [], SOON_S)[0]
        os.kill(os.getpid(), signal.SIGHUP)
        assert queue.take() == [signal.SIGHUP]
        with queue._reader, queue._writer:
            signal.set_wakeup_fd(-1)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_is_no_close_is_not_interrupted() -> None:
    """The kernel goes on with it: a library need not know of the signal."""
    reader, writer = os.pipe()
    slow = os.fork()
    if slow == 0:  # a writer that takes its time
        signal.sigtimedwait([], 3 * LIMIT_S)
        os.write(writer, b"x")
        os._exit(0)
    libc = ctypes.CDLL(None)
    with LingerLimit():
        assert libc.read(reader, ctypes.create_string_buffer(1), 1) == 1
    os.close(reader)
    os.close(writer)
    os.waitpid(slow, 0)
