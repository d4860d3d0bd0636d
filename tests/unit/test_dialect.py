"""Which regexes are refused, and how the others are worded. test_pattern.py tries them on the engines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot.dialect import calls_groups, translate
from lognot.errors import PatternError

AHEAD = b"(*LF)(*BSR_UNICODE)"


@pytest.mark.parametrize(
    "option",
    rb"(*UTF8) (*UTF) (*UTF16) (*UTF32) (*UCP) (*ANY) (*NO_JIT) (*NOTEMPTY) (*NOTEMPTY_ATSTART) (*NUL) "
    rb"(*LIMIT_MATCH=99) (*LIMIT_RECURSION=99999999) (*LIMIT_DEPTH=1) (*LIMIT_HEAP=1)".split(),
)
@pytest.mark.parametrize("before", [b"", b"(*CR)", b"(*NO_START_OPT)(*LF)", b"(*NO_DOTSTAR_ANCHOR)"])
def test_refused_at_the_start(before: bytes, option: bytes) -> None:
    with pytest.raises(PatternError, match="not allowed") as caught:
        translate(before + option + b"a")
    assert str(caught.value).endswith(f"at offset {len(before)}")


def test_elsewhere_it_is_no_option() -> None:
    assert translate(b"a(*UTF8)").text == AHEAD + b"a(*UTF8)"


@pytest.mark.parametrize(
    ("regex", "offset"),
    [
        (rb"a\C", 1),
        (rb"\\\C", 2),
        (b"\\c\x01", 0),
        (b"\\c\xe9", 0),
        (rb"a\c", 1),
        (b"a\\Q\x00\\E", 1),
        (rb"\\\i", 3),
        (b"\x00a\\yb", 3),
    ],
)
def test_refused_for_one_would_answer_differently(regex: bytes, offset: int) -> None:
    with pytest.raises(PatternError, match=f"at offset {offset}"):
        translate(regex)


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        (b"", b""),
        (rb"(*CRLF)\d+ [^a]\\C \cA \QC:\C\E", rb"(*CRLF)\d+ [^a]\\C \cA \QC:\C\E"),
        (b"(a", b"(a"),  # for the engine to refuse
        (b"ab\\", b"ab\\"),
        (b"a\x00b", rb"a\x00b"),
        (b"a\\\x00\x00", rb"a\x00\x00"),
        (b"\x85\\\x85", rb"\x85\x85"),
        (b"\xe9", "é".encode()),
        (b"\\Q\x85\\E\x85", "\\Q\x85\\E\\x85".encode()),  # quoted, an escape would be text
    ],
)
def test_wording(regex: bytes, text: bytes) -> None:
    assert translate(regex).text == AHEAD + text


def test_an_offset_in_the_text_is_one_in_the_regex() -> None:
    translation = translate(b"\xe9a\x00b")
    assert translation.text == AHEAD + b"\xc3\xa9a\\x00b"
    begin = len(AHEAD)
    offsets = [translation.offset_in_regex(begin + offset) for offset in range(9)]
    assert offsets == [0, 0, 1, 2, 2, 2, 2, 3, 4]


@pytest.mark.parametrize("offset", [-1000, -1, 0, len(AHEAD) - 1])
def test_what_is_ahead_of_the_regex_is_its_beginning(offset: int) -> None:
    assert translate(b"abc").offset_in_regex(offset) == 0


@given(regex=st.binary(max_size=8), offset=st.integers())
def test_an_offset_is_never_outside(regex: bytes, offset: int) -> None:
    try:
        assert 0 <= translate(regex).offset_in_regex(offset) <= len(regex)
    except PatternError as error:
        digits = str(error).partition(" at offset ")[2].partition(":")[0]
        assert 0 <= int(digits) <= len(regex)


@pytest.mark.parametrize(
    ("regex", "calls"),
    [
        (rb"(?R)", True),
        (rb"(|a|(?1)(?1))", True),
        (rb"(a)(?-1)", True),
        (rb"(?+1)(a)", True),
        (rb"(?<n>a)(?&n)", True),
        (rb"(?P<n>a)(?P>n)", True),
        (rb"(a)\g<1>", True),
        (rb"(?<n>a)\g'n'", True),
        (rb"[(?1)]", True),  # a look-alike
        (rb"(?<n>a)\1\g1\g{n}(?P=n)\k<n>", False),
        (rb"(a)?(?(1)b)", False),
        (rb"(?i)(?:a)(?=b)(?>c)(?|d)(?-i)(?#1)", False),
    ],
)
def test_who_calls_groups(regex: bytes, calls: bool) -> None:
    assert calls_groups(regex) == calls
