"""Many patterns over one block of lines: which item matches which line, where.

The monitor runs it on what strangers write into logs, so nothing in a line may stop a scan: a search that
PCRE gave up comes out as a Failure among the hits, and the scan goes on.

Hits come in the order of lines and, within a line, of items. PCRE alone says what matches; but a pattern is
only tried on lines that hold a literal that its matches must contain, which one scan finds for all patterns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from lognot.budget import FAILED_NS, FREE_NS, TINY_LINE_BYTES, Budget, Rein, excess_ns
from lognot.errors import MatchLimitError, PatternError
from lognot.literals import required_literals
from lognot.pattern import SHORT_LINE_BYTES, Pattern, Spans, compile_find
from lognot.prefilter import Items, Prefilter, choose_literals

# Where most lines hold an item's literal, its pattern is tried on all of them for the next blocks: finding
# one takes 1.2 us, searching one in vain less than that. Half the time of a flood.
FLOOD_SHARE = 0.7  # of all lines
FLOOD_BYTES = 16 * 1024  # a smaller block shows no flood
FLOOD_LINE_BYTES = 400  # nor does one with more bytes for each line found
# How much is searched so before it is asked again. Bytes and not blocks: whoever writes small ones, and
# changes the flood, could have us compile the search for the others again and again.
FLOOD_LASTS_BYTES = 4 * 1024 * 1024

# Once a search took so much too long, each one's CPU time is measured for so many bytes (1 us a search). The
# clock that says so also counts while others have the processor, and costs a fourth of it.
SUSPECT_NS = 500_000
MEASURE_BYTES = 1024 * 1024

# Searches of tiny lines are timed together, those of a stride: a look at the clock costs a tenth of one. Of
# as many lines as fit, the slowest regex that meets no limit takes 20 ms. Where they took longer than common
# ones do, each of some more is measured; where that tells of one that took too long, so many more that
# measuring costs no more than that one did.
STRIDE_BYTES = 8 * 1024
STRIDE_SEARCHES = 32  # where few of the lines are searched
ORDINARY_NS = 20_000
SUSPECT_SEARCHES = 64
MEASURE_NS = 1000
MEASURE_SEARCHES = 1000  # at most: what took longer than such a line can was no search

# Called with the item's key, the line's offset in the block, its length and whether the pattern calls its own
# groups, around a search. Entering gives False when this item must be skipped on this line.
Guard = Callable[[int, int, int, bool], AbstractContextManager[bool]]
Match = Callable[[bytes], Any]


class Hit(NamedTuple):
    """An item's pattern matches a line."""

    start: int  # offset of the line in the block, in bytes
    line: bytes  # without its newline, "\n" or "\r\n"
    key: int  # of the item
    pattern: Pattern
    match: Any  # what the pattern's own methods read

    @property
    def spans(self) -> Spans:
        """Groups 0, 1, … in bytes of the line; (-1, -1) for a group that took no part."""
        return self.pattern.spans(self.line, self.match)


# Without the frame of the constructor, a third of the time: one is made for each hit of a flood.
_make_hit: Callable[[tuple[int, bytes, int, Pattern, Any]], Hit] = partial(tuple.__new__, Hit)


@dataclass(frozen=True, slots=True)
class Failure:
    """PCRE gave up an item's pattern on a line, which counts as not matching."""

    start: int  # offset of the line in the block, in bytes
    line: bytes  # without its newline, "\n" or "\r\n"
    key: int  # of the item
    error: MatchLimitError | None = None


class LeftOut(Failure):
    """An item was not searched for in a line that is too long for its rein."""

    __slots__ = ()


class Overspent(Failure):
    """An item is on a shorter rein from this line on, which may have matched all the same."""

    __slots__ = ()


class Scanner:
    """The patterns of all items of one file."""

    def __init__(
        self,
        patterns: Sequence[tuple[int, Pattern]],
        long_line_bytes: int = 0,
        guard: Guard | None = None,
        budgets: Sequence[Budget] | None = None,
    ) -> None:
        """`patterns` are (key, pattern), in the order of items.

        Searches of lines longer than `long_line_bytes` run inside `guard`: PCRE's own limits do not bound the
        time of a search, which can grow with the square of the line's length. The attribute may be changed
        between scans. `budgets` are those of the patterns; without them each may cost what it likes.
        """
        self.long_line_bytes = long_line_bytes
        self._patterns: list[tuple[int, Pattern, Match]] = [
            (key, pattern, pattern.match) for key, pattern in patterns
        ]
        self._number_of = {key: number for number, (key, _) in enumerate(patterns)}
        self._guard = guard
        self._budgets = budgets
        self._limited: set[int] = set()  # items on a rein
        self._calls = any(pattern.calls for _, pattern in patterns)
        self._careful_bytes = -1  # longer lines need care
        self._measure_bytes = 0  # that are left, of all lines but tiny ones
        self._measure_searches = 0  # that are left, of all lines
        self._looked_ns: tuple[int, int] | None = None  # both clocks when the exact one was last looked at
        self._literals = choose_literals([required_literals(pattern.regex) for _, pattern in patterns])
        self._usual = self._in_flood_of(frozenset())
        self._everywhere, self._prefilter = self._usual
        self._flooded: frozenset[int] = frozenset()  # the items of the last flood
        self._in_flood = self._usual
        self._flood_bytes = 0  # that are left
        if budgets is not None:
            self._use_reins(range(len(budgets)))  # some may be on one from before

    @property
    def has_prefilter(self) -> bool:
        """Whether some patterns are tried only where a literal of theirs is."""
        return self._prefilter is not None

    def _in_flood_of(self, flooded: frozenset[int]) -> tuple[Items, Prefilter | None]:
        """Give which items to try on all lines when these are, and what finds lines for the others."""
        literals = [None if item in flooded else one for item, one in enumerate(self._literals)]
        everywhere = tuple(item for item, one in enumerate(literals) if one is None)
        if len(everywhere) == len(literals):
            return everywhere, None
        try:
            return everywhere, Prefilter(literals, compile_find)
        except PatternError:  # without libpcre2 each pattern is tried on each line
            return tuple(range(len(literals))), None

    def scan(self, block: bytes) -> list[Hit | Failure]:
        """Hits and failures in `block`, complete lines that each end in a newline, by line, then by item.

        Raises ValueError when the last line is unfinished, before anything is searched.
        """
        if block and not block.endswith(b"\n"):
            raise ValueError("the block's last line has no newline")
        found: list[Hit | Failure] = []
        self._measure_bytes -= len(block)
        if self._limited:
            self._use_reins(tuple(self._limited))
        self._set_care()
        everywhere = self._everywhere
        try:
            lines = self._prefilter.lines(block) if self._prefilter else {}
        except MatchLimitError:
            everywhere, lines = tuple(range(len(self._patterns))), {}
        if everywhere:
            self._scan_all(found, block, everywhere, lines)
        else:
            self._scan_some(found, block, lines)
        self._note_floods(block, lines)
        return found

    def _note_floods(self, block: bytes, lines: dict[int, Items]) -> None:
        """Decide what to look for in the next block."""
        if self._flood_bytes > 0:
            self._flood_bytes -= len(block)
            if self._flood_bytes <= 0:
                self._everywhere, self._prefilter = self._usual
        elif FLOOD_BYTES < len(block) < len(lines) * FLOOD_LINE_BYTES:
            most = FLOOD_SHARE * block.count(b"\n")
            times = Counter(item for items in lines.values() for item in items)
            flooded = frozenset(item for item in times if times[item] > most)
            if flooded:
                if flooded != self._flooded:
                    self._flooded, self._in_flood = flooded, self._in_flood_of(flooded)
                self._everywhere, self._prefilter = self._in_flood
                self._flood_bytes = FLOOD_LASTS_BYTES

    def _scan_some(self, found: list[Hit | Failure], block: bytes, lines: dict[int, Items]) -> None:
        """Try on the lines that begin where `lines` says the items that it says."""
        searches = 0  # in this stride
        begin_ns = self._begin_stride(block)
        for start, items in lines.items():
            self._search(found, block[start : block.find(b"\n", start)], start, items)
            searches += len(items)
            if searches >= STRIDE_SEARCHES:
                begin_ns = self._end_stride(begin_ns, searches)
                searches = 0
        if searches:
            self._end_stride(begin_ns, searches)

    def _scan_all(
        self, found: list[Hit | Failure], block: bytes, items: Items, more: dict[int, Items]
    ) -> None:
        """Try `items` on each line, and others on the lines that begin where `more` says."""
        patterns = [self._patterns[item] for item in items]
        always_careful = bool(more) or b"\r" in block
        start = 0
        begin_ns = self._begin_stride(block)
        for lines in _strides(block):
            searches = len(lines) * len(items)
            # Lines that need no care are searched here: a call of `_search` for each costs 0.2 us a line.
            careful_bytes = -1 if always_careful else self._careful_bytes
            for line in lines:
                length = len(line)
                if length > careful_bytes:
                    here = items
                    if start in more:
                        here = tuple(sorted(items + more[start]))
                        searches += len(more[start])
                    self._search(found, line, start, here)
                    if self._limited:
                        careful_bytes = -1
                else:
                    for key, pattern, match_line in patterns:
                        try:
                            match = match_line(line)
                        except MatchLimitError as error:
                            found.append(Failure(start, line, key, error))
                            if self._spend(found, line, start, self._number_of[key], FAILED_NS):
                                careful_bytes = -1
                            continue
                        if match is not None:
                            found.append(_make_hit((start, line, key, pattern, match)))
                start += length + 1
            begin_ns = self._end_stride(begin_ns, searches)

    def _search(self, found: list[Hit | Failure], line: bytes, start: int, items: Items) -> None:
        if line[-1:] == b"\r":
            line = line[:-1]
        length = len(line)
        if length <= self._careful_bytes:
            self._search_at_once(found, line, start, items)
            return
        is_long = length > self.long_line_bytes
        for item in items:
            key, pattern, match_line = self._patterns[item]
            limited = item in self._limited
            if limited and self._is_too_long(item, length):
                found.append(LeftOut(start, line, key))
                continue
            if length > SHORT_LINE_BYTES:
                match_line = pattern.match_long
            guard = self._guard if is_long or pattern.calls else None
            measured = guard is not None or limited or self._measure_bytes > 0 or self._measure_searches > 0
            # The first tells what the search itself took; the other one, which costs less, when to use it.
            clock = time.thread_time_ns if measured else time.monotonic_ns
            match, failed = None, False
            begin_ns = clock()
            try:
                if guard is None:
                    match = match_line(line)
                else:
                    with guard(key, start, length, pattern.calls) as allowed:
                        match = match_line(line) if allowed else None
            except MatchLimitError as error:
                found.append(Failure(start, line, key, error))
                failed = True
            took_ns = clock() - begin_ns
            if match is not None:
                found.append(_make_hit((start, line, key, pattern, match)))
            if failed or took_ns > FREE_NS:
                self._judge(found, line, start, item, took_ns, measured=measured, failed=failed)

    def _search_at_once(self, found: list[Hit | Failure], line: bytes, start: int, items: Items) -> None:
        """Search a line that needs no care."""
        for item in items:
            key, pattern, match_line = self._patterns[item]
            try:
                match = match_line(line)
            except MatchLimitError as error:
                found.append(Failure(start, line, key, error))
                self._spend(found, line, start, item, FAILED_NS)
                continue
            if match is not None:
                found.append(_make_hit((start, line, key, pattern, match)))

    # What searches cost.

    def _end_stride(self, begin_ns: int, searches: int) -> int:
        """Look at the clock, and give its time: where searches took long, those that follow are measured."""
        now_ns = time.monotonic_ns()
        if self._measure_searches > 0:
            self._measure_searches -= searches
            self._set_care()
        elif (
            now_ns - begin_ns > searches * ORDINARY_NS
            and self._budgets is not None
            and self._took_ns(begin_ns, now_ns) > searches * ORDINARY_NS
        ):
            self._measure_searches = max(SUSPECT_SEARCHES, 2 * searches)
            self._set_care()
        return now_ns

    def _begin_stride(self, block: bytes) -> int:
        """Look at the clock, and at the exact one where it is worth that."""
        now_ns = time.monotonic_ns()
        self._looked_ns = (now_ns, time.thread_time_ns()) if len(block) > STRIDE_BYTES else None
        return now_ns

    def _took_ns(self, begin_ns: int, now_ns: int) -> int:
        """Give how much CPU time a stride took, at least; where that is not known, how long it took."""
        if self._looked_ns is None:
            return now_ns - begin_ns
        looked_ns, cpu_ns = self._looked_ns
        self._looked_ns = now_ns, time.thread_time_ns()
        # What it took before this stride is no more than the time that went by.
        return self._looked_ns[1] - cpu_ns - (begin_ns - looked_ns)

    def _judge(
        self,
        found: list[Hit | Failure],
        line: bytes,
        start: int,
        item: int,
        took_ns: int,
        *,
        measured: bool,
        failed: bool,
    ) -> None:
        """Have an item pay for a search that took long; where that is not sure, measure those that follow."""
        cost_ns = excess_ns(took_ns, len(line))
        if cost_ns > SUSPECT_NS:
            self._measure_bytes = MEASURE_BYTES
        if measured and cost_ns:
            self._spend(found, line, start, item, cost_ns)
            if self._budgets is not None:
                more = min(cost_ns // MEASURE_NS, MEASURE_SEARCHES)
                self._measure_searches = max(self._measure_searches, more)
        elif failed and not measured:
            self._spend(found, line, start, item, FAILED_NS)

    def _set_care(self) -> None:
        """Decide from which length on a line needs care: time to be measured, limits, a guard."""
        if self._calls or self._limited or self._measure_searches > 0:
            self._careful_bytes = -1
        elif self._budgets is None:
            self._careful_bytes = (
                min(SHORT_LINE_BYTES, self.long_line_bytes) if self._guard else SHORT_LINE_BYTES
            )
        else:
            self._careful_bytes = min(TINY_LINE_BYTES, self.long_line_bytes)

    def _is_too_long(self, item: int, length: int) -> bool:
        assert self._budgets is not None
        longest_bytes = self._budgets[item].rein.longest_bytes
        return longest_bytes is not None and length > longest_bytes

    def _use_reins(self, items: Iterable[int]) -> None:
        """Have these items searched as their budgets allow now."""
        assert self._budgets is not None
        now_ns = time.monotonic_ns()
        for item in items:
            self._use_rein(item, self._budgets[item].look(now_ns))

    def _use_rein(self, item: int, rein: Rein) -> None:
        key, pattern, _ = self._patterns[item]
        match_line = pattern.match_least if rein >= Rein.FEW_STEPS else pattern.match
        self._patterns[item] = key, pattern, match_line
        if rein == Rein.FREE:
            self._limited.discard(item)
        else:
            self._limited.add(item)
        self._set_care()

    def _spend(self, found: list[Hit | Failure], line: bytes, start: int, item: int, cost_ns: int) -> bool:
        """Pay for a search of an item; True when it is on a shorter rein from here on."""
        if self._budgets is None or not self._budgets[item].spend(time.monotonic_ns(), cost_ns, len(line)):
            return False
        found.append(Overspent(start, line, self._patterns[item][0]))
        self._use_rein(item, self._budgets[item].rein)
        return True


def _strides(block: bytes) -> Iterator[list[bytes]]:
    """Give the lines of `block`, those that begin within so many bytes together."""
    start = 0
    while start < len(block):
        end = block.find(b"\n", start + STRIDE_BYTES)
        if end < 0:
            end = len(block) - 1
        yield block[start:end].split(b"\n")
        start = end + 1
