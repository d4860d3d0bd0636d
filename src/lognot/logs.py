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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from lognot import watch
from lognot.errors import OpenRefusedError
from lognot.journal import INFO, WARNING, Event, Journal
from lognot.ledger import MAX_STREAMS, NOT_BEGUN, Ledger, Position
from lognot.messages import MAX_WATCHES, LogLooked, LogOpened, Message, Start, StreamUnwritten, UseWatches
from lognot.opening import has_writer, open_log
from lognot.quota import Quota, QuotaJournal

MAX_ROTATED = 8  # older files of one log that are kept while somebody may still write to them
MAX_REMEMBERED = 16  # files of one log that were left and may come back, such as targets of a symlink

# What a log may make us write of its coming and going: some 800 records at once, and then 4 a second.
LOG_BURST_BYTES = 256 * 1024
LOG_BYTES_PER_S = 1024

# EAGAIN: somebody holds a lease on the file and was now asked to give it up (fcntl(2), F_SETLEASE).
_LIMITS = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

Identity = tuple[int, int]  # device and inode
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
    wd: int = 0


@dataclass(slots=True)
class Log:
    """One path of the config."""

    log_id: int
    path: str
    journal: QuotaJournal  # whoever may rename in its directory makes us write
    current: int = 0  # the stream that the path leads to; 0: none
    streams: dict[int, Stream] = field(default_factory=dict)  # oldest first
    directory_wds: list[int] = field(default_factory=list)
    start: Start = Start.END  # for the next file found: what was there first begins at its end
    limited: bool = False  # a limit of the system was met, try again later
    trouble: str = ""  # why there is no current stream, as last said
    remembered: OrderedDict[Identity, Position] = field(default_factory=OrderedDict)


class Logs:
    """The logs, and the watches of the monitor that runs."""

    def __init__(self, ledger: Ledger, journal: Journal) -> None:
        self._ledger = ledger
        self._journal = journal
        self._logs: dict[int, Log] = {}
        self._ids: dict[str, int] = {}
        self._next_log_id = 1
        self._next_stream_id = 1
        self._free_slots = list(range(MAX_STREAMS - 1, -1, -1))  # the lowest comes first
        self._watches: watch.Watches | None = None
        self._send: Send = _nobody

    def configure(self, paths: Iterable[str]) -> dict[str, int]:
        """Take these paths and no others; give each its log's number. Known logs go on as they were."""
        wanted = set(paths)
        for path in [path for path in self._ids if path not in wanted]:
            log = self._logs.pop(self._ids.pop(path))
            for stream in list(log.streams.values()):
                self._close(log, stream)
            self._release(log.directory_wds)
        for path in sorted(wanted - self._ids.keys()):
            self._ids[path] = self._next_log_id
            self._logs[self._next_log_id] = self._new_log(path)
            self._next_log_id += 1
        return dict(self._ids)

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
        self._watches = watch.Watches()
        self._send = send
        send(UseWatches(), self._watches.fileno())
        for log in self._logs.values():
            log.directory_wds = []
            for stream in log.streams.values():
                stream.wd = 0  # a watch of the last monitor
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
            self._take(log, open_log(log.path, lambda directory, name: self._visit(directory, name, watches)))
        except OpenRefusedError as error:
            trouble = str(error)
        except OSError as error:
            trouble = error.strerror or str(error)
            log.limited = error.errno in _LIMITS
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                event = Event.LOG_MISSING
                log.start = Start.BEGIN  # whatever appears is new
        released, log.directory_wds = log.directory_wds, [wd for wd, _ in watches]
        self._release(released)
        if trouble:
            log.current = 0
        if trouble and trouble != log.trouble:
            verb = "is not there yet" if event is Event.LOG_MISSING else "cannot be watched"
            text = f"log '{log.path}' {verb}, will be tried again when something changes: {trouble}"
            log.journal.write(event, WARNING, text, path=log.path)
        log.trouble = trouble
        self._send(LogLooked(log_id, log.current, tuple(watches)), -1)

    def limited(self) -> list[int]:
        """Give the logs that met a limit of the system, which says nothing when there is room again."""
        return [log.log_id for log in self._logs.values() if log.limited]

    def unwritten(self, stream_id: int) -> None:
        """Say StreamUnwritten when nobody writes to a rotated-away file any more."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        # None is no answer (a file system without leases): then it is kept until newer ones push it out.
        if stream_id != log.current and has_writer(stream.fd) is False:
            self._send(StreamUnwritten(stream_id), -1)

    def dropped(self, stream_id: int) -> None:
        """The monitor has let go of a stream: close it."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        if os.fstat(stream.fd).st_nlink:
            log.remembered[stream.identity] = self._ledger.position(stream.slot)
            while len(log.remembered) > MAX_REMEMBERED:
                log.remembered.popitem(last=False)
        self._close(log, stream)
        if stream_id == log.current:  # the path came to lead to it again just now
            log.current = 0
            self.look(log.log_id)

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

    def _take(self, log: Log, fd: int) -> None:
        """Make the file behind a descriptor the current one, and own the descriptor.

        Raises:
            OSError: it cannot be watched.
            OpenRefusedError: too many files are open.
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
        if not self._free_slots:
            os.close(fd)
            raise OpenRefusedError(f"too many files are open; expected at most {MAX_STREAMS}")
        slot = self._free_slots.pop()
        stream = Stream(self._next_stream_id, fd, identity, slot, log.start, status.st_size)
        self._next_stream_id += 1
        position = Position(stream.stream_id, NOT_BEGUN)
        known = log.remembered.pop(identity, None)
        if known is not None:
            position, stream.start = replace(known, stream_id=stream.stream_id), Start.COMMITTED
        self._ledger.assign(slot, position)
        log.streams[stream.stream_id] = stream
        try:
            self._pass(log, stream)
        except OSError:
            self._close(log, stream)
            raise
        log.current = stream.stream_id
        log.start = Start.BEGIN
        if len(log.streams) > 1:
            log.journal.write(Event.LOG_ROTATED, INFO, f"log '{log.path}' was rotated", path=log.path)
        else:
            log.journal.write(Event.LOG_OPENED, INFO, f"watching log '{log.path}'", path=log.path)
        for old in list(log.streams)[: -MAX_ROTATED - 1]:
            self._send(StreamUnwritten(old), -1)

    def _pass(self, log: Log, stream: Stream) -> None:
        """Watch a stream for the monitor that runs, and give it the descriptor."""
        assert self._watches is not None
        stream.wd = self._watches.add(stream.fd, watch.FILE_MASK)
        start = stream.start
        known = self._ledger.position(stream.slot)
        if known.stream_id == stream.stream_id and known.offset != NOT_BEGUN:
            start = Start.COMMITTED
        message = LogOpened(log.log_id, stream.stream_id, stream.slot, stream.wd, start, stream.size)
        self._send(message, stream.fd)

    def _find(self, stream_id: int) -> tuple[Log, Stream] | None:
        for log in self._logs.values():
            if stream_id in log.streams:
                return log, log.streams[stream_id]
        return None

    def _close(self, log: Log, stream: Stream) -> None:
        del log.streams[stream.stream_id]
        if stream.wd:
            self._release([stream.wd])
        os.close(stream.fd)
        self._free_slots.append(stream.slot)

    def _release(self, wds: Iterable[int]) -> None:
        if self._watches is not None:
            for wd in wds:
                self._watches.release(wd)


def _nobody(message: Message, fd: int) -> None:
    """There is no monitor now; the next one is told everything."""
