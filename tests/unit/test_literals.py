"""What every match of a regex must contain; that it holds for all regexes is shown by test_scan_generated."""

from __future__ import annotations

import pytest

from lognot.literals import MAX_ALTERNATIVES, Literals, required_literals


def longest(regex: bytes) -> Literals | None:
    """Of all that is required, the one whose shortest text is the longest."""
    return max(required_literals(regex), key=lambda one: min(map(len, one.texts)), default=None)


def found(regex: bytes) -> set[bytes] | None:
    literals = longest(regex)
    if literals is None:
        return None
    assert not literals.any_case
    return set(literals.texts)


@pytest.mark.parametrize(
    ("regex", "texts"),
    [
        (rb"error", {b"error"}),
        (rb"^\[\d+\] error$", {b"] error"}),
        (rb"Failed (?:password|key) for .* from (\S+)", {b"Failed password for ", b"Failed key for "}),
        (rb"sshd(?:-session)?\[\d+\]: Invalid", {b"]: Invalid"}),
        (rb"from \K(\S+)(?= port \d+ ssh2$)", {b"from "}),
        (rb"warn|error|crit", {b"warn", b"error", b"crit"}),
        (rb"\[(?:warn|crit)\]", {b"[warn]", b"[crit]"}),
        (rb"(abc)+de", {b"abc"}),
        (rb"ab+c", {b"a"}),
        (rb"abc?d", {b"ab"}),
        (rb"(?:abc){2,3}", {b"abc"}),
        (rb"\Qa.b|c\E", {b"a.b|c"}),
        (rb"a\x2eb\x{2f}", {b"a.b/"}),
        (rb"a(?=b)bc(?!d)", {b"abc"}),
        (rb"a(?#b)c", {b"ac"}),
        (rb"(?x) a b # c", {b"ab"}),
        (rb"(?<name>abc)\1", {b"abc"}),
        (rb"a{b}", {b"a{b}"}),
        (rb"(?i)1:2", {b"1:2"}),
        (b"caf\xe9", {b"caf\xe9"}),
    ],
)
def test_texts(regex: bytes, texts: set[bytes]) -> None:
    assert found(regex) == texts


@pytest.mark.parametrize(
    "regex",
    [
        rb".*",
        rb"",
        rb"a|",
        rb"a|\d",
        rb"(?:abc)?",
        rb"(?:abc)*",
        rb"(?:abc){0}",
        rb"(?:abc){0,5}",
        rb"[abc]",
        rb"\d+\s\w",
        rb"(?=abc)",
        rb"(?!abc)",
        rb"(?(?=a)abc|abd)",  # not understood
        rb"abc(*ACCEPT)def",
        rb"(*CRLF)abc",
        rb"a{,3}bc",  # text to one version, a repeat to another
        rb"(?i)\xe9",
        rb"abc\Kd(?C1)",
        rb"(?^i:abc)",
        b"(" * 200 + b"abc" + b")" * 200,
    ],
)
def test_nothing_is_known(regex: bytes) -> None:
    assert required_literals(regex) == []


def test_case_that_does_not_matter() -> None:
    assert longest(rb"(?i)Error:") == Literals(frozenset({b"error:"}), any_case=True)
    assert longest(rb"x(?i:Err)or") == Literals(frozenset({b"err"}), any_case=True)
    assert longest(rb"ab|(?i)CD") == Literals(frozenset({b"ab", b"cd"}), any_case=True)
    assert longest(rb"(?i)a(?-i)bcd") == Literals(frozenset({b"bcd"}))


def test_all_that_is_required_is_given() -> None:
    assert required_literals(rb"one \d+ (?:two|three)") == [
        Literals(frozenset({b"one "})),
        Literals(frozenset({b" two", b" three"})),
    ]


def test_many_spellings_are_no_help() -> None:
    many = b"|".join(b"word%d" % number for number in range(MAX_ALTERNATIVES + 1))
    assert required_literals(many) == []
    assert longest(b"(?:" + many + b") abc") == Literals(frozenset({b" abc"}))
