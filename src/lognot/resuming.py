"""What the last service has left of one log, and the way from there to the file that its path leads to now.

First comes what was being read, then what the log was rotated to meanwhile, in the order in which that was
written: `rotated` finds it. No content is read here: the monitor says whether a file begins with the bytes
that were read of it. Supervisor only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from lognot.errors import OpenRefusedError
from lognot.journal import ERROR, INFO, Event
from lognot.ledger import Position
from lognot.messages import Start
from lognot.opening import open_log, pass_by
from lognot.rotated import Entry, copies, leftovers, list_files, on_other_device
from lognot.state import NOWHERE, Identity, SavedStream
from lognot.streams import MAX_OPEN, Log, Stream, Streams, raise_passing

# Files of one log that it was rotated to meanwhile: ten days, one an hour. Not in one look, but until the
# file that the path leads to is open: whoever holds a lease on one of them can put that off for ever.
MAX_LEFTOVERS = 256


class Resumption:
    """What is left of a log, until the file that the path leads to was opened.

    Args:
        streams: where the files are opened.
        log: that goes on.
        saved: how far its files were read, each with its slot.
        last: the file that the path led to.

    Attributes:
        over: every file that is there was opened.
        history: bytes of an emptied file that were there before lognot started; 0: none was emptied.
    """

    def __init__(self, streams: Streams, log: Log, saved: Iterable[SavedStream], last: Identity) -> None:
        self.over = False
        self.history = 0
        self._streams = streams
        self._log = log
        # Those that are not open. Each keeps the slot of the ledger that is listed for it, also when it is
        # opened, so that it stands there at every instant.
        self._saved = {one.identity: one for one in saved}
        self._last = last
        # What a service has left that was still going on itself counts, too.
        self._found = max(0, len(self._saved) - MAX_OPEN)  # files that nobody had read, opened so far
        self._done: set[Identity] = set()  # need no further look
        self._late = False  # the path led to nothing at first, so what comes may be new
        self._emptied: Identity | None = None  # what the path leads to has other bytes than were read
        self._copies: list[Entry] | None = None  # of that, tried one by one; None: not looked for yet
        self._trial = 0  # the stream of the first of them, while the monitor has not told

    def positions(self) -> list[SavedStream]:
        """Give how far the files were read that are not open."""
        return list(self._saved.values())

    def position(self, identity: Identity) -> SavedStream:
        """Give how far a file was read: not at all, where it is none that was."""
        return self._saved.get(identity) or SavedStream(identity, Position(0))

    def was_there(self, identity: Identity) -> bool:
        """Say whether the log goes on with the file that its path leads to, as it was before the start."""
        return not self._late or identity in self._saved or self._last in self._settled()

    def _settled(self) -> set[Identity]:
        """Give the files that are open or need no further look."""
        return self._done | self._log.identities

    def advance(self, current: os.stat_result | None) -> bool:
        """Open the files that were being read and that the log was rotated to meanwhile.

        Args:
            current: what the path leads to, which the caller opens; None: it leads to nothing.

        Returns: whether that can be done now, or the monitor is to tell of a copy of it first.

        Raises:
            OSError: a limit of the system was met; what was done so far is not done again.
        """
        if self._emptied is not None and not self._seek_copy(self._saved[self._emptied]):
            return False
        identity = (current.st_dev, current.st_ino) if current else None
        entries = self._entries()
        self._done &= {self._last, *(entry.identity for entry in entries)}  # others cannot be found again
        if identity is not None:
            self._forget_trial(identity)
            self._follow_device({identity, *(entry.identity for entry in entries)})
        wanted = [*self._saved, *self._done, *self._log.identities]
        found = leftovers(entries, os.path.basename(self._log.path), wanted, self._last, identity)
        settled = self._settled()
        for entry in self._newest(found):
            if entry.identity not in settled:
                if entry.identity == self._emptied:
                    self._begin_anew(self._saved[entry.identity])
                self._open(entry)
        if identity is not None and identity == self._emptied:
            self._begin_anew(self._saved[identity])
        if current is None:
            if self._last == NOWHERE or self._last in self._settled():
                # It was rotated away, and nothing came after it yet.
                self._streams.leave(self._log, self._saved.pop(self._last, None))
                self.end()
            else:
                self._late = True  # what it is on may not be mounted yet
        return True

    def end(self) -> None:
        """Every file that is there was opened: those that are not will not come."""
        if self._last != NOWHERE and self._last not in self._settled():
            say_lost(self._log, "is gone, so what was written to it after that is not read")
        self.forget()

    def forget(self) -> None:
        """Go on with nothing that is not open."""
        for one in self._saved.values():
            self._streams.free(one.slot)
        self._saved.clear()
        self.over = True

    # Files that were opened.

    def opened(self, stream: Stream) -> None:
        """A file has a stream, with the slot that it had here."""
        self._saved.pop(stream.identity, None)

    def done(self, stream: Stream) -> None:
        """A file was read to its end. The next service looks for newer ones from it on."""
        self._done.add(stream.identity)
        self._shelve(stream)

    def _shelve(self, stream: Stream) -> None:
        self._saved[stream.identity] = self._streams.shelve(self._log, stream)

    def is_on_trial(self, stream: Stream) -> bool:
        """Say whether a file is tried as the copy of the one that was emptied."""
        return bool(self._copies) and self._trial == stream.stream_id

    def drained(self, stream: Stream) -> bool:
        """A file was read to its end for now; True when the log is to be looked at again."""
        if not (self._copies and self.is_on_trial(stream)):
            return False
        path = self._beside(self._copies[0])
        text = f"log '{self._log.path}' was emptied meanwhile, what stood there was read in '{path}'"
        self._log.say(Event.RESUMED, INFO, text)
        self._last, self._trial, self._copies = stream.identity, 0, []
        return True

    def refused(self, stream: Stream) -> bool:
        """The monitor has found other bytes in a file; True when the log is to be looked at again."""
        self._streams.close(self._log, stream)
        if self._copies and self.is_on_trial(stream):
            self._trial = 0
            self._copies.pop(0)
            return True
        self._done.add(stream.identity)
        say_lost(self._log, "is another one by now")
        return False

    def emptied(self, stream: Stream) -> None:
        """The monitor has found other bytes in the file that the path leads to."""
        self._emptied, self.history = stream.identity, stream.history
        self._shelve(stream)

    # Files that are not open yet.

    def _entries(self) -> list[Entry]:
        """List the files beside the log, none where its directory cannot be read.

        Raises:
            OSError: a limit of the system was met.
        """
        try:
            return list(list_files(os.path.dirname(self._log.path)))
        except OSError as error:
            raise_passing(error)
            return []

    def _beside(self, entry: Entry) -> str:
        return os.path.join(os.path.dirname(self._log.path), entry.name)

    def _follow_device(self, there: set[Identity]) -> None:
        """Look for files under the number that their device has now; their bytes will prove them."""
        for old, new in on_other_device(self._saved, there).items():
            one = self._saved[old]
            # That it has both numbers means that the last service was killed in the middle of this.
            if new not in self._saved and new not in self._settled():
                self._saved[new] = self._streams.reserve(self._log, replace(one, identity=new))
            del self._saved[old]
            self._streams.free(one.slot)
            if self._last == old:
                self._last = new
            if self._emptied == old:  # the monitor will tell again
                self._emptied, self._copies, self._trial = None, None, 0

    def _forget_trial(self, current: Identity) -> None:
        """Forget what the last service has tried as the copy of an emptied file and nobody has proved.

        Else what is newer than that would be read from its first byte.
        """
        emptied, trial = self._saved.get(current), self._saved.get(self._last)
        if self._emptied is not None or emptied is None or trial is None or emptied is trial:
            return
        if emptied.position.offset and _place(emptied) == _place(trial):
            del self._saved[self._last]
            self._streams.free(trial.slot)
            self._last = current

    def _newest(self, found: list[Entry]) -> list[Entry]:
        """Leave out the oldest files that nobody has read, where there are too many: others need room too."""
        known = self._saved.keys() | self._settled()
        unread = [entry.identity for entry in found if entry.identity not in known]
        room = max(0, MAX_LEFTOVERS - self._found)
        left_out = set(unread[: max(0, len(unread) - room)])
        if left_out:
            self._done |= left_out
            text = (
                f"log '{self._log.path}' was rotated to {len(unread)} files while lognot did not run, "
                f"of which the oldest {len(left_out)} are not read; expected at most {MAX_LEFTOVERS}"
            )
            self._log.say(Event.RESUME_LOST, ERROR, text)
        return [entry for entry in found if entry.identity not in left_out]

    def _open(self, entry: Entry) -> None:
        """Open a file to be read before the one that the path leads to.

        Raises:
            OSError: a limit of the system was met.
        """
        path, one = self._beside(entry), self.position(entry.identity)
        is_known = entry.identity in self._saved
        try:
            self._add(path, one)
            self._found += not is_known
        except (OpenRefusedError, OSError) as error:
            raise_passing(error)
            self._done.add(entry.identity)
            say_lost(self._log, f"cannot be read as '{path}': {error}")
            return
        begin = one.position.offset
        text = f"log '{self._log.path}' was rotated to '{path}' meanwhile, reading that from byte {begin}"
        self._log.say(Event.RESUMED, INFO, text)

    def _add(self, path: str, one: SavedStream) -> Stream:
        """Pass a file on that the log was rotated to; the monitor drops it when its bytes are others.

        Raises:
            OSError: it cannot be opened or watched.
            OpenRefusedError: it must not be opened, or is another file by now.
        """
        fd = open_log(path, pass_by)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != one.identity:
                raise OpenRefusedError("another file by now")
        except BaseException:
            os.close(fd)
            raise
        stream = self._streams.add(self._log, fd, status, Start.LEFTOVER, one, history=status.st_size)
        self.opened(stream)
        return stream

    def _seek_copy(self, emptied: SavedStream) -> bool:
        """Have the monitor look at what may be the copy of a file that was emptied, one after another.

        Returns: whether that has come to an end.

        Raises:
            OSError: a limit of the system was met, or too many files are open.
        """
        if self._trial:
            return False
        if self._copies is None:
            known = self._saved.keys() | self._log.identities
            least_bytes = emptied.position.offset
            self._copies = copies(self._entries(), os.path.basename(self._log.path), least_bytes, known)
        while self._copies:
            one = SavedStream(self._copies[0].identity, emptied.position)
            try:
                self._trial = self._add(self._beside(self._copies[0]), one).stream_id
                return False
            except (OpenRefusedError, OSError) as error:
                raise_passing(error)
                self._copies.pop(0)
        return True

    def _begin_anew(self, emptied: SavedStream) -> None:
        """Have a file that was emptied be read from its first byte, behind its copies."""
        first = replace(emptied, position=Position(0))
        self._saved[emptied.identity] = self._streams.reserve(self._log, first)
        self._streams.free(emptied.slot)
        self._emptied = None
        if self._last == emptied.identity:  # there is no copy
            read_bytes = emptied.position.offset
            text = (
                f"log '{self._log.path}' was emptied or replaced while lognot did not run, and no copy is "
                f"there: what was written to it before that, after byte {read_bytes}, is not read"
            )
            self._log.say(Event.RESUME_LOST, ERROR, text)


def _place(one: SavedStream) -> tuple[int, bool, bytes]:
    position = one.position
    return position.offset, position.skipping, position.digest


def say_lost(log: Log, what: str) -> None:
    """Say of the file that was read last why what came after that is not read."""
    text = f"log '{log.path}' was rotated while lognot did not run, and the file that was read {what}"
    log.say(Event.RESUME_LOST, ERROR, text)
