"""A small ctypes binding of libpcre2-8, the system's own PCRE: only what `pattern` needs.

The monitor uses it; --test, --retest and the check of a new config do too. It needs no privilege, opens
nothing but the library, and must not be shared by threads: every program writes into one match data block of
its own, and all of them run on one JIT stack.

Importing this module raises ImportError where the library is missing or too old. Source: pcre2api(3),
pcre2jit(3), pcre2.h; functions and constants have the library's names without its prefix and _8 suffix.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ctypes import POINTER, PYFUNCTYPE, c_char_p, c_int, c_size_t, c_ssize_t, c_uint32, c_void_p
from functools import cache
from typing import Any

from lognot.errors import MatchLimitError, PatternError

# By its soname: ctypes.util.find_library() would run ldconfig and a compiler, which a sandbox forbids.
LIBRARY = "libpcre2-8.so.0"
# Before 10.38 the library does not know EXTRA_ALLOW_LOOKAROUND_BSK and would refuse every regex.
OLDEST_VERSION = (10, 38)

# Options of compile() and match(), from pcre2.h.
UTF = 0x00080000
NEVER_BACKSLASH_C = 0x00100000
NO_UTF_CHECK = 0x40000000
# PCRE 8 allows \K in lookarounds, so we do too. EXTRA_BAD_ESCAPE_IS_LITERAL is left off on purpose: it goes
# further than PCRE 8 and takes `\p{Typo}` or `\x{2z}` for literal text.
EXTRA_ALLOW_LOOKAROUND_BSK = 0x00000040

_NEWLINE_LF = 2
_BSR_UNICODE = 1
_JIT_COMPLETE = 1
_INFO_CAPTURECOUNT = 4
_CONFIG_VERSION = 11
_ERROR_NOMATCH = -1
_ERROR_NOMEMORY = -48
_MESSAGE_BYTES = 256  # pcre2_get_error_message(3): 128 is enough for all that exist


class CompileError(PatternError):
    """A regex that the library refuses: its words, and the offset in bytes of the regex as it was given."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} at offset {offset}")
        self.message = message
        self.offset = offset


def _declare(name: str, result: Any, arguments: Iterable[Any]) -> Any:
    """One function of the library with its types, so that no pointer is cut to 32 bits."""
    function = getattr(_library, f"pcre2_{name}_8")
    function.restype = result
    function.argtypes = list(arguments)
    return function


try:
    _library = ctypes.CDLL(LIBRARY)
except OSError as error:
    raise ImportError(f"cannot load {LIBRARY}: {error}") from error

_config = _declare("config", c_int, (c_uint32, c_void_p))
_get_error_message = _declare("get_error_message", c_int, (c_int, c_char_p, c_size_t))
_compile_context_create = _declare("compile_context_create", c_void_p, (c_void_p,))
_set_compile_extra_options = _declare("set_compile_extra_options", c_int, (c_void_p, c_uint32))
_set_newline = _declare("set_newline", c_int, (c_void_p, c_uint32))
_set_bsr = _declare("set_bsr", c_int, (c_void_p, c_uint32))
_compile = _declare(
    "compile", c_void_p, (c_char_p, c_size_t, c_uint32, POINTER(c_int), POINTER(c_size_t), c_void_p)
)
_code_free = _declare("code_free", None, (c_void_p,))
_jit_compile = _declare("jit_compile", c_int, (c_void_p, c_uint32))
_pattern_info = _declare("pattern_info", c_int, (c_void_p, c_uint32, c_void_p))
_match_context_create = _declare("match_context_create", c_void_p, (c_void_p,))
_set_match_limit = _declare("set_match_limit", c_int, (c_void_p, c_uint32))
_set_depth_limit = _declare("set_depth_limit", c_int, (c_void_p, c_uint32))
_set_heap_limit = _declare("set_heap_limit", c_int, (c_void_p, c_uint32))
_jit_stack_create = _declare("jit_stack_create", c_void_p, (c_size_t, c_size_t, c_void_p))
_jit_stack_assign = _declare("jit_stack_assign", None, (c_void_p, c_void_p, c_void_p))
_match_data_create_from_pattern = _declare("match_data_create_from_pattern", c_void_p, (c_void_p, c_void_p))
_match_data_free = _declare("match_data_free", None, (c_void_p,))
_get_ovector_pointer = _declare("get_ovector_pointer", c_void_p, (c_void_p,))
# Called for each line: the GIL is kept, since there are no threads to let run, and what never changes is a C
# value from the beginning. 0.64 us a call; 0.80 without both.
_match = PYFUNCTYPE(c_int, c_void_p, c_char_p, c_size_t, c_size_t, c_uint32, c_void_p, c_void_p)(
    ("pcre2_match_8", _library)
)
_FROM_BEGINNING = c_size_t(0)


def version() -> tuple[int, int]:
    """The library's version: (10, 42)."""
    text = ctypes.create_string_buffer(_MESSAGE_BYTES)  # "10.42 2022-12-11" and its NUL: pcre2api(3) wants 24
    _config(_CONFIG_VERSION, text)
    major, minor = text.value.split()[0].split(b".")[:2]
    return int(major), int(minor.split(b"-")[0])  # a release candidate says "10.43-RC1"


def _failure(code: int) -> Exception:
    """What to raise for one of the library's error codes; without memory, nobody knows whether it matches."""
    if code == _ERROR_NOMEMORY:
        return MemoryError(error_message(code))
    return MatchLimitError(error_message(code))


def error_message(code: int) -> str:
    """The library's words for one of its error codes."""
    text = ctypes.create_string_buffer(_MESSAGE_BYTES)
    _get_error_message(code, text, len(text))
    return text.value.decode("ascii", "replace")


def match_context(
    *,
    match_limit: int,
    depth_limit: int,
    heap_limit_kib: int,
    jit_stack_start_bytes: int,
    jit_stack_max_bytes: int,
) -> int:
    """A match context with these limits and a JIT stack of its own; both live as long as the process.

    Where the JIT stack's memory is refused, JIT code runs on 32 KiB of the machine stack. Raises MemoryError.
    """
    context = _checked(_match_context_create(None))
    _set_match_limit(context, match_limit)
    _set_depth_limit(context, depth_limit)
    _set_heap_limit(context, heap_limit_kib)
    stack = _jit_stack_create(jit_stack_start_bytes, jit_stack_max_bytes, None)
    if stack:
        _jit_stack_assign(context, None, stack)
    return context


class Program:
    """A compiled regex with the memory that matching it needs. Frees both when it goes.

    `groups` is the number of capture groups, `jit` tells whether machine code was made of the regex.
    """

    __slots__ = (
        "_code",
        "_code_p",
        "_context_p",
        "_match_data",
        "_match_data_p",
        "_options",
        "_ovector",
        "groups",
        "jit",
    )

    def __init__(self, regex: bytes, options: int, context: int, *, jit: bool = True) -> None:
        """Compiles `regex`, which may hold NUL; newline is LF. Raises CompileError, MemoryError.

        `context` comes from match_context(). With `jit` off, or where executable memory is refused
        (MemoryDenyWriteExecute=), the library interprets: the same answers, several times slower.
        """
        self._code = 0
        self._match_data = 0
        self._code = _compile_code(regex, options)
        self.jit = jit and _jit_compile(self._code, _JIT_COMPLETE) == 0
        self.groups = _capture_count(self._code)
        self._match_data = _checked(_match_data_create_from_pattern(self._code, None))
        self._code_p, self._match_data_p = c_void_p(self._code), c_void_p(self._match_data)
        self._context_p = c_void_p(context)
        self._options = c_uint32(NO_UTF_CHECK if options & UTF else 0)
        # Signed, so that PCRE2_UNSET (all bits set) reads as -1.
        vector = c_ssize_t * (2 * (self.groups + 1))
        self._ovector = ctypes.cast(_get_ovector_pointer(self._match_data), POINTER(vector)).contents

    def match(self, subject: bytes) -> list[int] | None:
        """Start and end of group 0, group 1 and so on, in bytes of `subject`; -1 for one that took no part.

        For a regex with UTF the subject must be valid UTF-8, which is not checked.

        With \\K in a lookahead the start can be after the end. Raises MatchLimitError when the library gives
        up, with its reason; MemoryError when it got no memory.
        """
        # Written out here and twice below: a call more is a fifth of what a search in vain takes.
        code = _match(
            self._code_p,
            subject,
            len(subject),
            _FROM_BEGINNING,
            self._options,
            self._match_data_p,
            self._context_p,
        )
        if code > 0:
            return self._ovector[:]
        if code == _ERROR_NOMATCH:
            return None
        raise _failure(code)

    def match_with(self, subject: bytes, context: int) -> list[int] | None:
        """The same with another match_context(); raises what `match` does."""
        code = _match(
            self._code_p,
            subject,
            len(subject),
            _FROM_BEGINNING,
            self._options,
            self._match_data_p,
            c_void_p(context),
        )
        if code > 0:
            return self._ovector[:]
        if code == _ERROR_NOMATCH:
            return None
        raise _failure(code)

    def find(self, subject: bytes, start: int) -> tuple[int, int] | None:
        """Where the regex first matches from `start` on; raises what `match` does."""
        code = _match(
            self._code_p,
            subject,
            len(subject),
            start,
            self._options,
            self._match_data_p,
            self._context_p,
        )
        if code > 0:
            return self._ovector[0], self._ovector[1]
        if code == _ERROR_NOMATCH:
            return None
        raise _failure(code)

    def __del__(self) -> None:
        # At interpreter exit the functions may be gone already; then so is the memory.
        if self._match_data and _match_data_free is not None:
            _match_data_free(self._match_data)
        if self._code and _code_free is not None:
            _code_free(self._code)


def _compile_code(regex: bytes, options: int) -> int:
    code = c_int()
    offset = c_size_t()
    compiled = _compile(
        regex, len(regex), options, ctypes.byref(code), ctypes.byref(offset), _compile_context()
    )
    if not compiled:
        raise CompileError(error_message(code.value), offset.value)
    return int(compiled)


def _capture_count(code: int) -> int:
    count = c_uint32()
    _pattern_info(code, _INFO_CAPTURECOUNT, ctypes.byref(count))
    return count.value


@cache
def _compile_context() -> int:
    """What every regex is compiled with; newlines, since distributions choose other defaults for them."""
    context = _checked(_compile_context_create(None))
    _set_newline(context, _NEWLINE_LF)
    _set_bsr(context, _BSR_UNICODE)
    _set_compile_extra_options(context, EXTRA_ALLOW_LOOKAROUND_BSK)
    return context


def _checked(pointer: int | None) -> int:
    if not pointer:
        raise MemoryError("libpcre2-8 got no memory")
    return pointer


if version() < OLDEST_VERSION:
    raise ImportError(f"{LIBRARY} is {version()}, expected {OLDEST_VERSION} or later")
