"""INI text to raw settings: sections and options with their line numbers. Pure.

The dialect is small on purpose: a value is often a regex or a shell command and may hold any character.

    ; comment                  a line whose first character that is no blank is ; or #
    [section]                  starts in the first column; the name is literal and case matters
    option = value             the name in any case, the value literal up to the end of the line

Several files are read as one, but each begins anew: options stand below a section of the same file. A name is
given to one section in all of them, and `[general]` stands in the first one only.

There is no interpolation, no comment behind a value, no quoting and no continuation line. Blanks (space, tab)
around a name and around a value do not count. `[general]` is reserved and known in any case, since nobody who
writes `[General]` means a log item of that name.

Text is UTF-8; bytes that are not survive as surrogates ("surrogateescape"), so that every value can be turned
back into the bytes that the file holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lognot.errors import Problem
from lognot.shown import escaped, shown

GENERAL = "general"
MAX_SECTION_NAME_BYTES = 64  # it stands in every log line about the item
MAX_OPTION_NAME_BYTES = 64  # it stands in every message about the option
MAX_ENTRIES = 100_000  # headers and options: more than every option in as many items as there may be
MAX_SYNTAX_PROBLEMS = 200  # more means that this is no config at all, such as `--test /var/log/syslog`

_BLANKS = " \t"  # not str.strip()'s idea of blanks: a regex may well end in a no-break space
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyz_")
_NAME_REST = _NAME_START | frozenset("0123456789-")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a config: its name, for messages, and what it holds."""

    path: str
    data: bytes


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
    source: str  # the path of the file that it stands in
    line: int  # 1-based, of the header
    options: tuple[RawOption, ...]


def parse_ini(sources: Sequence[Source]) -> tuple[tuple[RawSection, ...], tuple[Problem, ...]]:
    """Return the sections of the files and everything that is wrong with their syntax, both in reading order.

    Never raises, whatever the bytes are. With problems, the sections are still what could be understood, so
    that the caller can look for further ones; a config that has any must not be used.
    """
    reader = _Reader(sources[0].path)
    for source in sources:
        if not reader.is_full:
            reader.read(source)
    return reader.sections(), tuple(reader.problems)


class _Reader:
    """The sections read so far; options go to the one at hand."""

    def __init__(self, main: str) -> None:
        self.problems: list[Problem] = []
        self.is_full = False  # there is more, that is not looked at
        self._entries = 0
        self._main = main  # the file that may have [general]
        self._source = main
        self._headers: list[tuple[str, str, int, list[RawOption]]] = []
        self._section_places: dict[str, str] = {}
        # The section at hand: "" and None before the first one of a file.
        self._section = ""
        self._options: list[RawOption] | None = None
        self._option_lines: dict[str, int] = {}

    def sections(self) -> tuple[RawSection, ...]:
        return tuple(
            RawSection(name, source, line, tuple(options)) for name, source, line, options in self._headers
        )

    def read(self, source: Source) -> None:
        self._source, self._section, self._options = source.path, "", None
        if source.data.startswith(_UTF16_BOMS):
            self._add(1, "", "this is UTF-16 text; expected UTF-8")
            return
        text = source.data.removeprefix(_UTF8_BOM).decode("utf-8", "surrogateescape")
        for number, line in enumerate(text.split("\n"), start=1):
            self._read_line(number, line.removesuffix("\r"))
            if len(self.problems) >= MAX_SYNTAX_PROBLEMS or self._entries > MAX_ENTRIES:
                what = "errors" if self._entries <= MAX_ENTRIES else "sections and options"
                self._add(number, "", f"too many {what}; what follows was not looked at")
                self.is_full = True
                break

    def _add(self, line: int, option: str, text: str) -> None:
        self.problems.append(Problem(self._source, line, self._section, option, text))

    def _read_line(self, number: int, line: str) -> None:
        if "\0" in line:
            self._add(number, "", "holds a NUL byte; expected text")
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
            self._add(number, "", f"expected [section], option = value or a comment, got {shown(stripped)}")

    def _refuse_indented(self, number: int, stripped: str) -> None:
        text = "an indented line does not continue the one above; expected option = value, got"
        self._add(number, "", f"{text} {shown(stripped)}")

    def _read_header(self, number: int, stripped: str, indented: bool) -> None:
        if indented:  # more likely the rest of a regex, such as "  [a-z]+", than a header
            self._refuse_indented(number, stripped)
            return
        self._entries += 1
        name, bracket, rest = stripped[1:].partition("]")
        if name.lower() == GENERAL:
            name = GENERAL
        wrong = _section_name_problem(name)
        self._section, self._options, self._option_lines = escaped(name) if wrong else name, [], {}
        misplaced = name == GENERAL and self._source != self._main
        if not misplaced:
            self._headers.append((self._section, self._source, number, self._options))
        if not bracket:
            self._add(number, "", "the ] after the section name is missing")
        elif rest:
            self._add(number, "", f"expected nothing after [section], not even a comment, got {shown(rest)}")
        if misplaced:
            self._add(number, "", f"a drop-in holds items only; this section is expected in {self._main}")
        elif wrong:
            self._add(number, "", wrong)
        else:
            place = f"{self._source}:{number}"
            first = self._section_places.setdefault(name, place)
            if first != place:
                self._add(number, "", f"this section stands at {first} already; expected each name once")

    def _read_option(self, number: int, name: str, value: str) -> None:
        if self._options is None:
            self._add(number, name, "stands before the first [section]; expected a section line above it")
            return
        self._entries += 1
        self._options.append(RawOption(name, value, number))
        first = self._option_lines.setdefault(name, number)
        if first != number:
            self._add(number, name, f"is set in line {first} of this section already; expected it once")


def _is_option_name(name: str) -> bool:
    return len(name) <= MAX_OPTION_NAME_BYTES and name[:1] in _NAME_START and _NAME_REST.issuperset(name)


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
