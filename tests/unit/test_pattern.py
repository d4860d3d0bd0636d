"""Both engines through one interface: the same answers, limits that hold, offsets of errors."""

from __future__ import annotations

import builtins
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import examples
from lognot import pattern
from lognot.errors import MatchLimitError, PatternError
from lognot.pattern import Pattern, Spans, choose_engine, compile_pattern
from lognot.settings import ENGINES

SOURCE = str(Path(pattern.__file__).parents[1])
HANG_GUARD_S = 60
STACK_BYTES = 8 * 1024 * 1024  # the default of Linux
PCRE_FRAME_BYTES = 496  # of C stack, for each nested call of the interpreter of PCRE 8: measured on amd64


def engine_or_skip(engine: str) -> str:
    try:
        return choose_engine(engine)
    except PatternError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["pcre", "pcre2"])
def engine(request: pytest.FixtureRequest) -> str:
    return engine_or_skip(request.param)


@pytest.fixture(params=["jit", "interpreted"])
def jit(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "jit")


@pytest.fixture
def both() -> None:
    engine_or_skip("pcre")
    engine_or_skip("pcre2")


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Importing these modules fails."""
    real = builtins.__import__

    def import_or_fail(
        name: str, scope: Any = None, locals_: Any = None, what: Any = (), level: int = 0
    ) -> Any:
        if name in modules or any(f"{name}.{part}" in modules for part in what or ()):
            raise ImportError(f"no {name}")
        return real(name, scope, locals_, what, level)

    monkeypatch.setattr(builtins, "__import__", import_or_fail)


# Engines


def test_auto_prefers_python_pcre() -> None:
    engine_or_skip("pcre")
    assert choose_engine("auto") == "pcre"


def test_auto_falls_back_to_pcre2(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_or_skip("pcre2")
    hide(monkeypatch, "pcre")
    assert choose_engine("auto") == "pcre2"


def test_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "pcre", "lognot.pcre2")
    with pytest.raises(PatternError, match=r"'pcre' cannot be used: no pcre$"):
        choose_engine("pcre")
    with pytest.raises(PatternError, match=r"'pcre' cannot be used: .*; .*'pcre2' cannot be used: "):
        choose_engine("auto")
    with pytest.raises(PatternError, match="'pcre2' cannot be used"):
        compile_pattern(b".*", "pcre2")


def test_unknown_engine() -> None:
    with pytest.raises(PatternError, match="expected one of auto, pcre, pcre2, got 're2'"):
        choose_engine("re2")


def test_compile_takes_auto() -> None:
    assert compile_pattern(b"a", "auto").engine in ENGINES[1:]


# Answers

ANSWERS: list[tuple[bytes, bytes, Spans | None]] = [
    (b"b", b"abc", ((1, 2),)),
    (b"x", b"abc", None),
    (b"", b"abc", ((0, 0),)),
    (rb"(a)(x)?(b)?", b"zab", ((1, 3), (1, 2), (-1, -1), (2, 3))),
    (rb"(x)?a(y)?", b"a", ((0, 1), (-1, -1), (-1, -1))),
    (rb"(?<user>\w+)@", b"at bob@x", ((3, 7), (3, 6))),
    # bytes from 0x80 on: one byte is one character, and offsets count bytes
    (rb".", b"\xe9", ((0, 1),)),
    (rb"^..$", "é".encode(), ((0, 2),)),
    ("é".encode(), b"\xff" + "xé".encode(), ((2, 4),)),
    (rb"\xe9", b"a\xe9b", ((1, 2),)),
    (rb"\x{e9}", b"\xff\xe9", ((1, 2),)),
    (rb"\351", b"\xff\xe9", ((1, 2),)),
    (b"(\xe9+)(.)(z)?", b"\xff\xe9\xe9\xfe", ((1, 4), (1, 3), (3, 4), (-1, -1))),
    (b"[\x80-\xff]+", b"a\xe9\x80b", ((1, 3),)),
    (b"(?i)\xe9", b"\xc9", ((0, 1),)),
    (b"(?i)[^\xe9]", b"\xc9", None),
    (rb"\w", b"\xe9", None),
    (rb"\W", b"\xe9", ((0, 1),)),
    (rb"\s", b"\xa0\x85", None),
    (rb"\h", b"\xa0", ((0, 1),)),
    (rb"\R", b"\x85", ((0, 1),)),
    (rb"[[:alpha:]]", b"\xe9", None),
    (rb"[[:^alpha:]]", b"\xe9", ((0, 1),)),
    (rb"\p{Lu}", b"\xe9\xc9", ((1, 2),)),
    (rb"\x{20ac}", "€".encode(), None),
    (rb"(?i)\x{212a}", b"k", ((0, 1),)),
    # NUL
    (b"a\x00b", b"xa\x00b", ((1, 4),)),
    (b"a\\\x00\x00+$", b"a\x00\x00\x00", ((0, 4),)),
    (b"[\x00]", b"a\x00", ((1, 2),)),
    (rb"\x00(.)", b"\x00\x00", ((0, 2), (1, 2))),
    (b"(?#\x00)b", b"\x00b", ((1, 2),)),
    # what one of the engines would treat in another way, if it were let
    (b"(?x) \x85 \\ b", b"\x85 b", ((0, 3),)),
    (b"\\Q\xc3\x85\\C\\y\\E", b"\xc3\x85\\C\\y", ((0, 6),)),
    (rb"\\C", rb"\C", ((0, 2),)),
    (b"(?=\xe9a\\K)", b"\xff\xe9a", ((1, 1),)),
    (rb"a\Kb", b"ab", ((1, 2),)),
    (rb"a.b", b"a\rb", ((0, 3),)),
    (rb"b$", b"b\r", None),
    (rb"(*CRLF)b$", b"b\r\n", ((0, 1),)),
    (rb"\cA", b"\x01", ((0, 1),)),
    # .* is known without PCRE
    (rb".*", b"", ((0, 0),)),
    (rb".*", b"a\xe9\x00", ((0, 3),)),
    (rb".*", b"a\nb", ((0, 1),)),
    (rb"(.*)", b"a\nb", ((0, 1), (0, 1))),
]


@pytest.mark.parametrize(("regex", "line", "spans"), ANSWERS, ids=repr)
def test_answer(engine: str, jit: bool, regex: bytes, line: bytes, spans: Spans | None) -> None:
    compiled = compile_pattern(regex, engine, jit=jit)
    assert compiled.search(line) == spans
    assert compiled.search(line) == spans, "a pattern can be used again"
    assert (compiled.regex, compiled.engine) == (regex, engine)
    if spans is not None:
        assert compiled.groups == len(spans) - 1


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(
    "template", [b"%s", b"(?i)%s", b"[%s]", b"(?i)[^%s]", b"(?x)a %s", b"\\%s", b"[\\%s]", b"a%sb", b"\\%s1"]
)
def test_each_byte_means_the_same_to_both(template: bytes) -> None:
    every = bytes(range(256))
    for number in range(256):
        regex = template % bytes([number])
        compiled = [compiled_or_none(regex, engine) for engine in ("pcre", "pcre2")]
        if None not in compiled:
            for line in (every, every[::-1], b"", *every_byte()):
                answers = [one.search(line) for one in compiled if one]
                assert answers[0] == answers[1], (regex, line)


def every_byte() -> list[bytes]:
    return [bytes([number]) for number in range(256)]


def compiled_or_none(regex: bytes, engine: str, *, jit: bool = True) -> Pattern | None:
    try:
        return compile_pattern(regex, engine, jit=jit)
    except PatternError:
        return None


# Regexes as people and fuzzers write them. Left out is what the engines are known to disagree about:
# subroutine calls, (*ACCEPT) in a repeated group, and {,n}, a quantifier since PCRE2 10.43.
ATOMS = [
    *(b"a", b"b", b"A", b" ", b"1", b"#", b"\x00", b"\x85", b"\xb5", b"\xc9", b"\xdf", b"\xe9", b"\xff"),
    *rb". \w \W \d \D \s \S \h \H \v \V \R \N \X \b \B \A \z \Z \G \K ^ $".split(),
    *rb"\t \n \0 \cA \. \\ \/ \Qa.\E".split(),
    *rb"\xe9 \x{c9} \351 \x{100} \x{212a} \x{178} \1 \2 \g{-1} (?#c) (?i) (?-i) (?s) (?x) (?m)".split(),
    *rb"\p{L} \P{L} \p{Lu} \p{Ll} \p{Zs} \p{Any} \p{L&} \p{Latin}".split(),
    *rb"(*FAIL) (*COMMIT) (*PRUNE) (*SKIP) (*THEN)".split(),
]
IN_CLASS = [
    *(b"a", b"^", b"-", b"\x00", b"\x85", b"\xe9", b"\xe0-\xfe", b"\x80-\xff"),
    *rb"b-d A-Z \w \W \d \D \s \S \h \V \b \] \Q]\E \p{L} \P{Lu} \x{100}-\x{200} \x{212a}".split(),
    *rb"[:alpha:] [:^alpha:] [:upper:] [:lower:] [:punct:] [:print:] [:^space:] [:graph:]".split(),
]
QUANTIFIERS = rb"* + ? *? +? ?? *+ ++ ?+ {2} {1,3} {0} {2,}? {1,2}+".split()
OPENINGS = rb"( ( (?: (?i: (?= (?! (?<= (?<! (?> (?| (?<n> (?s-i: (?x: (?m: (?(1) (?(?=a)".split()
STARTS = [b""] * 6 + rb"(?i) (?s) (?x) (?m) (?U) (?J) (*CR) (*ANYCRLF) (*BSR_ANYCRLF) (*NO_START_OPT)".split()

character_classes = st.builds(
    lambda start, members: start + b"".join(members) + b"]",
    st.sampled_from([b"[", b"[^"]),
    st.lists(st.sampled_from(IN_CLASS), min_size=1, max_size=4),
)
atoms = (
    st.sampled_from(ATOMS) | character_classes | st.sampled_from(ATOMS) | st.binary(min_size=1, max_size=3)
)


def longer(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.builds(b"(?:%s)%s".__mod__, st.tuples(parts, st.sampled_from(QUANTIFIERS))),
        st.builds(b"%s%s".__mod__, st.tuples(parts, st.sampled_from(QUANTIFIERS))),
        st.builds(b"%s%s)".__mod__, st.tuples(st.sampled_from(OPENINGS), parts)),
        st.builds(b"%s|%s".__mod__, st.tuples(parts, parts)),
        st.lists(parts, min_size=2, max_size=4).map(b"".join),
    )


regexes = st.builds(
    b"%s%s".__mod__, st.tuples(st.sampled_from(STARTS), st.recursive(atoms, longer, max_leaves=10))
)
characters = st.sampled_from(
    [bytes([number]) for number in b"aabbAB1 \xe9\xc9\x85\xa0\x00\r\n\xb5\xff\xdf\xc2\xc3\\.]kKS"]
)
lines = st.lists(characters | st.binary(min_size=1, max_size=2), max_size=12).map(b"".join)


@pytest.mark.usefixtures("both")
@settings(
    examples(400),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(regex=regexes, searched=st.lists(lines, min_size=2, max_size=5))
def test_both_engines_agree(regex: bytes, searched: list[bytes]) -> None:
    compiled = [
        compiled_or_none(regex, engine, jit=jit) for engine in ("pcre", "pcre2") for jit in (True, False)
    ]
    usable = [one for one in compiled if one]
    if len(usable) < len(compiled):
        return  # each of them refuses something that the other takes
    assert len({one.groups for one in usable}) == 1
    for line in searched:
        answers = []
        for one in usable:
            try:
                answers.append(one.search(line))
            except MatchLimitError:
                continue  # what is too much for one may be little for another
        assert len(set(answers)) <= 1, (regex, line, answers)
        for spans in filter(None, answers):
            assert all((start, end) == (-1, -1) or 0 <= start <= end <= len(line) for start, end in spans)


# Errors


@pytest.mark.parametrize(
    ("regex", "offset"),
    [
        (b"(b", 2),
        (b"\xe9\xe9(b", 4),
        (b"\x00(\x85b", 4),
        (b"ab\\", 3),
        (b"(*CRLF)(b", 9),
        (b"a{70000}", 7),
        (b"\x00a\\yb", 3),
    ],
)
def test_error_offset_is_in_the_users_regex(engine: str, regex: bytes, offset: int) -> None:
    with pytest.raises(PatternError) as caught:
        compile_pattern(regex, engine)
    message, _, found = str(caught.value).rpartition(" at offset ")
    assert message
    # The engines differ by a character or two about the place, but not by a prefix of ours.
    assert abs(int(found) - offset) <= 1
    assert int(found) <= len(regex)


@pytest.mark.parametrize("prefix", [b"", b"ab", b"\x00\x85"])
def test_error_offset_of_a_class_is_inside_of_it(engine: str, prefix: bytes) -> None:
    """PCRE2 names the end of it from 10.45 on, before that its beginning."""
    with pytest.raises(PatternError) as caught:
        compile_pattern(prefix + b"[[:foo:]]z", engine)
    assert len(prefix) < int(str(caught.value).rpartition(" at offset ")[2]) <= len(prefix) + 9


@given(regex=st.binary(max_size=8) | regexes)
def test_error_offset_is_never_outside(regex: bytes) -> None:
    for engine in ("pcre", "pcre2"):
        try:
            compile_pattern(regex, engine)
        except PatternError as error:
            if "cannot be used" in str(error):
                continue
            digits = str(error).partition(" at offset ")[2].partition(":")[0]
            assert 0 <= int(digits) <= len(regex), (regex, str(error))


# Limits

HOSTILE = [
    (regex, length)
    for regex in (
        rb"(a+)+$",
        rb"(?:.|\n)*[xy]",
        rb"(a|b)*[xy]",
        rb"(?:a|aa)+$",
        rb"(\w+\s?)+[:;]",
        rb"(a(?1)?)+[xy]",
    )
    # None between 4 KiB and where the limits stop the first attempt: there a search takes its time.
    for length in (100, 1000, 128 * 1024, 1024 * 1024)
]
# Run in another process, which a failing guard would crash. Each line of its output is one search.
HOSTILE_PROGRAM = r"""
import ctypes, sys
from lognot.errors import MatchLimitError
from lognot.pattern import compile_pattern

engine, how, *searches = sys.argv[1:]
if how == "no executable memory" and ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, prctl(2)
    sys.exit("SKIP: the kernel cannot forbid executable memory")
for regex, length in zip(searches[::2], searches[1::2]):
    pattern = compile_pattern(regex.encode(), engine, jit=how != "interpreted")
    for line in (b"a" * int(length) + b"!", b"\xe9" * int(length) + b"!"):
        try:
            print(regex, length, pattern.search(line))
        except MatchLimitError as error:
            print(regex, length, "given up:", error)
"""


@pytest.mark.parametrize("how", ["jit", "interpreted", "no executable memory"])
def test_hostile_lines_neither_crash_nor_hang(engine: str, how: str) -> None:
    searches = [text for regex, length in HOSTILE for text in (regex.decode(), str(length))]
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE_PROGRAM, engine, how, *searches],
        env={"PYTHONPATH": SOURCE},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES)),
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
        check=False,
    )
    if done.stderr.startswith("SKIP: "):
        pytest.skip(done.stderr.removeprefix("SKIP: ").strip())
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = done.stdout.splitlines()
    assert len(outcomes) == 2 * len(HOSTILE)
    assert all(outcome.endswith(" None") or " given up: " in outcome for outcome in outcomes)
    assert any(" given up: " in outcome for outcome in outcomes), "nothing here was hostile enough"


def test_a_pattern_can_be_used_after_it_was_given_up(engine: str, jit: bool) -> None:
    compiled = compile_pattern(rb"(a+)+$", engine, jit=jit)
    with pytest.raises(MatchLimitError, match="limit"):
        compiled.search(b"a" * 5000 + b"!")
    assert compiled.search(b"baa") == ((1, 3), (1, 3))


def test_long_lines_are_no_problem_by_themselves(engine: str, jit: bool) -> None:
    line = b"\xe9" * (1024 * 1024 - 3) + b"end"
    assert compile_pattern(rb"(e)nd", engine, jit=jit).search(line) == (
        (len(line) - 3, len(line)),
        (len(line) - 3, len(line) - 2),
    )


def test_empty_lines_and_empty_regexes(engine: str, jit: bool) -> None:
    assert compile_pattern(b"^$", engine, jit=jit).search(b"") == ((0, 0),)
    assert compile_pattern(b"", engine, jit=jit).search(b"") == ((0, 0),)


def test_limits_are_ours() -> None:
    # The interpreter of PCRE 8 must fit on half of the usual stack.
    assert pattern.RECURSION_LIMIT * PCRE_FRAME_BYTES < STACK_BYTES / 2
