"""action.py: what the shell text is, to the letter; and what real shells make of it, with hostile values.

The shells run no program but their own builtins: PATH is empty and the directory too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from effort import examples
from lognot.action import (
    BASE_ENVIRONMENT,
    MAX_ENVIRONMENT_BYTES,
    MAX_VALUE_BYTES,
    Template,
    environment,
    parse_template,
    placeholders,
    plain_template,
)
from lognot.lint import action_warnings
from lognot.quoting import MAX_GROUP, TemplateError

# All run under the name of sh, as actions do: bash is Fedora's /bin/sh, and then behaves a bit differently.
SHELLS = sorted(
    {os.path.realpath(path) for path in ("/bin/sh", "/bin/dash", "/bin/bash") if os.path.exists(path)}
)

# Templates


@pytest.mark.parametrize(
    ("text", "shell_text"),
    [
        (rb"echo $1", rb'echo "${LOGNOT_1}"'),
        (rb"echo $0$1", rb'echo "${LOGNOT_0}""${LOGNOT_1}"'),
        (rb"echo $@", rb'echo "${LOGNOT_LINE}"'),
        (rb"echo $10 $1x", rb'echo "${LOGNOT_10}" "${LOGNOT_1}"x'),
        (rb'echo "<$1>"', rb'echo "<${LOGNOT_1}>"'),
        (rb"echo '<$1>'", rb"""echo '<'"${LOGNOT_1}"'>'"""),
        (rb"echo '$1'", rb"""echo ''"${LOGNOT_1}"''"""),
        (rb"""echo "it's" "b'$1'" """, rb"""echo "it's" "b'${LOGNOT_1}'" """),
        # \$ and \\ are lognot's; the shell then does with $ what it does.
        (rb"echo \$1 \$HOME", rb"echo $1 $HOME"),
        (rb"awk '{print \$1}'", rb"awk '{print $1}'"),
        (rb"echo \\\$1", rb"echo \$1"),
        (rb"echo \\n \n", rb"echo \n \n"),
        (rb"echo $HOME ${HOME} $$ $# $? $! $-", rb"echo $HOME ${HOME} $$ $# $? $! $-"),
        (rb"echo \"$1\"", rb'echo \""${LOGNOT_1}"\"'),
        (rb"echo a\ b$1", rb'echo a\ b"${LOGNOT_1}"'),
        # A \ or $ that would run into the expansion means itself.
        (rb"echo \\$1", rb'echo \\"${LOGNOT_1}"'),
        (rb'echo "\\$1"', rb'echo "\\${LOGNOT_1}"'),
        (rb"echo '\\$1'", rb"""echo '\'"${LOGNOT_1}"''"""),
        (rb"echo \\\\$1", rb'echo \\"${LOGNOT_1}"'),
        (rb"echo \\\\\\$1", rb'echo \\\\"${LOGNOT_1}"'),
        (rb"echo $$1", rb'echo \$"${LOGNOT_1}"'),
        (rb'echo "$$1"', rb'echo "\$${LOGNOT_1}"'),
        (rb"echo '$$1'", rb"""echo '$'"${LOGNOT_1}"''"""),
        (rb"echo $$$1", rb'echo $$"${LOGNOT_1}"'),
        # Nesting.
        (rb'echo "$(echo "$1" $2)" $3', rb'echo "$(echo "${LOGNOT_1}" "${LOGNOT_2}")" "${LOGNOT_3}"'),
        (rb"echo $( (echo $1) | cat) $2", rb'echo $( (echo "${LOGNOT_1}") | cat) "${LOGNOT_2}"'),
        (rb"case $1 in a) b $2;; (c) d;; esac", rb'case "${LOGNOT_1}" in a) b "${LOGNOT_2}";; (c) d;; esac'),
        # What ends in the same place for every shell may stand before a value.
        (rb"echo `date '+%F %T'` $1", rb"""echo `date '+%F %T'` "${LOGNOT_1}" """[:-1]),
        (rb"echo ${x:-a b} ${#x} ${x%%.*} $1", rb'echo ${x:-a b} ${#x} ${x%%.*} "${LOGNOT_1}"'),
        (rb"echo $((x + (2 * 3))) $1", rb'echo $((x + (2 * 3))) "${LOGNOT_1}"'),
        # Comments go; what only looks like one stays.
        (b"echo $1 # it's $2\necho $3", b'echo "${LOGNOT_1}" \necho "${LOGNOT_3}"'),
        (rb"""echo a#b ''#c $## "#$1" \# $1#""", rb"""echo a#b ''#c $## "#${LOGNOT_1}" \# "${LOGNOT_1}"#"""),
        # After the last value, nothing has to be understood.
        (b"cat $1 - <<EOF\nit's\nEOF", b'cat "${LOGNOT_1}" - <<EOF\nit\'s\nEOF'),
        (rb"[ $1 = a ] && [[ a -eq b ]]", rb'[ "${LOGNOT_1}" = a ] && [[ a -eq b ]]'),
        (rb"", rb""),
        (b"echo \xff\x81 $1", b'echo \xff\x81 "${LOGNOT_1}"'),
        (b"echo \\", b"echo \\"),
    ],
)
def test_shell_text(text: bytes, shell_text: bytes) -> None:
    assert parse_template(text).shell_text == shell_text


def test_what_a_template_refers_to() -> None:
    template = parse_template(rb"echo $1 '$12' \$3 $@ $099 $0000")
    assert template.groups == placeholders(rb"echo $1 '$12' \$3 $@ $099 $0000") == {0, 1, 12, 99}
    assert parse_template(b"true") == Template(b"true")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (rb"echo `echo $1`", r"$1 inside backticks: use $( ) instead"),
        (rb'echo "`echo $@`"', r"$@ inside backticks: use $( ) instead"),
        (rb"echo $((1 + $2))", r"$2 inside $(( )): bash would run commands in it"),
        (rb'echo "$(( (1) + $2))"', r"$2 inside $(( ))"),
        (rb"echo ${x:-$1}", r"$1 inside ${ }: use a variable"),
        (rb"echo ${$1}", r"$1 inside ${ }"),
        (rb"echo \${x#$1}", r"$1 inside ${ }"),
        (rb"((x = $1))", r"((: arithmetic in bash"),
        (rb"for ((i = $1; i < 2; i++)); do x; done", r"((: arithmetic in bash"),
        (rb"echo $[$1]", r"$[ ]"),
        (rb"[[ $1 -gt 3 ]]", r"[[ ]]"),
        (rb"a[$1]=3", r"$1 after NAME["),
        (rb'read a["$1"]', r"$1 after NAME["),
        (rb'read a[b[1]+$(echo "$1")]', r"$1 after NAME["),
        (rb"a=([$1]=x)", r"$1 after [ in NAME=( ): bash runs it"),
        (rb"a+=(b [x'$1']=y)", r"$1 after [ in NAME=( )"),
        (b"declare -A a=(\n[$(echo $1)]=x)", r"$1 after [ in NAME=( )"),
        (rb"a=([0 $1]=x)", r"a value after NAME[ that is not closed"),
        (rb"a[0 $1]=x", r"a value after NAME[ that is not closed"),
        (b"cat <<EOF\n$1\nEOF", r"here-document"),
        (rb"cat <<< $1", r"here-document"),
        (rb"echo $'a\'b' $1", r"$' '"),
        (rb'echo "$(case a in a) echo $1;; esac)"', r"`case` inside $( )"),
        (rb"echo `echo \`a\`` $1", r"a value after such involved backticks"),
        (rb'echo ${x#"}"} $1', r"a value after such involved ${ }"),
        (rb"echo $((a) | b) $1", r"a value after such involved $(( ))"),
        (b"echo a\\\n$1", r"backslash at the end of a line"),
        (rb"echo 'a", r"unterminated '"),
        (rb"echo it's $1", r"unterminated '"),
        (rb'echo "a', r'unterminated "'),
        (rb'echo "$(echo a"', r'unterminated "'),
        (rb"echo $(echo a", r"unterminated $("),
        (rb"( echo a", r"unterminated ("),
        (rb"echo `a", r"unterminated `"),
        (rb"echo $100", r"$100: no group above $99"),
        (b"echo $" + b"1" * 5000, r"no group above $99"),
        (b"echo \0", r"NUL"),
        (b"echo " + b"a" * 200_000, r"put it into a script"),
    ],
)
def test_refused_with_a_reason(text: bytes, error: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(error)):
        parse_template(text)


def test_without_match_arguments_the_text_is_the_shells_alone() -> None:
    text = rb"""awk '{print $1 "\\"}' | grep "it's \$" # $(("""
    assert plain_template(text) == Template(text, frozenset())
    with pytest.raises(TemplateError):
        plain_template(b"a\0b")


# The lint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (rb'sh -c "echo $1"', "sh"),
        (rb"/bin/bash -ec 'echo $1'", "bash"),
        (rb"sudo -u x sh -c $1", "sh"),
        (rb"if true; then su - x -c 'echo $1'; fi", "su"),
        (rb"find / -exec sh -c 'rm $1' \;", "sh"),
        (rb"X=1 eval echo $1", "eval"),
        (rb"ssh host block $1", "ssh"),
        (rb'echo "$(ssh host "$(echo $1)")"', "ssh"),
        (rb"awk '{print $1}'", "awk"),
        (rb"awk -F : '{print $1}' f", "awk"),
        (rb"sed -n 's/$1/x/'", "sed"),
        (rb"sed -e 's/$1/x/' f", "sed"),
        (rb"perl -ne 'print $1'", "perl"),
        (rb"python3 -c 'print($1)'", "python3"),
        (rb"mysql -u x -e 'insert $1'", "mysql"),
        (rb'printf -v "$1" x', "printf"),
        (rb'test -v "$1"', "test"),
        (rb'if [ -v "a$1" ]; then true; fi', "["),
        (rb'declare "$1=1"', "declare"),
        (rb'declare "x$1=1"', "declare"),
        (rb"declare -i x=$1", "declare"),
        (rb"declare -n x=$1", "declare"),
        (rb'declare -a "x=($1)"', "declare"),
        (rb"command typeset $1", "typeset"),
        (rb'f() { local "$1"; }; f', "local"),
        (rb'readonly -a "x=($1)"', "readonly"),
        (rb'export "$1=1"', "export"),
        (rb"wait -n -p $1", "wait"),
        (rb"mapfile -C $1 -c 1 x", "mapfile"),
        (rb"readarray -tC $1 x", "readarray"),
        (rb"compgen -W $1", "compgen"),
    ],
)
def test_a_second_parser_is_warned_of(text: bytes, named: str) -> None:
    (warning,) = action_warnings(text)
    assert warning.startswith(f"{named} parses text from the log as its own source: ")


@pytest.mark.parametrize(
    "text",
    [
        rb"logger -t lognot $1",
        rb"echo eval $1",
        rb"logger ssh from $1",
        rb"""sh -c 'echo "$LOGNOT_1"'""",
        rb"sh -c 'echo \$1' sh $1",
        rb"sh script $1",
        rb"awk -v ip=$1 '{print ip, \$2}'",
        rb"sed -n 5p $1",
        rb"X=$1 logger a 2>&1 >/dev/null",
        rb"for x in $1; do logger $x; done",
        rb"nft add element inet filter blocked '{ $1 timeout 1h }' # eval $1",
        rb"case $1 in a) logger $2;; esac",
        rb'[ "$1" = a ] && printf "%s" "$1"',
        rb"echo $((1 + LOGNOT_COUNT)) $1",
        rb'x=$1; if [ "\$x" -gt 5 ]; then logger \$x; fi',
        rb"x=$1; [[ \$x == a* ]] && echo \${x:-y} \${x#a} 'a[0]'",
        rb'f() { local x="$1"; readonly y=$1; declare -r "z=$1"; export x; }; f $1',
        rb"x=($1 $2); y=([1]=$1); z[1]=$1",
        rb"wait; wait -n; mapfile -t x",
    ],
)
def test_no_warning(text: bytes) -> None:
    assert action_warnings(text) == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (rb"echo $((LOGNOT_1 + 1))", "LOGNOT_1"),
        (rb"x=$1; echo $((x + 1))", "x"),
        (rb"x=$1; echo $((\$x + 1))", "x"),
        (rb"x=a$(echo $1 | cut -c 2); echo \$(( (y) + x ))", "x"),
        (rb"x=\$LOGNOT_LINE; echo $((x))", "x"),
        (rb"for x in a $1; do echo $((x)); done", "x"),
        (rb"export x=$1 && ( echo $((x)) )", "x"),
        (rb"x=$1; (( x > 1 ))", "x"),
        (rb"x=$1; [[ \$x -gt 1 ]]", "x"),
        (rb"x=$1; echo $[x]", "x"),
        (rb"x=$1; y[x]=1", "x"),
        (rb"x=$1; echo \${y[\$x]}", "x"),
        (rb"x=$1; echo \${y:x:1}", "x"),
        (rb"x=$1; let x+1", "x"),
        (rb"RANDOM=$1", "RANDOM"),
    ],
)
def test_arithmetic_with_text_from_the_log_is_warned_of(text: bytes, name: str) -> None:
    """bash runs what stands in the brackets of x[$(id)]."""
    (warning,) = action_warnings(text)
    assert warning.startswith(f"text from the log in arithmetic, as {name}: bash runs the commands in it")


def test_the_lint_takes_no_squares() -> None:
    for piece in (b"((", b"[[", b"x[", b"${x:", b"$[", b"let ", b"x=", b"declare -"):
        started = time.process_time()
        action_warnings(rb"x=$1; true " + piece * (90_000 // len(piece)))
        assert time.process_time() - started < 5


def test_the_log_chooses_a_command_or_a_file() -> None:
    assert action_warnings(b"/usr/lib/hooks/$1 a") == (
        "text from the log is part of the name of the command that is run",
    )
    assert action_warnings(b"echo a >> /tmp/$1; sort < '$2'") == (
        "text from the log is part of the name of a file that the shell opens",
    )


# The environment


def action_environment(
    line: bytes | None,
    spans: list[tuple[int, int]],
    path: str = "/var/log/a",
    words: tuple[tuple[bytes, ...], ...] = (),
) -> dict[bytes, bytes]:
    return environment(
        name="u",
        home="/home/u",
        item="ssh",
        path=path,
        kind="upbound",
        count=6,
        line=line,
        spans=spans,
        words=words,
    )


@pytest.mark.parametrize(
    ("action", "shared"),
    [
        (b'printf %s "$1 from $2: $@"', True),
        (b"printf %s <$1>'$2'", True),
        (b'printf %s "$(echo $1) $(echo $2)"', True),
        (b"printf %s $1 $2", False),
        (b'printf %s "$1"; echo $2', False),
    ],
)
@pytest.mark.parametrize("lengths", [(10, 10), (50_000, 10), (90_000, 80_000), (200_000, 200_000)])
def test_whatever_values_a_word_has_execve_takes_it(
    action: bytes, shared: bool, lengths: tuple[int, int]
) -> None:
    """One argument is of 128 KiB at most; and they are no shorter than that demands."""
    first, second = lengths
    line = b"a" * first + b"b" * second
    template = parse_template(
        action.replace(b"printf", b"/usr/bin/printf").replace(b"<", rb"\<").replace(b">", b"-")
    )
    spans = [(0, first + second), (0, first), (first, first + second)]
    variables = action_environment(line, spans, words=template.words)
    shell = subprocess.run(
        [b"/bin/sh", b"-c", template.shell_text], env=variables, capture_output=True, check=True
    )
    assert b"a" * 10 in shell.stdout
    if not shared or first + second <= 60_000:
        assert variables[b"LOGNOT_1"] == line[: min(first, MAX_VALUE_BYTES)]


def test_environment_of_a_match() -> None:
    assert action_environment(b"from 1.2.3.4", [(0, 12), (5, 12), (-1, -1)]) == {
        **BASE_ENVIRONMENT,
        b"HOME": b"/home/u",
        b"USER": b"u",
        b"LOGNAME": b"u",
        b"LOGNOT_ITEM": b"ssh",
        b"LOGNOT_PATH": b"/var/log/a",
        b"LOGNOT_KIND": b"upbound",
        b"LOGNOT_COUNT": b"6",
        b"LOGNOT_LINE": b"from 1.2.3.4",
        b"LOGNOT_0": b"from 1.2.3.4",
        b"LOGNOT_1": b"1.2.3.4",
        b"LOGNOT_2": b"",
    }


def test_environment_without_a_match() -> None:
    variables = action_environment(None, [])
    assert variables[b"LOGNOT_COUNT"] == b"6"
    assert not {b"LOGNOT_LINE", b"LOGNOT_0"} & set(variables)


def test_a_path_that_is_not_utf_8() -> None:
    assert action_environment(None, [], path="/a\udcff")[b"LOGNOT_PATH"] == b"/a\xff"


def test_nul_is_left_out_and_then_a_long_value_is_cut() -> None:
    line = b"a\0b" * MAX_VALUE_BYTES
    variables = action_environment(line, [(0, len(line)), (0, 3)])
    assert variables[b"LOGNOT_0"] == variables[b"LOGNOT_LINE"] == (b"ab" * MAX_VALUE_BYTES)[:MAX_VALUE_BYTES]
    assert variables[b"LOGNOT_1"] == b"ab"


@pytest.mark.parametrize("groups", [1, 9, 40, 100, 5000])
def test_whatever_matched_execve_takes_it(groups: int) -> None:
    line = b"x" * 1_048_576
    variables = action_environment(line, [(0, len(line))] * groups)
    assert sum(len(name) + len(value) + 10 for name, value in variables.items()) <= MAX_ENVIRONMENT_BYTES
    assert len(variables[b"LOGNOT_LINE"]) >= 4096
    assert (b"LOGNOT_99" in variables) == (groups > MAX_GROUP)
    assert b"LOGNOT_100" not in variables
    shell = subprocess.run(
        ["/bin/sh", "-c", 'printf %s "${#LOGNOT_LINE}"'], env=variables, capture_output=True, check=True
    )
    assert int(shell.stdout) == len(variables[b"LOGNOT_LINE"])


# Real shells

# p prints its arguments with NUL after each; j so that a command substitution keeps them (it drops NUL).
PRINTER = b'p() { printf \'%s\\0\' "$#" "$@"; }\n'
JOINER = b"j() { printf '<%s>' \"$@\"; }\n"


@pytest.fixture(scope="module")
def empty_directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="lognot-test-") as path:
        # For globs to find: an unquoted * would become this name.
        (Path(path) / "GLOBBED").touch()
        yield Path(path)


def whole_line(values: dict[int, bytes]) -> bytes:
    return b"".join(values[group] for group in sorted(values))


def run_shell(shell: str, shell_text: bytes, values: dict[int, bytes], directory: Path) -> bytes:
    """Run an action's text as lognot does, but with nothing on PATH; return its output."""
    line = whole_line(values)
    spans, end = [], 0
    for group in range(max(values) + 1):
        start, end = end, end + len(values.get(group, b""))
        spans.append((start, end))
    variables = action_environment(line, spans)
    variables[b"PATH"] = b"/nonexistent"
    done = subprocess.run(
        ["sh", "-c", PRINTER + JOINER + shell_text],
        executable=shell,
        env=variables,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=20,
    )
    assert os.listdir(directory) == ["GLOBBED"], (shell_text, values)
    return done.stdout


HOSTILE = [
    b"$(echo>PWNED)",
    b"`echo>PWNED`",
    b";echo>PWNED;",
    b"\necho>PWNED\n",
    b"|echo>PWNED",
    b"&echo>PWNED&",
    b"&&echo>PWNED",
    b">PWNED",
    b"a[$(echo>PWNED)]",
    b"${x:=$(echo>PWNED)}",
    b"() { :; }; echo>PWNED",
    b"';echo>PWNED;'",
    b'";echo>PWNED;"',
    b"')echo>PWNED(",
    b"$((a[$(echo>PWNED)]))",
    b"#",
    b"\\",
    b"'",
    b'"',
    b"`",
    b"$",
    b"$@",
    b"$1",
    b"${LOGNOT_2}",
    b"-n",
    b"--",
    b"~",
    b"*",
    b"?LOBBED",
    b"[A-Z]*",
    b"{a,b}",
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b"!!",
    b"=",
    b"%s%n",
    b"\xff\xfe",
    b"\x81\x82\x88",  # dash's own marks for quotes
    b"\xc3",
    "ä€".encode(),
    b"a",
]
VALUES = st.lists(st.sampled_from(HOSTILE) | st.binary(max_size=3), max_size=4).map(b"".join)
GROUPS = st.fixed_dictionaries({1: VALUES, 2: VALUES, 10: VALUES})


@dataclass(frozen=True)
class Piece:
    """Some action text, and the parts of the argument that it becomes: bytes, or the number of a group."""

    text: bytes
    parts: tuple[bytes | int, ...]


def joined(pieces: Iterable[Piece], before: bytes = b"", after: bytes = b"") -> Piece:
    pieces = list(pieces)
    text = b"".join(piece.text for piece in pieces)
    return Piece(before + text + after, tuple(part for piece in pieces for part in piece.parts))


def pieces_of(meanings: dict[bytes, bytes]) -> st.SearchStrategy[Piece]:
    return st.sampled_from([Piece(text, (meaning,)) for text, meaning in meanings.items()])


def literally(*texts: bytes) -> st.SearchStrategy[Piece]:
    return pieces_of({text: text for text in texts})


WHOLE_LINE = -1
VALUE = st.sampled_from(
    [Piece(b"$1", (1,)), Piece(b"$2", (2,)), Piece(b"$10", (10,)), Piece(b"$@", (WHOLE_LINE,))]
)
# A \\ or $ before a value means itself, quoted or not.
BEFORE_VALUE = pieces_of({b"": b"", rb"\\": b"\\", b"$": b"$", rb"\$": b"$"})
# No digit, which would make another group of $1.
ANYWHERE = st.tuples(BEFORE_VALUE, VALUE).map(joined) | literally(
    b"a", b"Z", b"_", b".", b":", b"/", b"=", b"%", b"-", b"\xff", b"\x81"
)
EXPANDED = pieces_of(
    {
        b"${LOGNOT_KIND}": b"upbound",
        rb"\${LOGNOT_KIND}": b"upbound",
        b"$((1+(2*3)))": b"7",
        b"`printf a`": b"a",
    }
)
ODD_CHARACTERS = (b" ", b"*", b"#", b"(", b")", b"{", b"~", b";", b"|", b"&", b"<<a", b"[[ ", b"case ", b"\n")
SINGLE_QUOTED = st.lists(
    ANYWHERE
    | literally(*ODD_CHARACTERS, b'"', b"`", rb"\n", b"$x")
    | pieces_of({rb"\\": b"\\", rb"\${": b"${", rb"\$(": b"$("}),
    max_size=5,
).map(lambda pieces: joined(pieces, b"'", b"'"))


def double_quoted(depth: int) -> st.SearchStrategy[Piece]:
    piece = ANYWHERE | EXPANDED | literally(*ODD_CHARACTERS, b"'", b"$'", rb"\a", rb"\'")
    piece |= pieces_of({rb"\"": b'"', rb"\`": b"`", rb"\\\$": b"$", rb"\\\\": b"\\"})
    if depth:
        piece |= substitution(depth - 1)
    return st.lists(piece, max_size=5).map(lambda pieces: joined(pieces, b'"', b'"'))


def substitution(depth: int) -> st.SearchStrategy[Piece]:
    """$(j WORD...), which prints <WORD>...; among comments, subshells and other commands."""

    def command(words: list[Piece], around: tuple[bytes, bytes]) -> Piece:
        shown = [Piece(b" " + word.text, (b"<", *word.parts, b">")) for word in words]
        return joined(shown, b"$(" + around[0] + b"j", around[1] + b")")

    around = [
        (b"", b""),
        (b" (", b")"),
        (b":;", b" "),
        (b"# it's \" ) $2\n", b" # ' $1\n"),
        (b" ( ( :; ", b" ) )"),
        (b"x=$1; ", b""),
        (b": ')' && ", b" || :"),
    ]
    return st.builds(command, st.lists(word(depth), min_size=1, max_size=3), st.sampled_from(around))


def word(depth: int) -> st.SearchStrategy[Piece]:
    escaped = {
        b"\\" + char: char
        for char in (b"'", b'"', b"`", b" ", b"*", b"#", b"(", b")", b";", b"&", b"[", b"~")
    }
    bare = (
        ANYWHERE
        | EXPANDED
        | pieces_of({**escaped, rb"\\\$": b"$", rb"\\\\": b"\\", b"a#": b"a#", b"''#": b"#"})
    )
    return st.lists(bare | SINGLE_QUOTED | double_quoted(depth), min_size=1, max_size=4).map(joined)


# Every example starts a shell or two: some milliseconds each.
SLOW = settings(examples(200), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("shell", SHELLS)
@SLOW
@given(
    st.lists(word(2), min_size=1, max_size=5), GROUPS, st.sampled_from([b"", b" # it's \" $1 $(", b"; : $2"])
)
def test_every_value_arrives_as_it_is_in_one_argument(
    shell: str, empty_directory: Path, words: list[Piece], values: dict[int, bytes], end: bytes
) -> None:
    template = parse_template(b"p " + b" ".join(word.text for word in words) + end)

    passed = {group: value.replace(b"\0", b"") for group, value in values.items()}
    passed[WHOLE_LINE] = whole_line(passed)
    expected = [
        b"".join(passed[part] if isinstance(part, int) else part for part in word.parts) for word in words
    ]
    output = run_shell(shell, template.shell_text, values, empty_directory)
    assert output == b"".join(argument + b"\0" for argument in [b"%d" % len(expected), *expected])


TOKENS = [*rb"""$1 $2 $10 $@ \ \\ \$ $ ' " # a [ ] { }""".split(), b" ", b"\n"]
ANY_TEXT = st.lists(st.sampled_from([*TOKENS, b"$1", b"'", b'"', b"\\"]), max_size=14).map(b"".join)
MARKS = {1: b"MARKONE", 2: b"MARKTWO", 10: b"MARKTEN"}


@pytest.mark.parametrize("shell", SHELLS)
@SLOW
@given(ANY_TEXT, GROUPS)
def test_whatever_the_text_a_value_acts_like_a_plain_word(
    shell: str, empty_directory: Path, text: bytes, values: dict[int, bytes]
) -> None:
    """The quoting is not modelled here at all: hostile values must come out just where harmless marks do."""
    try:
        template = parse_template(b"j " + text)
    except TemplateError:
        return
    assume(
        not re.search(rb"\$\$(?!\{LOGNOT)", template.shell_text)
    )  # the process id is another one each time
    output = run_shell(shell, template.shell_text, MARKS, empty_directory)
    for group, mark in MARKS.items():
        output = output.replace(mark, values[group].replace(b"\0", b""))
    assert run_shell(shell, template.shell_text, values, empty_directory) == output


# Everything that opens, closes or switches something; background jobs and files are left out.
WILD_TOKENS = [*TOKENS, *rb"$( ) ( ` $(( )) ${ ${x:- $[ (( $' ; : j x= x[ =~ 1+ -eq <<a ;; esac".split()]
WILD_TOKENS += [b" [[ ", b" ]] ", b" x=(", b"\na\n", b" case ", b" in ", b" if ", b" do "]


@pytest.mark.parametrize("shell", SHELLS)
@SLOW
@given(st.lists(st.sampled_from(WILD_TOKENS), max_size=16).map(b"".join), GROUPS)
@example(b'"`j $1`"', dict.fromkeys(MARKS, b"$(echo>PWNED)"))
@example(b"$((x[$1]))", dict.fromkeys(MARKS, b"$(echo>PWNED)"))
@example(b"$((x + $1))", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; x[$1]=1", dict.fromkeys(MARKS, b"$(echo>PWNED)"))
@example(b"a; x['$1']=1", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; [[ $1 -eq 1 ]]", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; [ $1 -eq 1 ]", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; (($1))", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"$[$1]", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; x=([$1]=1)", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; x+=(y [z $1]=1)", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"a; x[0 $1]=1", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
@example(b"${x:$1}", dict.fromkeys(MARKS, b"a[$(echo>PWNED)]"))
def test_no_text_ever_runs_a_value(
    shell: str, empty_directory: Path, text: bytes, values: dict[int, bytes]
) -> None:
    """run_shell finds the file that every hostile value tries to make."""
    try:
        template = parse_template(b"j " + text)
    except TemplateError:
        return
    run_shell(shell, template.shell_text, values, empty_directory)


SUBSCRIPTS = (
    rb"""
x=([$1]=1)|x+=(y [$1]=1)|x=(["$1"]=1)|x=(['a'$1]=1)|x=([0 $1]=1)|x[$1]=1|x[0 $1]=1|x=(y[$1]=1)
x=("[$1]=1")|x=($1)|x[0]=$1|x=([0]=$1)|x=$1|x+=$1|echo [$1]|a=b; x=([\$a$1]=1)|declare -A x=([$1]=1)
declare -a x=($1)|declare "$1=1"|declare $1|declare "x=$1"|declare x=$1|declare -i x=$1
declare -a "x=($1)"|declare -n x=$1; echo \$x|typeset "$1=1"|builtin declare "$1=1"
f() { local "$1=1"; }; f|f() { local -i x=$1; }; f|readonly "$1=1"|readonly -a "x=($1)"
export "$1=1"|unset "x[$1]"|unset $1|read "x[$1]"|read $1|read -a $1|let $1|test -v $1|[ -v $1 ]
[ 1 -eq $1 ]|[ -R $1 ]|printf -v $1 x|printf %d $1|mapfile $1|mapfile -O $1 x|: & wait -n -p $1
getopts a $1|getopts $1 x -a|ulimit -n $1|umask $1|exit $1|test $1|alias x=$1|kill -$1 1|cd $1
set -- $1|x=$1; : $((x))|x=$1; : $((\$x))|x=$1; : $[x]|x=$1; ((x))|x=$1; y[x]=1|x=$1; : \${y[x]}
x=$1; : \${y:x}|x=$1; let x|x=$1; [[ \$x -eq 1 ]]|x=$1; [[ -v \$x ]]|x=$1; [ \$x -eq 1 ]
for x in $1; do : $((x)); done|export x=$1; : $((x))|x=$(: ; j $1); : $((x))|RANDOM=$1|OPTIND=$1
SECONDS=$1|x=$1; case \$x in \$x) ;; esac|: $((LOGNOT_1))
""".strip()
    .replace(b"\n", b"|")
    .split(b"|")
)


@pytest.mark.parametrize("text", SUBSCRIPTS)
def test_where_bash_runs_a_value_as_a_subscript_it_is_refused_or_warned_of(
    text: bytes, empty_directory: Path
) -> None:
    """It takes a value as arithmetic, and the name of a variable, and runs what such a subscript says."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    try:
        warned = bool(action_warnings(text))
    except TemplateError:
        return
    for value in (b"x[$(echo>PWNED)]", b"x[$(echo>PWNED)]=1", b"([$(echo>PWNED)]=1)", b"[$(echo>PWNED)]"):
        try:
            run_shell(bash, parse_template(text).shell_text, {1: value}, empty_directory)
        except AssertionError:
            (empty_directory / "PWNED").unlink()
            assert warned


def test_the_canary_sings_where_a_value_does_become_source(empty_directory: Path) -> None:
    """The tests above would notice: eval is the administrator's own way to have it run."""
    with pytest.raises(AssertionError):
        run_shell("/bin/sh", parse_template(b"eval $1").shell_text, {1: b"echo>PWNED"}, empty_directory)
    (empty_directory / "PWNED").unlink()
