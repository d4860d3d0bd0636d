"""The event loop that each role turns: descriptors, channels and deadlines. One thread.

It sleeps until the kernel says that something is there or the nearest deadline has come; with neither, for
ever. All deadlines are CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import selectors
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from lognot.channel import Channel, ChannelClosed
from lognot.errors import LognotError, ProtocolError
from lognot.linger import LingerLimit
from lognot.messages import Message

# A packet takes some 800 bytes of a socket's buffer (sock_alloc_send_pskb), which holds 208 KiB by default
# and is seldom allowed more than some MiB (net.core.wmem_max): 16,384 packets in all.
DRAINS = 256
FEW_TIMERS = 64  # it is not worth looking for cancelled ones among them
LONGEST_WAIT_S = 20 * 86400.0  # epoll_wait(2) counts milliseconds in an int

OnMessage = Callable[[Message, int], None]
OnClosed = Callable[[LognotError], None]


class HasFileno(Protocol):
    """A descriptor, or something that has one."""

    def fileno(self) -> int:
        """Give the descriptor."""


class Timer:
    """A call that will be made at its time, unless it is cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not make the call after all."""
        self.call = None


class Loop:
    """Selector, timers and channels of one process.

    Args:
        linger_limit: no peer is to hold up the loop by the descriptors that it sends.
    """

    def __init__(self, *, linger_limit: bool = False) -> None:
        self._linger_limit: AbstractContextManager[None] = LingerLimit() if linger_limit else nullcontext()
        self._selector = selectors.EpollSelector()
        self._timers: list[tuple[int, int, Timer]] = []
        self._compact_at = FEW_TIMERS  # timers
        self._on_message: dict[Channel, OnMessage] = {}  # of the attached channels
        self._held_back: set[Channel] = set()  # those of them that hold back
        self._order = itertools.count()  # timers of the same moment in the order in which they were set

    def watch(self, source: HasFileno | int, callback: Callable[[], object]) -> None:
        """Call `callback` whenever `source` can be read."""
        self._selector.register(source, selectors.EVENT_READ, lambda _: callback())

    def forget(self, source: HasFileno | int) -> None:
        """Undo `watch` or `attach`; before the descriptor is closed."""
        self._selector.unregister(source)

    def attach(
        self,
        channel: Channel,
        on_message: OnMessage,
        on_closed: OnClosed,
        on_flushed: Callable[[], None] | None = None,
        *,
        holds_back: bool = False,
    ) -> None:
        """Receive from a channel.

        With `holds_back`, nothing is received while something waits to be sent: a peer that asks and does not
        read the answers has to wait, and costs no memory. At most one side of a connection may do so.
        `on_message` gets each message with its descriptor (-1: none), which it then owns; it may find that
        the message makes no sense and raise ProtocolError. `on_closed` gets that, or ChannelClosed, once;
        the channel is forgotten and closed by then. `on_flushed` is called whenever the last of what did not
        fit has gone out.
        """

        def ready(events: int) -> None:
            try:
                if events & selectors.EVENT_READ:
                    self._hand_out(self._receive(channel), on_message)
                if events & selectors.EVENT_WRITE and channel.fileno() >= 0 and _is_flushed(channel):
                    self._selector.modify(channel, selectors.EVENT_READ, ready)
                    if on_flushed and not channel.pending_bytes:
                        on_flushed()
            except (ChannelClosed, ProtocolError) as error:
                self.detach(channel)
                on_closed(error)

        self._selector.register(channel, selectors.EVENT_READ, ready)
        self._on_message[channel] = on_message
        if holds_back:
            self._held_back.add(channel)

    def hear(self, channel: Channel) -> bool:
        """Hand out what has come on an attached channel, as a turn would; False when nothing has."""
        if channel.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        if not poll.poll(0):
            return False
        self._selector.get_key(channel).data(selectors.EVENT_READ)
        return True

    def drain(self, channel: Channel) -> None:
        """Hand out what a dead peer has still sent, then detach its channel. `on_closed` is not called.

        A process that it left behind can have its end, and go on: no more is taken than may have waited.
        """
        on_message = self._on_message.get(channel)
        try:
            for _ in range(DRAINS):
                if on_message is None:
                    break
                waiting = self._receive(channel)
                if not waiting:
                    break
                self._hand_out(waiting, on_message)
        except (ChannelClosed, ProtocolError):
            pass  # the end of what it sent
        self.detach(channel)

    def detach(self, channel: Channel) -> None:
        """Forget and close a channel; one that is closed already is fine."""
        self._on_message.pop(channel, None)
        self._held_back.discard(channel)
        if channel.fileno() >= 0:
            if channel.fileno() in self._selector.get_map():
                self._selector.unregister(channel)
            with self._linger_limit:
                channel.close()

    def _receive(self, channel: Channel) -> list[tuple[Message, int]]:
        with self._linger_limit:
            return channel.receive()

    def _hand_out(self, messages: list[tuple[Message, int]], on_message: OnMessage) -> None:
        """Call for each message; when one makes no sense, the descriptors of those behind it are closed."""
        waiting = iter(messages)
        try:
            for message, fd in waiting:
                on_message(message, fd)
        finally:
            for _, fd in waiting:
                if fd >= 0:
                    os.close(fd)

    def send(self, channel: Channel, message: Message, fd: int = -1) -> None:
        """Send on an attached channel; what does not fit now goes out by itself.

        A peer that is gone is not reported here: `on_closed` will be called for it.

        Raises:
            ChannelStuck: the peer has not read for too long.
        """
        if channel.fileno() < 0:
            return
        try:
            channel.send(message, fd)
        except ChannelClosed:
            return
        if channel.pending_bytes:
            reading = 0 if channel in self._held_back else selectors.EVENT_READ
            key = self._selector.get_key(channel)
            self._selector.modify(channel, reading | selectors.EVENT_WRITE, key.data)

    def call_at(self, deadline_ns: int, call: Callable[[], None]) -> Timer:
        """Make a call at a time, or as soon after it as the loop turns."""
        timer = Timer(call)
        heapq.heappush(self._timers, (deadline_ns, next(self._order), timer))
        if len(self._timers) > self._compact_at:
            self._compact()
        return timer

    def _compact(self) -> None:
        """Let go of cancelled timers, which would stay until their time: that of an action may be hours away.

        Done again when there are twice as many as are left, so it costs each timer no more than a constant.
        """
        self._timers = [entry for entry in self._timers if entry[2].call is not None]
        heapq.heapify(self._timers)
        self._compact_at = max(2 * len(self._timers), FEW_TIMERS)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Make a call after some seconds."""
        return self.call_at(time.monotonic_ns() + int(delay_s * 1e9), call)

    def turn(self, *, wait: bool = True, deadline_ns: int | None = None) -> None:
        """Make all calls that are due; before that, wait for something to happen, until `deadline_ns`."""
        for key, events in self._selector.select(self._timeout_s(deadline_ns) if wait else 0):
            # An earlier call of this turn may have forgotten this one, and closed its descriptor.
            if self._selector.get_map().get(key.fd) == key:
                key.data(events)
        now_ns = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now_ns:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                call()

    def _timeout_s(self, deadline_ns: int | None) -> float | None:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if self._timers:
            timer_ns = self._timers[0][0]
            deadline_ns = timer_ns if deadline_ns is None else min(timer_ns, deadline_ns)
        if deadline_ns is None:
            return None
        return min(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9), LONGEST_WAIT_S)


def _is_flushed(channel: Channel) -> bool:
    """Send what waits; True when nothing is left to do about it."""
    try:
        return channel.flush()
    except ChannelClosed:  # what the peer has said before comes first, and then receive() says it
        return True
