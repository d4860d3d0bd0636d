"""Write to somebody who may not take it now, and hardly wait for him: what our own log is written with.

A pager that stands still, a stopped journald or a full disk must not stop the service. Whoever writes here
gets an OSError instead, and can go on. No line is cut in its middle: what was begun is finished first.

Somebody who only is not as quick as we are, as with the ten packets that wait in a Unix socket at most where
net.unix.max_dgram_qlen is not raised, gets a moment for each line. It is once in vain, and then not tried
again until something was taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Callable

PATIENCE_S = 0.1  # many times what a daemon needs that runs


class _Patience:
    """Gives whoever does not take something now a moment, as long as that helps."""

    def __init__(self) -> None:
        self._helps = True

    def put(self, put: Callable[[bytes], int], data: bytes, wait: Callable[[float], object]) -> int:
        """Call `put`, and once more after `wait` where it would have to wait.

        Raises:
            OSError: as `put` does.
        """
        try:
            done = put(data)
        except BlockingIOError:
            if not self._helps:
                raise
            self._helps = False
            wait(PATIENCE_S)
            done = put(data)
        self._helps = True
        return done


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
        self._patience = _Patience()
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
        return self._patience.put(self._put_now, data, self._wait)

    def _wait(self, seconds: float) -> bool:
        return _wait_writable(self._fd, seconds)

    def _put_now(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._asks:
            if not self._wait(0):
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
        self._patience = _Patience()

    def send(self, data: bytes) -> None:
        """Send a packet.

        Raises:
            OSError: nobody is there, or does not keep up (BlockingIOError).
        """
        self._patience.put(self._send_now, data, self._wait)

    def _send_now(self, data: bytes) -> int:
        return self._socket.sendto(data, self._path)

    def _wait(self, seconds: float) -> None:
        # Only a connected socket can be asked whether its peer has room.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            asking.connect(self._path)
            _wait_writable(asking.fileno(), seconds)

    def close(self) -> None:
        """Close our socket."""
        self._socket.close()


def _wait_writable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
