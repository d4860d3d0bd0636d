"""Which lines hold a literal, and of which items."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot.errors import PatternError
from lognot.literals import Literals
from lognot.pattern import compile_find
from lognot.prefilter import MOST_HITS, CompileFind, Find, Prefilter, choose_literals

TEXT = st.text("abAB [", min_size=1, max_size=5).map(str.encode)
LITERALS = st.builds(
    lambda texts, any_case: Literals(frozenset(t.lower() if any_case else t for t in texts), any_case),
    st.sets(TEXT, min_size=1, max_size=3),
    st.booleans(),
)


def with_re(regex: bytes) -> Find:
    """Any PCRE will do; and Python's own for what is made here."""
    compiled = re.compile(regex)

    def find(block: bytes, start: int) -> tuple[int, int] | None:
        match = compiled.search(block, start)
        return match.span() if match else None

    return find


def with_pcre2(regex: bytes) -> Find:
    try:
        return compile_find(regex)
    except PatternError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("compile_one", [with_re, with_pcre2])
@given(
    st.lists(LITERALS | st.none(), min_size=1, max_size=6),
    st.lists(st.text("abAB [x", max_size=12).map(str.encode), max_size=8),
)
def test_no_line_with_a_literal_is_left_out(
    compile_one: CompileFind, literals: list[Literals | None], lines: list[bytes]
) -> None:
    if all(one is None for one in literals):
        return
    found = Prefilter(literals, compile_one).lines(b"".join(line + b"\n" for line in lines))
    assert list(found) == sorted(found)
    start = 0
    for line in lines:
        items = found.get(start, ())
        assert list(items) == sorted(set(items))
        for item, one in enumerate(literals):
            text = line.lower() if one and one.any_case else line
            if one and any(wanted in text for wanted in one.texts):
                assert item in items
        start += len(line) + 1


def test_only_lines_with_a_literal_come() -> None:
    literals = [Literals(frozenset({b"sshd["})), None, Literals(frozenset({b"ERROR"}), any_case=False)]
    block = b"a sshd[1]\nnothing\nan ERROR of sshd[2]\nan error\n"
    assert Prefilter(literals, with_re).lines(block) == {0: (0,), 18: (0, 2)}


def test_a_line_that_repeats_a_literal_is_found_once() -> None:
    """However long it is: the way back to its beginning is not walked for each."""
    asked: list[int] = []

    def counting(regex: bytes) -> Find:
        find = with_re(regex)

        def counted(block: bytes, start: int) -> tuple[int, int] | None:
            asked.append(start)
            return find(block, start)

        return counted

    block = b"ab" * 1000 + b"\nab\n"
    literals = [Literals(frozenset({b"ab"})), Literals(frozenset({b"cd"}))]
    assert Prefilter(literals, counting).lines(block) == {0: (0, 1), 2001: (0,)}
    assert len(asked) == MOST_HITS + 2
    asked.clear()
    assert Prefilter([Literals(frozenset({b"ab"}))], counting).lines(block) == {0: (0,), 2001: (0,)}
    assert asked == [0, 2000, 2003]


def test_more_pieces_than_fit_into_one_expression() -> None:
    words = [b"word-%04d-of-many" % number for number in range(5000)]
    literals = [Literals(frozenset({word})) for word in words]
    block = b"".join(b"a %s here\n" % word for word in words)
    found = Prefilter(literals, with_pcre2).lines(block)
    assert list(found.values()) == [(number,) for number in range(5000)]


def texts(*chosen: bytes) -> list[Literals]:
    return [Literals(frozenset({text})) for text in chosen]


def test_a_rare_literal_is_better_than_a_common_one() -> None:
    assert choose_literals([texts(b" ", b"Failed password", b"e"), []]) == [*texts(b"Failed password"), None]


def test_a_literal_of_ones_own_is_better_than_what_all_have() -> None:
    """Or each line that holds it would be searched for all of them."""
    names = [b"svc%03d[" % number for number in range(100)]
    assert choose_literals([texts(name, b"]: error ") for name in names]) == texts(*names)
    assert choose_literals([texts(b"s [", b"]: error ")]) == texts(b"]: error ")
