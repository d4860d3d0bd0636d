"""Every log that the config names, and every open file behind it. Supervisor only.

A log is a path; a stream is one file that was found there. After a rotation a log has several streams: the
current one, and older ones whose writers have not moved yet. Each keeps its descriptor here until the
monitor is done with it, so that a new monitor can be given what the last one had.

No content is read here. The monitor says "look again at log 3", and this module looks.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from lognot import watch
from lognot.errors import LIMITS, OpenRefusedError, reason_of
from lognot.journal import ERROR, INFO, WARNING, Event, Journal
from lognot.ledger import MAX_OFFSET, MAX_STREAMS, NOT_BEGUN, Ledger, Position
from lognot.messages import MAX_WATCHES, LogLooked, LogOpened, Message, Start, StreamUnwritten, UseWatches
from lognot.opening import has_writer, open_log
from lognot.quota import Quota, QuotaJournal
from lognot.roll import Listed, Roll, log_digest
from lognot.rotated import Entry, copies, leftovers, list_files, on_other_device
from lognot.state import Identity, SavedStream

MAX_ROTATED = 8  # older files of one log that are kept while somebody may still write to them
MAX_LEFTOVERS = 256  # files of one log that it was rotated to meanwhile: ten days, one an hour
MAX_REMEMBERED = 16  # files of one log that were left and may come back, such as targets of a symlink

# What a log may make us write of its coming and going: some 800 records at once, and then 4 a second.
LOG_BURST_BYTES = 256 * 1024
LOG_BYTES_PER_S = 1024

# EAGAIN: somebody holds a lease on the file and was now asked to give it up (fcntl(2), F_SETLEASE).
_PASSING = (*LIMITS, errno.EAGAIN)

Send = Callable[[Message, int], None]


@dataclass(slots=True)
class Stream:
    """One open file."""

    stream_id: int
    fd: int
    identity: Identity
    slot: int
    start: Start
    size: int  # bytes when it was opened
    history: int = 0  # bytes of it that were there before lognot started, where the log goes on
    generation: int = 0  # truncations before it was opened
    accepted: bool = False  # LEFTOVER: the monitor has found the bytes that it should have
    wd: int = 0


@dataclass(slots=True)
class Resumption:
    """What the last service has left of a log, until the file that the path leads to was opened.

    Attributes:
        saved: how far the files were read that are not open. Each keeps the slot of the ledger that is listed
            for it, also when it is opened, so that it stands there at every instant.
        last: the file that the path led to.
        done: files that need no further look.
        late: the path led to nothing at first, so what comes may be new.
        emptied: the file that the path leads to, which has other bytes than those that were read.
        copies: of that one, which are tried one by one; None: not looked for yet.
        trial: the stream of the first of them, while the monitor has not told.
        history: bytes of the emptied file that were there before lognot started.
    """

    saved: dict[Identity, SavedStream]
    last: Identity
    done: set[Identity] = field(default_factory=set)
    late: bool = False
    emptied: Identity | None = None
    copies: list[Entry] | None = None
    trial: int = 0
    history: int = 0


@dataclass(slots=True)
class Log:
    """One path of the config."""

    log_id: int
    path: str
    journal: QuotaJournal  # whoever may rename in its directory makes us write
    current: int = 0  # the stream that the path leads to; 0: none
    streams: dict[int, Stream] = field(default_factory=dict)  # oldest first
    directories: list[tuple[int, bytes]] = field(default_factory=list)  # watches, and names looked up there
    first_seen: tuple[Identity, int] | None = None  # what was there first and could not be watched; bytes
    start: Start = Start.END  # for the next file found: what was there first begins at its end
    limited: bool = False  # a limit of the system was met, try again later
    trouble: str = ""  # why there is no current stream, as last said
    remembered: OrderedDict[Identity, Position] = field(default_factory=OrderedDict)
    resumes: bool = False  # the next service is to go on with it
    resumption: Resumption | None = None  # None: there is nothing (any more) to go on with


class Logs:
    """The logs, and the watches of the monitor that runs.

    Args:
        ledger: where the monitor writes down how far it has read.
        journal: our own log.
        roll: where to write down which file that is about, for the next service.
    """

    def __init__(self, ledger: Ledger, journal: Journal, roll: Roll | None = None) -> None:
        self._ledger = ledger
        self._roll = roll
        self._journal = journal
        self._logs: dict[int, Log] = {}
        self._ids: dict[str, int] = {}
        self._next_log_id = 1
        self._next_stream_id = 1
        self._free_slots = list(range(MAX_STREAMS - 1, -1, -1))  # the lowest comes first
        self._watches: watch.Watches | None = None
        self._send: Send = _nobody

    def configure(self, paths: Iterable[str], resuming: Collection[str] = ()) -> dict[str, int]:
        """Take these paths and no others; give each its log's number. Known logs go on as they were.

        Args:
            paths: absolute.
            resuming: those of them that the next service is to go on with.
        """
        wanted = set(paths)
        for path in [path for path in self._ids if path not in wanted]:
            log = self._logs.pop(self._ids.pop(path))
            for stream in list(log.streams.values()):
                self._close(log, stream)
            self._forget_saved(log)
            self._release(wd for wd, _ in log.directories)
        for path in sorted(wanted - self._ids.keys()):
            self._ids[path] = self._next_log_id
            self._logs[self._next_log_id] = self._new_log(path)
            self._next_log_id += 1
        for log in self._logs.values():
            log.resumes = log.path in resuming
            for stream in log.streams.values():
                self._list(log, stream)
            if not log.resumes:
                self._forget_saved(log)
        return dict(self._ids)

    def resume(self, saved: Mapping[str, tuple[SavedStream, ...]]) -> None:
        """Go on with what the last service has left, when each log is looked at for the first time.

        What does not come from memory has a place there when this returns: whoever is killed from then on
        leaves it to the next service.
        """
        kept = [one for streams in saved.values() for one in streams if one.slot >= 0]
        taken = {one.slot for one in kept}
        self._free_slots = [slot for slot in self._free_slots if slot not in taken]
        self._next_stream_id = max(self._next_stream_id, *(one.position.stream_id + 1 for one in kept), 0)
        for path, streams in saved.items():
            if streams and path in self._ids:
                log = self._logs[self._ids[path]]
                known = (one if one.slot >= 0 else self._reserve(log, one) for one in streams)
                log.resumption = Resumption({one.identity: one for one in known}, streams[-1].identity)

    def _reserve(self, log: Log, one: SavedStream) -> SavedStream:
        """Give a file that is not open a slot, with its position."""
        slot, stream_id = self._take_slot()
        position = replace(one.position, stream_id=stream_id)
        self._ledger.assign(slot, position)
        self._put(log, Listed(slot, stream_id, one.identity, True, log_digest(log.path)))
        return SavedStream(one.identity, position, slot)

    def _forget_saved(self, log: Log) -> None:
        """Go on with nothing that is not open."""
        if log.resumption is not None:
            for one in log.resumption.saved.values():
                self._free(one.slot)
            log.resumption = None

    def positions(self) -> dict[str, tuple[SavedStream, ...]]:
        """Give how far the logs that are to go on were read, by path."""
        return {log.path: self._positions_of(log) for log in self._logs.values() if log.resumes}

    def _positions_of(self, log: Log) -> tuple[SavedStream, ...]:
        found = list(log.resumption.saved.values()) if log.resumption else []
        for stream in log.streams.values():
            position = self._ledger.position(stream.slot)
            if position.offset == NOT_BEGUN:
                if stream.start is Start.END:  # nobody has looked where its end is
                    continue
                position = Position(stream.stream_id)
            found.append(SavedStream(stream.identity, replace(position, stream_id=stream.stream_id)))
        # Beyond the limit: a monitor that was taken over has written that.
        sound = [one for one in found if one.position.offset <= MAX_OFFSET]
        return tuple(sorted(sound, key=lambda one: one.position.stream_id))

    def _new_log(self, path: str) -> Log:
        quota = Quota(LOG_BURST_BYTES, LOG_BYTES_PER_S)
        return Log(self._next_log_id, path, QuotaJournal(self._journal, f"log '{path}'", quota))

    def counts(self) -> tuple[int, int]:
        """Give how many logs are there to read, and how many there are."""
        return sum(bool(log.current) for log in self._logs.values()), len(self._logs)

    def path(self, log_id: int) -> str:
        """Give a log's path, "" for a number that is no log's (any more)."""
        log = self._logs.get(log_id)
        return log.path if log else ""

    def connect(self, send: Send) -> None:
        """Serve a new monitor: fresh watches, and everything that the last one had.

        Raises:
            OSError: no inotify instance can be had (watch.Watches).
        """
        if self._watches is not None:
            self._watches.close()
            self._watches = None
        self._watches = watch.Watches()
        self._send = send
        send(UseWatches(), self._watches.fileno())
        for log in self._logs.values():
            log.directories = []
            for stream in log.streams.values():
                stream.wd = 0  # a watch of the last monitor
                if stream.start is Start.LEFTOVER and stream.stream_id == log.current:
                    stream.start = Start.COMMITTED  # that one did not drop it
                try:
                    self._pass(log, stream)
                except OSError:
                    log.limited = True

    def disconnect(self) -> None:
        """Send nothing until the next `connect`."""
        self._send = _nobody

    def look_all(self) -> None:
        """Look at every log."""
        for log_id in self._logs:
            self.look(log_id)

    def look(self, log_id: int) -> None:
        """Look where a log's path leads now, pass on what is new, and answer with LogLooked."""
        log = self._logs.get(log_id)
        if log is None or self._watches is None:
            return  # it went with a reload
        watches: list[tuple[int, bytes]] = []
        trouble, event = "", Event.LOG_REFUSED
        log.limited = False
        try:
            for stream in log.streams.values():
                if not stream.wd:  # a limit was in the way
                    self._pass(log, stream)
            fd = open_log(log.path, lambda directory, name: self._visit(directory, name, watches))
            try:
                resumed = self._resume(log, os.fstat(fd))
            except BaseException:
                os.close(fd)
                raise
            if resumed:
                self._take(log, fd)
                self._finish_resuming(log)
            else:
                os.close(fd)
        except OpenRefusedError as error:
            trouble = str(error)
        except OSError as error:
            trouble = reason_of(error)
            log.limited = error.errno in _PASSING
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                event = Event.LOG_MISSING
                try:
                    self._resume(log, None)
                except (OpenRefusedError, OSError):
                    log.limited = True
                log.start = Start.BEGIN  # whatever appears is new
        if log.limited:  # the path cannot be walked: go on with what there is
            self._release(wd for wd, _ in watches)
            self._note_first(log)
            if not self._leads_to_current(log):
                log.current = 0  # it was rotated away, and frees what it takes when it was read
        else:
            self._release(wd for wd, _ in log.directories)
            log.directories = watches
            if trouble:
                log.current = 0
        if trouble and trouble != log.trouble:
            verb = "is not there yet" if event is Event.LOG_MISSING else "cannot be watched"
            when = "every few seconds" if log.limited else "when something changes"
            text = f"log '{log.path}' {verb}, will be tried again {when}: {trouble}"
            log.journal.write(event, WARNING, text, path=log.path)
        log.trouble = trouble
        self._send(LogLooked(log_id, log.current, tuple(log.directories)), -1)

    def limited(self) -> list[int]:
        """Give the logs that met a limit of the system, which says nothing when there is room again."""
        return [log.log_id for log in self._logs.values() if log.limited]

    def unwritten(self, stream_id: int) -> None:
        """Say StreamUnwritten when nobody writes to a rotated-away file any more."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        self._accepted(log, stream)
        # None is no answer (a file system without leases): then it is kept until newer ones push it out.
        if stream_id != log.current and has_writer(stream.fd) is False:
            self._send(StreamUnwritten(stream_id), -1)

    def dropped(self, stream_id: int) -> None:
        """The monitor has let go of a stream: close it."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        if stream.start is Start.LEFTOVER and not stream.accepted:
            self._refused(log, stream)
            return
        if os.fstat(stream.fd).st_nlink:
            log.remembered[stream.identity] = self._ledger.position(stream.slot)
            while len(log.remembered) > MAX_REMEMBERED:
                log.remembered.popitem(last=False)
        if log.resumption is None:
            self._close(log, stream)
        else:
            log.resumption.done.add(stream.identity)
            self._shelve(log, stream)
        if stream_id == log.current:  # the path came to lead to it again just now
            log.current = 0
            self.look(log.log_id)

    def _note_first(self, log: Log) -> None:
        """Note where a log ends whose history is of no interest: what comes now is to be read later."""
        if log.start is Start.END and log.first_seen is None:
            with suppress(OSError):
                status = os.stat(log.path)
                log.first_seen = ((status.st_dev, status.st_ino), status.st_size)

    def _leads_to_current(self, log: Log) -> bool:
        """Say whether a log's path leads to the file that it led to; asked by name, which takes nothing."""
        stream = log.streams.get(log.current)
        with suppress(OSError):
            status = os.stat(log.path)
            return stream is not None and stream.identity == (status.st_dev, status.st_ino)
        return False

    def _visit(self, directory: int, name: bytes, watches: list[tuple[int, bytes]]) -> None:
        assert self._watches is not None
        if len(watches) >= MAX_WATCHES:  # whoever owns a link on the way can make it wind
            raise OpenRefusedError(f"leads through too many directories; expected at most {MAX_WATCHES}")
        try:
            watches.append((self._watches.add(directory, watch.DIRECTORY_MASK), name))
        except watch.WatchLimitError:
            raise
        except OSError:  # a directory that we may pass but not read: changes in it go unseen
            return

    def _accepted(self, log: Log, stream: Stream) -> None:
        """A file that is not the current one was read to an end."""
        stream.accepted = True
        rest = log.resumption
        if rest is not None and rest.copies and rest.trial == stream.stream_id:
            path = os.path.join(os.path.dirname(log.path), rest.copies[0].name)
            text = f"log '{log.path}' was emptied meanwhile, what stood there was read in '{path}'"
            log.journal.write(Event.RESUMED, INFO, text, path=log.path)
            rest.last, rest.trial, rest.copies = stream.identity, 0, []
            self.look(log.log_id)

    def _refused(self, log: Log, stream: Stream) -> None:
        """The monitor has found other bytes in a file than those that were read."""
        rest = log.resumption
        if stream.stream_id == log.current:
            log.current = 0
            rest = log.resumption = rest or Resumption({}, stream.identity)
            rest.emptied, rest.history = stream.identity, stream.history
            self._shelve(log, stream)
            self.look(log.log_id)
        elif rest is not None and rest.copies and rest.trial == stream.stream_id:
            self._close(log, stream)
            rest.trial = 0
            rest.copies.pop(0)
            self.look(log.log_id)
        else:
            self._close(log, stream)
            if rest is not None:
                rest.done.add(stream.identity)
            self._say_lost(log, "is another one by now")

    def _seek_copy(self, log: Log, rest: Resumption, emptied: SavedStream) -> bool:
        """Have the monitor look at what may be the copy of a file that was emptied, one after another.

        Returns: whether that has come to an end.

        Raises:
            OSError: a limit of the system was met, or too many files are open.
        """
        if rest.trial:
            return False
        begin = emptied.position.offset
        if rest.copies is None:
            known = rest.saved.keys() | _identities(log)
            rest.copies = copies(_entries(log), os.path.basename(log.path), begin, known)
        while rest.copies:
            path = os.path.join(os.path.dirname(log.path), rest.copies[0].name)
            one = SavedStream(rest.copies[0].identity, emptied.position)
            try:
                rest.trial = self._open_leftover(log, path, one).stream_id
                return False
            except (OpenRefusedError, OSError) as error:
                _raise_limit(error)
                rest.copies.pop(0)
        return True

    def _begin_anew(self, log: Log, rest: Resumption, emptied: SavedStream) -> None:
        """Read a file that was emptied from its first byte, behind its copies."""
        rest.saved[emptied.identity] = self._reserve(log, replace(emptied, position=Position(0)))
        self._free(emptied.slot)
        rest.emptied = None
        if rest.last == emptied.identity:  # there is no copy
            text = (
                f"log '{log.path}' was emptied or replaced while lognot did not run, and no copy is there: "
                f"what was written to it before that, after byte {emptied.position.offset}, is not read"
            )
            log.journal.write(Event.RESUME_LOST, ERROR, text, path=log.path)

    def _resume(self, log: Log, current: os.stat_result | None) -> bool:
        """Open the files that the last service has left of a log and that it was rotated to meanwhile.

        The one that the path leads to is left to `_take`.

        Returns: whether that can be done now, or the monitor is to tell of a copy of it first.

        Raises:
            OSError: a limit of the system was met; what was done so far is not done again.
        """
        rest = log.resumption
        if rest is None:
            return True
        log.start = Start.BEGIN
        if rest.emptied is not None and not self._seek_copy(log, rest, rest.saved[rest.emptied]):
            return False
        identity = (current.st_dev, current.st_ino) if current else None
        entries = _entries(log)
        if identity is not None:
            self._follow_device(log, rest, {identity, *(entry.identity for entry in entries)})
        wanted = [*rest.saved, *rest.done, *_identities(log)]
        found = leftovers(entries, os.path.basename(log.path), wanted, rest.last, identity)
        for entry in self._newest(log, rest, found):
            if entry.identity not in rest.done and entry.identity not in _identities(log):
                if entry.identity == rest.emptied:
                    self._begin_anew(log, rest, rest.saved[entry.identity])
                self._take_leftover(log, entry)
        if identity is not None and identity == rest.emptied:
            self._begin_anew(log, rest, rest.saved[identity])
        if current is not None:
            return True
        if rest.last in rest.done | _identities(log):
            self._finish_resuming(log)  # it was rotated away, and nothing came after it yet
        else:
            rest.late = True  # what it is on may not be mounted yet
        return True

    def _newest(self, log: Log, rest: Resumption, found: list[Entry]) -> list[Entry]:
        """Leave out the oldest files that nobody has read, where there are too many: others need room too."""
        known = rest.saved.keys() | rest.done | _identities(log)
        unread = [entry.identity for entry in found if entry.identity not in known]
        left_out = set(unread[: max(0, len(unread) - MAX_LEFTOVERS)])
        if left_out:
            rest.done |= left_out
            text = (
                f"log '{log.path}' was rotated to {len(unread)} files while lognot did not run, "
                f"of which the oldest {len(left_out)} are not read; expected at most {MAX_LEFTOVERS}"
            )
            log.journal.write(Event.RESUME_LOST, ERROR, text, path=log.path)
        return [entry for entry in found if entry.identity not in left_out]

    def _follow_device(self, log: Log, rest: Resumption, there: set[Identity]) -> None:
        """Look for files under the number that their device has now; their bytes will prove them."""
        for old, new in on_other_device(rest.saved, there).items():
            one = rest.saved.pop(old)
            rest.saved[new] = self._reserve(log, replace(one, identity=new))
            self._free(one.slot)
            if rest.last == old:
                rest.last = new

    def _finish_resuming(self, log: Log) -> None:
        """Every file that is there was opened: those that are not will not come."""
        rest = log.resumption
        if rest is not None:
            if rest.last not in rest.done | _identities(log):
                self._say_lost(log, "is gone, so what was written to it after that is not read")
            self._forget_saved(log)

    def _take_leftover(self, log: Log, entry: Entry) -> None:
        assert log.resumption is not None
        path = os.path.join(os.path.dirname(log.path), entry.name)
        one = log.resumption.saved.get(entry.identity) or SavedStream(entry.identity, Position(0))
        try:
            self._open_leftover(log, path, one)
        except (OpenRefusedError, OSError) as error:
            _raise_limit(error)
            log.resumption.done.add(entry.identity)
            self._say_lost(log, f"cannot be read as '{path}': {error}")
            return
        begin = one.position.offset
        text = f"log '{log.path}' was rotated to '{path}' meanwhile, reading that from byte {begin}"
        log.journal.write(Event.RESUMED, INFO, text, path=log.path)

    def _open_leftover(self, log: Log, path: str, one: SavedStream) -> Stream:
        """Pass a file on that a log was rotated to; the monitor drops it when its bytes are others.

        Raises:
            OSError: it cannot be opened or watched.
            OpenRefusedError: it must not be opened, or is another file by now.
        """
        fd = open_log(path, _pass_by)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != one.identity:
            os.close(fd)
            raise OpenRefusedError("another file by now")
        return self._add(log, fd, status, Start.LEFTOVER, one, history=status.st_size)

    def _say_lost(self, log: Log, what: str) -> None:
        text = f"log '{log.path}' was rotated while lognot did not run, and the file that was read {what}"
        log.journal.write(Event.RESUME_LOST, ERROR, text, path=log.path)

    def _take(self, log: Log, fd: int) -> None:
        """Make the file behind a descriptor the current one, and own the descriptor.

        Raises:
            OSError: it cannot be watched, or too many files are open.
        """
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        for stream in log.streams.values():
            if stream.identity == identity:
                os.close(fd)
                if not stream.wd:
                    self._pass(log, stream)
                if log.current != stream.stream_id:
                    log.current = stream.stream_id
                    log.journal.write(Event.LOG_OPENED, INFO, f"log '{log.path}' is back", path=log.path)
                return
        if log.first_seen is not None and log.start is Start.END and log.first_seen[0] != identity:
            log.start = Start.BEGIN  # it was rotated before it could be watched: this one is new
        going_on = _was_there(log, identity)
        one = self._known(log, identity)
        start = log.start if one is None else Start.COMMITTED if one.slot < 0 else Start.LEFTOVER
        # What is there already of a log that goes on was written before the start.
        history = status.st_size if going_on else 0
        if log.resumption is not None and log.resumption.history:
            history = min(history, log.resumption.history)
        stream = self._add(log, fd, status, start, one, history=history)
        log.remembered.pop(identity, None)
        log.current = stream.stream_id
        event, text = Event.LOG_OPENED, f"watching log '{log.path}'"
        if going_on and one:
            event, text = Event.RESUMED, f"going on with log '{log.path}' at byte {one.position.offset}"
        elif len(log.streams) > 1:
            event, text = Event.LOG_ROTATED, f"log '{log.path}' was rotated"
        log.start = Start.BEGIN
        log.first_seen = None
        log.journal.write(event, INFO, text, path=log.path)
        for old in list(log.streams)[: -MAX_ROTATED - 1]:
            log.streams[old].accepted = True  # it is dropped when it was read
            self._send(StreamUnwritten(old), -1)

    def _known(self, log: Log, identity: Identity) -> SavedStream | None:
        """Give how far the file was read that a path leads to; None: nobody knows of it."""
        if log.resumption is not None:
            return log.resumption.saved.get(identity) or SavedStream(identity, Position(0))
        position = log.remembered.get(identity)
        return SavedStream(identity, position) if position else None

    def _add(
        self,
        log: Log,
        fd: int,
        status: os.stat_result,
        start: Start,
        one: SavedStream | None,
        *,
        history: int,
    ) -> Stream:
        """Make a file a stream of its log and pass it on; owns the descriptor.

        Args:
            one: how far it was read, in the slot that it has, or without one in a new one.

        Raises:
            OSError: it cannot be watched, or too many files are open; what it had is kept.
        """
        kept = one is not None and one.slot >= 0
        if one is not None and kept:
            slot, known = one.slot, one.position
        else:
            try:
                slot, stream_id = self._take_slot()
            except OSError:
                os.close(fd)
                raise
            known = replace(one.position, stream_id=stream_id) if one else Position(stream_id, NOT_BEGUN)
        identity = (status.st_dev, status.st_ino)
        size = status.st_size
        if log.first_seen is not None and start is Start.END:
            size = min(size, log.first_seen[1])
        stream = Stream(known.stream_id, fd, identity, slot, start, size, history, known.generation)
        self._ledger.assign(slot, known)
        log.streams[stream.stream_id] = stream
        self._list(log, stream)
        try:
            self._pass(log, stream)
        except OSError:
            self._close(log, stream, free=not kept)
            raise
        if log.resumption is not None:
            log.resumption.saved.pop(identity, None)
        return stream

    def _take_slot(self) -> tuple[int, int]:
        """Give a slot of the ledger and a new stream's number.

        Raises:
            OSError: too many files are open; some will be let go.
        """
        if not self._free_slots:
            raise OSError(errno.EAGAIN, f"too many files are open; expected at most {MAX_STREAMS}")
        self._next_stream_id += 1
        return self._free_slots.pop(), self._next_stream_id - 1

    def _list(self, log: Log, stream: Stream) -> None:
        """Have the roll say what a slot is about, or nothing where the log does not go on."""
        from_begin = stream.start is not Start.END
        self._put(
            log, Listed(stream.slot, stream.stream_id, stream.identity, from_begin, log_digest(log.path))
        )

    def _put(self, log: Log, entry: Listed) -> None:
        if self._roll is None:
            return
        if log.resumes:
            self._roll.put(entry)
        else:
            self._roll.clear(entry.slot)

    def _pass(self, log: Log, stream: Stream) -> None:
        """Watch a stream for the monitor that runs, and give it the descriptor."""
        assert self._watches is not None
        wd = self._watches.add(stream.fd, watch.FILE_MASK)
        start = stream.start
        known = self._ledger.position(stream.slot)
        if start is not Start.LEFTOVER and known.stream_id == stream.stream_id and known.offset != NOT_BEGUN:
            start = Start.COMMITTED
        # What a file holds that was emptied since is no history.
        history = stream.history if known.generation == stream.generation else 0
        try:
            message = LogOpened(log.log_id, stream.stream_id, stream.slot, wd, start, stream.size, history)
            self._send(message, stream.fd)
        except OSError:
            self._release([wd])
            raise
        stream.wd = wd

    def _find(self, stream_id: int) -> tuple[Log, Stream] | None:
        for log in self._logs.values():
            if stream_id in log.streams:
                return log, log.streams[stream_id]
        return None

    def _shelve(self, log: Log, stream: Stream) -> None:
        """Close a stream and keep its position: the next service looks for newer files from it on."""
        assert log.resumption is not None
        position = replace(self._ledger.position(stream.slot), stream_id=stream.stream_id)
        log.resumption.saved[stream.identity] = SavedStream(stream.identity, position, stream.slot)
        self._close(log, stream, free=False)

    def _close(self, log: Log, stream: Stream, *, free: bool = True) -> None:
        del log.streams[stream.stream_id]
        if stream.wd:
            self._release([stream.wd])
        os.close(stream.fd)
        if free:
            self._free(stream.slot)

    def _free(self, slot: int) -> None:
        if self._roll is not None:
            self._roll.clear(slot)
        self._free_slots.append(slot)

    def _release(self, wds: Iterable[int]) -> None:
        if self._watches is not None:
            for wd in wds:
                self._watches.release(wd)


def _nobody(message: Message, fd: int) -> None:
    """There is no monitor now; the next one is told everything."""


def _identities(log: Log) -> set[Identity]:
    """Give the files of a log that are open."""
    return {stream.identity for stream in log.streams.values()}


def _was_there(log: Log, identity: Identity) -> bool:
    """Say whether a log goes on with the file that its path leads to, as it was there before the start."""
    rest = log.resumption
    if rest is None:
        return False
    return not rest.late or identity in rest.saved or rest.last in rest.done | _identities(log)


def _entries(log: Log) -> list[Entry]:
    """List the files beside a log, none where its directory cannot be read.

    Raises:
        OSError: a limit of the system was met.
    """
    try:
        return list(list_files(os.path.dirname(log.path)))
    except OSError as error:
        _raise_limit(error)
        return []


def _pass_by(directory: int, name: bytes) -> None:
    """The directories on the way to a rotated file need no watch."""


def _raise_limit(error: Exception) -> None:
    """Raise an error again that comes of a limit of the system: what met it is tried again."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        raise error
