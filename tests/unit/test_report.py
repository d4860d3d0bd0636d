"""Whatever a less privileged role says becomes a sentence, and never an exception of the supervisor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import messages as m
from lognot import report
from lognot.journal import ERROR, INFO, WARNING, Event, Journal
from lognot.settings import EVERY_MATCH, Frequency, Item
from unit.people import BOB
from unit.test_journal import Memory
from unit.test_messages import MESSAGES


def item(
    upbound: Frequency = EVERY_MATCH, downbound: Frequency | None = None, size: int | None = None
) -> Item:
    return Item(
        "SSH", "/var/log/auth.log", b".*", b"a", upbound, b"b", downbound, False, size, b"c", BOB, 300
    )


ITEMS = st.none() | st.builds(
    item,
    st.just(EVERY_MATCH) | st.just(Frequency(5, 30)),
    st.none() | st.just(Frequency(5, 30)),
    st.none() | st.just(1024),
)

WRITERS: dict[type[m.Message], Callable[..., None]] = {
    m.ItemFired: report.item_fired,
    m.ActionStarted: report.action_started,
    m.ActionOutput: report.action_output,
    m.ActionFinished: report.action_finished,
}


@given(st.data(), ITEMS)
def test_any_message_is_reported(data: st.DataObject, about: Item | None) -> None:
    sink = Memory()
    journal = Journal((sink,), verbose=True)
    message = data.draw(st.one_of([MESSAGES[kind] for kind in (*WRITERS, m.Note)]))
    if isinstance(message, m.Note):
        report.note(journal, "monitor", message, about, data.draw(st.sampled_from(["", "/log\x1b"])))
    else:
        WRITERS[type(message)](journal, about, message)
    [(_, _, text, fields)] = sink.records
    assert text.isprintable()
    assert all(value.isprintable() for value in fields.values())


def written(write: Callable[[Journal], None]) -> tuple[Event, int, str, dict[str, str]]:
    sink = Memory()
    write(Journal((sink,), verbose=True))
    [record] = sink.records
    return record


@pytest.mark.parametrize(
    ("about", "fired", "text"),
    [
        (
            item(Frequency(5, 30)),
            m.ItemFired(1, m.Kind.UPBOUND, 6, b"", b""),
            "[SSH] fired (upbound): 6 matches in 30 s, more than 5 are the bound",
        ),
        (item(), m.ItemFired(1, m.Kind.UPBOUND, 1, b"", b""), "[SSH] fired (upbound): a line matched"),
        (
            item(downbound=Frequency(5, 30)),
            m.ItemFired(1, m.Kind.DOWNBOUND, 2, b"", b""),
            "[SSH] fired (downbound): 2 matches in 30 s, fewer than 5 are the bound",
        ),
        (
            item(size=1024),
            m.ItemFired(1, m.Kind.SIZE, 3, b"", b""),
            "[SSH] fired (size): log '/var/log/auth.log' reached 3072 bytes (3 x 1024)",
        ),
        (
            None,
            m.ItemFired(1, m.Kind.SIZE, 3, b"", b""),
            "[item of an earlier config] fired (size): reached 3 times its size",
        ),
    ],
)
def test_the_words_of_a_passed_bound(about: Item | None, fired: m.ItemFired, text: str) -> None:
    assert written(lambda journal: report.item_fired(journal, about, fired))[2] == text


def test_the_fields_of_a_passed_bound() -> None:
    fired = m.ItemFired(1, m.Kind.UPBOUND, 6, b"10.0.0.1", b"Failed \x1b[31m from 10.0.0.1")
    fields = written(lambda journal: report.item_fired(journal, item(Frequency(5, 30)), fired))[3]
    assert fields == {
        "LOGNOT_ITEM": "SSH",
        "LOGNOT_PATH": "/var/log/auth.log",
        "LOGNOT_KIND": "upbound",
        "LOGNOT_COUNT": "6",
        "LOGNOT_KEY": "10.0.0.1",
        "LOGNOT_LINE": "Failed \\x1b[31m from 10.0.0.1",
    }


@pytest.mark.parametrize(
    ("status", "timed_out", "event", "priority", "code", "how"),
    [
        (0, False, Event.ACTION_ENDED, INFO, "0", "ended with exit status 0"),
        (3 << 8, False, Event.ACTION_FAILED, WARNING, "3", "ended with exit status 3"),
        (9, False, Event.ACTION_FAILED, WARNING, "-9", "ended with killed by SIGKILL"),
        (m.UNKNOWN_STATUS, False, Event.ACTION_ENDED, INFO, None, "ended, its exit status went to"),
        (15, True, Event.ACTION_TIMEOUT, WARNING, "-15", "took too long and was ended"),
    ],
)
def test_how_an_action_ended(
    status: int, timed_out: bool, event: Event, priority: int, code: str | None, how: str
) -> None:
    finished = m.ActionFinished(1, 77, status, 1234, timed_out)
    record = written(lambda journal: report.action_finished(journal, item(), finished))
    assert record[:2] == (event, priority)
    assert record[2].startswith(f"[SSH] action {how}")
    assert record[2].endswith("after 1.234 s")
    assert record[3].get("LOGNOT_STATUS") == code
    assert record[3]["LOGNOT_DURATION_MS"] == "1234"


@pytest.mark.parametrize(
    "notice",
    [m.Notice.LINE_SKIPPED, m.Notice.REGEX_LIMITED, m.Notice.LINES_LEFT_OUT],
    ids=lambda one: one.name,
)
def test_a_line_that_is_quoted_is_cut_and_escaped(notice: m.Notice) -> None:
    line = b"\x1b[31m\xff" + b"a" * 1000
    record = written(
        lambda journal: report.note(journal, "monitor", m.Note(notice, 1, 2, line), item(), "/log")
    )
    assert record[2].endswith("'\\x1b[31m\\xff" + "a" * 51 + "...'")
    assert record[3]["LOGNOT_LINE"] == "\\x1b[31m\\xff" + "a" * 1000
    assert record[3]["LOGNOT_ITEM"] == "SSH"


def test_what_was_lost_is_an_error() -> None:
    lost = {
        m.Notice.ACTIONS_DROPPED,
        m.Notice.LINE_SKIPPED,
        m.Notice.FILE_UNREADABLE,
        m.Notice.ROLE_FAILED,
        m.Notice.POSITION_LOST,
        m.Notice.LEFT_UNREAD,
    }
    for notice in m.Notice.__members__.values():
        said = m.Note(notice, 1, 2, b"text")
        priority = written(lambda journal, said=said: report.note(journal, "monitor", said, item(), "/log"))[
            1
        ]  # type: ignore[misc]
        assert (priority == ERROR) == (notice in lost), notice.name
