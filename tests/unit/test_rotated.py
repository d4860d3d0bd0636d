"""Which files a log was rotated to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lognot.rotated import MAX_COPIES, Entry, Identity, copies, leftovers, list_files, on_other_device


def found(
    *names: str, base: str = "log", current: int | None = 99, wanted: tuple[int, ...] = (1,)
) -> list[str]:
    """The names that `leftovers` picks of files that were changed in this order; `=N` says which inode."""
    entries = []
    for number, text in enumerate(names, 10):
        name, _, inode = text.partition("=")
        entries.append(Entry(name, (1, int(inode or number)), number, 0))
    picked = leftovers(
        entries, base, [(1, inode) for inode in wanted], (1, wanted[-1]), (1, current) if current else None
    )
    return [entry.name for entry in picked]


def test_the_file_itself() -> None:
    assert found("log.1=1", "log=99") == ["log.1"]
    assert found("elsewhere=1", "log=99") == ["elsewhere"]
    assert found("log=1", current=1) == []
    assert found("log=99") == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("log.3=1", "log.2", "log.1", "log=99"), ["log.3", "log.2", "log.1"]),
        (("log-20261121=1", "log-20261122", "log=99"), ["log-20261121", "log-20261122"]),
        (("log.10=1", "log.9", "log=99"), ["log.10", "log.9"]),
        (("log.4", "log.3", "log.2=1", "log.1"), ["log.2", "log.1"]),  # older ones are history
        (("log.2=1", "log.1.gz", "log.offset", "logs.1", "log.conf", "log"), ["log.2"]),
        (("old=1", "log.1", "log=99"), ["old"]),  # its name says nothing of others
    ],
)
def test_those_in_between(names: tuple[str, ...], expected: list[str]) -> None:
    assert found(*names) == expected


def test_older_ones_come_first() -> None:
    assert found("log.2=2", "log.3=1", "log.1", wanted=(1, 2)) == ["log.3", "log.2", "log.1"]


def test_what_a_log_may_have_been_copied_to() -> None:
    names = ["log", "log.2", "log.1", "logs", "log1", "log.0", "log-old", "other"]
    entries = [
        Entry(name, (1, number), number, 9 if name == "log.0" else 10) for number, name in enumerate(names)
    ]
    assert [entry.name for entry in copies(entries, "log", 10, [(1, 0)])] == ["log-old", "log.1", "log.2"]
    assert [entry.name for entry in copies(entries, "log", 9, [(1, 1)])] == ["log-old", "log.0", "log.1"]
    many = [Entry(f"log.{number}", (1, number), number, 0) for number in range(100)]
    assert len(copies(many, "log", 0, [])) == MAX_COPIES


def test_a_device_that_has_another_number() -> None:
    assert on_other_device([(1, 5), (1, 6), (1, 7)], [(2, 5), (2, 6), (2, 99)]) == {
        (1, 5): (2, 5),
        (1, 6): (2, 6),
    }
    assert on_other_device([(1, 5)], [(2, 5), (1, 6)]) == {}  # it is the same device, and the file is gone


def test_only_regular_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    status = (tmp_path / "file").stat()
    assert list(list_files(str(tmp_path))) == [
        Entry("file", (status.st_dev, status.st_ino), status.st_mtime_ns, 0)
    ]


def test_a_name_that_ends_in_a_number() -> None:
    """Another log's files have the same form, but for that."""
    entries = [
        Entry("worker1.1", (1, 1), 10, 0),
        Entry("worker10.1", (1, 2), 11, 0),
        Entry("worker1", (1, 3), 12, 0),
    ]
    assert [one.name for one in leftovers(entries, "worker1", [(1, 1)], (1, 1), (1, 3))] == ["worker1.1"]


class Unsearched(list[Identity]):
    """Files that nobody goes through to find one."""

    def __contains__(self, identity: object) -> bool:
        raise AssertionError


def test_many_files_cost_no_squares() -> None:
    """Whoever owns the directory decides how many there are of both: 20,000 took 10 s."""
    files = Unsearched((1, number) for number in range(9))
    entries = [Entry(f"log.{number}", identity, number, 1) for number, identity in enumerate(files)]
    assert leftovers(entries, "log", files, (1, 0), (1, 9)) == entries
