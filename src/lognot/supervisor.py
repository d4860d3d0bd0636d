"""The privileged role: opens logs, starts and restarts the others, handles signals, writes the log.

It parses no content and imports no regex engine. What its less privileged children may ask of it is the
methods named `_on_*` below, and nothing else:

    monitor     "look again at log 3", "file 7 is read to its end", "file 7 is read no more", "item 2 fired"
    executor    "action of item 2 started / printed a line / ended"

They name numbers that the supervisor has given out; one that it has not is ignored, and a message that
does not validate costs its sender its life. Neither can name a path or a command.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from lognot import messages as m
from lognot import report
from lognot.catalogue import Catalogue
from lognot.channel import Channel, socket_pair
from lognot.children import Child, crashed, start_child
from lognot.continuity import Continuity, wants_resume
from lognot.errors import ConfigError, ProtocolError, reason_of
from lognot.journal import ERROR, INFO, WARNING, Event, Journal
from lognot.keeper import Keeper
from lognot.launched import Launched
from lognot.ledger import Ledger
from lognot.logs import Logs
from lognot.loop import Loop, Timer
from lognot.mounts import MountTable
from lognot.quota import SAID_EVERY_NS, Quota, QuotaJournal
from lognot.service import END_ACTIONS_S, STOP_GRACE_S, Notifier, SignalQueue
from lognot.settings import MAX_ATHREAD_COUNT, Config, config_to_json
from lognot.shown import counted
from lognot.startmark import new_start_mark
from lognot.state import SavedLogs
from lognot.users import Account
from lognot.watchdog import Watchdog

STOP_MONITOR_S = 4.0  # the monitor reads what there is for 2 seconds (monitor.STOP_S), and finishes a block
RETRY_LIMITED_S = 5.0  # a limit of the system was met; nothing tells when there is room again
HANGS_S = 60.0  # an executor that does not answer for so long is ended; to have its config approved takes 30
EXECUTORS_S = 3.0  # readiness waits so long for them; they come up later too, and their actions wait
MOUNTS_S = 0.5  # a change of the mounts mostly comes with others: containers, or a restart of autofs
STATUS_INTERVAL_S = 1.0  # `systemctl status` need not change more often

# What a role may make us log: some 20,000 short records at once, and then 350 a second. An honest one is far
# below that, but for a moment, and one that was taken over does not fill the disk.
ROLE_BURST_BYTES = 8 * 1024 * 1024
ROLE_BYTES_PER_S = 128 * 1024

# An executor may say of the monitor that it broke the protocol three times at once, and then once in 20 s. An
# honest one hardly ever has to; one that was taken over is not to keep everybody's monitor from coming up.
ACCUSATIONS = 3
ACCUSATION_S = 20

# Nobody changes a config that was handed out, we neither (memfd_create(2)).
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Roles:
    """What the children do, and how a config is had; handed in, since roles do not import each other."""

    monitor: Callable[[Channel, Ledger, tuple[int, ...]], None]
    start_executor: Callable[[Account], Child | Launched]  # raises OSError
    load_config: Callable[[], Config]  # raises ConfigError; checks all that --test checks
    keep_state: Callable[[Config], Continuity | None]  # for a config that has come to want it


@dataclass(slots=True)
class _Executor:
    executor_id: int
    account: Account
    keeper: Keeper
    journal: QuotaJournal  # for what it says
    running: dict[int, tuple[int, int]] = field(default_factory=dict)  # pid -> item, start in monotonic ns
    wanted: bool = True  # the config in use names this account
    connected: bool = False  # it and the monitor that runs have a connection
    connecting: bool = False  # it will be tried again
    configured: bool = False  # it has answered since it was given the config in use
    asked_ns: int = 0  # when it was asked whether its loop turns; 0: it has answered
    accusations: Quota = field(default_factory=lambda: Quota(ACCUSATIONS * ACCUSATION_S, 1))
    failure: bytes = b""  # why it failed, as last said


class Supervisor:
    """The service.

    Args:
        config: checked.
        roles: what the children do.
        journal: our own log.
        on_ready: called when everything is watched for the first time.
        continuity: what the next service is to go on from, if the config wants that.
        saved: what the last one has left.
    """

    def __init__(
        self,
        config: Config,
        roles: Roles,
        journal: Journal,
        on_ready: Callable[[], None],
        continuity: Continuity | None = None,
        saved: SavedLogs | None = None,
    ) -> None:
        self._roles = roles
        self._journal = journal
        self._on_ready = on_ready
        self._loop = Loop(linger_limit=True)
        self._continuity = continuity
        self._saved: SavedLogs = saved or {}
        self._ledger = (continuity.ledger if continuity else None) or Ledger()
        self._monitor_journal = _quota_journal(journal, "the monitor")
        self._logs = Logs(self._ledger, journal, continuity.roll if continuity else None)
        self._notifier = Notifier()
        self._monitor = Keeper(
            "monitor",
            self._loop,
            journal,
            start=self._fork_monitor,
            on_message=self._on_monitor_message,
            on_start=self._on_monitor_start,
            on_end=self._on_monitor_end,
            on_give_up=self._give_up,
        )
        self._executors: dict[int, _Executor] = {}
        self._next_executor_id = 1
        self._catalogue = Catalogue(continuity.numbers if continuity else None)
        self._log_ids: dict[str, int] = {}  # by path
        self._begin_token = 0
        self._ready_pending = True
        self._begun = False  # the monitor has, and executors are waited for
        self._ready_timer: Timer | None = None
        self._watchdog = Watchdog(self._loop, self._notifier, self._ping)
        self._stopping = False
        self._grace_s = STOP_GRACE_S
        self._exit_status: int | None = None
        self._actions_run = 0
        self._told_no_sandbox = False
        self._status_timer: Timer | None = None
        self._retry_timer: Timer | None = None
        self._lost_timer: Timer | None = None
        self._left_out_timer: Timer | None = None
        self._watch_timer: Timer | None = None  # no inotify instance could be had
        self._mounts = MountTable()
        self._mounts_timer: Timer | None = None
        self._config = config
        self._signals = SignalQueue((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))

    def run(self) -> int:
        """Serve until told to stop; give the exit status."""
        self._loop.watch(self._signals, self._on_signals)
        self._loop.watch(self._mounts, self._on_mounts)
        self._journal.write(
            Event.STARTED,
            INFO,
            f"started, {counted(len(self._config.items), 'item')} in '{self._config.source}'",
        )
        # First: an item that is new may get a number that an item of the last service had.
        self._ledger.adopt(self._continuity.numbers.values() if self._continuity else ())
        self._use_config(self._config)
        self._logs.resume(self._saved)
        self._save()
        self._monitor.start()
        self._watchdog.start()
        while self._exit_status is None:
            self._loop.turn()
            self._say_lost_later()
        self._journal.say_left_out()
        if self._continuity is not None:
            self._continuity.save()
            self._continuity.close()
        self._journal.write(Event.STOPPED, INFO, "stopped")
        return self._exit_status

    # Config.

    def _use_config(self, config: Config) -> None:
        """Make a checked config the one in use: numbers for its items, logs and executors."""
        self._config = config
        self._catalogue.use(config)
        resuming = {item.path for item in config.items if item.resume}
        self._log_ids = self._logs.configure((item.path for item in config.items), resuming)
        self._keep_state()
        accounts = {item.run_as for item in config.items}
        for executor in list(self._executors.values()):
            # One that was told to stop is not wanted again; the account gets a new one.
            if executor.wanted and executor.account not in accounts:
                executor.wanted = False
                self._stop_executor(executor, STOP_GRACE_S)
        for account in sorted(accounts, key=lambda account: (account.uid, account.gid)):
            executor = self._executor_of(account)
            if executor.keeper.child:
                self._configure_executor(executor)
            else:
                executor.keeper.start()

    def _keep_state(self) -> None:
        """Have the next service go on from here, from now on if the config has just come to want that."""
        if self._continuity is None and wants_resume(self._config):
            self._continuity = self._roles.keep_state(self._config)
        if self._continuity is not None:
            self._continuity.keep_numbers(self._catalogue.resuming())
            self._continuity.use(self._loop, self._logs.positions)
            self._continuity.save_later()

    def _save(self) -> None:
        if self._continuity is not None:
            self._continuity.save()

    def _save_later(self) -> None:
        if self._continuity is not None:
            self._continuity.save_later()

    def _executor_of(self, account: Account) -> _Executor:
        for executor in self._executors.values():
            if executor.account == account and executor.wanted:
                return executor
        executor = self._new_executor(self._next_executor_id, account)
        self._next_executor_id += 1
        self._executors[executor.executor_id] = executor
        return executor

    def _configure(self, keeper: Keeper) -> None:
        items = self._config.items
        message = m.Configure(
            tuple(self._catalogue.number(item) for item in items),
            tuple(self._log_ids[item.path] for item in items),
            tuple(self._executor_of(item.run_as).executor_id for item in items),
        )
        fd = -1
        try:
            fd = os.memfd_create("lognot-config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with open(fd, "wb", closefd=False) as file:
                file.write(config_to_json(self._config))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            keeper.send(message, fd)
        except OSError as error:  # a limit: it must not go on with another config than we do
            keeper.unprovided(error)
        finally:
            if fd >= 0:
                os.close(fd)

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            config = self._roles.load_config()
        except ConfigError as error:
            for problem in error.problems:
                priority = WARNING if problem.warning else ERROR
                self._journal.write(
                    Event.CONFIG_REFUSED, priority, str(problem), item=problem.section or None
                )
            text = f"config not reloaded, the old one stays in use: {counted(len(error.problems), 'problem')}"
            self._journal.write(Event.CONFIG_REFUSED, ERROR, text)
            self._notifier.ready()
            return
        self._use_config(config)
        self._ready_pending = True
        if self._monitor.child:
            self._configure(self._monitor)
            for executor in self._executors.values():
                self._connect(executor)
            if self._watch_timer is None:
                self._logs.look_all()
                self._begin()
        text = f"config reloaded, {counted(len(config.items), 'item')} in '{config.source}'"
        self._journal.write(Event.RELOADED, INFO, text)

    # The monitor.

    def _fork_monitor(self) -> Child:
        pids = self._continuity.pids if self._continuity else (os.getpid(),)
        roll = self._continuity.roll if self._continuity else None
        with self._ledger.shared():
            return start_child(
                "monitor",
                lambda channel: self._roles.monitor(channel, self._ledger, pids),
                from_child=m.MONITOR_TO_SUPERVISOR,
                to_child=m.SUPERVISOR_TO_MONITOR,
                kept=(roll.lock_fd,) if roll else (),
            )

    def _on_monitor_start(self) -> None:
        self._configure(self._monitor)
        for executor in self._executors.values():
            self._connect(executor)
        if self._watch_timer is None:
            self._watch_logs()

    def _watch_logs(self) -> None:
        """Give the monitor its logs, as soon as that can be done."""
        tried_before, self._watch_timer = self._watch_timer is not None, None
        try:
            self._logs.connect(self._monitor.send)
        except OSError as error:
            if not tried_before:
                text = (
                    f"cannot watch logs, will be tried again every {RETRY_LIMITED_S:g} s: {reason_of(error)}"
                )
                self._journal.write(Event.SELF_ERROR, ERROR, text)
            self._watch_timer = self._loop.call_later(RETRY_LIMITED_S, self._watch_logs)
            return
        if self._monitor.child:
            self._logs.look_all()
            self._begin()

    def _begin(self) -> None:
        self._begin_token += 1
        self._begun = False
        self._monitor.send(m.Begin(self._begin_token))
        self._retry_limited_later()

    def _connect(self, executor: _Executor) -> None:
        """Give the monitor and an executor a connection of their own, when both are there and have none."""
        if not self._monitor.child or not executor.keeper.child or executor.connected:
            return
        with ExitStack() as stack:
            try:
                mark_fd = new_start_mark()
                stack.callback(os.close, mark_fd)
                ends = socket_pair(m.EXECUTOR_TO_MONITOR, m.MONITOR_TO_EXECUTOR)
                for end in ends:
                    stack.enter_context(end)
                self._monitor.send(m.UseStartMark(), mark_fd)
                self._monitor.send(m.ConnectExecutor(executor.executor_id), ends[0].fileno())
                executor.keeper.send(m.UseStartMark(), mark_fd)
                executor.keeper.send(m.ConnectMonitor(), ends[1].fileno())
                executor.connected = True
            except OSError as error:  # a limit; the actions wait in the monitor
                self._connect_later(executor, error)

    def _connect_later(self, executor: _Executor, error: OSError) -> None:
        if executor.connecting:
            return
        executor.connecting = True

        def connect() -> None:
            executor.connecting = False
            self._connect(executor)

        name = executor.keeper.name
        text = f"actions of the {name} wait, will be tried again in {RETRY_LIMITED_S:g} s: {reason_of(error)}"
        self._journal.write(Event.SELF_ERROR, ERROR, text)
        self._loop.call_later(RETRY_LIMITED_S, connect)

    def _on_monitor_message(self, message: m.Message, fd: int) -> None:
        match message:
            case m.LookAgain(log_id):
                self._logs.look(log_id)
                self._retry_limited_later()
                self._save_later()
            case m.Advanced():
                self._save_later()
            case m.StreamUnreadable(stream_id):
                self._logs.unreadable(stream_id)
                self._retry_limited_later()
            case m.StreamDrained(stream_id):
                self._logs.unwritten(stream_id)
                self._retry_limited_later()
            case m.StreamDropped(stream_id):
                self._logs.dropped(stream_id)
                if self._retry_timer:  # what it took is free
                    self._retry_timer.cancel()
                    self._retry_limited()
                self._retry_limited_later()
            case m.ItemFired():
                report.item_fired(self._monitor_journal, self._catalogue.item(message.item_id), message)
                self._status_later()
            case m.Note(m.Notice.NO_SANDBOX) if self._told_no_sandbox:
                pass  # what is missing was missing for the last monitor, too
            case m.Note(notice):
                self._told_no_sandbox |= notice is m.Notice.NO_SANDBOX
                self._on_note(self._monitor_journal, self._monitor.name, message)
            case m.PeerBroke(executor_id):
                self._on_peer_broke(self._executors.get(executor_id))
            case m.Begun(token):
                self._on_begun(token)
            case m.Pong():
                self._watchdog.answered("monitor")

    def _on_peer_broke(self, executor: _Executor | None) -> None:
        """End an executor on the monitor's word, however often: it can do no more than hold up actions.

        That it could as well by not asking for them. And an honest monitor says so of each new executor that
        is taken over: to end it for that would be what they want.
        """
        if executor:
            error = ProtocolError("what it sent to the monitor does not validate")
            executor.keeper.expel(error, accused=True)

    def _on_begun(self, token: int) -> None:
        if token != self._begin_token:
            return
        self._monitor.came_up()
        self._logs.begun()
        self._save_later()
        if self._ready_pending:
            if self._continuity is not None:
                self._continuity.note_positions()
            self._begun = True
            if self._ready_timer is not None:  # of a reload before this one
                self._ready_timer.cancel()
            self._ready_timer = self._loop.call_later(EXECUTORS_S, self._ready)
            self._ready_if_complete()

    def _ready_if_complete(self) -> None:
        """Be ready when every executor has its config: from then on the file may be changed."""
        if all(executor.configured for executor in self._executors.values() if executor.wanted):
            self._ready()

    def _ready(self) -> None:
        if not self._ready_pending or not self._begun:
            return
        self._ready_pending = self._begun = False
        if self._ready_timer:
            self._ready_timer.cancel()
        there, total = self._logs.counts()
        self._status()
        self._notifier.ready()
        self._journal.write(Event.READY, INFO, f"ready, watching {there} of {total} logs")
        self._on_ready()

    def _on_monitor_end(self, wait_status: int) -> bool:
        if crashed(wait_status):
            self._ledger.convict_search()
        self._ledger.complete_commit()  # before any position is read
        self._watchdog.answered("monitor")
        self._logs.disconnect()
        for executor in self._executors.values():
            executor.connected = False
        if self._stopping:
            self._save()
            self._stop_executors(self._grace_s)
        return not self._stopping

    # Executors.

    def _new_executor(self, executor_id: int, account: Account) -> _Executor:
        keeper = Keeper(
            f"executor of {account.name}",
            self._loop,
            self._journal,
            start=lambda: self._roles.start_executor(account),
            on_message=lambda message, fd: self._on_executor_message(executor, message),
            on_start=lambda: self._on_executor_start(executor),
            on_end=lambda wait_status: self._on_executor_end(executor),
            on_give_up=None,  # the user of its actions may kill it, and is not to end the others' with it
        )
        executor = _Executor(executor_id, account, keeper, _quota_journal(self._journal, keeper.name))
        return executor

    def _configure_executor(self, executor: _Executor) -> None:
        executor.configured = False
        self._configure(executor.keeper)
        executor.keeper.send(m.Ping())  # the answer says that it is done; without work it says nothing else

    def _on_executor_start(self, executor: _Executor) -> None:
        self._configure_executor(executor)
        now_ns = time.monotonic_ns()
        for pid, (item_id, started_ns) in executor.running.items():
            executor.keeper.send(m.AdoptAction(item_id, pid, (now_ns - started_ns) // 1_000_000))
        self._connect(executor)

    def _on_executor_message(self, executor: _Executor, message: m.Message) -> None:
        match message:
            case m.ActionStarted(item_id, pid):
                if len(executor.running) >= MAX_ATHREAD_COUNT and pid not in executor.running:
                    raise ProtocolError("more actions than may run")
                executor.running[pid] = (item_id, time.monotonic_ns())
                self._actions_run += 1
                report.action_started(executor.journal, self._catalogue.item(item_id), message)
            case m.ActionOutput(item_id):
                report.action_output(executor.journal, self._catalogue.item(item_id), message)
            case m.ActionFinished(item_id, pid):
                executor.running.pop(pid, None)
                report.action_finished(executor.journal, self._catalogue.item(item_id), message)
                self._status_later()
            case m.Note(m.Notice.ROLE_FAILED) if executor.keeper.failing and message.text == executor.failure:
                pass  # the keeper says now and then that it still fails
            case m.Note(notice):
                if notice is m.Notice.ROLE_FAILED:
                    executor.failure = message.text
                self._on_note(executor.journal, executor.keeper.name, message)
            case m.PeerBroke():
                self._on_monitor_accused(executor)
            case m.ExecutorStarted(pid):
                self._on_launched(executor, pid)
            case m.ExecutorEnded(wait_status):
                if isinstance(executor.keeper.child, Launched):
                    executor.keeper.child.wait_status = wait_status
            case m.Pong():
                executor.keeper.came_up()
                executor.configured = True
                executor.asked_ns = 0
                self._ready_if_complete()

    def _on_monitor_accused(self, executor: _Executor) -> None:
        """End the monitor on an executor's word, or the executor when it says so too often."""
        if not executor.accusations.take(ACCUSATION_S, time.monotonic_ns()):
            raise ProtocolError("it accuses the monitor again and again")
        self._monitor.expel(ProtocolError("what it sent to an executor does not validate"), accused=True)

    def _on_launched(self, executor: _Executor, pid: int) -> None:
        child = executor.keeper.child
        if isinstance(child, Launched) and not child.pid:
            child.pid = pid
            executor.keeper.runs_as(pid)

    def _on_executor_end(self, executor: _Executor) -> bool:
        executor.connected = False
        executor.asked_ns = 0
        if self._stopping or not executor.wanted:
            del self._executors[executor.executor_id]
            self._stop_when_alone()
            return False
        return True

    def _stop_executor(self, executor: _Executor, grace_s: float) -> None:
        """Let an executor end when its actions have, after `grace_s` seconds in any case."""
        executor.keeper.stop()
        if executor.keeper.child:
            executor.keeper.send(m.Stop(int(grace_s * 1000)))
            self._loop.call_later(grace_s + END_ACTIONS_S, executor.keeper.kill)
        else:
            self._executors.pop(executor.executor_id, None)

    # Children in general.

    def _give_up(self) -> None:
        self._exit_status = 1  # the others end by themselves when their channels close

    def _on_note(self, journal: QuotaJournal, role: str, note: m.Note) -> None:
        report.note(journal, role, note, self._catalogue.item(note.about), self._logs.path(note.about))

    def _retry_limited_later(self) -> None:
        if self._logs.limited() and self._retry_timer is None:
            self._retry_timer = self._loop.call_later(RETRY_LIMITED_S, self._retry_limited)

    def _retry_limited(self) -> None:
        self._retry_timer = None
        for log_id in self._logs.limited():
            self._logs.look(log_id)
        self._retry_limited_later()

    def _on_mounts(self) -> None:
        self._mounts.take()
        if self._mounts_timer is None:
            self._mounts_timer = self._loop.call_later(MOUNTS_S, self._look_after_mounts)

    def _look_after_mounts(self) -> None:
        """What is mounted on a directory changes where paths through it lead, and inotify says nothing."""
        self._mounts_timer = None
        if self._monitor.child:
            self._logs.look_all()
            self._retry_limited_later()

    # Our own log.

    def _say_lost_later(self) -> None:
        if self._journal.lost and self._lost_timer is None:
            self._lost_timer = self._loop.call_later(RETRY_LIMITED_S, self._say_lost)
        if self._journal.counting and self._left_out_timer is None:
            self._left_out_timer = self._loop.call_later(SAID_EVERY_NS / 10**9, self._say_left_out)

    def _say_lost(self) -> None:
        self._lost_timer = None
        self._journal.say_lost()

    def _say_left_out(self) -> None:
        self._left_out_timer = None
        self._journal.say_left_out()

    # The service manager.

    def _ping(self) -> list[str]:
        for executor in list(self._executors.values()):
            self._ping_executor(executor)
        if not self._monitor.child:
            return []
        self._monitor.send(m.Ping())
        return [self._monitor.name]

    def _ping_executor(self, executor: _Executor) -> None:
        """End an executor that hangs: its user may have stopped it, and nobody else is to hang with it."""
        keeper, now_ns = executor.keeper, time.monotonic_ns()
        if not keeper.child:
            return
        if not executor.asked_ns:
            executor.asked_ns = now_ns
            keeper.send(m.Ping())
        elif now_ns - executor.asked_ns >= HANGS_S * 10**9:
            who = f"{keeper.name} (pid {keeper.child.pid})"
            text = f"{who} is ended, since it has not answered for {HANGS_S:g} s"
            self._journal.write(Event.ROLE_ENDED, WARNING, text, role=keeper.name)
            keeper.kill()

    def _status_later(self) -> None:
        if self._status_timer is None:
            self._status_timer = self._loop.call_later(STATUS_INTERVAL_S, self._status)

    def _status(self) -> None:
        if self._status_timer is not None:  # also called before its time: or there would be one more for ever
            self._status_timer.cancel()
        self._status_timer = None
        there, total = self._logs.counts()
        read_bytes, matches, fired = self._ledger.statistics()
        self._notifier.status(
            f"watching {there} of {total} logs for {counted(len(self._catalogue), 'item')}: "
            f"{read_bytes / 2**20:.1f} MiB read, {matches} matches, {fired} times fired, "
            f"{self._actions_run} actions run"
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
            self._grace_s = 0.0
            if self._monitor.child:
                self._monitor.send(m.Stop(0))  # it has to say what it drops
            else:
                self._stop_executors(self._grace_s)
            return
        self._stopping = True
        self._notifier.stopping()
        self._journal.write(Event.STOPPING, INFO, f"stopping on {number.name}")
        self._monitor.stop()
        if self._monitor.child:
            self._monitor.send(m.Stop(0))
            self._loop.call_later(STOP_MONITOR_S, self._monitor.kill)
        else:
            self._stop_executors(self._grace_s)

    def _stop_executors(self, grace_s: float) -> None:
        for executor in list(self._executors.values()):
            self._stop_executor(executor, grace_s)
        self._stop_when_alone()

    def _stop_when_alone(self) -> None:
        if self._stopping and not self._monitor.child and not self._executors:
            self._exit_status = 0


def _quota_journal(journal: Journal, who: str) -> QuotaJournal:
    return QuotaJournal(journal, who, Quota(ROLE_BURST_BYTES, ROLE_BYTES_PER_S))
