"""What a launcher keeps for a supervisor that does not read."""

from __future__ import annotations

import os
import select

from lognot import messages as m
from lognot.channel import Channel, socket_pair
from lognot.children import Child
from lognot.launcher import _Connection, _tell
from lognot.peer import Peer


def test_an_executor_cannot_fill_the_launchers_memory() -> None:
    """What it has us pass on, while the supervisor does not read, is at most one message."""
    ours, theirs = socket_pair()
    child = Child("executor", os.getpid(), -1, Channel(theirs, frozenset()))
    with select.epoll() as hangup:
        connection = _Connection(child, Channel(ours, frozenset()), hangup, Peer(ours))
        note = m.Note(m.Notice.ROLE_FAILED, 0, 0, b"x" * m.MAX_QUOTE_BYTES)
        for _ in range(2000):
            _tell(connection, note)
        assert 0 < connection.channel.pending_bytes < 2 * m.MAX_QUOTE_BYTES
        theirs.close()
        _tell(connection, note)  # nor does it mind a supervisor that is gone
        connection.channel.close()
        connection.supervisor.close()
