"""What a hostile monitor, executor and launcher say, in any order, to a whole supervisor within this process.

Nothing but the end of the one who spoke may come of it: no exception, no file opened that no config names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from unittest.mock import patch

import target_messages

from lognot import logs, resuming, supervisor, unseen
from lognot import messages as m
from lognot.channel import Channel, socket_pair
from lognot.config import parse_config
from lognot.journal import Event, Journal
from lognot.launched import Launched
from lognot.opening import Visit, open_log
from lognot.supervisor import Roles, Supervisor
from lognot.users import Account

CONFIG = b"""
[A]
path = %(place)s/log
upbound_action = true
[B]
path = %(place)s/missing/log
upbound_freq = 5/30
upbound_action = true
size = 100
size_action = true
"""
FROM_MONITOR, FROM_EXECUTOR = 0, 1
os.environ.pop("NOTIFY_SOCKET", None)  # a service manager that started us is not to hear of this


def _step(who: int, message: bytes) -> bytes:
    return bytes((who, len(message))) + message


SEEDS = [
    b"".join(
        _step(who, m.encode(example)) for example in target_messages.EXAMPLES if type(example) in allowed
    )
    for who, allowed in (
        (FROM_MONITOR, m.MONITOR_TO_SUPERVISOR),
        (FROM_EXECUTOR, m.EXECUTOR_TO_SUPERVISOR | m.LAUNCHER_TO_SUPERVISOR),
    )
]
SEEDS += [
    _step(FROM_MONITOR, m.encode(message))
    for message in (
        m.Begun(1),
        m.StreamUnreadable(1),
        m.StreamDrained(1),
        m.StreamDropped(1),
        m.PeerBroke(1),
        m.Pong(),
    )
]
SEEDS += [
    _step(FROM_EXECUTOR, m.encode(message))
    for message in (
        m.ActionStarted(1, 7, 1),
        m.PeerBroke(0),
        m.ExecutorStarted(9),
        m.ExecutorEnded(9),
        m.Pong(),
    )
]


class _NoSignals:
    """Those of this process are the fuzzer's."""

    def __init__(self, wanted: object) -> None:
        self._reader, self._writer = socket_pair()

    def fileno(self) -> int:
        return self._reader.fileno()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class _Sink:
    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        assert all(character.isprintable() for character in message)
        assert "\n" not in "".join(fields.values())

    def reopen(self) -> None:
        pass


class _Hostile(Supervisor):
    """Its monitor and executors are sockets, whose other ends we have."""

    peers: dict[int, Channel]

    def _fork_monitor(self) -> Launched:  # type: ignore[override]
        return self._peer(FROM_MONITOR, m.MONITOR_TO_SUPERVISOR)

    def _peer(self, who: int, accepts: frozenset[type[m.Message]]) -> Launched:
        ours, theirs = socket_pair()
        if who in self.peers:
            self.peers[who].close()
        self.peers[who] = Channel(theirs, frozenset())
        return Launched(Channel(ours, accepts), wait_status=signal.SIGKILL)


def check(data: bytes) -> None:
    """Steps of two bytes, who speaks and how much it says, and what it says."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        with open(f"{place}/log", "wb") as file:
            file.write(b"a line\n")
        config, problems = parse_config(CONFIG % {b"place": place.encode()}, f"{place}/conf")
        assert config is not None, problems
        named = {item.path for item in config.items}

        def open_named(path: str, visit: Visit) -> int:
            assert path in named
            return open_log(path, visit)

        def start_executor(account: Account) -> Launched:
            return made._peer(FROM_EXECUTOR, m.EXECUTOR_TO_SUPERVISOR | m.LAUNCHER_TO_SUPERVISOR)

        roles = Roles(None, start_executor, lambda on_wait: config, lambda config: None)  # type: ignore[arg-type]
        before = _open_descriptors()
        with (
            patch.object(logs, "open_log", open_named),
            patch.object(resuming, "open_log", open_named),
            patch.object(unseen, "open_log", open_named),
            patch.object(supervisor, "SignalQueue", _NoSignals),
        ):
            made = _Hostile(config, roles, Journal((_Sink(),), verbose=True), lambda: None)
            made.peers = {}
            try:
                _run(made, data)
            finally:
                _close(made)
        assert _open_descriptors() == before


def _open_descriptors() -> set[str]:
    """Give those of this process, without the one that looking needs."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


def _run(made: _Hostile, data: bytes) -> None:
    made._use_config(made._config)
    made._monitor.start()
    at = 0
    while at + 2 <= len(data):
        who, length = data[at] % 2, data[at + 1]
        packet = b"\0" + data[at + 2 : at + 2 + length]
        at += 2 + length
        with contextlib.suppress(OSError):  # it was ended
            made.peers[who]._sock.send(packet)
        made._loop.turn(wait=False)
    made._loop.turn(wait=False)
    made._status()


def _close(made: _Hostile) -> None:
    """Close what a supervisor that never ends has open."""
    for channel in list(made._loop._on_message):
        made._loop.detach(channel)
    for peer in made.peers.values():
        peer.close()
    made._logs.configure([])
    made._logs._streams.close_outdated_watches()
    if made._logs._streams._watches is not None:
        made._logs._streams._watches.close()
    made._mounts.close()
    made._signals.close()  # type: ignore[attr-defined]
    made._loop._selector.close()
