"""Every log that the config names, and where its path leads. Supervisor only.

No content is read here. The monitor says "look again at log 3", and this module looks.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from lognot.errors import OpenRefusedError, reason_of
from lognot.journal import INFO, WARNING, Event, Journal
from lognot.ledger import MAX_OFFSET, Ledger, Position
from lognot.messages import LogLooked, Start, StreamUnwritten
from lognot.opening import born, has_writer, open_log
from lognot.quota import Quota, QuotaJournal
from lognot.resuming import Resumption, say_lost
from lognot.roll import Roll
from lognot.state import NOWHERE, Identity, SavedStream
from lognot.streams import PASSING, Log, Send, Stream, Streams, is_newest, leads_to_current
from lognot.unseen import Unseen
from lognot.watch import WatchLimitError

MAX_ROTATED = 8  # older files of one log that are kept while somebody may still write to them
MAX_REMEMBERED = 16  # files of one log that were left and may come back, such as targets of a symlink

# What a log may make us write of its coming and going: some 800 records at once, and then 4 a second.
LOG_BURST_BYTES = 256 * 1024
LOG_BYTES_PER_S = 1024


class Logs:
    """The logs, and the watches of the monitor that runs.

    Args:
        ledger: where the monitor writes down how far it has read.
        journal: our own log.
        roll: where to write down which file that is about, for the next service.
    """

    def __init__(self, ledger: Ledger, journal: Journal, roll: Roll | None = None) -> None:
        self._journal = journal
        self._streams = Streams(ledger, roll)
        self._unseen = Unseen(self._streams)
        self._logs: dict[int, Log] = {}
        self._resumptions: dict[int, Resumption] = {}  # by log, while there is something to go on with
        self._ids: dict[str, int] = {}
        self._next_log_id = 1

    def configure(self, paths: Iterable[str], resuming: Collection[str] = ()) -> dict[str, int]:
        """Take these paths and no others; give each its log's number. Known logs go on as they were.

        Args:
            paths: absolute.
            resuming: those of them that the next service is to go on with.
        """
        self._unseen.try_again()
        wanted = set(paths)
        for path in [path for path in self._ids if path not in wanted]:
            log = self._logs.pop(self._ids.pop(path))
            for stream in list(log.streams.values()):
                self._streams.close(log, stream)
            self._forget_saved(log)
            self._unseen.forget(log)
            self._streams.release(wd for wd, _ in log.directories)
        for path in sorted(wanted - self._ids.keys()):
            self._ids[path] = self._next_log_id
            self._logs[self._next_log_id] = self._new_log(path)
            self._next_log_id += 1
        for log in self._logs.values():
            log.resumes = log.path in resuming
            for stream in log.streams.values():
                self._streams.enroll(log, stream)
            if not log.resumes:
                self._forget_saved(log)
        return dict(self._ids)

    def resume(self, saved: Mapping[str, tuple[SavedStream, ...]]) -> None:
        """Go on with what the last service has left, when each log is looked at for the first time.

        What does not come from memory has a place there when this returns: whoever is killed from then on
        leaves it to the next service.
        """
        self._streams.take_over(one for streams in saved.values() for one in streams if one.slot >= 0)
        for path, streams in saved.items():
            if streams and path in self._ids:
                log = self._logs[self._ids[path]]
                known = (one if one.slot >= 0 else self._streams.reserve(log, one) for one in streams)
                resumption = Resumption(self._streams, log, known, streams[-1].identity)
                self._resumptions[log.log_id] = resumption

    def _forget_saved(self, log: Log) -> None:
        """Go on with nothing that is not open."""
        self._streams.leave(log, None)
        resumption = self._resumptions.pop(log.log_id, None)
        if resumption is not None:
            resumption.forget()

    def positions(self) -> dict[str, tuple[SavedStream, ...]]:
        """Give how far the logs that are to go on were read, by path."""
        return {log.path: self._positions_of(log) for log in self._logs.values() if log.resumes}

    def _positions_of(self, log: Log) -> tuple[SavedStream, ...]:
        resumption = self._resumptions.get(log.log_id)
        found = [*(resumption.positions() if resumption else ()), *self._streams.positions(log)]
        # Beyond the limit: a monitor that was taken over has written that.
        sound = [one for one in found if one.position.offset <= MAX_OFFSET]
        current = log.streams.get(log.current)
        last = current.identity if current else None
        return tuple(sorted(sound, key=lambda one: (one.identity == last, one.position.stream_id)))

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
        self._streams.connect(send)
        for log in self._logs.values():
            log.directories = []
            for stream in log.streams.values():
                stream.wd = 0  # a watch of the last monitor
                try:
                    self._streams.pass_on(log, stream)
                except OSError:
                    log.limited = True

    def begun(self) -> None:
        """The monitor has looked at all that it was given, and dropped what is not what it should be."""
        for log in self._logs.values():
            stream = log.streams.get(log.current)
            if stream is not None and stream.wd and stream.start is Start.LEFTOVER:
                stream.start = Start.COMMITTED
        self._streams.close_outdated_watches()

    def disconnect(self) -> None:
        """Send nothing until the next `connect`."""
        self._streams.disconnect()

    def look_all(self) -> None:
        """Look at every log."""
        for log_id in self._logs:
            self.look(log_id)

    def look(self, log_id: int) -> None:
        """Look where a log's path leads now, pass on what is new, and answer with LogLooked."""
        log = self._logs.get(log_id)
        if log is None or not self._streams.watching:
            return  # it went with a reload
        watches: list[tuple[int, bytes]] = []
        trouble, event = "", Event.LOG_REFUSED
        log.limited = False
        try:
            for stream in log.streams.values():
                if not stream.wd:  # a limit was in the way
                    self._streams.pass_on(log, stream)
            if not self._is_followed(log):
                self._unseen.pass_over(log)
            fd = open_log(log.path, lambda directory, name: self._visit(log, directory, name, watches))
            try:
                status = os.fstat(fd)
                resumed = self._resume(log, status)
                self._take_unseen(log)
            except BaseException:
                os.close(fd)
                raise
            if resumed:
                self._take(log, fd, status)
                self._finish_resuming(log)
                self._streams.leave(log, None)
            else:
                os.close(fd)
        except OpenRefusedError as error:
            trouble = str(error)
        except OSError as error:
            if isinstance(error, WatchLimitError) and self._give_way():
                self._streams.release(wd for wd, _ in watches)
                self.look(log_id)
                return
            trouble = reason_of(error)
            log.limited = error.errno in PASSING
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                event = Event.LOG_MISSING
        if trouble and not log.limited:
            try:
                if event is Event.LOG_MISSING:
                    self._resume(log, None)
                self._take_unseen(log)
            except (OpenRefusedError, OSError):
                log.limited = True
            if event is Event.LOG_MISSING:
                log.start = Start.BEGIN  # whatever appears is new
        if log.limited:  # the path cannot be walked: go on with what there is
            self._streams.release(wd for wd, _ in watches)
            self._note_first(log)
            if not leads_to_current(log):
                log.current = 0  # it was rotated away, and frees what it takes when it was read
        else:
            self._streams.release(wd for wd, _ in log.directories)
            log.directories = watches
            if trouble:
                log.current = 0
        if trouble and trouble != log.trouble:
            verb = "is not there yet" if event is Event.LOG_MISSING else "cannot be watched"
            when = "every few seconds" if log.limited else "when something changes"
            text = f"log '{log.path}' {verb}, will be tried again {when}: {trouble}"
            log.say(event, WARNING, text)
        log.trouble = trouble
        if not (log.streams or log.left or log_id in self._resumptions):
            self._leave_nothing(log)
        self._streams.send(LogLooked(log_id, log.current, tuple(log.directories)), -1)
        if log_id not in self._resumptions:
            self._push_out(log)  # not before: the monitor keeps the file that it takes for the current one

    def limited(self) -> list[int]:
        """Give the logs to look at again in a while, since nothing will say when.

        They met a limit of the system, or a file of theirs is on its way to another name.
        """
        unseen = self._unseen.logs()
        return [log_id for log_id, log in self._logs.items() if log.limited or log_id in unseen]

    def unreadable(self, stream_id: int) -> None:
        """The monitor cannot read a file: pass it again later, unless it was not to be kept anyway."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        resumption = self._resumptions.get(log.log_id)
        if resumption is not None and resumption.is_on_trial(stream):
            self._streams.send(StreamUnwritten(stream_id), -1)  # it may have read some of it
            resumption.refused(stream)
            self.look(log.log_id)
        elif stream_id in _pushed_out(log):
            self._streams.send(StreamUnwritten(stream_id), -1)
            self._streams.close(log, stream)
        else:
            self._streams.withdraw(stream)
            log.limited = True

    def unwritten(self, stream_id: int) -> None:
        """Say StreamUnwritten when nobody writes to a rotated-away file any more."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        self._read_to_an_end(log, stream)
        # None is no answer (a file system without leases): then it is kept until newer ones push it out.
        if stream_id != log.current and has_writer(stream.fd) is False:
            self._streams.send(StreamUnwritten(stream_id), -1)

    def dropped(self, stream_id: int) -> None:
        """The monitor has let go of a stream: close it."""
        found = self._find(stream_id)
        if found is None:
            return
        log, stream = found
        if stream.start is Start.LEFTOVER and not stream.accepted:
            self._refused(log, stream)
            return
        is_there = True
        with suppress(OSError):  # its server is gone, or knows the file no more: ENOTCONN, ESTALE
            is_there = os.fstat(stream.fd).st_nlink > 0
            if is_there:
                log.remembered[stream.identity, born(stream.fd)] = self._streams.position(stream)
                while len(log.remembered) > MAX_REMEMBERED:
                    log.remembered.popitem(last=False)
        resumption = self._resumptions.get(log.log_id)
        if resumption is not None:
            resumption.done(stream)
        else:
            self._close(log, stream, is_there=is_there)
        if stream_id == log.current:  # the path came to lead to it again just now
            log.current = 0
            self.look(log.log_id)

    def _close(self, log: Log, stream: Stream, *, is_there: bool) -> None:
        """Let a file go. If it was the last one of its log, the next service goes on from there.

        Args:
            is_there: it has a name, by which it may come back.
        """
        is_last = log.resumes and log.current in (0, stream.stream_id) and is_newest(log, stream)
        if is_last and is_there:
            self._streams.leave(log, self._streams.shelve(log, stream))
            return
        if is_last:
            self._leave_nothing(log)
        self._streams.close(log, stream)

    def _leave_nothing(self, log: Log) -> None:
        """Have the next service read what it finds from its first byte, as this one would."""
        if log.resumes and log.start is Start.BEGIN:
            try:
                self._streams.leave(log, self._streams.reserve(log, SavedStream(NOWHERE, Position(0))))
            except OSError:  # too many files are open
                log.limited = True

    def _note_first(self, log: Log) -> None:
        """Note where a log ends whose history is of no interest: what comes now is to be read later."""
        if log.start is Start.END and log.first_seen is None:
            with suppress(OSError):
                status = os.stat(log.path)
                log.first_seen = ((status.st_dev, status.st_ino), status.st_size)

    def _visit(self, log: Log, directory: int, name: bytes, watches: list[tuple[int, bytes]]) -> None:
        self._unseen.follow(log, directory, name)
        try:
            watches.append((self._streams.watch_directory(directory), name))
        except WatchLimitError:
            raise
        except OSError:  # a directory that we may pass but not read: changes in it go unseen
            return

    def _read_to_an_end(self, log: Log, stream: Stream) -> None:
        stream.accepted = True
        resumption = self._resumptions.get(log.log_id)
        if resumption is not None and resumption.drained(stream):
            self.look(log.log_id)

    def _refused(self, log: Log, stream: Stream) -> None:
        """The monitor has found other bytes in a file than those that were read."""
        resumption = self._resumptions.get(log.log_id)
        if stream.stream_id == log.current:
            log.current = 0
            if resumption is None:
                resumption = Resumption(self._streams, log, (), stream.identity)
                self._resumptions[log.log_id] = resumption
            resumption.emptied(stream)
            self.look(log.log_id)
        elif resumption is None:
            self._close(log, stream, is_there=False)
            say_lost(log, "is another one by now")
        elif resumption.refused(stream):
            self.look(log.log_id)

    def _resume(self, log: Log, current: os.stat_result | None) -> bool:
        """Open what is to be read before the file that the path leads to (Resumption.advance)."""
        resumption = self._resumptions.get(log.log_id)
        if resumption is None:
            return True
        log.start = Start.BEGIN
        is_ready = resumption.advance(current)
        if resumption.over:
            del self._resumptions[log.log_id]
        return is_ready

    def _take_unseen(self, log: Log) -> None:
        """Open the files that the path has led to, but not when anybody looked.

        Raises:
            OSError: a limit of the system was met.
        """
        if self._is_followed(log):
            self._unseen.open(log)
        elif log.start is Start.END:  # it may have left while the path was walked
            self._unseen.pass_over(log)

    def _is_followed(self, log: Log) -> bool:
        """What leaves the log's name is to be read; before, it is history, or found in another way."""
        return log.start is not Start.END and log.log_id not in self._resumptions

    def _give_way(self) -> bool:
        """Leave the watches that there are to what cannot do without any; False when that was done before."""
        if not self._unseen.give_way():
            return False
        text = (
            "inotify limit reached, raise the sysctl fs.inotify.max_user_watches: until the next reload, "
            "files of a log that is rotated several times within a moment are found by names and times only"
        )
        self._journal.write(Event.SELF_ERROR, WARNING, text)
        return True

    def _finish_resuming(self, log: Log) -> None:
        resumption = self._resumptions.pop(log.log_id, None)
        if resumption is not None:
            resumption.end()

    def _take(self, log: Log, fd: int, status: os.stat_result) -> None:
        """Make the file behind a descriptor the current one, and own the descriptor.

        Raises:
            OSError: it cannot be watched, or too many files are open.
        """
        identity = (status.st_dev, status.st_ino)
        for stream in log.streams.values():
            if stream.identity == identity:
                os.close(fd)
                if not stream.wd:
                    self._streams.pass_on(log, stream)
                if log.current != stream.stream_id:
                    log.current = stream.stream_id
                    stream.pushed_out = False
                    log.say(Event.LOG_OPENED, INFO, f"log '{log.path}' is back")
                return
        if log.first_seen is not None and log.start is Start.END and log.first_seen[0] != identity:
            log.start = Start.BEGIN  # it was rotated before it could be watched: this one is new
        resumption = self._resumptions.get(log.log_id)
        going_on = resumption is not None and resumption.was_there(identity)
        one = self._known(log, fd, identity)
        start = log.start if one is None else Start.COMMITTED if one.slot < 0 else Start.LEFTOVER
        # What is there already of a log that goes on was written before the start.
        history = status.st_size if going_on else 0
        if resumption is not None and resumption.history:
            history = min(history, resumption.history)
        stream = self._streams.add(log, fd, status, start, one, history=history)
        if resumption is not None:
            resumption.opened(stream)
        log.remembered.pop((identity, born(stream.fd)), None)
        log.current = stream.stream_id
        event, text = Event.LOG_OPENED, f"watching log '{log.path}'"
        if going_on and one:
            event, text = Event.RESUMED, f"going on with log '{log.path}' at byte {one.position.offset}"
        elif len(log.streams) > 1:
            event, text = Event.LOG_ROTATED, f"log '{log.path}' was rotated"
        log.start = Start.BEGIN
        log.first_seen = None
        log.say(event, INFO, text)

    def _push_out(self, log: Log) -> None:
        """Let go of the oldest files where there are too many, when they were read."""
        for old in _pushed_out(log):
            stream = log.streams[old]
            if not stream.pushed_out:
                stream.accepted = stream.pushed_out = True
                self._streams.send(StreamUnwritten(old), -1)

    def _known(self, log: Log, fd: int, identity: Identity) -> SavedStream | None:
        """Give how far the file was read that a path leads to; None: nobody knows of it."""
        resumption = self._resumptions.get(log.log_id)
        if resumption is not None:
            return resumption.position(identity)
        position = log.remembered.get((identity, born(fd)))
        return SavedStream(identity, position) if position else None

    def _find(self, stream_id: int) -> tuple[Log, Stream] | None:
        for log in self._logs.values():
            if stream_id in log.streams:
                return log, log.streams[stream_id]
        return None


def _pushed_out(log: Log) -> list[int]:
    """Give the streams for which there are too many newer ones."""
    return sorted(stream_id for stream_id in log.streams if stream_id != log.current)[:-MAX_ROTATED]
