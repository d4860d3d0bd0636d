"""Sockets whose last close waits: what a hostile peer attaches to its messages."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress


class Lingering:
    """A descriptor that is sent and then closed here; it lingers in whoever closes it last.

    Args:
        linger_s: how long that takes, unless something ends it.
    """

    def __init__(self, linger_s: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._sock = socket.create_connection(listener.getsockname())
            self._unread, _ = listener.accept()
        self._sock.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # until neither side has room: then there is something to wait for
                self._sock.send(bytes(65536))
        self._sock.setblocking(True)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger_s))

    def send(self, sock: socket.socket, packet: bytes) -> None:
        """Send a packet and the descriptor, which is not ours any more."""
        socket.send_fds(sock, [packet], [self._sock.fileno()])
        self._sock.close()

    def send_by_child(self, sock: socket.socket, packet: bytes) -> None:
        """The same, where the other side may be quicker: then a child waits for it, and not for long."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # until ours is the only one
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # the other side may never read
            with suppress(OSError):  # it is gone
                socket.send_fds(sock, [packet], [self._sock.fileno()])
            signal.alarm(1)
            self._sock.close()
            os._exit(0)
        os.close(reader)
        self._sock.close()
        os.close(writer)

    def end(self) -> None:
        """Let it go: the reader resets the connection."""
        self._unread.close()
