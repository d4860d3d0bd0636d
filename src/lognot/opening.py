"""Open what the config names, as root, without being led to another file. Supervisor only.

The path is walked by hand, one component at a time, each opened with O_PATH and O_NOFOLLOW beneath the
directory before it (openat(2), path_resolution(7)): what is looked at is what is used, whatever is renamed
meanwhile. The file itself is opened through /proc/self/fd, so that it is the very inode that was checked,
and only when it is a regular file: opening a FIFO would block, opening a device can act.

In a directory that somebody but root can write to, that somebody chooses what a name leads to. There
    a symbolic link is followed only when the file at its end belongs to the link's owner, who could read
        it anyway (root's links count in root's sticky directories such as /tmp, where only root can replace
        them);
    a file with several hard links is refused, unless its owner is not root and alone may write there. The
        link that led to it must still be there after they were counted: else it may be one that was
        removed just before.

A file system in memory that the kernel makes up, such as /proc, is no place for a log: it tells of no
change, what a file there says depends on who reads it, and its owner can change between check and open
(proc(5)). On FUSE, whoever mounted it says whose a symbolic link is, so none is followed there.

Started without root there is nothing to gain by a trick, and only the kind of file is looked at.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress

from lognot.errors import OpenRefusedError
from lognot.messages import MAX_WATCHES

MAX_SYMLINKS = 40  # as the kernel (path_resolution(7))
MAX_NAME_BYTES = 255  # NAME_MAX; a link's target can hold longer names, which no directory has
MAX_LOOKUPS = 100  # of a name that is moved just when it was looked up; a rotation does that once

# statfs(2), linux/magic.h: what the kernel makes up as it is read.
_MADE_UP = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x62656570: "configfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
}
_FUSE = 0x65735546
_STATFS_BYTES = 256  # struct statfs is 120 on 64-bit machines
# The first field of struct statfs is as wide as a word, but on s390x.
_f_type = ctypes.c_uint if os.uname().machine == "s390x" else ctypes.c_ulong
_libc = ctypes.CDLL(None, use_errno=True)
# statx(2); stx_mask is the first field of struct statx, and stx_btime stands at byte 80.
_STATX_BTIME, _AT_EMPTY_PATH, _STATX_BYTES = 0x800, 0x1000, 256
_OVERLAYFS = 0x794C7630  # statfs(2)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_char_p)
_libc.fstatfs.restype = ctypes.c_int

Visit = Callable[[int, bytes], None]


def open_log(path: str, visit: Visit) -> int:
    """Open a log for reading and give its descriptor, which the caller owns.

    Args:
        path: absolute.
        visit: called with each directory on the way (an O_PATH descriptor, ours to close) and the name that
            is looked up in it next, before it is looked up: a watch set there misses no change.

    Raises:
        OpenRefusedError: the file is not regular, or another user may have led us to it.
        OSError: a part of the path does not exist yet or cannot be opened.
    """
    walk = _Walk(path, visit)
    try:
        return walk.run()
    finally:
        walk.close()


def pass_by(directory: int, name: bytes) -> None:
    """A `visit` that does nothing: the directories on the way to a rotated file need no watch."""


class _Walk:
    """One walk down a path; holds the descriptor of the directory that it stands in."""

    def __init__(self, path: str, visit: Visit) -> None:
        self._path = path
        self._visit = visit
        self._names = _names(os.fsencode(path))
        self._directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._links = 0
        self._visits = 0
        self._lookups = 0
        self._owner_wanted: int | None = None  # a link that was followed on this condition

    def close(self) -> None:
        os.close(self._directory)

    def run(self) -> int:
        while self._names:
            name = self._names.pop()
            if len(name) > MAX_NAME_BYTES:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), self._path)
            self._visits += 1
            if self._visits > MAX_WATCHES:  # whoever owns a link on the way can make it wind
                raise OpenRefusedError(f"leads through too many directories; expected at most {MAX_WATCHES}")
            self._visit(self._directory, name)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            try:
                status = os.fstat(fd)
                if stat.S_ISLNK(status.st_mode):
                    self._follow(fd, status)
                elif stat.S_ISDIR(status.st_mode):
                    if not self._names:
                        raise OpenRefusedError("is a directory; expected a regular file")
                    self._directory, fd = fd, self._directory
                elif self._names:
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", os.fsdecode(name))
                elif not self._check(fd, name, status):
                    self._names.append(name)
                else:
                    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                    return os.open(f"/proc/self/fd/{fd}", flags)
            finally:
                os.close(fd)
        raise OpenRefusedError("is a directory; expected a regular file")

    def _follow(self, fd: int, status: os.stat_result) -> None:
        if os.geteuid() == 0 and _file_system(fd) == _FUSE:
            raise OpenRefusedError(
                "leads over a symbolic link on a FUSE file system, whose owner cannot be known; refused"
            )
        self._links += 1
        if self._links > MAX_SYMLINKS:
            raise OSError(errno.ELOOP, "too many symbolic links", self._path)
        directory = os.fstat(self._directory)
        only_root_replaces_it = (
            directory.st_mode & stat.S_ISVTX
            and directory.st_uid == 0
            and _trusted(status.st_uid)
            and status.st_nlink == 1  # else it may stand elsewhere, and somebody has put it here
        )
        if _others_can_write(directory) and not only_root_replaces_it:
            if _trusted(status.st_uid) or self._owner_wanted not in (None, status.st_uid):
                raise OpenRefusedError(
                    "leads over a symbolic link in a directory that others can write to; "
                    "expected a directory that only root can write to, or a file of the link's owner"
                )
            self._owner_wanted = status.st_uid
        target = os.readlink(b"", dir_fd=fd)
        if target.startswith(b"/"):
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            os.close(self._directory)
            self._directory = root
        self._names.extend(_names(target))

    def _check(self, fd: int, name: bytes, status: os.stat_result) -> bool:
        """Say whether this is the file; False when its name means another one by now.

        Raises:
            OpenRefusedError: it must not be opened.
        """
        if not stat.S_ISREG(status.st_mode):
            raise OpenRefusedError(f"is {_kind(status.st_mode)}; expected a regular file")
        made_up = _MADE_UP.get(_file_system(fd))
        if made_up:
            raise OpenRefusedError(f"is on a file system of type {made_up}, which holds no logs; refused")
        if self._owner_wanted not in (None, status.st_uid):
            raise OpenRefusedError(
                "leads over another user's symbolic link to a file that is not this user's; refused"
            )
        directory = os.fstat(self._directory)
        alone = status.st_uid == directory.st_uid and not directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not _others_can_write(directory) or (alone and not _trusted(status.st_uid)):
            return True
        if status.st_nlink > 1:
            raise OpenRefusedError(
                "has several hard links in a directory that others can write to; expected one, "
                "since any of them could be a link to another file"
            )
        if self._is_there(fd, name):
            return True
        self._lookups += 1
        if self._lookups == MAX_LOOKUPS:
            raise OpenRefusedError("is replaced again and again in a directory that others can write to")
        return False

    def _is_there(self, fd: int, name: bytes) -> bool:
        """Say whether the link that we have opened is still where it was.

        An O_PATH descriptor holds the link, not only its inode: once that was removed, it never comes back,
        and proc(5) shows the path with " (deleted)" behind it. A removal counts the link off first and takes
        the name away then, all with the directory locked: to list it is to wait for the end of that.
        """
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            with os.scandir(listed) as entries:
                next(entries, None)
        finally:
            os.close(listed)
        parent = os.readlink(f"/proc/self/fd/{self._directory}".encode())
        return os.readlink(f"/proc/self/fd/{fd}".encode()) == parent.rstrip(b"/") + b"/" + name


def _file_system(fd: int) -> int:
    """The type of file system that a descriptor is on, as a number of statfs(2)."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(fd, answer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return _f_type.from_buffer(answer).value


def _names(path: bytes) -> list[bytes]:
    """The components of a path, last one first."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _others_can_write(directory: os.stat_result) -> bool:
    # The group bit also tells of POSIX ACLs: it is their mask (acl(5)).
    if os.geteuid() != 0:
        return False
    return directory.st_uid != 0 or bool(directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def born(fd: int) -> bytes:
    """Give when an inode was made, as bytes to compare; b"" where the file system does not say.

    The number of an inode is given out again at once; this tells the new one from the old one (statx(2)).
    """
    with suppress(OSError):
        if _file_system(fd) == _OVERLAYFS:  # a file there is made anew when it is first written to
            return b""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, answer) < 0:
        return b""
    mask = int.from_bytes(answer.raw[:4], sys.byteorder)
    return answer.raw[80:92] if mask & _STATX_BTIME else b""


def has_writer(fd: int) -> bool | None:
    """Say whether a process has the file open for writing; None when the kernel does not tell.

    A read lease is only given on a file that nobody has open for writing (fcntl(2), F_SETLEASE), and only
    to its owner or with CAP_LEASE. It is given back at once.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # EACCES: not ours, no CAP_LEASE; EINVAL: the file system knows no leases
        return None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
