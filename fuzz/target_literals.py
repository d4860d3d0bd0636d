"""A regex and a line: whatever the parser says of the regex is in the line, if that matches."""

from __future__ import annotations

from lognot.errors import MatchLimitError, PatternError
from lognot.literals import required_literals
from lognot.pattern import compile_pattern

SEEDS = [
    rb"Failed (?:password|key) for .* from (\S+)" + b"\0Failed key for bob from 1.2.3.4",
    rb"(?i)err(or)?\b|\Qa.b\E\0an Error",
    rb"^\[\d+\] [^a-f]{2,3}(?=x)\0[12] zzx",
    rb"(?x) a b # c" + b"\n d\0abd",
    rb"a\x2eb\x{2f}\K(?<n>abc)\1(?#no)\0a.b/abcabc",
]
MAX_LINE_BYTES = 200  # a search takes what the line is long, at worst to some power


def check(data: bytes) -> None:
    """The last zero byte divides the regex from the line."""
    regex, _, line = data.rpartition(b"\0")
    line = line[:MAX_LINE_BYTES]
    found = required_literals(regex)
    try:
        spans = compile_pattern(regex, "pcre2").search(line)
    except (PatternError, MatchLimitError):
        return
    if spans is None:
        return
    for literals in found:
        held = line.lower() if literals.any_case else line
        assert any(text in held for text in literals.texts), (regex, line, literals)
