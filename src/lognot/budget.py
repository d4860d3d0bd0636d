"""What one item's regex may cost: a budget of CPU time, and what is left for it when that is used up.

Monitor only, pure: times are passed in, CLOCK_MONOTONIC in nanoseconds. Whoever writes lines that are made
for a regex can have it use its budget, but no more, so other items are hardly held up. An item without budget
is on a rein: ordinary lines still match. It is never told a match that is none; it may miss one.

Only what is too much counts (`excess_ns`): an ordinary search takes microseconds and is free, so a log that
is busy costs no item anything. What tiny lines cost is counted once more by itself: where a rein does not
help, since a flood of them is made for what it still allows, there is a pause.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from lognot.pattern import SHORT_LINE_BYTES, has_jit

_NS = 10**9

CAPACITY_NS = 20_000_000  # one or two of the worst searches of a short line
SHARE = 0.02  # of the time, for each item: 20 ms in a second
DEBT_NS = 3 * CAPACITY_NS  # more is forgiven: the rein is off again after three seconds of other lines

# Tiny lines may cost half as much again before there is a pause: few steps are tried first. It ends when this
# much is back, after a tenth of a second at the earliest: else it would begin and end with each line.
TINY_CAPACITY_NS = CAPACITY_NS * 3 // 2
RESUME_NS = CAPACITY_NS // 10
# A search of one takes no longer: what is measured beyond was a garbage collection, or another guest of the
# host of a virtual machine.
TINY_MOST_NS = CAPACITY_NS // 4

# What of a search is not counted: more than a slow regex takes on an ordinary line. That is 20 us, and ten
# times as much without JIT.
FREE_NS = 50_000 if has_jit() else 500_000
FREE_NS_PER_BYTE = 10
# For a search that met its limit where nobody has looked at the clock: PCRE takes 0.2 to 2 ms for it.
FAILED_NS = 1_000_000

# A search that had to be ended together with the monitor is not risked again for so long.
FIRST_BAN_NS = 60 * _NS
LONGEST_BAN_NS = 3600 * _NS
# So many tiny lines that did that within FIRST_BAN_NS, and the item is not searched at all: some logs have no
# others, so a few are borne, though each death holds up the other items for some 30 ms.
TINY_DEATHS = 8

# What PCRE does not count as steps, such as comparing for a back-reference, takes 0.6 ms on these. That is
# little for one of them; a block of them would take 0.3 s.
TINY_LINE_BYTES = 256


class Rein(IntEnum):
    """How short the rein is. Each includes what those before it say."""

    FREE = 0
    NO_LONG = 1  # long lines are not searched
    FEW_STEPS = 2  # PCRE gets few steps
    TINY = 3  # only tiny lines are searched
    NOTHING = 4  # nothing is

    @property
    def longest_bytes(self) -> int | None:
        """The longest line to search; None: any."""
        return _LONGEST_BYTES[self]


_LONGEST_BYTES = {
    Rein.FREE: None,
    Rein.NO_LONG: SHORT_LINE_BYTES,
    Rein.FEW_STEPS: SHORT_LINE_BYTES,
    Rein.TINY: TINY_LINE_BYTES,
    Rein.NOTHING: -1,
}


def excess_ns(took_ns: int, line_bytes: int) -> int:
    """Give how much of a search's time is too much for its line; 0 for an ordinary search."""
    return max(0, took_ns - FREE_NS - FREE_NS_PER_BYTE * line_bytes)


class _Bucket:
    """CPU time that may be spent, and comes back at SHARE of the time.

    Args:
        capacity_ns: there is never more.
        debt_ns: nor less than minus this.
    """

    def __init__(self, capacity_ns: int, debt_ns: int) -> None:
        self._capacity_ns = capacity_ns
        self._debt_ns = debt_ns
        self._left_ns = capacity_ns
        self._at_ns = 0  # when that was so

    def left_ns(self, now_ns: int) -> int:
        """Give what may be spent at a time."""
        self._left_ns = min(self._capacity_ns, self._left_ns + int((now_ns - self._at_ns) * SHARE))
        self._at_ns = now_ns
        return self._left_ns

    def take(self, cost_ns: int) -> None:
        """Spend it, at the time of the last look."""
        self._left_ns = max(self._left_ns - cost_ns, -self._debt_ns)


class Budget:
    """Token buckets for one item, and the ban after a search that did not come back.

    Attributes:
        rein: as it was at the last call.
    """

    def __init__(self) -> None:
        self.rein = Rein.FREE
        self._all = _Bucket(CAPACITY_NS, DEBT_NS)
        # By itself, so that a few longer lines cannot bring about a pause.
        self._tiny = _Bucket(TINY_CAPACITY_NS, CAPACITY_NS)
        self._pauses = False
        self._ban = Rein.FREE
        self._ban_ns = 0  # how long the last one is
        self._banned_until_ns = 0
        self._tiny_deaths_ns: deque[int] = deque(maxlen=TINY_DEATHS)

    def spend(self, now_ns: int, cost_ns: int, line_bytes: int) -> bool:
        """Pay for a search of a line; True when the rein is shorter now."""
        before = self.look(now_ns)
        if line_bytes <= TINY_LINE_BYTES:
            cost_ns = min(cost_ns, TINY_MOST_NS)
            self._tiny.take(cost_ns)
        self._all.take(cost_ns)
        return self.look(now_ns) > before

    def look(self, now_ns: int) -> Rein:
        """Give the rein at a time."""
        left_ns = self._all.left_ns(now_ns)
        if self._is_paused(now_ns):
            rein = Rein.NOTHING
        elif left_ns > 0:
            rein = Rein.FREE
        else:
            rein = Rein.FEW_STEPS if left_ns > -CAPACITY_NS else Rein.TINY
        self.rein = max(rein, self._ban) if now_ns < self._banned_until_ns else rein
        return self.rein

    def _is_paused(self, now_ns: int) -> bool:
        left_ns = self._tiny.left_ns(now_ns)
        self._pauses = left_ns <= 0 or (self._pauses and left_ns < RESUME_NS)
        return self._pauses

    def ban(self, died_ns: int, line_bytes: int) -> None:
        """Learn of a search that took the monitor with it; in the order in which they did.

        One more while the ban lasts, or soon after, makes it last twice as long; of tiny lines, so many more.
        """
        again = self._ban_ns and died_ns < self._banned_until_ns + self._ban_ns
        if not again:
            self._ban_ns = FIRST_BAN_NS
        if line_bytes > TINY_LINE_BYTES:
            self._ban = Rein.NO_LONG if line_bytes > SHORT_LINE_BYTES else Rein.TINY
            enough = True
        else:
            self._tiny_deaths_ns.append(died_ns)
            first_ns = self._tiny_deaths_ns[0]
            enough = len(self._tiny_deaths_ns) == TINY_DEATHS and died_ns - first_ns < FIRST_BAN_NS
            self._ban = Rein.NOTHING if enough else Rein.TINY
        if again and enough:
            self._ban_ns = min(2 * self._ban_ns, LONGEST_BAN_NS)
        self._banned_until_ns = died_ns + self._ban_ns
