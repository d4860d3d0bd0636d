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
since it is inherited: `sh -c 'echo "$LOGNOT_1"'`. `lognot.lint` finds the usual cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lognot.quoting import FIRST_GROUP, LINE, MAX_GROUP, TemplateError, Tracker, is_value, lex, variable_of

# execve(2) takes no argument or variable over 128 KiB (MAX_ARG_STRLEN); this leaves room for the name.
MAX_VALUE_BYTES = 100 * 1024
# Several values may stand in one word, which is an argument again; this leaves room for what is around them.
MAX_VALUES_BYTES = 120 * 1024

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


@dataclass(frozen=True, slots=True)
class Template:
    """What an action runs: fixed shell text, and which groups of a match it refers to."""

    shell_text: bytes
    groups: frozenset[int] = frozenset()
    words: tuple[tuple[bytes, ...], ...] = ()  # the variables in each word of it that has several


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
    source = lex(text)
    tracker = Tracker(source)
    shell_text = tracker.translate()
    _check_passable(shell_text)
    words = (
        tuple(variable_of(value).encode() for value in word.values) for word in tracker.words_with_values
    )
    shared = tuple(word for word in words if len(word) > 1)
    return Template(shell_text, placeholders(text), shared)


def placeholders(text: bytes) -> frozenset[int]:
    """Return the groups that an upbound action refers to; raises TemplateError for one over MAX_GROUP."""
    return frozenset(ord(char) - FIRST_GROUP for char in lex(text) if is_value(char) and char != LINE)


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
    words: Sequence[Sequence[bytes]] = (),
) -> dict[bytes, bytes]:
    """Build the whole environment of an action; nothing is inherited.

    `name` and `home` are those of the user it runs as. `line` is None where there is no match (downbound,
    size); otherwise `spans` are the offsets in it of the whole match and of each group, (-1, -1) for one that
    took no part; `words` are the Template's. The result can be passed by execve(2), and so can
    what the shell makes of it: NUL is left out, long values are cut (see MAX_VALUE_BYTES), and all are
    cut shorter when they are too much together.
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
    while cap_bytes and (
        _execve_bytes(values) > room_bytes
        or any(sum(len(values.get(name, b"")) for name in word) > MAX_VALUES_BYTES for word in words)
    ):
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
