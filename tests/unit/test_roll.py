"""Memory that outlives the service."""

from __future__ import annotations

import faulthandler
import os
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from lognot import roll as module
from lognot.errors import StateError
from lognot.ledger import Counted, Ledger, Position
from lognot.roll import Listed, Roll

KEY, SECRET = b"k" * 16, b"s" * 32
ENTRY = Listed(5, 7, (8, 9), True, b"d" * 16)


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield os.path.join(directory, "roll")


def test_what_was_said_is_there_again(path: str) -> None:
    roll = Roll(path)
    assert roll.key == bytes(16)
    roll.begin(KEY, SECRET)
    roll.put(ENTRY)
    roll.put(Listed(6, 8, (1, 1), False, b"e" * 16))
    roll.clear(6)
    roll.put_items({b"i" * 16: 3, b"j" * 16: 4})
    roll.put_items({b"i" * 16: 3})
    Ledger(roll.ledger).assign(5, Position(7, 100))
    roll.close()
    again = Roll(path)
    assert (again.key, again.secret) == (KEY, SECRET)
    assert list(again.slots()) == [ENTRY]
    assert again.items() == {b"i" * 16: 3}
    assert Ledger(again.ledger).position(5) == Position(7, 100)
    again.begin(SECRET[:16], SECRET)
    assert list(again.slots()) == []
    assert again.items() == {}
    assert Ledger(again.ledger).position(5) == Position(0)


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(10_000_000)], ids=len)
def test_another_file_begins_anew(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    roll = Roll(path)
    assert roll.key == bytes(16)
    assert list(roll.slots()) == []


def test_a_child_does_not_see_it(path: str) -> None:
    """A monitor that was taken over cannot have the next supervisor believe that a file is another one."""
    roll = Roll(path)
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # what comes is expected
        roll.put(ENTRY)  # the page is not there: SIGSEGV
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert list(roll.slots()) == []


def test_one_at_a_time(path: str) -> None:
    roll = Roll(path)
    with patch.object(module, "LOCKED_S", 0.0), pytest.raises(StateError, match="in use by what is left"):
        Roll(path)
    roll.close()
    Roll(path)


def test_what_the_monitor_holds_of_it_is_empty(path: str) -> None:
    roll = Roll(path)
    roll.begin(KEY, SECRET)
    assert os.pread(roll.lock_fd, 100, 0) == b""
    assert not os.path.samestat(os.fstat(roll.lock_fd), os.stat(path))
    roll.close()


def test_only_in_memory(tmp_path: Path) -> None:
    none = patch.object(module, "_MEMORY_FILE_SYSTEMS", ())  # tmp_path may be on one
    with none, pytest.raises(StateError, match="not on a tmpfs"):
        Roll(str(tmp_path / "roll"))


@pytest.mark.parametrize("end", ["", ".lock"])
def test_no_way_over_a_link(path: str, tmp_path: Path, end: str) -> None:
    os.symlink(tmp_path / "other", path + end)
    with pytest.raises(OSError, match="symbolic"):
        Roll(path)
    assert not (tmp_path / "other").exists()


class Recording(bytearray):
    """Memory, and all that it ever held: what is no single word is stored byte by byte."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.held = [bytes(self)]

    def __setitem__(self, where: Any, data: Any) -> None:
        step = len(data) if len(data) == 8 and where.start % 8 == 0 else 1
        for at in range(0, len(data), step):
            super().__setitem__(slice(where.start + at, where.start + at + step), data[at : at + step])
            self.held.append(bytes(self))


def test_killed_at_any_moment_it_says_nothing_wrong(path: str) -> None:
    roll = Roll(path)
    roll.begin(KEY, SECRET)
    roll._memory = memory = Recording(roll._memory[:20_000])  # type: ignore[assignment]
    other = Listed(5, 2**63, (2**64 - 1, 2**64 - 2), False, b"e" * 16)
    for entry in (ENTRY, ENTRY, other):
        roll.put(entry)
    roll.clear(5)
    found = []
    for held in memory.held:
        roll._memory = held  # type: ignore[assignment]
        with patch.object(module, "MAX_STREAMS", 100):
            found.append(list(roll.slots()))
    assert [key for key, _ in groupby(found)] == [[], [ENTRY], [], [other], []]


def test_a_new_service_counts_on(path: str) -> None:
    roll = Roll(path)
    ledger = Ledger(roll.ledger)
    for item_id, kind in ((1, Counted.MATCH), (2, Counted.MATCH), (1, Counted.STARTED), (1, Counted.JUDGED)):
        ledger.count(10, item_id, kind)
    ledger.settle()
    ledger.count(11, 1, Counted.MATCH)  # not committed
    ledger.add_statistics(1, 2, 3)
    roll.close()
    again = Ledger(Roll(path).ledger)
    again.adopt({1})
    assert [(record.item_id, record.kind) for record in again.replay()] == [(1, Counted.MATCH)]
    assert again.statistics() == (0, 0, 0)
