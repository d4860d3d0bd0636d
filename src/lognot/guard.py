"""A search that may not come back: its time is limited, and once a monitor has died of it, it is left out.

Monitor only. PCRE's limits bound one attempt, but a search of a long line may attempt anew at each byte; and
the engine may have a bug that a line can reach. Nothing within this process could go on then. So the kernel
ends it, by a timer of its CPU time (setitimer(2)) whose SIGVTALRM nobody handles; the supervisor takes that
for the search's doing (Ledger.convict_search). What is being searched stands in the ledger, so the next
monitor knows what the last one died of.

To note a search takes longer than most searches do. So that is done for long lines, and for regexes that call
their own groups; of other lines only the block is noted, and where a monitor dies in one, the next notes each
search in it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lognot.files import Stream
from lognot.ledger import Ledger, Search, SuspectBlock
from lognot.pattern import has_jit
from lognot.scan import Failure, Hit, Scanner
from lognot.tail import Block

# On shorter lines a search ends within 16 ms, on a slow machine (measured with JIT, whose limits bound each
# attempt). On longer ones a pattern can be slow without meeting any, since it may begin anew at each byte:
# `(a*)\1[xy]` takes 35 ms for 1,000. SIGVTALRM then ends this process, and the next one leaves that search
# out. The guard costs 5 us a search.
LONG_LINE_BYTES = 768 if has_jit() else 0
# Of CPU time. The kernel looks at each tick, and adds one: 8 ms where there are 250 in a second, also for a
# line of 64 KiB. With the start of the next monitor (15 ms) that is what another item has to wait. A longer
# line gets what 100 MB/s take. Without JIT a search takes several times as long.
JIT_LIMIT_S, NO_JIT_LIMIT_S = 0.003, 0.006
SEARCH_LIMIT_S = JIT_LIMIT_S if has_jit() else NO_JIT_LIMIT_S
SEARCH_LIMIT_S_PER_BYTE = 1e-8
# For a short line that is only guarded since the last monitor died in its block: PCRE's own limits do.
CAREFUL_LIMIT_S = 1.0


class SearchGuard:
    """What is being searched, and what must not be.

    Args:
        ledger: what the last monitor has left.
        on_skipped: called with an item and a line of which `search` gives False.
    """

    _stream: Stream  # of the block that is scanned, or was last
    _block: Block

    def __init__(self, ledger: Ledger, on_skipped: Callable[[int, bytes], None]) -> None:
        self._ledger = ledger
        self._on_skipped = on_skipped
        self._fatal = ledger.fatal_searches()
        self._suspect = ledger.suspect_block()

    def deaths_of(self, item_id: int) -> list[Search]:
        """Give the searches of an item that took a monitor with them, in the order in which they did."""
        now_ns = time.monotonic_ns()
        # One of the future is no fact, and would be a ban for ever.
        deaths = [search for search in self._fatal if search.item_id == item_id and search.died_ns <= now_ns]
        return sorted(deaths, key=lambda search: search.died_ns)

    def scan(self, scanner: Scanner, stream: Stream, block: Block) -> list[Hit | Failure]:
        """Scan a block of a file, with a scanner that has `search` for its guard.

        Raises what the scanner raises; the block is suspect then, since this process is about to end.
        """
        self._stream, self._block = stream, block
        begin = stream.tail.position_of(block.start)
        scanned = SuspectBlock(stream.stream_id, begin, begin + len(block.lines))
        careful = self._suspect is not None and self._suspect.overlaps(scanned)
        scanner.long_line_bytes = 0 if careful else LONG_LINE_BYTES
        self._ledger.begin_block(scanned)
        found = scanner.scan(block.lines)
        self._ledger.end_block()
        return found

    @contextmanager
    def search(self, item_id: int, line_start: int, line_bytes: int, calls: bool) -> Iterator[bool]:
        """Note a search while it goes on, and limit its time; gives False for one that must not be tried.

        It is a `scan.Guard`: of a line of the block that is scanned.
        """
        search = self._search(item_id, line_start, line_bytes)
        if search in self._fatal:
            self._on_skipped(item_id, self._block.lines[line_start : line_start + line_bytes])
            yield False
            return
        self._ledger.begin_search(search)
        can_be_slow = line_bytes > LONG_LINE_BYTES or calls
        limit_s = SEARCH_LIMIT_S + line_bytes * SEARCH_LIMIT_S_PER_BYTE if can_be_slow else CAREFUL_LIMIT_S
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
        try:
            yield True
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._ledger.end_search()

    def is_fatal(self, item_id: int, line_start: int) -> bool:
        """Say whether this search, of a line of the block that was scanned last, must not be tried."""
        return self._search(item_id, line_start) in self._fatal

    def _search(self, item_id: int, line_start: int, line_bytes: int = 0) -> Search:
        position = self._stream.tail.position_of(self._block.start + line_start)
        return Search(self._stream.stream_id, position, item_id, line_bytes)
