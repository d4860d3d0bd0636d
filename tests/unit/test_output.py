"""output.py: what an action prints, to the letter, and however it is split."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import output as output_module
from lognot.messages import MAX_QUOTE_BYTES
from lognot.output import LINE_COST_BYTES, MAX_OUTPUT_BYTES, Output


class Printed:
    """An output, and the lines that were told of it; the first `taken` are, if that is given."""

    def __init__(self, *pieces: bytes, taken: int | None = None) -> None:
        self.told: list[bytes] = []
        self._taken = taken
        self._output = Output()
        self.add(*pieces)

    def add(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._output.add(piece, self._tell)

    def end(self) -> Printed:
        self._output.end(self._tell)
        return self

    @property
    def cut_bytes(self) -> int:
        return self._output.cut_bytes

    def _tell(self, line: bytes) -> bool:
        if len(self.told) == self._taken:
            return False
        self.told.append(line)
        return True


# Lines.


def test_a_line_is_told_when_it_is_complete() -> None:
    printed = Printed(b"one\ntw", b"o")
    assert printed.told == [b"one"]
    printed.add(b"\nthree")
    assert printed.told == [b"one", b"two"]
    assert printed.end().told == [b"one", b"two", b"three"]
    assert printed.end().told == [b"one", b"two", b"three"]
    assert printed.cut_bytes == 0


def test_crlf_is_a_newline_also_when_it_comes_in_two() -> None:
    assert Printed(b"one\r\ntwo\r", b"\nthree\r").end().told == [b"one", b"two", b"three"]


def test_empty_lines_are_not_told() -> None:
    printed = Printed(b"\n\n", b"\r\n", b"\r", b"\n", b"one\n\n\ntwo\n", b"\n").end()
    assert printed.told == [b"one", b"two"]
    assert printed.cut_bytes == 0


def test_any_bytes_are_a_line() -> None:
    assert Printed(b"\0\xff\x1b[2J\rback\n").told == [b"\0\xff\x1b[2J\rback"]


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_long_line_is_broken_up(ending: bytes) -> None:
    line = b"a" * MAX_QUOTE_BYTES + b"b" * MAX_QUOTE_BYTES + b"c"
    told = Printed(line + ending).end().told
    assert told == [b"a" * MAX_QUOTE_BYTES, b"b" * MAX_QUOTE_BYTES, b"c"]


def test_a_long_line_is_not_waited_for() -> None:
    printed = Printed(b"a" * MAX_QUOTE_BYTES)
    assert printed.told == []
    printed.add(b"b")
    assert printed.told == [b"a" * MAX_QUOTE_BYTES, b"b"]


# How much.


def test_so_much_is_told_and_the_rest_is_counted() -> None:
    line = b"x" * 1023 + b"\n"
    asked = 100
    told = [line[:-1]] * (MAX_OUTPUT_BYTES // 1023)
    printed = Printed(*[line] * asked)
    assert printed.told == told
    assert printed.cut_bytes == (asked - len(told)) * 1023


def test_short_lines_are_as_much_of_a_flood() -> None:
    printed = Printed(b"y\n" * 5000)
    assert len(printed.told) == MAX_OUTPUT_BYTES // LINE_COST_BYTES
    assert printed.cut_bytes == 5000 - len(printed.told)


def test_of_a_long_line_what_does_not_fit_is_counted() -> None:
    printed = Printed(b"z" * (MAX_OUTPUT_BYTES + 100) + b"\n")
    assert b"".join(printed.told) == b"z" * MAX_OUTPUT_BYTES
    assert printed.cut_bytes == 100


def test_after_something_was_cut_nothing_that_comes_is_told() -> None:
    printed = Printed(b"x" * (MAX_OUTPUT_BYTES - 10) + b"\n", b"too long for it\n")
    told, cut_bytes = list(printed.told), printed.cut_bytes
    assert cut_bytes == len(b"too long for it")
    printed.add(b"one\n", b"\n\n", b"tw", b"o\n", b"unfinished")
    assert printed.end().told == told
    assert printed.cut_bytes == cut_bytes + len(b"onetwounfinished")


def test_what_nobody_takes_is_counted() -> None:
    printed = Printed(b"one\n", b"two\n", b"three\nfo", b"ur", taken=1).end()
    assert printed.told == [b"one"]
    assert printed.cut_bytes == len(b"twothreefour")


def test_what_is_left_at_the_end_is_counted_when_nobody_takes_it() -> None:
    printed = Printed(b"one\ntwo", taken=1).end()
    assert printed.told == [b"one"]
    assert printed.cut_bytes == len(b"two")


# However it is split.

QUOTE, MOST, COST = 8, 60, 3  # small, so that what is generated meets every limit


def split(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes into pieces at some places."""
    within = sorted({place for place in places if place < len(data)})
    return [data[begin:end] for begin, end in zip([0, *within], [*within, len(data)], strict=True)]


LINES = st.lists(
    st.tuples(
        st.binary(max_size=QUOTE).map(lambda line: line.translate(None, b"\r\n")),
        st.sampled_from([b"\n", b"\r\n"]),
    )
)
PLACES = st.lists(st.integers(0, 300))


@examples(300)
@given(LINES, st.binary(max_size=QUOTE).map(lambda line: line.translate(None, b"\r\n")), PLACES)
def test_the_same_lines_wherever_they_are_split(
    lines: list[tuple[bytes, bytes]], unfinished: bytes, places: list[int]
) -> None:
    data = b"".join(line + newline for line, newline in lines) + unfinished
    with patch.object(output_module, "MAX_QUOTE_BYTES", QUOTE):
        printed = Printed(*split(data, places)).end()
    assert printed.told == [line for line in (*(line for line, _ in lines), unfinished) if line]
    assert printed.cut_bytes == 0


@examples(300)
@given(
    st.lists(st.sampled_from([b"a", b"bcd", b"\r", b"\n", b"\n", b"\r\n", b"e" * QUOTE])).map(b"".join),
    PLACES,
    st.none() | st.integers(0, 20),
)
def test_each_byte_is_told_or_counted_wherever_it_is_split(
    data: bytes, places: list[int], taken: int | None
) -> None:
    with (
        patch.object(output_module, "MAX_QUOTE_BYTES", QUOTE),
        patch.object(output_module, "MAX_OUTPUT_BYTES", MOST),
        patch.object(output_module, "LINE_COST_BYTES", COST),
    ):
        printed = Printed(*split(data, places), taken=taken).end()
    told = b"".join(printed.told)
    assert len(told) <= MOST
    assert len(printed.told) <= MOST // COST
    assert all(0 < len(line) <= QUOTE for line in printed.told)
    # A carriage return is part of a line, of its newline, or of what was cut.
    unseen = len(data) - data.count(b"\n") - len(told) - printed.cut_bytes
    assert 0 <= unseen <= data.count(b"\r")
    if not printed.cut_bytes:
        assert told.replace(b"\r", b"") == data.translate(None, b"\r\n")
