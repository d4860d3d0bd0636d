"""The role that runs the actions, as the configured user. One for each distinct uid and gid.

It takes no command from anybody: the monitor names an item and hands over log text, and the command is
looked up in the config. The text becomes environment variables, never shell source (action.py).

Each action is `/bin/sh -c` in a session, and so a process group, of its own. `athread_count` run at once,
the rest wait in order. What they print goes to the supervisor line by line, cut where it is too much
(output.py).
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from lognot import messages as m
from lognot.action import Template, environment, parse_template, plain_template
from lognot.channel import MAX_MESSAGE_BYTES, Channel
from lognot.dispatch import (
    MAX_WAITING,
    MAX_WAITING_BYTES,
    Occasion,
    check_offsets,
    occasion,
    waiting_bytes,
)
from lognot.errors import NO_DESCRIPTOR_STATUS, LognotError, NoDescriptorError, ProtocolError, reason_of
from lognot.loop import Loop, Timer
from lognot.messages import Kind, Notice
from lognot.notes import Notes
from lognot.output import Output
from lognot.peer import Peer
from lognot.privileges import become, forbid_tracing
from lognot.process import open_other_member, signal_group, start_shell
from lognot.service import LEAVE_S, STOP_GRACE_S, ignore_stop_signals
from lognot.settings import Config, Item, config_from_json
from lognot.startmark import set_start_mark
from lognot.users import Account

KILL_AFTER_S = 5.0  # between SIGTERM and SIGKILL to an action that took too long
PASSING_ERRORS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # a limit, met for now
PEER_END_S = 1.0  # a process that ends closes its connections first, and may have to wait for its turn then
FORK_RETRY_S = 0.5  # when no process can be had, until it is tried again
# With so much for the supervisor to read, what actions print is left out: half of what it takes into its log
# at once (quota.ROLE_BURST_BYTES). With more, which is 7,000 starts and ends, no action starts.
MAX_UNREAD_OUTPUT_BYTES = 4 * 1024 * 1024
MAX_UNREAD_BYTES = 8 * 1024 * 1024  # far below what ends the connection (channel.MAX_PENDING_BYTES)
READ_BYTES = 64 * 1024
LAST_READS = 64  # of a pipe whose action has ended
FILES_OF_ACTION = 2  # its pidfd and its output
FILES_OF_OURS = 64  # channels and what a start needs for a moment
# What a new monitor reads again is within few truncations, each of which is 2**48. Half of all numbers are
# 32,768 of them, and an item may be silent for as many: what comes then would be refused.
SAID_AGAIN_WITHIN = 256 * 2**48
MAX_OCCASIONS = 16384  # streams and items whose last occasion is remembered
# How long an item is known that a reload has changed or removed. What the monitor has found by then is in our
# socket a moment later, unless we stand still; and who does so for this long is ended (executors.HANGS_S).
EARLIER_S = 60.0
LAST_WORDS_S = 1.0  # for a monitor that lives, to hand over what it has for an executor that is to stop
MAX_WAITING_MONITORS = 16  # connections of monitors that died while there was no config that we may use


def run_executor(
    channel: Channel,
    account: Account,
    directory: str,
    open_files: tuple[int, int],
    approve: Callable[[bytes], bool],
) -> None:
    """Be an executor until told to stop; the first thing is to become `account`.

    Args:
        channel: to the supervisor.
        account: who to be.
        directory: where the actions start.
        open_files: RLIMIT_NOFILE, soft and hard, that lognot was started with: the actions inherit it.
        approve: says whether a config, as the supervisor sends it, is the administrator's.

    Raises:
        LognotError, OSError: what cannot be gone on from; a new executor will be started.
    """
    os.chdir(directory)
    resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
    become(account)
    forbid_tracing()  # the actions are of the same user
    ignore_stop_signals()
    Executor(channel, account, approve).run()


@dataclass(slots=True)
class _Action:
    """One that waits or runs."""

    item_id: int
    timeout_s: int
    item: Item | None = None  # both None: the last executor started it
    request: m.RunAction | None = None
    pid: int = 0
    pidfd: int = -1
    pipe: int = -1  # what it prints comes from there
    output: Output = field(default_factory=Output)
    started_ns: int = 0
    timed_out: bool = False
    ending: bool = False  # SIGTERM was sent
    killed: bool = False  # SIGKILL was sent
    ended: bool = False  # the shell has, but not the rest of its group
    timers: list[Timer] = field(default_factory=list)


class Executor:
    """The role's state and its loop."""

    def __init__(self, channel: Channel, account: Account, approve: Callable[[bytes], bool]) -> None:
        self._channel = channel
        self._account = account
        self._approve = approve
        self._supervisor = Peer(channel)
        self._mark = -1  # the start mark of the connection to the monitor
        self._loop = Loop()
        self._notes = Notes(self._loop, self._tell)
        self._config: Config | None = None
        self._items: dict[int, Item] = {}
        self._earlier: dict[int, Item] = {}  # of configs before, whose actions may still come
        self._templates: dict[tuple[int, Kind], Template] = {}
        self._monitor: Channel | None = None
        self._waiting_monitors: list[int] = []  # connections that came before a config, in order
        # Of the items in the last config, also one that is not to be used.
        self._numbers: frozenset[int] = frozenset()
        self._looking_ahead = False
        self._put_off: list[tuple[m.Message, int]] = []  # heard while looking ahead, to be done in this turn
        self._queue: OrderedDict[Occasion, _Action] = OrderedDict()
        self._queued_bytes = 0
        self._running: dict[int, _Action] = {}
        self._last: OrderedDict[_Series, int] = OrderedDict()  # position of the last occasion
        self._retrying = False
        self._stopping = False

    def run(self) -> None:
        """Turn until told to stop and nothing is left to do."""
        self._loop.attach(self._channel, self._on_message, self._leave, self._start_queued)
        while not self._stopping or self._running or self._queue or self._monitor:
            self._loop.turn()
        self._notes.flush()
        while self._channel.pending_bytes:
            self._loop.turn()

    # What the supervisor says.

    def _on_message(self, message: m.Message, fd: int) -> None:
        # Both take the monitor's last words, and it is in the middle of one.
        takes_last_words = isinstance(message, m.ConnectMonitor | m.Stop)
        if self._looking_ahead and (self._put_off or takes_last_words):
            self._put_off.append((message, fd))
        else:
            self._catch_up()
            self._obey(message, fd)

    def _catch_up(self) -> None:
        put_off, self._put_off = self._put_off, []
        for message, fd in put_off:
            self._obey(message, fd)

    def _obey(self, message: m.Message, fd: int) -> None:
        match message:
            case m.Configure():
                self._configure(message, fd)
            case m.UseStartMark():
                if self._mark >= 0:  # of a monitor that is gone, or a connection that could not be had
                    os.close(self._mark)
                self._mark = fd
            case m.ConnectMonitor():
                self._connect(fd)
            case m.AdoptAction():
                self._adopt(message)
            case m.Ping():
                self._tell(m.Pong())
            case m.Stop(grace_ms):
                self._stop(grace_ms / 1000)

    def _tell(self, message: m.Message) -> None:
        self._loop.send(self._channel, message)

    def _configure(self, message: m.Configure, fd: int) -> None:
        try:
            data = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
        self._numbers = frozenset(message.item_ids)
        if not self._approve(data):
            self._refuse_config()
            return
        self._config = config = config_from_json(data)
        _allow_open_files(FILES_OF_ACTION * config.athread_count + FILES_OF_OURS)
        items = dict(zip(message.item_ids, config.items, strict=True))
        self._keep_earlier({number: item for number, item in self._items.items() if number not in items})
        self._items = items
        self._templates.clear()
        waiting, self._waiting_monitors = self._waiting_monitors, []
        for waiting_fd in waiting:  # all but the last one are of monitors that are gone
            self._connect(waiting_fd)
        self._start_queued()

    def _keep_earlier(self, gone: dict[int, Item]) -> None:
        """Know items for a while that the new config has not: what was found before it came is still run."""
        self._earlier.update(gone)
        while len(self._earlier) > m.MAX_ITEMS:
            del self._earlier[next(iter(self._earlier))]
        numbers = tuple(gone)

        def forget() -> None:
            for number in numbers:
                self._earlier.pop(number, None)

        if numbers:
            self._loop.call_later(EARLIER_S, forget)

    def _item(self, item_id: int) -> Item | None:
        return self._items.get(item_id) or self._earlier.get(item_id)

    def _refuse_config(self) -> None:
        """Have no actions until there is a config that we may use; what the monitor says waits meanwhile."""
        if self._config is not None:
            raise LognotError("the new config is not the administrator's")  # the next executor begins without
        self._notes.say(Notice.CONFIG_DIFFERS, 0)

    def _template(self, item_id: int, item: Item, kind: Kind) -> Template:
        known = self._templates.get((item_id, kind))
        if known is None:
            text = _text_of(item, kind) or b""
            known = parse_template(text) if kind is Kind.UPBOUND else plain_template(text)
            self._templates[item_id, kind] = known
        return known

    def _leave(self, error: LognotError) -> None:
        """The supervisor has ended, and what it has accepted is done as on Stop; or it wants us no more.

        The monitor ends with it, but may do so a moment later: what it has said until then counts. Where the
        supervisor only sent what did not fit, the next executor minds our actions.
        """
        if isinstance(error, NoDescriptorError):
            os._exit(NO_DESCRIPTOR_STATUS)
        if not self._supervisor.has_ended(PEER_END_S):
            for action in self._running.values():
                signal_group(action.pid, signal.SIGTERM)
            os._exit(1)
        self._loop.call_later(LEAVE_S, lambda: os._exit(1))
        if not self._stopping:
            self._stopping = True
            self._loop.call_later(STOP_GRACE_S, self._stop_now)
        self._start_queued()  # nothing waits for the supervisor any more

    def _stop(self, grace_s: float) -> None:
        self._stopping = True
        for fd in self._waiting_monitors:
            self._drop_waiting(fd, b"they were held back until the stop")
        self._waiting_monitors = []
        # The monitor has ended before us, or has nothing more for us. But what it has still said counts, and
        # some of that may not have fitted into the socket yet.
        self._loop.call_later(min(LAST_WORDS_S, grace_s), self._take_last_words)
        self._loop.call_later(grace_s, self._stop_now)

    def _stop_now(self) -> None:
        if self._monitor is not None:
            self._loop.detach(self._monitor)
            self._monitor = None
        dropped = Counter(action.item_id for action in self._queue.values())
        for item_id, number in dropped.items():
            self._notes.say(Notice.ACTIONS_DROPPED, item_id, number, b"lognot stops")
        self._queue.clear()
        for action in self._running.values():
            self._end(action)

    # What the monitor says.

    def _connect(self, fd: int) -> None:
        """Serve a new monitor, after the last one's every word; tell it what waits here."""
        if self._config is None:
            self._waiting_monitors.append(fd)
            if len(self._waiting_monitors) > MAX_WAITING_MONITORS:
                self._drop_waiting(self._waiting_monitors.pop(0), b"they were held back for too long")
            return
        self._take_last_words()
        self._monitor = Channel(socket.socket(fileno=fd), m.MONITOR_TO_EXECUTOR, MAX_MESSAGE_BYTES)
        self._loop.attach(self._monitor, self._on_request, self._on_monitor_closed, self._start_queued)
        for action in self._queue.values():
            if action.request is not None:
                self._say(action.request)
        self._start_queued()

    def _drop_waiting(self, fd: int, reason: bytes) -> None:
        """Say of a connection that came before a config what was asked for there, and is not run."""
        asked: Counter[int] = Counter()

        def count(request: m.Message, fd: int) -> None:
            assert isinstance(request, m.RunAction)
            asked[request.item_id if request.item_id in self._numbers else 0] += 1

        monitor = Channel(socket.socket(fileno=fd), m.MONITOR_TO_EXECUTOR, MAX_MESSAGE_BYTES)
        self._loop.attach(monitor, count, lambda error: None)
        self._loop.drain(monitor)
        for item_id, number in asked.items():
            self._notes.say(Notice.ACTIONS_DROPPED, item_id, number, reason)

    def _take_last_words(self) -> None:
        monitor, self._monitor = self._monitor, None  # nobody reads an answer
        if monitor is not None:
            self._loop.drain(monitor)

    def _on_monitor_closed(self, error: LognotError) -> None:
        self._monitor = None
        if isinstance(error, ProtocolError):
            self._tell(m.PeerBroke(0))
        self._start_queued()

    def _on_request(self, request: m.Message, fd: int) -> None:
        assert isinstance(request, m.RunAction)
        check_offsets(request)
        if self._item(request.item_id) is None:
            self._look_ahead(request.item_id)
        item = self._item(request.item_id)
        which = occasion(request)
        if item is None or item.run_as != self._account or _text_of(item, request.kind) is None:
            # Found before a reload, for an executor that is gone; or nonsense, so its number is not said.
            self._notes.say(Notice.ACTIONS_DROPPED, 0, 1, b"the config has changed")
            self._taken(which)
            return
        series = _series_of(item, request)
        last = self._last.get(series)
        if last is not None and _is_said_again(request.position, last):
            # Said again by a new monitor. When it still waits, it will be taken later.
            if which not in self._queue:
                self._taken(which)
            return
        self._last[series] = request.position
        self._last.move_to_end(series)
        if len(self._last) > MAX_OCCASIONS:
            self._last.popitem(last=False)
        # A monitor keeps within half of these. But several can die before they have heard what waits here.
        if len(self._queue) >= 2 * MAX_WAITING or self._queued_bytes > 2 * MAX_WAITING_BYTES:
            self._notes.say(Notice.ACTIONS_DROPPED, request.item_id)
            self._taken(which)
            return
        self._queue[which] = _Action(request.item_id, item.action_timeout_s, item, request)
        self._queued_bytes += waiting_bytes(request)
        self._start_queued()

    def _look_ahead(self, item_id: int) -> None:
        """Hear the supervisor until an item is known: of a new one it tells us before it tells the monitor.

        When it has connected another monitor since, or stops us, it knew of none that this one could mean.
        """
        if self._monitor is None:
            return
        self._looking_ahead = True
        while item_id not in self._items and not self._put_off and self._loop.hear(self._channel):
            pass
        self._looking_ahead = False
        if self._put_off:
            self._loop.call_later(0, self._catch_up)

    def _taken(self, which: Occasion) -> None:
        self._say(m.ActionTaken(*which))

    @property
    def _monitor_knows(self) -> bool:
        """All that we said to the monitor is in the kernel's hands: it gets there also when we are killed."""
        return self._monitor is None or not self._monitor.pending_bytes

    def _say(self, message: m.Message) -> None:
        """Tell the monitor, when there is one."""
        if self._monitor is None:
            return
        try:
            self._loop.send(self._monitor, message)
        except LognotError:  # it asks, and does not read the answers
            self._loop.detach(self._monitor)
            self._on_monitor_closed(ProtocolError("the monitor does not read"))

    # Actions.

    @property
    def _has_place(self) -> bool:
        """One more action may run."""
        return (
            self._config is not None
            and len(self._running) < self._config.athread_count
            and self._channel.pending_bytes <= MAX_UNREAD_BYTES
        )

    def _start_queued(self) -> None:
        while self._queue and self._has_place:
            action = next(iter(self._queue.values()))
            assert action.request is not None
            assert action.item is not None
            # What starts before the monitor can know of it would start again, should we be killed now.
            if self._retrying or not self._monitor_knows:
                return
            if not self._start(action, action.item, action.request):
                return
            self._queue.popitem(last=False)
            self._queued_bytes -= waiting_bytes(action.request)

    def _start(self, action: _Action, item: Item, request: m.RunAction) -> bool:
        """Start an action, or drop it when it can never start; False when it cannot start now."""
        template = self._template(action.item_id, item, request.kind)
        variables = environment(
            name=self._account.name,
            home=self._account.home,
            item=item.name,
            path=item.path,
            kind=request.kind.label,
            count=request.count,
            line=request.line if request.kind is Kind.UPBOUND else None,
            spans=request.spans,
            words=template.words,
        )
        which = occasion(request)
        started_ns = time.monotonic_ns()
        try:
            # First: what it said of the last action must not be taken for this one.
            set_start_mark(self._mark)
            self._say(m.ActionStarting(*which))
            if not self._monitor_knows:
                return False  # started, and said again, when it does
            pid, action.pipe = start_shell(template.shell_text, variables, self._mark)
        except OSError as error:
            reason = reason_of(error).encode()
            if error.errno not in PASSING_ERRORS:  # such as E2BIG; it would hold up all the others for ever
                self._notes.say(
                    Notice.ACTIONS_DROPPED, action.item_id, 1, b"the shell cannot start: " + reason
                )
                self._taken(which)
                return True
            self._notes.say(Notice.FORK_FAILED, action.item_id, 1, reason)
            self._retrying = True
            self._loop.call_later(FORK_RETRY_S, self._retry)
            return False
        self._loop.watch(action.pipe, lambda: self._read_output(action))
        self._taken(which)
        # First: should we fail, the next one minds it.
        self._tell(m.ActionStarted(action.item_id, pid, action.timeout_s))
        self._mind(action, pid, started_ns)
        return True

    def _retry(self) -> None:
        self._retrying = False
        self._start_queued()

    def _adopt(self, message: m.AdoptAction) -> None:
        """Mind an action that the last executor has started, when it still runs."""
        pidfd = -1
        with suppress(OSError):
            pidfd = os.pidfd_open(message.pid)
            if os.getsid(message.pid) != message.pid:  # another process has the number by now
                os.close(pidfd)
                pidfd = -1
        if pidfd < 0:
            self._tell(
                m.ActionFinished(message.item_id, message.pid, m.UNKNOWN_STATUS, message.age_ms, False)
            )
            return
        action = _Action(message.item_id, message.timeout_s)
        self._mind(action, message.pid, time.monotonic_ns() - message.age_ms * 1_000_000, pidfd)

    def _mind(self, action: _Action, pid: int, started_ns: int, pidfd: int = -1) -> None:
        action.pid = pid
        action.pidfd = pidfd if pidfd >= 0 else os.pidfd_open(pid)
        action.started_ns = started_ns
        self._running[pid] = action
        self._loop.watch(action.pidfd, lambda: self._on_end(action))
        deadline_ns = started_ns + action.timeout_s * 10**9
        action.timers.append(self._loop.call_at(deadline_ns, lambda: self._time_out(action)))

    def _time_out(self, action: _Action) -> None:
        action.timed_out = True
        self._end(action)

    def _end(self, action: _Action) -> None:
        """Ask an action's whole process group to end, and make it end soon after."""
        action.ending = True
        signal_group(action.pid, signal.SIGTERM)
        signal_group(action.pid, signal.SIGCONT)  # one that has been stopped ends when it goes on
        action.timers.append(self._loop.call_later(KILL_AFTER_S, lambda: self._kill(action)))

    def _kill(self, action: _Action) -> None:
        action.killed = True
        signal_group(action.pid, signal.SIGKILL)
        if action.ended:
            self._loop.forget(action.pidfd)
            self._finish(action)

    def _on_end(self, action: _Action) -> None:
        """An action's shell has ended, but is not reaped yet: so long, its process group stays its own."""
        self._loop.forget(action.pidfd)
        rest = open_other_member(action.pid) if action.ending and not action.killed else -1
        if rest < 0:
            self._finish(action)
            return
        os.close(action.pidfd)
        action.pidfd = rest  # the rest of the group has until SIGKILL; mostly it is about to end too
        action.ended = True
        self._loop.watch(rest, lambda: self._on_end(action))

    def _finish(self, action: _Action) -> None:
        for timer in action.timers:
            timer.cancel()
        os.close(action.pidfd)
        status = m.UNKNOWN_STATUS
        if action.request is not None:
            _, status = os.waitpid(action.pid, 0)
        if action.pipe >= 0:
            for _ in range(LAST_READS):  # something that it left in the background may print for ever
                if not self._read_output(action):
                    break
            self._close_output(action)
        if action.output.cut_bytes:
            self._notes.say(Notice.ACTION_OUTPUT_CUT, action.item_id, action.output.cut_bytes)
        del self._running[action.pid]
        duration_ms = (time.monotonic_ns() - action.started_ns) // 1_000_000
        self._tell(m.ActionFinished(action.item_id, action.pid, status, duration_ms, action.timed_out))
        self._start_queued()

    def _read_output(self, action: _Action) -> bool:
        """Pass on what an action has printed; False when there is nothing now."""
        try:
            data = os.read(action.pipe, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_output(action)
            return False
        action.output.add(data, partial(self._print, action))
        return True

    def _print(self, action: _Action, line: bytes) -> bool:
        """Tell the supervisor a line of an action, unless it has too much to read (False)."""
        if self._channel.pending_bytes > MAX_UNREAD_OUTPUT_BYTES:
            return False
        self._tell(m.ActionOutput(action.item_id, action.pid, line))
        return True

    def _close_output(self, action: _Action) -> None:
        if action.pipe >= 0:
            action.output.end(partial(self._print, action))
            self._loop.forget(action.pipe)
            os.close(action.pipe)
            action.pipe = -1


_Series = tuple[str, Kind, int, int]  # item, kind, stream, unit: of occasions whose positions only grow


def _series_of(item: Item, request: m.RunAction) -> _Series:
    """Give what a position belongs to.

    Of an item by its name: one that a reload has changed may be told lines once more, by a new monitor, that
    it has run for as it was before. Multiples of another size are other positions.
    """
    unit = item.size or 0 if request.kind is Kind.SIZE else 0
    return item.name, request.kind, request.stream_id, unit


def _is_said_again(position: int, last: int) -> bool:
    """Say whether a position is not after another one; both are serial numbers of 64 bits (RFC 1982)."""
    return (last - position) % 2**64 < SAID_AGAIN_WITHIN


def _text_of(item: Item, kind: Kind) -> bytes | None:
    """The text of an item's action; None: the config has none of this kind."""
    if kind is Kind.UPBOUND:
        return item.upbound_action
    return item.downbound_action if kind is Kind.DOWNBOUND else item.size_action


def _allow_open_files(count: int) -> None:
    """Raise the soft limit when so many do not fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        limit = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
