"""frequency.py: windows, keys and deadlines, to the letter and against models that remember everything."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import frequency
from lognot.frequency import (
    DIGEST_BYTES,
    MAX_KEYS,
    MAX_RAW_KEY_BYTES,
    NEVER_NS,
    DownBound,
    UpBound,
    compact_key,
)

S = 1_000_000_000
BOOT = 4 * 3600 * S  # CLOCK_MONOTONIC of a machine that has been up for some hours

# Upbound


def test_the_sixth_match_within_30_s_is_more_than_5() -> None:
    bound = UpBound(5, 30 * S)
    assert [bound.add(BOOT + second * S) for second in range(6)] == [0, 0, 0, 0, 0, 6]


def test_after_it_fired_counting_starts_from_zero() -> None:
    bound = UpBound(2, 30 * S)
    assert [bound.add(BOOT) for _ in range(9)] == [0, 0, 3] * 3


def test_a_match_of_exactly_the_window_is_outside() -> None:
    bound = UpBound(1, 30 * S)
    assert bound.add(BOOT) == 0
    assert bound.add(BOOT + 30 * S) == 0
    assert bound.add(BOOT + 60 * S - 1) == 2


def test_the_window_slides() -> None:
    bound = UpBound(2, 10 * S)
    assert [bound.add(BOOT + second * S) for second in (0, 9, 11, 18)] == [0, 0, 0, 3]


def test_count_zero_fires_on_every_match() -> None:
    bound = UpBound(0, 0)
    assert [bound.add(BOOT, key) for key in (None, b"a", b"a")] == [1, 1, 1]
    assert len(bound) == 0


def test_keys_are_counted_and_reset_each_on_its_own() -> None:
    bound = UpBound(1, 30 * S)
    assert bound.add(BOOT, b"a") == 0
    assert bound.add(BOOT, b"b") == 0
    assert bound.add(BOOT, b"a") == 2
    assert bound.add(BOOT, b"a") == 0
    assert bound.add(BOOT, b"b") == 2


def test_expired_keys_are_forgotten_as_new_matches_come() -> None:
    bound = UpBound(3, 10 * S)
    for number in range(500):
        bound.add(BOOT, b"%d" % number)
        bound.add(BOOT, b"%d" % number)
    bound.add(BOOT + 5 * S, b"7")
    bound.add(BOOT + 10 * S, b"new")
    assert len(bound) == 2
    assert bound.evicted == 0


def test_one_add_forgets_a_limited_number_of_keys_and_the_next_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequency, "MAX_FORGOTTEN_PER_ADD", 10)
    bound = UpBound(1, 10 * S, max_keys=30)
    for number in range(30):
        bound.add(BOOT, b"%d" % number)
    sizes = []
    for number in range(4):
        assert bound.add(BOOT + 10 * S, b"%d" % (29 - number)) == 0  # expired, whether forgotten or not
        sizes.append(len(bound))
    assert sizes == [20, 10, 3, 4]
    assert bound.evicted == 0


def test_past_max_keys_the_least_recently_used_goes() -> None:
    bound = UpBound(1, 30 * S, max_keys=2)
    bound.add(BOOT, b"a")
    bound.add(BOOT + 1, b"b")
    assert bound.evicted == 0
    bound.add(BOOT + 2, b"c")
    assert (len(bound), bound.evicted) == (2, 1)
    assert bound.add(BOOT + 3, b"b") == 2
    assert bound.add(BOOT + 3, b"c") == 2
    assert bound.add(BOOT + 3, b"a") == 0


def test_use_saves_a_key_from_eviction() -> None:
    bound = UpBound(5, 30 * S, max_keys=2)
    for key in (b"a", b"b", b"a", b"c"):
        bound.add(BOOT, key)
    for _ in range(3):
        assert bound.add(BOOT, b"a") == 0
    assert bound.add(BOOT, b"a") == 6


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100])
def test_a_slow_stream_never_fires_and_keeps_few_times(count: int) -> None:
    bound = UpBound(count, count * S)
    for second in range(5 * count):
        assert bound.add(BOOT + second * S) == 0
    times = bound._times[None]
    assert isinstance(times, int) or len(times) <= count + count // 8


@pytest.mark.parametrize(("count", "window_ns", "max_keys"), [(-1, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_no_such_upbound(count: int, window_ns: int, max_keys: int) -> None:
    with pytest.raises(ValueError, match="no such bound"):
        UpBound(count, window_ns, max_keys)


class AllTimes:
    """An upper bound that remembers every match and looks at each."""

    def __init__(self, count: int, window_ns: int, max_keys: int) -> None:
        self.count, self.window_ns, self.max_keys = count, window_ns, max_keys
        self.times: dict[bytes | None, list[int]] = {}
        self.evicted = 0

    def add(self, now_ns: int, key: bytes | None) -> int:
        alive = {k: t for k, t in self.times.items() if now_ns - t[-1] < self.window_ns or k == key}
        if key not in alive and len(alive) >= self.max_keys:
            del alive[min(alive, key=lambda k: (alive[k][-1], list(self.times).index(k)))]
            self.evicted += 1
        times = [*alive.pop(key, []), now_ns]
        self.times = {**alive, key: times}
        inside = 1 + sum(now_ns - time < self.window_ns for time in times[:-1])
        if inside <= self.count:
            return 0
        del self.times[key]
        return inside


GAPS_AND_KEYS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([None, b"a", b"b", b"c", b"d"])), max_size=80
)


@examples(500)
@given(st.integers(0, 12), st.integers(0, 30), st.integers(1, 6), GAPS_AND_KEYS)
def test_upbound_is_like_remembering_every_match(
    count: int, window_ns: int, max_keys: int, adds: list[tuple[int, bytes | None]]
) -> None:
    bound, model = UpBound(count, window_ns, max_keys), AllTimes(count, window_ns, max_keys)
    now_ns = BOOT
    for gap_ns, key in adds:
        now_ns += gap_ns
        assert bound.add(now_ns, key) == model.add(now_ns, key)
        assert len(bound) <= max_keys
        # With no window at all, everything has expired at once: the two may differ in what they drop first.
        assert bound.evicted == model.evicted or window_ns == 0


def test_a_flood_of_keys_seen_once_costs_under_300_bytes_each() -> None:
    count = 50_000
    gc.collect()
    tracemalloc.start()
    try:
        bound = UpBound(5, 3600 * S)
        for number in range(count):
            bound.add(BOOT + number * 1000, b"%d.%d.10.%d" % (number, number, number % 100))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(bound) == count
    assert held / count < 300
    assert peak / count < 400


def test_the_cap_holds_under_a_flood() -> None:
    bound = UpBound(5, 3600 * S, max_keys=1000)
    for number in range(5000):
        bound.add(BOOT + number, b"%d" % number)
    assert (len(bound), bound.evicted) == (1000, 4000)
    assert MAX_KEYS == 250_000


# Keys


@given(st.binary(max_size=MAX_RAW_KEY_BYTES), st.binary(min_size=1, max_size=64))
def test_a_short_key_is_its_own_compact_key(key: bytes, secret: bytes) -> None:
    assert compact_key(key, secret) == key


@given(st.binary(min_size=MAX_RAW_KEY_BYTES + 1, max_size=200), st.binary(min_size=1, max_size=64))
def test_a_long_key_is_a_digest_that_no_short_key_can_be(key: bytes, secret: bytes) -> None:
    digest = compact_key(key, secret)
    assert len(digest) == DIGEST_BYTES > MAX_RAW_KEY_BYTES
    # A key that looks like a digest is long itself, and becomes another one.
    assert compact_key(digest, secret) != digest
    assert compact_key(key, secret + b"x" if len(secret) < 64 else b"x") != digest


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_compact_keys_are_equal_exactly_when_the_keys_are(keys: list[bytes]) -> None:
    assert len({compact_key(key, b"secret") for key in keys}) == len(set(keys))


def test_long_keys_that_end_differently() -> None:
    assert compact_key(b"x" * 99 + b"a", b"s") != compact_key(b"x" * 99 + b"b", b"s")
    assert compact_key(b"x" * 99, b"s") == compact_key(b"x" * 99, b"s")


# Downbound


def test_the_first_judgement_is_one_window_after_the_start() -> None:
    bound = DownBound(1, 60 * S)
    assert bound.deadline_ns() == NEVER_NS
    assert bound.judge(BOOT) is None
    bound.start(BOOT)
    assert bound.deadline_ns() == BOOT + 60 * S
    assert bound.judge(BOOT + 60 * S - 1) is None
    assert bound.judge(BOOT + 60 * S) == 0


def test_the_deadline_is_the_count_th_newest_match_plus_the_window() -> None:
    bound = DownBound(2, 60 * S)
    bound.start(BOOT)
    for second in (10, 20, 50):
        bound.add(BOOT + second * S)
    assert bound.deadline_ns() == BOOT + 80 * S
    assert bound.judge(BOOT + 60 * S) is None
    assert bound.judge(BOOT + 80 * S) == 1


def test_while_it_stays_below_it_fires_once_per_window() -> None:
    bound = DownBound(3, 60 * S)
    bound.start(BOOT)
    fired = []
    for second in range(241):
        if second % 50 == 0:
            bound.add(BOOT + second * S)
        held = bound.judge(BOOT + second * S)
        if held is not None:
            fired.append((second, held))
    assert fired == [(60, 1), (120, 1), (180, 1), (240, 1)]


def test_enough_matches_put_the_deadline_off() -> None:
    bound = DownBound(1, 10 * S)
    bound.start(BOOT)
    for second in range(100):
        bound.add(BOOT + second * S)
        assert bound.judge(BOOT + second * S) is None
    assert bound.deadline_ns() == BOOT + 109 * S


def test_a_match_after_the_deadline_comes_too_late() -> None:
    bound = DownBound(1, 10 * S)
    bound.start(BOOT)
    bound.add(BOOT + 10 * S + 1)
    assert bound.deadline_ns() == BOOT + 10 * S
    assert bound.judge(BOOT + 10 * S + 2) == 0
    assert (
        bound.deadline_ns() == BOOT + 20 * S + 1
    )  # the late match is in the next window, and then leaves it


def test_a_match_at_the_deadline_is_in_time() -> None:
    bound = DownBound(1, 10 * S)
    bound.start(BOOT)
    bound.add(BOOT + 10 * S)
    assert bound.judge(BOOT + 10 * S) is None
    assert bound.deadline_ns() == BOOT + 20 * S


def test_late_wake_ups_do_not_add_up() -> None:
    bound = DownBound(1, 10 * S)
    bound.start(BOOT)
    for period in range(1, 100):
        assert bound.deadline_ns() == BOOT + period * 10 * S
        assert bound.judge(BOOT + period * 10 * S + S) == 0


def test_a_late_owner_fires_once_and_not_once_per_window_missed() -> None:
    bound = DownBound(1, 10 * S)
    bound.start(BOOT)
    assert bound.judge(BOOT + 1000 * S) == 0
    assert bound.judge(BOOT + 1000 * S) is None
    assert bound.deadline_ns() == BOOT + 1010 * S


@pytest.mark.parametrize(("count", "window_ns"), [(0, 1), (1, 0), (-1, 1)])
def test_no_such_downbound(count: int, window_ns: int) -> None:
    with pytest.raises(ValueError, match="no such bound"):
        DownBound(count, window_ns)


def judged_every_ns(count: int, window_ns: int, matches: list[int], until_ns: int) -> list[tuple[int, int]]:
    """Look at every nanosecond from 0, with all matches remembered: when does it fire, with how many?"""
    fired: list[tuple[int, int]] = []
    earliest_ns = window_ns
    for now_ns in range(until_ns):
        held = sum(now_ns - window_ns < match <= now_ns for match in matches)
        if now_ns >= earliest_ns and held < count:
            fired.append((now_ns, held))
            earliest_ns = now_ns + window_ns
    return fired


@examples(500)
@given(st.integers(1, 5), st.integers(1, 25), st.lists(st.integers(0, 8), max_size=40))
def test_downbound_fires_at_the_very_moments_that_looking_all_the_time_would(
    count: int, window_ns: int, gaps_ns: list[int]
) -> None:
    matches = [sum(gaps_ns[: index + 1]) for index in range(len(gaps_ns))]
    until_ns = (matches[-1] if matches else 0) + 3 * window_ns
    bound = DownBound(count, window_ns)
    bound.start(0)
    fired = []
    # An owner as it should be: sleeps until the next match or the deadline, whichever comes first.
    for match in [*matches, until_ns - 1]:
        while (deadline_ns := bound.deadline_ns()) < match:
            held = bound.judge(deadline_ns)
            assert held is not None
            fired.append((deadline_ns, held))
        if match != until_ns - 1:
            bound.add(match)
    if bound.deadline_ns() == until_ns - 1:
        fired.append((until_ns - 1, bound.judge(until_ns - 1) or 0))
    assert fired == judged_every_ns(count, window_ns, matches, until_ns)


@given(
    st.integers(1, 5), st.integers(1, 25), st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=60)
)
def test_a_slow_owner_never_misses_and_never_fires_twice_in_a_window(
    count: int, window_ns: int, steps: list[tuple[int, bool]]
) -> None:
    bound = DownBound(count, window_ns)
    bound.start(0)
    now_ns, last_due_ns = 0, 0
    for gap_ns, judge in steps:
        now_ns += gap_ns
        due_ns = bound.deadline_ns()
        due = now_ns >= due_ns
        if not judge:
            bound.add(now_ns)
            continue
        held = bound.judge(now_ns)
        assert (held is not None) == due
        if held is not None:
            assert 0 <= held < count
            assert due_ns >= last_due_ns + window_ns
            last_due_ns = due_ns
