"""Foreign text is fit for a terminal after it went through here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot.shown import SHOWN_CHARACTERS, escaped, printable, shown

SURROGATES = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)


@given(st.text() | st.text(SURROGATES) | st.binary())
def test_nothing_that_a_terminal_acts_on_is_left(text: str | bytes) -> None:
    result = printable(text)
    assert result.isprintable()
    assert len(result.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in result)
    result.encode("utf-8")


@given(st.text() | st.text(SURROGATES))
def test_once_more_does_no_harm(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, ünïcödé 日本", "plain text, ünïcödé 日本"),
        (b"plain", "plain"),
        ("日本".encode(), "日本"),
        ("\x1b[31m\a\b", "\\x1b[31m\\x07\\x08"),
        ("a\nb\rc\td\0", "a\\nb\\rc\\td\\x00"),
        ("\x7f\x85\x9b", "\\x7f\\x85\\x9b"),
        ("\u202e\u200b\ufeff\u2028", "\\u202e\\u200b\\ufeff\\u2028"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        (b"\xff\xc3\x28\xed\xa0\x80", "\\xff\\xc3(\\xed\\xa0\\x80"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_it_looks_like(text: str | bytes, expected: str) -> None:
    assert printable(text) == expected


@given(st.text())
def test_what_is_quoted_is_short(text: str) -> None:
    assert shown(text) == f"'{escaped(text)}'"
    assert len(escaped(text)) <= SHOWN_CHARACTERS * len("\\U00000000")
    assert escaped(text).isprintable()


def test_a_cut_is_visible() -> None:
    assert escaped("x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS
    assert escaped("x" * (SHOWN_CHARACTERS + 1)) == "x" * (SHOWN_CHARACTERS - 3) + "..."
