"""A service's manners: pid file, notifications, watchdog, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sdnotify import SystemdNotifier

from lognot import service
from lognot.errors import LognotError
from lognot.service import Notifier, PidFile, SignalQueue, forget_signals, hold_standard_descriptors
from unit.descriptors import nothing_leaks, open_descriptors

# The pid file.


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with nothing_leaks():
        yield tmp_path / "lognot.pid"


def dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_the_pid_file_is_there_as_long_as_we_run(path: Path) -> None:
    pid_file = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    pid_file.remove()
    assert list(path.parent.iterdir()) == []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"0\n",
        b"-1\n",
        b"-5\n",
        b"none\n",
        b"\xff\0",
        b"99999999999999999999\n",
        b"4194304999\n",
        b"1 2",
    ],
)
def test_a_pid_file_that_names_no_process_is_replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    PidFile(path).remove()
    assert not path.exists()


def test_a_stale_pid_file_is_replaced(path: Path) -> None:
    path.write_text(f"{dead_pid()}\n")
    PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"


def test_one_of_our_own_pid_is_stale(path: Path) -> None:
    """In a container every start may get the same pid."""
    path.write_text(f"{os.getpid()}\n")
    path.with_name(f"{path.name}.{os.getpid()}").write_text("half")  # killed before the rename
    PidFile(path).remove()
    assert list(path.parent.iterdir()) == []


@pytest.fixture
def other_process() -> Iterator[Callable[[str], int]]:
    """Start a process of that name; give its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> int:
        command = [name, "-c", "echo; read line"]
        process = subprocess.Popen(
            command, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # it has its name now
        return process.pid

    yield start
    for process in started:
        process.communicate()


def test_a_pid_file_of_one_that_runs_is_respected(path: Path, other_process: Callable[[str], int]) -> None:
    pid = other_process("lognot")
    path.write_text(f"{pid}\n")
    with pytest.raises(LognotError, match=f"names a lognot that runs: {pid}"):
        PidFile(path)
    assert path.read_text() == f"{pid}\n"
    assert list(path.parent.iterdir()) == [path]


def test_one_of_another_users_process_is_respected(
    path: Path, other_process: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    pid = other_process("lognot")
    path.write_text(f"{pid}\n")
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(LognotError, match=f"names a lognot that runs: {pid}"):
        PidFile(path)


def test_one_of_another_program_is_stale(path: Path, other_process: Callable[[str], int]) -> None:
    """After a crash or a reboot the number is given out again."""
    path.write_text(f"{other_process('sleep')}\n")
    PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"


def test_one_that_cannot_be_read_is_an_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        PidFile(path)


def test_a_symbolic_link_in_the_way_is_replaced_and_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.symlink_to(victim)
    PidFile(path)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("target", ["/proc/self/stat", "/dev/watchdog", "fifo", "lognot.pid"])
def test_what_a_symbolic_link_leads_to_is_not_even_opened(path: Path, target: str) -> None:
    os.mkfifo(path.with_name("fifo"))  # opening it would wait
    path.symlink_to(target)
    PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_fifo_in_the_way_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_symbolic_link_where_the_new_one_is_made_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.with_name(f"{path.name}.{os.getpid()}").symlink_to(victim)
    PidFile(path)
    assert victim.read_text() == "precious"


def test_a_directory_in_the_way_is_an_error_and_nothing_is_left(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        PidFile(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_pid_file_that_is_another_process_now_stays(path: Path) -> None:
    pid_file = PidFile(path)
    path.write_text(f"{os.getppid()}\n")
    pid_file.remove()
    assert path.exists()
    path.unlink()
    pid_file.remove()  # gone already: fine


# Notifications.


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_what_the_service_manager_is_told(manager: socket.socket) -> None:
    notifier = Notifier()
    calls: list[tuple[Callable[[], None], bytes]] = [
        (notifier.ready, b"READY=1"),
        (notifier.stopping, b"STOPPING=1"),
        (notifier.alive, b"WATCHDOG=1"),
        (lambda: notifier.status("fine"), b"STATUS=fine"),
    ]
    for call, expected in calls:
        call()
        assert manager.recv(1000) == expected
    notifier.reloading()
    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert "NOTIFY_SOCKET" not in os.environ


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    notifier.ready()
    assert notifier.watchdog_interval_s is None


def test_a_service_manager_that_does_not_listen_stops_nobody(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "NOTIFY_S", 0.001)
    notifier = Notifier()
    for _ in range(700):  # net.unix.max_dgram_qlen is 512 at most, where nobody changed it
        notifier.alive()
    manager.close()
    notifier.alive()


def test_a_status_line_waits_for_no_service_manager(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_s: list[float | None] = []

    class Busy(SystemdNotifier):  # type: ignore[misc]
        def notify(self, state: str) -> None:
            assert self.socket is not None
            waits_s.append(self.socket.gettimeout())

    monkeypatch.setattr(service.sdnotify, "SystemdNotifier", Busy)
    notifier = Notifier()
    notifier.status("fine")
    notifier.ready()
    assert waits_s == [0.0, service.NOTIFY_S]


@pytest.mark.parametrize(
    ("usec", "pid", "interval_s"),
    [
        ("20000000", "", 10.0),
        ("20000000", "me", 10.0),
        ("20000000", "1", None),
        ("0", "", None),
        ("", "", None),
        ("-5", "", None),
        ("often", "", None),
        ("²", "", None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_must_be(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, interval_s: float | None
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "me" else pid)
    assert Notifier().watchdog_interval_s == interval_s
    assert not {"WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


# Signals.


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    wakeup = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
        if number not in (signal.SIGKILL, signal.SIGSTOP) and handler is not None:
            signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_as_before")
def test_signals_are_taken_in_order_and_interrupt_nothing() -> None:
    queue = SignalQueue((signal.SIGHUP, signal.SIGUSR1))
    assert queue.take() == []
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    assert queue.take() == [signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1]
    assert queue.take() == []


@pytest.mark.usefixtures("_signals_as_before")
def test_a_flood_of_signals_stops_nobody() -> None:
    queue = SignalQueue((signal.SIGHUP,))
    for _ in range(5000):
        os.kill(os.getpid(), signal.SIGHUP)
    assert set(queue.take()) == {signal.SIGHUP}


@pytest.mark.usefixtures("_signals_as_before")
def test_a_new_role_begins_with_default_signals() -> None:
    SignalQueue((signal.SIGHUP, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    forget_signals()
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    own_of_libc = 0b11 << 31  # signals 32 and 33, which nobody else may touch
    assert [int(status[name], 16) & ~own_of_libc for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


# Descriptors.


def test_closed_standard_descriptors_are_filled() -> None:
    expected = {**open_descriptors(), **dict.fromkeys(range(3), os.devnull)}
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(0, 3)
            hold_standard_descriptors()
            os._exit(open_descriptors() != expected)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_open_standard_descriptors_are_left_alone() -> None:
    with nothing_leaks():
        hold_standard_descriptors()
