"""From the monitor to one executor: no action is lost when either of them is killed.

Every action that was not started yet exists twice: in the executor's queue and here. A new executor is sent
all of them again, a new monitor is told them by the executor. An executor starts each occasion once, so
saying it too often does no harm (messages.RunAction).

Runs in the monitor. Never blocks: with too many waiting there is no room, and the newest is to be dropped.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable

from lognot.channel import MAX_MESSAGE_BYTES, Channel
from lognot.errors import LognotError, ProtocolError
from lognot.loop import Loop
from lognot.messages import (
    EXECUTOR_TO_MONITOR,
    ActionStarting,
    ActionTaken,
    Kind,
    Message,
    RunAction,
)
from lognot.startmark import has_started

MAX_WAITING = 10_000  # actions for one executor; at 2 at a time and 10 ms each, the work of a minute
SPAN_BYTES = 128  # a tuple of two numbers
PATIENCE_NS = 200_000_000  # a burst of actions is handed over in 50 ms
MAX_WAITING_BYTES = 32 * 1024 * 1024  # of log lines and offsets that go with them

Occasion = tuple[int, Kind, int, int]  # item, kind, stream, position


def waiting_bytes(action: RunAction) -> int:
    """Give what an action costs while it waits, in bytes: nearly all of it is its line."""
    return len(action.line) + SPAN_BYTES * len(action.spans)


def check_offsets(action: RunAction) -> None:
    """Make sure that the groups are within the line.

    Raises:
        ProtocolError: they are not.
    """
    if not all(-1 <= start <= end <= len(action.line) for start, end in action.spans):
        raise ProtocolError("offsets outside of the line")


def occasion(message: RunAction | ActionStarting | ActionTaken) -> Occasion:
    """Give what names an occasion to run an action, the same in every process."""
    return (message.item_id, message.kind, message.stream_id, message.position)


class Dispatcher:
    """The monitor's side of the connection to one executor.

    Args:
        loop: sends and receives on the connection.
        on_broken: called when the executor sent what no honest one sends.
    """

    def __init__(self, loop: Loop, on_broken: Callable[[], None]) -> None:
        self._loop = loop
        self._on_broken = on_broken
        self._channel: Channel | None = None
        self._mark = -1  # the start mark of that connection
        self._next: tuple[Channel, int] | None = None  # a connection that is still to be used, and its mark
        self._starting: Occasion | None = None
        self._waiting: dict[Occasion, RunAction] = {}
        # Waits in the executor since the time of the last monitor. All of it is older than what we found
        # ourselves, and an executor takes positions that only grow: the next one is told of these first.
        self._handed_back: dict[Occasion, RunAction] = {}
        self._waiting_bytes = 0
        self._behind_since_ns = 0
        self._retired = False

    def connect(self, sock: socket.socket, mark_fd: int) -> None:
        """Use a new connection with its start mark, which it then owns, once the old one has ended.

        It has not while an action that the dead executor was starting is still on its way to the shell.
        """
        channel = Channel(sock, EXECUTOR_TO_MONITOR, MAX_MESSAGE_BYTES)
        if self._channel is None:
            self._use(channel, mark_fd)
        else:
            if self._next is not None:
                self._loop.detach(self._next[0])
                os.close(self._next[1])
            self._next = channel, mark_fd

    def _use(self, channel: Channel, mark_fd: int) -> None:
        self._channel, self._mark = channel, mark_fd
        self._loop.attach(channel, self._on_message, self._on_closed)
        for action in self._kept():
            self._send(action)

    def _send(self, action: RunAction) -> None:
        if self._channel is None:
            return
        try:
            self._loop.send(self._channel, action)
        except LognotError:  # it says that it takes actions, and does not read
            self._loop.detach(self._channel)
            self._on_closed(ProtocolError("the executor does not read"))

    @property
    def settled(self) -> bool:
        """Every action so far is in the kernel's hands: it outlives this process. Or nobody will run it."""
        if self._retired or (not self._waiting and not self._handed_back):
            return True
        return self._channel is not None and not self._channel.pending_bytes

    def behind_until_ns(self, now_ns: int) -> int:
        """Give the time up to which logs that bring it actions had better wait; 0: they need not.

        They do while the executor takes what was found already, which is a matter of milliseconds: until then
        no file can be committed. One that takes longer is not waited for again before it has everything.
        """
        if self.settled:
            self._behind_since_ns = 0
            return 0
        self._behind_since_ns = self._behind_since_ns or now_ns
        until_ns = self._behind_since_ns + PATIENCE_NS
        return until_ns if now_ns < until_ns else 0

    def retire(self) -> Counter[int]:
        """No item needs this executor any more: it ends when its queue is empty, and nothing waits for it.

        Returns:
            For each item, how many actions no executor has or will have.
        """
        dropped = Counter(action.item_id for action in self._kept()) if self._channel is None else Counter()
        self._forget()
        self._retired = True
        return dropped

    def give_up(self) -> Counter[int]:
        """End the connection; give the same."""
        lost: Iterable[Message] = self._kept()
        if self._channel is not None:
            lost = self._channel.unsent()
            self._loop.detach(self._channel)
            os.close(self._mark)
            self._channel = None
        dropped = Counter(action.item_id for action in lost if isinstance(action, RunAction))
        self._forget()
        return dropped

    def _kept(self) -> tuple[RunAction, ...]:
        return (*self._handed_back.values(), *self._waiting.values())

    def _forget(self) -> None:
        self._waiting.clear()
        self._handed_back.clear()
        self._waiting_bytes = 0

    def has_room(self, action: RunAction) -> bool:
        """Say whether one more may wait."""
        return (
            len(self._waiting) + len(self._handed_back) < MAX_WAITING
            and self._waiting_bytes + waiting_bytes(action) <= MAX_WAITING_BYTES
        )

    def run(self, action: RunAction) -> None:
        """Have an action run, for which there is room."""
        if occasion(action) in self._handed_back:
            return
        if occasion(action) not in self._waiting:
            self._waiting[occasion(action)] = action
            self._waiting_bytes += waiting_bytes(action)
        self._send(action)

    def _take_back(self, action: RunAction) -> None:
        if self._waiting.pop(occasion(action), None) is None and occasion(action) not in self._handed_back:
            self._waiting_bytes += waiting_bytes(action)
        self._handed_back[occasion(action)] = action

    def _on_message(self, message: Message, fd: int) -> None:
        match message:
            case ActionStarting():
                self._starting = occasion(message)
            case ActionTaken():
                self._started(occasion(message))
            case RunAction():
                check_offsets(message)
                # An executor takes no more from monitors, and an honest one has all of them from there. The
                # bytes are with those of what we have found ourselves before we heard of these.
                if len(self._handed_back) >= 2 * MAX_WAITING or self._waiting_bytes > 3 * MAX_WAITING_BYTES:
                    raise ProtocolError("more actions than may wait")
                self._take_back(message)

    def _started(self, which: Occasion | None) -> None:
        self._starting = None
        if which is None:
            return
        action = self._waiting.pop(which, None) or self._handed_back.pop(which, None)
        if action is not None:
            self._waiting_bytes -= waiting_bytes(action)

    def _on_closed(self, error: LognotError) -> None:
        if isinstance(error, ProtocolError):
            self._on_broken()
        # The new process of an action holds the channel until it has become the shell: it is known by now.
        if has_started(self._mark):
            self._started(self._starting)
        self._starting = None
        os.close(self._mark)
        self._channel, following, self._next = None, self._next, None
        if following is not None:
            self._use(*following)
