"""The monitor's side of the logs: which files are open, which have grown, when to look again. Monitor only.

The supervisor opens (logs.py), this module keeps what it is given. A log is a path, a stream is one file that
was found there. Events say "this file has grown" or "this name has changed"; the first makes a stream dirty,
the second is a request to the supervisor to look again, one at a time for each log.

How far each file was read is committed to the ledger here, as soon as whatever came of it outlives us.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from lognot import messages as m
from lognot import watch
from lognot.frequency import NEVER_NS
from lognot.ledger import JOURNAL_RECORDS, MAX_OFFSET, Anchor, Ledger, Position
from lognot.messages import Notice
from lognot.notes import Notes
from lognot.tail import Reading, Tail, size_of

MAX_UNCOMMITTED = JOURNAL_RECORDS // 4  # records
UNSETTLED_NS = 5 * 10**9  # what was read is committed then, whatever became of its actions


@dataclass(slots=True)
class Stream:
    """One open file of a log."""

    stream_id: int
    log_id: int
    fd: int
    slot: int
    tail: Tail
    judged_size: int  # bytes, as in Position; at first, what the file had reached before is of no interest
    history: int = 0  # bytes that were there before lognot started
    behind: bool = False  # an older file of the log, which newer ones wait for until it was read once
    wd: int = 0
    asked: bool = False  # whether the supervisor was asked if somebody writes to it still
    final: bool = False  # nobody does: read it to its end and let it go

    def position(self) -> Position:
        """How far it was read."""
        tail = self.tail
        return Position(
            self.stream_id, tail.offset, tail.generation, tail.skipping, tail.digest(), self.judged_size
        )


@dataclass(slots=True)
class _Log:
    """One path."""

    log_id: int
    current: int = 0  # the stream that it leads to
    watches: tuple[tuple[int, bytes], ...] = ()
    looking: bool = False  # the supervisor was asked and has not answered yet
    look_again: bool = False  # something changed since


class Files:
    """All logs and streams of the monitor.

    Args:
        ledger: where the positions are committed.
        notes: for the log.
        tell: sends to the supervisor.
        settled: says whether every action that came of the lines so far outlives us.
        on_commit: called after a commit.
    """

    def __init__(
        self,
        ledger: Ledger,
        notes: Notes,
        tell: Callable[[m.Message], None],
        settled: Callable[[], bool],
        on_commit: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._notes = notes
        self._tell = tell
        self._settled = settled
        self._on_commit = on_commit
        self._max_line_bytes = 0
        self._logs: dict[int, _Log] = {}
        self._streams: dict[int, Stream] = {}
        self._of_log: dict[int, dict[int, Stream]] = {}  # the current one, and older ones for a while
        self._of_file_wd: dict[int, set[int]] = {}  # streams
        # Names in a directory, and the logs that each matters to.
        self._of_directory_wd: dict[int, dict[bytes, set[int]]] = {}
        self._dirty: dict[int, None] = {}  # streams to read, in the order in which they became so
        self._uncommitted: dict[int, None] = {}
        self._unsettled_ns = NEVER_NS  # since when a commit has had to wait

    # What the supervisor says.

    def configure(self, log_ids: set[int], max_line_bytes: int) -> None:
        """Keep these logs and no others."""
        for log_id in self._logs.keys() - log_ids:
            self._forget(self._logs.pop(log_id))
        for log_id in log_ids - self._logs.keys():
            self._logs[log_id] = _Log(log_id)
        self._max_line_bytes = max_line_bytes
        for stream in self._streams.values():
            stream.tail.max_line_bytes = max_line_bytes

    def opened(self, message: m.LogOpened, fd: int) -> None:
        """Take a file behind a log; owns the descriptor."""
        known = self._streams.get(message.stream_id)
        if known or message.log_id not in self._logs:
            _close(fd)
            if known:
                self._watch(known, message.wd)
                self._dirty[known.stream_id] = None  # it was not watched, or not to be read
            return
        try:
            begin = self._begin(message, fd)
        except OSError as error:
            self._note_unreadable(message.log_id, error)
            _close(fd)
            self._tell(m.StreamUnreadable(message.stream_id))
            return
        if begin is None:
            _close(fd)
            self._tell(m.StreamDropped(message.stream_id))
            return
        tail, size = begin
        stream = Stream(message.stream_id, message.log_id, fd, message.slot, tail, size, message.history)
        stream.behind = message.start is m.Start.LEFTOVER
        self._streams[stream.stream_id] = stream
        self._of_log.setdefault(stream.log_id, {})[stream.stream_id] = stream
        self._watch(stream, message.wd)
        self._ledger.assign(stream.slot, stream.position())  # no commit: other files may wait for theirs
        self._dirty[stream.stream_id] = None

    def _begin(self, message: m.LogOpened, fd: int) -> tuple[Tail, int] | None:
        """Give where reading begins, and the size that was judged; None for a file that is none of ours."""
        if message.start is m.Start.END:
            return Tail.at_end(fd, self._max_line_bytes, message.size), message.size
        if message.start is m.Start.BEGIN:
            return Tail(fd, self._max_line_bytes), 0
        known = self._ledger.position(message.slot)
        if known.offset > MAX_OFFSET:
            self._notes.say(Notice.POSITION_LOST, message.log_id)
            size = size_of(fd)
            return Tail.at_end(fd, self._max_line_bytes, size), size
        tail = self._known_tail(message, fd, known)
        if tail is None:
            return None
        return tail, _judged_size(tail, known, size_of(fd))

    def _known_tail(self, message: m.LogOpened, fd: int, known: Position) -> Tail | None:
        """Give where reading goes on; None for a file that is not the one of which that is known."""
        if tail := self._tail_at(known, fd, known.generation):
            return tail
        if known.anchor and (tail := self._tail_at(known.anchor, fd, known.generation)):
            self._notes.say(Notice.END_LOST, message.log_id)
            return tail
        if message.start is m.Start.LEFTOVER:
            return None
        # Emptied while nobody looked. Was that before the start, the supervisor tells what became of it.
        self._notes.say(Notice.TRUNCATED if message.history else Notice.EMPTIED_UNSEEN, message.log_id)
        return Tail(fd, self._max_line_bytes, generation=known.generation + 1)

    def _tail_at(self, place: Position | Anchor, fd: int, generation: int) -> Tail | None:
        """Go on there; None when other bytes are before it than were."""
        tail = Tail(
            fd,
            self._max_line_bytes,
            offset=place.offset,
            generation=generation,
            skipping=place.skipping,
        )
        return tail if tail.digest() == place.digest else None

    def looked(self, message: m.LogLooked) -> None:
        """Take what a path leads to now."""
        log = self._logs.get(message.log_id)
        if log is None:
            return
        # What happened in these between the supervisor's look and now was not known to matter.
        unknown = set(message.watches) - set(log.watches)
        self._unwatch_directories(log)
        log.watches = message.watches
        for wd, name in log.watches:
            self._of_directory_wd.setdefault(wd, {}).setdefault(name, set()).add(log.log_id)
        if log.current != message.stream_id:
            old = self._streams.get(log.current)
            if old:
                old.asked = False
                self._dirty[old.stream_id] = None
            log.current = message.stream_id
            found = self._streams.get(log.current)
            if found:
                found.asked = found.final = False
                self._dirty[found.stream_id] = None
        log.looking = False
        if log.look_again or unknown:
            log.look_again = False
            self._look(log)

    def unwritten(self, stream_id: int) -> None:
        """Nobody writes to a file any more: it can go when it was read to its end."""
        stream = self._streams.get(stream_id)
        if stream and not self.is_current(stream):
            stream.final = True
            self._dirty[stream_id] = None

    def of_log(self, log_id: int) -> tuple[Stream, ...]:
        """Give the open files of a log, the oldest first."""
        return tuple(self._of_log.get(log_id, {}).values())

    def is_current(self, stream: Stream) -> bool:
        """Say whether its path still leads to a file."""
        return self._logs[stream.log_id].current == stream.stream_id

    def _watch(self, stream: Stream, wd: int) -> None:
        self._unwatch(stream)
        stream.wd = wd
        self._of_file_wd.setdefault(wd, set()).add(stream.stream_id)

    def _unwatch(self, stream: Stream) -> None:
        streams = self._of_file_wd.get(stream.wd, set())
        streams.discard(stream.stream_id)
        if not streams:
            self._of_file_wd.pop(stream.wd, None)

    def _unwatch_directories(self, log: _Log) -> None:
        for wd, name in log.watches:
            names = self._of_directory_wd.get(wd, {})
            names.get(name, set()).discard(log.log_id)
            if not names.get(name):
                names.pop(name, None)
            if not names:
                self._of_directory_wd.pop(wd, None)

    def _forget(self, log: _Log) -> None:
        self._unwatch_directories(log)
        for stream in list(self._of_log.get(log.log_id, {}).values()):
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        del self._streams[stream.stream_id]
        del self._of_log[stream.log_id][stream.stream_id]
        self._unwatch(stream)
        self._dirty.pop(stream.stream_id, None)
        self._uncommitted.pop(stream.stream_id, None)
        _close(stream.fd)

    def _note_unreadable(self, log_id: int, error: OSError) -> None:
        self._notes.say(Notice.FILE_UNREADABLE, log_id, 1, (error.strerror or "").encode())

    # What the kernel reports.

    def take_events(self, inotify: int) -> None:
        """Read the events that wait on an inotify descriptor.

        Raises:
            OSError: it cannot be read.
        """
        for event in watch.read_events(inotify)[0]:
            if event.mask & watch.OVERFLOWED:
                self._notes.say(Notice.QUEUE_OVERFLOW, 0)
                self._look_everywhere()
            elif event.wd in self._of_file_wd:
                self._on_file_event(event)
            elif event.wd in self._of_directory_wd and not event.mask & watch.IGNORED:
                names = self._of_directory_wd[event.wd]
                # Without a name it is about the directory itself, and so about every way through it.
                concerned = names.get(event.name, ()) if event.name else set().union(*names.values())
                for log_id in concerned:
                    self._look(self._logs[log_id])

    def _look_everywhere(self) -> None:
        for stream in self._streams.values():
            stream.asked = False
            self._dirty[stream.stream_id] = None
        for log in self._logs.values():
            self._look(log)

    def _on_file_event(self, event: watch.Event) -> None:
        for stream_id in self._of_file_wd[event.wd]:
            stream = self._streams[stream_id]
            self._dirty[stream_id] = None
            if event.mask & watch.CLOSED:
                stream.asked = False  # there is one writer less
            if event.mask & watch.ATTRIBUTES:  # its name may be gone, where its directory cannot be watched
                self._look(self._logs[stream.log_id])

    def _look(self, log: _Log) -> None:
        if log.looking:
            log.look_again = True
        else:
            log.looking = True
            self._tell(m.LookAgain(log.log_id))

    # Reading.

    @property
    def dirty(self) -> bool:
        """There is something to read."""
        return bool(self._dirty)

    def is_dirty_without(self, log_ids: Collection[int]) -> bool:
        """There is something to read in other logs than these."""
        return any(self._streams[stream_id].log_id not in log_ids for stream_id in self._dirty)

    def readings(self, without: Collection[int] = ()) -> Iterator[tuple[Stream, Reading]]:
        """Read one block of each file that has grown, so that a busy one does not hold up the others.

        Whose block took long brings a smaller one next time.

        What comes of a block has to be done, all of it, before the next one is asked for. The logs `without`
        are left for later.
        """
        for stream_id in list(self._dirty):
            stream = self._streams.get(stream_id)
            if stream is None or stream.log_id in without or self._must_wait(stream):
                continue
            try:
                reading = stream.tail.read()
            except OSError as error:
                self._on_read_error(stream, error)
                continue
            if not reading.more:
                self._dirty.pop(stream_id, None)
                stream.behind = False
            if reading.truncated:
                stream.history = stream.judged_size = 0  # whatever is there now was written since
            begin_ns = time.thread_time_ns()
            yield stream, reading
            stream.tail.pace(time.thread_time_ns() - begin_ns)
            if reading.blocks or reading.truncated:
                self._uncommitted[stream_id] = None
                self.commit()
                self._ask_about_others(stream)
            if not reading.more and not self.is_current(stream):
                self._drained(stream)

    def _on_read_error(self, stream: Stream, error: OSError) -> None:
        """Read on when the supervisor passes the file again; one that has to go goes now."""
        self._note_unreadable(stream.log_id, error)
        self._dirty.pop(stream.stream_id, None)
        stream.behind = False
        if stream.final:
            self._close(stream)
            self._tell(m.StreamDropped(stream.stream_id))
        else:
            self._tell(m.StreamUnreadable(stream.stream_id))

    def _must_wait(self, stream: Stream) -> bool:
        """An older file of its log has lines that were written before, and is to be read first."""
        for other in self._of_log[stream.log_id].values():
            if other is stream:
                return False
            if other.behind:
                return True
        return False

    def read_all(self) -> None:
        """Look at every file once more."""
        self._dirty.update(dict.fromkeys(self._streams))

    def unread(self) -> dict[int, int]:
        """Give the bytes that were not read yet, of each log with such."""
        left: Counter[int] = Counter()
        for stream in map(self._streams.__getitem__, self._dirty):
            with suppress(OSError):  # of a file system whose server is gone
                left[stream.log_id] += max(0, size_of(stream.fd) - stream.tail.offset)
        return +left

    @property
    def looking(self) -> bool:
        """The supervisor is looking where a path leads."""
        return any(log.looking for log in self._logs.values())

    def judged(self, stream: Stream, size: int) -> None:
        """Note the size of a file that was compared with what items wait for: committed as lines are."""
        if size != stream.judged_size:
            stream.judged_size = size
            self._uncommitted[stream.stream_id] = None

    def _ask_about_others(self, stream: Stream) -> None:
        """Whoever wrote to an older file of the log may have come over to the current one."""
        if self.is_current(stream):
            for other in self._of_log[stream.log_id].values():
                if other is not stream and other.asked:
                    other.asked = False
                    self._dirty[other.stream_id] = None

    def _drained(self, stream: Stream) -> None:
        """A file that is not the current one any more was read to its end."""
        if stream.final:
            self._uncommitted[stream.stream_id] = None
            self.commit()
            if stream.stream_id not in self._uncommitted:
                self._close(stream)
                self._tell(m.StreamDropped(stream.stream_id))
        elif not stream.asked:
            stream.asked = True
            self._tell(m.StreamDrained(stream.stream_id))

    # Committing.

    @property
    def uncommitted(self) -> bool:
        """There is something that was read and is not written down."""
        return bool(self._uncommitted)

    @property
    def commit_ns(self) -> int:
        """When to call `commit` again at the latest, CLOCK_MONOTONIC; NEVER_NS: when something has come."""
        return min(self._unsettled_ns + UNSETTLED_NS, NEVER_NS)

    def commit(self) -> None:
        """Write down how far the files were read, unless an action that came of it would die with us.

        It may when an executor stands still: to wait for longer, or for more to write down, would cost others
        their counts, and have their actions run again.
        """
        if not self._uncommitted:
            self._unsettled_ns = NEVER_NS  # what had to wait may be of a log that is gone
            return
        if not self._settled():
            now_ns = time.monotonic_ns()
            self._unsettled_ns = min(self._unsettled_ns, now_ns)
            if now_ns < self.commit_ns and self._ledger.uncommitted <= MAX_UNCOMMITTED:
                return
        self._unsettled_ns = NEVER_NS
        streams = [self._streams[stream_id] for stream_id in self._uncommitted]
        # All of them at once: the records of counted matches that go with it may come from any.
        self._ledger.commit((stream.slot, stream.position()) for stream in streams)
        self._uncommitted.clear()
        self._on_commit()
        # Those that nobody writes to can be closed now.
        self._dirty.update((stream.stream_id, None) for stream in streams if stream.final)

    def settle_records(self) -> None:
        """Make records of the ledger count that no line brought; with the next commit, if one is due."""
        if not self._uncommitted:
            self._ledger.settle()


def _judged_size(tail: Tail, known: Position, size: int) -> int:
    """Give the size that was judged of a file whose reading goes on at `tail`."""
    if tail.generation != known.generation:  # it was emptied since
        return 0
    judged = max(known.judged_size, tail.offset)
    # Only the end is missing, where what is before the offset still is there: it does not count from zero.
    return min(judged, size) if tail.offset else judged


def _close(fd: int) -> None:
    """Close a file; what its server says to that does not matter (FUSE's flush: ENOTCONN, EIO)."""
    with suppress(OSError):
        os.close(fd)
