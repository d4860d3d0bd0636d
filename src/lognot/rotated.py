"""Which files of a directory a log was rotated to while lognot did not run. Supervisor only.

The file that was read last is found by its identity, whatever its name is now. Where the log was rotated more
than once, there are files in between that were never seen. Their names tell: `log.3` was read last, so
`log.2` and `log.1`, which were changed later, are of the same log; so is `log-20261124` after
`log-20261123`.

A log that was emptied instead (logrotate's copytruncate) keeps its identity, and its copy has another one.
What may be the copy is told by name and size; the bytes, which only the monitor reads, prove it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

MAX_ENTRIES = 65_536  # of a directory that are looked at: whoever owns it could go on for ever
MAX_COPIES = 16  # of a log that are tried
# What a copy is called behind the log's name. The monitor gets it before anybody knows whether it is one.
_COPY = re.compile("[._-]([0-9]+([._T:-][0-9]+)*|bak|old|prev)")

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in a directory."""

    name: str
    identity: Identity
    modified_ns: int
    size: int  # bytes


def list_files(directory: str) -> Iterator[Entry]:
    """Give the regular files of a directory, not following links; those that go meanwhile are left out.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number >= MAX_ENTRIES:
                return
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield Entry(entry.name, (status.st_dev, status.st_ino), status.st_mtime_ns, status.st_size)


def leftovers(
    entries: Iterable[Entry],
    base: str,
    wanted: Collection[Identity],
    last: Identity,
    current: Identity | None,
) -> list[Entry]:
    """Give the files to read before the one that the path leads to now, oldest first.

    Args:
        entries: of the directory.
        base: the log's name in it.
        wanted: the files that were being read.
        last: the one of them that the path led to.
        current: what it leads to now.
    """
    others = [entry for entry in entries if entry.identity != current]
    order = dict.fromkeys(wanted)  # whoever owns the directory decides how many there are of both
    found = {entry.identity: entry for entry in others if entry.identity in order}
    between: list[Entry] = []
    newest = found.get(last)
    if newest is not None and newest.name.startswith(base) and newest.name != base:
        form = _form(newest.name.removeprefix(base))
        between = [
            entry
            for entry in others
            if entry.identity not in order
            and entry.name != base
            and entry.name.startswith(base)
            and _form(entry.name.removeprefix(base)) == form
            and entry.modified_ns >= newest.modified_ns
        ]
    known = [found[identity] for identity in order if identity in found]
    return known + sorted(between, key=lambda entry: entry.modified_ns)


def copies(entries: Iterable[Entry], base: str, least_bytes: int, known: Collection[Identity]) -> list[Entry]:
    """Give the files that a log may have been copied to before it was emptied, newest first.

    Args:
        entries: of the directory.
        base: the log's name in it.
        least_bytes: how far it was read.
        known: files that are none.
    """
    found = [
        entry
        for entry in entries
        if entry.identity not in known
        and entry.size >= least_bytes
        and entry.name.startswith(base)
        and _COPY.fullmatch(entry.name.removeprefix(base))
    ]
    return sorted(found, key=lambda entry: entry.modified_ns, reverse=True)[:MAX_COPIES]


def on_other_device(wanted: Collection[Identity], there: Collection[Identity]) -> dict[Identity, Identity]:
    """Give which of the files that are there may be the ones wanted, by what these are known as.

    A device has another number after a reboot, where numbers are given out in the order in which devices or
    file systems without one are found; the inode stays. Only where no file is left on the old device.
    """
    devices = {device for device, _ in there}
    by_inode = {inode: (device, inode) for device, inode in there}
    gone = [identity for identity in wanted if identity[0] not in devices]
    return {identity: by_inode[identity[1]] for identity in gone if identity[1] in by_inode}


def _form(name: str) -> str:
    """A name with its numbers and dates made equal."""
    return re.sub("[0-9]+", "0", name)
