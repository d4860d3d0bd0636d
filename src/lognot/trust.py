"""How far a path is decided by root alone: for what root takes orders from, and for what it writes to.

The path is walked by name, one component at a time. In a directory that only root can write to, nobody else
can replace what was looked at; so a name that was found there means the same when it is used, and each step
rests on the one before. In root's sticky directories, such as /tmp, that holds for what is root's own. The
walk ends where somebody else decides.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

MAX_SYMLINKS = 40  # as the kernel (path_resolution(7))

_OTHERS = stat.S_IWGRP | stat.S_IWOTH  # the group bit also tells of POSIX ACLs: it is their mask (acl(5))


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a path could be followed: `place`, without links, and the names left to look up below it."""

    place: str
    rest: tuple[str, ...] = ()  # empty: all of it; the last name alone may not exist yet
    wrong: str = ""  # why others than root decide what the first of `rest` is
    is_descriptor: bool = False  # it is one of this process, such as /dev/stdin


def refusal(path: str) -> str:
    """Say why root must not take orders from a file or directory; "" where it may, and for everybody else.

    A descriptor that we were started with (/dev/stdin, /dev/fd/3) is the choice of who has started us.

    Raises:
        OSError: a part of the path does not exist or cannot be looked at.
        ValueError: there is a NUL in it.
    """
    if os.geteuid() != 0:
        return ""
    os.stat(path)  # what is not there is not refused
    reach = reach_of(path)
    if reach.wrong or reach.is_descriptor:
        return reach.wrong
    return _wrong(reach.place, os.lstat(reach.place))


def open_to_append(path: str, mode: int) -> int:
    """Open a file to append to, made with `mode` where there is none, and give its descriptor to the caller.

    As root, no link is followed and no other name of a file taken in a place where others than root could
    have put it: they would choose what we write to.

    Raises:
        OSError: it cannot be opened, or is refused; the reason says why.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    reach = reach_of(path) if os.geteuid() == 0 else Reach(path)
    if not reach.wrong:
        return os.open(path, flags, mode)
    try:
        fd = _open_below(reach, flags, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OSError(error.errno, f"leads over a symbolic link, though {reach.wrong}", path) from error
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return fd
    os.close(fd)
    raise OSError(errno.EPERM, f"is not a regular file with one name, though {reach.wrong}", path)


def _open_below(reach: Reach, flags: int, mode: int) -> int:
    directory = os.open(reach.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in reach.rest[:-1]:
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, step, dir_fd=directory)
            os.close(directory)
            directory = below
        # Not to wait at a FIFO; in a regular file it means nothing.
        return os.open(reach.rest[-1], flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode, dir_fd=directory)
    finally:
        os.close(directory)


def reach_of(path: str) -> Reach:
    """Follow a path as far as root alone decides where it leads.

    Raises:
        OSError: a part of the path, other than its last name, does not exist or cannot be looked at.
        ValueError: there is a NUL in it.
    """
    descriptors = f"/proc/{os.getpid()}/fd"
    absolute = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    place, names, links = "/", _names(absolute), 0
    while names:
        if place == descriptors:
            return Reach(path, is_descriptor=True)
        directory = os.lstat(place)
        wrong = _wrong(place, directory)
        if wrong and not (directory.st_uid == 0 and directory.st_mode & stat.S_ISVTX):
            return Reach(place, tuple(reversed(names)), wrong)
        name = names.pop()
        if name == "..":
            place = os.path.dirname(place)
            continue
        entry_place = os.path.join(place, name)
        try:
            entry = os.lstat(entry_place)
        except FileNotFoundError:
            if names:
                raise
            return Reach(place, (name,), wrong)
        is_directory = stat.S_ISDIR(entry.st_mode)
        if wrong and (entry.st_uid != 0 or (entry.st_nlink > 1 and not is_directory)):
            return Reach(place, (name, *reversed(names)), _wrong(entry_place, entry) or _linked(entry_place))
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(entry_place)
            names += _names(target)
            if target.startswith("/"):
                place = "/"
        elif names and not is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        else:
            place = entry_place
    return Reach(place)


def _names(path: str) -> list[str]:
    """The components of a path, last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _wrong(path: str, status: os.stat_result) -> str:
    """Say what lets others than root change a file or a directory; "" when nothing does."""
    found, remedies = [], []
    if status.st_uid != 0:
        found.append(f"belongs to user {status.st_uid}")
        remedies.append("chown root")
    # A link has no mode, and what is written to a device is not what is read from it.
    if status.st_mode & _OTHERS and not (stat.S_ISLNK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        found.append(f"can be written by {'others' if status.st_mode & stat.S_IWOTH else 'its group'}")
        remedies.append("chmod go-w")
    if not found:
        return ""
    return f"'{path}' {' and '.join(found)}; expected that only root can change it ({', '.join(remedies)})"


def _linked(path: str) -> str:
    return f"'{path}' has several hard links, and others than root may have put it there; expected one"
