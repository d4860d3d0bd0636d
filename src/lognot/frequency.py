"""Counting matches per time window: over a bound (UpBound), below a bound (DownBound).

Used by the monitor, which has no privilege. Pure: no clock is read and nothing sleeps. Every time is an int,
nanoseconds of CLOCK_MONOTONIC, and comes in as an argument; it never goes backwards from call to call.

A window is half-open: a match counts from the moment it is seen until it is `window_ns` old, that moment
excluded. Windows slide and are exact, not bucketed. The objects hold nothing but numbers and bytes, so an
owner that reloads its config keeps the counts of an unchanged item by keeping the object.
"""

from __future__ import annotations

from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

# Longer keys are replaced by a digest: whoever writes the log chooses the key and its length.
MAX_RAW_KEY_BYTES = 32
# One more than any raw key has: the length alone tells a digest from a key, so neither can pose as the other.
DIGEST_BYTES = MAX_RAW_KEY_BYTES + 1

# Distinct keys remembered at once. A flood of distinct keys is an attack on our memory: a key seen once costs
# 160 to 270 bytes, so this is 66 MB at most for a flood of them. A real sshd under attack sees thousands of
# addresses per window, not hundreds of thousands.
MAX_KEYS = 250_000

# Expired keys forgotten by one add. All of MAX_KEYS may expire together; forgetting them at one go would stop
# everything for 0.1 s, and nothing depends on it: an expired time is never counted.
MAX_FORGOTTEN_PER_ADD = 1_000

# The deadline of what has not started: later than any clock.
NEVER_NS = 2**63 - 1


def compact_key(key: bytes, secret: bytes) -> bytes:
    """Give a key of at most DIGEST_BYTES bytes that is equal exactly when `key` is.

    A short key is its own compact key. A longer one becomes its BLAKE2b digest (RFC 7693), keyed with
    `secret` (1 to 64 bytes, random): 264 bits that no one can make collide, nor even predict without the
    secret. Compact keys are comparable only when made with the same secret, so a caller that writes them
    down keeps that too.
    """
    if len(key) <= MAX_RAW_KEY_BYTES:
        return key
    return blake2b(key, digest_size=DIGEST_BYTES, key=secret).digest()


class UpBound:
    """Says when there are MORE than `count` matches within `window_ns`, for each key on its own.

    Per key it keeps the last `count` times, and for a large count up to an eighth more. A single time is
    stored as the number itself: a flood is mostly keys seen once, and a list would double what they cost.
    """

    def __init__(self, count: int, window_ns: int, max_keys: int = MAX_KEYS) -> None:
        if count < 0 or window_ns < 0 or max_keys < 1:
            raise ValueError(f"no such bound: {count} in {window_ns} ns, {max_keys} keys")
        self.count = count
        self.window_ns = window_ns
        self.max_keys = max_keys
        self.evicted = 0  # keys forgotten inside their window, since max_keys were in use: worth a warning
        # Least recently used key first. An OrderedDict, since finding the first key of a plain dict walks
        # over all that was deleted before it: forgetting n keys one by one would take n² steps.
        self._times: OrderedDict[bytes | None, int | list[int]] = OrderedDict()
        # No key expires before this moment. Spares most calls the look at the oldest key.
        self._expiry_ns = NEVER_NS
        # Dropping the oldest time of a full list moves all the others. So an eighth too many may gather (what
        # list.append() may allocate anyway) and then go together: 8 moves per add, whatever the count.
        self._most_times = count + count // 8

    def __len__(self) -> int:
        """Return how many keys are remembered; at most `max_keys`."""
        return len(self._times)

    def add(self, now_ns: int, key: bytes | None = None) -> int:
        """Count one match; return 0, or the number of matches in the window when that is over the bound."""
        fired = self.add_all(now_ns, (key,))
        return fired[0][1] if fired else 0

    def add_all(self, now_ns: int, keys: Sequence[bytes | None]) -> list[tuple[int, int]]:
        """Count a match for each key, in order; return which were over the bound, and by how many matches.

        Each is an index in `keys` and the number of matches in the window, which is always count + 1: after
        that, this key starts again from zero. A key is a compact key, or None: matches are not told apart.
        Takes O(1) time for each, amortised, and less than a call for each would.
        """
        count = self.count
        if not count:
            return [(index, 1) for index in range(len(keys))]
        fired: list[tuple[int, int]] = []
        all_times, window_ns = self._times, self.window_ns
        for index, key in enumerate(keys):
            if now_ns >= self._expiry_ns:
                self._forget_expired(now_ns)
            times = all_times.get(key)
            if times is None:
                if len(all_times) >= self.max_keys:
                    all_times.popitem(last=False)
                    self.evicted += 1
                elif not all_times:
                    self._expiry_ns = now_ns + window_ns
                all_times[key] = now_ns
                continue
            if isinstance(times, int):
                if count == 1 and now_ns - times < window_ns:
                    del all_times[key]
                    fired.append((index, 2))
                    continue
                all_times[key] = now_ns if count == 1 else [times, now_ns]
            else:
                # `count` matches were there before this one: over the bound if the first is still inside.
                if len(times) >= count and now_ns - times[-count] < window_ns:
                    del all_times[key]
                    fired.append((index, count + 1))
                    continue
                times.append(now_ns)
                if len(times) > self._most_times:
                    del times[:-count]
            all_times.move_to_end(key)
        return fired

    def restart(self, key: bytes | None = None) -> None:
        """Have a key start again from zero, as after a match that was over the bound."""
        self._times.pop(key, None)

    def _forget_expired(self, now_ns: int) -> None:
        """Forget keys whose last match left the window, and note when the next one may."""
        all_times = self._times
        for _ in range(MAX_FORGOTTEN_PER_ADD):
            if not all_times:
                self._expiry_ns = NEVER_NS
                return
            key = next(iter(all_times))
            times = all_times[key]
            expiry_ns = (times if isinstance(times, int) else times[-1]) + self.window_ns
            if now_ns < expiry_ns:
                self._expiry_ns = expiry_ns
                return
            del all_times[key]
        # There may be more: _expiry_ns stays in the past, so the next add goes on here.


class DownBound:
    """Says when there are FEWER than `count` matches within `window_ns`, and when to look again.

    The owner sleeps until `deadline_ns()` and then calls `judge()`. The deadline is the exact moment at which
    the window would hold fewer than `count` matches, but never sooner than one window after the start or
    after the last deadline that it fired for: so it fires once per window for as long as it stays below.
    """

    def __init__(self, count: int, window_ns: int) -> None:
        if count < 1 or window_ns < 1:
            raise ValueError(f"no such bound: fewer than {count} in {window_ns} ns")
        self.count = count
        self.window_ns = window_ns
        self._times: deque[int] = deque(maxlen=count)  # the newest `count` matches are enough
        self._earliest_ns = NEVER_NS  # no judgement before this moment
        self._missed: tuple[int, int] | None = None  # a deadline that passed unjudged, and the matches then

    def start(self, now_ns: int) -> None:
        """Begin: the first judgement is one window from now. Until then `judge` says nothing."""
        self._earliest_ns = now_ns + self.window_ns

    def add(self, now_ns: int) -> None:
        """Count one match.

        A match that comes after the deadline but before `judge` was called cannot make good what was already
        too few: the next `judge` fires all the same. How fast the owner wakes makes no difference.
        """
        # At the deadline itself it is in time: it enters the window as the oldest one leaves.
        if now_ns > self._earliest_ns and self._missed is None and now_ns > (due_ns := self.deadline_ns()):
            self._missed = (due_ns, self._held(now_ns))
        self._times.append(now_ns)

    def state(self, now_ns: int) -> tuple[int, tuple[int, ...]]:
        """Return all that matters of it, when it has just been judged: for `restore`, and for `recall`.

        Matches that have left the window do not.
        """
        inside = tuple(time_ns for time_ns in self._times if now_ns - time_ns < self.window_ns)
        return self._earliest_ns - self.window_ns, inside

    def restore(self, started_ns: int) -> None:
        """Begin as it was in that state, whatever came before."""
        self._times.clear()
        self._missed = None
        self.start(started_ns)

    def recall(self, times_ns: Iterable[int]) -> None:
        """Take in matches of that state, in their order."""
        self._times.extend(times_ns)

    def deadline_ns(self) -> int:
        """Return when to judge next; NEVER_NS before `start`. Every `add` and `judge` may change it."""
        if self._missed is not None:
            return self._missed[0]
        times = self._times
        if len(times) < self.count:
            return self._earliest_ns
        # The window is half-open: as the count-th newest match turns window_ns old, count - 1 are left.
        return max(self._earliest_ns, times[0] + self.window_ns)

    def judge(self, now_ns: int) -> int | None:
        """Fire if the deadline has come: return the number of matches in the window, else None.

        The number is below `count`; the window is the one that ends now or, when a match came in after the
        deadline, the one that ended just before that match.
        """
        due_ns = self.deadline_ns()
        if now_ns < due_ns:
            return None
        held = self._held(now_ns) if self._missed is None else self._missed[1]
        self._missed = None
        # From the deadline, so that late wake-ups do not add up; but from now when a whole window was slept
        # through (a suspend): no burst of firings to catch up.
        late = now_ns - due_ns >= self.window_ns
        self._earliest_ns = (now_ns if late else due_ns) + self.window_ns
        return held

    def _held(self, now_ns: int) -> int:
        """Return how many of the kept matches are inside the window that ends at `now_ns`."""
        return sum(now_ns - time_ns < self.window_ns for time_ns in self._times)
