"""Whoever takes lognot's own log does not: a full disk, a reader that stands still or goes, no journald.

lognot goes on watching, counting and acting, and the count of lost messages is exact.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import accounts
from integration.environment.namespaces import inside, own_mounts
from integration.harness import append, lines_of, wait_for
from integration.processes import Custom

Make = Callable[..., Custom]

# Each line has its action, and the action's output is a message of its own.
ECHO = "[ITEM]\npath = @/log\nregex = ^line (\\d+)$\nupbound_action = echo $1 >>@/out; echo said $1\n"
MESSAGES = 4  # of each line, with --verbose: fired, started, says, ended


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def write_lines(log: Path, begin: int, end: int) -> None:
    append(log, "".join(f"line {number}\n" for number in range(begin, end)))
    out = log.with_name("out")
    wait_for(lambda: len(lines_of(out)) >= end, f"{end} actions")


def texts(data: bytes) -> list[str]:
    """The messages; none of them has another one glued to it."""
    assert data.endswith(b"\n")
    found = []
    for line in data.decode().splitlines():
        match = re.fullmatch(r"\S+ \S+ lognot\[\d+\]: (\w+: .*)", line)
        assert match, line
        assert "lognot[" not in match[1], line
        found.append(match[1])
    return found


def assert_messages_are_counted(seen: list[str], lines: int) -> int:
    """Each message of the lines was written or counted as lost; give how many were lost."""
    lost = sum(int(number) for text in seen if (number := _lost_in(text)))
    about = [text for text in seen if "[ITEM]" in text]
    assert lost > 0
    assert len(about) + lost == MESSAGES * lines, seen[-5:]
    assert len([text for text in about if "says: said" in text]) <= lines
    return lost


def _lost_in(text: str) -> str:
    match = re.fullmatch(r"error: (\d+) messages? could not be written: .*", text)
    return match[1] if match else ""


def wait_last_action(lognot: Custom) -> None:
    """Wait until all that runs has ended: until then, messages are on their way."""
    executor = lognot.role("executor")
    children = Path(f"/proc/{executor}/task/{executor}/children")
    wait_for(lambda: not children.read_text().split(), "no action runs")


def wait_handled(lognot: Custom, lines: int) -> None:
    """Wait until the supervisor has handled so many lines, but for what the last actions say."""
    read = "STATUS=watching 1 of 1 logs for 1 item: 0.0 MiB read"
    lognot.wait_notification(f"{read}, {lines} matches, {lines} times fired, {lines} actions run")


@pytest.mark.root
def test_a_full_disk_under_the_log_file(custom: Make, log: Path, tmp_path: Path) -> None:
    """Filled up, room, filled up and room again. Each time a line may be cut short and is finished later."""
    (tmp_path / "small").mkdir()
    lognot = custom(ECHO, prefix=own_mounts(f"mount -t tmpfs -o size=64k tmpfs {tmp_path}/small"))
    lognot.own_log = tmp_path / "small" / "own.log"
    lognot.start()
    own, filler = (inside(lognot.pid, tmp_path / "small" / name) for name in ("own.log", "filler"))
    lines = 0
    for _ in range(2):
        write_lines(log, lines, lines + 30)
        lines += 30
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(100))
        before = own.stat().st_size
        write_lines(log, lines, lines + 60)  # the last page of the file has room for some
        lines += 60
        wait_handled(lognot, lines)  # so it has met the full disk
        assert own.stat().st_size < before + 4096
        filler.unlink()
    write_lines(log, lines, lines + 10)
    lines += 10
    wait_last_action(lognot)
    with open(own, "rb") as file:  # the file system goes with the last process
        lognot.stop_only()
        data = file.read()
    seen = texts(data)
    assert "error: " in " ".join(seen)
    assert all("No space left on device" in text for text in seen if _lost_in(text))
    assert_messages_are_counted(seen, lines)
    said = lognot.output().splitlines()
    assert said == [f"lognot: cannot write {lognot.own_log}: No space left on device"] * 2
    ran = sorted(map(int, lines_of(tmp_path / "out")))
    assert ran == list(range(lines))
    accounts.numbered("full disk under --logfile, actions run", ran, lines, times=2)


def test_a_reader_of_standard_output_that_stands_still(custom: Make, log: Path, tmp_path: Path) -> None:
    """Its pipe is full: lognot does not wait for it, and says afterwards what it had no room for."""
    lognot = custom("[general]\nathread_count = 8\n" + ECHO, "-s")
    lognot.own_log_file = False
    lognot.start()
    assert lognot.process is not None
    assert lognot.process.stdout is not None
    lines = 600  # of 4 messages: twice what a pipe holds
    write_lines(log, 0, lines)
    wait_last_action(lognot)
    wait_handled(lognot, lines)
    os.set_blocking(lognot.process.stdout.fileno(), False)
    data = bytearray(lognot.process.stdout.read() or b"")
    write_lines(log, lines, lines + 10)
    wait_last_action(lognot)
    lognot.stop_only()
    data += lognot.process.stdout.read()
    # On standard error, which is the same pipe: when there happens to be room again just then.
    own = [
        line
        for line in bytes(data).splitlines(keepends=True)
        if not line.startswith(b"lognot: cannot write ")
    ]
    assert_messages_are_counted(texts(b"".join(own)), lines + 10)
    ran = sorted(map(int, lines_of(tmp_path / "out")))
    assert ran == list(range(lines + 10))
    accounts.numbered("full pipe on standard output, actions run", ran, lines + 10, times=1)


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", ">&- 2>&-"], ids=["reader", "1", "2", "1 and 2"])
def test_standard_output_that_nobody_has(custom: Make, log: Path, tmp_path: Path, closed: str) -> None:
    """Closed from the start, or by a reader that goes: no signal, no status 120, no other file written to."""
    lognot = custom(ECHO, "-s", prefix=["sh", "-c", f'exec "$@" {closed}', "sh"])
    lognot.start()
    assert lognot.process is not None
    assert lognot.process.stdout is not None
    lognot.process.stdout.close()
    write_lines(log, 0, 20)
    lognot.stop_only()
    ran = sorted(map(int, lines_of(tmp_path / "out")))
    assert ran == list(range(20))
    assert lognot.log.count("says: said") == 20
    what = f"sh's {closed}" if closed else "its reader gone"
    accounts.numbered(f"standard output closed ({what}), actions run", ran, 20, times=1)


# Sockets of the system's log.


@pytest.fixture(params=["journald", "syslog"])
def system_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """A command prefix with a /run or /dev of our own, and where its socket is to be."""
    (tmp_path / "run").mkdir()
    (tmp_path / "dev").mkdir()
    script = f"mount --bind {tmp_path}/run /run"
    if request.param == "journald":
        directory = tmp_path / "run" / "systemd" / "journal"
        directory.mkdir(parents=True)
        yield own_mounts(script), directory / "socket"
    else:
        for name in ("null", "urandom"):
            (tmp_path / "dev" / name).touch()
            script += f" && mount --bind /dev/{name} {tmp_path}/dev/{name}"
        yield own_mounts(f"{script} && mount --rbind {tmp_path}/dev /dev"), tmp_path / "dev" / "log"


class Daemon:
    """Who is behind a socket; reads in a thread of its own, but not while it `stands_still`."""

    def __init__(self, path: Path) -> None:
        self.messages: list[str] = []
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        here = os.open(path.parent, os.O_PATH)  # sun_path has room for 107 bytes only
        self._sock.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
        path.chmod(0o666)
        self._reads = threading.Lock()
        self._end, self._told = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @contextlib.contextmanager
    def stands_still(self) -> Iterator[None]:
        with self._reads:
            yield

    def _run(self) -> None:
        while self._end not in select.select([self._sock, self._end], [], [])[0]:
            with self._reads:
                self._read()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self._sock.recv(1 << 16, socket.MSG_DONTWAIT).decode()
                if packet.startswith("MESSAGE="):
                    self.messages.append(packet.removeprefix("MESSAGE=").splitlines()[0])
                else:
                    self.messages.append(packet.partition("]: ")[2])

    def close(self) -> list[str]:
        """Go; give every message that it was sent."""
        os.write(self._told, b"x")
        self._thread.join()
        self._path.unlink()
        self._sock.shutdown(socket.SHUT_RD)  # what is on its way by now arrives before that, or not at all
        self._read()
        for fd in (self._end, self._told):
            os.close(fd)
        self._sock.close()
        return self.messages


def accounted(messages: list[str]) -> int:
    """Count the messages of lines that were written, or said to be lost."""
    lost = sum(int(text.split()[0]) for text in messages if "could not be written: " in text)
    return sum("[ITEM]" in text for text in messages) + lost


@pytest.mark.root
def test_the_daemon_of_the_system_log_stands_still_goes_and_comes_back(
    custom: Make,
    log: Path,
    tmp_path: Path,
    system_log: tuple[list[str], Path],
    request: pytest.FixtureRequest,
) -> None:
    prefix, path = system_log
    lognot = custom("[general]\nathread_count = 8\n" + ECHO, prefix=prefix)
    lognot.own_log_file = False
    seen = []
    daemon = Daemon(path)
    try:
        lognot.start()
        write_lines(log, 0, 10)
        with daemon.stands_still():
            write_lines(log, 10, 300)  # its queue is full soon (net.unix.max_dgram_qlen)
            wait_last_action(lognot)
            wait_handled(lognot, 300)
        write_lines(log, 300, 310)
        wait_for(
            lambda: any("could not be written: " in text for text in daemon.messages), "it is heard again"
        )
        seen += daemon.close()
        write_lines(log, 310, 320)
        wait_last_action(lognot)
        daemon = Daemon(path)
        write_lines(log, 320, 330)
        wait_for(lambda: accounted([*seen, *daemon.messages]) == MESSAGES * 330, "each message, or its loss")
        lognot.stop_only()  # that it stops is all that it has to say, and there is room for it
    finally:
        seen += daemon.close()
    assert seen[-1] == "stopped"
    assert accounted(seen) == MESSAGES * 330
    ran = sorted(map(int, lines_of(tmp_path / "out")))
    assert ran == list(range(330))
    kind = request.node.callspec.params["system_log"]
    accounts.numbered(f"{kind} stands still, goes, comes back; actions run", ran, 330, times=2)


def test_a_terminal_that_was_stopped(custom: Make, log: Path, tmp_path: Path) -> None:
    """Control-S: nothing more is taken; the service goes on."""
    leader, terminal = os.openpty()
    lognot = custom(ECHO, "-s", prefix=["sh", "-c", f'exec "$@" >{os.ttyname(terminal)}', "sh"])
    try:
        lognot.start()
        os.write(leader, b"\x13")
        write_lines(log, 0, 60)
        lognot.stop_only()
    finally:
        os.close(leader)
        os.close(terminal)
    ran = sorted(map(int, lines_of(tmp_path / "out")))
    assert ran == list(range(60))
    accounts.numbered("terminal stopped by control-S, actions run", ran, 60, times=1)
