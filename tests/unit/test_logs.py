"""Which files are open behind each path, and what a monitor is told of them. The monitor is this file."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from lognot import logs, streams, unseen, watch
from lognot.journal import Event, Journal
from lognot.ledger import NOT_BEGUN, Ledger, Position
from lognot.logs import MAX_REMEMBERED, MAX_ROTATED, Logs
from lognot.messages import (
    MAX_WATCHES,
    LogLooked,
    LogOpened,
    Message,
    Start,
    StreamUnwritten,
    UseWatches,
    encode,
)
from lognot.moves import MAX_FILES
from lognot.opening import Visit
from lognot.streams import MAX_OPEN
from lognot.unseen import MAX_AT_ONCE, MAX_MISSES
from lognot.watch import Watches, WatchLimitError
from unit.descriptors import nothing_leaks, open_descriptors
from unit.records import Records


class Monitor:
    """What a monitor was told, with the inode of each descriptor that came."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.inodes: dict[int, int] = {}
        self.inotify = -1

    def __call__(self, message: Message, fd: int) -> None:
        assert (fd >= 0) == bool(message.fds)
        self.told.append(message)
        if isinstance(message, LogOpened):
            self.inodes[message.stream_id] = os.fstat(fd).st_ino
        if isinstance(message, UseWatches):
            self.inotify = fd

    def take_unwritten(self) -> list[Message]:
        return [message for message in self.take() if isinstance(message, StreamUnwritten)]

    def take(self) -> list[Message]:
        taken, self.told = self.told, []
        return taken


class World:
    """Logs, a monitor, and the log that it all is about."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "log"
        self.records = Records()
        self.ledger = Ledger()
        self.logs = Logs(self.ledger, Journal((self.records,)))
        self.monitor = Monitor()

    def start(self, *paths: Path) -> None:
        self.logs.configure(str(path) for path in paths or (self.path,))
        self.logs.connect(self.monitor)
        assert self.monitor.take() == [UseWatches()]

    def look(self, log_id: int = 1) -> tuple[list[LogOpened], LogLooked]:
        """Look, and give what was newly opened and the answer."""
        self.logs.look(log_id)
        told = self.monitor.take()
        [looked] = [message for message in told if isinstance(message, LogLooked)]
        assert looked.log_id == log_id
        return [message for message in told if isinstance(message, LogOpened)], looked

    def begin(self, opened: LogOpened, offset: int = 0) -> None:
        """What a monitor does with a file: say how far it came."""
        self.ledger.assign(opened.slot, Position(opened.stream_id, offset))

    def rotate(self) -> LogOpened:
        self.path.rename(self.directory / f"log.{len(os.listdir(self.directory))}")
        self.path.touch()
        [opened], _ = self.look()
        return opened


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with nothing_leaks():
        made = World(tmp_path)
        made.path.write_text("history\n")
        yield made
        made.logs.configure([])
        made.logs._streams.close_outdated_watches()
        if made.logs._streams._watches is not None:
            made.logs._streams._watches.close()


def open_files() -> int:
    """How many descriptors there are of other things than events."""
    return sum(link != "anon_inode:inotify" for link in open_descriptors().values())


def watch_count(world: World) -> int:
    text = Path(f"/proc/self/fdinfo/{world.monitor.inotify}").read_text()
    return text.count("inotify wd:")


def test_what_is_there_at_first_is_history(world: World) -> None:
    world.start()
    [opened], looked = world.look()
    assert (opened.log_id, opened.start, opened.size) == (1, Start.END, 8)
    assert world.monitor.inodes[opened.stream_id] == world.path.stat().st_ino
    assert world.ledger.position(opened.slot) == Position(opened.stream_id, NOT_BEGUN)
    assert looked.stream_id == opened.stream_id
    assert [name for _, name in looked.watches] == [os.fsencode(name) for name in world.path.parts[1:]]
    assert world.logs.counts() == (1, 1)
    assert world.records.events == [Event.LOG_OPENED]


def test_nothing_new_is_only_answered(world: World) -> None:
    world.start()
    _, looked = world.look()
    assert world.look() == ([], looked)
    assert world.records.events == [Event.LOG_OPENED]


def test_what_appears_later_is_new_from_its_beginning(world: World) -> None:
    world.path.unlink()
    world.start()
    for _ in range(2):
        opened, looked = world.look()
        assert opened == []
        assert looked.stream_id == 0
        assert looked.watches[-1][1] == b"log"
    assert world.records.events == [Event.LOG_MISSING]  # said once
    assert world.logs.counts() == (0, 1)
    world.path.write_text("new\n")
    [new], looked = world.look()
    assert (new.start, looked.stream_id) == (Start.BEGIN, new.stream_id)


def test_a_missing_directory_is_watched_as_far_as_it_exists(world: World, tmp_path: Path) -> None:
    world.start(tmp_path / "a/b/log")
    assert world.look()[1].watches[-1][1] == b"a"
    (tmp_path / "a").mkdir()
    assert world.look()[1].watches[-1][1] == b"b"
    (tmp_path / "a/b").mkdir()
    (tmp_path / "a/b/log").touch()
    [opened], looked = world.look()
    assert opened.start is Start.BEGIN
    assert [name for _, name in looked.watches][-3:] == [b"a", b"b", b"log"]


def test_a_refused_file_is_still_history_when_it_comes_right(world: World) -> None:
    world.path.unlink()
    os.mkfifo(world.path)
    world.start()
    assert world.look()[1].stream_id == 0
    assert world.look()[1].stream_id == 0
    assert world.records.events == [Event.LOG_REFUSED]
    world.path.unlink()
    world.path.touch()
    assert world.look()[0][0].start is Start.END


def test_a_rotated_file_is_kept_as_long_as_it_is_written_to(world: World) -> None:
    world.start()
    [old], _ = world.look()
    with world.path.open("a"):
        new = world.rotate()
        assert new.start is Start.BEGIN
        world.logs.unwritten(old.stream_id)
        assert world.monitor.take() == []
    world.logs.unwritten(old.stream_id)
    assert world.monitor.take() == [StreamUnwritten(old.stream_id)]
    world.logs.dropped(old.stream_id)
    world.logs.unwritten(old.stream_id)  # it is gone
    assert world.monitor.take() == []
    assert world.records.events == [Event.LOG_OPENED, Event.LOG_ROTATED]
    assert {fields["LOGNOT_PATH"] for fields in world.records.fields} == {str(world.path)}


def test_the_current_file_is_never_let_go(world: World) -> None:
    world.start()
    [opened], _ = world.look()
    world.logs.unwritten(opened.stream_id)  # nobody writes to it now
    assert world.monitor.take() == []


def test_the_path_came_to_lead_to_a_file_that_is_just_let_go(world: World) -> None:
    world.start()
    [opened], _ = world.look()
    world.begin(opened, 8)
    world.logs.dropped(opened.stream_id)
    [again, looked] = world.monitor.take()
    assert isinstance(again, LogOpened)
    assert isinstance(looked, LogLooked)
    assert again.start is Start.COMMITTED
    assert looked.stream_id == again.stream_id != opened.stream_id
    assert world.ledger.position(again.slot) == Position(again.stream_id, 8)


def test_a_file_that_comes_back_while_it_is_open_is_the_same_stream(world: World) -> None:
    world.start()
    [old], _ = world.look()
    world.path.rename(world.directory / "log.1")
    assert world.look()[1].stream_id == 0
    (world.directory / "log.1").rename(world.path)
    opened, looked = world.look()
    assert opened == []
    assert looked.stream_id == old.stream_id


def test_a_file_that_comes_back_later_is_read_on_where_it_was_left(world: World) -> None:
    """A symlink that is switched to another target and back."""
    targets = [world.directory / "a", world.directory / "b"]
    for target in targets:
        target.write_text("history\n")
    world.path.unlink()
    world.path.symlink_to("a")
    world.start()
    [first], _ = world.look()
    world.begin(first, 8)
    (world.directory / "new").symlink_to("b")
    (world.directory / "new").rename(world.path)
    [second], looked = world.look()
    assert second.start is Start.BEGIN
    assert b"b" in [name for _, name in looked.watches]
    world.ledger.commit([(first.slot, Position(first.stream_id, 20, 1, True, b"d" * 16))])
    world.logs.dropped(first.stream_id)
    (world.directory / "new").symlink_to("a")
    (world.directory / "new").rename(world.path)
    [third], _ = world.look()
    assert third.start is Start.COMMITTED
    assert world.ledger.position(third.slot) == Position(third.stream_id, 20, 1, True, b"d" * 16)


def test_a_deleted_file_is_not_remembered(world: World) -> None:
    """Its inode number may be the next file's."""
    world.start()
    [old], _ = world.look()
    world.begin(old, 8)
    world.path.unlink()
    world.look()
    world.logs.dropped(old.stream_id)
    world.path.write_text("new\n")
    [new], _ = world.look()
    assert new.start is Start.BEGIN
    assert world.ledger.position(new.slot) == Position(new.stream_id, NOT_BEGUN)


def test_not_too_many_files_are_remembered(world: World) -> None:
    world.start()
    [old], _ = world.look()
    for _ in range(2 * MAX_REMEMBERED):
        world.begin(old)
        new = world.rotate()
        world.logs.dropped(old.stream_id)
        old = new
    assert len(world.logs._logs[1].remembered) == MAX_REMEMBERED


def test_rotated_files_with_a_writer_are_pushed_out_by_newer_ones(world: World) -> None:
    world.start()
    [opened], _ = world.look()
    streams = [opened.stream_id]
    for _ in range(MAX_ROTATED):
        streams.append(world.rotate().stream_id)
    world.path.rename(world.directory / "last")
    world.path.touch()
    world.logs.look(1)
    assert StreamUnwritten(streams[0]) in world.monitor.take()


def test_descriptors_and_watches_do_not_grow(world: World) -> None:
    world.start()
    [old], _ = world.look()
    before = len(open_descriptors()), watch_count(world)
    slots = set()
    for _ in range(50):
        new = world.rotate()
        world.logs.unwritten(old.stream_id)
        assert world.monitor.take() == [StreamUnwritten(old.stream_id)]
        world.logs.dropped(old.stream_id)
        slots.add(new.slot)
        old = new
    assert (len(open_descriptors()), watch_count(world)) == before
    assert len(slots) == 2


def test_a_new_monitor_is_told_everything(world: World) -> None:
    world.start()
    [first], _ = world.look()
    world.begin(first, 8)
    with world.path.open("a"):
        second = world.rotate()
        world.logs.disconnect()
        world.logs.unwritten(first.stream_id)  # to nobody
        world.monitor = Monitor()
        world.logs.connect(world.monitor)
        use, again_first, again_second = world.monitor.take()
        assert use == UseWatches()
        assert isinstance(again_first, LogOpened)
        assert (again_first.stream_id, again_first.slot) == (first.stream_id, first.slot)
        assert again_first.start is Start.COMMITTED  # the last monitor had begun it
        assert isinstance(again_second, LogOpened)
        assert (again_second.stream_id, again_second.start) == (second.stream_id, Start.BEGIN)  # but not this
        opened, looked = world.look()
        assert opened == []
        assert looked.stream_id == second.stream_id
        # Its watches are of the new instance, and are let go there.
        assert watch_count(world) == len({wd for wd, _ in looked.watches}) + 2


def instances() -> int:
    return sum(
        os.path.realpath(f"/proc/self/fd/{fd}").endswith("inotify") for fd in os.listdir("/proc/self/fd")
    )


def connect_again(world: World) -> None:
    world.logs.disconnect()
    world.monitor = Monitor()
    world.logs.connect(world.monitor)


def test_no_log_waits_until_the_watches_of_the_last_monitor_are_closed(world: World) -> None:
    world.start()
    world.look()
    before = instances()
    for _ in range(3):  # that do not get as far as to begin
        connect_again(world)
        assert instances() == before + 1
    world.look()
    world.logs.begun()
    assert instances() == before


def test_a_limit_that_those_of_the_last_monitor_meet(world: World) -> None:
    """Of instances, descriptors or watches: they are closed, and it is tried again at once."""
    world.start()
    world.look()
    before = instances()
    limited = WatchLimitError(errno.EMFILE, "inotify limit reached")
    with patch.object(watch, "Watches", side_effect=[limited, Watches()]):
        connect_again(world)
    assert instances() == before
    world.look()
    connect_again(world)
    real = Watches.add

    def add(watches: Watches, fd: int, mask: int) -> int:
        if instances() > before:
            raise limited
        return real(watches, fd, mask)

    with patch.object(Watches, "add", add):
        assert world.look()[1].stream_id
    assert world.logs.limited() == []
    assert instances() == before


def test_a_slot_that_the_last_user_wrote_to_late_is_not_mistaken(world: World) -> None:
    """After a reload, the monitor may commit once more before it hears that its log is gone."""
    world.start()
    [old], _ = world.look()
    other = world.directory / "other"
    other.touch()
    world.logs.configure([str(other)])
    [new], _ = world.look(2)
    assert new.slot == old.slot
    world.ledger.commit([(old.slot, Position(old.stream_id, 8))])
    world.monitor = Monitor()
    world.logs.connect(world.monitor)
    opened = world.monitor.take()[1]
    assert isinstance(opened, LogOpened)
    assert (opened.stream_id, opened.start) == (new.stream_id, Start.END)


def test_two_paths_to_one_file(world: World) -> None:
    link = world.directory / "link"
    link.symlink_to("log")
    world.start(world.path, link)
    found = [world.look(log_id)[0][0] for log_id in (1, 2)]
    assert found[0].wd == found[1].wd
    assert found[0].stream_id != found[1].stream_id
    assert found[0].slot != found[1].slot
    world.logs.configure([str(world.path)])  # the watch is still needed
    assert f"wd:{found[0].wd:x} " in Path(f"/proc/self/fdinfo/{world.monitor.inotify}").read_text()


def test_a_log_that_leaves_the_config_is_closed(world: World) -> None:
    world.start()
    before = open_files()
    assert world.logs.path(1) == str(world.path)
    [opened], _ = world.look()
    world.rotate()
    assert open_files() == before + 2
    assert world.logs.configure([]) == {}
    assert open_files() == before
    assert watch_count(world) == 0
    world.logs.look(1)
    world.logs.unwritten(opened.stream_id)
    world.logs.dropped(opened.stream_id)
    assert world.monitor.take() == []
    assert world.logs.path(1) == ""


def test_a_log_that_stays_in_the_config_is_left_alone(world: World) -> None:
    world.start()
    world.look()
    other = world.directory / "other"
    assert world.logs.configure([str(other), str(world.path)]) == {str(world.path): 1, str(other): 2}
    assert world.look()[0] == []


def test_a_limit_of_watches_is_tried_again(world: World) -> None:
    world.start()
    error = WatchLimitError(errno.ENOSPC, "inotify limit reached")
    with patch.object(Watches, "add", side_effect=error):
        assert world.look() == ([], LogLooked(1, 0, ()))
    assert world.logs.limited() == [1]
    assert len(world.look()[0]) == 1
    assert world.logs.limited() == []


def test_a_file_that_cannot_be_watched_leaves_nothing_open(world: World) -> None:
    world.start()
    before = open_files()
    real = Watches.add

    def no_files(watches: Watches, fd: int, mask: int) -> int:
        if mask == watch.FILE_MASK:
            raise WatchLimitError(errno.ENOSPC, "inotify limit reached")
        return real(watches, fd, mask)

    with patch.object(Watches, "add", no_files):
        for _ in range(3):
            assert world.look()[1].stream_id == 0
    assert open_files() == before
    assert world.look()[0][0].start is Start.END


def no_watch(watches: Watches, fd: int, mask: int) -> int:
    raise WatchLimitError(errno.ENOSPC, "inotify limit reached")


def test_at_a_limit_the_file_that_is_there_stays(world: World) -> None:
    """With the directories that are watched, so that a rotation is still told."""
    world.start()
    before = world.look()[1]
    count = watch_count(world)
    with patch.object(Watches, "add", no_watch):
        assert world.look() == ([], before)
    assert watch_count(world) == count
    assert world.look() == ([], before)
    assert world.logs.limited() == []


def test_at_a_limit_a_rotated_file_is_let_go(world: World) -> None:
    """It may be what takes the last watch that its successor needs."""
    world.start()
    [opened], _ = world.look()
    world.begin(opened)
    world.path.rename(world.directory / "log.1")
    world.path.touch()
    with patch.object(Watches, "add", no_watch):
        assert world.look()[1].stream_id == 0
    world.logs.unwritten(opened.stream_id)
    assert world.monitor.take() == [StreamUnwritten(opened.stream_id)]
    [new], _ = world.look()
    assert new.start is Start.BEGIN


@pytest.mark.parametrize("rotated", [False, True])
def test_a_log_that_could_not_be_watched_first_is_read_from_its_end_then(world: World, rotated: bool) -> None:
    world.start()
    with patch.object(Watches, "add", no_watch):
        world.look()
        world.path.write_text("history\nnew\n")
        world.look()
    if rotated:
        world.path.rename(world.directory / "log.1")
        world.path.write_text("newer\n")
    [opened], _ = world.look()
    assert (opened.start, opened.size) == ((Start.BEGIN, 6) if rotated else (Start.END, 8))


def test_a_descriptor_that_cannot_be_passed_is_passed_later(world: World) -> None:
    world.start()
    before = open_files()
    count = watch_count(world)

    def refuse(message: Message, fd: int) -> None:
        if isinstance(message, LogOpened):
            raise OSError(errno.EMFILE, "Too many open files")

    with patch.object(world.logs._streams, "send", refuse):
        world.logs.look(1)
    assert open_files() == before
    assert watch_count(world) == count
    assert len(world.look()[0]) == 1


def test_every_file_is_passed_to_a_new_monitor_once_it_can_be_watched(world: World) -> None:
    world.start()
    [old], _ = world.look()
    world.begin(old)
    new = world.rotate()
    world.begin(new)
    real = Watches.add
    with patch.object(Watches, "add", no_watch):
        world.logs.connect(world.monitor)
        world.monitor.take()
        world.look()
    assert Watches.add is real
    opened, looked = world.look()
    assert [message.stream_id for message in opened] == [old.stream_id, new.stream_id]
    assert looked.stream_id == new.stream_id


def test_too_many_open_files_are_refused(tmp_path: Path) -> None:
    with patch.object(streams, "MAX_STREAMS", 2):
        world = World(tmp_path)
    paths = [tmp_path / str(number) for number in range(3)]
    for path in paths:
        path.touch()
    world.start(*paths)
    before = open_files()
    assert [len(world.look(log_id)[0]) for log_id in (1, 2, 3)] == [1, 1, 0]
    assert open_files() == before + 2
    assert world.records.events[-1] is Event.LOG_REFUSED
    world.logs.configure(str(path) for path in paths[1:])
    assert len(world.look(3)[0]) == 1
    world.logs.configure([])
    assert world.logs._streams._watches is not None
    world.logs._streams._watches.close()


def test_before_there_is_a_monitor_nothing_is_looked_at(world: World) -> None:
    world.logs.configure([str(world.path)])
    world.logs.look_all()
    assert world.logs.counts() == (0, 1)


def test_whoever_renames_in_the_directory_does_not_fill_our_log(world: World) -> None:
    world.start()
    world.look()
    for _ in range(1000):
        world.path.rename(world.directory / "old")
        world.look()
        (world.directory / "old").rename(world.path)
        world.look()
    events = world.records.events
    assert len(events) < 1500
    assert events.count(Event.RECORDS_DROPPED) == 1


def test_a_link_to_a_name_that_no_directory_has_is_only_trouble(world: World) -> None:
    """Its name has no room in a message: the monitor was ended for it, again and again."""
    world.path.unlink()
    world.path.symlink_to("x" * 300)
    world.start()
    for _ in range(2):
        opened, looked = world.look()
        assert not opened
        encode(looked)
    assert world.records.events == [Event.LOG_REFUSED]


def test_a_file_that_somebody_holds_a_lease_on_is_tried_again(world: World) -> None:
    """Opening it never waits; nothing tells when the lease is gone."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    holder = os.open(world.path, os.O_WRONLY)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        world.start()
        opened, _ = world.look()
        assert not opened
        assert world.logs.limited() == [1]
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        opened, _ = world.look()
        assert opened
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize(("moment", "start"), [(b"first", Start.COMMITTED), (b"later", Start.BEGIN)])
def test_an_inode_that_is_given_out_again(world: World, moment: bytes, start: Start) -> None:
    """The new file begins with the same bytes as the old one, and is another one all the same."""
    world.start()
    with patch.object(logs, "born", lambda fd: b"first"):
        [old], _ = world.look()
        world.begin(old, 5)
        world.begin(world.rotate(), 0)
        world.logs.dropped(old.stream_id)
    os.replace(next(world.directory.glob("log.*")), world.path)
    with patch.object(logs, "born", lambda fd: moment):
        assert world.look()[0][0].start is start


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN])
def test_a_file_that_its_server_has_forgotten(world: World, number: int) -> None:
    """Of NFS or FUSE: it is let go all the same."""
    world.start()
    [old], _ = world.look()
    world.begin(old, 8)
    world.rotate()
    with patch.object(os, "fstat", side_effect=OSError(number, os.strerror(number))):
        world.logs.dropped(old.stream_id)
    assert old.stream_id not in world.logs._logs[1].streams


def test_a_slot_that_was_freed_just_now_takes_no_position(world: World) -> None:
    """The monitor may write there once more, before it hears of a reload."""
    for name in ("a", "b"):
        (world.directory / name).write_text("history\n")
    other = world.directory / "other"
    other.touch()
    world.path.unlink()
    world.path.symlink_to("a")
    world.start(world.path, other)
    [first], _ = world.look()
    world.begin(first, 8)
    [busy], _ = world.look(2)
    (world.directory / "new").symlink_to("b")
    (world.directory / "new").rename(world.path)
    world.look()
    world.logs.dropped(first.stream_id)
    (world.directory / "new").symlink_to("a")
    (world.directory / "new").rename(world.path)
    world.logs.configure([str(world.path)])
    [again], _ = world.look()
    world.ledger.commit([(busy.slot, Position(busy.stream_id, 77))])
    assert again.start is Start.COMMITTED
    assert world.ledger.position(again.slot) == Position(again.stream_id, 8)


@pytest.mark.parametrize("tries", range(4))
def test_nothing_stays_open_that_cannot_be_looked_at(world: World, tries: int) -> None:
    world.start()
    before = len(open_descriptors())
    fstat = os.fstat
    left = iter(range(tries))

    def fail(fd: int) -> os.stat_result:
        if os.readlink(f"/proc/self/fd/{fd}") == str(world.path) and next(left, None) is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return fstat(fd)

    with patch.object(os, "fstat", fail):
        world.look()
    world.logs.configure([])
    world.monitor.take()
    assert len(open_descriptors()) == before


# Rotated twice before anybody looked.


def test_a_file_that_came_and_went_is_found(world: World) -> None:
    world.start()
    [old], _ = world.look()
    world.path.rename(world.directory / "log.2")
    world.path.write_text("between\n")
    inode = world.path.stat().st_ino
    world.path.rename(world.directory / "any name")
    world.path.touch()
    opened, looked = world.look()
    assert [message.start for message in opened] == [Start.BEGIN, Start.BEGIN]
    assert world.monitor.inodes[opened[0].stream_id] == inode
    assert looked.stream_id == opened[1].stream_id
    assert world.records.events == [Event.LOG_OPENED, Event.LOG_ROTATED, Event.LOG_ROTATED]
    assert "reading 'any name' too" in world.records.messages[1]
    assert world.look() == ([], looked)
    assert old.stream_id not in {message.stream_id for message in opened}


def test_a_file_that_came_and_went_while_there_is_no_log_now(world: World) -> None:
    world.start()
    world.look()
    for name in ("log.2", "log.1"):
        world.path.rename(world.directory / name)
        if name == "log.2":
            world.path.touch()
    [between], looked = world.look()
    assert (between.start, looked.stream_id) == (Start.BEGIN, 0)


def test_a_file_that_was_there_before_the_start_is_history(world: World) -> None:
    """The log was rotated between the first walk of its path and the first file that could be opened."""
    world.start()
    with patch.object(Watches, "add", no_file_watch):
        world.look()
    world.path.rename(world.directory / "log.1")
    world.path.touch()
    opened, _ = world.look()
    assert len(opened) == 1
    assert world.logs.limited() == []


def no_file_watch(watches: Watches, fd: int, mask: int, add: Callable[..., int] = Watches.add) -> int:
    if mask == watch.FILE_MASK:
        raise WatchLimitError(errno.ENOSPC, "inotify limit reached")
    return add(watches, fd, mask)


def rotate_twice(world: World) -> None:
    for number in (2, 1):
        world.path.rename(world.directory / f"log.{number}")
        world.path.touch()


def test_a_file_that_came_and_went_at_a_limit_is_opened_later(world: World) -> None:
    world.start()
    world.look()
    rotate_twice(world)
    with patch.object(Watches, "add", no_file_watch):
        for _ in range(3):
            world.look()
    assert world.logs.limited() == [1]
    (world.directory / "log.1").rename(world.directory / "log.0")
    opened, looked = world.look()
    assert world.monitor.inodes[opened[0].stream_id] == (world.directory / "log.0").stat().st_ino
    assert looked.stream_id == opened[1].stream_id
    assert world.logs.limited() == []


@contextmanager
def nothing_at(*names: str) -> Iterator[None]:
    """There is nothing where files that came and went are looked for."""
    real = unseen.open_log

    def not_there(path: str, visit: Visit) -> int:
        if os.path.basename(path) in names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real(path, visit)

    with patch.object(unseen, "open_log", not_there):
        yield


def test_a_name_that_changes_before_it_is_reported(world: World) -> None:
    """The kernel moves the file first, and reports it then."""
    world.start()
    world.look()
    rotate_twice(world)
    with nothing_at("log.1"):
        [current], _ = world.look()
    assert world.logs.limited() == [1]
    [between], looked = world.look()
    assert (between.start, looked.stream_id) == (Start.BEGIN, current.stream_id)
    assert world.logs.limited() == []


def test_a_name_at_which_there_never_is_anything_is_given_up(world: World) -> None:
    world.start()
    world.look()
    rotate_twice(world)
    with nothing_at("log.1", "log.2"):
        for _ in range(MAX_MISSES):
            assert world.logs.limited() in ([1], [])
            world.look()
    assert world.logs.limited() == []


def test_a_file_that_goes_on_while_it_is_opened(world: World) -> None:
    """Another one comes to its name just then."""
    world.start()
    world.look()
    rotate_twice(world)
    inode = (world.directory / "log.1").stat().st_ino
    real = unseen.open_log

    def moved_on(path: str, visit: Visit) -> int:
        if path.endswith("log.1") and not (world.directory / "log.9").exists():
            (world.directory / "log.1").rename(world.directory / "log.9")
            (world.directory / "log.1").write_text("of somebody else\n")
        return real(path, visit)

    with patch.object(unseen, "open_log", moved_on):
        opened, _ = world.look()
    assert world.monitor.inodes[opened[0].stream_id] == inode
    assert len(opened) == 2


def test_a_link_to_a_secret_that_came_and_went_is_not_followed(world: World, tmp_path: Path) -> None:
    """Whoever owns the directory renames what he likes."""
    secret = tmp_path / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "log").touch()
    for path in (theirs, theirs / "log"):
        os.chown(path, 65534, 65534)
    world.start(theirs / "log")
    world.look()
    (theirs / "log").rename(theirs / "log.2")
    (theirs / "log").symlink_to(secret)
    (theirs / "log").rename(theirs / "log.1")
    (theirs / "log").touch()
    os.chown(theirs / "log", 65534, 65534)
    opened, _ = world.look()
    inodes = [world.monitor.inodes[message.stream_id] for message in opened]
    assert inodes == [(theirs / "log").stat().st_ino]
    assert world.logs.limited() == []
    assert world.look()[0] == []


def test_many_files_that_came_and_went_are_opened_bit_by_bit(world: World) -> None:
    """Other logs wait meanwhile."""
    world.start()
    world.look()
    for number in range(MAX_AT_ONCE + 2):
        world.path.rename(world.directory / f"log.{number}")
        world.path.touch()
    opened, _ = world.look()
    assert len(opened) == MAX_AT_ONCE  # the one that the path leads to is one of them
    assert world.logs.limited() == [1]
    assert world.look()[0] == []
    for message in opened[:10]:
        world.logs.dropped(message.stream_id)
    assert len(world.look()[0]) == 2
    assert world.logs.limited() == []


def test_a_log_that_is_rotated_faster_than_it_is_read(world: World) -> None:
    """There is an end to its open files, and to what is said of them; the others are opened afterwards."""
    world.start()
    world.look()
    inodes, unwritten = set(), []
    for number in range(2 * MAX_OPEN):
        world.path.rename(world.directory / f"log.{number}")
        world.path.touch()
        inodes.add(world.path.stat().st_ino)
        world.logs.look(1)
        unwritten += world.monitor.take_unwritten()
        assert len(world.logs._logs[1].streams) <= MAX_OPEN
    assert len(unwritten) == len(set(unwritten)) == MAX_OPEN - MAX_ROTATED
    assert world.records.messages[-1] == (
        f"log '{world.path}' cannot be watched, will be tried again every few seconds: "
        f"it is rotated faster than it is read: {MAX_OPEN} files of it are open"
    )
    for number in range(2 * MAX_OPEN):  # they have other names by now
        (world.directory / f"log.{number}").rename(world.directory / f"older.{number}")
    while world.logs.limited():
        world.logs.dropped(min(world.logs._logs[1].streams))
        world.logs.look(1)
    assert inodes <= set(world.monitor.inodes.values())
    assert world.logs.counts() == (1, 1)


def test_a_file_that_was_pushed_out_is_pushed_out_again_when_it_came_back(world: World) -> None:
    """Whoever has taken it for the current one has forgotten that it is to go."""
    world.start()
    [first], _ = world.look()
    for _ in range(MAX_ROTATED + 1):
        world.rotate()
    world.path.rename(world.directory / "last")
    (world.directory / "log.1").rename(world.path)
    _, looked = world.look()
    assert looked.stream_id == first.stream_id
    world.path.rename(world.directory / "log.1")
    world.path.touch()
    world.logs.look(1)
    assert world.monitor.take_unwritten()[:1] == [StreamUnwritten(first.stream_id)]


def test_files_that_came_and_went_need_no_watch_that_others_need(world: World) -> None:
    """The limit of watches is met by the one that tells of renames; names and times tell then."""
    real = Watches.add

    def one_of_files(watches: Watches, fd: int, mask: int) -> int:
        if mask == watch.FILE_MASK and world.logs._unseen._renames._places:
            raise WatchLimitError(errno.ENOSPC, "inotify limit reached")
        return real(watches, fd, mask)

    world.start()
    with patch.object(Watches, "add", one_of_files):
        assert len(world.look()[0]) == 1
        rotate_twice(world)
        opened, _ = world.look()
    assert world.monitor.inodes[opened[0].stream_id] == (world.directory / "log.1").stat().st_ino
    assert len(opened) == 2
    assert world.records.events[:2] == [Event.SELF_ERROR, Event.LOG_OPENED]
    assert "fs.inotify.max_user_watches" in world.records.messages[0]
    world.logs.configure([str(world.path)])
    world.look()
    assert world.logs._unseen._renames._places
    assert world.logs.limited() == []


def test_after_a_full_queue_names_and_times_tell(world: World) -> None:
    world.start()
    world.look()
    history = world.directory / "log.7"
    history.touch()
    os.utime(history, (1, 1))
    rotate_twice(world)
    with patch.object(watch, "read_events", return_value=([watch.Event(-1, watch.OVERFLOWED, b"")], False)):
        opened, looked = world.look()
    assert [world.monitor.inodes[message.stream_id] for message in opened] == [
        (world.directory / "log.1").stat().st_ino,
        world.path.stat().st_ino,
    ]
    assert world.look() == ([], looked)


def test_a_directory_that_is_called_as_the_log(world: World) -> None:
    directory = world.directory / "log.d" / "log.d"
    directory.parent.mkdir()
    world.directory = directory.parent
    world.path = directory.parent / "log.d"
    world.path.touch()
    world.start(world.path)
    world.look()
    rotate_twice(world)
    assert len(world.look()[0]) == 2


def test_a_link_to_a_log_of_the_same_name(world: World, tmp_path: Path) -> None:
    """What stands beside the link is none of the log's, whatever is renamed beside the target."""
    real, links = tmp_path / "real", tmp_path / "links"
    for directory in (real, links):
        directory.mkdir()
    for name in ("log", "another"):
        (real / name).touch()
        (links / name).symlink_to(real / name)
    (links / "log.1").write_text("of another one\n")
    world.start(links / "another", links / "log")
    world.look(1)
    world.look(2)
    (real / "log").rename(real / "log.1")
    (real / "log").touch()
    opened, _ = world.look(2)
    assert [world.monitor.inodes[one.stream_id] for one in opened] == [(real / "log").stat().st_ino]


def test_a_directory_that_was_switched_after_a_rotation(world: World, tmp_path: Path) -> None:
    """The new one has files of such names, too."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log").touch()
    (tmp_path / "second/log.1").write_text("history\n")
    (tmp_path / "logs").symlink_to("first")
    world.start(tmp_path / "logs/log")
    world.look()
    (tmp_path / "first/log").rename(tmp_path / "first/log.1")
    (tmp_path / "first/log").touch()
    world.logs._unseen._renames.read()  # as another log's look does
    (tmp_path / "new").symlink_to("second")
    (tmp_path / "new").rename(tmp_path / "logs")
    opened, _ = world.look()
    assert [world.monitor.inodes[one.stream_id] for one in opened] == [
        (tmp_path / "second/log").stat().st_ino
    ]


def test_a_file_that_came_and_went_before_the_path_was_refused(world: World) -> None:
    other = world.directory / "other"
    other.touch()
    world.start(world.path, other)
    for log_id in (1, 2):
        world.look(log_id)
    rotate_twice(world)
    world.path.unlink()
    os.mkfifo(world.path)
    opened, looked = world.look()
    assert [one.start for one in opened] == [Start.BEGIN]
    assert looked.stream_id == 0
    world.look(2)
    assert world.logs.limited() == []


def test_what_leaves_during_the_first_look_is_history(world: World) -> None:
    """Also when the second event of that rename comes later."""
    world.start()
    late: list[watch.Event] = []

    def rotated(path: str, visit: Visit) -> int:
        def rotate(directory: int, name: bytes) -> None:
            visit(directory, name)
            if name == b"log":
                world.path.rename(world.directory / "log.1")
                world.path.touch()

        return open_log(path, rotate)

    def first_half(fd: int) -> tuple[list[watch.Event], bool]:
        events, may_be_more = read_events(fd)
        late.extend(event for event in events if event.mask & watch.MOVED_TO)
        return [event for event in events if event not in late], may_be_more

    open_log, read_events = logs.open_log, watch.read_events
    with patch.object(logs, "open_log", rotated), patch.object(watch, "read_events", first_half):
        [current], _ = world.look()
    assert late
    assert current.start is Start.END
    with patch.object(watch, "read_events", lambda fd: (late, False)):
        assert world.look()[0] == []
    assert world.logs.limited() == []


def test_a_file_that_came_back_and_went_again_is_read_on(world: World) -> None:
    world.start()
    [first], _ = world.look()
    world.rotate()
    old = next(path for path in world.directory.iterdir() if path != world.path)
    world.begin(first, 8)
    world.logs.dropped(first.stream_id)
    world.path.rename(world.directory / "aside")
    old.rename(world.path)
    world.path.rename(old)
    (world.directory / "aside").rename(world.path)
    [again], _ = world.look()
    assert again.start is Start.COMMITTED
    assert world.ledger.position(again.slot) == Position(again.stream_id, 8)


def test_a_log_that_is_rotated_by_links(world: World) -> None:
    """Nothing leaves its name: it is removed, or another file comes over it."""
    world.start()
    world.look()
    for number in (3, 2, 1):
        os.utime(world.path, (4 - number, 4 - number))  # when it was written to last tells their order
        os.link(world.path, world.directory / f"log.{number}")
        if number == 3:
            world.path.unlink()
            world.path.touch()
        else:
            (world.directory / "new").touch()
            (world.directory / "new").rename(world.path)
    opened, _ = world.look()
    assert [world.monitor.inodes[one.stream_id] for one in opened] == [
        path.stat().st_ino for path in (world.directory / "log.2", world.directory / "log.1", world.path)
    ]


def test_winding_links_that_came_and_went(world: World, tmp_path: Path) -> None:
    """Each is refused at the same length as the log's own path, and once."""
    theirs = tmp_path / "theirs"
    (theirs / "d").mkdir(parents=True)
    (theirs / "winding").symlink_to("d/../" * 500 + "log")
    (theirs / "log").touch()
    for path in (theirs, theirs / "d", theirs / "log", theirs / "winding"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    world.start(theirs / "log")
    world.look()
    (theirs / "log").rename(theirs / "log.2")
    (theirs / "winding").rename(theirs / "log")
    (theirs / "log").rename(theirs / "log.1")
    visited: list[bytes] = []
    with patch.object(unseen, "pass_by", lambda directory, name: visited.append(name)):
        world.look()
        assert MAX_WATCHES < len(visited) < 2 * MAX_WATCHES
        visited.clear()
        world.look()
    assert visited == []


def test_too_many_files_that_came_and_went_are_said(world: World) -> None:
    world.start()
    world.look()
    for number in range(MAX_FILES + 10):
        world.path.rename(world.directory / f"log.{number}")
        world.path.touch()
    world.logs.look(1)
    assert world.records.events[1] is Event.LOG_UNREADABLE
    assert world.records.messages[1].endswith(
        "was rotated more than 1024 times before it was looked at: 10 files are not read"
    )


def test_the_file_that_the_path_leads_to_is_the_newest(world: World) -> None:
    """Also where older ones are opened after it: it is not pushed out, and a restart goes on from there."""
    world.logs.configure([str(world.path)], [str(world.path)])
    world.logs.connect(world.monitor)
    world.monitor.take()
    world.look()
    for number in range(MAX_AT_ONCE + MAX_ROTATED + 1):
        world.path.rename(world.directory / f"log.{number}")
        world.path.touch()
    first, looked = world.look()
    log = world.logs._logs[1]
    for one in first[: MAX_ROTATED + 1]:
        world.logs.dropped(one.stream_id)
    opened, _ = world.look()
    assert opened
    assert max(log.streams) == log.current == looked.stream_id
    world.logs.unreadable(log.current)  # it is not let go as one that was pushed out
    assert log.current in log.streams
    for one in log.streams.values():
        world.ledger.assign(one.slot, Position(one.stream_id, 0))
    saved = world.logs.positions()[str(world.path)]
    assert saved[-1].identity == (world.path.stat().st_dev, world.path.stat().st_ino)
