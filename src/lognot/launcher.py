"""The role that makes executors in a service of its own (lognot-exec.service), for a supervisor in another.

So the supervisor's sandbox need not allow what actions do. Root, small, and as trusted as the supervisor, but
it believes nobody: a connection is taken from root alone, and an executor uses a config only when it is what
this process reads in the administrator's file by itself. A supervisor that was taken over can start the
administrator's actions, and no other.

Each connection leads to an executor, which is forked here and becomes its user. Nothing of what goes over the
connection is read by this process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from collections.abc import Callable
from dataclasses import dataclass, field

from lognot import messages as m
from lognot.channel import Channel
from lognot.children import Child, start_child
from lognot.errors import ConfigError, LognotError, PrivilegeError, reason_of
from lognot.loop import Loop
from lognot.peer import Peer, peer_ids
from lognot.quota import Quota
from lognot.service import LEAVE_S, Notifier, SignalQueue
from lognot.settings import Config, config_to_json
from lognot.users import Account

FIRST_MESSAGE_S = 10.0  # a supervisor says at once whose executor it wants
ANSWER_S = 30.0  # for reading a large config
ACCEPT_AGAIN_S = 1.0  # where a limit is met, the connection waits, and the listener would wake us at once
# An executor asks once for each config that it is sent. To answer can mean to read the file.
CHECKS_AT_ONCE = 20
CHECKS_PER_S = 1
EXPELLED_S = 2.0  # for an executor that its supervisor wants no more: it has to tell its actions

RunExecutor = Callable[[Channel, Account, Callable[[bytes], bool]], None]


@dataclass(slots=True)
class _Connection:
    """To a supervisor, from an executor."""

    child: Child
    # The same socket that the executor has, only ever written here. Both send messages of one packet each, so
    # none gets into the middle of another.
    channel: Channel
    hangup: select.epoll  # can be read once the supervisor has closed its end
    supervisor: Peer
    checks: Quota = field(default_factory=lambda: Quota(CHECKS_AT_ONCE, CHECKS_PER_S))


class Launcher:
    """The service.

    Args:
        listener: a listening SEQPACKET socket that only root can connect to.
        load_config: what the administrator's file says now; raises ConfigError.
        run_executor: what an executor does, given its channel, its account and what approves a config.
    """

    def __init__(
        self,
        listener: socket.socket,
        load_config: Callable[[], Config],
        run_executor: RunExecutor,
    ) -> None:
        self._listener = listener
        self._load_config = load_config
        self._run_executor = run_executor
        self._loop = Loop(linger_limit=True)
        self._notifier = Notifier()
        self._in_use: tuple[bytes, Config] | None = None  # with its digest
        self._connections: dict[int, _Connection] = {}  # by pid
        self._stopping = False
        self._listens = False
        self._signals = SignalQueue((signal.SIGTERM, signal.SIGINT))

    def run(self) -> int:
        """Serve until told to stop; give the exit status."""
        self._listener.setblocking(False)
        self._loop.watch(self._signals, self._on_signals)
        self._listen()
        self._notifier.ready()
        while not self._stopping or self._connections:
            self._loop.turn()
        return 0

    def _on_signals(self) -> None:
        if not self._signals.take() or self._stopping:
            return
        self._stopping = True
        self._notifier.stopping()
        self._listen_not()
        for connection in list(self._connections.values()):
            self._end(connection)

    # Connections.

    def _listen(self) -> None:
        if not self._stopping:
            self._loop.watch(self._listener, self._accept)
            self._listens = True

    def _listen_not(self) -> None:
        if self._listens:
            self._loop.forget(self._listener)
            self._listens = False

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:  # it has gone again, or a limit is met
            _say(f"cannot take a connection: {reason_of(error)}")
            self._listen_not()
            self._loop.call_later(ACCEPT_AGAIN_S, self._listen)
            return
        with sock:
            _, uid, _ = peer_ids(sock)
            if uid not in (0, os.geteuid()):
                _say(f"refused a connection from user {uid}")
                return
            try:
                self._launch(sock)
            except OSError as error:  # the supervisor sees the connection end, and tries again
                _say(f"cannot start an executor: {error.strerror}")

    def _launch(self, sock: socket.socket) -> None:
        child = start_child(
            "executor",
            lambda private: self._be_executor(private, sock),
            from_child=m.EXECUTOR_TO_LAUNCHER,
            to_child=m.LAUNCHER_TO_EXECUTOR,
            kept=(sock.fileno(),),
        )
        channel = Channel(sock.dup(), frozenset())
        hangup = select.epoll()
        hangup.register(channel, 0)  # EPOLLHUP is told in any case (epoll_ctl(2))
        connection = _Connection(child, channel, hangup, Peer(channel))
        self._connections[child.pid] = connection
        self._loop.attach(
            child.channel,
            lambda message, fd: self._on_message(connection, message),
            lambda error: child.kill(),  # it has broken the protocol, or is about to end by itself
            holds_back=True,
        )
        self._loop.watch(child.pidfd, lambda: self._bury(connection))
        self._loop.watch(hangup, lambda: self._end(connection))
        _tell(connection, m.ExecutorStarted(child.pid))

    def _on_message(self, connection: _Connection, message: m.Message) -> None:
        match message:
            case m.CheckConfig(digest):
                if connection.checks.take(1, time.monotonic_ns()):
                    self._loop.send(connection.child.channel, m.ConfigChecked(self._is_good(digest)))
                else:
                    connection.child.kill()
            case m.Note():
                _tell(connection, message)

    def _end(self, connection: _Connection) -> None:
        """Make an executor end: by its closed connection, or else by force.

        One whose supervisor has ended still does what that had accepted, and takes its time.
        """
        if connection.hangup.closed:
            return
        self._loop.forget(connection.hangup)
        connection.hangup.close()
        connection.channel.shut_down()
        self._loop.call_later(EXPELLED_S, lambda: self._kill(connection, orphaned=False))
        self._loop.call_later(LEAVE_S, lambda: self._kill(connection, orphaned=True))

    def _kill(self, connection: _Connection, *, orphaned: bool) -> None:
        if self._connections.get(connection.child.pid) is not connection:
            return
        if orphaned or not connection.supervisor.has_ended():
            connection.child.kill()

    def _bury(self, connection: _Connection) -> None:
        child = connection.child
        self._loop.forget(child.pidfd)
        self._loop.drain(child.channel)
        del self._connections[child.pid]
        _tell(connection, m.ExecutorEnded(child.reap()))
        if not connection.hangup.closed:
            self._loop.forget(connection.hangup)
            connection.hangup.close()
        self._loop.detach(connection.channel)
        connection.supervisor.close()

    # Configs.

    def _is_good(self, digest: bytes) -> bool:
        """Say whether a config is what the administrator's file says, or said when it came into use."""
        if self._in_use is None or self._in_use[0] != digest:
            config = self._read_config()
            if config is None or _digest(config_to_json(config)) != digest:
                return False
            self._in_use = (digest, config)
        return True

    def _read_config(self) -> Config | None:
        try:
            return self._load_config()
        except ConfigError:
            return None  # whoever uses another one says so

    # In the executor's process.

    def _be_executor(self, private: Channel, sock: socket.socket) -> None:
        request = Channel(sock, m.SUPERVISOR_TO_LAUNCHER).wait(FIRST_MESSAGE_S)
        assert isinstance(request, m.LaunchExecutor)
        account = self._account(request.uid, request.gid)

        def approve(config: bytes) -> bool:
            private.send(m.CheckConfig(_digest(config)))
            answer = private.wait(ANSWER_S)
            return isinstance(answer, m.ConfigChecked) and answer.is_good

        self._run_executor(Channel(sock, m.SUPERVISOR_TO_EXECUTOR), account, approve)

    def _account(self, uid: int, gid: int) -> Account:
        """Find an account that the administrator's config names, with all its groups."""
        for config in (self._in_use and self._in_use[1], self._read_config()):
            for item in config.items if config else ():
                if (item.run_as.uid, item.run_as.gid) == (uid, gid):
                    return item.run_as
        raise PrivilegeError(f"no item of the config that this service reads runs as {uid}:{gid}")


def _tell(connection: _Connection, message: m.Message) -> None:
    """Say something to the supervisor, beside what the executor says; it may not want to know.

    Nothing more waits here when it does not read: an executor could make us say more than fits into memory.
    """
    if not connection.channel.pending_bytes:
        with contextlib.suppress(LognotError):
            connection.channel.send(message)


def _say(text: str) -> None:
    """Tell the log of our own service; there may be no supervisor to tell."""
    print(f"lognot: {text}", file=sys.stderr, flush=True)


def _digest(config: bytes) -> bytes:
    return blake2b(config, digest_size=32).digest()
