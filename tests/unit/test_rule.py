"""What an item has counted goes on in the next monitor, also after a flood that the journal does not hold."""

from __future__ import annotations

import copy
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import ledger as module
from lognot.ledger import Counted, Ledger
from lognot.rule import Rule
from lognot.settings import Frequency, Item
from lognot.users import current_account

RECORDS = 64
MAX_COUNT = 9
KEYS = 3  # no more than MAX_COUNT matches of each wait for one more: fewer than RECORDS
MAX_BLOCK = RECORDS - KEYS * MAX_COUNT


def new_rule(count: int, seconds: int, *, lower: bool = False) -> Rule:
    return Rule(
        1,
        Item(
            name="a",
            path="/a",
            regex=b".",
            upbound=Frequency(count, seconds),
            upbound_action=None if lower else b"true",
            downbound=Frequency(count, seconds) if lower else None,
            downbound_action=b"true" if lower else None,
            usecrc=True,
            size=None,
            size_action=None,
            run_as=current_account(),
            action_timeout_s=10,
        ),
        b"secret",
    )


@examples(200)
@given(
    st.integers(1, MAX_COUNT),
    st.integers(1, 9),
    st.lists(
        st.tuples(
            st.integers(0, 3),  # seconds since the last block
            st.lists(st.integers(0, KEYS - 1).map(lambda number: b"%d" % number), max_size=MAX_BLOCK),
            st.booleans(),  # whether the monitor is killed then
        ),
        max_size=30,
    ),
)
def test_counts_go_on_exactly(count: int, seconds: int, blocks: list[tuple[int, list[bytes], bool]]) -> None:
    with patch.object(module, "JOURNAL_RECORDS", RECORDS):
        unbroken, rule = new_rule(count, seconds), new_rule(count, seconds)
        supervisors = Ledger()
        ledger = copy.copy(supervisors)
        now_ns = 10**9
        for pause_s, keys, killed in blocks:
            now_ns += pause_s * 10**9
            fired = rule.count(now_ns, keys)
            assert fired == unbroken.count(now_ns, keys)
            ledger.count(now_ns, 1, Counted.MATCH, keys, [index for index, _ in fired])
            ledger.settle()
            if killed:
                ledger, rule = copy.copy(supervisors), new_rule(count, seconds)
                for record in ledger.replay():
                    rule.replay(record)


@examples(200)
@given(
    st.integers(1, MAX_COUNT),
    st.integers(1, 9),
    st.lists(
        st.tuples(
            st.integers(0, 3),  # seconds since the last block
            st.integers(0, 12),  # matches
            st.integers(0, RECORDS),  # those of others, which push these off the journal
            st.booleans(),  # whether the monitor is killed then
        ),
        max_size=30,
    ),
)
def test_a_lower_bound_goes_on_exactly(
    count: int, seconds: int, blocks: list[tuple[int, int, int, bool]]
) -> None:
    """When it is restated often enough, as the monitor does."""
    with patch.object(module, "JOURNAL_RECORDS", 2 * RECORDS):
        unbroken, rule = new_rule(count, seconds, lower=True), new_rule(count, seconds, lower=True)
        supervisors = Ledger()
        ledger = copy.copy(supervisors)
        now_ns = 10**9
        unbroken.start(now_ns)
        rule.start(now_ns)
        ledger.count(now_ns, 1, Counted.STARTED)
        for pause_s, matches, others, killed in blocks:
            now_ns += pause_s * 10**9
            assert rule.down is not None
            assert unbroken.down is not None
            assert rule.deadline_ns() == unbroken.deadline_ns()
            judged = rule.down.judge(now_ns)
            assert judged == unbroken.down.judge(now_ns)
            if judged is not None:
                ledger.count(now_ns, 1, Counted.JUDGED)
            ledger.restate(now_ns, 1, *rule.down.state(now_ns))
            for one in (rule, unbroken):
                one.count(now_ns, [None] * matches)
            ledger.count(now_ns, 1, Counted.MATCH, [None] * matches)
            ledger.count(now_ns, 2, Counted.MATCH, [None] * others)
            ledger.settle()
            if killed:
                ledger, rule = copy.copy(supervisors), new_rule(count, seconds, lower=True)
                for record in ledger.replay():
                    if record.item_id == 1:
                        rule.replay(record)
                assert not rule.start(now_ns), "it had started"
