"""The privileged role: opens logs, starts and restarts the others, handles signals, writes the log.

It parses no content and imports no regex engine. What its less privileged children may ask of it is the
methods named `_on_*` below and in executors.py, and nothing else:

    monitor     "look again at log 3", "file 7 is read to its end", "file 7 is read no more", "item 2 fired"
    executor    "action of item 2 started / printed a line / ended"

They name numbers that the supervisor has given out; one that it has not is ignored, and a message that
does not validate costs its sender its life. Neither can name a path or a command.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from lognot import messages as m
from lognot import report
from lognot.catalogue import Catalogue
from lognot.channel import Channel
from lognot.children import Child, crashed, start_child
from lognot.continuity import Continuity, wants_resume
from lognot.errors import RETRY_LIMITED_S, ConfigError, ProtocolError, described, reason_of
from lognot.executors import Executors
from lognot.journal import ERROR, INFO, WARNING, Event, Journal, own_line_pattern
from lognot.keeper import Keeper
from lognot.launched import Launched
from lognot.ledger import Ledger
from lognot.logs import Logs
from lognot.loop import Loop, Timer
from lognot.mounts import MountTable
from lognot.quota import SAID_EVERY_NS, QuotaJournal, role_journal
from lognot.service import STOP_GRACE_S, Notifier, SignalQueue
from lognot.settings import Config, config_to_json
from lognot.shown import counted
from lognot.state import SavedLogs
from lognot.users import Account
from lognot.watchdog import Watchdog

STOP_MONITOR_S = 4.0  # the monitor reads what there is for 2 seconds (monitor.STOP_S), and finishes a block
EXECUTORS_S = 3.0  # readiness waits so long for them; they come up later too, and their actions wait
MOUNTS_S = 0.5  # a change of the mounts mostly comes with others: containers, or a restart of autofs
STATUS_INTERVAL_S = 1.0  # `systemctl status` need not change more often

# Nobody changes a config that was handed out, we neither (memfd_create(2)).
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Roles:
    """What the children do, and how a config is had; handed in, since roles do not import each other."""

    monitor: Callable[[Channel, Ledger, tuple[int, ...]], None]
    start_executor: Callable[[Account], Child | Launched]  # raises OSError
    # Raises ConfigError; checks all that --test checks, and calls the other function while it waits for that.
    load_config: Callable[[Callable[[], object]], Config]
    keep_state: Callable[[Config], Continuity | None]  # for a config that has come to want it


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
        self._monitor_journal = role_journal(journal, "the monitor")
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
        self._catalogue = Catalogue(continuity.numbers if continuity else None)
        self._executors = Executors(
            self._loop,
            journal,
            self._monitor,
            self._catalogue,
            start=roles.start_executor,
            configure=self._configure,
            on_note=self._on_note,
            on_configured=self._ready_if_complete,
            on_action_end=self._status_later,
            on_gone=self._stop_when_alone,
        )
        self._log_ids: dict[str, int] = {}  # by path
        self._begin_token = 0
        self._ready_pending = True
        self._begun = False  # the monitor has, and executors are waited for
        self._reloaded = False  # another config, and the monitor has not begun with it
        self._ready_timer: Timer | None = None
        self._watchdog = Watchdog(self._loop, self._notifier, self._ping)
        self._stopping = False
        self._grace_s = STOP_GRACE_S
        self._exit_status: int | None = None
        self._told_no_sandbox = False
        self._status_timer: Timer | None = None
        self._retry_timer: Timer | None = None
        self._lost_timer: Timer | None = None
        self._left_out_timer: Timer | None = None
        self._watch_timer: Timer | None = None  # no inotify instance could be had
        self._mounts = MountTable()
        self._mounts_timer: Timer | None = None
        self._config = config
        self._config_json = b""
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
        self._config_json = config_to_json(config)
        self._catalogue.use(config)
        resuming = {item.path for item in config.items if item.resume}
        self._log_ids = self._logs.configure((item.path for item in config.items), resuming)
        self._keep_state()
        self._executors.use({item.run_as for item in config.items})

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

    def _configure(self, keeper: Keeper) -> None:
        items = self._config.items
        message = m.Configure(
            tuple(self._catalogue.number(item) for item in items),
            tuple(self._log_ids[item.path] for item in items),
            tuple(self._executors.number(item.run_as) for item in items),
        )
        fd = -1
        try:
            fd = os.memfd_create("lognot-config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with open(fd, "wb", closefd=False) as file:
                file.write(self._config_json)
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
            config = self._roles.load_config(self._watchdog.feed)
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
        self._ready_pending = self._reloaded = True
        if self._monitor.child:
            self._configure(self._monitor)
            self._executors.connect()
            if self._watch_timer is None:
                self._logs.look_all()
                self._begin()

    # The monitor.

    def _fork_monitor(self) -> Child:
        pids = self._continuity.pids if self._continuity else (os.getpid(),)
        roll = self._continuity.roll if self._continuity else None
        own_line_pattern(*pids)  # or each monitor would compile it, while all logs wait
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
        self._executors.connect()
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
            case m.Note(notice) if notice not in m.NOTICES_OF_MONITOR:
                raise ProtocolError(f"{notice.name} is not for a monitor to say")
            case m.Note(notice):
                self._told_no_sandbox |= notice is m.Notice.NO_SANDBOX
                self._on_note(self._monitor_journal, self._monitor.name, message)
            case m.PeerBroke(executor_id):
                self._executors.expel(executor_id)
            case m.Begun(token):
                self._on_begun(token)
            case m.Pong():
                self._watchdog.answered("monitor")

    def _on_begun(self, token: int) -> None:
        if token != self._begin_token:
            return
        self._monitor.came_up()
        self._executors.stop_unwanted()
        self._logs.begun()
        self._save_later()
        if self._reloaded:
            self._reloaded = False
            items = counted(len(self._config.items), "item")
            self._journal.write(Event.RELOADED, INFO, f"config reloaded, {items} in '{self._config.source}'")
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
        if self._executors.configured:
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
        self._executors.disconnect()
        if self._stopping:
            self._save()
            self._stop_executors(self._grace_s)
        return not self._stopping

    def _give_up(self) -> None:
        self._exit_status = 1  # the others end by themselves when their channels close

    # Logs.

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

    def _on_note(self, journal: QuotaJournal, role: str, note: m.Note) -> None:
        report.note(journal, role, note, self._catalogue.item(note.about), self._logs.path(note.about))

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
        self._executors.ping()
        if not self._monitor.child:
            return []
        self._monitor.send(m.Ping())
        return [self._monitor.name]

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
            f"{self._executors.actions_run} actions run"
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
                    text = f"cannot reopen the log file, the old one stays in use: {described(error)}"
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
        self._executors.restart_none()
        self._notifier.stopping()
        self._journal.write(Event.STOPPING, INFO, f"stopping on {number.name}")
        self._monitor.start()  # where the next one was put off: there may be lines that nobody has read
        self._monitor.stop()
        if self._monitor.child:
            self._monitor.send(m.Stop(0))
            self._loop.call_later(STOP_MONITOR_S, self._monitor.kill)
        else:
            text = (
                "no monitor could be started to read what was written before the stop; "
                "only items with resume = yes go on there"
            )
            self._journal.write(Event.ROLE_ENDED, ERROR, text, role=self._monitor.name)
            self._stop_executors(self._grace_s)

    def _stop_executors(self, grace_s: float) -> None:
        self._executors.stop(grace_s)
        self._stop_when_alone()

    def _stop_when_alone(self) -> None:
        if self._stopping and not self._monitor.child and not self._executors:
            self._exit_status = 0
