"""inotify(7): watches are added by the supervisor, events are read by the monitor.

inotify_add_watch(2) checks the caller's right to read the file, so only the supervisor can watch a log
that is root's alone. Reading events needs nothing but the descriptor, which the monitor is given.

A watch is put on an open descriptor (through /proc/self/fd), never on a path: what was checked is what is
watched, whatever happens to the name meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import struct
import sys
import types
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_libraries = types.ModuleType("ctypes.util")
_libraries.find_library = lambda name: "libc.so.6"  # type: ignore[attr-defined]
# pyinotify asks ctypes.util where the C library is, which runs ldconfig, and gcc where that fails: no work
# for a root process. It is the one that we run on. This spares its imports too (shutil, bz2, lzma: 1 MB).
_found = sys.modules.setdefault("ctypes.util", _libraries)
ctypes.util = _found  # type: ignore[attr-defined]

import pyinotify  # noqa: E402

FILE_MASK: int = pyinotify.IN_MODIFY | pyinotify.IN_ATTRIB | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVE_SELF
# Everything that can change what a name in the directory leads to, or whether we may follow it.
DIRECTORY_MASK: int = (
    pyinotify.IN_CREATE
    | pyinotify.IN_MOVED_TO
    | pyinotify.IN_MOVED_FROM
    | pyinotify.IN_DELETE
    | pyinotify.IN_ATTRIB
    | pyinotify.IN_DELETE_SELF
    | pyinotify.IN_MOVE_SELF
    | pyinotify.IN_ONLYDIR
)
# What tells where a file of a log is moved to.
RENAME_MASK: int = (
    pyinotify.IN_MOVED_FROM | pyinotify.IN_MOVED_TO | pyinotify.IN_DELETE | pyinotify.IN_ONLYDIR
)
ATTRIBUTES: int = pyinotify.IN_ATTRIB
CLOSED: int = pyinotify.IN_CLOSE_WRITE
MOVED_FROM: int = pyinotify.IN_MOVED_FROM
MOVED_TO: int = pyinotify.IN_MOVED_TO
DELETED: int = pyinotify.IN_DELETE
IGNORED: int = pyinotify.IN_IGNORED
OVERFLOWED: int = pyinotify.IN_Q_OVERFLOW

READ_BYTES = 64 * 1024  # at most some 2,000 events in one read; the next turn of the loop takes the rest
_HEADER = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, length of the name
_LONGEST_EVENT = _HEADER.size + 256  # bytes; a name of NAME_MAX and its NUL


class Event(NamedTuple):
    """One event: the watch descriptor, what happened, and to which name of the directory (b"": to itself).

    The two events of a rename have the same cookie.
    """

    wd: int
    mask: int
    name: bytes
    cookie: int = 0


class WatchLimitError(OSError):
    """The user's limit of watches or inotify instances is reached; the text says which sysctl."""


class Watches:
    """One inotify instance and the watches on it, counted by their users. Supervisor only.

    The kernel gives one watch descriptor for each inode, so two logs in one directory share it.

    Raises:
        WatchLimitError: no further inotify instance may be made.
        OSError: no further file may be opened (inotify_init(2)).
    """

    def __init__(self) -> None:
        # pyinotify would print what it also raises.
        pyinotify.log.setLevel(logging.CRITICAL + 1)
        try:
            self._manager = pyinotify.WatchManager()
        except OSError as error:
            raise _instance_error(str(error)) from error
        fd = self._manager.get_fd()
        os.set_inheritable(fd, False)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        self._users: Counter[int] = Counter()

    def fileno(self) -> int:
        """The inotify descriptor, to be passed to the monitor."""
        fd: int = self._manager.get_fd()
        return fd

    def add(self, fd: int, mask: int) -> int:
        """Watch the inode behind an open descriptor; give the watch descriptor, counted once more.

        Raises:
            WatchLimitError: the user's limit of watches is reached.
            OSError: the inode cannot be watched (inotify_add_watch(2)).
        """
        path = f"/proc/self/fd/{fd}"
        try:
            wd: int = self._manager.add_watch(path, mask, quiet=False)[path]
        except pyinotify.WatchManagerError as error:
            raise _watch_error(str(error)) from error
        self._users[wd] += 1
        return wd

    def release(self, wd: int) -> None:
        """Undo one `add`; the last one ends the watch. One that the kernel has ended already is fine."""
        self._users[wd] -= 1
        if self._users[wd] <= 0:
            del self._users[wd]
            self._manager.rm_watch(wd, quiet=True)
            # pyinotify keeps what the kernel has ended before us.
            self._manager.watches.pop(wd, None)

    def close(self) -> None:
        """Close the instance; every watch ends with it."""
        self._manager.close()


def _errno_in(text: str) -> int:
    # pyinotify only tells the errno within its message: "... Errno=No space left on device (ENOSPC)".
    number: int = getattr(errno, text.rpartition("(")[2].rstrip(")"), errno.EIO)
    return number


def _instance_error(text: str) -> OSError:
    number = _errno_in(text)
    if number == errno.EMFILE:
        # Of the two limits that this can be (inotify_init(2)), one would let no other file be opened either.
        try:
            os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
        except OSError as error:
            return error
        return _limit_error(number, "max_user_instances")
    return OSError(number, os.strerror(number))


def _watch_error(text: str) -> OSError:
    number = _errno_in(text)
    if number == errno.ENOSPC:
        return _limit_error(number, "max_user_watches")
    return OSError(number, os.strerror(number))


def _limit_error(number: int, sysctl: str) -> WatchLimitError:
    return WatchLimitError(number, f"inotify limit reached, raise the sysctl fs.inotify.{sysctl}")


def read_events(fd: int) -> tuple[list[Event], bool]:
    """Read events that wait on an inotify descriptor.

    Returns: the events, and whether there may be more of them.

    Raises:
        OSError: the descriptor cannot be read (inotify(7)).
    """
    try:
        data = os.read(fd, READ_BYTES)
    except BlockingIOError:
        return [], False
    return list(parse_events(data)), len(data) > READ_BYTES - _LONGEST_EVENT


def parse_events(data: bytes) -> Iterator[Event]:
    """Take apart what read(2) gives for an inotify descriptor."""
    at = 0
    while at + _HEADER.size <= len(data):
        wd, mask, cookie, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        yield Event(wd, mask, data[at : at + length].rstrip(b"\0"), cookie)
        at += length
