"""Which regexes are taken, and how they are put in words that mean the same to both engines. Pure.

python-pcre (PCRE 8) compiles every regex in UTF-8 mode, each byte as the Latin-1 character of that number.
The same is done for libpcre2-8, so that one byte is one character on both: `.` is one byte; `\\xe9` and
`\\x{e9}` are the byte 0xe9; (?i) folds 0xe9 and 0xc9 as Latin-1 does; \\p{L}, \\h, \\v and \\R know the bytes
from 0x80 on as Latin-1, while \\w, \\d, \\s and \\b, [[:alpha:]] and the like know ASCII only.

Refused on both engines, since one of them would answer differently: \\C; an unknown escape such as \\y; \\c
before anything but printable ASCII; a NUL byte between \\Q and \\E; at the start of the regex (*UTF), (*UCP),
(*LIMIT_...), (*NO_JIT), (*NOTEMPTY) and (*NUL), which change the character set, the limits or what one engine
alone knows, and (*ANY), with which the JIT code of both gives `(?!$)` a wrong span.

What cannot be made to agree:

- Either engine refuses some regexes that the other takes. PCRE 8: `(?^)`, `(?n)`, `(*atomic:...)`,
  `\\N{U+e9}`, `\\p{Alphabetic}`. PCRE2: `[\\d-z]`, `[\\B]`, and `\\8` where there is no group 8. Words and
  offsets of messages differ a little. PCRE2 takes more for syntax as it grows: before 10.43, `a{,3}` is
  literal text.
- A subroutine call, `(?1)` or `(?R)`, is atomic in PCRE 8; PCRE2 can backtrack into it (pcre2compat(3)).
- (*ACCEPT) inside of a repeated group.
- A search that one engine gives up may be finished by the other: they count different things, and they know
  different reasons why a line cannot match at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lognot.errors import PatternError

# What both engines are told ahead of the regex of the user.
_PREFIX = b"(*LF)(*BSR_UNICODE)"

_START_OPTION = re.compile(rb"\(\*([A-Z_0-9]+)(?:=[0-9]*)?\)")
_START_OPTIONS_REFUSED = frozenset(
    b"UTF UTF8 UTF16 UTF32 UCP ANY NUL NO_JIT NOTEMPTY NOTEMPTY_ATSTART "
    b"LIMIT_MATCH LIMIT_RECURSION LIMIT_DEPTH LIMIT_HEAP".split()
)

# Quoted text, an escape, or a byte that has to be written as an escape.
_TOKEN = re.compile(rb"\\Q(?:.*?)(?:\\E|\Z)|\\c.?|\\.|[\x00\x85]", re.DOTALL)
# A NUL would end the regex for python-pcre, and 0x85 (U+0085, or a part of "Å" in UTF-8) is white space that
# (?x) leaves out for PCRE2 alone. As escapes they mean the same byte to both.
_ESCAPED = {b"\x00": rb"\x00", b"\x85": rb"\x85"}
# Letters that PCRE 8 takes literally after a backslash and PCRE2 refuses.
_UNKNOWN_ESCAPES = frozenset(b"FIJMOTYijmqy")

_CALL = re.compile(rb"\(\?(?:R|&|P>|[+-]?[0-9])|\\g[<']")


@dataclass(frozen=True, slots=True)
class Translation:
    """A regex in words that mean the same to both engines.

    Attributes:
        text: UTF-8, for an engine to compile as such: each byte of the regex is the Latin-1 character of that
            number. No limits are in it; an engine may be given more ahead of it.
        origins: where in the regex each character of the text comes from, behind what both engines are told
            ahead of it; the last one is the end.
    """

    text: bytes
    origins: tuple[int, ...]

    def offset_in_regex(self, offset: int) -> int:
        """Give the offset in bytes of the user's regex for an engine's, which is in bytes of the text.

        Whatever the engine says, it is from 0 to the regex's length.
        """
        characters = len(self.text[: max(offset, 0)].decode("utf-8", "ignore")) - len(_PREFIX)
        return self.origins[min(max(characters, 0), len(self.origins) - 1)]


def translate(regex: bytes) -> Translation:
    """Put a regex, as the user wrote it, in words that mean the same to both engines.

    It need not compile: whatever is not known here is left as it is, for the engine to judge. Raises
    PatternError, with what is wrong and its offset in bytes of `regex`, for what has no such words.
    """
    _refuse_start_options(regex)
    text = bytearray(_PREFIX)
    origins: list[int] = []
    copied = 0
    for found in _TOKEN.finditer(regex):
        token = found[0]
        _refuse_token(token, found.start())
        special = token[-1:] if token[:2] != rb"\Q" else b""
        if special in _ESCAPED:
            text += regex[copied : found.start()] + _ESCAPED[special]
            origins += range(copied, found.start())
            origins += [found.start()] * len(_ESCAPED[special])
            copied = found.end()
    text += regex[copied:]
    origins += range(copied, len(regex) + 1)
    return Translation(text.decode("latin-1").encode(), tuple(origins))


def calls_groups(regex: bytes) -> bool:
    """Say whether a regex calls its own groups like subroutines, or may: any bytes are taken.

    A call that matches nothing can go on calling, with JIT for a second on a line of four bytes. A look-alike
    in a class costs a guard, nothing else.
    """
    return _CALL.search(regex) is not None


def _refuse_start_options(regex: bytes) -> None:
    position = 0
    while found := _START_OPTION.match(regex, position):
        if found[1] in _START_OPTIONS_REFUSED:
            raise PatternError(f"(*{found[1].decode()}) is not allowed here, at offset {position}")
        position = found.end()


def _refuse_token(token: bytes, offset: int) -> None:
    if token[:2] == rb"\Q":
        if b"\x00" in token:
            raise PatternError(
                rf"a NUL byte between \Q and \E at offset {offset}: write \x00 outside of them"
            )
    elif token[:2] == rb"\c":
        if not b" " <= token[2:] <= b"~":
            raise PatternError(rf"\c must be followed by a printable ASCII character, at offset {offset}")
    elif token == rb"\C":
        raise PatternError(
            rf"\C is not allowed at offset {offset}: one byte is one character here, use (?s:.)"
        )
    elif token[:1] == b"\\" and token[1] in _UNKNOWN_ESCAPES:
        raise PatternError(f"unrecognized character follows \\ at offset {offset + 1}")
