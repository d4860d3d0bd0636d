"""Whatever a peer that was taken over says, in any order, with whatever descriptors: receivers outlive it.

Only whoever spoke is ended. No action is started that the config does not have, nothing is opened that it
does not name (fuzz/target_supervisor.py sees to that), and descriptors that come along are closed.
tests/integration/test_hostile_peers.py does the same to whole services.
"""

from __future__ import annotations

import importlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import executor as executor_module
from lognot import messages as m
from lognot.action import parse_template
from lognot.channel import Channel, socket_pair
from lognot.config import parse_config
from lognot.dispatch import MAX_WAITING, Dispatcher
from lognot.executor import Executor
from lognot.loop import Loop
from lognot.messages import Kind, RunAction
from lognot.settings import config_to_json
from lognot.startmark import new_start_mark
from lognot.users import current_account
from unit.descriptors import nothing_leaks
from unit.test_messages import MESSAGES

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
CONFIG = b"""
[A]
path = /var/log/a
upbound_action = act on $1
[B]
path = /var/log/b
upbound_freq = 5/30
upbound_action = other
downbound_freq = 1/30
downbound_action = missing
size = 100
size_action = large
"""
ACTIONS = {parse_template(b"act on $1").shell_text, b"other", b"missing", b"large"}
RUN_ACTION = st.builds(  # nearly right
    RunAction,
    st.integers(0, 3),
    st.sampled_from(Kind),
    st.integers(0, 2),
    st.integers(0, 2**32),
    st.integers(0, 3),
    st.binary(min_size=9, max_size=20),
    st.lists(st.sampled_from([(0, 0), (0, 1), (-1, -1)]), max_size=3).map(tuple)
    | st.just(((5, 3),))
    | st.just(((0, 99),)),
)


@dataclass(frozen=True)
class Packet:
    """What is sent at once: see channel.py for its first byte."""

    data: bytes
    fds: int
    pipes: bool = False


def packets(kinds: frozenset[type[m.Message]]) -> st.SearchStrategy[list[Packet]]:
    """What a peer that may send these types could try."""
    known = [RUN_ACTION if kind is RunAction else MESSAGES[kind] for kind in kinds]
    fitting = st.builds(
        lambda message, pipes: Packet(b"\0" + m.encode(message), type(message).fds, pipes),
        st.one_of(known),
        st.booleans(),
    )
    encoded = st.one_of(list(MESSAGES.values())).map(m.encode)
    data = encoded.map(lambda data: b"\0" + data) | encoded.map(lambda data: b"\1" + data[: len(data) // 2])
    unfitting = st.builds(Packet, data | st.binary(max_size=64), st.integers(0, 2), st.booleans())
    return st.builds(list.__add__, st.lists(fitting, max_size=20), st.lists(unfitting, max_size=5))


def useless(is_pipe: bool) -> int:
    """A descriptor: of a device, or of a pipe, where most calls fail."""
    if not is_pipe:
        return os.open(os.devnull, os.O_RDONLY)
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def speak(channel: Channel, packet: Packet) -> bool:
    """Send a packet, with descriptors of no use; False when nobody listens any more."""
    fds = [useless(packet.pipes) for _ in range(packet.fds)]
    try:
        socket.send_fds(channel._sock, [packet.data or b"\0"], fds)
    except OSError:
        return False
    finally:
        for fd in fds:
            os.close(fd)
    return True


# A hostile monitor, to an executor.


class Shells:
    """Stands in for process.start_shell: has started, ends at once."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []

    def start(self, text: bytes, variables: dict[bytes, bytes], mark_fd: int) -> tuple[int, int]:
        self.texts.append(text)
        reader, writer = os.pipe2(os.O_NONBLOCK)
        os.close(writer)
        return os.posix_spawn("/bin/true", [b"true"], {}, setsid=True), reader


@examples(60)
@given(packets(m.MONITOR_TO_EXECUTOR))
def test_an_executor_starts_what_is_configured_alone(said: list[Packet]) -> None:
    with nothing_leaks():
        executor_hears(said)


def executor_hears(said: list[Packet]) -> None:
    """Be an executor, and its supervisor; the monitor is hostile."""
    config, problems = parse_config(CONFIG, "lognot.conf")
    assert config is not None, problems
    shells = Shells()
    ours, theirs = socket_pair()
    supervisor = Channel(ours, m.EXECUTOR_TO_SUPERVISOR)
    to_executor, hostile_sock = socket_pair()
    hostile = Channel(hostile_sock, frozenset())
    told: list[m.Message] = []
    with patch.object(executor_module, "start_shell", shells.start):
        executor = Executor(Channel(theirs, m.SUPERVISOR_TO_EXECUTOR), current_account(), lambda data: True)
        executor._loop.attach(executor._channel, executor._on_message, executor._leave)
        config_fd = os.memfd_create("config")
        os.write(config_fd, config_to_json(config))
        supervisor.send(m.Configure((1, 2), (1, 2), (1, 1)), config_fd)
        os.close(config_fd)
        mark_fd = new_start_mark()
        supervisor.send(m.UseStartMark(), mark_fd)
        os.close(mark_fd)
        supervisor.send(m.ConnectMonitor(), to_executor.fileno())
        to_executor.close()
        for packet in said:
            executor._loop.turn(wait=False)
            speak(hostile, packet)
        hostile.close()
        while executor._monitor or executor._queue or executor._running:
            executor._loop.turn()
            told += [message for message, _ in supervisor.receive()]
    told += [message for message, _ in supervisor.receive()]
    assert set(shells.texts) <= ACTIONS
    started = [message for message in told if isinstance(message, m.ActionStarted)]
    assert len(started) == len(shells.texts)
    supervisor.close()
    executor._loop.detach(executor._channel)
    executor._loop._selector.close()
    executor._supervisor.close()
    if executor._mark >= 0:  # it came to read that
        os.close(executor._mark)


# A hostile executor, to a monitor.


@examples(60)
@given(packets(m.EXECUTOR_TO_MONITOR), st.lists(RUN_ACTION, max_size=9))
def test_a_monitor_says_no_more_than_that_an_executor_broke(
    said: list[Packet], actions: list[RunAction]
) -> None:
    with nothing_leaks():
        monitor_hears(said, actions)


def monitor_hears(said: list[Packet], actions: list[RunAction]) -> None:
    """Be a monitor's side of a connection to a hostile executor."""
    loop = Loop()
    broken: list[None] = []
    dispatcher = Dispatcher(loop, lambda: broken.append(None))
    ours, theirs = socket_pair()
    dispatcher.connect(ours, new_start_mark())
    hostile = Channel(theirs, frozenset())
    for action in actions:
        dispatcher.run(action)
    for packet in said:
        loop.turn(wait=False)
        if not speak(hostile, packet):
            break
    hostile.close()
    while dispatcher._channel is not None:
        loop.turn()
    assert len(broken) <= 1
    assert len(dispatcher._waiting) + len(dispatcher._handed_back) <= MAX_WAITING
    assert dispatcher._waiting_bytes >= 0
    loop._selector.close()


# A hostile monitor, executor and launcher, to a supervisor.


@pytest.fixture(scope="module")
def supervisor_target() -> ModuleType:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(FUZZ))
        return importlib.import_module("target_supervisor")


def steps(who: int, kinds: frozenset[type[m.Message]]) -> st.SearchStrategy[list[tuple[int, bytes]]]:
    messages = st.one_of([MESSAGES[kind] for kind in kinds]).map(m.encode)
    fitting = messages.filter(lambda data: len(data) < 256)
    return st.lists(st.tuples(st.just(who), fitting | st.binary(max_size=64)), max_size=15)


@examples(25)
@given(said=st.data())
def test_a_supervisor_opens_what_is_configured_alone(
    supervisor_target: ModuleType, said: st.DataObject
) -> None:
    of_executor = m.EXECUTOR_TO_SUPERVISOR | m.LAUNCHER_TO_SUPERVISOR
    spoken = said.draw(steps(supervisor_target.FROM_MONITOR, m.MONITOR_TO_SUPERVISOR)) + said.draw(
        steps(supervisor_target.FROM_EXECUTOR, of_executor)
    )
    order = said.draw(st.permutations(spoken))
    supervisor_target.check(b"".join(supervisor_target._step(who, data) for who, data in order))
