"""The privileged role: opens logs, starts and restarts the others, handles signals, writes the log.

It parses no content and imports no regex engine. What its less privileged children may ask of it is the
methods named `_on_*` below, and nothing else:

    monitor     "look again at log 3", "file 7 is read to its end", "file 7 is read no more", "item 2 fired"
    executor    "action of item 2 started / printed a line / ended"

They name numbers that the supervisor has given out; one that it has not is ignored, and a message that
does not validate costs its sender its life. Neither can name a path or a command.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lognot import messages as m
from lognot import report
from lognot.catalogue import Catalogue
from lognot.channel import Channel, ChannelClosed, socket_pair
from lognot.children import Backoff, Child, how_it_ended, start_child
from lognot.errors import ConfigError, LognotError, ProtocolError
from lognot.journal import ERROR, INFO, WARNING, Event, Journal
from lognot.ledger import Ledger
from lognot.logs import Logs
from lognot.loop import Loop, Timer
from lognot.service import Notifier, SignalQueue
from lognot.settings import MAX_ATHREAD_COUNT, Config, config_to_json
from lognot.users import Account
from lognot.watchdog import Watchdog

BOOT_ATTEMPTS = 5  # a role that never came up this often will not come up
STOP_GRACE_S = 10.0  # actions that run may finish; systemd's own patience is longer (TimeoutStopSec)
STOP_MONITOR_S = 3.0  # the monitor only has to finish a block
KILL_AFTER_S = 8.0  # beyond the grace: an executor needs 5 s to end actions that ignore SIGTERM
RETRY_LIMITED_S = 10.0  # a limit of the system was met; nothing tells when there is room again
STATUS_INTERVAL_S = 1.0  # `systemctl status` need not change more often

# Anything else that ends a monitor came out of what it was doing: a crash, or a search that took too long.
_SIGNALS_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Roles:
    """What the children do, and how a config is had; handed in, since roles do not import each other."""

    monitor: Callable[[Channel, Ledger, int], None]
    executor: Callable[[Channel, Account], None]
    load_config: Callable[[], Config]  # raises ConfigError; checks all that --test checks


@dataclass(slots=True)
class _Executor:
    executor_id: int
    account: Account
    child: Child | None = None
    backoff: Backoff = field(default_factory=Backoff)
    deaths_at_boot: int = 0
    running: dict[int, tuple[int, int]] = field(default_factory=dict)  # pid -> item, start in monotonic ns
    wanted: bool = True  # the config in use names this account
    connected: bool = False  # it and the monitor that runs have a connection


class Supervisor:
    """The service.

    Args:
        config: checked.
        roles: what the children do.
        journal: our own log.
        on_ready: called when everything is watched for the first time.
    """

    def __init__(self, config: Config, roles: Roles, journal: Journal, on_ready: Callable[[], None]) -> None:
        self._roles = roles
        self._journal = journal
        self._on_ready = on_ready
        self._loop = Loop()
        self._ledger = Ledger()
        self._logs = Logs(self._ledger, journal)
        self._notifier = Notifier()
        self._monitor: Child | None = None
        self._monitor_backoff = Backoff()
        self._monitor_deaths_at_boot = 0
        self._executors: dict[int, _Executor] = {}
        self._next_executor_id = 1
        self._catalogue = Catalogue()
        self._log_ids: dict[str, int] = {}  # by path
        self._begun = False  # the monitor has said so since it was started
        self._begin_token = 0
        self._ready_pending = True
        self._watchdog = Watchdog(self._loop, self._notifier, self._ping)
        self._stopping = False
        self._exit_status: int | None = None
        self._actions_run = 0
        self._status_timer: Timer | None = None
        self._retry_timer: Timer | None = None
        self._config = config
        self._signals = SignalQueue((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))

    def run(self) -> int:
        """Serve until told to stop; give the exit status."""
        self._loop.watch(self._signals, self._on_signals)
        self._journal.write(
            Event.STARTED, INFO, f"started, {len(self._config.items)} items in '{self._config.source}'"
        )
        self._use_config(self._config)
        self._start_monitor()
        self._watchdog.start()
        while self._exit_status is None:
            self._loop.turn()
        self._journal.write(Event.STOPPED, INFO, "stopped")
        return self._exit_status

    # Config.

    def _use_config(self, config: Config) -> None:
        """Make a checked config the one in use: numbers for its items, logs and executors."""
        self._config = config
        self._catalogue.use(config)
        self._log_ids = self._logs.configure(item.path for item in config.items)
        accounts = {item.run_as for item in config.items}
        for executor in list(self._executors.values()):
            # One that was told to stop is not wanted again; the account gets a new one.
            if executor.wanted and executor.account not in accounts:
                executor.wanted = False
                if executor.child:
                    self._send(executor.child, m.Stop(int(STOP_GRACE_S * 1000)))
                else:
                    del self._executors[executor.executor_id]
        for account in sorted(accounts, key=lambda account: (account.uid, account.gid)):
            executor = self._executor_of(account)
            if executor.child is None:
                self._start_executor(executor)
            else:
                self._configure(executor.child)

    def _executor_of(self, account: Account) -> _Executor:
        for executor in self._executors.values():
            if executor.account == account and executor.wanted:
                return executor
        executor = _Executor(self._next_executor_id, account)
        self._next_executor_id += 1
        self._executors[executor.executor_id] = executor
        return executor

    def _configure(self, child: Child) -> None:
        items = self._config.items
        message = m.Configure(
            tuple(self._catalogue.number(item) for item in items),
            tuple(self._log_ids[item.path] for item in items),
            tuple(self._executor_of(item.run_as).executor_id for item in items),
        )
        fd = os.memfd_create("lognot-config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(config_to_json(self._config))
            self._send(child, message, fd)
        finally:
            os.close(fd)

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            config = self._roles.load_config()
        except ConfigError as error:
            for problem in error.problems:
                self._journal.write(Event.CONFIG_REFUSED, ERROR, str(problem), item=problem.section or None)
            text = f"config not reloaded, the old one stays in use: {len(error.problems)} problems"
            self._journal.write(Event.CONFIG_REFUSED, ERROR, text)
            self._notifier.ready()
            return
        self._use_config(config)
        if self._monitor:
            self._configure(self._monitor)
            for executor in self._executors.values():
                self._connect(executor)
            self._logs.look_all()
            self._begin()
        self._ready_pending = True
        text = f"config reloaded, {len(config.items)} items in '{config.source}'"
        self._journal.write(Event.RELOADED, INFO, text)

    # The monitor.

    def _start_monitor(self) -> None:
        if self._stopping:
            return
        pid = os.getpid()
        try:
            child = start_child(
                "monitor",
                lambda channel: self._roles.monitor(channel, self._ledger, pid),
                from_child=m.MONITOR_TO_SUPERVISOR,
                to_child=m.SUPERVISOR_TO_MONITOR,
            )
        except OSError as error:
            self._cannot_start("monitor", error, self._monitor_backoff, self._start_monitor)
            return
        self._monitor = child
        self._begun = False
        self._say_started("monitor", child)
        self._loop.attach(child.channel, self._on_monitor_message, lambda error: self._expel(child, error))
        self._loop.watch(child.pidfd, self._on_monitor_end)
        self._configure(child)
        try:
            self._logs.connect(lambda message, fd: self._send(child, message, fd))
        except OSError as error:
            self._journal.write(Event.SELF_ERROR, ERROR, f"cannot watch logs: {error}")
            child.kill()
            return
        for executor in self._executors.values():
            self._connect(executor)
        self._logs.look_all()
        self._begin()

    def _begin(self) -> None:
        assert self._monitor is not None
        self._begin_token += 1
        self._send(self._monitor, m.Begin(self._begin_token))
        self._retry_limited_later()

    def _connect(self, executor: _Executor) -> None:
        """Give the monitor and an executor a connection of their own, when both are there and have none."""
        if not self._monitor or not executor.child or executor.connected:
            return
        executor.connected = True
        ends: tuple[socket.socket, socket.socket] = socket_pair()
        try:
            self._send(self._monitor, m.ConnectExecutor(executor.executor_id), ends[0].fileno())
            self._send(executor.child, m.ConnectMonitor(), ends[1].fileno())
        finally:
            for end in ends:
                end.close()

    def _on_monitor_message(self, message: m.Message, fd: int) -> None:
        match message:
            case m.LookAgain(log_id):
                self._logs.look(log_id)
                self._retry_limited_later()
            case m.StreamDrained(stream_id):
                self._logs.unwritten(stream_id)
            case m.StreamDropped(stream_id):
                self._logs.dropped(stream_id)
            case m.ItemFired():
                report.item_fired(self._journal, self._catalogue.item(message.item_id), message)
                self._status_later()
            case m.Note():
                self._on_note("monitor", message)
            case m.PeerBroke(executor_id):
                self._on_peer_broke(self._executors.get(executor_id))
            case m.Begun(token):
                self._on_begun(token)
            case m.Pong():
                self._watchdog.answered("monitor")

    def _on_peer_broke(self, executor: _Executor | None) -> None:
        if executor and executor.child:
            self._expel(executor.child, LognotError("what it sent to the monitor does not validate"))

    def _on_begun(self, token: int) -> None:
        if token != self._begin_token:
            return
        self._begun = True
        self._monitor_deaths_at_boot = 0
        if not self._ready_pending:
            return
        self._ready_pending = False
        there, total = self._logs.counts()
        self._status()
        self._notifier.ready()
        self._journal.write(Event.READY, INFO, f"ready, watching {there} of {total} logs")
        self._on_ready()

    def _on_monitor_end(self) -> None:
        child, self._monitor = self._monitor, None
        assert child is not None
        status = self._bury(child)
        how = how_it_ended(status)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) not in _SIGNALS_FROM_OUTSIDE:
            self._ledger.convict_search()
        self._watchdog.answered("monitor")
        self._logs.disconnect()
        for executor in self._executors.values():
            executor.connected = False
        if self._stopping:
            self._stop_executors(STOP_GRACE_S)
            return
        if not self._begun:
            self._monitor_deaths_at_boot += 1
            if self._monitor_deaths_at_boot >= BOOT_ATTEMPTS:
                self._give_up("monitor", how)
                return
        self._restart_later("monitor", how, self._monitor_backoff, self._start_monitor)

    # Executors.

    def _start_executor(self, executor: _Executor) -> None:
        if self._stopping or not executor.wanted:
            return
        try:
            child = start_child(
                "executor",
                lambda channel: self._roles.executor(channel, executor.account),
                from_child=m.EXECUTOR_TO_SUPERVISOR,
                to_child=m.SUPERVISOR_TO_EXECUTOR,
            )
        except OSError as error:
            again = lambda: self._start_executor(executor)  # noqa: E731
            self._cannot_start(_name(executor), error, executor.backoff, again)
            return
        executor.child = child
        self._say_started(_name(executor), child)
        self._loop.attach(
            child.channel,
            lambda message, fd: self._on_executor_message(executor, message),
            lambda error: self._expel(child, error),
        )
        self._loop.watch(child.pidfd, lambda: self._on_executor_end(executor))
        self._configure(child)
        self._send(child, m.Ping())  # the answer says that it came up; one without work says nothing else
        now_ns = time.monotonic_ns()
        for pid, (item_id, started_ns) in executor.running.items():
            self._send(child, m.AdoptAction(item_id, pid, (now_ns - started_ns) // 1_000_000))
        self._connect(executor)

    def _on_executor_message(self, executor: _Executor, message: m.Message) -> None:
        executor.deaths_at_boot = 0
        match message:
            case m.ActionStarted(item_id, pid):
                executor.running[pid] = (item_id, time.monotonic_ns())
                self._actions_run += 1
                if len(executor.running) > MAX_ATHREAD_COUNT:
                    raise ProtocolError("more actions than may run")
                report.action_started(self._journal, self._catalogue.item(item_id), message)
            case m.ActionOutput(item_id):
                report.action_output(self._journal, self._catalogue.item(item_id), message)
            case m.ActionFinished(item_id, pid):
                executor.running.pop(pid, None)
                report.action_finished(self._journal, self._catalogue.item(item_id), message)
                self._status_later()
            case m.Note():
                self._on_note(_name(executor), message)
            case m.PeerBroke():
                if self._monitor:
                    self._expel(self._monitor, LognotError("what it sent to an executor does not validate"))
            case m.Pong():
                self._watchdog.answered(_name(executor))

    def _on_executor_end(self, executor: _Executor) -> None:
        child, executor.child = executor.child, None
        executor.connected = False
        assert child is not None
        how = how_it_ended(self._bury(child))
        self._watchdog.answered(_name(executor))
        if self._stopping or not executor.wanted:
            del self._executors[executor.executor_id]
            self._stop_when_alone()
            return
        executor.deaths_at_boot += 1
        if executor.deaths_at_boot >= BOOT_ATTEMPTS:
            self._give_up(_name(executor), how)
            return
        again = lambda: self._start_executor(executor)  # noqa: E731
        self._restart_later(_name(executor), how, executor.backoff, again)

    # Children in general.

    def _say_started(self, name: str, child: Child) -> None:
        text = f"{name} started as pid {child.pid}"
        self._journal.write(Event.ROLE_STARTED, INFO, text, role=child.name, pid=child.pid)

    def _send(self, child: Child, message: m.Message, fd: int = -1) -> None:
        try:
            self._loop.send(child.channel, message, fd)
        except LognotError as error:  # it has stopped reading
            self._expel(child, error)

    def _expel(self, child: Child, error: LognotError) -> None:
        """End a child whose channel cannot be used any more; its end is then handled as any other."""
        if not isinstance(error, ChannelClosed):
            text = f"{child.name} (pid {child.pid}) is ended, since it broke the protocol: {error}"
            self._journal.write(Event.ROLE_EXPELLED, ERROR, text, role=child.name)
        if not self._stopping:
            child.kill()

    def _bury(self, child: Child) -> int:
        """Handle what a dead child has still sent, free what it had, and give its wait status."""
        self._loop.forget(child.pidfd)
        self._loop.drain(child.channel)
        return child.reap()

    def _restart_later(self, name: str, how: str, backoff: Backoff, start: Callable[[], None]) -> None:
        delay_s = backoff.delay_s(time.monotonic_ns())
        when = f"in {delay_s:g} s" if delay_s else "now"
        text = f"{name} ended ({how}), will be started again {when}"
        self._journal.write(Event.ROLE_ENDED, WARNING, text, role=name)
        if delay_s:
            self._loop.call_later(delay_s, start)
        else:
            start()

    def _cannot_start(self, name: str, error: OSError, backoff: Backoff, start: Callable[[], None]) -> None:
        delay_s = max(backoff.delay_s(time.monotonic_ns()), 0.1)
        text = f"cannot start {name}, will be tried again in {delay_s:g} s: {error.strerror}"
        self._journal.write(Event.ROLE_ENDED, ERROR, text, role=name)
        self._loop.call_later(delay_s, start)

    def _give_up(self, name: str, how: str) -> None:
        text = f"{name} ended {BOOT_ATTEMPTS} times before it was ready ({how}); giving up"
        self._journal.write(Event.ROLE_ENDED, ERROR, text, role=name)
        self._exit_status = 1  # the others end by themselves when their channels close

    def _on_note(self, role: str, note: m.Note) -> None:
        report.note(self._journal, role, note, self._catalogue.item(note.about), self._logs.path(note.about))

    def _retry_limited_later(self) -> None:
        if self._logs.limited() and self._retry_timer is None:
            self._retry_timer = self._loop.call_later(RETRY_LIMITED_S, self._retry_limited)

    def _retry_limited(self) -> None:
        self._retry_timer = None
        for log_id in self._logs.limited():
            self._logs.look(log_id)
        self._retry_limited_later()

    # The service manager.

    def _ping(self) -> list[str]:
        children = self._children()
        for _, child in children:
            self._send(child, m.Ping())
        return [name for name, _ in children]

    def _children(self) -> list[tuple[str, Child]]:
        found = [("monitor", self._monitor)] if self._monitor else []
        found += [
            (_name(executor), executor.child) for executor in self._executors.values() if executor.child
        ]
        return found

    def _status_later(self) -> None:
        if self._status_timer is None:
            self._status_timer = self._loop.call_later(STATUS_INTERVAL_S, self._status)

    def _status(self) -> None:
        self._status_timer = None
        there, total = self._logs.counts()
        lines, matches, fired = self._ledger.statistics()
        self._notifier.status(
            f"watching {there} of {total} logs for {len(self._catalogue)} items: "
            f"{lines} lines, {matches} matches, {fired} times fired, {self._actions_run} actions run"
        )

    # Signals and the end.

    def _on_signals(self) -> None:
        for number in self._signals.take():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(number)
            elif number == signal.SIGUSR1 and not self._stopping:
                self._reload()
            elif number == signal.SIGHUP:
                try:
                    self._journal.reopen()
                except OSError as error:
                    text = f"cannot reopen the log file, the old one stays in use: {error}"
                    self._journal.write(Event.SELF_ERROR, ERROR, text)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping:  # asked twice: do not wait for actions any longer
            self._kill_monitor()
            self._stop_executors(grace_s=0)
            return
        self._stopping = True
        self._notifier.stopping()
        self._journal.write(Event.STOPPING, INFO, f"stopping on {number.name}")
        if self._monitor:
            self._send(self._monitor, m.Stop(0))
            self._loop.call_later(STOP_MONITOR_S, self._kill_monitor)
        else:
            self._stop_executors(STOP_GRACE_S)

    def _kill_monitor(self) -> None:
        if self._monitor:
            self._monitor.kill()

    def _stop_executors(self, grace_s: float) -> None:
        for executor in list(self._executors.values()):
            if executor.child:
                self._send(executor.child, m.Stop(int(grace_s * 1000)))
            else:
                del self._executors[executor.executor_id]
        self._loop.call_later(grace_s + KILL_AFTER_S, self._kill_executors)
        self._stop_when_alone()

    def _kill_executors(self) -> None:
        for executor in self._executors.values():
            if executor.child:
                executor.child.kill()

    def _stop_when_alone(self) -> None:
        if self._stopping and not self._monitor and not self._executors:
            self._exit_status = 0


def _name(executor: _Executor) -> str:
    return f"executor of {executor.account.name}"
