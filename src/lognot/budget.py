"""What one item's regex may cost: a budget of CPU time, and what is left for it when that is used up.

Monitor only, pure: times are passed in, CLOCK_MONOTONIC in nanoseconds. Whoever writes lines that are made
for a regex can have it use its budget, but no more, so other items are hardly held up. An item without budget
is on a rein: ordinary lines still match. It is never told a match that is none; it may miss one.

Only what is too much counts (`is_excessive`): an ordinary search takes microseconds and is free.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from lognot.pattern import SHORT_LINE_BYTES

_NS = 10**9

CAPACITY_NS = 20_000_000  # one or two of the worst searches of a short line
SHARE = 0.02  # of the time, for each item: 20 ms in a second
DEBT_NS = 3 * CAPACITY_NS  # more is forgiven: the rein is off again after three seconds of other lines

# What a search may take without being counted: ten times what a slow regex takes on an ordinary line.
FREE_NS = 500_000
FREE_NS_PER_BYTE = 10
# For a search that met its limit where nobody has looked at the clock: PCRE takes 0.2 to 2 ms for it.
FAILED_NS = 1_000_000

# A search that had to be ended together with the monitor is not risked again for so long.
FIRST_BAN_NS = 60 * _NS
LONGEST_BAN_NS = 3600 * _NS
# So many tiny lines that did that within FIRST_BAN_NS, and the item is not searched at all: some logs have no
# others, so a few are borne, though each death holds up the other items for some 30 ms.
TINY_DEATHS = 8

# Even what PCRE does not count as steps, such as comparing for a back-reference, takes no millisecond on
# these.
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


def is_excessive(took_ns: int, line_bytes: int) -> bool:
    """Say whether a search's time is too much for its line."""
    return took_ns > FREE_NS + FREE_NS_PER_BYTE * line_bytes


class Budget:
    """A token bucket for one item, and the ban after a search that did not come back.

    Attributes:
        rein: as it was at the last call.
    """

    def __init__(self) -> None:
        self.rein = Rein.FREE
        self._left_ns = CAPACITY_NS
        self._at_ns = 0  # when that was so
        self._ban = Rein.FREE
        self._ban_ns = 0  # how long the last one is
        self._banned_until_ns = 0
        self._tiny_deaths_ns: deque[int] = deque(maxlen=TINY_DEATHS)

    def spend(self, now_ns: int, cost_ns: int) -> bool:
        """Pay for a search; True when the rein is shorter now."""
        before = self.look(now_ns)
        self._left_ns = max(self._left_ns - cost_ns, -DEBT_NS)
        return self.look(now_ns) > before

    def look(self, now_ns: int) -> Rein:
        """Give the rein at a time."""
        self._left_ns = min(CAPACITY_NS, self._left_ns + int((now_ns - self._at_ns) * SHARE))
        self._at_ns = now_ns
        if self._left_ns > 0:
            rein = Rein.FREE
        else:
            rein = Rein.FEW_STEPS if self._left_ns > -CAPACITY_NS else Rein.TINY
        self.rein = max(rein, self._ban) if now_ns < self._banned_until_ns else rein
        return self.rein

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
