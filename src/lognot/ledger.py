"""What must outlive a killed monitor: memory that the supervisor shares with every monitor it starts.

The supervisor makes it before the first fork and never looks inside, but for the statistics. The monitor
writes how far each file was read and what was counted; the next monitor goes on from there: no line lost,
none twice, no count forgotten. Writes cost a memory copy, no system call.

What is committed is consistent at every instant, whenever SIGKILL comes: a commit writes a spare copy and
then flips one byte. A commit holds the position in one file and how much of the journal of counted matches
belongs to the lines before it, so that both always agree.

    header     statistics, and the search that is going on (a line that kills its reader is read but once)
    slots      one for each open file: offset, how often it was truncated, a digest of the bytes before it
    journal    a ring of the newest counted matches, replayed by the next monitor into its windows
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAX_STREAMS = 8192  # files open at the same time
NOT_BEGUN = 2**64 - 1  # the offset of a file that no monitor has looked at yet
JOURNAL_RECORDS = 65536  # counted matches that survive a monitor: a flood beyond it ages out first
FATAL_DEATHS = 2  # of a search: what kills two monitors in a row is no accident
MAX_KEY_BYTES = 33  # frequency.compact_key() makes no longer ones

_STATISTICS = struct.Struct("=QQQ")  # lines, matches, fired
_SEARCH = struct.Struct("=QQIB")  # stream, position, item, monitors that it took (0: none is going on)
_HEAD = struct.Struct("=Q")
# stream, offset, generation, skipping, digest length, digest, journal head
_POSITION = struct.Struct("=QQIBB16sQ")
_RECORD = struct.Struct("=QIBB34s")  # time, item, kind, key length, key

_STATISTICS_AT = 0
_SEARCH_AT = 64
_HEAD_AT = 128
_SLOTS_AT = 4096
_SLOT_BYTES = 128  # one byte that names the current copy, then two copies of 60
_COPY_BYTES = 60
_RECORD_BYTES = 48
_JOURNAL_AT = _SLOTS_AT + MAX_STREAMS * _SLOT_BYTES
_TOTAL_BYTES = _JOURNAL_AT + JOURNAL_RECORDS * _RECORD_BYTES

assert _POSITION.size <= _COPY_BYTES
assert 8 + 2 * _COPY_BYTES <= _SLOT_BYTES
assert _RECORD.size <= _RECORD_BYTES


class Counted(IntEnum):
    """What a record of the journal says about an item."""

    MATCH = 1  # with a key: counted for it alone
    STARTED = 2  # its downbound deadline began to run
    JUDGED = 3  # it was found below its bound


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file was read.

    Attributes:
        stream_id: the file, by the number that the supervisor gave it.
        offset: bytes before it are done with; a line begins there, unless `skipping`.
        generation: how often the file was truncated.
        skipping: the rest of an overlong line is being left out.
        digest: of the last bytes before `offset`; says later whether it is still the same file.
    """

    stream_id: int
    offset: int = 0
    generation: int = 0
    skipping: bool = False
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the journal; `time_ns` is CLOCK_MONOTONIC."""

    time_ns: int
    item_id: int
    kind: Counted
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """A search that was going on when the last monitor died."""

    stream_id: int
    position: int
    item_id: int


class Ledger:
    """The shared memory; anonymous, so it costs only the pages that are written.

    Attributes:
        secret: random, the same for every monitor, so that they make the same compact keys.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _TOTAL_BYTES)
        self._head = 0
        self._suspect: Search | None = None
        self._suspect_deaths = 0
        self.secret = os.urandom(32)

    # Positions.

    def assign(self, slot: int, position: Position) -> None:
        """Begin to use a slot for a file. Supervisor only."""
        self._write_position(slot, position, self._committed_head())

    def position(self, slot: int) -> Position:
        """Give what was last committed for a slot."""
        stream_id, offset, generation, skipping, length, digest, _ = self._read_slot(slot)
        return Position(stream_id, offset, generation, bool(skipping), digest[: min(length, 16)])

    def commit(self, slot: int, position: Position) -> None:
        """Say that everything before a position is done, and all journal records so far belong to it."""
        self._write_position(slot, position, self._head)

    def _write_position(self, slot: int, position: Position, head: int) -> None:
        base = _SLOTS_AT + slot * _SLOT_BYTES
        spare = 1 - (self._memory[base] & 1)
        _POSITION.pack_into(
            self._memory,
            base + 8 + spare * _COPY_BYTES,
            position.stream_id,
            position.offset,
            position.generation,
            position.skipping,
            len(position.digest),
            position.digest,
            head,
        )
        self._memory[base] = spare  # one byte: either all of the new copy counts, or nothing of it

    def _read_slot(self, slot: int) -> tuple[int, int, int, int, int, bytes, int]:
        base = _SLOTS_AT + slot * _SLOT_BYTES
        current = self._memory[base] & 1
        values: tuple[int, int, int, int, int, bytes, int] = _POSITION.unpack_from(
            self._memory, base + 8 + current * _COPY_BYTES
        )
        return values

    # The journal of counted matches.

    def count(self, record: Record) -> None:
        """Add a record; it counts once the lines that it came from are committed."""
        key = record.key
        _RECORD.pack_into(
            self._memory,
            _JOURNAL_AT + self._head % JOURNAL_RECORDS * _RECORD_BYTES,
            record.time_ns,
            record.item_id,
            record.kind,
            0xFF if key is None else len(key),
            key or b"",
        )
        self._head += 1

    def settle(self) -> None:
        """Make the records so far count by themselves: for those that no line brought."""
        _HEAD.pack_into(self._memory, _HEAD_AT, self._head)

    def _committed_head(self) -> int:
        heads = [self._read_slot(slot)[-1] for slot in range(self._slots_in_use())]
        settled: int = _HEAD.unpack_from(self._memory, _HEAD_AT)[0]
        return max([settled, *heads])

    def _slots_in_use(self) -> int:
        # Slots are given out from the lowest, so the first one that was never used ends them.
        for slot in range(MAX_STREAMS):
            if not self._read_slot(slot)[0]:
                return slot
        return MAX_STREAMS

    def replay(self) -> Iterator[Record]:
        """Give the committed records that are still there, oldest first, and go on behind them."""
        self._head = self._committed_head()
        for number in range(max(0, self._head - JOURNAL_RECORDS), self._head):
            at = _JOURNAL_AT + number % JOURNAL_RECORDS * _RECORD_BYTES
            time_ns, item_id, kind, length, key = _RECORD.unpack_from(self._memory, at)
            if kind in Counted.__members__.values():
                yield Record(time_ns, item_id, Counted(kind), None if length == 0xFF else key[:length])

    # The search that is going on.

    def begin_search(self, search: Search) -> None:
        """Note a search that may not come back; `end_search` follows when it did."""
        deaths = self._suspect_deaths if search == self._suspect else 0
        _SEARCH.pack_into(
            self._memory, _SEARCH_AT, search.stream_id, search.position, search.item_id, deaths + 1
        )

    def end_search(self) -> None:
        """Say that the search came back."""
        self._memory[_SEARCH_AT + _SEARCH.size - 1] = 0

    def fatal_search(self) -> Search | None:
        """Give the search that must not be tried again, None when there is none. For a new monitor, once.

        One that a monitor died in may be innocent, since SIGKILL comes at any moment; the second death, or
        one of a signal that only the search itself brings (`convict_search`), is its own.
        """
        stream_id, position, item_id, deaths = _SEARCH.unpack_from(self._memory, _SEARCH_AT)
        if not deaths:
            return None
        self._suspect, self._suspect_deaths = Search(stream_id, position, item_id), min(deaths, FATAL_DEATHS)
        return self._suspect if deaths >= FATAL_DEATHS else None

    def convict_search(self) -> None:
        """The monitor died of the search that was going on, if one was. Supervisor only."""
        at = _SEARCH_AT + _SEARCH.size - 1
        if self._memory[at]:
            self._memory[at] = FATAL_DEATHS

    # Statistics.

    def add_statistics(self, lines: int, matches: int, fired: int) -> None:
        """Add to what was read, matched and fired since the service started."""
        known = self.statistics()
        _STATISTICS.pack_into(
            self._memory, _STATISTICS_AT, known[0] + lines, known[1] + matches, known[2] + fired
        )

    def statistics(self) -> tuple[int, int, int]:
        """Give the lines read, matches counted and bounds passed since the service started."""
        lines, matches, fired = _STATISTICS.unpack_from(self._memory, _STATISTICS_AT)
        return lines, matches, fired
