"""The INI dialect: what is literal, what is refused, and the lines that problems name."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lognot.errors import Problem
from lognot.ini import MAX_ENTRIES, MAX_SYNTAX_PROBLEMS, RawOption, RawSection, Source, parse_ini
from lognot.shown import SHOWN_CHARACTERS, shown


def parse(*data: bytes) -> tuple[tuple[RawSection, ...], tuple[Problem, ...]]:
    """Parse files that are called f, g, h."""
    return parse_ini([Source(path, text) for path, text in zip("fgh", data, strict=False)])


def sections_of(data: bytes) -> tuple[RawSection, ...]:
    sections, problems = parse(data)
    assert problems == ()
    return sections


def problems_of(*data: bytes) -> list[str]:
    return [str(problem) for problem in parse(*data)[1]]


def test_sections_and_options_carry_their_lines() -> None:
    data = b"; one\n\n[a]\npath = /x\n  # two\nRegEx=y\n[B c]\n\tsize\t=\t1 \n"
    assert sections_of(data) == (
        RawSection("a", "f", 3, (RawOption("path", "/x", 4), RawOption("regex", "y", 6))),
        RawSection("B c", "f", 7, (RawOption("size", "1", 8),)),
    )


@pytest.mark.parametrize(
    "value",
    [
        "a # b",
        "a ; b",
        "%(path)s",
        "${x}",
        "a = b = c",
        "'quoted'",
        '"a"',
        "[x]",
        "\\",
        "a\\",
        "100%",
        "a\tb",
        "\x1b[",
    ],
)
def test_values_are_literal(value: str) -> None:
    assert sections_of(f"[a]\nregex = {value}\n".encode())[0].options[0].value == value


def test_blanks_around_a_value_do_not_count_but_a_no_break_space_does() -> None:
    assert sections_of("[a]\nregex =  \t x\u00a0 \t\n".encode())[0].options[0].value == "x\u00a0"


def test_an_empty_value_is_a_value() -> None:
    assert sections_of(b"[a]\nsize =\n")[0].options == (RawOption("size", "", 2),)


@pytest.mark.parametrize(
    "data",
    [b"[a]\r\nsize = 1\r\n", b"\xef\xbb\xbf[a]\nsize = 1", b"[a]\nsize = 1", b"[a]  \n  size = 1\n\n\n"],
)
def test_crlf_bom_indentation_and_a_missing_last_newline_change_nothing(data: bytes) -> None:
    assert sections_of(data) == (RawSection("a", "f", 1, (RawOption("size", "1", 2),)),)


def test_only_one_carriage_return_belongs_to_the_newline() -> None:
    assert sections_of(b"[a]\nregex = x\ry\r\r\n")[0].options[0].value == "x\ry\r"


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf", b"# only\n; comments", b" \t\r\n"])
def test_an_empty_file_has_no_section_and_no_problem(data: bytes) -> None:
    assert parse(data) == ((), ())


def test_general_is_known_in_any_case_and_other_names_are_literal() -> None:
    assert [section.name for section in sections_of(b"[General]\n[a]\n[A]\n")] == ["general", "a", "A"]


def test_any_bytes_of_a_value_come_back() -> None:
    value = bytes(range(1, 256)).replace(b"\n", b"")
    option = sections_of(b"[a]\nregex = <" + value + b">\n")[0].options[0]
    assert option.value.encode("utf-8", "surrogateescape") == b"<" + value + b">"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"size = 1\n", "f:1: size: stands before the first [section]; expected a section line above it"),
        (b"[a]\nsize 1\n", "f:2: [a] expected [section], option = value or a comment, got 'size 1'"),
        (b"[a]\n= 1\n", "f:2: [a] expected [section], option = value or a comment, got '= 1'"),
        (
            b"[a]\nsize\xa0= 1\n",
            r"f:2: [a] expected [section], option = value or a comment, got 'size\xa0= 1'",
        ),
        (
            b"[a]\nregex = x\n  y\n",
            "f:3: [a] an indented line does not continue the one above; expected option = value, got 'y'",
        ),
        (
            b"[a]\nregex = x\n  [a]+\n",
            "f:3: [a] an indented line does not continue the one above; expected option = value, got '[a]+'",
        ),
        (b"[a]\nregex = x\0y\n", "f:2: [a] holds a NUL byte; expected text"),
        (b"[a\n", "f:1: [a] the ] after the section name is missing"),
        (b"[a] ; x\n", "f:1: [a] expected nothing after [section], not even a comment, got ' ; x'"),
        (b"[a]]\n", "f:1: [a] expected nothing after [section], not even a comment, got ']'"),
        (b"[]\n", "f:1: the section name is empty"),
        (b"[ \t]\n", r"f:1: [ \t] the section name is empty"),
        (b"[ a]\n", "f:1: [ a] the section name ' a' begins or ends with a blank"),
        (
            b"[a\x1b[2J]\n",
            r"f:1: [a\x1b[2J] the section name 'a\x1b[2J' holds a control character or is not UTF-8",
        ),
        (b"[\xff]\n", r"f:1: [\xff] the section name '\xff' holds a control character or is not UTF-8"),
        (
            "[a\u202e]\n".encode(),
            r"f:1: [a\u202e] the section name 'a\u202e' holds a control character or is not UTF-8",
        ),
        ("[{}]\n".format("é" * 33).encode(), f"f:1: [{'é' * 33}] the section name is longer than 64 bytes"),
        (b"[a]\n[b]\n[a]\n", "f:3: [a] this section stands at f:1 already; expected each name once"),
        (
            b"[GENERAL]\n[general]\n",
            "f:2: [general] this section stands at f:1 already; expected each name once",
        ),
        (
            b"[a]\nsize = 1\nSIZE = 2\n",
            "f:3: [a] size: is set in line 2 of this section already; expected it once",
        ),
        (b"\xff\xfe[\0a\0]\0", "f:1: this is UTF-16 text; expected UTF-8"),
    ],
)
def test_each_error_is_said_exactly(data: bytes, expected: str) -> None:
    assert problems_of(data) == [expected]


def test_files_are_read_as_one_and_each_begins_anew() -> None:
    sections, problems = parse(b"[general]\n[a]\nsize = 1\n", b"\xef\xbb\xbf; h\n[b]\nsize = 2\n", b"")
    assert problems == ()
    assert sections == (
        RawSection("general", "f", 1, ()),
        RawSection("a", "f", 2, (RawOption("size", "1", 3),)),
        RawSection("b", "g", 2, (RawOption("size", "2", 3),)),
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"size = 1\n", ["g:1: size: stands before the first [section]; expected a section line above it"]),
        (b"\n[a]\n", ["g:2: [a] this section stands at f:2 already; expected each name once"]),
        (b"[b]\n[b]\n", ["g:2: [b] this section stands at g:1 already; expected each name once"]),
        (
            b"[General]\nuid = 1\nuid = 2\n[GENERAL]\n",
            [
                "g:1: [general] a drop-in holds items only; this section is expected in f",
                "g:3: [general] uid: is set in line 2 of this section already; expected it once",
                "g:4: [general] a drop-in holds items only; this section is expected in f",
            ],
        ),
        (b"\xff\xfe[\0", ["g:1: this is UTF-16 text; expected UTF-8"]),
    ],
)
@pytest.mark.parametrize("first", [b"[general]\n[a]\n", b"\n[a]\n"])
def test_each_error_of_a_second_file_is_said_exactly(first: bytes, data: bytes, expected: list[str]) -> None:
    sections, problems = parse(first, data, b"[c]\n")
    assert [str(problem) for problem in problems] == expected
    assert "general" not in {section.name for section in sections if section.source == "g"}
    assert sections[-1] == RawSection("c", "h", 1, ())


def test_too_many_errors_are_too_many_for_all_files() -> None:
    problems = problems_of(b"[a]\nx\n", b"x\n" * 5000, b"x\n")
    assert len(problems) == MAX_SYNTAX_PROBLEMS + 1
    assert problems[-1].startswith(f"g:{MAX_SYNTAX_PROBLEMS - 1}: too many errors")


def test_a_name_of_64_bytes_is_fine_and_sections_may_share_options() -> None:
    assert len(sections_of(b"[%b]\nsize = 1\n[b]\nsize = 1\n" % (b"a" * 64))) == 2


def test_what_follows_an_error_is_read_too() -> None:
    sections, problems = parse(b"x\n[a\nsize = 1\ny\n[a]\nsize = 2\nsize = 3\n")
    assert [problem.line for problem in problems] == [1, 2, 4, 5, 7]
    assert [[option.value for option in section.options] for section in sections] == [["1"], ["2", "3"]]


def test_a_file_that_is_no_config_ends_early() -> None:
    problems = problems_of(b"Nov 23 04:18:01 host sshd[1]: hello\n" * 5000)
    assert len(problems) == MAX_SYNTAX_PROBLEMS + 1
    assert problems[-1] == f"f:{MAX_SYNTAX_PROBLEMS}: too many errors; what follows was not looked at"


def test_an_option_name_that_is_too_long_to_be_shown_is_none() -> None:
    assert problems_of(b"[a]\n%s = 1\n" % (b"o" * 64)) == []
    [problem] = problems_of(b"[a]\n%s = 1\n" % (b"o" * 2**20))
    assert problem.startswith("f:2: [a] expected [section], option = value or a comment, got 'ooo")
    assert len(problem) < 200


@pytest.mark.parametrize("form", [b"[%d]\n", b"o%d=\n"])
def test_more_sections_or_options_than_can_be_meant_end_it(form: bytes) -> None:
    data = b"[a]\n" + b"".join(form % number for number in range(MAX_ENTRIES + 1000))
    sections, problems = parse(data, b"[b]\n")
    assert [(problem.source, problem.line, problem.text) for problem in problems] == [
        ("f", MAX_ENTRIES + 1, "too many sections and options; what follows was not looked at")
    ]
    assert sum(1 + len(section.options) for section in sections) == MAX_ENTRIES + 1


@example(b"[a]\nb=c\x85d\x1ee\x0b\x0c=\n")
@given(
    st.binary()
    | st.lists(st.sampled_from([b"[", b"]", b"\n", b"=", b"a", b" ", b"\0", b"\r", b"#"])).map(b"".join)
)
def test_any_bytes_give_sections_or_problems_in_line_order(data: bytes) -> None:
    sections, problems = parse(data)
    last = data.count(b"\n") + 1
    lines = [problem.line for problem in problems]
    assert lines == sorted(lines) and all(1 <= line <= last for line in lines)
    assert all(str(problem).isprintable() for problem in problems)
    places = [place for section in sections for place in (section.line, *(o.line for o in section.options))]
    assert places == sorted(set(places))


@given(st.text())
def test_what_is_shown_is_printable_and_short(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 2 + 10 * SHOWN_CHARACTERS


def test_shown_escapes_and_cuts() -> None:
    assert shown("a\x1b\udcff\u202e'é\U000e0001") == r"'a\x1b\xff\u202e'é\U000e0001'"
    assert shown("x" * 61) == f"'{'x' * 57}...'"
