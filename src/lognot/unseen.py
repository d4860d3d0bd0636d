"""Files that were a log's and were rotated away before anybody looked: they are read too. Supervisor only.

The path leads to the next one by then. What was renamed tells where they are (renames.py); where that is not
complete, since the kernel's queue was full, their names and times tell (rotated.py).
"""

from __future__ import annotations

import os

from lognot.errors import OpenRefusedError
from lognot.journal import INFO, Event
from lognot.messages import Start
from lognot.moves import Moved
from lognot.opening import born, open_log, pass_by
from lognot.renames import Renames
from lognot.rotated import leftovers, list_files
from lognot.streams import Log, Streams, leads_to_current, raise_passing

MAX_AT_ONCE = 64  # files of one log: the other logs wait meanwhile
MAX_MISSES = 3  # that often there is nothing where a file was moved to
MAX_TRIES = 100  # to open a file that is moved on just then


class Unseen:
    """The files of all logs that nobody has looked at.

    Args:
        streams: where they are opened.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._renames = Renames()

    def follow(self, log: Log, directory: int, name: bytes) -> None:
        """Follow what leaves the log's name from now on, if it is this name in an open directory."""
        if name == os.fsencode(os.path.basename(log.path)):
            self._renames.follow(log.log_id, directory, name)

    def forget(self, log: Log) -> None:
        """A log is watched no more."""
        self._renames.forget(log.log_id)

    def give_way(self) -> bool:
        """Leave the watches to what cannot do without any; False when there are none."""
        return self._renames.give_way()

    def logs(self) -> set[int]:
        """Give the logs of which there still are such files, as far as is known: look at them again."""
        return self._renames.unsettled()

    def pass_over(self, log: Log) -> None:
        """What came and went until now is history, or is found in another way."""
        self._renames.read()
        for file in self._renames.moved(log.log_id):
            self._renames.settled(file)

    def open(self, log: Log) -> None:
        """Open what has left the log's name and was not seen there.

        Raises:
            OSError: a limit of the system was met; what was done so far is not done again.
        """
        self._renames.read()
        if self._renames.is_incomplete(log.log_id):
            for name in self._newer(log):
                fd = _open_beside(log, name)
                if fd >= 0:
                    self._add(log, fd, name)
            self._renames.complete(log.log_id)
        for file in self._renames.moved(log.log_id)[:MAX_AT_ONCE]:
            self._open_moved(log, file)

    def close(self) -> None:
        """Follow nothing any more."""
        self._renames.close()

    def _open_moved(self, log: Log, file: Moved) -> None:
        """Open a file that has left the log's name, wherever it is by now.

        Raises:
            OSError: a limit of the system was met.
        """
        for _ in range(MAX_TRIES):
            place = file.place
            if place is None:
                return
            name = os.fsdecode(place[1])
            fd = _open_beside(log, name)
            self._renames.read()
            if file.place == place:
                if fd >= 0:
                    self._add(log, fd, name)
                    self._renames.settled(file)
                    return
                break
            if fd >= 0:  # it went on, and another one has its name
                os.close(fd)
        # A file is moved before that is reported, so it may be there at the next look.
        file.misses += 1
        if file.misses == MAX_MISSES:
            self._renames.settled(file)

    def _add(self, log: Log, fd: int, name: str) -> None:
        """Have a file be read from its first byte, unless it was seen before; owns the descriptor.

        Raises:
            OSError: a limit of the system was met.
        """
        try:
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino)
            is_known = identity in log.identities or (identity, born(fd)) in log.remembered
        except BaseException:
            os.close(fd)
            raise
        if is_known:
            os.close(fd)
            return
        self._streams.add(log, fd, status, Start.BEGIN, None, history=0)
        text = f"log '{log.path}' was rotated twice before it was looked at, reading '{name}' too"
        log.say(Event.LOG_ROTATED, INFO, text)

    def _newer(self, log: Log) -> list[str]:
        """Give the files that came after the newest known one, as far as names and times tell.

        Raises:
            OSError: a limit of the system was met.
        """
        if not log.streams or leads_to_current(log):
            return []
        directory, base = os.path.split(log.path)
        newest = list(log.streams.values())[-1].identity
        try:
            found = leftovers(list_files(directory), base, list(log.identities), newest, None)
        except OSError as error:
            raise_passing(error)
            return []
        return [entry.name for entry in found if entry.identity not in log.identities][-MAX_AT_ONCE:]


def _open_beside(log: Log, name: str) -> int:
    """Open a file in the log's directory; -1: it is not there, or must not be opened.

    Raises:
        OSError: a limit of the system was met.
    """
    try:
        return open_log(os.path.join(os.path.dirname(log.path), name), pass_by)
    except (OpenRefusedError, OSError) as error:
        raise_passing(error)
        return -1
