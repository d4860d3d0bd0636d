r"""Where an action's text stands in the shell's quoting, and what to put there for a value. Pure.

The shell's own rules (POSIX.1-2017 XCU 2.2, 2.3, 2.6), as far as it takes to know whether a place is bare, in
double or in single quotes. Where shells differ about where something ends, a value after it is refused, not
guessed at. `lognot.action` says why a mistake here cannot run what a log says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lognot.errors import LognotError

# $0 to $99. PCRE allows more groups, an action with more needs a program that reads the line itself.
MAX_GROUP = 99


class TemplateError(LognotError):
    """An action text that cannot be turned into shell text; says why, and what to write instead."""


class UnclearError(TemplateError):
    """From here on the quoting cannot be told for sure. Harmless unless a value follows."""


# Between the two steps of parse_template the text is a str: what reaches the shell, one character per byte
# (Latin-1), and characters above those for the values.
FIRST_GROUP = 0x100
LINE = chr(FIRST_GROUP + MAX_GROUP + 1)
_VALUE = re.compile(f"[\u0100-{LINE}]")
_ESCAPE_OR_VALUE = re.compile(r"\\([\\$])|\$(?:([0-9]+)|@)")


def is_value(char: str) -> bool:
    """Say whether a character of a lexed text stands for a value."""
    return char > "\xff"


def lex(text: bytes) -> str:
    r"""Undo lognot's own notation: `\$`, `\\`, `$N`, `$@`."""

    def emitted(match: re.Match[str]) -> str:
        escaped: str | None = match[1]
        digits: str | None = match[2]
        if escaped is not None:
            return escaped
        if digits is None:
            return LINE
        digits = digits.lstrip("0") or "0"
        if len(digits) > len(str(MAX_GROUP)):  # before int(), which raises for thousands of digits
            raise TemplateError(f"${digits[:20]}: no group above ${MAX_GROUP} can be passed")
        return chr(FIRST_GROUP + int(digits))

    return _ESCAPE_OR_VALUE.sub(emitted, text.decode("latin-1"))


def _shown(value: str) -> str:
    """Return how an action writes a value: `$1`, `$@`."""
    return "$@" if value == LINE else f"${ord(value) - FIRST_GROUP}"


def variable_of(value: str) -> str:
    """Return the name of the environment variable that has a value."""
    return "LOGNOT_LINE" if value == LINE else f"LOGNOT_{ord(value) - FIRST_GROUP}"


def _expansion(value: str) -> str:
    return f"${{{variable_of(value)}}}"


@dataclass(slots=True)
class Word:
    """A word of a command: its text without quotes, and what of it was bare.

    NUL stands for a value in the one, and for everything else in the other.
    """

    text: str = ""
    bare: str = ""
    values: list[str] = field(default_factory=list)

    @property
    def has_value(self) -> bool:
        """It holds text from the log."""
        return bool(self.values)


@dataclass(slots=True)
class _Frame:
    """One level of nesting: the whole text "", a subshell "(", a command substitution "$(", a quote '"'."""

    opener: str
    word: Word | None = None
    words: list[Word] = field(default_factory=list)
    redirects: bool = False  # the next word is a file
    elements: bool = False  # of an array in bash, NAME=( ): no commands


# What is the same in every shell. Anything more involved is UnclearError.
_SIMPLE_BRACES = re.compile(r"\$\{[A-Za-z0-9_@*#?!$-][A-Za-z0-9_@*#?!:=+%/., -]*\}")
_SIMPLE_ARITHMETIC = re.compile(r"(?:[A-Za-z0-9_ \t+*/%<>=!&|^~?:,()-]|\$(?!\())*")
_CLOSED_QUOTES = re.compile(r"""(?:[^'"]|'[^']*'|"[^"]*")*""")
_SUBSCRIPT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[")


def _opens_subscript(frame: _Frame, word: Word) -> bool:
    """Say whether bash may take what comes next in a word for an array's subscript, up to the next ]."""
    begins = _SUBSCRIPT.match(word.bare) or (frame.elements and word.bare.startswith("["))
    return bool(begins) and word.bare.count("[") > word.bare.count("]")


class Tracker:
    """Goes once through the text as it reaches the shell, and puts the expansions in.

    Except for those, and for a backslash where one would run into an expansion, it leaves the text as it is,
    comments aside: those are dropped, since not every shell sees one inside $( ) the same way.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.commands: list[list[Word]] = []
        self.words_with_values: list[Word] = []
        self.warnings: list[str] = []
        self._at = 0
        self._out: list[str] = []
        self._frames = [_Frame("")]

    def translate(self) -> bytes:
        """Return the shell text; `commands` and `warnings` are filled on the way."""
        try:
            while self._at < len(self.source):
                self._step()
            if len(self._frames) > 1:
                raise TemplateError(f"unterminated {self._frames[-1].opener}")
            self._end_word()
        except UnclearError:
            # What came before it was told for sure, and what comes after it holds no value: leave that alone.
            if _VALUE.search(self.source, self._at):
                raise
            self._out.append(self.source[self._at :])
        self._end_command()
        return "".join(self._out).encode("latin-1")

    def _step(self) -> None:
        char = self.source[self._at]
        quoted = self._frames[-1].opener == '"'
        if is_value(char):
            self._value(char, quoted)
        elif char == "\\":
            self._backslash()
        elif char == "$":
            self._dollar(quoted)
        elif char == "`":
            self._backticks(quoted)
        elif char == '"':
            if quoted:
                self._take(1, "")
                self._frames.pop()
            else:
                self._take(1, "")  # an empty word is a word, and # inside or after it is no comment
                self._frames.append(_Frame('"'))
        elif quoted:
            self._take(1, char)
        elif char == "'":
            self._single_quotes()
        elif char in " \t\n;&|<>()":
            self._operator(char)
        elif char == "#" and self._frames[-1].word is None:
            end = self.source.find("\n", self._at)
            self._at = end if end >= 0 else len(self.source)
        else:
            self._take(1, char, bare=char)

    def _word(self) -> Word:
        """Return the word that is being read, in the innermost command."""
        frame = next(frame for frame in reversed(self._frames) if frame.opener != '"')
        if frame.word is None:
            frame.word = Word()
        return frame.word

    def _take(self, length: int, text: str, bare: str = "\0") -> None:
        """Copy what is next to the shell text; in the current word it means `text`."""
        self._out.append(self.source[self._at : self._at + length])
        self._at += length
        word = self._word()
        word.text += text
        word.bare += bare

    def _value(self, value: str, quoted: bool) -> None:
        inner = self._word()
        # The output of a command substitution becomes part of the words around it.
        for frame in self._frames:
            word = frame.word
            if word is None:
                continue
            if not word.values:
                self.words_with_values.append(word)
            word.values.append(value)
            word.text += "\0"
            if _opens_subscript(frame, word):
                opened = "[ in NAME=( )" if frame.elements else "NAME["
                raise TemplateError(
                    f"{_shown(value)} after {opened}: bash runs it as arithmetic; quote the ["
                )
        inner.bare += "\0"
        self._out.append(_expansion(value) if quoted else f'"{_expansion(value)}"')
        self._at += 1

    def _backslash(self) -> None:
        following = self.source[self._at + 1 : self._at + 2]
        if following == "\n":
            raise UnclearError("a value after a backslash at the end of a line: join the lines")
        if following and is_value(following):
            self._out.append("\\")  # escapes the one that is copied now: the expansion stays ours
            self._take(1, "\\")
        else:
            self._take(2, following or "\\")

    def _dollar(self, quoted: bool) -> None:
        following = self.source[self._at + 1 : self._at + 2]
        if following and is_value(following):
            self._out.append("\\")  # "$${LOGNOT_1}" would be the process id and some text
            self._take(1, "$")
        elif following == "(" and self.source.startswith("(", self._at + 2):
            self._arithmetic()
        elif following == "(":
            self._take(2, "")
            self._frames.append(_Frame("$("))
        elif following == "{":
            braces = _SIMPLE_BRACES.match(self.source, self._at)
            if braces is None:
                self._refuse_inside("${ }", r"\}", "use a variable: x=$1; … ${x}")
            else:
                self._take(len(braces[0]), "")
        elif following == "[":
            raise UnclearError(r"$[ ] before or around a value is arithmetic in bash: use $(( )) or \$\[")
        elif following == "'" and not quoted:
            raise UnclearError("$' ' before or around a value: not every shell knows it, use printf")
        else:
            self._take(2 if following == "$" else 1, "$")

    def _arithmetic(self) -> None:
        start = self._at + len("$((")
        inside = _SIMPLE_ARITHMETIC.match(self.source, start)
        depth = 2
        for offset, char in enumerate(inside[0] if inside else "", start):
            depth += (char == "(") - (char == ")")
            if depth == 0:
                self._take(offset + 1 - self._at, "")
                return
            if depth == 1 and self.source[offset + 1 : offset + 2] != ")":
                break  # $( (list) list ), to some shells
        self._refuse_inside("$(( ))", r"\)\)", "bash would run commands in it")

    def _backticks(self, quoted: bool) -> None:
        end = self.source.find("`", self._at + 1)
        if end < 0:
            raise TemplateError("unterminated `")
        inside = self.source[self._at + 1 : end]
        closed = _CLOSED_QUOTES.fullmatch(inside)
        if _VALUE.search(inside) or "\\" in inside or not closed or (quoted and '"' in inside):
            self._refuse_inside("backticks", "`", "use $( ) instead")
        self._take(end + 1 - self._at, "")

    def _refuse_inside(self, construct: str, end: str, instead: str) -> None:
        """Raise the error for a construct that holds a value, or that may not end where it seems to."""
        closing = re.compile(end).search(self.source, self._at + 1)
        value = closing and _VALUE.search(self.source, self._at, closing.start())
        if value:
            raise TemplateError(f"{_shown(value[0])} inside {construct}: {instead}")
        raise UnclearError(f"a value after such involved {construct}: put one of them into a script")

    def _single_quotes(self) -> None:
        end = self.source.find("'", self._at + 1)
        if end < 0:
            raise TemplateError("unterminated '")
        self._take(1, "")
        while self._at < end:
            char = self.source[self._at]
            if is_value(char):
                self._out.append("'")
                self._value(char, quoted=False)
                self._out.append("'")
            else:
                self._take(1, char)
        self._take(1, "")

    def _operator(self, char: str) -> None:
        frame = self._frames[-1]
        following = self.source[self._at + 1 : self._at + 2]
        elements = char == "(" and frame.word is not None and frame.word.bare.endswith("=")
        self._end_word()
        if char == "<" and following == "<":
            raise UnclearError("a value in or after a here-document: use printf '%s\\n' … | …")
        if char == "(" and following == "(":
            raise UnclearError("a value in or after ((: arithmetic in bash; write ( ( for nested subshells")
        length = 1
        if char in "<>":
            frame.redirects = True
            length += following in (">", "&", "|")  # >>, <>, >&, <&, >|: no command ends here
        elif char in "()\n;&|":
            self._end_command()
        self._out.append(self.source[self._at : self._at + length])
        self._at += length
        if char == "(":
            self._frames.append(_Frame("(", elements=elements))
        elif char == ")" and frame.opener:  # without an opener: a pattern of `case`
            self._frames.pop()

    def _end_word(self) -> None:
        frame = self._frames[-1]
        word, frame.word = frame.word, None
        if word is None:
            return
        if _opens_subscript(frame, word):
            raise UnclearError("a value after NAME[ that is not closed in one word: quote the [")
        if word.bare == "[[":
            raise UnclearError("a value in or after [[ ]]: bash takes numbers there for arithmetic, use [ ]")
        if word.bare == "case" and any(frame.opener == "$(" for frame in self._frames):
            raise UnclearError("a value after `case` inside $( ): put it into a script, or quote 'case'")
        if not frame.redirects:
            frame.words.append(word)
        elif word.has_value:
            self.warnings.append("text from the log is part of the name of a file that the shell opens")
        frame.redirects = False

    def _end_command(self) -> None:
        frame = self._frames[-1]
        if frame.words and not frame.elements:
            self.commands.append(frame.words)
        frame.words = []
        frame.redirects = False
