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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
    with _links_named(path, reach):
        directory = _open_below(reach.place, reach.rest[:-1])
        try:
            # Not to wait at a FIFO; in a regular file it means nothing.
            quick = flags | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(reach.rest[-1], quick, mode, dir_fd=directory)
        finally:
            os.close(directory)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return fd
    os.close(fd)
    raise OSError(errno.EPERM, f"is not a regular file with one name, though {reach.wrong}", path)


def open_directory_of(path: str) -> int:
    """Open the directory in which a path's last name is, and give its descriptor (O_PATH) to the caller.

    As root, no link to the directory is followed in a place where others than root could have put it. What
    the last name is, is not looked at.

    Raises:
        OSError: it cannot be opened, or is refused; the reason says why.
    """
    directory = os.path.dirname(path)
    reach = reach_of(directory) if os.geteuid() == 0 else Reach(directory or ".")
    with _links_named(path, reach):
        return _open_below(reach.place, reach.rest)


def make_directory(path: str, mode: int) -> str:
    """Make a directory where there is none, and those on the way to it; give what `refusal` says of it.

    As root, nothing is made where others than root decide what is there.

    Raises:
        OSError: it cannot be made.
    """
    if os.geteuid() != 0:
        os.makedirs(path, mode, exist_ok=True)
        return ""
    path = os.path.join(os.getcwd(), path).rstrip("/") or "/"
    if not os.path.lexists(path):
        above = os.path.dirname(path)
        wrong = "" if os.path.lexists(above) else make_directory(above, 0o777)
        reach = reach_of(path)
        # What is not there yet in a sticky directory of root's can be made, and is root's then.
        if wrong or (reach.wrong and not (len(reach.rest) == 1 and _is_roots_sticky(os.lstat(reach.place)))):
            return wrong or reach.wrong
        os.mkdir(path, mode)
    return refusal(path)


@contextmanager
def _links_named(path: str, reach: Reach) -> Iterator[None]:
    """Say of a link that is not followed that it is why a path cannot be opened."""
    try:
        yield
    except OSError as error:
        if not reach.wrong or error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OSError(error.errno, f"leads over a symbolic link, though {reach.wrong}", path) from error


def _open_below(place: str, names: Iterable[str]) -> int:
    """Open a directory, the names below it followed one by one and over no link."""
    directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in names:
        try:
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, step, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory


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
        if wrong and not _is_roots_sticky(directory):
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


def _is_roots_sticky(directory: os.stat_result) -> bool:
    """Say whether nobody but root can rename or remove what is root's in a directory."""
    return directory.st_uid == 0 and bool(directory.st_mode & stat.S_ISVTX)


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
