"""Foreign text made fit for one line of an error message, and how numbers are said there. Pure.

A config may come from anywhere (a template, a pasted web page, the wrong file), and what `--test` prints ends
up on a terminal: what is quoted from it is escaped and cut.

The escapes are for reading, not for decoding: a backslash stays as it is, so that regexes and paths look as
they are written. Whoever types `\\x1b` into a log is shown as one who has typed an escape character.
"""

from __future__ import annotations

SHOWN_CHARACTERS = 60  # enough to find the place again; the line number does the rest


def shown(text: str) -> str:
    """Return `text` in single quotes, as `escaped` leaves it."""
    return f"'{escaped(text)}'"


def escaped(text: str) -> str:
    """Return at most SHOWN_CHARACTERS of `text`, without anything that a terminal acts on.

    What Python does not call printable is escaped: control characters, invisible and right-to-left marks as
    `\\n`, `\\x1b`, `\\u202e`; a byte that was no UTF-8 (a surrogate of "surrogateescape") as `\\xff`.
    """
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
    return printable(cut)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def printable(text: str | bytes) -> str:
    """Return all of `text` as one line that no terminal acts on, for our own log.

    Bytes are taken as UTF-8; what is none is shown as `\\xff`.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def counted(number: int, what: str) -> str:
    """Say how many there are of `what`, a noun in the singular."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def were(number: int) -> str:
    """Say "was" of one, "were" of any other number."""
    return "was" if number == 1 else "were"
