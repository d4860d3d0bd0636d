"""Runs a real lognot, all processes, and waits for what it does. Never sleeps: waits with a deadline."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from integration.leftovers import kill_all

SOURCE = Path(__file__).resolve().parents[2] / "src"
DEADLINE_S = 20.0  # generous: a machine may be busy; nothing is measured here
PYTHON = os.environ.get("LOGNOT_TEST_PYTHON", sys.executable)


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Give the condition's first true value."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"did not happen within {deadline_s} s: {what}"
        time.sleep(0.005)  # between two looks, not instead of one


def time_of(line: str) -> float:
    """When a line of lognot's own log was written."""
    return datetime.datetime.fromisoformat(line.split()[0]).timestamp()


def changed_source(directory: Path, module: str, text: str) -> Path:
    """Copy lognot's source into a directory, with more text in one of its modules; give where it is."""
    source = directory / "src"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    with (source / "lognot" / f"{module}.py").open("a") as file:
        file.write(f"\n\n{text}")
    return source


class Service:
    """One lognot on a directory of its own.

    Its own log is `self.log`, and its service manager is this object (`self.notifications`).
    """

    source: Path | str = SOURCE  # what it is imported from

    def __init__(
        self, directory: Path, config: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.config_path = directory / "lognot.conf"
        self.own_log = directory / "own.log"
        self.write_config(config)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify_path = directory / "notify"
        self._notify.bind(str(notify_path))
        self._notify.setblocking(False)
        self.notifications: list[str] = []
        self._arguments = arguments
        self._environment = {"NOTIFY_SOCKET": str(notify_path), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self, config: str) -> None:
        """Replace the config file; @ stands for the directory."""
        self.config_path.write_text(config.replace("@", str(self.directory)) if "@/" in config else config)

    def command(self) -> list[str]:
        """What is started."""
        lognot = [PYTHON, "-m", "lognot", "-c", str(self.config_path)]
        return [*lognot, "-l", str(self.own_log), "-v", *self._arguments]

    def start(self, *, ready: bool = True) -> Service:
        """Start, also once more after an end, and wait until it is ready."""
        self.notifications.clear()
        self.process = subprocess.Popen(
            self.command(),
            env={**os.environ, "PYTHONPATH": str(self.source), **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
        if ready:
            self.wait_notification("READY=1")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # What it says.

    @property
    def log(self) -> str:
        """Its own log so far."""
        return self.own_log.read_text() if self.own_log.exists() else ""

    def wait_log(self, pattern: str, count: int = 1, deadline_s: float = DEADLINE_S) -> list[str]:
        """Wait until `count` lines of its own log match."""

        def found() -> list[str] | None:
            lines = [line for line in self.log.splitlines() if re.search(pattern, line)]
            return lines if len(lines) >= count else None

        try:
            lines: list[str] = wait_for(found, f"{count} x {pattern!r} in the log", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\nown log:\n{self.log}") from None
        return lines

    def wait_notification(self, text: str, count: int = 1) -> None:
        """Wait for something told to the service manager."""

        def told() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.notifications += self._notify.recv(65536).decode().splitlines()
            if self.process is not None and self.process.poll() is not None:
                output = self.process.stdout.read().decode() if self.process.stdout else ""
                raise AssertionError(f"ended with {self.process.returncode}: {output}\nown log:\n{self.log}")
            return sum(line.startswith(text) for line in self.notifications) >= count

        wait_for(told, f"notification {text}")

    # Its processes.

    def children(self) -> dict[int, str]:
        """The processes of its other roles: pid -> "monitor" or "executor"."""
        found = {}
        with contextlib.suppress(OSError):
            for text in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                with contextlib.suppress(OSError):
                    name = Path(f"/proc/{text}/comm").read_text().strip()
                    if name in ("lognot-monitor", "lognot-executor"):
                        found[int(text)] = name.removeprefix("lognot-")
        return found

    def role(self, name: str) -> int:
        """The pid of a role, waiting until there is one."""

        def pid() -> int | None:
            return next((pid for pid, role in self.children().items() if role == name), None)

        result: int = wait_for(pid, f"a {name}")
        return result

    def signal(self, number: int) -> None:
        """Signal the supervisor."""
        os.kill(self.pid, number)

    def reload(self, config: str | None = None) -> None:
        """Reload, with a new config if one is given; returns when that is over, well or not."""
        if config is not None:
            self.write_config(config)
        self.wait_notification("")
        before = sum(line == "READY=1" for line in self.notifications)
        self.signal(signal.SIGUSR1)
        self.wait_notification("READY=1", before + 1)

    def stop(self, deadline_s: float = DEADLINE_S) -> int:
        """Stop cleanly; give the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(deadline_s)
        finally:
            self.end()

    def end(self) -> None:
        """Leave nothing of it. What actions have left behind before a clean stop is none of it."""
        if self.process is not None:
            if self.process.poll() != 0:
                kill_all(
                    self.pid if self.process.returncode is None else 0,
                    roles=f"NOTIFY_SOCKET={self.directory}/",
                    actions=f"LOGNOT_PATH={self.directory}/",
                )
                self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
        self._notify.close()


def append(path: Path, data: bytes | str) -> None:
    """Append to a log the way syslog daemons do: one write, O_APPEND."""
    with path.open("ab", buffering=0) as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def lines_of(path: Path) -> list[str]:
    """The lines of a file, none when it is not there."""
    return path.read_text(errors="surrogateescape").splitlines() if path.exists() else []


def capabilities(pid: int) -> Iterator[tuple[str, int]]:
    """The capability sets of a process, as the kernel reports them."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Cap"):
            yield name, int(value, 16)
