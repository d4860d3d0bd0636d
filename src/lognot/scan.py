"""Many patterns over one block of lines: which item matches which line, where.

The monitor runs it on what strangers write into logs, so nothing in a line may stop a scan: a search that
PCRE gave up comes out as a Failure among the hits, and the scan goes on.

Every pattern is tried on every line, in the order of lines and, within a line, of items. A scanner that first
looks for the literals that a match must contain can take this one's place: the same results, sooner.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lognot.errors import MatchLimitError
from lognot.pattern import Pattern, Spans

# Called with the item's key and the line's offset in the block, around a search. Entering gives False when
# this item must be skipped on this line.
Guard = Callable[[int, int], AbstractContextManager[bool]]


@dataclass(frozen=True, slots=True)
class Hit:
    """An item's pattern matches a line."""

    start: int  # offset of the line in the block, in bytes
    line: bytes  # without its newline, "\n" or "\r\n"
    key: int  # of the item
    spans: Spans  # in bytes of the line: group 0, 1, …; (-1, -1) for a group that took no part


@dataclass(frozen=True, slots=True)
class Failure:
    """PCRE gave up an item's pattern on a line, which counts as not matching."""

    start: int  # offset of the line in the block, in bytes
    line: bytes  # without its newline, "\n" or "\r\n"
    key: int  # of the item
    error: MatchLimitError


class Scanner:
    """The patterns of all items of one file."""

    def __init__(
        self,
        patterns: Sequence[tuple[int, Pattern]],
        long_line_bytes: int = 0,
        guard: Guard | None = None,
    ) -> None:
        """`patterns` are (key, pattern), in the order of items.

        Searches of lines longer than `long_line_bytes` run inside `guard`: PCRE's own limits do not bound the
        time of a search, which can grow with the square of the line's length. The attribute may be changed
        between scans.
        """
        self.long_line_bytes = long_line_bytes
        self._searches = tuple((key, pattern.search) for key, pattern in patterns)
        self._guard = guard

    def scan(self, block: bytes) -> Iterator[Hit | Failure]:
        """Hits and failures in `block`, complete lines that each end in a newline, by line, then by item.

        Raises ValueError when the last line is unfinished, before anything is searched.
        """
        lines = block.split(b"\n")
        if lines.pop():
            raise ValueError("the block's last line has no newline")
        return self._scan(lines)

    def _scan(self, lines: list[bytes]) -> Iterator[Hit | Failure]:
        searches = self._searches
        # Without a guard there is nothing to be done about a long line.
        long_line_bytes = self.long_line_bytes if self._guard else sys.maxsize
        start = 0
        for raw in lines:
            line = raw[:-1] if raw.endswith(b"\r") else raw
            if len(line) > long_line_bytes:
                yield from self._scan_guarded(line, start)
            else:
                for key, search in searches:
                    try:
                        spans = search(line)
                    except MatchLimitError as error:
                        yield Failure(start, line, key, error)
                        continue
                    if spans is not None:
                        yield Hit(start, line, key, spans)
            start += len(raw) + 1

    def _scan_guarded(self, line: bytes, start: int) -> Iterator[Hit | Failure]:
        assert self._guard is not None
        for key, search in self._searches:
            spans = None
            try:
                with self._guard(key, start) as allowed:
                    if allowed:
                        spans = search(line)
            except MatchLimitError as error:
                yield Failure(start, line, key, error)
                continue
            # Outside of the guard: what the caller does with a hit is not part of the search.
            if spans is not None:
                yield Hit(start, line, key, spans)
