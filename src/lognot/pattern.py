"""One PCRE: compile it once, then search line after line. Bytes in, offsets in bytes out.

The monitor uses it on what strangers write into logs; --test, --retest and the check of a new config compile
with it. It needs no privilege. A hostile line must not crash the process, so every search has limits and
raises MatchLimitError at them; any other line gives spans or None.

Two engines, one behaviour: python-pcre (PCRE 8) and libpcre2-8 (`lognot.pcre2`). dialect.py has which
regexes they are given, in which words, and what they cannot be made to agree about.

Limits bound one attempt, and PCRE starts counting again at each offset of the line. A regex that stays below
them at every offset takes time that grows with the square of the line's length, or the cube. Whoever searches
lines longer than about 1 KiB needs a timer around the search, and around every search where there is no JIT.
Measured on hostile lines ("aaa...!"), in seconds, the slower of the engines, with JIT and MATCH_LIMIT; "up"
means given up:

    regex             1 KiB    4 KiB    64 KiB   1 MiB
    (a+)+$            0.003 up 0.003 up 0.003 up 0.003 up
    (?:.|\\n)*[xy]     0.002    0.04     0.001 up 0.001 up
    (a|b)*[xy]        0.002    0.07     0.001 up 0.005 up
    .*[xy]            0.001    0.001    0.001    0.004 up
    a{1,5000}[xy]     0.001    0.02     0.5      9
    (?>a*)[xy]        0.001    0.005    2.4      over 60
    (?=.*[xy])a       0.001    0.02     7        0.004 up
    a*a*[xy]          0.001    0.005    1.3      over 60
    (a*)\\1[xy]        0.02     3.3      over 60  over 60
    a*a*a*[xy]        0.1 up   0.1 up   0.1 up   0.1 up

Without JIT, a*a*[xy] takes 0.1 s at 1 KiB and 12 s at 4 KiB, and a*a*a*[xy] 34 s at 1 KiB.

What the limits for short lines make of it at 1 KiB, of 38 such regexes the slowest, in milliseconds.
Comparing for a back-reference is no step, and a search at a thousand offsets meets no limit:

    regex             SHORT_MATCH_LIMIT   LEAST_MATCH_LIMIT
    a*a*a*[xy]            3.4 up            < 0.1 up
    .*.*.*=.*x            8 up              < 0.1 up
    (?:a*+)?a*a*x         8                   2
    (?:.|\\n)*[xy]        4                   4
    (?:a(?=a*(.*)))*\\1x  12                   8
    (a*)\\1[xy]          24                  24

A group that is called and matches nothing can go on calling: on PCRE2 with JIT (|a|(?1)(?1))[xy] takes 760 ms
on a line of 4 bytes with SHORT_MATCH_LIMIT and 5 ms with LEAST_MATCH_LIMIT. `calls` tells such a regex.
"""

from __future__ import annotations

import mmap
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

from lognot.dialect import calls_groups, translate
from lognot.errors import MatchLimitError, PatternError
from lognot.settings import ENGINES

_missing: dict[str, str] = {}  # of an engine that was looked for once and for all: why it cannot be had
_JIT_FILE = b"/memfd:sljit"  # the name that PCRE2 gives to such a file (sljitProtExecAllocator.c)

Spans = tuple[tuple[int, int], ...]

# Longer lines are searched with MATCH_LIMIT, and in a guard (guard.py).
SHORT_LINE_BYTES = 1024
# Steps in one attempt, as PCRE counts them. On a short line they take less than 8 ms with JIT, whatever the
# regex (a step may be a loop over the line), and `.*=.*=.*x` has as many for it as it can need.
SHORT_MATCH_LIMIT = 20_000
# On a long one: `.*x` needs one for each byte. PCRE's own default is 10 million.
MATCH_LIMIT = 1_000_000
# For a regex that has used up its time: an ordinary line needs less than a hundred, a hostile one is given up
# within 0.3 ms.
LEAST_MATCH_LIMIT = 2_000
# Nested calls in one attempt without JIT. PCRE 8 uses the C stack, 496 bytes a call (measured on amd64), so
# this is 3 MB: the usual 8 MB stack still holds where frames are twice as large.
RECURSION_LIMIT = 6_000
# Memory of one attempt without JIT in PCRE2, which uses the heap and keeps it for the regex's next search.
# About as deep as RECURSION_LIMIT goes.
HEAP_LIMIT_KIB = 1024
# Backtracking memory of JIT code. On python-pcre each regex has its own, so it is address space for as many
# items as there are; pages are taken when they are used. A deeper search would be quadratic on a long line.
JIT_STACK_START_BYTES = 32 * 1024
JIT_STACK_MAX_BYTES = 1024 * 1024

_LIMITS_PREFIX = b"(*LIMIT_MATCH=%07d)(*LIMIT_RECURSION=%d)"

# python-pcre puts the offset into its message.
_OFFSET_IN_MESSAGE = re.compile(r"(.*) at position ([0-9]+)", re.DOTALL)
_PCRE_NO_MEMORY = -6
_PCRE_ERRORS = {-8: "match limit exceeded", -21: "recursion limit exceeded", -27: "no more JIT stack"}


class Pattern(ABC):
    """A compiled regex: `regex` as the user wrote it, `engine` "pcre" or "pcre2", `groups` its captures.

    `calls` says that it calls its own groups: then even a short line can take long, and needs the guard.
    """

    __slots__ = ("calls", "engine", "groups", "regex")

    def __init__(self, regex: bytes, engine: str, groups: int) -> None:
        self.regex = regex
        self.engine = engine
        self.groups = groups
        self.calls = calls_groups(regex)

    @abstractmethod
    def match(self, line: bytes) -> Any:
        """Whether the regex matches a short line: something for `whole` and `spans` to read, or None.

        Raises MatchLimitError when PCRE gave up; MemoryError when it got no memory; nothing else.
        """

    def match_long(self, line: bytes) -> Any:
        """The same for a line over SHORT_LINE_BYTES, with more steps."""
        return self.match(line)

    def match_least(self, line: bytes) -> Any:
        """The same with so few steps that it costs next to nothing: for a regex that costs too much."""
        return self.match(line)

    @abstractmethod
    def whole(self, line: bytes, match: Any) -> tuple[int, int]:
        """Where in `line` the regex first matches: start and end in bytes."""

    @abstractmethod
    def spans(self, line: bytes, match: Any) -> Spans:
        """The same for groups 0 to `groups`; (-1, -1) stands for a group that took no part."""

    def search(self, line: bytes) -> Spans | None:
        """Where the regex first matches, with all groups, or None. Raises what `match` raises."""
        match = self.match(line) if len(line) <= SHORT_LINE_BYTES else self.match_long(line)
        return None if match is None else self.spans(line, match)


class _AnyLine(Pattern):
    """The regex `.*`, which needs no PCRE."""

    __slots__ = ()

    def match(self, line: bytes) -> int:
        end = line.find(b"\n")  # a complete line has none, but `.` would stop there
        return len(line) if end < 0 else end

    def whole(self, line: bytes, match: Any) -> tuple[int, int]:
        return 0, match

    def spans(self, line: bytes, match: Any) -> Spans:
        return ((0, match),)


class _PcrePattern(Pattern):
    """A regex compiled by python-pcre."""

    __slots__ = ("_compiled", "_flags", "_jit", "_match", "_no_match", "_others", "_pcre_error", "_subject")

    def __init__(self, regex: bytes, subject: bytes, *, jit: bool) -> None:
        """Compiles `subject`, the UTF-8 text of `regex`. Raises _CompileError."""
        import pcre

        # Declared as valid UTF-8, text is used as it is: no walk over each line to look for other bytes, no
        # copy, and offsets are those of the UTF-8 text, as with PCRE2.
        self._flags = pcre.UTF8 | pcre.NO_UTF8_CHECK
        self._subject = subject
        self._jit = jit
        self._others: dict[int, Any] = {}  # by their match limit
        self._compiled = self._compile(SHORT_MATCH_LIMIT)
        self._match = pcre.Match
        self._no_match = pcre.NoMatch
        self._pcre_error = pcre.PCREError
        super().__init__(regex, "pcre", self._compiled.groups)

    def _compile(self, match_limit: int) -> Any:
        import pcre

        prefix = _LIMITS_PREFIX % (match_limit, RECURSION_LIMIT)
        try:
            compiled = pcre.compile(prefix + self._subject, self._flags)
        except (pcre.PCREError, OverflowError) as error:  # OverflowError: a number too big in {}
            found = _OFFSET_IN_MESSAGE.fullmatch(str(error.args[-1]))
            message, offset = found.groups() if found else (str(error.args[-1]), 0)
            raise _CompileError(message, int(offset) - len(prefix)) from error
        # False when the study found nothing to remember: then there is no machine code that needs a stack.
        # Where executable memory is refused, the stack is set and never used.
        if compiled.study(pcre.STUDY_JIT if self._jit else 0) and self._jit:
            compiled.set_jit_stack(JIT_STACK_START_BYTES, JIT_STACK_MAX_BYTES)
        return compiled

    def _match_within(self, match_limit: int, line: bytes) -> Any:
        """PCRE 8 has the limit in the compiled regex, so there are more of them once they are needed."""
        compiled = self._others.get(match_limit)
        if compiled is None:
            compiled = self._others[match_limit] = self._compile(match_limit)
        usual, self._compiled = self._compiled, compiled
        try:
            return self.match(line)
        finally:
            self._compiled = usual

    def match_long(self, line: bytes) -> Any:
        return self._match_within(MATCH_LIMIT, line)

    def match_least(self, line: bytes) -> Any:
        return self._match_within(LEAST_MATCH_LIMIT, line)

    def match(self, line: bytes) -> Any:
        subject = line if line.isascii() else line.decode("latin-1").encode()
        try:
            # What Pattern.search() calls, without its frame: this runs once per line.
            return self._match(self._compiled, subject, -1, -1, self._flags)
        except self._no_match:
            return None
        except self._pcre_error as error:
            if error.args[0] == _PCRE_NO_MEMORY:
                raise MemoryError("PCRE got no memory") from error
            raise MatchLimitError(_PCRE_ERRORS.get(error.args[0], f"PCRE error {error.args[0]}")) from error

    def whole(self, line: bytes, match: Any) -> tuple[int, int]:
        # Not span(), which raises RuntimeError when \K in a lookahead put the start after the end.
        start, end = match.start(), match.end()
        return (start, end) if start <= end and line.isascii() else self.spans(line, match)[0]

    def spans(self, line: bytes, match: Any) -> Spans:
        offsets = [match.start(), match.end()]
        for group in range(1, self.groups + 1):
            offsets.extend(match.span(group))
        return _spans(line, offsets)


class _Pcre2Pattern(Pattern):
    """A regex compiled by libpcre2-8."""

    __slots__ = ("_match", "_match_with")

    def __init__(self, regex: bytes, subject: bytes, *, jit: bool) -> None:
        """Compiles `subject`, the UTF-8 text of `regex`. Raises _CompileError."""
        from lognot import pcre2

        try:
            program = pcre2.Program(
                subject, pcre2.UTF | pcre2.NEVER_BACKSLASH_C, _pcre2_context(SHORT_MATCH_LIMIT), jit=jit
            )
        except pcre2.CompileError as error:
            raise _CompileError(error.message, error.offset) from error
        self._match = program.match
        self._match_with = program.match_with
        super().__init__(regex, "pcre2", program.groups)

    def match(self, line: bytes) -> Any:
        subject = line if line.isascii() else line.decode("latin-1").encode()
        return self._match(subject)

    def match_long(self, line: bytes) -> Any:
        return self._match_with(line.decode("latin-1").encode(), _pcre2_context(MATCH_LIMIT))

    def match_least(self, line: bytes) -> Any:
        return self._match_with(line.decode("latin-1").encode(), _pcre2_context(LEAST_MATCH_LIMIT))

    def whole(self, line: bytes, match: Any) -> tuple[int, int]:
        start, end = match[0], match[1]
        return (start, end) if start <= end and line.isascii() else self.spans(line, match)[0]

    def spans(self, line: bytes, match: Any) -> Spans:
        return _spans(line, match)


class _CompileError(Exception):
    """An engine's refusal; the offset counts bytes of the UTF-8 text that it was given."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def choose_engine(wanted: str) -> str:
    """The engine to use: "pcre" or "pcre2". "auto" takes python-pcre where it can be imported.

    Raises PatternError when `wanted` is no engine or cannot be had.
    """
    if wanted not in ENGINES:
        raise PatternError(f"expected one of {', '.join(ENGINES)}, got '{wanted}'")
    missing = []
    for engine in ("pcre", "pcre2") if wanted == "auto" else (wanted,):
        reason = _why_missing(engine)
        if not reason:
            return engine
        missing.append(reason)
    raise PatternError("; ".join(missing))


def load_engines() -> None:
    """Import all engines that can be had. From now on none is looked for, and no file is opened."""
    for engine in ("pcre", "pcre2"):
        _missing[engine] = _why_missing(engine)


def jit_uses_files() -> bool:
    """Say whether libpcre2 makes machine code in memory files: built with --enable-jit-sealloc, it does."""
    if _why_missing("pcre2"):
        return False
    from lognot import pcre2

    program = pcre2.Program(b"x", 0, _pcre2_context(MATCH_LIMIT))
    with open("/proc/self/maps", "rb") as file:
        return program.jit and _JIT_FILE in file.read()


def compile_find(regex: bytes) -> Callable[[bytes, int], tuple[int, int] | None]:
    """Compile a regex of bytes to what `Prefilter` needs, with libpcre2, whatever engine matches lines.

    python-pcre would not do: at each call it walks over its whole subject. Raises PatternError where libpcre2
    cannot be had, or refuses the regex; what is returned raises MatchLimitError.
    """
    missing = _why_missing("pcre2")
    if missing:
        raise PatternError(missing)
    from lognot import pcre2

    return pcre2.Program(regex, 0, _pcre2_context(MATCH_LIMIT)).find


def has_jit() -> bool:
    """Say whether this process may make machine code; under MemoryDenyWriteExecute= (systemd.exec(5)) not.

    Either engine then interprets without a word, and python-pcre cannot be asked.
    """
    try:
        mmap.mmap(-1, 1, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True


def compile_pattern(regex: bytes, engine: str, *, jit: bool = True) -> Pattern:
    """Compiles one regex with one of ENGINES.

    Raises PatternError, with what is wrong and its offset in bytes of `regex`, or when the engine cannot be
    had. `jit` off is for tests; where machine code cannot be made, the engine interprets without being asked.
    """
    engine = choose_engine(engine)
    if regex == b".*":
        return _AnyLine(regex, engine, 0)
    translation = translate(regex)
    try:
        if engine == "pcre":
            return _PcrePattern(regex, translation.text, jit=jit)
        return _Pcre2Pattern(regex, translation.text, jit=jit)
    except _CompileError as error:
        offset = translation.offset_in_regex(error.offset)
        raise PatternError(f"{error.message} at offset {offset}") from error


def _spans(line: bytes, offsets: list[int]) -> Spans:
    """Offsets in the UTF-8 text of `line`, as spans of `line`.

    The start of group 0 can be after its end with \\K in a lookahead: then it is empty, at the end.
    """
    if not line.isascii():
        # Each byte from 0x80 on became two, and the first of them is 0xc2 or 0xc3.
        subject = line.decode("latin-1").encode()
        offsets = [
            at if at <= 0 else at - subject.count(b"\xc2", 0, at) - subject.count(b"\xc3", 0, at)
            for at in offsets
        ]
    if offsets[0] > offsets[1]:
        offsets = [offsets[1], *offsets[1:]]
    pairs = iter(offsets)
    return tuple(zip(pairs, pairs, strict=True))


def _why_missing(engine: str) -> str:
    """Why `engine` cannot be had; "" when it can. Both are imported only where they are used."""
    if engine in _missing:
        return _missing[engine]
    try:
        if engine == "pcre":
            import pcre  # noqa: F401
        else:
            from lognot import pcre2  # noqa: F401
    except ImportError as error:
        return f"regex engine '{engine}' cannot be used: {error}"
    return ""


@cache
def _pcre2_context(match_limit: int) -> Any:
    """The limits of PCRE2 searches, and a JIT stack that they share: address space until it is used."""
    from lognot import pcre2

    return pcre2.match_context(
        match_limit=match_limit,
        depth_limit=RECURSION_LIMIT,
        heap_limit_kib=HEAP_LIMIT_KIB,
        jit_stack_start_bytes=JIT_STACK_START_BYTES,
        jit_stack_max_bytes=JIT_STACK_MAX_BYTES,
    )
