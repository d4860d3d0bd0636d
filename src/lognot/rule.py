"""An item at work: its pattern, its windows. Monitor only; no I/O.

The item says what is wanted and never changes; the rule is what has been seen so far. It lives on when the
config is reloaded and the item is still the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from lognot.budget import Budget
from lognot.frequency import MAX_RAW_KEY_BYTES, NEVER_NS, DownBound, UpBound, compact_key
from lognot.ledger import Counted, Record
from lognot.messages import Kind
from lognot.pattern import Pattern, compile_pattern
from lognot.settings import Item

_NS = 10**9


class Rule:
    """What one item counts.

    Args:
        item_id: the number that the supervisor gave it.
        item: what is wanted.
        secret: makes compact keys (frequency.compact_key).

    Attributes:
        executor_id: who runs its actions.
        pattern: the compiled regex, after `use_engine`.
        budget: what its regex may cost.
        down: the lower bound, None without one.
    """

    pattern: Pattern

    def __init__(self, item_id: int, item: Item, secret: bytes) -> None:
        self.item_id = item_id
        self.executor_id = 0
        self.budget = Budget()
        self._item = item
        self._secret = secret
        self._engine = ""
        self._up = UpBound(item.upbound.count, item.upbound.seconds * _NS)
        self.down = DownBound(item.downbound.count, item.downbound.seconds * _NS) if item.downbound else None
        self._evicted = 0
        self._started = False
        self._actions = {
            Kind.UPBOUND: item.upbound_action is not None,
            Kind.DOWNBOUND: item.downbound_action is not None,
            Kind.SIZE: item.size_action is not None,
        }
        self._usecrc = item.usecrc
        self._fires = self._actions[Kind.UPBOUND]
        # Whether anything depends on a match later, so that the next monitor must know of it.
        self.remembers = self.down is not None or self._up.count > 0

    @property
    def resumes(self) -> bool:
        """Lines that were written before lognot started matter to it."""
        return self._item.resume

    @property
    def size_bytes(self) -> int:
        """It waits for multiples of this size; 0: for none."""
        return self._item.size or 0

    @property
    def wants_lines(self) -> bool:
        """Lines have to be searched for it."""
        return self._actions[Kind.UPBOUND] or self.down is not None

    def has_action(self, kind: Kind) -> bool:
        """There is something to run."""
        return self._actions[kind]

    def use_engine(self, engine: str) -> None:
        """Compile the regex, unless this engine has already.

        Raises:
            PatternError: it does not compile.
        """
        if engine != self._engine:
            self.pattern = compile_pattern(self._item.regex, engine)
            self._engine = engine

    def key_of(self, line: bytes, match: object) -> bytes | None:
        """Give the compact key that a match is counted for; None: matches are not told apart."""
        if not self._usecrc:
            return None
        start, end = self.pattern.whole(line, match)
        key = line[start:end]
        return key if end - start <= MAX_RAW_KEY_BYTES else compact_key(key, self._secret)

    def count(self, now_ns: int, keys: Sequence[bytes | None]) -> list[tuple[int, int]]:
        """Count matches, by their keys.

        Returns:
            The index of each that is over the upper bound, and the number of matches in the window.
        """
        if self.down is not None:
            for _ in keys:
                self.down.add(now_ns)
        return self._up.add_all(now_ns, keys) if self._fires else []

    def replay(self, record: Record) -> None:
        """Take in what an earlier monitor wrote down."""
        match record.kind:
            case Counted.MATCH | Counted.FIRED:
                if self.down is not None:
                    self.down.add(record.time_ns)
                if record.kind is Counted.FIRED:
                    self._up.restart(record.key)
                elif self._fires:
                    self._up.add(record.time_ns, record.key)
            case Counted.STARTED:
                self.start(record.time_ns)
            case Counted.JUDGED if self.down is not None:
                self.down.judge(record.time_ns)
            case Counted.RESTATED if self.down is not None and record.times_ns:
                started_ns, *times_ns = record.times_ns
                self._started = True
                self.down.restore(started_ns)
                self.down.recall(times_ns)
            case Counted.RECALLED if self.down is not None:
                self.down.recall(record.times_ns)

    def start(self, now_ns: int) -> bool:
        """Let the lower bound's deadline run, unless it does already; True when that is new."""
        if self.down is None or self._started:
            return False
        self._started = True
        self.down.start(now_ns)
        return True

    def deadline_ns(self) -> int:
        """When the lower bound has to be judged next."""
        return self.down.deadline_ns() if self.down is not None else NEVER_NS

    def newly_evicted(self) -> int:
        """How many keys were forgotten too early since this was last asked."""
        evicted, self._evicted = self._up.evicted - self._evicted, self._up.evicted
        return evicted
