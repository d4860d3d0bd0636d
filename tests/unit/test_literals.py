"""What every match of a regex must contain; that it holds for all regexes is shown by test_scan_generated."""

from __future__ import annotations

import pytest

from lognot.literals import MAX_ALTERNATIVES, Literals, required_literals


def by_length(text: bytes) -> float:
    return 1 / len(text)


def found(regex: bytes) -> set[bytes] | None:
    literals = required_literals(regex, by_length)
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
    assert required_literals(regex, by_length) is None


def test_case_that_does_not_matter() -> None:
    assert required_literals(rb"(?i)Error:", by_length) == Literals(frozenset({b"error:"}), any_case=True)
    assert required_literals(rb"x(?i:Err)or", by_length) == Literals(frozenset({b"err"}), any_case=True)
    assert required_literals(rb"ab|(?i)CD", by_length) == Literals(frozenset({b"ab", b"cd"}), any_case=True)
    assert required_literals(rb"(?i)a(?-i)bcd", by_length) == Literals(frozenset({b"bcd"}))


def test_the_rarest_is_chosen() -> None:
    def rare_x(text: bytes) -> float:
        return 0.0 if b"x" in text else 1.0

    assert required_literals(rb"common.*x.*more", rare_x) == Literals(frozenset({b"x"}))


def test_many_spellings_are_no_help() -> None:
    many = b"|".join(b"word%d" % number for number in range(MAX_ALTERNATIVES + 1))
    assert required_literals(many, by_length) is None
    assert required_literals(b"(?:" + many + b") abc", by_length) == Literals(frozenset({b" abc"}))
