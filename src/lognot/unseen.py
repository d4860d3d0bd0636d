"""Files that were a log's and were rotated away before anybody looked: they are read too. Supervisor only.

The path leads to the next one by then. What was renamed tells where they are (renames.py); where that is not
complete, since the kernel's queue was full, their names and times tell (rotated.py).
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

from lognot.errors import OpenRefusedError
from lognot.journal import ERROR, INFO, Event
from lognot.messages import Start
from lognot.moves import MAX_FILES, Moved
from lognot.opening import born, open_log, pass_by
from lognot.renames import Renames
from lognot.rotated import leftovers, list_files
from lognot.shown import counted
from lognot.state import SavedStream
from lognot.streams import Log, Streams, leads_to_current, newest, raise_passing, too_many_open

MAX_AT_ONCE = 32  # files of one log are open, then the next ones wait: what its path leads to needs room, too
MAX_LISTED = 4096  # files of a directory, for the same reason
MAX_MISSES = 3  # that often there is nothing where a file was moved to
MAX_TRIES = 100  # to open files that are moved on just then, in one look


class Unseen:
    """The files of all logs that nobody has looked at.

    Args:
        streams: where they are opened.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._renames = Renames()

    def follow(self, log: Log, directory: int, name: bytes) -> None:
        """Follow what leaves the log's name from now on, if it is this name in an open directory.

        What is renamed where a symbolic link leads to is not followed: the rule whose file that may be
        (opening.py) is for the whole path.
        """
        parent, base = os.path.split(log.path)
        with suppress(OSError):  # it is not there any more
            if name == os.fsencode(base) and os.path.samestat(os.fstat(directory), os.stat(parent)):
                self._renames.follow(log.log_id, directory, name)

    def forget(self, log: Log) -> None:
        """A log is watched no more."""
        self._renames.forget(log.log_id)

    def give_way(self) -> bool:
        """Leave the watches to what cannot do without any; False when there are none."""
        return self._renames.give_way()

    def try_again(self) -> None:
        """There may be watches again."""
        self._renames.try_again()

    def logs(self) -> set[int]:
        """Give the logs of which there still are such files, as far as is known: look at them again."""
        return self._renames.unsettled()

    def pass_over(self, log: Log) -> None:
        """What came and went until now is history, or is found in another way."""
        self._renames.read()
        self._renames.settle_all(log.log_id)

    def open(self, log: Log) -> None:
        """Open what has left the log's name and was not seen there.

        Raises:
            OSError: a limit of the system was met; what was done so far is not done again.
        """
        self._renames.read()
        given_up = self._renames.take_given_up(log.log_id)
        if given_up:
            _say_given_up(log, f"more than {MAX_FILES} times", given_up)
        room = max(0, MAX_AT_ONCE - log.seen)
        moved = self._renames.moved(log.log_id)
        if len(moved) > room:  # those that wait could be let go before it is their turn, and be read twice
            self._settle_open(log, moved)
            moved = self._renames.moved(log.log_id)
        for file in moved:
            file.stream_id = file.stream_id or self._streams.number()
        tries = MAX_TRIES
        for file in moved[:room]:
            tries = self._open_moved(log, file, tries)
        if self._renames.is_incomplete(log.log_id) and len(moved) <= room:
            if log.seen > MAX_AT_ONCE:  # what is found by names is opened all at once, or not found again
                raise too_many_open(MAX_AT_ONCE)
            self._open_newer(log)
            self._renames.complete(log.log_id)

    def _settle_open(self, log: Log, moved: list[Moved]) -> None:
        """Look no further for those files that are open, asked by name."""
        directory, identities = os.path.dirname(log.path), log.identities
        found = []
        for file in moved:
            with suppress(OSError):
                status = os.lstat(os.path.join(directory, os.fsdecode(file.place[1]))) if file.place else None
                if status and (status.st_dev, status.st_ino) in identities:
                    found.append((file, file.place))
        self._renames.read()
        for file, place in found:
            if file.place == place:
                self._renames.settle(file)

    def _open_moved(self, log: Log, file: Moved, tries: int) -> int:
        """Open a file that has left the log's name, wherever it is by now; give the tries that are left.

        Raises:
            OSError: a limit of the system was met.
        """
        while file.place is not None and tries:
            place, name, fd = file.place, os.fsdecode(file.place[1]), -1
            try:
                fd = _open_beside(log, name)
            except FileNotFoundError:
                pass
            except OpenRefusedError:
                self._renames.settle(file)
                return tries
            self._renames.read()
            if file.place == place:
                if fd >= 0:
                    self._add(log, fd, name, file.stream_id)
                    self._renames.settle(file)
                else:  # a file is moved before that is reported, so it may be there at the next look
                    file.misses += 1
                    if file.misses == MAX_MISSES:
                        self._renames.settle(file)
                return tries
            tries -= 1
            if fd >= 0:  # it went on, and another one has its name
                os.close(fd)
        return tries

    def _open_newer(self, log: Log) -> None:
        """Open the files that came after the newest known one, as far as names and times tell.

        Raises:
            OSError: a limit of the system was met.
        """
        last = newest(log)
        if last is None or leads_to_current(log):
            return
        directory, base = os.path.split(log.path)
        try:
            entries = list(islice(list_files(directory), MAX_LISTED))
        except OSError as error:
            raise_passing(error)
            return
        found = leftovers(entries, base, list(log.identities), last.identity, None)
        names = [entry.name for entry in found if entry.identity not in log.identities]
        if len(names) > MAX_AT_ONCE:
            _say_given_up(log, f"{len(names)} times", len(names) - MAX_AT_ONCE)
        for name in names[-MAX_AT_ONCE:]:
            try:
                fd = _open_beside(log, name)
            except (FileNotFoundError, OpenRefusedError):
                continue
            self._add(log, fd, name)

    def _add(self, log: Log, fd: int, name: str, stream_id: int = 0) -> None:
        """Have a file be read that is not open, from where it was left or its first byte; owns `fd`.

        Raises:
            OSError: a limit of the system was met.
        """
        try:
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino)
            known = log.remembered.pop((identity, born(fd)), None)
        except BaseException:
            os.close(fd)
            raise
        if identity in log.identities:
            os.close(fd)
            return
        start = Start.COMMITTED if known else Start.BEGIN
        one = SavedStream(identity, known) if known else None
        self._streams.add(log, fd, status, start, one, history=0, stream_id=stream_id)
        if known is None:
            text = f"log '{log.path}' was rotated twice before it was looked at, reading '{name}' too"
            log.say(Event.LOG_ROTATED, INFO, text)


def _open_beside(log: Log, name: str) -> int:
    """Open a file in the log's directory.

    Raises:
        FileNotFoundError: it is not there.
        OpenRefusedError: it must not be opened, or cannot be.
        OSError: a limit of the system was met.
    """
    try:
        return open_log(os.path.join(os.path.dirname(log.path), name), pass_by)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise_passing(error)
        raise OpenRefusedError(str(error)) from error


def _say_given_up(log: Log, rotated: str, number: int) -> None:
    files = f"{counted(number, 'file')} {'is' if number == 1 else 'are'} not read"
    text = f"log '{log.path}' was rotated {rotated} before it was looked at: {files}"
    log.say(Event.LOG_UNREADABLE, ERROR, text)
