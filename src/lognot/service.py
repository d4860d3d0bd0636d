"""A Unix service's manners: systemd's notifications, signals, background, pid file.

Knows nothing of logs. Used by the supervisor and the command line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator

import sdnotify

from lognot.errors import LognotError
from lognot.trust import open_directory_of

STOP_GRACE_S = 10.0  # actions that run may finish; systemd's own patience is longer (TimeoutStopSec)
END_ACTIONS_S = 8.0  # beyond the grace: an executor needs 5 s to end actions that ignore SIGTERM
LEAVE_S = STOP_GRACE_S + END_ACTIONS_S  # at most, of an executor whose supervisor has ended
ORPHAN_S = 2.0  # at most, of a monitor whose supervisor has ended
DAEMON_START_S = 60.0  # a daemon that is not ready by then is reported as failed
NOTIFY_S = 0.5  # a service manager that does not listen must not stop us


class Notifier:
    """sd_notify(3): tells the service manager how it goes; silent where there is none.

    Takes NOTIFY_SOCKET and WATCHDOG_* out of the environment: they are not for the actions.
    """

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.settimeout(NOTIFY_S)
        os.environ.pop("NOTIFY_SOCKET", None)
        self.watchdog_interval_s = _watchdog_interval_s(
            os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        )

    def ready(self) -> None:
        """Start-up or a reload is complete."""
        self._notifier.notify("READY=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self._notifier.notify("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows; a manager that is busy misses one."""
        sock = self._notifier.socket
        if sock is not None:
            sock.setblocking(False)
            self._notifier.notify(f"STATUS={text}")
            sock.settimeout(NOTIFY_S)

    def alive(self) -> None:
        """The loops turn."""
        self._notifier.notify("WATCHDOG=1")


def _watchdog_interval_s(usec: str, pid: str) -> float | None:
    """How often to say WATCHDOG=1: half of what the manager waits (sd_watchdog_enabled(3)); None: never."""
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2 / 1_000_000


class SignalQueue:
    """Signals as something to select for: nothing happens in a handler, the loop reads what came.

    Args:
        wanted: the signals to receive; SIGIO is ignored beside them, since giving up a file lease sends it
            and its default is to end the process (fcntl(2)).
    """

    def __init__(self, wanted: Iterable[signal.Signals]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wanted = frozenset(wanted)
        for number in self._wanted:
            signal.signal(number, _do_nothing)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        """The descriptor to select for."""
        return self._reader.fileno()

    def take(self) -> list[signal.Signals]:
        """Give the signals that came, in order; of those that have a handler, the wanted ones."""
        with contextlib.suppress(BlockingIOError):
            came = self._reader.recv(4096)
            return [signal.Signals(number) for number in came if number in self._wanted]
        return []


def _do_nothing(number: int, frame: object) -> None:
    """Handlers must be Python functions for the wake-up descriptor to be written."""


def forget_signals() -> None:
    """Give every signal its default again, none blocked: what a new role begins with."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # those that the C library keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def hold_standard_descriptors() -> None:
    """Open /dev/null as 0, 1 and 2 where the caller has closed them, so that nothing of ours lands there."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def ignore_requests() -> None:
    """Ignore the signals that ask a service for something, until there is one: their default is to end it."""
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


# What the roles ignore that the supervisor tells to stop: a terminal or a manager signals every process.
IGNORED_BY_ROLES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE)


def ignore_stop_signals() -> None:
    """Ignore IGNORED_BY_ROLES."""
    for number in IGNORED_BY_ROLES:
        signal.signal(number, signal.SIG_IGN)


def passed_listener() -> socket.socket:
    """Give the listening SEQPACKET socket that the service manager has passed (sd_listen_fds(3)).

    Raises:
        LognotError: there is none, or something else.
    """
    from systemd import daemon  # only where it is used: it costs 1 MB

    fds = daemon.listen_fds(unset_environment=True)
    if len(fds) != 1 or not daemon.is_socket_unix(fds[0], socket.SOCK_SEQPACKET, 1):
        raise LognotError(
            "expected one listening socket from the service manager: --executor is for lognot-exec.service"
        )
    return socket.socket(fileno=fds[0])


class PidFile:
    """A file with our pid, as long as we run.

    Raises:
        LognotError: it names a lognot that runs.
        OSError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._name = os.path.basename(self._path)
        try:
            with self._directory() as directory:
                self._take(directory)
        except OSError as error:  # of a name below some directory
            raise OSError(error.errno, error.strerror, self._path) from error

    @contextlib.contextmanager
    def _directory(self) -> Iterator[int]:
        directory = open_directory_of(self._path)
        try:
            yield directory
        finally:
            os.close(directory)

    def _take(self, directory: int) -> None:
        running = self._running(directory)
        if running:
            raise LognotError(f"'{self._path}' names a lognot that runs: {running}")
        # A new file by its own name and then a rename: never a half-written one, never through a symlink.
        temporary = f"{self._name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)  # of one that had our pid, and was killed just here
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o644, dir_fd=directory)
        try:
            os.write(fd, f"{os.getpid()}\n".encode())
            os.replace(temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(temporary, dir_fd=directory)
            raise
        finally:
            os.close(fd)

    def _running(self, directory: int) -> int:
        """Give the pid in the file if it is that of another lognot that runs, else 0."""
        try:
            pid = self._pid(directory)
        except ValueError:
            return 0
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):  # a link is replaced, wherever it leads
                return 0
            raise
        if pid <= 0 or pid == os.getpid():  # kill(2) would take 0 and below for groups of processes
            return 0
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return 0
        except PermissionError:  # it is another user's
            pass
        return pid if _may_be_lognot(pid) else 0

    def _pid(self, directory: int) -> int:
        # Not through what somebody has put there for us: a link, or a FIFO that would make us wait.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._name, flags, dir_fd=directory)
        try:
            return int(os.read(fd, 32))
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove it, if it is still ours."""
        with contextlib.suppress(OSError, ValueError), self._directory() as directory:
            if self._pid(directory) == os.getpid():
                os.unlink(self._name, dir_fd=directory)


def _may_be_lognot(pid: int) -> bool:
    """Say whether a process may be a lognot: after a crash or a reboot another one may have its number."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"lognot" in file.read()
    except OSError:  # hidden (proc(5), hidepid), or it ends just now
        return True


class Background:
    """daemon(7), the classic way: the caller's process ends when the service is ready, with its success.

    After `Background()` returns, this process is the daemon: a session of its own, no terminal, standard
    input from /dev/null; standard output and error follow with `ready`.
    """

    def __init__(self) -> None:
        reader, writer = os.pipe()
        if os.fork():
            os.close(writer)
            _exit_when_ready(reader)
        os.close(reader)
        os.setsid()
        if os.fork():
            os._exit(0)
        self._writer = writer
        _redirect(os.open(os.devnull, os.O_RDONLY), 0)

    def ready(self) -> None:
        """Let the caller's process end with success, and let go of its terminal."""
        if self._writer >= 0:
            os.write(self._writer, b"1")
            os.close(self._writer)
            self._writer = -1
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            _redirect(null, 2)


def _redirect(fd: int, target: int) -> None:
    os.dup2(fd, target)
    if fd != target:
        os.close(fd)


def _exit_when_ready(reader: int) -> None:
    import select

    readable, _, _ = select.select([reader], [], [], DAEMON_START_S)
    os._exit(0 if readable and os.read(reader, 1) else 1)
