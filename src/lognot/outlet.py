"""Write to somebody who may not take it now, and never wait for him: what our own log is written with.

A pager that stands still, a stopped journald or a full disk must not stop the service. Whoever writes here
gets an OSError instead, and can go on. No line is cut in its middle: what was begun is finished first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat


class Lines:
    """Whole lines to a descriptor.

    A pipe or a terminal is opened once more, without waiting: O_NONBLOCK on the descriptor itself would
    be for every process that has it (open(2)). One that cannot be opened, such as another user's, is asked
    beforehand, and then takes what is written in one piece (pipe(7), PIPE_BUF).

    Args:
        fd: open for writing; stays the caller's.
        begun: a line that was begun elsewhere and goes here first, as a whole.
    """

    def __init__(self, fd: int, begun: bytes = b"") -> None:
        mode = os.fstat(fd).st_mode
        self._fd = fd
        self._reopened = -1
        self._socket: socket.socket | None = None
        self._asks = False
        self._line = self._rest = begun
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = self._reopened = os.open(f"/proc/self/fd/{fd}", flags)
            except OSError:  # EACCES: not ours; ENXIO: nobody reads
                self._asks = True

    @property
    def begun(self) -> bytes:
        """The line that was begun and not finished yet, b"" for none."""
        return self._line if self._rest else b""

    def write(self, line: bytes) -> None:
        """Write a line, which may be finished by the next call.

        Raises:
            OSError: nothing of it was written; BlockingIOError when it might be later.
        """
        while self._rest:
            self._rest = self._rest[self._put(self._rest) :]
        self._rest = line[self._put(line) :]
        self._line = line
        with contextlib.suppress(OSError):
            while self._rest:
                self._rest = self._rest[self._put(self._rest) :]

    def _put(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._asks:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            data = data[: select.PIPE_BUF]
        return os.write(self._fd, data)

    def close(self) -> None:
        """Close what was opened here."""
        if self._socket is not None:
            self._socket.close()
        if self._reopened >= 0:
            os.close(self._reopened)


class Datagrams:
    """Packets to a Unix socket by its path, which may go and come back.

    Args:
        path: of a SOCK_DGRAM socket.

    Raises:
        OSError: no socket can be had (socket(2)).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send a packet.

        Raises:
            OSError: nobody is there, or does not keep up (BlockingIOError).
        """
        self._socket.sendto(data, self._path)

    def close(self) -> None:
        """Close our socket."""
        self._socket.close()
