r"""Action text -> shell text + environment. Text from a log never becomes shell source.

Used by the executor, which runs the shell, and by whoever checks a config. Pure: nothing is run here.

`$1` in an action becomes a quoted expansion of an environment variable, `"${LOGNOT_1}"`, not text. So the
shell text is fixed when the config is read; a log decides only what the variables hold. Where the action has
quotes of its own, the expansion has to suit them, so the shell's quoting is tracked here (POSIX.1-2017 XCU
2.2, 2.3, 2.6):

    unquoted          echo $1          echo "${LOGNOT_1}"
    double quotes     echo "<$1>"      echo "<${LOGNOT_1}>"
    single quotes     echo '<$1>'      echo '<'"${LOGNOT_1}"'>'

Why a mistake in this tracking cannot run what a log says: a shell parses first and expands later. The result
of a parameter expansion is never looked at again for quotes, operators or `$` (2.6). At worst, were it
unquoted by mistake, it would be split into fields and globbed; were it in literal quotes, its name would be
passed. A shell reads a value as source only where it says so: in backticks (their text is unquoted before it
is parsed), in arithmetic (bash runs the commands in an array subscript), in the operands of [[ ]], and in
commands such as eval. Values are refused in the first three. And wherever shells differ about where something
ends (here-documents, $'...', case inside $( ), involved ${...}), a value after it is refused, not guessed at.

The last kind is a second parser, chosen by the administrator, and it would read a value as its own source:
`sh -c "echo $1"`, eval, ssh, awk programs. No quoting of ours can reach through it. The environment does,
since it is inherited: `sh -c 'echo "$LOGNOT_1"'`. `warnings` finds the usual cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lognot.errors import LognotError

# $0 to $99. PCRE allows more groups, an action with more needs a program that reads the line itself.
MAX_GROUP = 99

# execve(2) takes no argument or variable over 128 KiB (MAX_ARG_STRLEN); this leaves room for the name.
MAX_VALUE_BYTES = 100 * 1024

# execve(2) takes arguments and environment of a quarter of the stack limit together: 2 MiB of the usual 8.
# Half of it is left for the arguments of what the action runs.
MAX_ENVIRONMENT_BYTES = 1024 * 1024

# The shell text is one argument of `sh -c`: MAX_ARG_STRLEN again.
MAX_SHELL_TEXT_BYTES = 100 * 1024

BASE_ENVIRONMENT = {
    b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    b"SHELL": b"/bin/sh",
    b"LANG": b"C.UTF-8",
}


class TemplateError(LognotError):
    """An action text that cannot be turned into shell text; says why, and what to write instead."""


class _UnclearError(TemplateError):
    """From here on the quoting cannot be told for sure. Harmless unless a value follows."""


@dataclass(frozen=True, slots=True)
class Template:
    """What an action runs: fixed shell text, and which values of a match it refers to."""

    shell_text: bytes
    groups: frozenset[int] = frozenset()
    uses_line: bool = False


def plain_template(text: bytes) -> Template:
    """Turn the text of an action without match arguments (downbound, size) into a Template, unchanged.

    Raises TemplateError for text that execve(2) cannot pass.
    """
    _check_passable(text)
    return Template(text)


def parse_template(text: bytes) -> Template:
    r"""Turn the text of an upbound action into shell text that refers to values, quoted, by name.

    `$N` is group N (all digits that follow: `$10` is group ten), `$@` the whole line; `\$` reaches the shell
    as `$` and `\\` as `\`; `$` and `\` before anything else stay. A `\` or `$` that would run into a value
    means itself. Raises TemplateError for an unterminated quote, and for a value where none can be passed
    safely.
    """
    _check_passable(text)
    source = _lex(text)
    shell_text = _Tracker(source).translate()
    _check_passable(shell_text)
    return Template(shell_text, placeholders(text), _LINE in source)


def placeholders(text: bytes) -> frozenset[int]:
    """Return the groups that an upbound action refers to; raises TemplateError for one over MAX_GROUP."""
    return frozenset(ord(char) - _FIRST_GROUP for char in _lex(text) if _is_value(char) and char != _LINE)


def warnings(text: bytes) -> tuple[str, ...]:
    """Say what in an upbound action works but hands text from the log to something that may act on it.

    A lint, by words: it knows the usual shells, interpreters and wrappers by name, and takes the first word
    of a command, after assignments and wrappers such as sudo, for its name. What it says is worth reading;
    that it says nothing proves nothing. Raises TemplateError like parse_template.
    """
    tracker = _Tracker(_lex(text))
    tracker.translate()
    found = dict.fromkeys(tracker.warnings)
    for command in tracker.commands:
        found.update(dict.fromkeys(_command_warnings(command)))
    return tuple(found)


def environment(
    *,
    name: str,
    home: str,
    item: str,
    path: str,
    kind: str,
    count: int,
    line: bytes | None,
    spans: Sequence[tuple[int, int]],
) -> dict[bytes, bytes]:
    """Build the whole environment of an action; nothing is inherited.

    `name` and `home` are those of the user it runs as. `line` is None where there is no match (downbound,
    size); otherwise `spans` are the offsets in it of the whole match and of each group, (-1, -1) for one that
    took no part. The result can be passed by execve(2): NUL is left out, long values are cut (see
    MAX_VALUE_BYTES), and all are cut shorter when they are too much together.
    """
    fixed = {
        **BASE_ENVIRONMENT,
        b"HOME": _encode(home),
        b"USER": _encode(name),
        b"LOGNAME": _encode(name),
        b"LOGNOT_ITEM": _encode(item),
        b"LOGNOT_PATH": _encode(path),
        b"LOGNOT_KIND": _encode(kind),
        b"LOGNOT_COUNT": b"%d" % count,
    }
    if line is None:
        return fixed
    values = {b"LOGNOT_LINE": _passable(line)}
    for group, (start, end) in enumerate(spans[: MAX_GROUP + 1]):
        values[b"LOGNOT_%d" % group] = b"" if start < 0 else _passable(line[start:end])
    room_bytes = MAX_ENVIRONMENT_BYTES - _execve_bytes(fixed)
    cap_bytes = MAX_VALUE_BYTES
    while _execve_bytes(values) > room_bytes and cap_bytes:
        cap_bytes //= 2
        values = {variable: value[:cap_bytes] for variable, value in values.items()}
    return {**fixed, **values}


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").replace(b"\0", b"")


def _passable(value: bytes) -> bytes:
    """Return what execve(2) can pass of `value`: without NUL, and not too long."""
    return value.replace(b"\0", b"")[:MAX_VALUE_BYTES]


def _execve_bytes(variables: dict[bytes, bytes]) -> int:
    """Return what execve(2) counts: each "NAME=value" with its NUL, and the pointer to it."""
    return sum(len(variable) + len(value) + 10 for variable, value in variables.items())


def _check_passable(shell_text: bytes) -> None:
    if b"\0" in shell_text:
        raise TemplateError("NUL cannot be passed to a shell")
    if len(shell_text) > MAX_SHELL_TEXT_BYTES:
        raise TemplateError(f"longer than {MAX_SHELL_TEXT_BYTES} bytes: put it into a script")


# Between the two steps of parse_template the text is a str: what reaches the shell, one character per byte
# (Latin-1), and characters above those for the values.
_FIRST_GROUP = 0x100
_LINE = chr(_FIRST_GROUP + MAX_GROUP + 1)
_VALUE = re.compile(f"[\u0100-{_LINE}]")
_ESCAPE_OR_VALUE = re.compile(r"\\([\\$])|\$(?:([0-9]+)|@)")


def _is_value(char: str) -> bool:
    return char > "\xff"


def _lex(text: bytes) -> str:
    r"""Undo lognot's own notation: `\$`, `\\`, `$N`, `$@`."""

    def emitted(match: re.Match[str]) -> str:
        escaped: str | None = match[1]
        digits: str | None = match[2]
        if escaped is not None:
            return escaped
        if digits is None:
            return _LINE
        digits = digits.lstrip("0") or "0"
        if len(digits) > len(str(MAX_GROUP)):  # before int(), which raises for thousands of digits
            raise TemplateError(f"${digits[:20]}: no group above ${MAX_GROUP} can be passed")
        return chr(_FIRST_GROUP + int(digits))

    return _ESCAPE_OR_VALUE.sub(emitted, text.decode("latin-1"))


def _shown(value: str) -> str:
    """Return how an action writes a value: `$1`, `$@`."""
    return "$@" if value == _LINE else f"${ord(value) - _FIRST_GROUP}"


def _expansion(value: str) -> str:
    return "${LOGNOT_LINE}" if value == _LINE else f"${{LOGNOT_{ord(value) - _FIRST_GROUP}}}"


@dataclass(slots=True)
class _Word:
    """A word of a command: its text without quotes, and what of it was bare (NUL for everything else)."""

    text: str = ""
    bare: str = ""
    has_value: bool = False


@dataclass(slots=True)
class _Frame:
    """One level of nesting: the whole text "", a subshell "(", a command substitution "$(", a quote '"'."""

    opener: str
    word: _Word | None = None
    words: list[_Word] = field(default_factory=list)
    redirects: bool = False  # the next word is a file


# What is the same in every shell. Anything more involved is _UnclearError.
_SIMPLE_BRACES = re.compile(r"\$\{[A-Za-z0-9_@*#?!$-][A-Za-z0-9_@*#?!:=+%/., -]*\}")
_SIMPLE_ARITHMETIC = re.compile(r"(?:[A-Za-z0-9_ \t+*/%<>=!&|^~?:,()-]|\$(?!\())*")
_CLOSED_QUOTES = re.compile(r"""(?:[^'"]|'[^']*'|"[^"]*")*""")
_SUBSCRIPT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[")


class _Tracker:
    """Goes once through the text as it reaches the shell, and puts the expansions in.

    Except for those, and for a backslash where one would run into an expansion, it leaves the text as it is,
    comments aside: those are dropped, since not every shell sees one inside $( ) the same way.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.commands: list[list[_Word]] = []
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
        except _UnclearError:
            # What came before it was told for sure, and what comes after it holds no value: leave that alone.
            if _VALUE.search(self.source, self._at):
                raise
            self._out.append(self.source[self._at :])
        self._end_command()
        return "".join(self._out).encode("latin-1")

    def _step(self) -> None:
        char = self.source[self._at]
        quoted = self._frames[-1].opener == '"'
        if _is_value(char):
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

    def _word(self) -> _Word:
        """Return the word that is being read, in the innermost command."""
        frame = next(frame for frame in reversed(self._frames) if frame.opener != '"')
        if frame.word is None:
            frame.word = _Word()
        return frame.word

    def _take(self, length: int, text: str, bare: str = "\0") -> None:
        """Copy what is next to the shell text; in the current word it means `text`."""
        self._out.append(self.source[self._at : self._at + length])
        self._at += length
        word = self._word()
        word.text += text
        word.bare += bare

    def _value(self, value: str, quoted: bool) -> None:
        for frame in self._frames:
            # The output of a command substitution becomes part of the word around it.
            word = frame.word
            if word is None:
                continue
            word.has_value = True
            if _SUBSCRIPT.match(word.bare) and word.bare.count("[") > word.bare.count("]"):
                raise TemplateError(f"{_shown(value)} after NAME[: bash runs it as arithmetic; quote the [")
        word = self._word()
        word.has_value = True
        word.bare += "\0"
        self._out.append(_expansion(value) if quoted else f'"{_expansion(value)}"')
        self._at += 1

    def _backslash(self) -> None:
        following = self.source[self._at + 1 : self._at + 2]
        if following == "\n":
            raise _UnclearError("a value after a backslash at the end of a line: join the lines")
        if following and _is_value(following):
            self._out.append("\\")  # escapes the one that is copied now: the expansion stays ours
            self._take(1, "\\")
        else:
            self._take(2, following or "\\")

    def _dollar(self, quoted: bool) -> None:
        following = self.source[self._at + 1 : self._at + 2]
        if following and _is_value(following):
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
            raise _UnclearError(r"$[ ] before or around a value is arithmetic in bash: use $(( )) or \$\[")
        elif following == "'" and not quoted:
            raise _UnclearError("$' ' before or around a value: not every shell knows it, use printf")
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
        raise _UnclearError(f"a value after such involved {construct}: put one of them into a script")

    def _single_quotes(self) -> None:
        end = self.source.find("'", self._at + 1)
        if end < 0:
            raise TemplateError("unterminated '")
        self._take(1, "")
        while self._at < end:
            char = self.source[self._at]
            if _is_value(char):
                self._out.append("'")
                self._value(char, quoted=False)
                self._out.append("'")
            else:
                self._take(1, char)
        self._take(1, "")

    def _operator(self, char: str) -> None:
        frame = self._frames[-1]
        following = self.source[self._at + 1 : self._at + 2]
        self._end_word()
        if char == "<" and following == "<":
            raise _UnclearError("a value in or after a here-document: use printf '%s\\n' … | …")
        if char == "(" and following == "(":
            raise _UnclearError("a value in or after ((: arithmetic in bash; write ( ( for nested subshells")
        length = 1
        if char in "<>":
            frame.redirects = True
            length += following in (">", "&", "|")  # >>, <>, >&, <&, >|: no command ends here
        elif char in "()\n;&|":
            self._end_command()
        self._out.append(self.source[self._at : self._at + length])
        self._at += length
        if char == "(":
            self._frames.append(_Frame("("))
        elif char == ")" and frame.opener:  # without an opener: a pattern of `case`
            self._frames.pop()

    def _end_word(self) -> None:
        frame = self._frames[-1]
        word, frame.word = frame.word, None
        if word is None:
            return
        if word.bare == "[[":
            raise _UnclearError("a value in or after [[ ]]: bash takes numbers there for arithmetic, use [ ]")
        if word.bare == "case" and any(frame.opener == "$(" for frame in self._frames):
            raise _UnclearError("a value after `case` inside $( ): put it into a script, or quote 'case'")
        if not frame.redirects:
            frame.words.append(word)
        elif word.has_value:
            self.warnings.append("text from the log is part of the name of a file that the shell opens")
        frame.redirects = False

    def _end_command(self) -> None:
        frame = self._frames[-1]
        if frame.words:
            self.commands.append(frame.words)
            frame.words = []
        frame.redirects = False


@dataclass(frozen=True, slots=True)
class _Parser:
    """A command that reads some of its arguments as source: where they stand."""

    code_options: str = ""  # letters of options whose argument is source
    other_options: str = ""  # letters of options whose argument is not
    operand: bool = False  # the first operand is source, unless an option gave some
    everything: bool = False  # so are all arguments
    permutes: bool = False  # options may stand after operands


_SHELLS = frozenset(("ash", "bash", "dash", "ksh", "mksh", "rbash", "sh", "zsh"))
_RUNNERS = frozenset(("flock", "runuser", "script", "su"))  # they hand the argument of -c to a shell
_AWKS = frozenset(("awk", "gawk", "mawk", "nawk"))
_REMOTES = frozenset(("rsh", "ssh"))
_PARSERS = {
    **dict.fromkeys(_SHELLS, _Parser("c", "oO")),
    **dict.fromkeys(_RUNNERS, _Parser("c", permutes=True)),
    **dict.fromkeys(_AWKS, _Parser("e", "vFfi", operand=True)),
    **dict.fromkeys(_REMOTES, _Parser(everything=True)),
    # bash looks for array subscripts, and runs the commands in them, in the last three.
    **dict.fromkeys(("eval", "trap", "let", "read", "unset"), _Parser(everything=True)),
    **dict.fromkeys(("perl", "ruby"), _Parser("eE", "IMm")),
    **dict.fromkeys(("python", "python3"), _Parser("c", "WX")),
    **dict.fromkeys(("mariadb", "mysql", "node"), _Parser("e", permutes=True)),
    "psql": _Parser("c", permutes=True),
    "sed": _Parser("e", "fl", operand=True),
    "sqlite3": _Parser(everything=True),
}
_WRAPPER = re.compile(
    "builtin|chroot|chrt|command|doas|env|exec|find|flock|ionice|nice|nohup|nsenter|parallel|runcon|setpriv"
    "|setsid|stdbuf|sudo|systemd-run|taskset|time|timeout|unshare|watch|xargs"
)
_KEYWORDS = frozenset(("!", "{", "do", "elif", "else", "if", "then", "until", "while"))
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")


def _command_warnings(words: list[_Word]) -> Iterator[str]:
    """Say what is wrong with one simple command."""
    before_name = (word.bare in _KEYWORDS or _ASSIGNMENT.match(word.bare) for word in words)
    position = next((index for index, before in enumerate(before_name) if not before), None)
    if position is None:
        return
    if words[position].has_value:
        yield "text from the log is part of the name of the command that is run"
    last = len(words) if _WRAPPER.fullmatch(_basename(words[position])) else position + 1
    for index in range(position, last):
        name = _basename(words[index])
        parser = _PARSERS.get(name)
        if parser and any(word.has_value for word in _code(parser, words[index + 1 :])):
            yield f"{name} parses text from the log as its own source: {_advice(name)}"


def _basename(word: _Word) -> str:
    return word.text.rpartition("/")[2]


def _advice(name: str) -> str:
    if name in _SHELLS | _RUNNERS | {"eval", "trap"}:
        return """let it read "$LOGNOT_1", inside single quotes, from its environment"""
    if name in _AWKS:
        return """awk's own field is \\$1, the group is ENVIRON["LOGNOT_1"]"""
    if name in _REMOTES:
        return "pass it on standard input, the environment does not reach the other host"
    return "pass it in the environment (LOGNOT_1) or on standard input"


def _code(parser: _Parser, arguments: list[_Word]) -> Iterator[_Word]:
    """Give those arguments that `parser` reads as source."""
    if parser.everything:
        yield from arguments
        return
    operand = parser.operand
    rest = iter(arguments)
    for word in rest:
        text = word.text
        if text == "--":
            continue
        if text.startswith("--"):
            if text.startswith(("--command", "--eval", "--expression", "--source", "--execute")):
                operand = False
                yield word
                if "=" not in text:
                    yield from _next(rest)
        elif text.startswith("-") and len(text) > 1:
            letter = next(
                (char for char in text[1:] if char in parser.code_options + parser.other_options), ""
            )
            if letter and letter in parser.code_options:
                operand = False
                yield word
                yield from _next(rest)
            elif letter and text.endswith(letter):
                next(rest, None)
        else:
            if operand:
                yield word
            if not parser.permutes:
                return


def _next(words: Iterator[_Word]) -> Iterator[_Word]:
    word = next(words, None)
    if word is not None:
        yield word
