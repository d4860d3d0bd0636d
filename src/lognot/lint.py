"""What in an action works, but hands text from the log to something that may act on it. A lint. Pure.

By words: it knows the usual shells, interpreters and wrappers by name. What it says is worth reading; that it
says nothing proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lognot.quoting import Tracker, Word, lex


def action_warnings(text: bytes) -> tuple[str, ...]:
    """Say what in an upbound action works but hands text from the log to something that may act on it.

    A lint, by words: it knows the usual shells, interpreters and wrappers by name, and takes the first word
    of a command, after assignments and wrappers such as sudo, for its name. What it says is worth reading;
    that it says nothing proves nothing. Raises TemplateError like parse_template.
    """
    source = lex(text)
    tracker = Tracker(source)
    tracker.translate()
    found = dict.fromkeys(tracker.warnings)
    for command in tracker.commands:
        found.update(dict.fromkeys(_command_warnings(command)))
    found.update(dict.fromkeys(_arithmetic_warnings(source, tracker.commands)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Parser:
    """A command that reads some of its arguments as source: where they stand."""

    code_options: str = ""  # letters of options whose argument is source
    other_options: str = ""  # letters of options whose argument is not
    operand: bool = False  # the first operand is source, unless an option gave some
    everything: bool = False  # so are all arguments
    declares: bool = False  # so are all but plain NAME=VALUE
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
    # bash looks for array subscripts, and runs the commands in them, in the last three and in names after -v
    # or -p, and in what it declares, unless that is plainly NAME=VALUE.
    **dict.fromkeys(("eval", "trap", "let", "read", "unset"), _Parser(everything=True)),
    **dict.fromkeys(("[", "[[", "test"), _Parser("v", permutes=True)),
    **dict.fromkeys(("declare", "export", "local", "readonly", "typeset"), _Parser(declares=True)),
    **dict.fromkeys(("mapfile", "readarray"), _Parser("C", "cdnOsu")),
    "compgen": _Parser("CW", "AFGPSVX"),
    "printf": _Parser("v"),
    "wait": _Parser("p"),
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
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^]]*\])?\+?=")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOGGED = re.compile("LOGNOT_(?:LINE|[0-9]+)")
# What bash computes, by what is before it and after it.
_COMPUTED = (
    (re.compile(r"\(\("), "))"),
    (re.compile(r"\[\["), "]]"),
    (re.compile(r"(?:[A-Za-z0-9_]|\$)\["), "]"),
    (re.compile(r"\$\{[A-Za-z0-9_]+:(?![-=?+])"), "}"),
    (re.compile(r"\blet\b"), "\n"),
)
_COMPARED = re.compile(" -(?:eq|ne|lt|le|gt|ge|v) ")  # in [[ ]], which is no arithmetic without
_INTEGERS = frozenset(("HISTCMD", "OPTIND", "RANDOM", "SRANDOM"))  # of bash: what is assigned is computed


def _command_warnings(words: list[Word]) -> Iterator[str]:
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


def _arithmetic_warnings(source: str, commands: list[list[Word]]) -> Iterator[str]:
    """Say which names that hold text from the log bash computes with: it runs the commands in a subscript."""
    held = {name for command in commands for name in _assigned(command)}
    names = held & _INTEGERS
    for begin, end in _COMPUTED:
        for rest in begin.split(source)[1:]:
            inside = rest.partition(end)[0]
            if end != "]]" or _COMPARED.search(inside):
                names.update(
                    name for name in _NAME.findall(inside) if name in held or _LOGGED.fullmatch(name)
                )
    for name in sorted(names):
        yield (
            f"text from the log in arithmetic, as {name}: bash runs the commands in it; "
            "check first for a number"
        )


def _assigned(words: list[Word]) -> Iterator[str]:
    """Give the names that a command gives text from the log to."""
    if len(words) > 1 and words[0].bare in ("for", "select") and any(map(_is_logged, words[2:])):
        yield words[1].text
    for word in words:
        assignment = _ASSIGNMENT.match(word.text)
        if assignment and _is_logged(word):
            yield assignment[1]


def _is_logged(word: Word) -> bool:
    return word.has_value or _LOGGED.search(word.text) is not None


def _basename(word: Word) -> str:
    return word.text.rpartition("/")[2]


def _advice(name: str) -> str:
    if name in _SHELLS | _RUNNERS | {"eval", "trap"}:
        return """let it read "$LOGNOT_1", inside single quotes, from its environment"""
    if name in _AWKS:
        return """awk's own field is \\$1, the group is ENVIRON["LOGNOT_1"]"""
    if name in _REMOTES:
        return "pass it on standard input, the environment does not reach the other host"
    return "pass it in the environment (LOGNOT_1) or on standard input"


def _code(parser: _Parser, arguments: list[Word]) -> Iterator[Word]:
    """Give those arguments that `parser` reads as source."""
    if parser.everything:
        yield from arguments
        return
    if parser.declares:
        as_code = any(re.match("-[A-Za-z]*[aAin]", word.bare) for word in arguments)
        yield from (word for word in arguments if as_code or not _ASSIGNMENT.match(word.text))
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


def _next(words: Iterator[Word]) -> Iterator[Word]:
    word = next(words, None)
    if word is not None:
        yield word
