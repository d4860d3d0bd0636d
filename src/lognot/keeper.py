"""Keeps one role running: started, heard, buried and started again. Supervisor only.

A role that dies is back at once, or after a growing delay when it dies again and again. One that does not
come up is given up where somebody waits to hear that; otherwise it is tried again for ever, ever more seldom.
One that breaks the protocol is ended, and its end handled as any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lognot.channel import ChannelClosed
from lognot.children import LONGEST_DELAY_S, Backoff, Child, crashed, how_it_ended
from lognot.errors import LognotError, reason_of
from lognot.journal import ERROR, INFO, WARNING, Event, Journal
from lognot.launched import Launched
from lognot.loop import Loop, OnMessage, Timer
from lognot.messages import Message
from lognot.quota import starts_journal

BOOT_ATTEMPTS = 5  # a role that never came up will not come up after so many attempts
# In a row, over about a minute, of one that did come up once: a new service may do better.
ATTEMPTS_AGAIN = 60
# Monitors in a minute that died in a search are started again at once. Each costs its item a ban of that
# minute at least, or one of a few (budget.py), so this is more than most configs can need.
QUICK_CRASHES = 30
LEAVES_S = 1.0  # what a role that closed its channel has, to end
LEAST_DELAY_S = 0.1  # before fork(2) is tried again

# One that fails, and is not given up. Each start costs everybody something: a fork, and the monitor sends it
# all that waits. Whoever makes it fail need not be able to have that every second.
LONGEST_FAILING_DELAY_S = 30.0
FAILING_SAID_EVERY_NS = 600 * 10**9


class Keeper:
    """One role.

    Args:
        name: for the log.
        loop: watches the process and its channel.
        journal: our own log.
        start: forks the role, or has it launched elsewhere.
        on_message: gets what it says.
        on_start: called when it was started, each time: it knows nothing yet.
        on_end: called with its wait status when it has ended, before it is started again; False: do not.
        on_give_up: called when it never came up; None: it is never given up.

    Attributes:
        child: the process that runs, None when there is none now.
    """

    def __init__(
        self,
        name: str,
        loop: Loop,
        journal: Journal,
        *,
        start: Callable[[], Child | Launched],
        on_message: OnMessage,
        on_start: Callable[[], None],
        on_end: Callable[[int], bool],
        on_give_up: Callable[[], None] | None,
    ) -> None:
        self.name = name
        self.child: Child | Launched | None = None
        self._loop = loop
        self._own_journal = journal  # for what is said once
        self._journal = starts_journal(journal, name)
        self._start = start
        self._on_message = on_message
        self._on_start = on_start
        self._on_end = on_end
        self._on_give_up = on_give_up
        self._backoff = Backoff()
        self._crash_backoff = Backoff(QUICK_CRASHES)
        self._deaths_at_boot = 0
        self._attempts = BOOT_ATTEMPTS
        self._said_failing_ns = 0
        self._start_timer: Timer | None = None
        self._stopped = False
        self._unprovided: OSError | None = None
        self._trouble = ""  # why it cannot be started, as last said
        self._lost = False  # the process was told to end by force, or has ended
        self._accused = False  # it is ended on another role's word

    def start(self) -> None:
        """Start the role, unless it runs or is to run no more."""
        if self.child or self._stopped:
            return
        try:
            child = self._start()
        except OSError as error:
            self._start_later(error)
            return
        self.child = child
        self._lost = self._accused = False
        self._loop.attach(child.channel, self._on_message, self.expel, holds_back=True)
        if isinstance(child, Child):
            self.runs_as(child.pid)
            self._loop.watch(child.pidfd, self._bury)
        self._on_start()
        if self.child is child and self._unprovided is None:
            self._trouble = ""

    def _start_later(self, error: OSError) -> None:
        delay_s = max(self._backoff.delay_s(time.monotonic_ns()), LEAST_DELAY_S)
        trouble = reason_of(error)
        if trouble != self._trouble:
            text = f"cannot start {self.name}, will be tried again in {delay_s:g} s: {trouble}"
            self._journal.write(Event.ROLE_ENDED, ERROR, text, role=self.name)
        self._trouble = trouble
        self._start_in(delay_s)

    def _start_in(self, delay_s: float) -> None:
        if self._start_timer:  # it was started meanwhile without waiting for this one, and has ended again
            self._start_timer.cancel()
        self._start_timer = self._loop.call_later(delay_s, self.start)

    def unprovided(self, error: OSError) -> None:
        """It cannot be given what it needs now: end it, and start another one until it can."""
        if self.child and self._unprovided is None:
            self._unprovided = error
            self.kill()

    @property
    def failing(self) -> bool:
        """It ended so often before it was ready that it is not told of each time any more; never given up."""
        return self._on_give_up is None and self._deaths_at_boot >= self._attempts

    def runs_as(self, pid: int) -> None:
        """Its process is known."""
        if not self.failing:
            self._say_started(pid)

    def _say_started(self, pid: int) -> None:
        text = f"{self.name} started as pid {pid}"
        self._journal.write(Event.ROLE_STARTED, INFO, text, role=self.name, pid=pid)

    def came_up(self) -> None:
        """It has shown that it works: its next death is no failure to start."""
        if self.failing and self.child and self.child.pid:
            self._say_started(self.child.pid)
        self._attempts = ATTEMPTS_AGAIN
        self._deaths_at_boot = 0

    def send(self, message: Message, fd: int = -1) -> None:
        """Send it something; nothing happens while it does not run, since the next one is told everything."""
        if self.child and not self._lost:
            try:
                self._loop.send(self.child.channel, message, fd)
            except LognotError as error:  # it has stopped reading
                self.expel(error)

    def expel(self, error: LognotError, *, accused: bool = False) -> None:
        """End it, since its channel cannot be used any more; what has been done already is not done again.

        One that is `accused` is ended on another role's word. That may be a lie, so it does not count as one
        that failed; whoever passes the accusations on bounds how many there may be.
        """
        child = self.child
        if not child or self._lost:
            return
        self._lost = True
        self._accused = accused
        if not isinstance(error, ChannelClosed):
            text = f"{self.name} (pid {child.pid}) is ended, since it broke the protocol: {error}"
            self._journal.write(Event.ROLE_EXPELLED, ERROR, text, role=self.name)
        elif isinstance(child, Child):  # it is leaving, and its exit status will say why
            if not self._stopped:
                self._loop.call_later(LEAVES_S, lambda: self.kill() if self.child is child else None)
            return
        self.kill()

    def kill(self) -> None:
        """End it at once, if it runs."""
        if isinstance(self.child, Child):
            self.child.kill()
        elif self.child:
            self._loop.detach(self.child.channel)  # which tells its launcher
            self._bury()

    def stop(self) -> None:
        """Do not start it again."""
        self._stopped = True

    def _bury(self) -> None:
        child = self.child
        assert child is not None
        self._lost = True  # what it has still asked is not answered any more
        if isinstance(child, Child):
            self._loop.forget(child.pidfd)
        self._loop.drain(child.channel)  # what it has still said
        self.child = None
        status = child.reap()
        goes_on = self._on_end(status)
        unprovided, self._unprovided = self._unprovided, None
        how = how_it_ended(status)
        if not goes_on or self._stopped:
            if status:
                text = f"{self.name} was to stop and ended early ({how}): some of its work may be left undone"
                self._own_journal.write(Event.ROLE_ENDED, ERROR, text, role=self.name)
            return
        if unprovided is not None:  # no fault of its own, so it does not count as one that failed
            self._start_later(unprovided)
            return
        self._deaths_at_boot += not self._accused
        if self._deaths_at_boot >= self._attempts and self._on_give_up:
            text = f"{self.name} ended {self._attempts} times before it was ready ({how}); giving up"
            self._own_journal.write(Event.ROLE_ENDED, ERROR, text, role=self.name)
            self._on_give_up()
            return
        backoff = self._crash_backoff if crashed(status) else self._backoff
        delay_s = backoff.delay_s(time.monotonic_ns())
        if self.failing:
            delay_s = self._failing_delay_s(known=child.pid > 0)
            self._say_failing(how)
        else:
            when = f"in {delay_s:g} s" if delay_s else "now"
            text = f"{self.name} ended ({how}), will be started again {when}"
            self._journal.write(Event.ROLE_ENDED, WARNING, text, role=self.name)
        if delay_s:
            self._start_in(delay_s)
        else:
            self.start()

    def _failing_delay_s(self, *, known: bool) -> float:
        """Give the seconds to wait for the next attempt.

        Nothing tells when a launcher is back. So one of which nobody said what process it is (not `known`)
        is tried again within a second for ever.
        """
        doubled = min(self._deaths_at_boot - self._attempts, 16) if known else 0
        return min(LONGEST_DELAY_S * 2.0**doubled, LONGEST_FAILING_DELAY_S)

    def _say_failing(self, how: str) -> None:
        now_ns = time.monotonic_ns()
        if self._deaths_at_boot > self._attempts and now_ns - self._said_failing_ns < FAILING_SAID_EVERY_NS:
            return
        self._said_failing_ns = now_ns
        text = (
            f"{self.name} ended {self._deaths_at_boot} times before it was ready ({how}), "
            f"its actions wait, and it is tried again every {LONGEST_FAILING_DELAY_S:g} s at least; "
            "expected that the messages before say why, or that somebody kills it"
        )
        self._journal.write(Event.ROLE_ENDED, ERROR, text, role=self.name)
