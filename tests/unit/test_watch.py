"""inotify: what the kernel reports is what is taken apart; watches end with their last user."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyinotify
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import watch
from lognot.watch import Event, Watches, WatchLimitError, parse_events, read_events

HEADER = struct.Struct("iIII")


@pytest.fixture
def watches() -> Iterator[Watches]:
    made = Watches()
    yield made
    made.close()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_PATH if path.is_dir() else os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def watched(watches: Watches) -> set[int]:
    """The watch descriptors that the kernel has, as proc(5) shows them."""
    lines = Path(f"/proc/self/fdinfo/{watches.fileno()}").read_text().splitlines()
    return {
        int(dict(part.split(":") for part in line.split()[1:])["wd"], 16)
        for line in lines
        if line.startswith("inotify")
    }


# Taking apart.

events = st.lists(
    st.builds(
        Event,
        wd=st.integers(-1, 2**31 - 1),
        mask=st.integers(0, 2**32 - 1),
        name=st.binary(max_size=255).map(lambda name: name.replace(b"\0", b"x")),
        cookie=st.integers(0, 2**32 - 1),
    ),
    max_size=10,
)


def reported(watches: Watches) -> list[Event]:
    """What the kernel reports, in short."""
    found, may_be_more = read_events(watches.fileno())
    assert not may_be_more
    return found


def encoded(event: Event) -> bytes:
    """As inotify(7) has it: the name is padded with NULs, at least one, where there is a name."""
    padded = event.name.ljust((len(event.name) // 16 + 1) * 16, b"\0") if event.name else b""
    return HEADER.pack(event.wd, event.mask, event.cookie, len(padded)) + padded


@given(events)
def test_events_come_out_as_they_went_in(wanted: list[Event]) -> None:
    assert list(parse_events(b"".join(encoded(event) for event in wanted))) == wanted


@given(events, st.integers(0, 3000))
def test_a_truncated_buffer_gives_the_events_before_it(wanted: list[Event], length: int) -> None:
    data = b"".join(encoded(event) for event in wanted)[:length]
    found = list(parse_events(data))
    whole = len(found)
    assert [event._replace(name=b"") for event in found] == [
        event._replace(name=b"") for event in wanted[:whole]
    ]
    assert found[:-1] == wanted[: max(0, whole - 1)]


@given(st.binary(max_size=500))
def test_garbage_never_raises(data: bytes) -> None:
    assert len(list(parse_events(data))) <= len(data) // HEADER.size


# The kernel's own.


def test_what_happens_to_a_file_is_reported(watches: Watches, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    with opened(log) as fd:
        wd = watches.add(fd, watch.FILE_MASK)
    with log.open("ab", buffering=0) as file:
        file.write(b"x")
        assert reported(watches) == [Event(wd, pyinotify.IN_MODIFY, b"")]
        assert reported(watches) == []
        file.truncate(0)
        assert reported(watches) == [Event(wd, pyinotify.IN_MODIFY, b"")]
    assert reported(watches) == [Event(wd, watch.CLOSED, b"")]
    log.rename(tmp_path / "log.1")
    assert reported(watches) == [Event(wd, pyinotify.IN_MOVE_SELF, b"")]
    with opened(tmp_path / "log.1"):  # else the inode goes, too
        (tmp_path / "log.1").unlink()
        assert reported(watches) == [Event(wd, watch.ATTRIBUTES, b"")]


def test_what_changes_a_name_is_reported(watches: Watches, tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        wd = watches.add(fd, watch.DIRECTORY_MASK)
    log = tmp_path / "log"

    def changed() -> list[tuple[int, bytes]]:
        found = reported(watches)
        assert all(event.wd == wd for event in found)
        return [(event.mask & ~pyinotify.IN_ISDIR, event.name) for event in found]

    log.touch()
    assert (pyinotify.IN_CREATE, b"log") in changed()
    log.chmod(0o600)
    assert changed() == [(watch.ATTRIBUTES, b"log")]
    log.rename(tmp_path / "log.1")
    assert changed() == [(pyinotify.IN_MOVED_FROM, b"log"), (pyinotify.IN_MOVED_TO, b"log.1")]
    (tmp_path / "new").symlink_to("log.1")
    os.rename(tmp_path / "new", log)
    assert (pyinotify.IN_MOVED_TO, b"log") in changed()
    log.unlink()
    assert changed() == [(pyinotify.IN_DELETE, b"log")]
    (tmp_path / os.fsdecode(b"\xff\n")).touch()
    assert (pyinotify.IN_CREATE, b"\xff\n") in changed()
    tmp_path.chmod(0o711)
    assert changed() == [(watch.ATTRIBUTES, b"")]
    tmp_path.rename(tmp_path.with_name("moved"))
    assert changed() == [(pyinotify.IN_MOVE_SELF, b"")]
    (tmp_path.with_name("moved")).rename(tmp_path)
    changed()


def test_what_is_read_is_not_reported(watches: Watches, tmp_path: Path) -> None:
    """Or our own reading would wake us, for ever."""
    (tmp_path / "log").write_text("x")
    with opened(tmp_path) as directory, opened(tmp_path / "log") as fd:
        watches.add(directory, watch.DIRECTORY_MASK)
        watches.add(fd, watch.FILE_MASK)
        (tmp_path / "log").read_text()
        os.listdir(tmp_path)
        assert reported(watches) == []


def test_a_file_that_is_opened_later_has_its_watch_descriptor_again(watches: Watches, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with opened(tmp_path / "log") as first, opened(tmp_path / "log") as second:
        assert watches.add(first, watch.FILE_MASK) == watches.add(second, watch.FILE_MASK)


def test_a_watch_ends_with_its_last_user(watches: Watches, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with opened(tmp_path) as directory, opened(tmp_path / "log") as fd:
        of_directory = watches.add(directory, watch.DIRECTORY_MASK)
        of_file = watches.add(fd, watch.FILE_MASK)
        assert watches.add(fd, watch.FILE_MASK) == of_file
    assert watched(watches) == {of_directory, of_file}
    watches.release(of_file)
    assert watched(watches) == {of_directory, of_file}
    watches.release(of_file)
    assert watched(watches) == {of_directory}
    assert reported(watches) == [Event(of_file, watch.IGNORED, b"")]
    watches.release(of_directory)
    assert watched(watches) == set()


def test_a_watch_that_the_kernel_has_ended_can_be_released(watches: Watches, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with opened(tmp_path / "log") as fd:
        wd = watches.add(fd, watch.FILE_MASK)
    (tmp_path / "log").unlink()
    assert watched(watches) == set()
    watches.release(wd)
    (tmp_path / "log").touch()
    with opened(tmp_path / "log") as fd:
        wd = watches.add(fd, watch.FILE_MASK)
    assert watched(watches) == {wd}


def test_many_watches_leave_nothing_behind(watches: Watches, tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).touch()
        with opened(tmp_path / str(number)) as fd:
            wd = watches.add(fd, watch.FILE_MASK)
        (tmp_path / str(number)).unlink()
        watches.release(wd)
    assert watched(watches) == set()
    assert not watches._manager.watches  # pyinotify keeps a table of its own


def test_a_file_is_no_directory(watches: Watches, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with opened(tmp_path / "log") as fd, pytest.raises(OSError) as caught:
        watches.add(fd, watch.DIRECTORY_MASK)
    assert caught.value.errno == errno.ENOTDIR


def test_the_descriptor_neither_blocks_nor_is_inherited(watches: Watches) -> None:
    assert fcntl.fcntl(watches.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    assert not os.get_inheritable(watches.fileno())


def test_the_descriptor_goes_with_close() -> None:
    made = Watches()
    fd = made.fileno()
    made.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# Limits.


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "raise the sysctl fs.inotify.max_user_watches"), (errno.EACCES, "Permission denied")],
)
def test_why_no_watch_can_be_had(watches: Watches, tmp_path: Path, number: int, expected: str) -> None:
    """The errno goes the way that the real one goes: through pyinotify's text."""
    wrapper = type(watches._manager._inotify_wrapper)
    with (
        opened(tmp_path) as fd,
        patch.object(wrapper, "inotify_add_watch", return_value=-1),
        patch.object(wrapper, "get_errno", return_value=number),
        pytest.raises(OSError) as caught,
    ):
        watches.add(fd, watch.DIRECTORY_MASK)
    assert caught.value.errno == number
    assert expected in str(caught.value)
    assert isinstance(caught.value, WatchLimitError) == (number == errno.ENOSPC)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_an_instance_there_is_a_reason(watches: Watches, number: int) -> None:
    wrapper = type(watches._manager._inotify_wrapper)
    with (
        patch.object(wrapper, "inotify_init", return_value=-1),
        patch.object(wrapper, "get_errno", return_value=number),
        pytest.raises(OSError) as caught,
    ):
        Watches()
    assert caught.value.errno == number
    assert isinstance(caught.value, WatchLimitError) == (number == errno.EMFILE)
    assert ("fs.inotify.max_user_instances" in str(caught.value)) == (number == errno.EMFILE)


def test_without_a_descriptor_it_is_not_the_limit_of_instances() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(OSError, match="Too many open files") as caught:
            Watches()
        assert not isinstance(caught.value, WatchLimitError)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
