"""What one action prints, as lines for our own log; so much of it, and the rest is counted. Pure.

An action may print without end, a line without end, or nothing but newlines. At most MAX_OUTPUT_BYTES of it
are told, and at most MAX_QUOTE_BYTES wait for the end of their line. Used by the executor.
"""

from __future__ import annotations

from collections.abc import Callable

from lognot.messages import MAX_QUOTE_BYTES

MAX_OUTPUT_BYTES = 64 * 1024  # of one action that reach the log
LINE_COST_BYTES = 64  # at least, of a line in there: many short lines are as much of a flood

Tell = Callable[[bytes], bool]  # takes a line of at most MAX_QUOTE_BYTES; False: cannot, and it is left out


class Output:
    """One action's output.

    Lines are told without their newline, one over MAX_QUOTE_BYTES in pieces, and an empty one not at all.

    Attributes:
        cut_bytes: how many bytes were left out, newlines not counted.
    """

    __slots__ = ("_line", "_told_bytes", "cut_bytes")

    def __init__(self) -> None:
        self.cut_bytes = 0
        self._line = b""  # not finished yet
        self._told_bytes = 0  # a short line counted as LINE_COST_BYTES

    def add(self, data: bytes, tell: Tell) -> None:
        """Take what was printed next, and tell the lines that it completes."""
        if self.cut_bytes:  # nothing more of it is told, however much it is
            self.cut_bytes += len(self._line) + len(data) - data.count(b"\n")
            self._line = b""
            return
        if not self._line and not data.strip(b"\n"):  # empty lines are not told, and there may be millions
            return
        *lines, self._line = (self._line + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in filter(None, lines):
            self._tell(line, tell)
        if len(self._line) > MAX_QUOTE_BYTES:
            self._tell_unfinished(tell)

    def end(self, tell: Tell) -> None:
        """Tell what is left: nothing comes any more that would complete it."""
        if self._line:
            self._tell_unfinished(tell)

    def _tell_unfinished(self, tell: Tell) -> None:
        line, self._line = self._line, b""
        self._tell(line, tell)

    def _tell(self, line: bytes, tell: Tell) -> None:
        line = line.removesuffix(b"\r")
        for at in range(0, len(line), MAX_QUOTE_BYTES):
            piece = line[at : at + MAX_QUOTE_BYTES]
            if self._told_bytes + len(piece) > MAX_OUTPUT_BYTES or not tell(piece):
                self.cut_bytes += len(line) - at
                return
            self._told_bytes += max(len(piece), LINE_COST_BYTES)
