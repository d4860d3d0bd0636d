"""An executor between a supervisor and a monitor that a test plays: what it starts, and what it tells."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lognot import dispatch as dispatch_module
from lognot import executor as executor_module
from lognot import messages as m
from lognot.channel import MAX_MESSAGE_BYTES, Channel, ChannelClosed, socket_pair
from lognot.config import parse_config
from lognot.dispatch import Dispatcher
from lognot.executor import MAX_UNREAD_OUTPUT_BYTES, Executor
from lognot.loop import Loop
from lognot.messages import Kind
from lognot.settings import config_to_json
from lognot.startmark import new_start_mark
from lognot.users import current_account
from unit.descriptors import nothing_leaks

GENERAL = "[general]\nathread_count = {}\n"
ITEM = "[{0}]\npath = /var/log/a\nupbound_action = {0}\n"
STREAM = 7
FULL = b"line\n" * 1024  # all that one action may have in the log
TURNS = 5  # enough for whatever is under way without waiting


class Shells:
    """Stands in for process.start_shell: `printed` is all that each prints, and it ends at once."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.printed = b""

    def start(self, text: bytes, variables: dict[bytes, bytes], mark_fd: int) -> tuple[int, int]:
        self.texts.append(text)
        reader, writer = os.pipe2(os.O_NONBLOCK)
        os.write(writer, self.printed)
        os.close(writer)
        return os.posix_spawn("/bin/true", [b"true"], {}, setsid=True), reader


class Bench:
    """The executor, and both ends that a test holds."""

    def __init__(self, shells: Shells) -> None:
        self.shells = shells
        ours, theirs = socket_pair()
        self.supervisor = Channel(ours, m.EXECUTOR_TO_SUPERVISOR)
        self.executor = Executor(
            Channel(theirs, m.SUPERVISOR_TO_EXECUTOR), current_account(), lambda data: True
        )
        self.loop = self.executor._loop
        self.loop.attach(
            self.executor._channel,
            self.executor._on_message,
            self.executor._leave,
            self.executor._start_queued,
        )
        self.monitor = self.connect()
        self.answers: list[m.Message] = []  # to the monitor

    def configure(self, *numbers: int, at_once: int = 2, item: str = ITEM, name: str = "item{}") -> None:
        """Send the config that has these items; each runs its own name."""
        text = GENERAL.format(at_once) + "".join(item.format(name.format(number)) for number in numbers)
        config, problems = parse_config(text.encode(), "lognot.conf")
        assert config is not None, problems
        fd = os.memfd_create("config")
        os.write(fd, config_to_json(config))
        ones = (1,) * len(numbers)
        self.supervisor.send(m.Configure(numbers, ones, ones), fd)
        os.close(fd)

    def connect(self) -> Channel:
        """Have the supervisor connect a monitor; give its end."""
        ours, theirs = socket_pair()
        mark_fd = new_start_mark()
        self.supervisor.send(m.UseStartMark(), mark_fd)
        os.close(mark_fd)
        self.supervisor.send(m.ConnectMonitor(), theirs.fileno())
        theirs.close()
        return Channel(ours, m.EXECUTOR_TO_MONITOR, MAX_MESSAGE_BYTES)

    def turn(self) -> None:
        for _ in range(TURNS):
            self.loop.turn(wait=False)

    def quiet(self) -> None:
        """Let it turn until no action runs."""
        self.turn()
        while self.executor._running:
            self.loop.turn()

    def told(self) -> list[m.Message]:
        """Give all that the supervisor is told, while both read, until no action waits or runs any more."""
        told: list[m.Message] = []
        self.turn()
        while True:
            if self.monitor.fileno() >= 0:
                self.answers += self._answers()
            new = [message for message, _ in self.supervisor.receive()]
            if not (new or self.executor._queue or self.executor._running):
                return told
            told += new
            self.turn()

    def told_now(self) -> list[m.Message]:
        """Give what the supervisor is told without waiting for anything."""
        return [message for message, _ in self.supervisor.receive()]

    def _answers(self) -> list[m.Message]:
        try:
            return [message for message, _ in self.monitor.receive()]
        except ChannelClosed:  # an executor that stops hears a monitor for a second, which may be short here
            self.monitor.close()
            return []

    def close(self) -> None:
        self.supervisor.close()
        self.monitor.close()
        for channel in (self.executor._channel, self.executor._monitor):
            if channel is not None:
                self.loop.detach(channel)
        self.loop._selector.close()
        self.executor._supervisor.close()
        os.close(self.executor._mark)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """An executor that has a config with item 1, and a monitor."""
    with nothing_leaks():
        shells = Shells()
        monkeypatch.setattr(executor_module, "start_shell", shells.start)
        bench = Bench(shells)
        bench.configure(1)
        bench.turn()
        yield bench
        bench.close()


def action(position: int, item: int = 1) -> m.RunAction:
    return m.RunAction(item, Kind.UPBOUND, STREAM, position, 1, b"a line", ())


# A supervisor that does not read.


def count(told: list[m.Message], kind: type[m.Message]) -> int:
    return sum(isinstance(message, kind) for message in told)


def test_what_is_printed_beyond_what_the_supervisor_reads_is_left_out(bench: Bench) -> None:
    """Actions start all the same, none is lost, and what was left out is counted."""
    asked = 50
    bench.shells.printed = FULL
    for position in range(asked):
        bench.monitor.send(action(position))
        bench.quiet()
    assert len(bench.shells.texts) == asked
    unread = bench.executor._channel.pending_bytes
    assert MAX_UNREAD_OUTPUT_BYTES < unread < MAX_UNREAD_OUTPUT_BYTES + 100_000
    bench.executor._notes.flush()
    told = bench.told()
    assert count(told, m.ActionStarted) == count(told, m.ActionFinished) == asked
    said = sum(len(one.line) for one in told if isinstance(one, m.ActionOutput))
    cut = sum(one.number for one in told if isinstance(one, m.Note))
    assert cut > 0
    assert said + cut == asked * 1024 * len("line")


def fill(bench: Bench, monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    """Ask for actions, of which some cannot start, since too much waits for the supervisor."""
    monkeypatch.setattr(executor_module, "MAX_UNREAD_BYTES", 10_000)
    bench.shells.printed = FULL
    for position in range(asked):
        bench.monitor.send(action(position))
        bench.quiet()
    assert 0 < len(bench.shells.texts) < asked


def test_actions_wait_while_the_supervisor_reads_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has read what waits they run, and print in full."""
    asked = 9
    fill(bench, monkeypatch, asked)
    told = bench.told()
    assert count(told, m.ActionStarted) == count(told, m.ActionFinished) == asked
    assert count(told, m.ActionOutput) == asked * 1024
    assert count(told, m.Note) == 0


def test_what_waited_for_a_supervisor_that_has_ended_is_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told of it any more, so nothing has to be waited for."""
    asked = 9
    fill(bench, monkeypatch, asked)
    monkeypatch.setattr(bench.executor._supervisor, "has_ended", lambda timeout_s: True)
    bench.supervisor.close()
    bench.quiet()
    assert len(bench.shells.texts) == asked


# A config that may not be used.


def hold_back(bench: Bench) -> None:
    """Have an executor that has no config yet, and items 1 and 2 in the one that it may not use."""
    bench.executor._config = None
    bench.executor._take_last_words()
    bench.executor._approve = lambda data: False
    bench.configure(1, 2)
    bench.monitor.close()
    bench.monitor = bench.connect()
    bench.turn()


def dropped(told: list[m.Message]) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for one in told:
        if isinstance(one, m.Note) and one.notice is m.Notice.ACTIONS_DROPPED:
            numbers[one.about] = numbers.get(one.about, 0) + one.number
    return numbers


def test_what_was_held_back_until_a_stop_is_told_of(bench: Bench) -> None:
    """Its lines are counted as done: it was in the kernel's hands. Numbers that nobody gave are not told."""
    hold_back(bench)
    for item in (1, 2, 1, 77, 78):
        bench.monitor.send(action(1, item=item))
    bench.monitor.close()
    bench.supervisor.send(m.Stop(1000))
    assert dropped(bench.told()) == {1: 2, 2: 1, 0: 2}
    assert bench.shells.texts == []


def test_what_monitors_said_that_died_while_it_was_held_back_runs_in_the_end(bench: Bench) -> None:
    hold_back(bench)
    for position in range(3):
        bench.monitor.send(action(position))
        bench.monitor.close()
        bench.monitor = bench.connect()
    bench.executor._approve = lambda data: True
    bench.configure(1, 2)
    assert dropped(bench.told()) == {}
    assert bench.shells.texts == [b"item1"] * 3


def test_not_too_many_dead_monitors_are_kept_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "MAX_WAITING_MONITORS", 2)
    hold_back(bench)
    for position in range(4):
        bench.monitor.send(action(position))
        bench.monitor.close()
        bench.monitor = bench.connect()
        bench.turn()
    bench.executor._notes.flush()
    assert dropped(bench.told_now()) == {1: 3}
    bench.executor._approve = lambda data: True
    bench.configure(1, 2)
    bench.told()
    assert bench.shells.texts == [b"item1"]


# An action that the last executor has started.


@pytest.mark.parametrize("item", [1, 9])
def test_it_keeps_its_timeout_also_when_its_item_is_gone(bench: Bench, item: int) -> None:
    pid = os.posix_spawn("/bin/sleep", [b"sleep", b"60"], {}, setsid=True)
    bench.supervisor.send(m.AdoptAction(item, pid, 60_000, 3600))
    bench.turn()
    assert list(bench.executor._running) == [pid]
    assert bench.told_now() == []
    bench.executor._time_out(bench.executor._running[pid])
    (ended,) = bench.told()
    assert isinstance(ended, m.ActionFinished)
    assert (ended.item_id, ended.pid, ended.timed_out) == (item, pid, True)
    assert os.waitpid(pid, 0) == (pid, signal.SIGTERM)


def test_its_timeout_counts_from_its_start(bench: Bench) -> None:
    pid = os.posix_spawn("/bin/sleep", [b"sleep", b"60"], {}, setsid=True)
    bench.supervisor.send(m.AdoptAction(9, pid, 7_000, 7))
    (ended,) = bench.told()
    assert isinstance(ended, m.ActionFinished)
    assert ended.timed_out
    os.waitpid(pid, 0)


# Positions.


def test_positions_that_wrap_around_go_on(bench: Bench) -> None:
    """65,536 truncations of a file are enough for that, of which an item may have slept through many."""
    for position in (2**64 - 20, 2**64 - 10, 5, 10, 40_000 * 2**48, 20_000 * 2**48):
        bench.monitor.send(action(position))
    bench.told()
    assert len(bench.shells.texts) == 6


@pytest.mark.parametrize("last", [0, 10, 2**48, 2**63, 2**63 + 5, 2**64 - 1])
def test_what_was_started_is_not_started_again(bench: Bench, last: int) -> None:
    for back in (0, 0, 1, 2**48, 200 * 2**48, 0):
        bench.monitor.send(action((last - back) % 2**64))
    bench.told()
    assert len(bench.shells.texts) == 1
    assert sum(isinstance(answer, m.ActionTaken) for answer in bench.answers) == 6


def test_a_line_is_not_run_for_again_when_its_item_has_changed(bench: Bench) -> None:
    """A monitor that dies has the next one read lines again; the item has a new number by then."""
    for position in range(5):
        bench.monitor.send(action(position))
    bench.told()
    bench.configure(2, name="item1", item=ITEM + "action_timeout = 99\n")
    bench.turn()
    for position in range(8):
        bench.monitor.send(action(position, item=2))
    bench.told()
    assert len(bench.shells.texts) == 8
    assert sum(isinstance(answer, m.ActionTaken) for answer in bench.answers) == 13


def test_a_line_whose_action_waits_runs_once_when_its_item_has_changed(bench: Bench) -> None:
    bench.configure(1, at_once=1)
    for position in range(3):
        bench.monitor.send(action(position))
    bench.loop.turn()
    bench.configure(2, name="item1", item=ITEM + "action_timeout = 99\n", at_once=1)
    for position in range(3):
        bench.monitor.send(action(position, item=2))
    bench.told()
    assert len(bench.shells.texts) == 3


@pytest.mark.parametrize(("size", "runs"), [("100", 1), ("1000", 2)])
def test_a_multiple_of_a_size_is_another_one_when_the_size_has_changed(
    bench: Bench, size: str, runs: int
) -> None:
    item = "[{0}]\npath = /var/log/a\nsize = SIZE\nsize_action = {0}\naction_timeout = "
    bench.configure(2, name="item", item=item.replace("SIZE", "100") + "1\n")
    bench.monitor.send(m.RunAction(2, Kind.SIZE, STREAM, 20, 20, b"", ()))
    bench.told()
    bench.configure(3, name="item", item=item.replace("SIZE", size) + "2\n")
    bench.monitor.send(m.RunAction(3, Kind.SIZE, STREAM, 3, 3, b"", ()))
    bench.told()
    assert len(bench.shells.texts) == runs


# Many that wait.


@pytest.mark.parametrize(
    ("limit", "value", "kept"), [("MAX_WAITING", 5, 10), ("MAX_WAITING_BYTES", 5 * len(b"a line"), 11)]
)
def test_no_honest_monitor_is_accused_however_many_die_before_they_know_what_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, kept: int
) -> None:
    """Each has room for as many as may wait until it has heard of those that do; what is over is dropped."""
    for module in (executor_module, dispatch_module):
        monkeypatch.setattr(module, limit, value)
    bench.executor._retrying = True  # none starts
    accused: list[None] = []
    position = 0
    for _ in range(5):
        loop = Loop()
        dispatcher = Dispatcher(loop, lambda: accused.append(None))
        bench.monitor.close()
        sock, mark_fd = bench.connect()._sock, new_start_mark()
        dispatcher.connect(sock, mark_fd)
        while dispatcher.has_room(action(position)):
            dispatcher.run(action(position))
            position += 1
        bench.turn()
        for _ in range(TURNS):
            loop.turn(wait=False)
        dispatcher.give_up()
        loop._selector.close()
    told = bench.told_now()
    assert count(told, m.PeerBroke) == len(accused) == 0
    assert len(bench.executor._queue) == kept
    bench.executor._notes.flush()
    assert dropped(told + bench.told_now()) == {1: position - kept}
    bench.executor._retrying = False
    bench.executor._start_queued()
    bench.told()
    assert len(bench.shells.texts) == kept


# A monitor that is ahead of what the supervisor has told.


def test_an_action_of_a_new_item_runs_when_the_monitor_is_heard_first(bench: Bench) -> None:
    bench.monitor.send(action(1))
    bench.monitor.send(action(1, item=2))
    bench.configure(1, 2)
    bench.told()
    assert bench.shells.texts == [b"item1", b"item2"]


def test_an_item_that_is_not_known_is_refused(bench: Bench) -> None:
    """Also where nothing is to be heard of the supervisor, or its end; and it is said."""
    bench.monitor.send(action(1, item=2))
    bench.monitor.send(action(1))
    notes = [one for one in bench.told() if isinstance(one, m.Note)]
    assert notes == [m.Note(m.Notice.ACTIONS_DROPPED, 0, 1, b"the config has changed")]
    assert bench.shells.texts == [b"item1"]
    taken = [one for one in bench.answers if isinstance(one, m.ActionTaken)]
    assert [one.item_id for one in taken] == [2, 1]


# A monitor that is behind it.


@pytest.mark.parametrize("reloads", [1, 3])
def test_what_was_found_before_a_reload_runs_as_the_config_said_then(bench: Bench, reloads: int) -> None:
    """Also when another reload follows before the monitor has heard of the first."""
    for number in range(2, 2 + reloads):
        bench.configure(number)
        bench.turn()
    bench.monitor.send(action(1))
    bench.monitor.send(action(1, item=1 + reloads))
    assert count(bench.told(), m.Note) == 0
    assert bench.shells.texts == [b"item1", b"item%d" % (1 + reloads)]


def test_an_item_that_is_gone_is_forgotten_in_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator has removed it; and many reloads are not to take more and more memory."""
    monkeypatch.setattr(executor_module, "EARLIER_S", 0.0)
    bench.configure(2)
    bench.turn()
    bench.monitor.send(action(1))
    assert count(bench.told(), m.Note) == 1
    assert bench.shells.texts == []
    assert bench.executor._earlier == {}


def test_no_more_earlier_items_are_known_than_a_config_may_have(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m, "MAX_ITEMS", 3)
    for number in range(2, 10):
        bench.configure(number)
        bench.turn()
    assert list(bench.executor._earlier) == [6, 7, 8]


@pytest.mark.parametrize("monitors", [1, 2])
def test_the_last_words_of_a_monitor_keep_their_order(bench: Bench, monitors: int) -> None:
    """What takes them was heard in the middle of them, while the supervisor was asked for an item."""
    asked = 150  # more than are received at once
    bench.monitor.send(action(1, item=9))
    for position in range(asked):
        bench.monitor.send(action(position))
    bench.monitor.close()
    for _ in range(monitors):
        bench.monitor = bench.connect()
    bench.configure(1, 2)
    told = bench.told()
    assert count(told, m.ActionStarted) == asked
    bench.monitor.send(action(1, item=2))
    bench.told()
    assert bench.shells.texts == [b"item1"] * asked + [b"item2"]
    taken = [one for one in bench.answers if isinstance(one, m.ActionTaken)]
    assert taken[-1].item_id == 2, "the last monitor is the one that is answered"


@pytest.mark.parametrize("lives", [True, False])
def test_what_a_monitor_could_not_hand_over_before_a_stop_runs(bench: Bench, lives: bool) -> None:
    """A reload has left an executor without items in the middle of a flood: the monitor lives on."""
    asked = 0
    while not bench.monitor.pending_bytes:
        bench.monitor.send(action(asked))
        asked += 1
    bench.supervisor.send(m.Stop(60_000))
    bench.loop.turn(wait=False)
    assert bench.monitor.flush()
    if not lives:
        bench.monitor.close()
    bench.told()
    assert len(bench.shells.texts) == asked
    while bench.executor._monitor:
        bench.loop.turn()


def test_a_stop_in_the_middle_of_what_the_monitor_says_drops_nothing(bench: Bench) -> None:
    asked = 150
    bench.monitor.send(action(1, item=9))
    for position in range(asked):
        bench.monitor.send(action(position))
    bench.monitor.close()
    bench.supervisor.send(m.Stop(60_000))
    assert count(bench.told(), m.ActionFinished) == asked
    assert bench.executor._stopping
