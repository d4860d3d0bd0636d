"""The open files of the logs: each with its watch, its place in the ledger and in the roll. Supervisor only.

A log is a path; a stream is one file that was found there. After a rotation a log has several streams: the
current one, and older ones whose writers have not moved yet. Each keeps its descriptor here until the
monitor is done with it, so that a new monitor can be given what the last one had.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lognot import watch
from lognot.errors import LIMITS
from lognot.journal import Event
from lognot.ledger import MAX_STREAMS, NOT_BEGUN, Ledger, Position
from lognot.messages import LogOpened, Message, Start, UseWatches
from lognot.quota import QuotaJournal
from lognot.roll import Listed, Roll, log_digest
from lognot.state import Identity, SavedStream

# EAGAIN: somebody holds a lease on the file and was now asked to give it up (fcntl(2), F_SETLEASE).
PASSING = (*LIMITS, errno.EAGAIN)

# Files of one log, beside those that it was rotated to while lognot did not run: others need room, too.
MAX_OPEN = 64

Send = Callable[[Message, int], None]
T = TypeVar("T")


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
    pushed_out: bool = False  # the monitor that runs was told to let it go, for there are newer ones


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
    remembered: OrderedDict[tuple[Identity, bytes], Position] = field(default_factory=OrderedDict)
    resumes: bool = False  # the next service is to go on with it
    left: SavedStream | None = None  # what it goes on from, in a slot, when the path leads to nothing

    @property
    def identities(self) -> set[Identity]:
        """The files that are open."""
        return {stream.identity for stream in self.streams.values()}

    @property
    def seen(self) -> int:
        """How many files are open that its path has led to since the start."""
        return sum(stream.start is not Start.LEFTOVER for stream in self.streams.values())

    def say(self, event: Event, priority: int, text: str) -> None:
        """Write of it into our own log."""
        self.journal.write(event, priority, text, path=self.path)


class Streams:
    """The streams of all logs, and the watches of the monitor that runs.

    Args:
        ledger: where the monitor writes down how far it has read.
        roll: where to write down which file that is about, for the next service.
    """

    def __init__(self, ledger: Ledger, roll: Roll | None) -> None:
        self._ledger = ledger
        self._roll = roll
        self._next_stream_id = 1
        self._free_slots = list(range(MAX_STREAMS - 1, -1, -1))  # the lowest comes first
        self._watches: watch.Watches | None = None
        # Of the last monitor, which may have removed some. The kernel takes 10 to 20 ms to close such an
        # instance (fsnotify_destroy_group()), and no log is to wait for that.
        self._outdated_watches: watch.Watches | None = None
        self.send: Send = _nobody

    def connect(self, send: Send) -> None:
        """Serve a new monitor, with fresh watches.

        Raises:
            OSError: no inotify instance can be had (watch.Watches).
        """
        self.close_outdated_watches()
        self._outdated_watches, self._watches = self._watches, None
        self._watches = self._within_limits(watch.Watches)
        self.send = send
        send(UseWatches(), self._watches.fileno())

    def close_outdated_watches(self) -> None:
        """Close those of the last monitor."""
        if self._outdated_watches is not None:
            self._outdated_watches.close()
            self._outdated_watches = None

    def _within_limits(self, have: Callable[[], T]) -> T:
        """Give what this gives; where a limit is in the way, once what is outdated counts no more.

        Raises:
            OSError: of `have`.
        """
        try:
            return have()
        except OSError:
            if self._outdated_watches is None:
                raise
        self.close_outdated_watches()
        return have()

    def _watch(self, fd: int, mask: int) -> int:
        watches = self._watches
        assert watches is not None
        return self._within_limits(lambda: watches.add(fd, mask))

    def disconnect(self) -> None:
        """Send nothing until the next `connect`."""
        self.send = _nobody

    @property
    def watching(self) -> bool:
        """There are watches."""
        return self._watches is not None

    def watch_directory(self, fd: int) -> int:
        """Watch the directory behind an open descriptor; give the watch descriptor, for `release`.

        Raises:
            WatchLimitError: the user's limit of watches is reached.
            OSError: it cannot be watched.
        """
        return self._watch(fd, watch.DIRECTORY_MASK)

    def release(self, wds: Iterable[int]) -> None:
        """Watch these no more."""
        if self._watches is not None:
            for wd in wds:
                self._watches.release(wd)

    def take_over(self, kept: Iterable[SavedStream]) -> None:
        """Learn which slots the last service has left, with which streams."""
        taken = {one.slot: one.position.stream_id for one in kept}
        self._free_slots = [slot for slot in self._free_slots if slot not in taken]
        self._next_stream_id = max(self._next_stream_id, *(number + 1 for number in taken.values()), 0)

    def reserve(self, log: Log, one: SavedStream) -> SavedStream:
        """Give a file that is not open a slot, with its position.

        Raises:
            OSError: too many files are open; some will be let go.
        """
        slot, stream_id = self._take_slot(known=True)
        position = replace(one.position, stream_id=stream_id)
        self._ledger.assign(slot, position)
        self._put(log, Listed(slot, stream_id, one.identity, True, log_digest(log.path)))
        return SavedStream(one.identity, position, slot)

    def free(self, slot: int) -> None:
        """Let others have a slot."""
        if self._roll is not None:
            self._roll.clear(slot)
        self._free_slots.append(slot)

    def add(
        self,
        log: Log,
        fd: int,
        status: os.stat_result,
        start: Start,
        one: SavedStream | None,
        *,
        history: int,
        stream_id: int = 0,
    ) -> Stream:
        """Make a file a stream of its log and pass it on; owns the descriptor.

        Args:
            one: how far it was read, in the slot that it has, or without one in a new one.
            stream_id: its number, from `number`; 0: the next one.

        Raises:
            OSError: it cannot be watched, or too many files are open; what it had is kept.
        """
        if start is not Start.LEFTOVER and log.seen >= MAX_OPEN:
            os.close(fd)
            raise too_many_open(MAX_OPEN)
        kept = one is not None and one.slot >= 0
        if one is not None and kept:
            slot, known = one.slot, one.position
        else:
            try:
                slot, next_id = self._take_slot(known=one is not None)
            except OSError:
                os.close(fd)
                raise
            stream_id = stream_id or next_id
            known = replace(one.position, stream_id=stream_id) if one else Position(stream_id, NOT_BEGUN)
        identity = (status.st_dev, status.st_ino)
        size = status.st_size
        if log.first_seen is not None and start is Start.END:
            size = min(size, log.first_seen[1])
        stream = Stream(known.stream_id, fd, identity, slot, start, size, history, known.generation)
        self._ledger.assign(slot, known)
        log.streams[stream.stream_id] = stream
        self.enroll(log, stream)
        try:
            self.pass_on(log, stream)
        except OSError:
            self.close(log, stream, free=not kept)
            raise
        return stream

    def number(self) -> int:
        """Give the number of a stream that is added later, and is older than those that are added before."""
        self._next_stream_id += 1
        return self._next_stream_id - 1

    def _take_slot(self, *, known: bool) -> tuple[int, int]:
        """Give a slot of the ledger and a new stream's number.

        After a reload the monitor may write once more to one that was just freed. What is `known` of a file
        would be lost there, so it gets the one that is free for longest.

        Raises:
            OSError: too many files are open; some will be let go.
        """
        if not self._free_slots:
            raise OSError(errno.EAGAIN, f"too many files are open; expected at most {MAX_STREAMS}")
        return self._free_slots.pop(0 if known else -1), self.number()

    def enroll(self, log: Log, stream: Stream) -> None:
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

    def pass_on(self, log: Log, stream: Stream) -> None:
        """Watch a stream for the monitor that runs, and give it the descriptor.

        Raises:
            OSError: it cannot be watched, or no descriptor can be had to pass it on.
        """
        wd = self._watch(stream.fd, watch.FILE_MASK)
        start = stream.start
        known = self._ledger.position(stream.slot)
        if start is not Start.LEFTOVER and known.stream_id == stream.stream_id and known.offset != NOT_BEGUN:
            start = Start.COMMITTED
        # What a file holds that was emptied since is no history.
        history = stream.history if known.generation == stream.generation else 0
        try:
            message = LogOpened(log.log_id, stream.stream_id, stream.slot, wd, start, stream.size, history)
            self.send(message, stream.fd)
        except OSError:
            self.release([wd])
            raise
        stream.wd = wd
        stream.pushed_out = False  # a new monitor was told nothing

    def withdraw(self, stream: Stream) -> None:
        """Watch a stream no more, until it is passed on again."""
        if stream.wd:
            self.release([stream.wd])
        stream.wd = 0

    def position(self, stream: Stream) -> Position:
        """Give how far a stream was read."""
        return replace(self._ledger.position(stream.slot), stream_id=stream.stream_id)

    def positions(self, log: Log) -> list[SavedStream]:
        """Give how far the open files of a log were read, and what stands for those that are not."""
        found = [log.left] if log.left is not None else []
        for stream in log.streams.values():
            position = self.position(stream)
            if position.offset == NOT_BEGUN:
                if stream.start is Start.END:  # nobody has looked where its end is
                    continue
                position = Position(stream.stream_id)
            found.append(SavedStream(stream.identity, position))
        return found

    def shelve(self, log: Log, stream: Stream) -> SavedStream:
        """Close a stream and keep its slot; give its position there."""
        one = SavedStream(stream.identity, self.position(stream), stream.slot)
        self.close(log, stream, free=False)
        return one

    def leave(self, log: Log, one: SavedStream | None) -> None:
        """Have the next service go on from a file that is not open; None: from those that are."""
        old, log.left = log.left, one
        if old is not None:
            self.free(old.slot)

    def close(self, log: Log, stream: Stream, *, free: bool = True) -> None:
        """Let a stream go, and its slot unless told not to (`free`)."""
        del log.streams[stream.stream_id]
        self.withdraw(stream)
        with suppress(OSError):  # closed all the same: ENOTCONN of FUSE, whose server is told of each close
            os.close(stream.fd)
        if free:
            self.free(stream.slot)


def _nobody(message: Message, fd: int) -> None:
    """There is no monitor now; the next one is told everything."""


def newest(log: Log) -> Stream | None:
    """Give the file that a log's path leads to, or else the one that it led to last."""
    return log.streams.get(log.current) or max(
        log.streams.values(), key=lambda one: one.stream_id, default=None
    )


def is_newest(log: Log, stream: Stream) -> bool:
    """Say whether a log's path has led to none after this one, as far as is known."""
    left_id = log.left.position.stream_id if log.left is not None else 0
    return stream.stream_id >= max(left_id, *log.streams)


def leads_to_current(log: Log) -> bool:
    """Say whether a log's path leads to the file that it led to; asked by name, which takes nothing."""
    stream = log.streams.get(log.current)
    with suppress(OSError):
        status = os.stat(log.path)
        return stream is not None and stream.identity == (status.st_dev, status.st_ino)
    return False


def too_many_open(limit: int) -> OSError:
    """Give the error for a log of which so many files are open that another one has to wait."""
    return OSError(errno.EAGAIN, f"it is rotated faster than it is read: {limit} files of it are open")


def raise_passing(error: Exception) -> None:
    """Raise an error again that comes of a limit of the system: what met it is tried again."""
    if isinstance(error, OSError) and error.errno in PASSING:
        raise error
