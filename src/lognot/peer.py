"""The process at the other end of a connection: whether it has ended, or has only closed the connection."""

from __future__ import annotations

import os
import select
import socket
import struct

from lognot.loop import HasFileno

_PEER = struct.Struct("iII")  # struct ucred, unix(7)


def peer_ids(connection: socket.socket) -> tuple[int, int, int]:
    """Give pid, uid and gid of whoever made the other end of a connection (unix(7), SO_PEERCRED)."""
    pid, uid, gid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid, gid


class Peer:
    """Whoever made the other end of a connection; of a pair, that is whoever made the pair.

    Args:
        connection: stays the caller's, and open for now.
    """

    def __init__(self, connection: HasFileno) -> None:
        with socket.socket(fileno=os.dup(connection.fileno())) as copy:
            pid, _, _ = peer_ids(copy)
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Say whether the process has ended, or does so within some seconds, for which this waits."""
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def close(self) -> None:
        """Forget it."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
