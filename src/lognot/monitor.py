"""The unprivileged role: reads events and log bytes, matches, counts, and says which action is to run.

Mind the word: where OpenSSH calls its privileged process the monitor, ours is the one without privileges.
It holds descriptors that the supervisor has opened, and can open, connect, fork and execute nothing. Lines
from a log are hostile; this is the only process that looks into them, so this is where they may do harm,
and what it could still do then is to trigger configured actions with wrong text.

One turn of the loop: take what the supervisor says and what the kernel reports, read one block of each file
that has grown, judge the deadlines that have come. What must outlive this process is in the ledger.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lognot import messages as m
from lognot import watch
from lognot.channel import Channel
from lognot.dispatch import Dispatcher
from lognot.errors import LognotError
from lognot.frequency import NEVER_NS
from lognot.journal import own_line_pattern
from lognot.ledger import Counted, Ledger, Position, Record, Search
from lognot.loop import Loop
from lognot.messages import Kind, Notice
from lognot.notes import Notes
from lognot.pattern import choose_engine, has_jit
from lognot.privileges import lock_down_monitor
from lognot.rule import Rule
from lognot.scan import Failure, Hit, Scanner
from lognot.service import ignore_stop_signals
from lognot.settings import Config, config_from_json
from lognot.tail import Block, Reading, Tail
from lognot.users import Account

# On shorter lines a search ends within 0.1 s (measured with JIT, whose limits bound each attempt). On longer
# ones a pattern can be slow without meeting any, since it may begin anew at each byte. SIGVTALRM then ends
# this process, and the next one leaves that search out.
LONG_LINE_BYTES = 1024 if has_jit() else 0
SEARCH_LIMIT_S = 1.0  # of CPU time
# After an end that was not asked for, any line may be to blame: so far each search is noted beforehand.
CAREFUL_BYTES = 512 * 1024
STOP_S = 2.0  # what was written before the stop is read, but not for longer
QUOTE_BYTES = 1024  # of a line or key that is told to the log


def run_monitor(channel: Channel, ledger: Ledger, service_pid: int, account: Account) -> None:
    """Be the monitor until told to stop; the first thing is to become `account`.

    Args:
        channel: to the supervisor.
        ledger: what the last monitor has left.
        service_pid: the supervisor's, which writes our own log.
        account: who to be.

    Raises:
        LognotError, OSError: what cannot be gone on from; a new monitor will be started.
    """
    choose_engine("auto")  # loads it, which opens files
    lock_down_monitor(account)
    ignore_stop_signals()
    Monitor(channel, ledger, service_pid).run()


@dataclass(slots=True)
class _Stream:
    """One open file of a log."""

    stream_id: int
    log_id: int
    fd: int
    slot: int
    wd: int
    tail: Tail
    base_size: int  # bytes; what the file had reached before it is of no interest
    careful_until: int = 0  # up to this offset each search is noted beforehand
    asked: bool = False  # whether the supervisor was asked if somebody writes to it still
    final: bool = False  # nobody does: read it to its end and let it go


@dataclass(slots=True)
class _Log:
    """One path, and what is looked for behind it."""

    log_id: int
    rules: list[Rule] = field(default_factory=list)
    scanner: Scanner | None = None  # None: no rule looks at lines
    current: int = 0  # the stream that the path leads to
    watches: tuple[tuple[int, bytes], ...] = ()
    looking: bool = False  # the supervisor was asked and has not answered yet
    look_again: bool = False  # something changed since


class Monitor:
    """The role's state and its loop."""

    def __init__(self, channel: Channel, ledger: Ledger, service_pid: int) -> None:
        self._channel = channel
        self._ledger = ledger
        self._own_line = own_line_pattern(service_pid)
        self._loop = Loop()
        self._notes = Notes(self._loop, self._tell)
        self._config: Config | None = None
        self._rules: dict[int, Rule] = {}
        self._logs: dict[int, _Log] = {}
        self._streams: dict[int, _Stream] = {}
        self._dispatchers: dict[int, Dispatcher] = {}
        self._inotify = -1
        self._of_file_wd: dict[int, set[int]] = {}  # streams
        self._of_directory_wd: dict[
            int, dict[bytes, set[int]]
        ] = {}  # names in it, and the logs they matter to
        self._dirty: dict[int, None] = {}  # streams to read, in the order in which they became so
        self._uncommitted: dict[int, None] = {}
        self._fatal_searches = ledger.fatal_searches()
        self._block_start = 0
        self._reading: _Stream | None = None
        self._now_ns = time.monotonic_ns()
        self._stopping = False

    def run(self) -> None:
        """Turn until the supervisor says Stop or is gone."""
        self._loop.attach(self._channel, self._on_message, _leave)
        while not self._stopping:
            self._loop.turn(wait=not self._dirty, deadline_ns=self._next_deadline_ns())
            self._now_ns = time.monotonic_ns()
            self._read_dirty()
            self._judge()
            self._commit_settled()
        self._finish()

    # What the supervisor says.

    def _on_message(self, message: m.Message, fd: int) -> None:
        match message:
            case m.Configure():
                self._configure(message, _read_all(fd))
            case m.UseWatches():
                self._inotify = fd
                self._loop.watch(fd, self._on_events)
            case m.LogOpened():
                self._on_opened(message, fd)
            case m.LogLooked():
                self._on_looked(message)
            case m.StreamUnwritten(stream_id):
                self._on_unwritten(stream_id)
            case m.ConnectExecutor(executor_id):
                self._dispatcher(executor_id).connect(socket.socket(fileno=fd))
            case m.Begin(token):
                self._begin()
                self._tell(m.Begun(token))
            case m.Ping():
                self._tell(m.Pong())
            case m.Stop():
                self._stopping = True

    def _tell(self, message: m.Message) -> None:
        self._loop.send(self._channel, message)

    def _configure(self, message: m.Configure, data: bytes) -> None:
        config = config_from_json(data)
        engine = choose_engine(config.regex_engine)
        first = self._config is None
        rules: dict[int, Rule] = {}
        logs = {log_id: self._logs.get(log_id) or _Log(log_id) for log_id in message.log_ids}
        for log in logs.values():
            log.rules = []
        numbers = zip(message.item_ids, message.log_ids, message.executor_ids, config.items, strict=True)
        for item_id, log_id, executor_id, item in numbers:
            rule = self._rules.get(item_id)
            if rule is None:
                rule = Rule(item_id, item, self._ledger.secret)
            rule.executor_id = executor_id
            rule.use_engine(engine)
            rules[item_id] = rule
            logs[log_id].rules.append(rule)
            current = self._streams.get(logs[log_id].current)
            if current:
                rule.first_size(os.fstat(current.fd).st_size)
        for log in logs.values():
            searched = [(rule.item_id, rule.pattern) for rule in log.rules if rule.wants_lines]
            log.scanner = Scanner(searched, LONG_LINE_BYTES, self._guard) if searched else None
        for log_id in self._logs.keys() - logs.keys():
            self._forget_log(self._logs[log_id])
        self._config, self._rules, self._logs = config, rules, logs
        for executor_id in self._dispatchers.keys() - set(message.executor_ids):
            self._dispatchers[executor_id].retire()
        for stream in self._streams.values():
            stream.tail.max_line_bytes = config.max_line_bytes
        if first:
            self._replay()

    def _replay(self) -> None:
        """Count again what the last monitor has counted."""
        for record in self._ledger.replay():
            rule = self._rules.get(record.item_id)
            if rule:
                rule.replay(record)

    def _begin(self) -> None:
        now_ns = time.monotonic_ns()
        for rule in self._rules.values():
            if rule.start(now_ns):
                self._ledger.count(Record(now_ns, rule.item_id, Counted.STARTED))
        self._settle()

    def _settle(self) -> None:
        if not self._uncommitted:  # else it is settled with the next commit
            self._ledger.settle()

    def _dispatcher(self, executor_id: int) -> Dispatcher:
        if executor_id not in self._dispatchers:
            self._dispatchers[executor_id] = Dispatcher(
                self._loop, lambda: self._tell(m.PeerBroke(executor_id))
            )
        return self._dispatchers[executor_id]

    # Files.

    def _on_opened(self, message: m.LogOpened, fd: int) -> None:
        known = self._streams.get(message.stream_id)
        if known or message.log_id not in self._logs or self._config is None:
            os.close(fd)
            if known:
                self._watch_file(known, message.wd)
            return
        tail = self._tail_of(message, fd, self._config.max_line_bytes)
        base_size = message.size if message.start is m.Start.END else tail.offset
        stream = _Stream(message.stream_id, message.log_id, fd, message.slot, 0, tail, base_size)
        if message.start is m.Start.COMMITTED:
            stream.careful_until = tail.offset + CAREFUL_BYTES
        self._streams[stream.stream_id] = stream
        self._watch_file(stream, message.wd)
        self._ledger.assign(stream.slot, _position_in(stream))  # no commit: other files may wait for theirs
        self._dirty[stream.stream_id] = None

    def _tail_of(self, message: m.LogOpened, fd: int, max_line_bytes: int) -> Tail:
        if message.start is m.Start.END:
            return Tail.at_end(fd, max_line_bytes, message.size)
        if message.start is m.Start.BEGIN:
            return Tail(fd, max_line_bytes)
        known = self._ledger.position(message.slot)
        tail = Tail(
            fd,
            max_line_bytes,
            offset=known.offset,
            generation=known.generation,
            skipping=known.skipping,
        )
        if tail.digest() != known.digest:  # emptied while nobody looked
            tail = Tail(fd, max_line_bytes, generation=known.generation + 1)
        return tail

    def _watch_file(self, stream: _Stream, wd: int) -> None:
        self._unwatch_file(stream)
        stream.wd = wd
        self._of_file_wd.setdefault(wd, set()).add(stream.stream_id)

    def _unwatch_file(self, stream: _Stream) -> None:
        streams = self._of_file_wd.get(stream.wd, set())
        streams.discard(stream.stream_id)
        if not streams:
            self._of_file_wd.pop(stream.wd, None)

    def _on_looked(self, message: m.LogLooked) -> None:
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
            log.current = message.stream_id
            if old:
                old.asked = False
                self._dirty[old.stream_id] = None
            self._new_current(log)
        log.looking = False
        if log.look_again or unknown:
            log.look_again = False
            self._look(log)

    def _new_current(self, log: _Log) -> None:
        stream = self._streams.get(log.current)
        if stream is None:
            return
        stream.asked = stream.final = False
        self._dirty[stream.stream_id] = None
        for rule in log.rules:
            if rule.size is None:
                rule.first_size(stream.base_size)
            else:
                rule.size.restart()

    def _unwatch_directories(self, log: _Log) -> None:
        for wd, name in log.watches:
            names = self._of_directory_wd.get(wd, {})
            names.get(name, set()).discard(log.log_id)
            if not names.get(name):
                names.pop(name, None)
            if not names:
                self._of_directory_wd.pop(wd, None)

    def _on_unwritten(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream and self._logs[stream.log_id].current != stream_id:
            stream.final = True
            self._dirty[stream_id] = None

    def _forget_log(self, log: _Log) -> None:
        self._unwatch_directories(log)
        for stream in [stream for stream in self._streams.values() if stream.log_id == log.log_id]:
            self._close(stream)

    def _close(self, stream: _Stream) -> None:
        del self._streams[stream.stream_id]
        self._unwatch_file(stream)
        self._dirty.pop(stream.stream_id, None)
        self._uncommitted.pop(stream.stream_id, None)
        os.close(stream.fd)

    # Events.

    def _on_events(self) -> None:
        for event in watch.read_events(self._inotify):
            if event.mask & watch.OVERFLOWED:
                self._notes.say(Notice.QUEUE_OVERFLOW, 0)
                for stream in self._streams.values():
                    stream.asked = False
                    self._dirty[stream.stream_id] = None
                for log in self._logs.values():
                    self._look(log)
            elif event.wd in self._of_file_wd:
                self._on_file_event(event)
            elif event.wd in self._of_directory_wd and not event.mask & watch.IGNORED:
                names = self._of_directory_wd[event.wd]
                # Without a name it is about the directory itself, and so about every way through it.
                concerned = names.get(event.name, ()) if event.name else set().union(*names.values())
                for log_id in concerned:
                    self._look(self._logs[log_id])

    def _on_file_event(self, event: watch.Event) -> None:
        for stream_id in self._of_file_wd[event.wd]:
            self._dirty[stream_id] = None
            if event.mask & watch.CLOSED:
                self._streams[stream_id].asked = False  # there is one writer less
            if event.mask & watch.ATTRIBUTES:  # its name may be gone, which a directory tells by name only
                self._look(self._logs[self._streams[stream_id].log_id])

    def _look(self, log: _Log) -> None:
        if log.looking:
            log.look_again = True
        else:
            log.looking = True
            self._tell(m.LookAgain(log.log_id))

    # Lines.

    def _read_dirty(self) -> None:
        """Read one block of each file that has grown, so that a busy one does not hold up the others."""
        for stream_id in list(self._dirty):
            stream = self._streams.get(stream_id)
            if stream is None:
                continue
            try:
                reading = stream.tail.read()
            except OSError as error:
                self._notes.say(Notice.FILE_UNREADABLE, stream.log_id, 1, (error.strerror or "").encode())
                reading = Reading()
            if not reading.more:
                self._dirty.pop(stream_id, None)
            self._take(stream, self._logs[stream.log_id], reading)
            if not reading.more and stream_id != self._logs[stream.log_id].current:
                self._drained(stream)

    def _take(self, stream: _Stream, log: _Log, reading: Reading) -> None:
        current = stream.stream_id == log.current
        if reading.truncated:
            self._notes.say(Notice.TRUNCATED, log.log_id)
            if current:
                for rule in log.rules:
                    if rule.size:
                        rule.size.restart()
        for block in reading.blocks:
            if block.cut:
                self._notes.say(Notice.LINE_CUT, log.log_id)
            self._scan(stream, log, block)
        if reading.blocks or reading.truncated:
            self._uncommitted[stream.stream_id] = None
            self._commit_settled()
            if current:
                # Whoever wrote to an older file may have come over to this one.
                for other in self._streams.values():
                    if other.log_id == log.log_id and other is not stream and other.asked:
                        other.asked = False
                        self._dirty[other.stream_id] = None
        if current:
            self._check_sizes(stream, log)

    def _scan(self, stream: _Stream, log: _Log, block: Block) -> None:
        lines = block.lines.count(b"\n")
        matches = fired = 0
        if log.scanner is not None:
            self._reading = stream
            self._block_start = block.start
            log.scanner.long_line_bytes = 0 if block.start < stream.careful_until else LONG_LINE_BYTES
            for hit in log.scanner.scan(block.lines):
                if isinstance(hit, Failure):
                    self._notes.say(Notice.MATCH_FAILED, hit.key, 1, str(hit.error).encode())
                elif not self._own_line.match(hit.line):
                    matches += 1
                    fired += self._on_hit(stream, block, hit)
        self._ledger.add_statistics(lines, matches, fired)

    def _on_hit(self, stream: _Stream, block: Block, hit: Hit) -> bool:
        rule = self._rules[hit.key]
        record, count = rule.count(self._now_ns, hit)
        if record is not None:
            self._ledger.count(record)
        evicted = rule.newly_evicted()
        if evicted:
            self._notes.say(Notice.KEYS_EVICTED, rule.item_id, evicted)
        if not count:
            return False
        position = _position(stream.tail.generation, block.start + hit.start)
        action = m.RunAction(
            rule.item_id, Kind.UPBOUND, stream.stream_id, position, count, hit.line, hit.spans
        )
        start, end = hit.spans[0]
        self._fire(rule, action, hit.line[start:end])
        return True

    def _fire(self, rule: Rule, action: m.RunAction, key: bytes = b"") -> None:
        if rule.has_action(action.kind) and not self._dispatcher(rule.executor_id).run(action):
            self._notes.say(Notice.ACTIONS_DROPPED, rule.item_id)
            return
        key, line = key[:QUOTE_BYTES], action.line[:QUOTE_BYTES]
        self._tell(m.ItemFired(action.item_id, action.kind, action.count, key, line))

    @contextmanager
    def _guard(self, item_id: int, line_start: int) -> Iterator[bool]:
        """Note a search that may not come back, and limit its time; gives False for one that did not."""
        assert self._reading is not None
        position = _position(self._reading.tail.generation, self._block_start + line_start)
        search = Search(self._reading.stream_id, position, item_id)
        if search in self._fatal_searches:
            self._notes.say(Notice.LINE_SKIPPED, item_id)
            yield False
            return
        self._ledger.begin_search(search)
        signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_LIMIT_S)
        try:
            yield True
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._ledger.end_search()

    def _check_sizes(self, stream: _Stream, log: _Log) -> None:
        for rule in log.rules:
            if rule.size is None:
                continue
            size = os.fstat(stream.fd).st_size
            multiple = rule.size.grown(size)
            if multiple:
                position = _position(stream.tail.generation, multiple)
                self._ledger.add_statistics(0, 0, 1)
                self._fire(
                    rule, m.RunAction(rule.item_id, Kind.SIZE, stream.stream_id, position, multiple, b"", ())
                )

    def _drained(self, stream: _Stream) -> None:
        """A file that is not the current one any more was read to its end."""
        if stream.final:
            self._uncommitted[stream.stream_id] = None
            self._commit_settled()
            if stream.stream_id not in self._uncommitted:
                self._close(stream)
                self._tell(m.StreamDropped(stream.stream_id))
        elif not stream.asked:
            stream.asked = True
            self._tell(m.StreamDrained(stream.stream_id))

    # Deadlines.

    def _next_deadline_ns(self) -> int:
        return min((rule.deadline_ns() for rule in self._rules.values()), default=NEVER_NS)

    def _judge(self) -> None:
        now_ns = time.monotonic_ns()
        for rule in self._rules.values():
            deadline_ns = rule.deadline_ns()
            if now_ns < deadline_ns or rule.down is None:
                continue
            count = rule.down.judge(now_ns)
            self._ledger.count(Record(now_ns, rule.item_id, Counted.JUDGED))
            self._settle()
            if count is not None:
                self._ledger.add_statistics(0, 0, 1)
                self._fire(rule, m.RunAction(rule.item_id, Kind.DOWNBOUND, 0, deadline_ns, count, b"", ()))

    # What outlives us.

    @property
    def _settled(self) -> bool:
        """Every action that came of the lines so far outlives us."""
        return all(dispatcher.settled for dispatcher in self._dispatchers.values())

    def _commit_settled(self) -> None:
        """Write down how far the files were read, unless an action that came of it would die with us."""
        if not self._uncommitted or not self._settled:
            return
        streams = [self._streams[stream_id] for stream_id in self._uncommitted]
        # All of them at once: the records of counted matches that go with it may come from any.
        self._ledger.commit((stream.slot, _position_in(stream)) for stream in streams)
        self._uncommitted.clear()
        # Those that nobody writes to can be closed now.
        self._dirty.update((stream.stream_id, None) for stream in streams if stream.final)

    def _finish(self) -> None:
        """Read what was written before the stop."""
        deadline = time.monotonic() + STOP_S
        self._dirty.update(dict.fromkeys(self._streams))
        while self._dirty and time.monotonic() < deadline:
            self._read_dirty()
            self._loop.turn(wait=False)
        while not self._settled and time.monotonic() < deadline:
            self._loop.turn(deadline_ns=time.monotonic_ns() + 10**8)
        self._commit_settled()


def _leave(error: LognotError) -> None:
    """The supervisor is gone, or is none of ours: end at once."""
    os._exit(1)


def _position_in(stream: _Stream) -> Position:
    """How far a file was read."""
    tail = stream.tail
    return Position(stream.stream_id, tail.offset, tail.generation, tail.skipping, tail.digest())


def _position(generation: int, number: int) -> int:
    """Where in a file something is, so that positions only grow, over truncations too."""
    return (generation & 0xFFFF) << 48 | number & 0xFFFFFFFFFFFF


def _read_all(fd: int) -> bytes:
    """Read a memfd from its beginning, without moving the offset that it shares; closes it."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
