"""The unprivileged role: reads events and log bytes, matches, counts, and says which action is to run.

Mind the word: where OpenSSH calls its privileged process the monitor, ours is the one without privileges.
It holds descriptors that the supervisor has opened, and can open, connect, fork and execute nothing. Lines
from a log are hostile; this is the only process that looks into them, so this is where they may do harm,
and what it could still do then is to trigger configured actions with wrong text.

One turn of the loop: take what the supervisor says and what the kernel reports, read one block of each file
that has grown, judge the deadlines that have come. What must outlive this process is in the ledger.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress

from lognot import messages as m
from lognot.channel import Channel, ChannelClosed
from lognot.dispatch import Dispatcher
from lognot.errors import NO_DESCRIPTOR_STATUS, LognotError, NoDescriptorError
from lognot.files import Files, Stream
from lognot.frequency import NEVER_NS
from lognot.guard import LONG_LINE_BYTES, SearchGuard
from lognot.journal import OWN_TAG, own_line_pattern
from lognot.ledger import JOURNAL_RECORDS, Counted, Ledger, restated_records
from lognot.loop import Loop
from lognot.messages import Kind, Notice
from lognot.notes import Notes
from lognot.pattern import choose_engine, jit_uses_files, load_engines
from lognot.privileges import JIT_FILE_BYTES, end_with_parent, lock_down
from lognot.rule import Rule
from lognot.sandbox import Sandbox
from lognot.scan import Failure, Hit, LeftOut, Overspent, Scanner
from lognot.service import ORPHAN_S, ignore_stop_signals
from lognot.settings import Item, config_from_json
from lognot.size import newly_reached
from lognot.tail import Block, size_of
from lognot.users import Account

STOP_S = 2.0  # what was written before the stop is read, but not for longer
LAST_WORDS_S = 0.5  # for handing over the actions and messages that came of it
MANY_HITS = 100  # in a block
# Less than the supervisor waits before it saves (continuity.SAVE_AFTER_S): so whatever is read after this was
# said is saved, or comes after the next time.
ADVANCED_EVERY_NS = 4 * 10**9
# New containers until garbage is looked for: a flood makes thousands for each block, and hardly a circle.
# With Python's own 700 a seventh of the time goes into looking.
COLLECT_AFTER = 100_000
# Records of the journal, after which it gets what lower bounds wait for once more, and how many these are.
RESTATE_AFTER = JOURNAL_RECORDS // 4
RESTATED_RECORDS = JOURNAL_RECORDS // 8
QUOTE_BYTES = 1024  # of a line or key that is told to the log


def run_monitor(channel: Channel, ledger: Ledger, service_pids: tuple[int, ...], account: Account) -> None:
    """Be the monitor until told to stop; the first thing is to become `account`.

    Args:
        channel: to the supervisor.
        ledger: what the last monitor has left.
        service_pids: of the supervisor, which writes our own log, and of those before it.
        account: who to be.

    Raises:
        LognotError, OSError: what cannot be gone on from; a new monitor will be started.
    """
    without = shut_in(account)
    gc.set_threshold(COLLECT_AFTER)
    Monitor(channel, ledger, service_pids).run(without)


def shut_in(account: Account) -> str:
    """Become `account` for ever, with no way out; give why there is no filter of system calls, "" for one.

    Raises:
        LognotError, OSError: one of the other steps failed.
    """
    load_engines()  # which opens files
    jit_files = jit_uses_files()
    sandbox = Sandbox(jit_files=jit_files)
    lock_down(account, JIT_FILE_BYTES if jit_files else 0)
    ignore_stop_signals()
    sandbox.enter()
    return sandbox.missing


class Monitor:
    """The role's state and its loop."""

    def __init__(self, channel: Channel, ledger: Ledger, service_pids: tuple[int, ...]) -> None:
        self._channel = channel
        self._ledger = ledger
        self._own_line = own_line_pattern(*service_pids)
        self._loop = Loop(linger_limit=True)
        self._notes = Notes(self._loop, self._tell)
        self._dispatchers: dict[int, Dispatcher] = {}
        self._mark = -1  # the start mark of the next connection to an executor
        self._files = Files(ledger, self._notes, self._tell, self._settled, self._on_commit)
        self._rules: dict[int, Rule] = {}
        self._rules_of: dict[int, list[Rule]] = {}  # by log
        self._scanners: dict[int, Scanner] = {}  # by log, where a rule looks at lines
        self._history_scanners: dict[int, Scanner | None] = {}  # by log: those of rules that resume
        self._down_rules: list[Rule] = []  # those with a lower bound
        self._restated = -RESTATE_AFTER  # records that there were when they were restated
        self._replayed = False
        self._times_to_use_again = ledger.times_to_use_again()  # by item, until its log was read
        self._begun = False
        self._resumes = False  # some rule does
        self._advance_ns = 0  # when to say next that files were read
        self._guard = SearchGuard(ledger, self._on_skipped)
        self._now_ns = time.monotonic_ns()
        self._holds_on = False
        self._stopping = False
        self._hurried = False

    def run(self, without: str = "") -> None:
        """Turn until the supervisor says Stop or is gone; `without` says why it has no sandbox."""
        self._loop.attach(self._channel, self._on_message, self._leave)
        if without:
            self._notes.say(Notice.NO_SANDBOX, 0, text=without.encode("utf-8", "replace"))
        while not self._stopping:
            behind, until_ns = self._behind()
            # What a line does to us before we have begun would be taken for a failure to start.
            wait = not self._begun or not self._files.is_dirty_without(behind)
            deadline_ns = min(until_ns, self._next_deadline_ns(), self._files.commit_ns)
            self._loop.turn(wait=wait, deadline_ns=deadline_ns)
            if self._begun:
                self._read(behind)
                if not self._files.dirty:
                    self._times_to_use_again.clear()
            self._judge()
            self._restate()
            self._files.commit()
            self._let_go()
        self._finish()

    # What the supervisor says.

    def _on_message(self, message: m.Message, fd: int) -> None:
        match message:
            case m.Configure():
                self._configure(message, _read_all(fd))
            case m.UseWatches():
                self._loop.watch(fd, lambda: self._files.take_events(fd))
            case m.LogOpened():
                self._files.opened(message, fd)
            case m.LogLooked():
                self._files.looked(message)
            case m.StreamUnwritten(stream_id):
                self._files.unwritten(stream_id)
            case m.UseStartMark():
                if self._mark >= 0:  # of a connection that could not be had
                    os.close(self._mark)
                self._mark = fd
            case m.ConnectExecutor(executor_id):
                self._dispatcher(executor_id).connect(socket.socket(fileno=fd), self._mark)
                self._mark = -1
            case m.Begin(token):
                self._begin()
                self._tell(m.Begun(token))
            case m.Ping():
                self._tell(m.Pong())
            case m.Stop():
                self._hurried = self._stopping  # asked twice
                self._stopping = True

    def _tell(self, message: m.Message) -> None:
        self._loop.send(self._channel, message)

    def _configure(self, message: m.Configure, data: bytes) -> None:
        config = config_from_json(data)
        engine = choose_engine(config.regex_engine)
        self._files.configure(set(message.log_ids), config.max_line_bytes)
        rules: dict[int, Rule] = {}
        rules_of: dict[int, list[Rule]] = {log_id: [] for log_id in message.log_ids}
        numbers = zip(message.item_ids, message.log_ids, message.executor_ids, config.items, strict=True)
        for item_id, log_id, executor_id, item in numbers:
            rule = self._rules.get(item_id) or self._new_rule(item_id, item)
            rule.executor_id = executor_id
            rule.use_engine(engine)
            rules[item_id] = rule
            rules_of[log_id].append(rule)
        for log_id in rules_of:
            self._begin_sizes(log_id)
        self._rules, self._rules_of = rules, rules_of
        self._resumes = any(rule.resumes for rule in rules.values())
        self._down_rules = [rule for rule in rules.values() if rule.down is not None]
        self._scanners.clear()
        self._history_scanners.clear()
        for log_id, of_log in rules_of.items():
            looking = [rule for rule in of_log if rule.wants_lines]
            if looking:
                self._scanners[log_id] = self._scanner(looking)
                resuming = [rule for rule in looking if rule.resumes]
                if len(resuming) < len(looking):  # else they look at all lines alike
                    self._history_scanners[log_id] = self._scanner(resuming) if resuming else None
        for executor_id in self._dispatchers.keys() - set(message.executor_ids):
            dropped = self._dispatchers[executor_id].retire()
            self._say_dropped(dropped, b"their user is none of the config any more")
        if not self._replayed:
            self._replayed = True
            self._replay()

    def _begin_sizes(self, log_id: int) -> None:
        """Have the rules that are about to come begin at the size that their log has now."""
        for stream in self._files.of_log(log_id):
            self._check_size(stream)  # for those before them
            with suppress(OSError):  # of a file system whose server is gone: the next read says so
                self._files.judged(stream, size_of(stream.fd))

    def _scanner(self, rules: list[Rule]) -> Scanner:
        patterns = [(rule.item_id, rule.pattern) for rule in rules]
        return Scanner(patterns, LONG_LINE_BYTES, self._guard.search, [rule.budget for rule in rules])

    def _new_rule(self, item_id: int, item: Item) -> Rule:
        rule = Rule(item_id, item, self._ledger.secret)
        for search in self._guard.deaths_of(item_id):
            rule.budget.ban(search.died_ns, search.line_bytes)
        return rule

    def _replay(self) -> None:
        """Count again what the last monitor has counted."""
        now_ns = time.monotonic_ns()
        for record in self._ledger.replay():
            rule = self._rules.get(record.item_id)
            # A later one is no fact, and would put off a deadline for ever.
            if rule and record.time_ns <= now_ns:
                rule.replay(record)

    def _begin(self) -> None:
        now_ns = time.monotonic_ns()
        for rule in self._rules.values():
            if rule.start(now_ns):
                self._ledger.count(now_ns, rule.item_id, Counted.STARTED)
        self._files.settle_records()
        self._begun = True

    def _dispatcher(self, executor_id: int) -> Dispatcher:
        if executor_id not in self._dispatchers:
            self._dispatchers[executor_id] = Dispatcher(
                self._loop, lambda: self._tell(m.PeerBroke(executor_id))
            )
        return self._dispatchers[executor_id]

    # Lines.

    def _behind(self) -> tuple[set[int], int]:
        """Give the logs not to be read now, since an executor still takes what they brought; until when."""
        now_ns = time.monotonic_ns()
        until_ns = {
            executor_id: dispatcher.behind_until_ns(now_ns)
            for executor_id, dispatcher in self._dispatchers.items()
        }
        if not any(until_ns.values()):
            return set(), NEVER_NS
        logs = {
            log_id
            for log_id, rules in self._rules_of.items()
            if any(until_ns.get(rule.executor_id) for rule in rules)
        }
        return logs, min(filter(None, until_ns.values()))

    def _read(self, behind: Collection[int] = ()) -> None:
        self._now_ns = time.monotonic_ns()
        for stream, reading in self._files.readings(behind):
            self._restate()  # for what the files before this one have brought
            if reading.truncated:
                self._notes.say(Notice.TRUNCATED, stream.log_id)
            for block in reading.blocks:
                if block.cut:
                    self._notes.say(Notice.LINE_CUT, stream.log_id)
                self._scan(stream, block)
            self._check_size(stream)
            if not reading.more and self._files.is_current(stream):
                for rule in self._rules_of[stream.log_id]:
                    self._times_to_use_again.pop(rule.item_id, None)

    def _scan(self, stream: Stream, block: Block) -> None:
        """Search a block and count what is found: the loop that a flood goes through."""
        self._ledger.add_statistics(len(block.lines), 0, 0)
        scanner = self._scanners.get(stream.log_id)
        if block.start < stream.history and stream.log_id in self._history_scanners:
            # A line that was unfinished at the start is for all.
            end = block.lines.rfind(b"\n", 0, stream.history - block.start) + 1
            history = Block(block.lines[:end], block.start)
            self._scan_with(self._history_scanners[stream.log_id], stream, history)
            block = Block(block.lines[end:], block.start + end)
        self._scan_with(scanner, stream, block)

    def _scan_with(self, scanner: Scanner | None, stream: Stream, block: Block) -> None:
        if scanner is None or not block.lines:
            return
        found = self._guard.scan(scanner, stream, block)
        # Many lines are looked at together: most logs do not hold our own.
        may_be_own = len(found) < MANY_HITS or OWN_TAG in block.lines
        matches: dict[int, tuple[list[Hit], list[bytes | None]]] = {}  # of each item, and their keys
        for hit in found:
            if isinstance(hit, Failure):
                self._on_failure(hit)
                continue
            _, line, item_id, _, match = hit
            if may_be_own and OWN_TAG in line and self._own_line.match(line):
                continue
            if item_id not in matches:
                matches[item_id] = [], []
            hits, keys = matches[item_id]
            hits.append(hit)
            keys.append(self._rules[item_id].key_of(line, match))
        if matches:
            self._count(stream, block, matches)

    def _on_failure(self, failure: Failure) -> None:
        if isinstance(failure, Overspent):
            self._notes.say(Notice.REGEX_LIMITED, failure.key, 1, failure.line[:QUOTE_BYTES])
        elif not isinstance(failure, LeftOut):
            self._notes.say(Notice.MATCH_FAILED, failure.key, 1, str(failure.error).encode())
        elif self._guard.is_fatal(failure.key, failure.start):
            self._on_skipped(failure.key, failure.line)
        else:
            self._notes.say(Notice.LINES_LEFT_OUT, failure.key, 1, failure.line[:QUOTE_BYTES])

    def _on_skipped(self, item_id: int, line: bytes) -> None:
        self._notes.say(Notice.LINE_SKIPPED, item_id, 1, line[:QUOTE_BYTES])

    def _count(
        self, stream: Stream, block: Block, matches: dict[int, tuple[list[Hit], list[bytes | None]]]
    ) -> None:
        """Count what was found in a block, and fire in the order of lines."""
        fired: list[tuple[Hit, int]] = []
        for item_id, (hits, keys) in matches.items():
            rule = self._rules[item_id]
            begin = 0
            for number, time_ns in self._times(item_id, len(keys)):
                counted, begin = keys[begin : begin + number], begin + number
                over = rule.count(time_ns, counted)
                fired += ((hits[begin - number + index], count) for index, count in over)
                if rule.remembers:
                    indexes = [index for index, _ in over]
                    self._ledger.count(time_ns, item_id, Counted.MATCH, counted, indexes)
            evicted = rule.newly_evicted()
            if evicted:
                self._notes.say(Notice.KEYS_EVICTED, item_id, evicted)
        if len(matches) > 1:
            order = {rule.item_id: number for number, rule in enumerate(self._rules_of[stream.log_id])}
            fired.sort(key=lambda one: (one[0].start, order[one[0].key]))
        for hit, count in fired:
            self._fire_hit(stream, block, hit, count)
        total = sum(len(keys) for _, keys in matches.values())
        self._ledger.add_statistics(0, total, len(fired))

    def _times(self, item_id: int, count: int) -> Iterator[tuple[int, int]]:
        """Say when so many next matches count: now, unless the last monitor has counted them before it died.

        Gives:
            Each number of matches, and their time.
        """
        again = self._times_to_use_again.get(item_id)
        while again and count:
            time_ns, number = again.popleft(), 1
            while again and again[0] == time_ns and number < count:
                again.popleft()
                number += 1
            yield number, time_ns
            count -= number
        if count:
            yield count, self._now_ns

    def _fire_hit(self, stream: Stream, block: Block, hit: Hit, count: int) -> None:
        rule = self._rules[hit.key]
        position = stream.tail.position_of(block.start + hit.start)
        spans = hit.spans
        action = m.RunAction(rule.item_id, Kind.UPBOUND, stream.stream_id, position, count, hit.line, spans)
        self._fire(rule, action, hit.line[slice(*spans[0])])

    def _fire(self, rule: Rule, action: m.RunAction, key: bytes = b"") -> None:
        dispatcher = self._dispatcher(rule.executor_id)
        if rule.has_action(action.kind) and not dispatcher.has_room(action):
            self._notes.say(Notice.ACTIONS_DROPPED, rule.item_id)
            return
        key, line = key[:QUOTE_BYTES], action.line[:QUOTE_BYTES]
        self._tell(m.ItemFired(action.item_id, action.kind, action.count, key, line))
        if rule.has_action(action.kind):
            self._hold_on()
            dispatcher.run(action)

    def _check_size(self, stream: Stream) -> None:
        """Fire for each rule whose size the file has reached a multiple of since it was judged last."""
        waiting = [rule for rule in self._rules_of.get(stream.log_id, ()) if rule.size_bytes]
        if not waiting:
            return
        try:
            size = size_of(stream.fd)
        except OSError:
            return
        judged_size = stream.judged_size
        self._files.judged(stream, size)
        for rule in waiting:
            # What was there before the start is of no interest to those that do not resume.
            before = judged_size if rule.resumes else max(judged_size, stream.history)
            multiple = newly_reached(rule.size_bytes, before, size)
            if multiple:
                position = stream.tail.position_of(multiple)
                self._ledger.add_statistics(0, 0, 1)
                self._fire(
                    rule, m.RunAction(rule.item_id, Kind.SIZE, stream.stream_id, position, multiple, b"", ())
                )

    # Deadlines.

    def _deadline_ns(self, rule: Rule) -> int:
        """When the lower bound is to be judged; not before what counts for it again was read again."""
        return NEVER_NS if rule.item_id in self._times_to_use_again else rule.deadline_ns()

    def _next_deadline_ns(self) -> int:
        return min(map(self._deadline_ns, self._down_rules), default=NEVER_NS)

    def _judge(self) -> None:
        now_ns = time.monotonic_ns()
        for rule in self._down_rules:
            deadline_ns = self._deadline_ns(rule)
            if now_ns < deadline_ns or rule.down is None:
                continue
            count = rule.down.judge(now_ns)
            # First: where this process dies in between, the next one judges again, and nothing runs twice.
            if count is not None:
                self._ledger.add_statistics(0, 0, 1)
                self._fire(rule, m.RunAction(rule.item_id, Kind.DOWNBOUND, 0, deadline_ns, count, b"", ()))
            self._ledger.count(now_ns, rule.item_id, Counted.JUDGED)
            self._files.settle_records()

    def _restate(self) -> None:
        """Write down what the lower bounds wait for, before a flood of other items pushes it off the journal.

        They would begin anew in the next monitor, and a silence of a day would never be one.
        """
        due = self._ledger.written >= self._restated + RESTATE_AFTER
        if not due or not self._begun or self._times_to_use_again:
            return
        self._judge()  # what was missed is no part of a state
        now_ns = time.monotonic_ns()
        states = [(rule.item_id, *rule.down.state(now_ns)) for rule in self._down_rules if rule.down]
        room = RESTATED_RECORDS
        for item_id, started_ns, times_ns in sorted(states, key=lambda state: len(state[2])):
            room -= restated_records(len(times_ns))
            if room >= 0:
                self._ledger.restate(now_ns, item_id, started_ns, times_ns)
        self._restated = self._ledger.written
        self._files.settle_records()

    # The end.

    def _on_commit(self) -> None:
        """Positions were committed: have them saved before long, when a restart is to go on from there."""
        if self._resumes and self._now_ns >= self._advance_ns:
            self._advance_ns = self._now_ns + ADVANCED_EVERY_NS
            self._tell(m.Advanced())

    def _settled(self) -> bool:
        """Every action that came of the lines so far outlives us."""
        return all(dispatcher.settled for dispatcher in self._dispatchers.values())

    def _hold_on(self) -> None:
        """Not to be ended with the supervisor for now: an action is handed over, and its line not committed.

        The next service would run it again.
        """
        if not self._holds_on:
            end_with_parent(at_once=False)
            self._holds_on = True

    def _let_go(self) -> None:
        if self._holds_on and not self._files.uncommitted:
            end_with_parent(at_once=True)
            self._holds_on = False

    def _leave(self, error: LognotError) -> None:
        """The supervisor is gone, or is none of ours, or what it sent did not fit: end at once.

        But where it is gone, what was found is handed over to the executors, which go on for a while.
        """
        if isinstance(error, ChannelClosed):
            deadline = time.monotonic() + ORPHAN_S
            while self._files.uncommitted and time.monotonic() < deadline:
                self._loop.turn(deadline_ns=time.monotonic_ns() + 10**8)
                self._files.commit()
            self._give_up()
        os._exit(NO_DESCRIPTOR_STATUS if isinstance(error, NoDescriptorError) else 1)

    def _finish(self) -> None:
        """Read what was written before the stop, and say what can not be done about it any more."""
        deadline = time.monotonic() + STOP_S
        self._files.read_all()
        while self._files.dirty or self._files.looking:
            if time.monotonic() > deadline or self._hurried:
                break
            self._read()
            self._files.commit()
            self._loop.turn(wait=not self._files.dirty, deadline_ns=time.monotonic_ns() + 10**8)
        for log_id, number in self._files.unread().items():
            if not all(rule.resumes for rule in self._rules_of[log_id]):
                self._notes.say(Notice.LEFT_UNREAD, log_id, number)
        deadline += LAST_WORDS_S
        while not self._settled() and time.monotonic() < deadline and not self._hurried:
            self._loop.turn(deadline_ns=time.monotonic_ns() + 10**8)
        self._give_up()
        self._notes.flush()
        while self._channel.pending_bytes and time.monotonic() < deadline:
            self._loop.turn(deadline_ns=time.monotonic_ns() + 10**8)

    def _give_up(self) -> None:
        """Drop the actions that no executor takes, and say so.

        They are committed too: or a service that resumes would run again what others have run.
        """
        for dispatcher in self._dispatchers.values():
            self._say_dropped(dispatcher.give_up(), b"lognot stops")
        self._files.commit()

    def _say_dropped(self, dropped: Counter[int], reason: bytes) -> None:
        for item_id, number in dropped.items():
            self._notes.say(Notice.ACTIONS_DROPPED, item_id, number, reason)


def _read_all(fd: int) -> bytes:
    """Read a memfd from its beginning; closes it."""
    try:
        return os.pread(fd, size_of(fd), 0)
    finally:
        os.close(fd)
