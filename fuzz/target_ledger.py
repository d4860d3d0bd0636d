"""Shared memory as a hostile monitor leaves it: supervisor and next monitor go on, whatever stands there."""

from __future__ import annotations

import os
import struct
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from lognot import ledger as of_ledger
from lognot import messages as m
from lognot.files import Files
from lognot.ledger import Counted, Ledger, Position, Search
from lognot.rule import Rule
from lognot.settings import EVERY_MATCH, Frequency, Item
from lognot.users import current_account

# Where `data` goes, piece by piece: the header, the searches, the first slot, the changes, the journal.
PLACES = (
    (0, of_ledger._WORDS * 8),
    (of_ledger._FATAL_AT, 48),
    (of_ledger._SLOTS_AT, of_ledger._SLOT_BYTES),
    (of_ledger._CHANGES_AT, 16),
    (of_ledger._JOURNAL_AT, 4 * of_ledger._RECORD_BYTES),
)
_TOTAL = sum(length for _, length in PLACES)
SEEDS = [
    bytes(_TOTAL),
    b"\xff" * _TOTAL,
    struct.pack("<Q", 2**63) * (_TOTAL // 8),
    struct.pack("<Q", 1) * (_TOTAL // 8),
    struct.pack("<Q", 2**62) * (_TOTAL // 8),
]
RECORDS = 64  # of the ring, so that all of it is looked at in no time
LINES = b"".join(b"line %d\n" % number for number in range(50))

_ledger = Ledger()
_file = os.memfd_create("log")
os.write(_file, LINES)
_ITEM = Item(
    name="A",
    path="/log",
    regex=b".*",
    upbound_action=b"true",
    upbound=Frequency(3, 10),
    downbound_action=b"true",
    downbound=Frequency(2, 10),
    usecrc=False,
    size=None,
    size_action=None,
    run_as=current_account(),
    action_timeout_s=10,
)
assert EVERY_MATCH.count == 0


def check(data: bytes) -> None:
    """Put `data` there, and begin as a monitor does."""
    memory = _ledger._memory
    for at, length in PLACES:
        piece, data = data[:length], data[length:]
        memory[at : at + length] = piece.ljust(length, b"\0")
    with patch.object(of_ledger, "JOURNAL_RECORDS", RECORDS):
        _as_supervisor()
        for _ in range(2):
            _as_monitor()


def _as_supervisor() -> None:
    _ledger.statistics()
    _ledger.convict_search()
    _ledger.assign(1, _ledger.position(0))


def _as_monitor() -> None:
    successor = Ledger.__new__(Ledger)  # a fork has the same memory, and all else as the supervisor has it
    successor.__dict__.update(_ledger.__dict__)
    told: list[m.Message] = []
    notes: Any = SimpleNamespace(say=lambda *words: None)
    files = Files(successor, notes, told.append, lambda: True, lambda: None)
    files.configure({1}, 1024)
    searches = successor.fatal_searches()
    assert len(searches) <= of_ledger.MAX_FATAL
    rule = Rule(1, _ITEM, b"secret")
    now_ns = time.monotonic_ns()
    for record in successor.replay():
        if record.time_ns <= now_ns:
            rule.replay(record)
    opened = m.LogOpened(1, 1, 0, 1, m.Start.COMMITTED, len(LINES), 0)
    files.opened(opened, os.dup(_file))
    files.looked(m.LogLooked(1, 1, ()))
    try:
        while files.dirty:
            for _, reading in files.readings():
                for block in reading.blocks:
                    assert LINES[block.start :].startswith(block.lines)
                    successor.begin_search(Search(1, block.start, 1))
                    successor.end_search()
                    successor.add_statistics(len(block.lines), 1, 1)
                    rule.count(now_ns, [None])
                    successor.count(now_ns, 1, Counted.MATCH)
        rule.start(now_ns)
        rule.deadline_ns()
        files.commit()
        assert successor.position(0) == Position(1, len(LINES), *_rest(successor.position(0)))
    finally:
        files.configure(set(), 1024)


def _rest(position: Position) -> tuple[int, bool, bytes, int]:
    return position.generation, position.skipping, position.digest, position.judged_size
