"""What a regex may cost, and what follows when it costs more."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lognot.budget import (
    CAPACITY_NS,
    DEBT_NS,
    FIRST_BAN_NS,
    FREE_NS,
    LONGEST_BAN_NS,
    RESUME_NS,
    SHARE,
    TINY_CAPACITY_NS,
    TINY_DEATHS,
    TINY_LINE_BYTES,
    TINY_MOST_NS,
    Budget,
    Rein,
    excess_ns,
)
from lognot.pattern import SHORT_LINE_BYTES

MS, S = 10**6, 10**9
LONG = SHORT_LINE_BYTES + 1


def test_what_is_spent_comes_back_with_time() -> None:
    budget = Budget()
    assert budget.look(5 * S) is Rein.FREE
    assert not budget.spend(5 * S, CAPACITY_NS - 1, LONG)
    assert budget.spend(5 * S, 2, LONG)
    assert budget.rein is Rein.FEW_STEPS
    assert budget.look(5 * S + 10 * MS) is Rein.FREE


def test_the_rein_shortens_when_a_short_one_does_not_help() -> None:
    budget = Budget()
    assert budget.spend(S, CAPACITY_NS, LONG)
    assert not budget.spend(S, 1, LONG)
    assert budget.spend(S, CAPACITY_NS, LONG)
    assert budget.rein is Rein.TINY
    budget.spend(S, 3600 * S, LONG)
    assert budget.look(S + int(DEBT_NS / SHARE) + S // 10) is Rein.FREE  # no debt is longer than that


def test_a_full_bucket_does_not_overflow() -> None:
    budget = Budget()
    budget.look(10**6 * S)
    assert budget.spend(10**6 * S, CAPACITY_NS, LONG)


def test_a_death_on_a_long_line_leaves_the_short_ones() -> None:
    budget = Budget()
    budget.ban(S, LONG)
    assert budget.look(S) is Rein.NO_LONG
    assert Rein.NO_LONG.longest_bytes == SHORT_LINE_BYTES
    assert budget.look(S + FIRST_BAN_NS - 1) is Rein.NO_LONG
    assert budget.look(S + FIRST_BAN_NS) is Rein.FREE


def test_a_ban_does_not_loosen_a_shorter_rein() -> None:
    budget = Budget()
    budget.ban(S, LONG)
    budget.spend(S, 2 * CAPACITY_NS, LONG)
    assert budget.rein is Rein.TINY


def test_a_death_on_a_short_line_leaves_tiny_ones() -> None:
    budget = Budget()
    budget.ban(S, SHORT_LINE_BYTES)
    assert budget.look(S) is Rein.TINY
    assert Rein.TINY.longest_bytes == TINY_LINE_BYTES


def test_some_deaths_on_tiny_lines_are_borne() -> None:
    budget = Budget()
    for number in range(1, TINY_DEATHS):
        budget.ban(number * S, 4)
        assert budget.look(number * S) is Rein.TINY
    assert budget.look((TINY_DEATHS - 1) * S + FIRST_BAN_NS) is Rein.FREE
    budget.ban(TINY_DEATHS * S, 4)
    assert budget.look(TINY_DEATHS * S) is Rein.NOTHING
    assert Rein.NOTHING.longest_bytes is not None
    assert Rein.NOTHING.longest_bytes < 0  # an empty line can be too much as well
    assert budget.look(TINY_DEATHS * S + 2 * FIRST_BAN_NS - 1) is Rein.NOTHING
    now_ns = TINY_DEATHS * S + 2 * FIRST_BAN_NS
    assert budget.look(now_ns) is Rein.FREE
    budget.ban(now_ns, 4)
    assert budget.look(now_ns) is Rein.TINY  # so many more


def test_deaths_on_tiny_lines_now_and_then_are_borne_for_ever() -> None:
    budget = Budget()
    for number in range(50):
        now_ns = number * FIRST_BAN_NS // (TINY_DEATHS - 1)
        budget.ban(now_ns, TINY_LINE_BYTES)
        assert budget.look(now_ns) is Rein.TINY


def test_bans_double_up_to_an_hour_and_are_forgiven() -> None:
    budget = Budget()
    now_ns, lengths = S, []
    for _ in range(9):
        budget.ban(now_ns, LONG)
        begin_ns = now_ns
        while budget.look(now_ns):
            now_ns += FIRST_BAN_NS
        lengths.append((now_ns - begin_ns) // FIRST_BAN_NS)
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now_ns += LONGEST_BAN_NS
    budget.ban(now_ns, LONG)
    assert budget.look(now_ns + FIRST_BAN_NS) is Rein.FREE


def test_only_what_is_over_an_ordinary_search_counts() -> None:
    assert excess_ns(FREE_NS, 0) == 0
    assert excess_ns(FREE_NS + 5 * MS, 0) == 5 * MS
    assert excess_ns(FREE_NS + MS, 100_000) == 0  # long lines may take longer


def test_a_flood_of_tiny_lines_brings_pauses() -> None:
    budget, now_ns, cost_ns, paid_ns = Budget(), S, MS // 2, 0
    seen = []
    for _ in range(60_000):  # for a minute, a line each millisecond
        now_ns += MS
        if budget.look(now_ns) is not Rein.NOTHING:
            budget.spend(now_ns, cost_ns, TINY_LINE_BYTES)
            paid_ns += cost_ns
        seen.append(budget.rein)
    assert paid_ns <= TINY_CAPACITY_NS + 60 * CAPACITY_NS + cost_ns
    assert seen.index(Rein.FEW_STEPS) < seen.index(Rein.NOTHING)  # these are tried first
    pauses = sum(one < Rein.NOTHING is two for one, two in itertools.pairwise(seen))
    assert pauses <= 60 * 10  # a tenth of a second each
    assert budget.look(now_ns + S // 5) < Rein.NOTHING  # over soon after the last of them
    assert budget.look(now_ns + 2 * S) is Rein.FREE


def test_longer_lines_bring_no_pause() -> None:
    budget = Budget()
    budget.spend(S, S, TINY_LINE_BYTES + 1)
    for _ in range(TINY_CAPACITY_NS // TINY_MOST_NS - 1):
        assert not budget.spend(S, S, 4)  # of which no more is believed
    assert not budget.spend(S, TINY_MOST_NS - 1, 4)
    assert budget.rein is Rein.TINY
    assert budget.spend(S, 1, 4)
    assert budget.rein is Rein.NOTHING
    assert budget.look(S + int(RESUME_NS / SHARE)) is Rein.TINY


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, DEBT_NS)), max_size=50))
def test_searches_in_full_take_no_more_than_their_share(
    costs: list[tuple[int, int]],
) -> None:
    """A search is made in full only where something is left: so all but the last fit into the share.

    A costlier one than these is forgiven in part.
    """
    budget, now_ns, full_ns, last_ns = Budget(), S, 0, 0
    for pause_ns, cost_ns in costs:
        now_ns += pause_ns
        if budget.look(now_ns) is Rein.FREE:
            full_ns, last_ns = full_ns + cost_ns, cost_ns
            budget.spend(now_ns, cost_ns, LONG)
    assert full_ns - last_ns <= CAPACITY_NS + (now_ns - S) * SHARE + len(costs)
