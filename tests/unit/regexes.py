"""Random PCREs over the whole syntax, each with lines that match it, nearly match it, or do neither.

A regex is made together with a text that it is meant to match. Most do; whether one does is for PCRE to say.
The alphabet is small, so that pieces meet and near misses are near.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

WORDS = (
    b"Failed",
    b"error",
    b"from",
    b"ab",
    b"aab",
    b"ba",
    b"A",
    b"id=",
    b"[x]",
    b"a.b",
    b"\xe9t\xe9",
    b"  ",
    b"k9",
)
LETTERS = b"abAB 19.[]-_=\xe9\xc9"
CLASSES: tuple[tuple[bytes, bytes], ...] = (
    (b"[ab]", b"ab"),
    (b"[^ab]", b"19 ."),
    (b"[]a]", b"]a"),
    (b"[^]a]", b"b1"),
    (b"[a-c1-9]", b"abc19"),
    (b"[[:alpha:]]", b"abAB"),
    (b"[[:digit:].]", b"19."),
    (b"[^[:space:]]", b"aB1"),
    (rb"[\]\-\[]", b"]-["),
    (rb"[\Qa]\E]", b"a]"),
    (rb"[\x41\d]", b"A19"),
    (b"[a(b)|*]", b"a(b)|*"),
    (b"[#a]", b"#a"),
    (b".", LETTERS),
    (rb"\d", b"19"),
    (rb"\D", b"aB."),
    (rb"\w", b"aB1_"),
    (rb"\W", b" .-"),
    (rb"\s", b" "),
    (rb"\S", b"aB1"),
    (rb"\h", b" "),
    (rb"\H", b"ab"),
    (rb"\N", b"ab1"),
    (rb"\p{L}", b"aB"),
    (rb"\PL", b"19 "),
    (rb"\p{^Lu}", b"a1"),
    (rb"\X", b"ab1"),
)
ZERO_WIDTH = (
    rb"\b",
    rb"\B",
    b"^",
    b"$",
    rb"\A",
    rb"\z",
    rb"\Z",
    rb"\K",
    b"(?#note)",
    b"(?=)",
    b"(?m)",
    b"(?s)",
)
QUANTIFIERS = (
    (b"?", 0, 1),
    (b"*", 0, 3),
    (b"+", 1, 3),
    (b"{0}", 0, 0),
    (b"{1}", 1, 1),
    (b"{2}", 2, 2),
    (b"{0,2}", 0, 2),
    (b"{1,}", 1, 3),
    (b"{2,3}", 2, 3),
    (b"{0,}", 0, 2),
)
SPECIAL = b"\\^$.[]|()?*+{}#"

Piece = tuple[bytes, bytes]  # a part of a regex, and a text that it may match


class Regexes:
    """Makes regexes with the choices of one random generator."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.groups = 0
        self.texts: list[bytes] = []  # what the groups were meant to match

    def piece(self, depth: int) -> Piece:
        """A sequence of a few atoms, perhaps in an alternation."""
        branches = []
        for _ in range(self.random.choices((1, 2, 3), (7, 2, 1))[0]):
            atoms = [self.repeated(depth) for _ in range(self.random.randint(1 if depth else 2, 4))]
            if self.random.random() < 0.05:
                atoms = []
            branches.append((b"".join(a for a, _ in atoms), b"".join(t for _, t in atoms)))
        chosen = self.random.choice(branches)
        return b"|".join(regex for regex, _ in branches), chosen[1]

    def repeated(self, depth: int) -> Piece:
        regex, text = self.atom(depth)
        if self.random.random() < 0.75 or regex in ZERO_WIDTH or regex.startswith((b"(?(", rb"\Q")):
            return regex, text
        sign, least, most = self.random.choice(QUANTIFIERS)
        suffix = self.random.choice((b"", b"", b"?", b"+"))
        if len(regex) > 1 and not regex.startswith((b"(", b"[", b"\\")):
            text = regex_text = text  # a word: the quantifier is its last character's
            last = regex_text[-1:]
            count = self.random.randint(least, most)
            return regex + sign + suffix, regex_text[:-1] + last * count
        return regex + sign + suffix, text * self.random.randint(least, most)

    def atom(self, depth: int) -> Piece:
        kinds: list[tuple[int, Callable[[int], Piece]]] = [
            (6, self.word),
            (3, self.letter),
            (3, self.of_class),
            (1, self.zero_width),
            (1, self.quoted),
            (1, self.hexadecimal),
        ]
        if depth < 4:
            kinds += [(4, self.group), (1, self.look_around), (1, self.conditional), (1, self.back_reference)]
        makers, weights = [kind for _, kind in kinds], [weight for weight, _ in kinds]
        return self.random.choices(makers, weights)[0](depth)

    def word(self, depth: int) -> Piece:
        word = self.random.choice(WORDS)
        return b"".join(escaped(byte) for byte in word), word

    def letter(self, depth: int) -> Piece:
        byte = self.random.choice(LETTERS)
        return escaped(byte), bytes((byte,))

    def of_class(self, depth: int) -> Piece:
        regex, members = self.random.choice(CLASSES)
        return regex, bytes((self.random.choice(members),))

    def zero_width(self, depth: int) -> Piece:
        return self.random.choice(ZERO_WIDTH), b""

    def quoted(self, depth: int) -> Piece:
        word = self.random.choice(WORDS) + self.random.choice((b"", b"*", b"(", b"|a", b"{2}", b"]", b" #"))
        return rb"\Q" + word + rb"\E", word

    def hexadecimal(self, depth: int) -> Piece:
        byte = self.random.choice(b"aB1=\xe9")
        form = self.random.choice((b"\\x%02x", b"\\x{%x}", b"\\x{0%x}"))
        return form % byte, bytes((byte,))

    def group(self, depth: int) -> Piece:
        regex, text = self.piece(depth + 1)
        opening = self.random.choice(
            (
                b"(",
                b"(",
                b"(?:",
                b"(?:",
                b"(?>",
                b"(?i:",
                b"(?-i:",
                b"(?x:",
                b"(?|",
                b"(?i)",
                b"(?s-i:",
                b"(?<n>",
            )
        )
        if opening == b"(?<n>":
            opening = b"(?<n%d>" % self.groups
        if opening == b"(?i)":
            return b"(?:(?i)" + regex + b")", self.other_case(text)
        if opening.startswith(b"(?i"):
            text = self.other_case(text)
        if opening == b"(?x:":
            regex = self.random.choice((b" ", b"")) + regex + self.random.choice((b" ", b" # note )\n", b""))
        if opening == b"(" or opening.startswith(b"(?<"):
            self.groups += 1
            self.texts.append(text)
        return opening + regex + b")", text

    def other_case(self, text: bytes) -> bytes:
        return self.random.choice((text.upper(), text.lower(), text.swapcase(), text))

    def look_around(self, depth: int) -> Piece:
        regex, text = self.piece(depth + 2) if self.random.random() < 0.5 else self.word(depth)
        kind = self.random.choice((b"(?=", b"(?!", b"(?=", b"(?<!", b"(?<="))
        if kind.startswith(b"(?<"):
            regex, text = self.word(depth)
        follows = kind == b"(?=" and self.random.random() < 0.7
        return kind + regex + b")" + (regex if follows else b""), text if follows else b""

    def conditional(self, depth: int) -> Piece:
        yes, text = self.word(depth)
        no, other = self.letter(depth)
        condition = self.random.choice((b"(?=%s)" % yes, b"(?!%s)" % yes, b"(%d)" % max(1, self.groups)))
        return b"(?" + condition + yes + b"|" + no + b")", self.random.choice((text, other))

    def back_reference(self, depth: int) -> Piece:
        if not self.groups:
            return self.letter(depth)
        number = self.random.randint(1, self.groups)
        # A call from within a group would call itself, and run until PCRE gives up.
        form = self.random.choice((b"\\%d", b"\\g{%d}", b"(?%d)" if depth == 0 else b"\\%d"))
        return form % number, self.texts[number - 1]


def escaped(byte: int) -> bytes:
    text = bytes((byte,))
    return b"\\" + text if byte in SPECIAL else text


def make_case(random: Random) -> tuple[bytes, list[bytes]]:
    """Give a regex, which may not compile, and lines to try it on."""
    maker = Regexes(random)
    regex, text = maker.piece(0)
    if random.random() < 0.15:
        regex = random.choice((b"(?i)", b"(?x)", b"(?i)(?x)", b"(?ix)", b"(*ANYCRLF)", b"(?J)")) + regex
        text = maker.other_case(text)
    if random.random() < 0.05:
        regex += random.choice(
            (b"(*ACCEPT)", b"(*COMMIT)", b"(*PRUNE)", b"(*SKIP)", b"(*F)", b"(?=a)(*THEN)")
        )
        regex += escaped(random.choice(LETTERS))
    if random.random() < 0.1:
        regex = random.choice((b"a{,2}", b"a{x}", b"{1}", b"a{1", b"}", b"]")) + regex
    lines = [text, *(near(text, random) for _ in range(5))]
    padding = bytes(random.choice(LETTERS) for _ in range(random.randint(0, 5)))
    lines.append(padding + text + random.choice(WORDS))
    return regex, [line.replace(b"\n", b" ").replace(b"\r", b" ") for line in lines]


def near(text: bytes, random: Random) -> bytes:
    """A text with one thing changed."""
    at = random.randrange(len(text) + 1)
    match random.randrange(5):
        case 0:
            return text[:at] + text[at + 1 :]
        case 1:
            return text[:at] + bytes((random.choice(LETTERS),)) + text[at:]
        case 2:
            return text[:at] + bytes((random.choice(LETTERS),)) + text[at + 1 :]
        case 3:
            return text[:at] + text[at:].swapcase()
        case _:
            return text[at:]
