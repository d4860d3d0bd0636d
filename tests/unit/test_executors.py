"""The supervisor's side of the executors; a test plays them, and the monitor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lognot import messages as m
from lognot.catalogue import Catalogue
from lognot.channel import Channel, socket_pair
from lognot.config import parse_config
from lognot.executors import Executors
from lognot.journal import Journal
from lognot.keeper import Keeper
from lognot.launched import Launched
from lognot.loop import Loop
from lognot.settings import Config
from lognot.users import Account
from unit.descriptors import nothing_leaks
from unit.records import Records

ONE = Account(1001, 1001, (1001,), "one", "/")
OTHER = Account(1002, 1002, (1002,), "other", "/")
TURNS = 5  # enough for whatever is under way without waiting


def config_of(**accounts: Account) -> Config:
    """A config with an item for each, by its name."""
    text = "".join(f"[{name}]\npath = /var/log/a\nupbound_action = true\n" for name in accounts)
    config, problems = parse_config(text.encode(), "lognot.conf")
    assert config is not None, problems
    items = tuple(replace(item, run_as=accounts[item.name]) for item in config.items)
    return replace(config, items=items)


class Bench:
    """The executors of a supervisor, and the other end of each connection."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.records = Records()
        self.starts: list[tuple[Account, Channel]] = []  # each executor's end
        self.monitors: list[Channel] = []
        self.gone = 0
        self.notes: list[m.Note] = []
        journal = Journal((self.records,))
        self.monitor = Keeper(
            "monitor",
            self.loop,
            journal,
            start=self._start_monitor,
            on_message=lambda message, fd: None,
            on_start=lambda: self.executors.connect(),
            on_end=self._on_monitor_end,
            on_give_up=lambda: None,
        )
        self.catalogue = Catalogue()
        self.executors = Executors(
            self.loop,
            journal,
            self.monitor,
            self.catalogue,
            start=self._start,
            configure=lambda keeper: None,
            on_note=lambda journal, role, note: self.notes.append(note),
            on_configured=lambda: None,
            on_action_end=lambda: None,
            on_gone=self._on_gone,
        )
        self.use(ONE)
        self.monitor.start()
        self.turn()

    def use(self, *accounts: Account) -> None:
        """Use the config with an item, numbered in order, for each of these accounts."""
        config = config_of(**{account.name: account for account in accounts})
        self.catalogue.use(config)
        self.executors.use(set(accounts))

    def end(self, role: Channel) -> None:
        """Have a process end."""
        role.close()
        self.turn()

    def turn(self) -> None:
        for _ in range(TURNS):
            self.loop.turn(wait=False)

    def heard(self, role: Channel) -> list[m.Message]:
        """What a role was sent since; that it is gone is nothing more."""
        self.turn()
        heard = role.receive() if role.fileno() >= 0 else []
        for _, fd in heard:
            if fd >= 0:
                os.close(fd)
        return [message for message, _ in heard]

    def _start(self, account: Account) -> Launched:
        ours, theirs = socket_pair()
        self.starts.append((account, Channel(theirs, m.SUPERVISOR_TO_EXECUTOR)))
        return Launched(Channel(ours, m.EXECUTOR_TO_SUPERVISOR), 4711)

    def _start_monitor(self) -> Launched:
        ours, theirs = socket_pair()
        self.monitors.append(Channel(theirs, m.SUPERVISOR_TO_MONITOR))
        return Launched(Channel(ours, m.MONITOR_TO_SUPERVISOR), 4712)

    def _on_monitor_end(self, wait_status: int) -> bool:
        self.executors.disconnect()
        return True

    def _on_gone(self) -> None:
        self.gone += 1

    def close(self) -> None:
        self.executors.restart_none()
        self.monitor.stop()
        for _, role in self.starts:
            role.close()
        for role in self.monitors:
            role.close()
        self.turn()
        self.loop._selector.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """An executor of ONE and a monitor, connected."""
    with nothing_leaks():
        bench = Bench()
        yield bench
        bench.close()


def is_connected(heard: list[m.Message]) -> bool:
    return any(isinstance(message, m.ConnectMonitor) for message in heard)


def is_told_to_stop(heard: list[m.Message]) -> bool:
    return any(isinstance(message, m.Stop) for message in heard)


def test_one_that_a_reload_leaves_without_items_stops_when_the_monitor_knows(bench: Bench) -> None:
    """Before, the monitor may still find what is for it; it is told once."""
    (_, old) = bench.starts[0]
    bench.use(OTHER)
    assert not is_told_to_stop(bench.heard(old))
    bench.executors.stop_unwanted()
    assert is_told_to_stop(bench.heard(old))
    bench.executors.stop_unwanted()
    assert not is_told_to_stop(bench.heard(old))


def test_one_without_items_stops_when_the_monitor_has_ended(bench: Bench) -> None:
    """The next monitor knows nothing of it."""
    (_, old) = bench.starts[0]
    bench.use(OTHER)
    bench.end(bench.monitors[0])
    assert is_told_to_stop(bench.heard(old))


def test_without_a_monitor_one_without_items_stops_at_once(bench: Bench) -> None:
    (_, old) = bench.starts[0]
    bench.monitor.stop()
    bench.end(bench.monitors[0])
    bench.use(OTHER)
    assert is_told_to_stop(bench.heard(old))


def test_one_without_items_that_has_ended_is_not_started_again(bench: Bench) -> None:
    (_, old) = bench.starts[0]
    bench.use(OTHER)
    bench.end(old)
    assert bench.gone == 1
    bench.executors.stop_unwanted()
    assert [account for account, _ in bench.starts] == [ONE, OTHER]


def test_an_account_that_is_back_before_its_executor_was_told_to_stop_gets_a_new_one(bench: Bench) -> None:
    """What waits in the old one runs there; it hears nothing of the new config."""
    (_, old) = bench.starts[0]
    bench.use(OTHER)
    bench.use(ONE)
    assert [account for account, _ in bench.starts] == [ONE, OTHER, ONE]
    bench.executors.stop_unwanted()
    assert is_told_to_stop(bench.heard(old))
    assert is_told_to_stop(bench.heard(bench.starts[1][1]))
    assert not is_told_to_stop(bench.heard(bench.starts[2][1]))


def test_a_stop_is_told_to_those_without_items_too(bench: Bench) -> None:
    (_, old) = bench.starts[0]
    bench.use(OTHER)
    bench.executors.stop(1.0)
    assert is_told_to_stop(bench.heard(old))


def test_a_new_monitor_is_not_connected_with_an_executor_that_is_not_wanted(bench: Bench) -> None:
    """What that one hands back when it ends would wait in the monitor for ever."""
    (_, old) = bench.starts[0]
    assert is_connected(bench.heard(old))
    bench.use(OTHER)
    bench.heard(bench.monitors[0])
    bench.end(bench.monitors[0])
    assert not is_connected(bench.heard(old))
    (_, new) = bench.starts[1]
    assert is_connected(bench.heard(new))
    connected = [one for one in bench.heard(bench.monitors[1]) if isinstance(one, m.ConnectExecutor)]
    assert len(connected) == 1


def test_the_next_one_minds_what_runs_with_the_timeout_that_it_has(bench: Bench) -> None:
    """Whatever became of its item meanwhile."""
    (_, channel) = bench.starts[0]
    channel.send(m.ActionStarted(1, 9, 77))
    bench.turn()
    bench.catalogue.use(config_of(changed=ONE))
    bench.end(channel)
    (adopted,) = [one for one in bench.heard(bench.starts[1][1]) if isinstance(one, m.AdoptAction)]
    assert (adopted.item_id, adopted.pid, adopted.timeout_s) == (1, 9, 77)


# What one says.


def is_expelled(bench: Bench, said: m.Message) -> bool:
    """Have the first executor, of ONE, say something; say whether it was ended for that."""
    (_, channel) = bench.starts[0]
    channel.send(said)
    bench.turn()
    return any("broke the protocol" in text for text in bench.records.messages)


OF_AN_ITEM = (
    lambda item_id: m.ActionStarted(item_id, 9, 1),
    lambda item_id: m.ActionOutput(item_id, 9, b"text"),
    lambda item_id: m.ActionFinished(item_id, 9, 0, 1, False),
    lambda item_id: m.Note(m.Notice.ACTIONS_DROPPED, item_id, 1, b"text"),
)


@pytest.mark.parametrize("said", OF_AN_ITEM)
@pytest.mark.parametrize(("item_id", "expelled"), [(1, False), (2, True), (3, False)])
def test_one_speaks_of_its_own_items_alone(
    bench: Bench, said: Callable[[int], m.Message], item_id: int, expelled: bool
) -> None:
    """And of those of an earlier config, which nobody knows any more."""
    bench.use(ONE, OTHER)
    assert is_expelled(bench, said(item_id)) == expelled
    assert not any("[other]" in text for text in bench.records.messages if "speaks of" not in text)


@pytest.mark.parametrize("notice", m.Notice)
def test_one_says_what_an_executor_may_say(bench: Bench, notice: m.Notice) -> None:
    """Nothing of a log: that is the monitor's."""
    may = notice in m.NOTICES_OF_EXECUTOR
    assert is_expelled(bench, m.Note(notice, 1, 1, b"text")) != may
    assert len(bench.notes) == may


def test_each_notice_is_for_somebody_to_say() -> None:
    assert set(m.Notice) == m.NOTICES_OF_EXECUTOR | m.NOTICES_OF_MONITOR
