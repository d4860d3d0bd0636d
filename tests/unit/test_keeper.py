"""When a role that ends again and again is given up, and how one is tried that never is."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable

import pytest

from lognot import keeper as keeper_module
from lognot.channel import Channel, socket_pair
from lognot.children import start_child
from lognot.errors import ProtocolError
from lognot.journal import Event, Journal
from lognot.keeper import (
    ATTEMPTS_AGAIN,
    BOOT_ATTEMPTS,
    FAILING_SAID_EVERY_NS,
    LONGEST_DELAY_S,
    LONGEST_FAILING_DELAY_S,
    QUICK_CRASHES,
    Keeper,
)
from lognot.launched import Launched
from lognot.loop import Loop, Timer
from lognot.messages import UNKNOWN_STATUS, Ping
from lognot.quota import RECORD_BYTES, STARTS_BURST_BYTES


class Mortal:
    """A role whose every process is gone as soon as it was started; what is said of it."""

    name = "test"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.loop = Loop()
        self.starts = 0
        self.given_up = False
        self.pid = 0  # 0: its launcher does not say
        self.lives_once: int | None = None  # which start comes up before it ends
        self.lives_always = False
        self.wait_status = UNKNOWN_STATUS
        self.journal = Journal((self,))
        self.keeper = Keeper(
            "role",
            self.loop,
            self.journal,
            start=self.start,
            on_message=lambda message, fd: self.keeper.came_up(),
            on_start=lambda: None,
            on_end=lambda wait_status: True,
            on_give_up=self.give_up,
        )

    def start(self) -> Launched:
        self.starts += 1
        ours, theirs = socket_pair()
        peer = Channel(theirs, frozenset())
        if self.starts == self.lives_once or self.lives_always:
            peer.send(Ping())
        peer.close()
        return Launched(Channel(ours, frozenset({Ping})), self.pid, self.wait_status)

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        self.said.append(message)

    def reopen(self) -> None:
        """Nothing to reopen."""

    def give_up(self) -> None:
        self.given_up = True

    def run(self) -> int:
        self.keeper.start()
        while not self.given_up:
            self.loop.turn()
        return self.starts


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Mortal:
    monkeypatch.setattr(keeper_module.Backoff, "delay_s", lambda self, now_ns: 0.0)
    monkeypatch.setattr(keeper_module, "LEAST_DELAY_S", 0.0)
    return Mortal()


def test_one_that_never_comes_up_is_given_up_soon(mortal: Mortal) -> None:
    assert mortal.run() == BOOT_ATTEMPTS


def test_one_that_cannot_be_provided_for_is_never_given_up(mortal: Mortal) -> None:
    """What it lacks is not its fault; that is said once."""
    starts = 3 * BOOT_ATTEMPTS

    def provide() -> None:
        if mortal.starts < starts:
            mortal.keeper.unprovided(OSError(errno.EMFILE, "Too many open files"))

    mortal.keeper._on_start = provide
    assert mortal.run() == starts + BOOT_ATTEMPTS - 1
    assert [text for text in mortal.said if "cannot start" in text] == [
        "cannot start role, will be tried again in 0 s: "
        "Too many open files: raise LimitNOFILE= of the service, or ulimit -n"
    ]


def test_one_that_came_up_once_is_given_up_late(mortal: Mortal) -> None:
    mortal.lives_once = 3
    assert mortal.run() == 2 + ATTEMPTS_AGAIN


class Clock:
    """Time that passes only where a keeper waits, and how long it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**15
        self.waited_s: list[float] = []
        self.stands = False
        monkeypatch.setattr(keeper_module.time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(
            Loop, "call_later", lambda loop, delay_s, call: self.call_later(loop, delay_s, call)
        )

    def call_later(self, loop: Loop, delay_s: float, call: Callable[[], None]) -> Timer:
        self.waited_s.append(delay_s)
        at_ns = self.now_ns + int(delay_s * 10**9)
        if not self.stands:
            self.now_ns = at_ns
        return loop.call_at(at_ns, call)


@pytest.mark.parametrize("pid", [0, 4711])
def test_one_that_nobody_gives_up_is_tried_for_ever_and_seldom_told_of(
    monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    """One that is somebody's to kill gets slow. A launcher that does not answer is asked each second."""
    clock = Clock(monkeypatch)
    mortal = Mortal()
    mortal.keeper._on_give_up = None
    mortal.pid = pid
    starts = 200
    mortal.keeper.start()
    while mortal.starts < starts:
        mortal.loop.turn()
    assert max(clock.waited_s) == (LONGEST_FAILING_DELAY_S if pid else LONGEST_DELAY_S)
    assert clock.waited_s == sorted(clock.waited_s)
    told = [text for text in mortal.said if "before it was ready" in text]
    assert "its actions wait" in told[0]
    assert f"ended {BOOT_ATTEMPTS} times" in told[0]
    assert len(told) <= 2 + sum(clock.waited_s) * 10**9 / FAILING_SAID_EVERY_NS
    assert len(mortal.said) < 2 * BOOT_ATTEMPTS + len(told)


def test_one_that_comes_up_after_all_is_told_of_and_is_quick_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    mortal = Mortal()
    mortal.keeper._on_give_up = None
    mortal.pid = 4711
    mortal.lives_once = 20
    mortal.keeper.start()
    while mortal.starts < mortal.lives_once:
        mortal.loop.turn()
    before, failed_s = len(mortal.said), clock.waited_s[-1]
    while mortal.starts == mortal.lives_once:
        mortal.loop.turn()
    assert failed_s == LONGEST_FAILING_DELAY_S
    assert mortal.said[before:] == [
        "role started as pid 4711",
        "role ended (nobody can say how), will be started again now",
    ]


def test_one_that_is_killed_again_and_again_once_it_came_up_does_not_fill_the_log(mortal: Mortal) -> None:
    """It is never one that fails. The first times are told of at once, the others counted."""
    deaths = 1000
    mortal.keeper._on_give_up = None
    mortal.pid = 4711
    mortal.lives_always = True
    mortal.keeper.start()
    while mortal.starts <= deaths:
        mortal.loop.turn()
    told = [
        text for text in mortal.said if text == "role ended (nobody can say how), will be started again now"
    ]
    assert mortal.said == [
        *told,
        "too much to log about starts and ends of role: records are left out, and counted",
    ]
    assert 100 < len(told) < STARTS_BURST_BYTES / RECORD_BYTES
    mortal.journal.say_left_out()
    assert mortal.said[-1].endswith(f": {deaths - len(told)} records were left out")


def test_one_that_others_accuse_is_not_given_up_for_it(mortal: Mortal) -> None:
    """It may be a lie; who believes it bounds how often."""
    starts = 3 * BOOT_ATTEMPTS

    def accuse() -> None:
        if mortal.starts < starts:
            mortal.keeper.expel(ProtocolError("they say so"), accused=True)

    mortal.keeper._on_start = accuse
    assert mortal.run() == starts + BOOT_ATTEMPTS - 1


def test_a_start_at_once_leaves_no_second_one_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each reload would add one more to those that are tried again and again."""
    clock = Clock(monkeypatch)
    mortal = Mortal()
    mortal.keeper._on_give_up = None
    mortal.keeper.start()
    while mortal.starts < 2 * BOOT_ATTEMPTS:
        mortal.loop.turn()
    clock.stands = True
    for _ in range(5):
        mortal.keeper.start()
        while mortal.keeper.child:
            mortal.loop.turn(wait=False)
    assert sum(timer.call is not None for _, _, timer in mortal.loop._timers) == 1


def test_a_role_that_was_told_to_stop_is_not_started_again(mortal: Mortal) -> None:
    mortal.keeper.stop()
    mortal.keeper.start()
    assert mortal.starts == 0


class Real:
    """A role with a process of its own, which is started once."""

    def __init__(self, journal: Journal, main: Callable[[Channel], object]) -> None:
        self.loop = Loop()
        self.ended: list[int] = []
        self.keeper = Keeper(
            "role",
            self.loop,
            journal,
            start=lambda: start_child("role", main, from_child=frozenset(), to_child=frozenset()),
            on_message=lambda message, fd: None,
            on_start=lambda: None,
            on_end=self.end,
            on_give_up=lambda: None,
        )
        self.keeper.start()

    def end(self, wait_status: int) -> bool:
        self.ended.append(wait_status)
        return False

    def wait_end(self) -> int:
        while not self.ended:
            self.loop.turn()
        return self.ended[0]


def test_one_that_closed_its_channel_may_say_why_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "LEAVES_S", 60.0)
    killed: list[int] = []

    def leave(channel: Channel) -> None:
        channel.close()
        time.sleep(0.2)  # not to wait for anything: to be slow
        os._exit(7)

    real = Real(Journal(()), leave)
    monkeypatch.setattr(keeper_module.Child, "kill", lambda child: killed.append(child.pid))
    assert os.waitstatus_to_exitcode(real.wait_end()) == 7
    assert killed == []


def test_one_that_closed_its_channel_must_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "LEAVES_S", 0.1)

    def stay(channel: Channel) -> None:
        channel.close()
        while True:
            signal.pause()

    assert os.waitstatus_to_exitcode(Real(Journal(()), stay).wait_end()) == -signal.SIGKILL


def test_one_is_expelled_once_however_often_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a moment to die, and its peer could fill the log meanwhile."""
    said: list[str] = []
    journal = Journal(())
    monkeypatch.setattr(journal, "write", lambda event, priority, text, **fields: said.append(text))
    real = Real(journal, lambda channel: signal.pause())
    for _ in range(100):
        real.keeper.expel(ProtocolError("nonsense"))
    real.wait_end()
    assert [text for text in said if "broke the protocol" in text] == said[1:2]
    assert len(said) == 3, "started, expelled, ended"


@pytest.mark.parametrize("status", [0, 7])
def test_one_that_fails_when_it_is_to_stop_is_told_of(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """It is not started again, so nobody does what it has left."""
    said: list[str] = []
    journal = Journal(())
    monkeypatch.setattr(journal, "write", lambda event, priority, text, **fields: said.append(text))
    real = Real(journal, lambda channel: os._exit(status))
    real.keeper.stop()
    real.wait_end()
    failed = "role was to stop and ended early (exit status 7): some of its work may be left undone"
    assert said[1:] == [failed] * bool(status)


def test_deaths_in_a_search_are_answered_at_once_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    delay_s = keeper_module.Backoff.delay_s
    monkeypatch.setattr(keeper_module.time, "monotonic_ns", lambda: 1)
    monkeypatch.setattr(
        keeper_module.Backoff, "delay_s", lambda self, now_ns: delays.append(delay_s(self, now_ns)) or 0.0
    )
    mortal = Mortal()
    mortal.lives_once = 1
    mortal.wait_status = signal.SIGVTALRM
    mortal.run()
    assert delays[:QUICK_CRASHES] == [0.0] * QUICK_CRASHES
    assert min(delays[QUICK_CRASHES:]) > 0.0
