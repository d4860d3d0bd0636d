"""What is reported of renames in the directories of logs, by the kernel itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from lognot import watch
from lognot.renames import Renames
from lognot.watch import Event, Watches, WatchLimitError
from unit.descriptors import nothing_leaks, open_descriptors


@pytest.fixture
def renames() -> Iterator[Renames]:
    with nothing_leaks():
        made = Renames()
        yield made
        made._close()


def follow(renames: Renames, log_id: int, path: Path) -> None:
    directory = os.open(path.parent, os.O_PATH)
    renames.follow(log_id, directory, os.fsencode(path.name))
    os.close(directory)


def names(renames: Renames, log_id: int) -> list[bytes]:
    renames.read()
    return [file.place[1] for file in renames.moved(log_id) if file.place]


def test_a_file_is_followed_to_its_last_name(renames: Renames, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(3):  # each look says it again
        follow(renames, 1, log)
    for number in (1, 2):
        log.touch()
        log.rename(tmp_path / f"log.{number}")
    (tmp_path / "log.1").rename(tmp_path / "log.3")
    assert names(renames, 1) == [b"log.3", b"log.2"]
    assert renames.unsettled() == {1}
    (tmp_path / "log.2").unlink()
    assert names(renames, 1) == [b"log.3"]
    renames.settle(renames.moved(1)[0])
    assert renames.unsettled() == set()
    assert not renames.is_incomplete(1)


def test_each_log_of_a_directory_has_its_own(renames: Renames, tmp_path: Path) -> None:
    for log_id, name in enumerate(("a", "b", "a"), 1):  # 1 and 3 are the same, over different paths
        follow(renames, log_id, tmp_path / name)
    for name in "ab":
        (tmp_path / name).touch()
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    assert [names(renames, log_id) for log_id in (1, 2, 3)] == [[b"a.1"], [b"b.1"], [b"a.1"]]
    renames.forget(1)
    (tmp_path / "a").touch()
    (tmp_path / "a").rename(tmp_path / "a.2")
    assert [names(renames, log_id) for log_id in (1, 2, 3)] == [[], [b"b.1"], [b"a.1", b"a.2"]]


def test_a_directory_that_was_made_again(renames: Renames, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    follow(renames, 1, logs / "log")
    logs.rename(tmp_path / "old")
    logs.mkdir()
    follow(renames, 1, logs / "log")
    for directory in (logs, tmp_path / "old"):
        (directory / "log").touch()
        (directory / "log").rename(directory / f"{directory.name}.1")
    assert names(renames, 1) == [b"logs.1"]


def test_the_last_log_takes_the_events_with_it(tmp_path: Path) -> None:
    with nothing_leaks():
        renames = Renames()
        for log_id in (1, 2):
            follow(renames, log_id, tmp_path / str(log_id))
        assert "anon_inode:inotify" in open_descriptors().values()
        for log_id in (1, 2):
            renames.forget(log_id)
    renames.read()
    renames.forget(1)


def test_a_full_queue_is_incomplete(renames: Renames, tmp_path: Path) -> None:
    for log_id in (1, 2):
        follow(renames, log_id, tmp_path / str(log_id))
    with patch.object(watch, "read_events", return_value=([Event(-1, watch.OVERFLOWED, b"")], False)):
        renames.read()
    assert [renames.is_incomplete(log_id) for log_id in (1, 2, 3)] == [True, True, False]
    renames.complete(1)
    assert [renames.is_incomplete(log_id) for log_id in (1, 2, 3)] == [False, True, False]


def test_a_limit_of_watches_is_incomplete(renames: Renames, tmp_path: Path) -> None:
    log = tmp_path / "log"
    follow(renames, 1, log)
    with patch.object(Watches, "add", side_effect=WatchLimitError(errno.ENOSPC, "limit")):
        follow(renames, 1, log)
    assert renames.is_incomplete(1)
    log.touch()
    log.rename(tmp_path / "log.1")
    assert names(renames, 1) == [b"log.1"]  # by the watch that there was


def test_others_need_the_watches_more(renames: Renames, tmp_path: Path) -> None:
    assert not renames.give_way()
    logs = [tmp_path / "a", tmp_path / "b"]
    for log_id, log in enumerate(logs, 1):
        follow(renames, log_id, log)
        log.touch()
        log.rename(tmp_path / f"{log.name}.1")
    renames.read()
    assert renames.give_way()
    assert not renames.give_way()
    for log_id in (1, 2):
        assert renames.is_incomplete(log_id)
        assert renames.moved(log_id) == []
        renames.complete(log_id)
    follow(renames, 1, logs[0])
    assert renames.is_incomplete(1)
    renames.forget(1)
    assert not renames.is_incomplete(1)
    assert not renames.give_way()


def test_more_renames_than_one_read_takes(renames: Renames, tmp_path: Path) -> None:
    log, other = tmp_path / "log", tmp_path / ("x" * 200)
    follow(renames, 1, log)
    other.touch()
    for _ in range(500):
        other.rename(tmp_path / "y")
        (tmp_path / "y").rename(other)
    log.touch()
    log.rename(tmp_path / "log.1")
    assert names(renames, 1) == [b"log.1"]
