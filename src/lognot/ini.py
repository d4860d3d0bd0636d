"""INI text to raw settings: sections and options with their line numbers. Pure.

The dialect is small on purpose: a value is often a regex or a shell command and may hold any character.

    ; comment                  a line whose first character that is no blank is ; or #
    [section]                  starts in the first column; the name is literal and case matters
    option = value             the name in any case, the value literal up to the end of the line

There is no interpolation, no comment behind a value, no quoting and no continuation line. Blanks (space, tab)
around a name and around a value do not count. `[general]` is reserved and known in any case, since nobody who
writes `[General]` means a log item of that name.

Text is UTF-8; bytes that are not survive as surrogates ("surrogateescape"), so that every value can be turned
back into the bytes that the file holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from lognot.errors import Problem
from lognot.shown import escaped, shown

GENERAL = "general"
MAX_SECTION_NAME_BYTES = 64  # it stands in every log line about the item
MAX_SYNTAX_PROBLEMS = 200  # more means that this is no config at all, such as `--test /var/log/syslog`

_BLANKS = " \t"  # not str.strip()'s idea of blanks: a regex may well end in a no-break space
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyz_")
_NAME_REST = _NAME_START | frozenset("0123456789-")


@dataclass(frozen=True, slots=True)
class RawOption:
    """`name = value` as the file has it, the name in lower case."""

    name: str
    value: str
    line: int  # 1-based


@dataclass(frozen=True, slots=True)
class RawSection:
    """A `[name]` with the options below it, in file order. After a problem, names may come twice."""

    name: str  # GENERAL in lower case, everything else as written
    line: int  # 1-based, of the header
    options: tuple[RawOption, ...]


def parse_ini(data: bytes, source: str) -> tuple[tuple[RawSection, ...], tuple[Problem, ...]]:
    """Return the sections of `data` and everything that is wrong with its syntax, both in line order.

    Never raises, whatever the bytes are. With problems, the sections are still what could be understood, so
    that the caller can look for further ones; a config that has any must not be used. `source` names the file
    in the problems.
    """
    if data.startswith(_UTF16_BOMS):
        return (), (Problem(source, 1, "", "", "this is UTF-16 text; expected UTF-8"),)
    reader = _Reader(source)
    text = data.removeprefix(_UTF8_BOM).decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        reader.read_line(number, line.removesuffix("\r"))
        if len(reader.problems) >= MAX_SYNTAX_PROBLEMS:
            reader.add(number, "", "too many errors; what follows was not looked at")
            break
    return reader.sections(), tuple(reader.problems)


class _Reader:
    """The sections read so far; options go to the last one."""

    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._headers: list[tuple[str, int, list[RawOption]]] = []
        self._section_lines: dict[str, int] = {}
        self._option_lines: dict[str, int] = {}  # of the section at hand

    def add(self, line: int, option: str, text: str) -> None:
        section = self._headers[-1][0] if self._headers else ""
        self.problems.append(Problem(self._source, line, section, option, text))

    def sections(self) -> tuple[RawSection, ...]:
        return tuple(RawSection(name, line, tuple(options)) for name, line, options in self._headers)

    def read_line(self, number: int, line: str) -> None:
        if "\0" in line:
            self.add(number, "", "holds a NUL byte; expected text")
            line = line.replace("\0", "")  # the rest of the line may hold another error, or none
        stripped = line.strip(_BLANKS)
        if not stripped or stripped[0] in ";#":
            return
        indented = line[0] in _BLANKS
        if stripped[0] == "[":
            self._read_header(number, stripped, indented)
            return
        name, equals, value = stripped.partition("=")
        name = name.rstrip(_BLANKS).lower()
        if equals and _is_option_name(name):
            self._read_option(number, name, value.lstrip(_BLANKS))
        elif indented:
            self._refuse_indented(number, stripped)
        else:
            self.add(number, "", f"expected [section], option = value or a comment, got {shown(stripped)}")

    def _refuse_indented(self, number: int, stripped: str) -> None:
        text = "an indented line does not continue the one above; expected option = value, got"
        self.add(number, "", f"{text} {shown(stripped)}")

    def _read_header(self, number: int, stripped: str, indented: bool) -> None:
        if indented:  # more likely the rest of a regex, such as "  [a-z]+", than a header
            self._refuse_indented(number, stripped)
            return
        name, bracket, rest = stripped[1:].partition("]")
        if name.lower() == GENERAL:
            name = GENERAL
        wrong = _section_name_problem(name)
        self._headers.append((escaped(name) if wrong else name, number, []))
        self._option_lines = {}
        if not bracket:
            self.add(number, "", "the ] after the section name is missing")
        elif rest:
            self.add(number, "", f"expected nothing after [section], not even a comment, got {shown(rest)}")
        if wrong:
            self.add(number, "", wrong)
            return
        first = self._section_lines.setdefault(name, number)
        if first != number:
            self.add(number, "", f"this section stands in line {first} already; expected each name once")

    def _read_option(self, number: int, name: str, value: str) -> None:
        if not self._headers:
            self.add(number, name, "stands before the first [section]; expected a section line above it")
            return
        self._headers[-1][2].append(RawOption(name, value, number))
        first = self._option_lines.setdefault(name, number)
        if first != number:
            self.add(number, name, f"is set in line {first} of this section already; expected it once")


def _is_option_name(name: str) -> bool:
    return name[:1] in _NAME_START and _NAME_REST.issuperset(name)


def _section_name_problem(name: str) -> str:
    """Return what is wrong with a section's name, or ""."""
    if not name.strip(_BLANKS):
        return "the section name is empty"
    if not name.isprintable():  # also bytes that are no UTF-8: the name goes into the journal as text
        return f"the section name {shown(name)} holds a control character or is not UTF-8"
    if name != name.strip(_BLANKS):
        return f"the section name {shown(name)} begins or ends with a blank"
    if len(name.encode("utf-8")) > MAX_SECTION_NAME_BYTES:
        return f"the section name is longer than {MAX_SECTION_NAME_BYTES} bytes"
    return ""
