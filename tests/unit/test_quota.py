"""How much others may make us log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import quota as quota_module
from lognot.journal import INFO, Event, Journal
from lognot.quota import RECORD_BYTES, SAID_EVERY_NS, Quota, QuotaJournal
from unit.records import Records

S = 10**9


@given(
    st.integers(1, 1000),
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 3 * S), st.integers(0, 1200)), max_size=50),
)
def test_never_more_than_the_burst_and_what_came_back(
    burst: int, per_s: int, asked: list[tuple[int, int]]
) -> None:
    quota = Quota(burst, per_s)
    now_ns = 10**15
    begin_ns, taken = now_ns, 0
    for pause_ns, cost in asked:
        now_ns += pause_ns
        taken += cost if quota.take(cost, now_ns) else 0
        assert taken * S <= burst * S + (now_ns - begin_ns) * per_s


def test_what_was_taken_comes_back() -> None:
    quota = Quota(10, 2)
    assert quota.take(10, S)
    assert not quota.take(1, S)
    assert not quota.take(2, 2 * S - 1)
    assert quota.take(2, 2 * S)
    assert quota.take(10, 100 * S)
    assert not quota.take(1, 100 * S)


def test_what_is_over_is_counted_and_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 10**15
    monkeypatch.setattr(quota_module.time, "monotonic_ns", lambda: now_ns)
    records = Records()
    room = 3 * (RECORD_BYTES + len("text") + len("key"))
    all_of_it = Journal((records,))
    journal = QuotaJournal(all_of_it, "the monitor", Quota(room, 1))
    said = "too much to log about the monitor: "
    for _ in range(1000):
        journal.write(Event.ITEM_FIRED, INFO, "text", key="key", count=7)
    assert records.messages == ["text"] * 3 + [said + "records are left out, and counted"]
    assert all_of_it.counting == {journal}
    now_ns += SAID_EVERY_NS
    all_of_it.say_left_out()
    assert records.messages[4:] == [said + "997 records were left out"]
    assert not all_of_it.counting
    for _ in range(2):
        journal.write(Event.ITEM_FIRED, INFO, "x" * 100_000)
    all_of_it.say_left_out()
    assert records.messages[5:] == [said + "2 records were left out"], "a flood that goes on is told of once"
    now_ns += 1000 * S
    journal.write(Event.ITEM_FIRED, INFO, "text")
    all_of_it.say_left_out()
    assert records.messages[6:] == ["text"]
    journal.write(Event.ITEM_FIRED, INFO, "x" * 100_000)
    assert records.messages[7:] == [said + "records are left out, and counted"]
