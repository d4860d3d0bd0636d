"""The literals that every match of a PCRE must contain, so that other lines need not be searched. Pure.

A wrong literal would be a lost line. So this reads a regex with less than PCRE's understanding of it:
whatever it does not know for sure is text about which nothing is known, or ends the attempt. What it finds is
only ever used to leave lines out, never to say that one matches.

Source: pcrepattern(3) and pcre2pattern(3). Regexes that do not compile are never given to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_ALTERNATIVES = 64  # literals of which a match must contain one: each costs in the search for them
MAX_PRODUCT = 16  # spellings of one piece of text, as in `(?:un|dis)connect(?:ed|ing)`
MAX_LITERAL_BYTES = 64
MAX_DEPTH = 50  # of groups; deeper ones are not looked into

_BLANKS = frozenset(b" \t\n\x0b\x0c\r")
_ZERO_WIDTH = frozenset(b"bBAzZGK")  # after a backslash
_ONE_UNKNOWN = frozenset(b"dDsSwWhHvVRXN")  # after a backslash: text of which nothing is known
_CONTROL = {ord("a"): 7, ord("e"): 27, ord("f"): 12, ord("n"): 10, ord("r"): 13, ord("t"): 9}
_FLAGS = frozenset(b"imsxUJ")
_REPEATS: dict[bytes, tuple[int, int | None]] = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}
_REPEAT = re.compile(rb"\{([0-9]+)(,?)([0-9]*)\}")
# What one version takes for a repeat, and another for text.
_MAYBE_REPEAT = re.compile(rb"\{[ \t]*[0-9]*[ \t]*,?[ \t]*[0-9]*[ \t]*\}")


_HEXADECIMAL = re.compile(rb"\{([0-9a-fA-F]+)\}|([0-9a-fA-F]{2})")
_POSIX_CLASS = re.compile(rb"\[([:.=])\^?[a-zA-Z]*\1\]")
_LOOK_AROUND = re.compile(rb"\?(?:=|!|<=|<!)")
_GROUP = re.compile(rb"\?(?:[:|>]|P?<\w+>|'\w+')", re.ASCII)
_CALL = re.compile(rb"\?(?:R|[+-]?[0-9]+|&\w+|P>\w+|P=\w+)\)", re.ASCII)
_OPTIONS = re.compile(rb"\?([a-zA-Z]*)(?:-([a-zA-Z]*))?([:)])")
# In a comment \Q would be no quote, and at the beginning of a class it is hard to tell.
_DOUBTFUL_QUOTES = re.compile(rb"\(\?#|\(\?\^?[a-zA-Z]*x|\[\^?\\[QE]")


class _UnsureError(Exception):
    """Something that this does not understand well enough."""


@dataclass(frozen=True, slots=True)
class Literals:
    """A match contains at least one of these.

    Attributes:
        texts: not empty, and none of them is.
        any_case: they are in lower case, and match ASCII letters in either.
    """

    texts: frozenset[bytes]
    any_case: bool = False


def required_literals(regex: bytes) -> list[Literals]:
    """Return what every line that `regex` matches contains: one text of each. Empty: nothing is known."""
    try:
        parser = _Parser(_unquoted(regex))
        found = parser.alternation(depth=0)
    except (_UnsureError, IndexError):
        return []
    return found.wanted() if parser.at_end() else []


# A regex as bytes, each with whether \Q made it literal.
_Text = list[tuple[int, bool]]


def _unquoted(regex: bytes) -> _Text:
    """Take \\Q and \\E out."""
    text: _Text = []
    quotes = quoting = False
    position = 0
    while position < len(regex):
        pair = regex[position : position + 2]
        if quoting:
            if pair == rb"\E":
                quoting = False
                position += 2
                continue
            text.append((regex[position], True))
            position += 1
        elif pair == rb"\Q":
            quotes = quoting = True
            position += 2
        elif pair == rb"\E":
            quotes = True
            position += 2
        elif pair[:1] == b"\\":
            text.extend((byte, False) for byte in pair)
            position += 2
        else:
            text.append((regex[position], False))
            position += 1
    if quotes and _DOUBTFUL_QUOTES.search(regex):
        raise _UnsureError
    return text


@dataclass(slots=True)
class _Piece:
    """What is known of the text that a part of a regex matches.

    Attributes:
        exact: all texts that it can match, None when they are not known.
        literals: each of these is required.
    """

    exact: frozenset[bytes] | None
    any_case: bool = False  # of `exact`
    literals: list[Literals] = field(default_factory=list)

    def wanted(self) -> list[Literals]:
        """Give all that is required."""
        if self.exact is None or b"" in self.exact or len(self.exact) > MAX_ALTERNATIVES:
            return self.literals
        return [*self.literals, Literals(self.exact, self.any_case)]


_NOTHING_KNOWN = _Piece(None)
_ZERO = _Piece(frozenset((b"",)))


class _Sequence:
    """Pieces one after the other."""

    def __init__(self) -> None:
        self._run: frozenset[bytes] = frozenset((b"",))  # all texts since the last piece that is not known
        self._any_case = False
        self._literals: list[Literals] = []
        self._is_exact = True

    def add(self, piece: _Piece) -> None:
        exact = piece.exact
        if exact is not None and not self._append(exact, piece.any_case):
            self._cut()
            self._is_exact = False
            self._append(exact, piece.any_case)
        elif exact is None:
            self._cut()
            self._is_exact = False
            self._literals += piece.literals

    def _append(self, exact: frozenset[bytes], any_case: bool) -> bool:
        if exact == {b""}:
            return True
        if any_case != self._any_case:
            # Text without letters is the same in either.
            if _has_letters(self._run) and _has_letters(exact):
                return False
            any_case = any_case if _has_letters(exact) else self._any_case
        if len(self._run) * len(exact) > MAX_PRODUCT and self._run != {b""}:
            return False
        run = frozenset(before + after for before in self._run for after in exact)
        if len(run) > MAX_ALTERNATIVES or max(map(len, run)) > MAX_LITERAL_BYTES:
            return False
        self._run, self._any_case = run, any_case
        return True

    def _cut(self) -> None:
        """What comes next need not follow at once."""
        if b"" not in self._run:
            self._literals.append(Literals(self._run, self._any_case))
        self._run, self._any_case = frozenset((b"",)), False

    def whole(self) -> _Piece:
        if self._is_exact:
            return _Piece(self._run, self._any_case)
        self._cut()
        return _Piece(None, literals=self._literals)


def _has_letters(texts: Iterable[bytes]) -> bool:
    return any(text.lower() != text.upper() for text in texts)


def _either(branches: list[_Piece]) -> _Piece:
    """Any one of the branches of an alternation."""
    if len(branches) == 1:
        return branches[0]
    any_case = any(branch.any_case for branch in branches)
    if all(branch.exact is not None for branch in branches):
        cases = {branch.any_case for branch in branches if _has_letters(branch.exact or ())}
        texts = frozenset().union(*(branch.exact or () for branch in branches))
        if len(cases) <= 1 and len(texts) <= MAX_ALTERNATIVES:
            return _Piece(texts, any_case and cases == {True})
    wanted = [branch.wanted() for branch in branches]
    if not all(wanted):
        return _NOTHING_KNOWN
    # Of each branch the longest will do: which is the rarest is not known in here.
    chosen = [max(literals, key=lambda one: min(map(len, one.texts))) for literals in wanted]
    if any(one.any_case for one in chosen):
        texts = frozenset(text.lower() for one in chosen for text in one.texts)
    else:
        texts = frozenset().union(*(one.texts for one in chosen))
    if len(texts) > MAX_ALTERNATIVES:
        return _NOTHING_KNOWN
    return _Piece(None, literals=[Literals(texts, any(one.any_case for one in chosen))])


class _Parser:
    """Reads a regex from left to right, once."""

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._at = 0
        self._any_case = False
        self._extended = False

    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def alternation(self, depth: int) -> _Piece:
        """Read up to the end, or up to the `)` that closes this group."""
        if depth > MAX_DEPTH:
            raise _UnsureError
        flags = self._any_case, self._extended
        branches = []
        sequence = _Sequence()
        while not self.at_end() and not self._sees(b")"):
            if self._sees(b"|"):
                self._at += 1
                branches.append(sequence.whole())
                sequence = _Sequence()
            elif not self._skip_ignored():
                sequence.add(self._repeated(self._atom(depth)))
        branches.append(sequence.whole())
        self._any_case, self._extended = flags  # options that were set in here end here
        return _either(branches)

    # The text.

    def _sees(self, text: bytes) -> bool:
        """Whether this comes next, and has its special meaning."""
        following = self._text[self._at : self._at + len(text)]
        return following == [(byte, False) for byte in text]

    def _take(self) -> int:
        byte, _ = self._text[self._at]
        self._at += 1
        return byte

    def _skip_past(self, end: bytes) -> None:
        while not self._sees(end):
            self._take()
        self._at += len(end)

    def _plain_rest(self) -> bytes:
        """What follows, up to the next quoted text."""
        rest = bytearray()
        for byte, quoted in self._text[self._at : self._at + 100]:
            if quoted:
                break
            rest.append(byte)
        return bytes(rest)

    def _skip_ignored(self) -> bool:
        """Skip one comment, or blank where blanks do not count."""
        if self._sees(b"(?#"):
            self._skip_past(b")")
            return True
        byte, quoted = self._text[self._at]
        if not self._extended or quoted:
            return False
        if byte == 0x85:  # blank to one engine
            raise _UnsureError
        if byte in _BLANKS:
            self._at += 1
            return True
        if byte == ord("#"):
            while not self.at_end() and self._take() != ord("\n"):
                pass
            return True
        return False

    # Pieces.

    def _repeated(self, piece: _Piece) -> _Piece:
        """Read the quantifier behind a piece, if there is one."""
        while not self.at_end() and self._skip_ignored():
            pass
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return piece
        if least == 0:
            return _NOTHING_KNOWN if piece is not _ZERO else _ZERO
        return _Piece(None, literals=piece.wanted())

    def _quantifier(self) -> tuple[int, int | None]:
        sign = next((sign for sign in _REPEATS if self._sees(sign)), b"")
        if sign:
            self._at += 1
            found = _REPEATS[sign]
        else:
            if not self._sees(b"{"):
                return 1, 1
            rest = self._plain_rest()
            braces = _REPEAT.match(rest)
            if braces is None:
                if _MAYBE_REPEAT.match(rest):
                    raise _UnsureError
                return 1, 1  # a brace is only a brace
            self._at += braces.end()
            least = int(braces[1])
            most = (int(braces[3]) if braces[3] else None) if braces[2] else least
            found = least, most
        if self._sees(b"+") or self._sees(b"?"):  # possessive, lazy
            self._at += 1
        if self._extended and not self.at_end() and self._text[self._at][0] in b"+?*{ \t\n":
            while not self.at_end() and self._skip_ignored():
                pass
            if any(map(self._sees, (b"+", b"?", b"*", b"{"))):
                raise _UnsureError  # to one engine this still belongs to the quantifier
        return found

    def _atom(self, depth: int) -> _Piece:
        byte, quoted = self._text[self._at]
        if quoted:
            self._at += 1
            return self._literal(byte)
        if byte == ord("("):
            return self._group(depth)
        self._at += 1
        if byte == ord("\\"):
            return self._escape()
        if byte == ord("["):
            return self._class()
        if byte in b"^$":
            return _ZERO
        if byte == ord("."):
            return _NOTHING_KNOWN
        if byte in b"*+?":  # of nothing
            raise _UnsureError
        return self._literal(byte)

    def _literal(self, byte: int) -> _Piece:
        text = bytes((byte,))
        if not self._any_case:
            return _Piece(frozenset((text,)))
        if byte >= 0x80:  # folded as Latin-1
            return _NOTHING_KNOWN
        return _Piece(frozenset((text.lower(),)), text.isalpha())

    def _escape(self) -> _Piece:
        byte, quoted = self._text[self._at]
        self._at += 1
        if quoted:
            raise _UnsureError
        if byte in _ZERO_WIDTH:
            return _ZERO
        if byte in _ONE_UNKNOWN:
            if byte == ord("N") and self._sees(b"{"):
                raise _UnsureError
            return _NOTHING_KNOWN
        if byte in b"pP":
            if self._sees(b"{"):
                self._skip_past(b"}")
            else:
                self._take()
            return _NOTHING_KNOWN
        if byte in _CONTROL:
            return self._literal(_CONTROL[byte])
        if byte == ord("x"):
            return self._hexadecimal()
        if chr(byte).isdigit() and byte < 0x80:  # a group, or an octal number
            while not self.at_end() and self._text[self._at][0] in b"0123456789":
                self._take()
            return _NOTHING_KNOWN
        if byte < 0x80 and not chr(byte).isalnum():
            return self._literal(byte)
        if byte in b"gk":
            return self._reference()
        raise _UnsureError

    def _hexadecimal(self) -> _Piece:
        digits = _HEXADECIMAL.match(self._plain_rest())
        if digits is None:
            raise _UnsureError
        self._at += digits.end()
        number = int(digits[1] or digits[2], 16)
        return self._literal(number) if number < 0x80 else _NOTHING_KNOWN

    def _reference(self) -> _Piece:
        for opening, closing in ((b"{", b"}"), (b"<", b">"), (b"'", b"'")):
            if self._sees(opening):
                self._at += 1
                self._skip_past(closing)
                return _NOTHING_KNOWN
        raise _UnsureError

    def _class(self) -> _Piece:
        """Read a class up to its end; which characters are in it is not looked at."""
        if self._sees(b"^"):
            self._at += 1
        if self._sees(b"]"):
            self._at += 1
        while not self._sees(b"]"):
            if self._sees(b"[:") or self._sees(b"[.") or self._sees(b"[="):
                posix = _POSIX_CLASS.match(self._plain_rest())
                if posix is None:
                    raise _UnsureError  # to one engine it may be the beginning of something
                self._at += posix.end()
                continue
            if self._sees(b"\\"):
                self._at += 1
                if self._text[self._at][0] == ord("c"):
                    raise _UnsureError
            self._take()
        self._at += 1
        return _NOTHING_KNOWN

    def _group(self, depth: int) -> _Piece:
        self._at += 1
        if self._sees(b"*"):  # a verb: (*ACCEPT) ends a match before what follows
            raise _UnsureError
        if not self._sees(b"?"):
            return self._inside(depth)
        rest = self._plain_rest()
        if found := _LOOK_AROUND.match(rest):
            self._at += found.end()
            self._inside(depth)  # nothing of it is in the match, or it must not be there
            return _ZERO
        if found := _GROUP.match(rest):
            self._at += found.end()
            return self._inside(depth)
        if found := _CALL.match(rest):
            self._at += found.end()
            return _NOTHING_KNOWN
        return self._options(depth)

    def _inside(self, depth: int) -> _Piece:
        piece = self.alternation(depth + 1)
        if not self._sees(b")"):
            raise _UnsureError
        self._at += 1
        return piece

    def _options(self, depth: int) -> _Piece:
        found = _OPTIONS.match(self._plain_rest())
        if found is None or not {*found[1], *(found[2] or b"")} <= _FLAGS:
            raise _UnsureError
        self._at += found.end()
        before = self._any_case, self._extended
        self._any_case = (self._any_case or ord("i") in found[1]) and ord("i") not in (found[2] or b"")
        self._extended = (self._extended or ord("x") in found[1]) and ord("x") not in (found[2] or b"")
        if found[3] == b")":
            return _ZERO  # for the rest of the group that this stands in
        piece = self._inside(depth)
        self._any_case, self._extended = before
        return piece
