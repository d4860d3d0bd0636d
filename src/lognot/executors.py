"""The supervisor's side of the executors: one for each account whose actions the config in use has.

Each is kept running (keeper.py), given the config, connected with the monitor, asked whether it hangs, and
told to stop. `_on_message` has all that one may say: it names items and processes by number, and a message
that makes no sense costs it its life. Supervisor only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from lognot import messages as m
from lognot import report
from lognot.catalogue import Catalogue
from lognot.channel import socket_pair
from lognot.children import Child
from lognot.errors import RETRY_LIMITED_S, ProtocolError, reason_of
from lognot.journal import ERROR, WARNING, Event, Journal
from lognot.keeper import Keeper
from lognot.launched import Launched
from lognot.loop import Loop
from lognot.quota import Quota, QuotaJournal, role_journal
from lognot.service import END_ACTIONS_S, STOP_GRACE_S
from lognot.settings import MAX_ATHREAD_COUNT, Item
from lognot.startmark import new_start_mark
from lognot.users import Account

HANGS_S = 60.0  # an executor that does not answer for so long is ended; to have its config approved takes 30

# An executor may say of the monitor that it broke the protocol three times at once, and then once in 20 s. An
# honest one hardly ever has to; one that was taken over is not to keep everybody's monitor from coming up.
ACCUSATIONS = 3
ACCUSATION_S = 20


@dataclass(frozen=True, slots=True)
class _Running:
    item_id: int
    started_ns: int
    timeout_s: int


@dataclass(slots=True)
class _Executor:
    executor_id: int
    account: Account
    keeper: Keeper
    journal: QuotaJournal  # for what it says
    running: dict[int, _Running] = field(default_factory=dict)  # by pid
    wanted: bool = True  # the config in use names this account
    told_to_stop: bool = False
    connected: bool = False  # it and the monitor that runs have a connection
    connecting: bool = False  # it will be tried again
    configured: bool = False  # it has answered since it was given the config in use
    asked_ns: int = 0  # when it was asked whether its loop turns; 0: it has answered
    accusations: Quota = field(default_factory=lambda: Quota(ACCUSATIONS * ACCUSATION_S, 1))
    failure: bytes = b""  # why it failed, as last said


class Executors:
    """All executors, those too that have been told to stop and have not ended yet.

    Args:
        loop: watches their processes and channels.
        journal: our own log.
        monitor: has a connection to each.
        catalogue: the items in use.
        start: forks the executor of an account, or has it launched; raises OSError.
        configure: sends the config in use to one that runs.
        on_note: called with a note, the log to write it to, and the name of who says it.
        on_configured: called when one has its config.
        on_action_end: called when an action has ended.
        on_gone: called when one has ended and is not started again.

    Attributes:
        actions_run: how many actions were started.
    """

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        monitor: Keeper,
        catalogue: Catalogue,
        *,
        start: Callable[[Account], Child | Launched],
        configure: Callable[[Keeper], None],
        on_note: Callable[[QuotaJournal, str, m.Note], None],
        on_configured: Callable[[], None],
        on_action_end: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        self.actions_run = 0
        self._loop = loop
        self._journal = journal
        self._monitor = monitor
        self._catalogue = catalogue
        self._start = start
        self._configure = configure
        self._on_note = on_note
        self._on_configured = on_configured
        self._on_action_end = on_action_end
        self._on_gone = on_gone
        self._executors: dict[int, _Executor] = {}
        self._next_id = 1
        self._ending = False

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._executors)

    # Which ones there are.

    def use(self, accounts: set[Account]) -> None:
        """Have one for each account of the config in use, with that config; the others are to end."""
        for executor in list(self._executors.values()):
            # One that was told to stop is not wanted again; the account gets a new one.
            if executor.wanted and executor.account not in accounts:
                executor.wanted = False
                executor.keeper.stop()
                if not executor.connected:
                    self._stop(executor, STOP_GRACE_S)
        for account in sorted(accounts, key=lambda account: (account.uid, account.gid)):
            executor = self._executor_of(account)
            if executor.keeper.child:
                self._give_config(executor)
            else:
                executor.keeper.start()

    def number(self, account: Account) -> int:
        """Give the number of an account's executor, a new one if it has none."""
        return self._executor_of(account).executor_id

    def _executor_of(self, account: Account) -> _Executor:
        for executor in self._executors.values():
            if executor.account == account and executor.wanted:
                return executor
        executor = self._new_executor(self._next_id, account)
        self._next_id += 1
        self._executors[executor.executor_id] = executor
        return executor

    def _new_executor(self, executor_id: int, account: Account) -> _Executor:
        keeper = Keeper(
            f"executor of {account.name}",
            self._loop,
            self._journal,
            start=lambda: self._start(account),
            on_message=lambda message, fd: self._on_message(executor, message),
            on_start=lambda: self._on_start(executor),
            on_end=lambda wait_status: self._on_end(executor),
            on_give_up=None,  # the user of its actions may kill it, and is not to end the others' with it
        )
        executor = _Executor(executor_id, account, keeper, role_journal(self._journal, keeper.name))
        return executor

    # What each is given.

    @property
    def configured(self) -> bool:
        """Whether all that the config in use wants have it."""
        return all(executor.configured for executor in self._executors.values() if executor.wanted)

    def _give_config(self, executor: _Executor) -> None:
        executor.configured = False
        self._configure(executor.keeper)
        executor.keeper.send(m.Ping())  # the answer says that it is done; without work it says nothing else

    def _on_start(self, executor: _Executor) -> None:
        self._give_config(executor)
        now_ns = time.monotonic_ns()
        for pid, action in executor.running.items():
            age_ms = (now_ns - action.started_ns) // 1_000_000
            executor.keeper.send(m.AdoptAction(action.item_id, pid, age_ms, action.timeout_s))
        self._connect(executor)

    def connect(self) -> None:
        """Have each connected with the monitor that runs."""
        for executor in list(self._executors.values()):
            self._connect(executor)

    def disconnect(self) -> None:
        """The monitor has ended, and its connections with it."""
        for executor in self._executors.values():
            executor.connected = False
        self.stop_unwanted()

    def stop_unwanted(self) -> None:
        """The monitor has the config in use, or has ended: nothing more comes for those that are not in it.

        Told before, they would be gone by the time that the monitor hears of the config, and with them what
        it has found until then.
        """
        for executor in list(self._executors.values()):
            if not executor.wanted and not executor.told_to_stop:
                self._stop(executor, STOP_GRACE_S)

    def _connect(self, executor: _Executor) -> None:
        """Give the monitor and an executor a connection of their own, when both are there and have none.

        Not with one that no item needs any more: a new monitor knows of none, and what that one handed back
        when it ends would keep the monitor from committing.
        """
        if not executor.wanted or executor.connected or not self._monitor.child or not executor.keeper.child:
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

    # What each says, and its launcher.

    def _on_message(self, executor: _Executor, message: m.Message) -> None:
        match message:
            case m.ActionStarted(item_id, pid, timeout_s):
                item = self._item_of(executor, item_id)
                if len(executor.running) >= MAX_ATHREAD_COUNT and pid not in executor.running:
                    raise ProtocolError("more actions than may run")
                executor.running[pid] = _Running(item_id, time.monotonic_ns(), timeout_s)
                self.actions_run += 1
                report.action_started(executor.journal, item, message)
            case m.ActionOutput(item_id):
                report.action_output(executor.journal, self._item_of(executor, item_id), message)
            case m.ActionFinished(item_id, pid):
                item = self._item_of(executor, item_id)
                executor.running.pop(pid, None)
                report.action_finished(executor.journal, item, message)
                self._on_action_end()
            case m.Note(m.Notice.ROLE_FAILED) if executor.keeper.failing and message.text == executor.failure:
                pass  # the keeper says now and then that it still fails
            case m.Note(notice):
                if notice not in m.NOTICES_OF_EXECUTOR:
                    raise ProtocolError(f"{notice.name} is not for an executor to say")
                self._item_of(executor, message.about)
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
                self._on_configured()

    def _item_of(self, executor: _Executor, item_id: int) -> Item | None:
        """Give the item that an executor speaks of, None for one of an earlier config.

        Raises:
            ProtocolError: it is another executor's.
        """
        item = self._catalogue.item(item_id)
        if item is not None and item.run_as != executor.account:
            raise ProtocolError(f"it speaks of [{item.name}], whose actions another one runs")
        return item

    def _on_launched(self, executor: _Executor, pid: int) -> None:
        child = executor.keeper.child
        if isinstance(child, Launched) and not child.pid:
            child.pid = pid
            executor.keeper.runs_as(pid)

    def _on_monitor_accused(self, executor: _Executor) -> None:
        """End the monitor on an executor's word, or the executor when it says so too often."""
        if not executor.accusations.take(ACCUSATION_S, time.monotonic_ns()):
            raise ProtocolError("it accuses the monitor again and again")
        self._monitor.expel(ProtocolError("what it sent to an executor does not validate"), accused=True)

    # How each ends.

    def expel(self, executor_id: int) -> None:
        """End one on the monitor's word, however often: it can do no more than hold up actions.

        That it could as well by not asking for them. And an honest monitor says so of each new executor that
        is taken over: to end it for that would be what they want. A number that none has is ignored.
        """
        executor = self._executors.get(executor_id)
        if executor:
            error = ProtocolError("what it sent to the monitor does not validate")
            executor.keeper.expel(error, accused=True)

    def ping(self) -> None:
        """End each that hangs, and ask the others whether they do."""
        for executor in list(self._executors.values()):
            self._ping(executor)

    def _ping(self, executor: _Executor) -> None:
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

    def restart_none(self) -> None:
        """From now on, do not start one again that ends."""
        self._ending = True

    def stop(self, grace_s: float) -> None:
        """Tell each to end when its actions have, and to end those after `grace_s` seconds."""
        for executor in list(self._executors.values()):
            self._stop(executor, grace_s)

    def _stop(self, executor: _Executor, grace_s: float) -> None:
        """Let an executor end when its actions have, after `grace_s` seconds in any case."""
        executor.keeper.stop()
        executor.told_to_stop = True
        if executor.keeper.child:
            executor.keeper.send(m.Stop(int(grace_s * 1000)))
            self._loop.call_later(grace_s + END_ACTIONS_S, executor.keeper.kill)
        else:
            self._executors.pop(executor.executor_id, None)

    def _on_end(self, executor: _Executor) -> bool:
        executor.connected = False
        executor.asked_ns = 0
        if self._ending or not executor.wanted:
            del self._executors[executor.executor_id]
            self._on_gone()
            return False
        return True
