"""The ctypes binding of libpcre2-8."""

from __future__ import annotations

import gc

import pytest

from lognot.errors import MatchLimitError, PatternError

pcre2 = pytest.importorskip("lognot.pcre2", exc_type=ImportError)


@pytest.fixture(scope="module")
def context() -> int:
    return pcre2.match_context(
        match_limit=10_000,
        depth_limit=1_000,
        heap_limit_kib=1_000,
        jit_stack_start_bytes=32 * 1024,
        jit_stack_max_bytes=64 * 1024,
    )


def test_version_is_new_enough() -> None:
    assert pcre2.version() >= pcre2.OLDEST_VERSION


def test_error_message() -> None:
    assert pcre2.error_message(-47) == "match limit exceeded"


def test_without_memory_nobody_knows_whether_it_matches(
    context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not count as a line that does not match."""
    program = pcre2.Program(b"a", 0, context)
    monkeypatch.setattr(pcre2, "_match", lambda *arguments: -48)
    with pytest.raises(MemoryError, match="no more memory"):
        program.match(b"a")
    for search in (lambda: program.find(b"a", 0), lambda: program.match_with(b"a", context)):
        with pytest.raises(MemoryError):
            search()


@pytest.mark.parametrize("jit", [True, False])
def test_match(context: int, jit: bool) -> None:
    program = pcre2.Program(rb"(a)(x)?(\xe9)?$", 0, context, jit=jit)
    assert program.groups == 3
    assert program.match(b"ba") == [1, 2, 1, 2, -1, -1, -1, -1]
    assert program.match(b"\x00a\xe9") == [1, 3, 1, 2, -1, -1, 2, 3]
    assert program.match(b"") is None
    assert program.match(b"ax") == [0, 2, 0, 1, 1, 2, -1, -1]


def test_regex_with_nul(context: int) -> None:
    assert pcre2.Program(b"a\x00b", 0, context).match(b"xa\x00b") == [1, 4]


def test_newline_is_lf_whatever_the_library_was_built_with(context: int) -> None:
    assert pcre2.Program(rb"a.b", 0, context).match(b"a\rb") == [0, 3]
    assert pcre2.Program(rb"a.b", 0, context).match(b"a\nb") is None
    assert pcre2.Program(rb"\R", 0, context).match(b"\x85") == [0, 1]


def test_compile_error(context: int) -> None:
    with pytest.raises(pcre2.CompileError) as caught:
        pcre2.Program(b"ab(", 0, context)
    assert isinstance(caught.value, PatternError)
    assert "parenthesis" in caught.value.message
    assert caught.value.offset == 3


@pytest.mark.parametrize("jit", [True, False])
def test_limits_of_the_context(context: int, jit: bool) -> None:
    program = pcre2.Program(rb"(a+)+$", 0, context, jit=jit)
    with pytest.raises(MatchLimitError, match="limit"):
        program.match(b"a" * 1000 + b"!")
    assert program.match(b"aa") == [0, 2, 0, 2], "a failed match leaves the program usable"


def test_jit_off(context: int) -> None:
    assert not pcre2.Program(b"a", 0, context, jit=False).jit


def test_many_programs_are_freed(context: int) -> None:
    def resident_kib() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4

    def compile_many() -> None:
        for number in range(3000):
            pcre2.Program(b"(a|b)+c%d" % number, 0, context).match(b"xab")
        gc.collect()

    compile_many()
    before = resident_kib()
    compile_many()
    assert resident_kib() - before < 4096
