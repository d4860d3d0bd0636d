"""When a role that ends again and again is given up."""

from __future__ import annotations

import signal

import pytest

from lognot import keeper as keeper_module
from lognot.channel import Channel, socket_pair
from lognot.journal import Journal
from lognot.keeper import ATTEMPTS_AGAIN, BOOT_ATTEMPTS, QUICK_SEARCHES, Keeper
from lognot.launched import Launched
from lognot.loop import Loop
from lognot.messages import UNKNOWN_STATUS, Ping


class Mortal:
    """A role whose every process is gone as soon as it was started."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.starts = 0
        self.given_up = False
        self.lives_once: int | None = None  # which start comes up before it ends
        self.wait_status = UNKNOWN_STATUS
        self.keeper = Keeper(
            "role",
            self.loop,
            Journal(()),
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
        if self.starts == self.lives_once:
            peer.send(Ping())
        peer.close()
        return Launched(Channel(ours, frozenset({Ping})), wait_status=self.wait_status)

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
    return Mortal()


def test_one_that_never_comes_up_is_given_up_soon(mortal: Mortal) -> None:
    assert mortal.run() == BOOT_ATTEMPTS


def test_one_that_came_up_once_is_given_up_late(mortal: Mortal) -> None:
    mortal.lives_once = 3
    assert mortal.run() == 2 + ATTEMPTS_AGAIN


def test_a_role_that_was_told_to_stop_is_not_started_again(mortal: Mortal) -> None:
    mortal.keeper.stop()
    mortal.keeper.start()
    assert mortal.starts == 0


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
    assert delays[:QUICK_SEARCHES] == [0.0] * QUICK_SEARCHES
    assert min(delays[QUICK_SEARCHES:]) > 0.0
