"""How much a process that we do not trust may make us write into our own log.

Roles gather what they have to say (notes.py), but one that was taken over does not, and whoever owns a
directory on the way to a log can rename in it all day. So what comes of them goes through a quota: what is
over is left out and counted. That it begins is said at once, how much it was once a minute and at the stop
(supervisor.py has the timer). Supervisor only.
"""

from __future__ import annotations

import time

from lognot.journal import WARNING, Event, Journal
from lognot.shown import counted, were

RECORD_BYTES = 256  # what a record costs beside its text: its header, and the names of its fields
SAID_EVERY_NS = 60 * 10**9

# What a role may make us log: some 20,000 short records at once, and then 350 a second. An honest one is far
# below that, but for a moment, and one that was taken over does not fill the disk.
ROLE_BURST_BYTES = 8 * 1024 * 1024
ROLE_BYTES_PER_S = 128 * 1024

# What is logged of a role's starts and ends: some 90 of each at once, then two a minute, or 1.4 MB a day.
# Who may kill it, as the user of actions may their executor, can have it start nearly once a second for ever.
STARTS_BURST_BYTES = 64 * 1024
STARTS_BYTES_PER_S = 16


class Quota:
    """A token bucket: so much at once, and so much a second. Pure.

    Args:
        burst: what may be taken at once, after a quiet time.
        per_s: what comes back each second.
    """

    def __init__(self, burst: int, per_s: int) -> None:
        self._burst_ns = burst * 10**9  # in billionths: what comes back in each nanosecond is a whole number
        self._per_s = per_s
        self._left_ns = self._burst_ns
        self._last_ns = 0

    def take(self, cost: int, now_ns: int) -> bool:
        """Take so much, or nothing (False) when less than that is left."""
        self._left_ns = min(self._burst_ns, self._left_ns + (now_ns - self._last_ns) * self._per_s)
        self._last_ns = now_ns
        if cost * 10**9 > self._left_ns:
            return False
        self._left_ns -= cost * 10**9
        return True


class QuotaJournal:
    """Our own log, for what others make us write: at most a quota of it.

    Args:
        journal: our own log.
        who: the others, as the log names them.
        quota: in bytes of text, a record counted as RECORD_BYTES more.
    """

    def __init__(self, journal: Journal, who: str, quota: Quota) -> None:
        self._journal = journal
        self._who = who
        self._quota = quota
        self._left_out = 0
        self._said_ns = -SAID_EVERY_NS

    def write(self, event: Event, priority: int, message: str, /, **fields: str | bytes | int | None) -> None:
        """Write one record, as `Journal.write` does, or leave it out."""
        now_ns = time.monotonic_ns()
        texts = (value for value in fields.values() if isinstance(value, (str, bytes)))
        if self._quota.take(RECORD_BYTES + len(message) + sum(map(len, texts)), now_ns):
            self._journal.write(event, priority, message, **fields)
            return
        if not self._left_out and now_ns - self._said_ns >= SAID_EVERY_NS:
            self._say("records are left out, and counted")
        self._left_out += 1
        self._journal.counting.add(self)

    def say_left_out(self) -> None:
        """Write how many were left out since this was said last."""
        if self._left_out:
            self._say(f"{counted(self._left_out, 'record')} {were(self._left_out)} left out", self._left_out)
        self._left_out = 0

    def _say(self, what: str, count: int | None = None) -> None:
        self._said_ns = time.monotonic_ns()
        text = f"too much to log about {self._who}: {what}"
        self._journal.write(Event.RECORDS_DROPPED, WARNING, text, count=count)


def starts_journal(journal: Journal, role: str) -> QuotaJournal:
    """Give our own log, for the starts and ends of a role."""
    return QuotaJournal(journal, f"starts and ends of {role}", Quota(STARTS_BURST_BYTES, STARTS_BYTES_PER_S))


def role_journal(journal: Journal, who: str) -> QuotaJournal:
    """Give our own log, for what a role makes us write; `who` is how the log names it."""
    return QuotaJournal(journal, who, Quota(ROLE_BURST_BYTES, ROLE_BYTES_PER_S))
