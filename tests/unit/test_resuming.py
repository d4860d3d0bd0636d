"""What the next service goes on with, wherever the last one was killed. The monitor is its `Files` alone."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from lognot import resuming, rotated, streams
from lognot.continuity import Continuity
from lognot.files import Files
from lognot.journal import Event, Journal
from lognot.ledger import Ledger
from lognot.logs import MAX_ROTATED, Logs
from lognot.loop import Loop
from lognot.messages import (
    LogLooked,
    LogOpened,
    LookAgain,
    Message,
    StreamDrained,
    StreamDropped,
    StreamUnreadable,
    StreamUnwritten,
)
from lognot.notes import Notes
from lognot.roll import Roll
from lognot.watch import Watches, WatchLimitError
from unit.records import Records

MAX_LINE = 1000


class Killed(BaseException):
    """SIGKILL: nobody catches it."""


class Service:
    """A supervisor's logs and a monitor's files in one process, which speak when `turn` lets them."""

    def __init__(self, state: Path, memory: str, *paths: Path) -> None:
        self.lines: list[str] = []
        self.records = Records()
        self.logs: Logs | None = None
        self._memory = memory
        self._paths = {str(path) for path in paths}
        self._continuity = Continuity(str(state), "lognot.conf", Journal([self.records]))
        self._files: Files | None = None
        self._inbox: list[tuple[Message, int]] = []
        self._outbox: list[Message] = []

    @property
    def events(self) -> list[Event]:
        return self.records.events

    def start(self) -> Service:
        saved = self._continuity.load(self._memory, self._paths)
        self._ledger = self._continuity.ledger or Ledger()
        self.logs = Logs(self._ledger, Journal([self.records]), self._continuity.roll)
        self._log_ids = set(self.logs.configure(self._paths, self._paths).values())
        self.logs.resume(saved)
        self._continuity.use(Loop(), self.logs.positions)
        self.save()
        return self.start_monitor()

    def start_monitor(self) -> Service:
        """Start the first one, or another one."""
        assert self.logs is not None
        if self._files is not None:
            self._files.configure(set(), MAX_LINE)
        notes = Notes(Loop(), self._outbox.append)
        self._files = Files(self._ledger, notes, self._outbox.append, lambda: True, lambda: None)
        self._files.configure(self._log_ids, MAX_LINE)
        self.logs.connect(lambda message, fd: self._inbox.append((message, os.dup(fd) if fd >= 0 else fd)))
        self.logs.look_all()
        self.turn()
        self.logs.begun()
        return self

    def configure(self, *paths: Path) -> Service:
        """Watch these and no others."""
        assert self.logs is not None
        assert self._files is not None
        names = {str(path) for path in paths}
        self._files.configure(set(self.logs.configure(names, names).values()), MAX_LINE)
        return self

    def turn(self) -> Service:
        """Look again at the logs that met a limit, and go on until there is nothing to do."""
        assert self.logs is not None
        assert self._files is not None
        for log_id in self.logs.limited():
            self.logs.look(log_id)
        while self._inbox or self._outbox or self._files.dirty:
            while self._inbox:
                self._to_monitor(self._files, *self._inbox.pop(0))
            for _, reading in self._files.readings():
                for block in reading.blocks:
                    self.lines += block.lines.decode().split()
            while self._outbox:
                self._to_supervisor(self.logs, self._outbox.pop(0))
        return self

    def look(self) -> Service:
        """Look at every log, as after a mount, and go on."""
        assert self.logs is not None
        assert self._files is not None
        self._files.read_all()
        self.logs.look_all()
        return self.turn()

    def _to_monitor(self, files: Files, message: Message, fd: int) -> None:
        match message:
            case LogOpened():
                files.opened(message, fd)
            case LogLooked():
                files.looked(message)
            case StreamUnwritten(stream_id):
                files.unwritten(stream_id)
            case _ if fd >= 0:
                os.close(fd)

    def _to_supervisor(self, logs: Logs, message: Message) -> None:
        match message:
            case LookAgain(log_id):
                logs.look(log_id)
            case StreamDrained(stream_id):
                logs.unwritten(stream_id)
            case StreamUnreadable(stream_id):
                logs.unreadable(stream_id)
            case StreamDropped(stream_id):
                logs.dropped(stream_id)

    def save(self) -> Service:
        self._continuity.save()
        return self

    def kill(self) -> list[str]:
        """End without another word; give what it has read."""
        fds = [fd for _, fd in self._inbox]
        if self._files is not None:
            fds += [stream.fd for stream in self._files._streams.values()]
        if self.logs is not None:
            fds += [stream.fd for log in self.logs._logs.values() for stream in log.streams.values()]
            self.logs._streams.close_outdated_watches()
            if self.logs._streams._watches is not None:
                self.logs._streams._watches.close()
            self.logs._unseen._renames._close()
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        self._continuity.close()
        return self.lines

    def stop(self) -> list[str]:
        """End cleanly; give what it has read."""
        return self.save().kill()


class Place:
    """A log, and what outlives a service that watches it."""

    def __init__(self, directory: Path, memory: str) -> None:
        self.memory = memory
        self.state = directory / "state"
        self.log = directory / "logs" / "log"
        self.log.parent.mkdir()
        self.log.touch()

    def service(self) -> Service:
        return Service(self.state, self.memory, self.log)

    def run(self) -> list[str]:
        """Have a service read what there is."""
        return self.service().start().stop()

    def write(self, *lines: str) -> None:
        with self.log.open("a") as file:
            file.writelines(line + "\n" for line in lines)

    def rotate(self) -> None:
        """As logrotate does it with `create`."""
        self._shift()
        self.log.rename(self.log.parent / "log.1")
        self.log.touch()

    def copy_and_empty(self) -> None:
        """As logrotate does it with `copytruncate`."""
        self._shift()
        shutil.copy2(self.log, self.log.with_name("log.1"))
        os.truncate(self.log, 0)

    def _shift(self) -> None:
        """Give each rotated file the next number."""
        numbers = sorted(int(path.suffix[1:]) for path in self.log.parent.iterdir() if path != self.log)
        for number in reversed(numbers):
            self.log.with_name(f"log.{number}").rename(self.log.with_name(f"log.{number + 1}"))

    def reboot(self) -> None:
        for name in os.listdir(self.memory):
            os.unlink(os.path.join(self.memory, name))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        gc.collect()  # of memory that is mapped the descriptor is kept, too
        before = len(os.listdir("/proc/self/fd"))
        yield Place(tmp_path, memory)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def other_device(number: int) -> Iterator[None]:
    """A file system has another number from now on."""

    def status_of(real: Callable[..., os.stat_result], *arguments: object, **more: object) -> os.stat_result:
        status = real(*arguments, **more)
        return os.stat_result((*status[:2], number, *status[3:]), status.__reduce__()[1][1])

    fstat, stat, listed = os.fstat, os.stat, rotated.list_files
    with (
        patch.object(os, "fstat", lambda *arguments: status_of(fstat, *arguments)),
        patch.object(os, "stat", lambda *arguments, **more: status_of(stat, *arguments, **more)),
        patch.object(
            resuming,
            "list_files",
            lambda directory: (
                replace(entry, identity=(number, entry.identity[1])) for entry in listed(directory)
            ),
        ),
    ):
        yield


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """Before the write of this number to what outlives the service, everything ends."""
    put, assign = Roll._put, Ledger.assign
    left = iter(range(number))

    def write(real: Callable[..., None], *arguments: object) -> None:
        if next(left, None) is None:
            raise Killed
        real(*arguments)

    with (
        patch.object(Roll, "_put", lambda *arguments: write(put, *arguments)),
        patch.object(Ledger, "assign", lambda *arguments: write(assign, *arguments)),
        suppress(Killed),
    ):
        yield


@contextmanager
def no_watch_for(*paths: Path) -> Iterator[None]:
    """The limit of watches is met at these files, not at the directories."""
    add, inodes = Watches.add, {path.stat().st_ino for path in paths}

    def refuse(watches: Watches, fd: int, mask: int) -> int:
        if os.fstat(fd).st_ino in inodes:
            raise WatchLimitError(errno.ENOSPC, "inotify limit reached")
        return add(watches, fd, mask)

    with patch.object(Watches, "add", refuse):
        yield


def killed_at_each_write(tmp_path: Path, prepare: Callable[[Place], None]) -> Iterator[list[str]]:
    """Have a start be killed before each of its writes, and at last not; another service reads on, and a "z".

    Gives what both have read.
    """
    number, came_through = 0, False
    while not came_through:
        directory = tmp_path / str(number)
        directory.mkdir()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            place = Place(directory, memory)
            place.run()
            prepare(place)
            service = place.service()
            with killed_at(number):
                service.start()
                came_through = True
            read = service.kill()
            place.write("z")
            yield read + place.run()
        number += 1
    assert number > 1


@pytest.mark.parametrize("before", ["nothing", "a reboot", "a reboot with a full disk"])
@pytest.mark.parametrize("rotated", [0, 1, 3])
def test_killed_at_any_moment_of_the_start(
    tmp_path: Path, rotated: int, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read twice, and what was not read is not lost."""
    real = Continuity._write
    full: set[str] = set()

    def write(continuity: Continuity, data: bytes) -> None:
        if str(continuity._path) in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(continuity, data)

    monkeypatch.setattr(Continuity, "_write", write)

    def prepare(place: Place) -> None:
        place.write("a", "b")
        assert place.run() == ["a", "b"]
        if before != "nothing":
            place.reboot()
        if before == "a reboot with a full disk":
            full.add(str(place.state))
        place.write("c")
        for rotation in range(rotated):
            place.rotate()
            place.write(f"d{rotation}")

    expected = ["c", *(f"d{rotation}" for rotation in range(rotated)), "z"]
    for number, read in enumerate(killed_at_each_write(tmp_path, prepare)):
        assert read == expected, f"killed before write {number}"


@pytest.mark.parametrize("rebooted", ["never", "before", "after"])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_limit_of_watches_at_the_start(place: Place, rotated: bool, rebooted: str) -> None:
    """The next service knows as much as the one that could not watch the log."""
    place.run()
    place.write("a")
    assert place.run() == ["a"]
    place.write("b")
    if rebooted == "before":
        place.reboot()
    if rotated:
        place.rotate()
        place.write("c")
    with no_watch_for(*place.log.parent.iterdir()):
        service = place.service().start()
        service.turn()
        assert service.stop() == []
    if rebooted == "after":
        place.reboot()
    assert place.run() == ["b", *(["c"] if rotated else [])]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_limit_of_watches_behind_the_rotated_files(place: Place, stopped: bool) -> None:
    """They are read once, also where they were let go before the next one could be watched."""
    place.run()
    place.write("a")
    place.run()
    place.write("b")
    for line in ("c", "d"):
        place.rotate()
        place.write(line)
    with no_watch_for(place.log):
        service = place.service().start()
        service.turn()
        assert service.lines == ["b", "c"]
        if stopped:
            service.stop()
            service = place.service().start()
            service.lines[:0] = ["b", "c"]
    place.write("e")
    service.turn()
    assert service.stop() == ["b", "c", "d", "e"]
    assert Event.RESUME_LOST not in service.events
    place.write("f")
    assert place.run() == ["f"]


def test_a_log_that_is_not_to_go_on_any_more(place: Place) -> None:
    """A reload says so while its position is still known from the last service alone."""
    place.run()
    place.write("a")
    place.run()
    with no_watch_for(place.log):
        service = place.service().start()
        assert service.logs is not None
        service.logs.configure([str(place.log)])
        service.stop()
    place.write("b")
    assert place.run() == []


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("rotations", [0, 2])
def test_a_device_has_another_number(place: Place, rotations: int, rebooted: bool) -> None:
    place.run()
    place.write("a", "b")
    place.run()
    if rebooted:
        place.reboot()
    place.write("c")
    for rotation in range(rotations):
        place.rotate()
        place.write(f"d{rotation}")
    with other_device(4711):
        service = place.service().start()
        assert service.stop() == ["c", *(f"d{rotation}" for rotation in range(rotations))]
        assert Event.RESUME_LOST not in service.events
        place.write("e")
        assert place.run() == ["e"]


@pytest.mark.parametrize("mount_point", [False, True])
@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("services", [0, 1, 2])
@pytest.mark.parametrize("rotations", [0, 2])
def test_a_directory_that_is_mounted_late(
    place: Place, rotations: int, services: int, rebooted: bool, mount_point: bool
) -> None:
    """What was known is kept until then, also by services that do not see that day; one of them is killed."""
    place.run()
    place.write("a")
    place.run()
    expected = ["b"]
    place.write("b")
    for rotation in range(rotations):
        place.rotate()
        place.write(f"c{rotation}")
        expected.append(f"c{rotation}")
    if rebooted:
        place.reboot()
    elsewhere = place.log.parent.with_name("elsewhere")
    place.log.parent.rename(elsewhere)
    if mount_point:
        place.log.parent.mkdir()
    for number in range(services):
        service = place.service().start()
        assert (service.kill() if number == 0 else service.stop()) == []
        if rebooted:
            place.reboot()
    service = place.service().start()
    if mount_point:
        place.log.parent.rmdir()
    elsewhere.rename(place.log.parent)
    assert service.look().stop() == expected
    assert Event.RESUME_LOST not in service.events
    place.write("d")
    assert place.run() == ["d"]


def test_killed_while_a_device_is_followed(tmp_path: Path) -> None:
    """What a file was known as must not be known beside what it is known as now."""
    number, came_through = 0, False
    while not came_through:
        directory = tmp_path / str(number)
        directory.mkdir()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            place = Place(directory, memory)
            place.run()
            place.write("a")
            place.run()
            place.write("c")
            with other_device(4711):
                service = place.service()
                with killed_at(number):
                    service.start()
                    came_through = True
                read = service.kill()
                service = place.service().start()
                place.write("d")
                place.rotate()
                place.write("e")
                read += service.look().kill()
                place.write("f")
                read += place.run()
            assert read == ["c", "d", "e", "f"], f"killed before write {number}"
        number += 1


def test_another_device_and_no_room_for_now(place: Place) -> None:
    """Where it is known by its new number it needs a place of its own, and keeps the old one until then."""
    place.write("a")
    place.run()
    place.write("b")
    none_left = OSError(errno.EAGAIN, "too many files are open")
    with other_device(77):
        with patch.object(streams.Streams, "_take_slot", side_effect=none_left):
            service = place.service().start()
        assert service.logs is not None
        assert service.logs.limited()
        assert service.turn().kill() == ["b"]
    assert Event.RESUME_LOST not in service.events


def test_too_many_rotated_files(place: Place) -> None:
    """Whoever may write to the directory of one log does not have lognot open whatever lies there."""
    place.run()
    for number in range(6):
        place.write(str(number))
        place.rotate()
    place.write("6")
    with patch.object(resuming, "MAX_LEFTOVERS", 2):
        service = place.service().start()
    # The one that was known, the newest of the others, and the log.
    assert service.stop() == ["0", "4", "5", "6"]
    assert service.events.count(Event.RESUME_LOST) == 1


AWAY = {
    "removed": lambda place: place.log.unlink(),
    "renamed": lambda place: place.log.rename(place.log.with_name("log.1")),
    "directory": lambda place: place.log.parent.rename(place.log.parent.with_name("elsewhere")),
}


def come_back(place: Place) -> None:
    """The directory, if it was away, as after it was mounted; there is a log in it."""
    with suppress(OSError):
        place.log.parent.with_name("elsewhere").rename(place.log.parent)
    place.write("b")


@pytest.mark.parametrize("services", [1, 2, 3])
@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("away", AWAY)
def test_a_log_that_is_away_at_the_end(
    place: Place, away: str, killed: bool, rebooted: bool, services: int
) -> None:
    """A new one is read from its first byte, the old one from where it was left, whichever comes."""
    place.run()
    place.write("a")
    service = place.service().start()
    assert service.lines == ["a"]
    AWAY[away](place)
    service.look().look()
    for number in range(services):
        if number:
            service = place.service().start()
        service.save()
        assert service.kill() == (["a"] if number == 0 else []) if killed else service.stop() is not None
        assert service.logs is not None
        assert not any(log.streams for log in service.logs._logs.values())  # it was let go
        if rebooted:
            place.reboot()
    come_back(place)
    service = place.service().start()
    assert service.lines == ["b"]
    place.write("c")
    service.look()
    assert service.stop() == ["b", "c"]
    assert Event.RESUME_LOST not in service.events
    assert len(service.logs.positions()[str(place.log)]) == 1


@pytest.mark.parametrize("away", AWAY)
def test_a_log_that_comes_back_while_it_is_watched(place: Place, away: str) -> None:
    """What stood for it is let go."""
    place.run()
    service = place.service().start()
    assert service.logs is not None
    free = len(service.logs._streams._free_slots)
    for number in range(3):
        place.write(f"a{number}")
        service.look()
        AWAY[away](place)
        service.look().look()
        assert len(service.logs._streams._free_slots) == free
        assert len(service.logs.positions()[str(place.log)]) == 1
        come_back(place)
        service.look()
        assert len(service.logs._streams._free_slots) == free
    assert service.stop() == ["a0", "b", "a1", "b", "a2", "b"]
    place.write("c")
    assert place.run() == ["c"]


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("services", [1, 2])
def test_a_log_that_was_never_there_before(place: Place, services: int, rebooted: bool) -> None:
    """The last service would have read it from its first byte, and so does the next one."""
    place.log.unlink()
    for _ in range(services):
        assert place.run() == []
        if rebooted:
            place.reboot()
    place.write("a")
    service = place.service().start()
    place.write("b")
    service.look()
    assert service.stop() == ["a", "b"]
    assert Event.RESUME_LOST not in service.events


@pytest.mark.parametrize("why", ["limit", "refused"])
def test_a_new_log_that_could_not_be_watched(place: Place, why: str) -> None:
    """The old one was read to its end and let go; the next service goes on behind it."""
    place.run()
    service = place.service().start()
    place.log.rename(place.log.with_name("log.1"))
    if why == "limit":
        place.write("a")
        with no_watch_for(place.log):
            service.look().look()
    else:
        place.log.mkdir()
        service.look().look()
        place.log.rmdir()
        place.write("a")
    assert service.logs is not None
    assert not any(log.streams for log in service.logs._logs.values())
    service.stop()
    assert place.run() == ["a"]


def test_a_log_that_nobody_has_looked_at_begins_at_its_end(place: Place) -> None:
    """It was there at the first start, and its service ended before a monitor had read any of it."""
    place.write("history")
    service = place.service()
    with no_watch_for(place.log):
        service.start().stop()
    assert place.run() == []


def test_of_a_log_that_is_not_to_go_on_nothing_is_left(place: Place) -> None:
    place.run()
    service = place.service().start()
    assert service.logs is not None
    AWAY["renamed"](place)
    service.look().look()
    free = len(service.logs._streams._free_slots)
    service.logs.configure([str(place.log)])
    assert len(service.logs._streams._free_slots) == free + 1
    service.logs.look_all()
    service.logs.configure([str(place.log)], [str(place.log)])
    service.logs.look_all()  # it begins with the first byte of what comes
    assert len(service.logs._streams._free_slots) == free
    service.configure()
    assert len(service.logs._streams._free_slots) == free + 1
    service.kill()


@pytest.mark.parametrize("away", AWAY)
def test_killed_at_any_moment_while_a_log_goes_and_comes(tmp_path: Path, away: str) -> None:
    """Nothing is read twice, and what was not read is not lost."""
    number, came_through = 0, False
    while not came_through:
        (tmp_path / str(number)).mkdir()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            place = Place(tmp_path / str(number), memory)
            place.run()
            place.write("a")
            service = place.service().start()
            with killed_at(number):
                AWAY[away](place)
                service.look().look()
                come_back(place)
                service.look()
                came_through = True
            read = service.kill()
            if "b" not in read and not place.log.exists():
                come_back(place)
            assert read + place.run() == ["a", "b"], f"killed before write {number}"
        number += 1
    assert number > 1


@pytest.fixture
def lease() -> Iterator[Callable[[Path], None]]:
    """Take a lease on a file, as its owner may: whoever opens it is told to try again."""
    before, holders = signal.signal(signal.SIGIO, signal.SIG_IGN), []

    def take(path: Path) -> None:
        """Let go of the file that it was on."""
        while holders:
            os.close(holders.pop())
        holders.append(os.open(path, os.O_WRONLY | os.O_CREAT))
        fcntl.fcntl(holders[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)

    yield take
    for holder in holders:
        os.close(holder)
    signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("held", ["oldest", "newest"])
def test_a_lease_on_a_rotated_file(place: Place, lease: Callable[[Path], None], held: str) -> None:
    """Whoever takes one again and again has lognot neither open nor remember ever more files."""
    place.run()
    place.write("a")
    place.rotate()
    leased = place.log.with_name("log.1" if held == "oldest" else "log.999")
    leased.touch()
    os.utime(leased, ns=(0, 0) if held == "oldest" else (2**62, 2**62))
    lease(leased)
    with patch.object(resuming, "MAX_LEFTOVERS", 2):
        service = place.service().start()
        assert service.logs is not None
        free = len(service.logs._streams._free_slots)
        for turn in range(10):
            for number in range(3):
                place.log.with_name(f"log.{2 + 3 * turn + number}").write_text(f"{turn}-{number}\n")
            lease(leased)
            service.look()
            for number in range(3):
                place.log.with_name(f"log.{2 + 3 * turn + number}").unlink()
            [resumption] = service.logs._resumptions.values()
            assert len(resumption._done) <= 8  # of 30 in the end: those of two turns and the two that stay
            assert len(service.logs._streams._free_slots) >= free - 2
        assert service.logs.limited()
        lease(place.log.with_name("other"))
        service.turn()
    assert not service.logs.limited()
    place.write("b")
    service.look()
    lines = service.stop()
    assert (lines[0], lines[-1]) == ("a", "b")


def test_no_room_for_another_log(place: Place) -> None:
    """It is tried again, and watched when others were let go."""
    other = place.state.with_name("other")
    other.touch()
    with patch.object(streams, "MAX_STREAMS", 1):
        service = Service(place.state, place.memory, place.log, other).start()
    assert service.logs is not None
    assert service.logs.limited()
    with other.open("a") as file:
        file.write("line\n")
    service.configure(other).look()
    assert not service.logs.limited()
    assert service.logs.counts() == (1, 1)
    assert service.kill() == ["line"]


def test_a_log_that_is_new_when_it_comes(place: Place) -> None:
    """What was read last is gone: that is said when there is no hope any more, once."""
    place.run()
    place.write("a")
    place.run()
    place.log.rename(place.state.with_name("elsewhere"))  # so that no new file gets its inode
    service = place.service().start()
    service.look()
    assert service.events == [Event.LOG_MISSING]
    place.write("b")
    assert service.look().look().stop() == ["b"]
    assert service.events.count(Event.RESUME_LOST) == 1
    place.write("c")
    assert place.run() == ["c"]


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_copied_and_emptied(place: Place, times: int, grown: bool, rebooted: bool) -> None:
    """The bytes tell, also where the log is longer than before; later copies were never seen."""
    place.run()
    place.write("history")
    place.copy_and_empty()
    place.write("aaaaaaaa", "bbbbbbbb")
    assert place.run() == ["aaaaaaaa", "bbbbbbbb"]
    expected = ["c"]
    place.write("c")
    for number in range(times):
        place.copy_and_empty()
        lines = [f"d{number}{line}" for line in range(50 if grown else 1)]
        place.write(*lines)
        expected += lines
    if rebooted:
        place.reboot()
    service = place.service().start()
    assert service.lines == expected
    place.write("y")
    assert service.look().stop() == [*expected, "y"]
    assert Event.RESUME_LOST not in service.events
    place.write("z")
    assert place.run() == ["z"]


@pytest.mark.parametrize("copies", [0, 3])
@pytest.mark.parametrize("grown", [False, True])
def test_emptied_without_a_copy(place: Place, grown: bool, copies: int) -> None:
    """That is said once, however many files had to be looked at."""
    place.run()
    for number in range(copies):
        place.write(f"other {number}", "which is long")
        place.copy_and_empty()
    place.run()
    place.write("aaaaaaaa", "bbbbbbbb")
    place.run()
    os.truncate(place.log, 0)
    lines = [f"d{line}" for line in range(50 if grown else 1)]
    place.write(*lines)
    service = place.service().start()
    assert service.stop() == lines
    assert service.events.count(Event.RESUME_LOST) == 1
    place.write("z")
    assert place.run() == ["z"]
    before = len(os.listdir("/proc/self/fd"))
    service = place.service().start()
    service.stop()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_killed_while_a_copy_is_looked_for(tmp_path: Path) -> None:
    def prepare(place: Place) -> None:
        place.write("aaaaaaaa", "bbbbbbbb")
        place.run()
        place.write("c")
        place.copy_and_empty()
        place.write("dddddddd", "eeeeeeee", "ffffffff")
        place.copy_and_empty()
        place.write("g")

    expected = ["c", "dddddddd", "eeeeeeee", "ffffffff", "g", "z"]
    for number, read in enumerate(killed_at_each_write(tmp_path, prepare)):
        assert sorted(read) == expected, f"killed before write {number}"


def test_killed_while_what_is_no_copy_is_tried(tmp_path: Path) -> None:
    """It was not read, so what is newer than it was not written since."""

    def prepare(place: Place) -> None:
        for number in range(2):
            place.write(f"day{number}", "which is long")
            place.run()
            place.copy_and_empty()
            place.run()
        place.write("aaaaaaaa")
        place.run()
        os.truncate(place.log, 0)
        place.write("b")

    for number, read in enumerate(killed_at_each_write(tmp_path, prepare)):
        assert read == ["b", "z"], f"killed before write {number}"


def test_an_emptied_file_on_a_device_that_is_renumbered(place: Place) -> None:
    place.run()
    place.write("aaaaaaaa", "bbbbbbbb")
    place.run()
    place.write("c")
    place.copy_and_empty()
    place.write("d")
    with no_watch_for(place.log.with_name("log.1")):
        service = place.service().start()
    with other_device(4711):
        with no_watch_for(place.log):
            service.turn().turn()
        assert service.turn().stop() == ["c", "d"]


def test_a_monitor_that_died_before_it_looked(place: Place) -> None:
    """The next one is told the same, and looks for the copy."""
    place.run()
    place.write("aaaaaaaa", "bbbbbbbb")
    place.run()
    place.write("c")
    place.copy_and_empty()
    place.write("d")
    service = place.service()
    with patch.object(Service, "turn", lambda self: self), patch.object(Logs, "begun"):
        service.start()
    for _, fd in service._inbox:
        if fd >= 0:
            os.close(fd)
    service._inbox.clear()
    assert service.start_monitor().stop() == ["c", "d"]


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Whoever reads this file meets an error of its disk."""
    pread = os.pread

    def fail(fd: int, count: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, count, offset)

    with patch.object(os, "pread", fail):
        yield


@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_cannot_be_read_for_now(place: Place, known: bool) -> None:
    """It is tried again, and begins where it would have."""
    place.write("a")
    if known:
        place.run()
    with unreadable(place.log):
        service = place.service().start()
        place.write("b")
        service.look().turn()
        assert service.logs is not None
        assert service.logs.limited()
        assert service.start_monitor().lines == []
    assert service.turn().lines == ["b"]
    assert not service.logs.limited()
    place.write("c")
    assert service.look().stop() == ["b", "c"]


def test_a_file_that_cannot_be_read_on_for_now(place: Place) -> None:
    """Also one that was rotated away, to which nobody writes."""
    service = place.service().start()
    place.write("a")
    service.look()
    place.write("b")
    with unreadable(place.log):
        service.look()
        assert service.lines == ["a"]
    assert service.turn().lines == ["a", "b"]
    place.write("c")
    with unreadable(place.log.with_name("log.1")):
        place.rotate()
        place.write("d")
        service.look().turn().look()
        assert service.lines == ["a", "b", "d"]
    assert service.turn().stop() == ["a", "b", "d", "c"]


def test_a_rotated_file_that_cannot_be_read_for_now(place: Place) -> None:
    place.run()
    place.write("a")
    place.rotate()
    place.write("b")
    with unreadable(place.log.with_name("log.1")):
        service = place.service().start()
        assert service.lines == ["b"]
    assert service.turn().stop() == ["b", "a"]
    assert Event.RESUME_LOST not in service.events


def test_a_copy_that_cannot_be_read(place: Place) -> None:
    """Nobody waits for it: the log itself can be read."""
    place.run()
    place.write("aaaaaaaa", "bbbbbbbb")
    place.run()
    place.write("c")
    place.copy_and_empty()
    place.write("d")
    with unreadable(place.log.with_name("log.1")):
        assert place.service().start().stop() == ["d"]


def test_files_that_can_never_be_read_are_let_go(place: Place) -> None:
    service = place.service().start()
    with unreadable(place.log):
        service.start_monitor()
    assert service.logs is not None
    for number in range(MAX_ROTATED + 2):
        place.rotate()
        with unreadable(place.log.with_name("log.1")):
            place.write(str(number))
            service.look()
    for _ in range(3):
        with ExitStack() as stack:
            for path in place.log.parent.glob("log.*"):
                stack.enter_context(unreadable(path))
            service.start_monitor()
    [log] = service.logs._logs.values()
    assert len(log.streams) <= MAX_ROTATED + 1
    service.stop()


def test_no_line_is_lost_where_a_log_is_rotated_faster_than_it_is_read(place: Place) -> None:
    """What could not be opened has had several names when there is room for it."""
    service = place.service().start()
    assert service.logs is not None
    [log] = service.logs._logs.values()
    most, numbers = 0, [str(number) for number in range(3 * streams.MAX_OPEN)]
    for number in numbers:
        place.write(number)
        place.rotate()
        service.logs.look(log.log_id)  # the monitor is busy with other logs
        most = max(most, len(log.streams))
    assert most == streams.MAX_OPEN
    place.write("last")
    for _ in numbers:
        service.turn()
    assert sorted(service.stop(), key=[*numbers, "last"].index) == [*numbers, "last"]


def test_a_limit_of_watches_while_a_copy_is_looked_for(place: Place) -> None:
    place.run()
    place.write("aaaaaaaa", "bbbbbbbb")
    place.run()
    place.write("c")
    place.copy_and_empty()
    place.write("d")
    with no_watch_for(place.log.with_name("log.1")):
        service = place.service().start()
        service.turn()
        assert service.lines == []
    assert service.turn().lines == ["c", "d"]
    assert Event.RESUME_LOST not in service.events
    service.stop()


@pytest.mark.parametrize("emptied", [False, True])
def test_another_monitor_is_another_matter(place: Place, emptied: bool) -> None:
    """What was emptied since lognot has started is new, and no copy of it is looked for."""
    place.run()
    place.write("aaaaaaaa")
    place.run()
    service = place.service().start()
    place.write("b")
    service.look()
    if emptied:
        place.copy_and_empty()
    place.write("c")
    assert service.start_monitor().stop() == ["b", "c"]
    assert Event.RESUME_LOST not in service.events


def test_a_file_in_its_place_is_told_of_once(place: Place) -> None:
    """Of the rotated file only the inode is the same."""
    place.run()
    place.write("aaaaaaaa")
    place.run()
    place.rotate()
    place.log.with_name("log.1").write_text("something else\n")
    place.write("b")
    service = place.service().start()
    assert service.stop() == ["b"]
    assert service.events.count(Event.RESUME_LOST) == 1
