"""What the kernel reports of a process, and services that are started in unusual ways."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from integration.harness import PYTHON, SOURCE, Service, wait_for
from integration.leftovers import stat_fields


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status, by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def ids(pid: int) -> tuple[set[int], set[int], set[int]]:
    """The different uids, gids and supplementary groups of a process."""
    found = status(pid)
    uids, gids, groups = (set(map(int, found[name].split())) for name in ("Uid", "Gid", "Groups"))
    return uids, gids, groups


def limit(pid: int, name: str) -> tuple[str, str]:
    """A resource limit of a process, soft and hard, as /proc/PID/limits has it."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith(name):
            soft, hard, *_ = line.removeprefix(name).split()
            return soft, hard
    raise AssertionError(f"no limit {name!r}")


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open; only root may look into those that nobody else may."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(entry.name)] = os.readlink(entry)
    return found


def is_gone(pid: int) -> bool:
    """There is no such process, or only what is left of it until its parent has looked."""
    try:
        return stat_fields(pid)[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(*pids: int, deadline_s: float = 20.0) -> None:
    """Wait until none of the processes is there any more."""
    wait_for(lambda: all(map(is_gone, pids)), f"end of {pids}", deadline_s)


def marked(mark: str) -> list[int]:
    """The processes whose environment has a mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return [pid for pid in found if not is_gone(pid)]


class Custom(Service):
    """A service behind a command that changes something first, or without a log file of its own."""

    prefix: Sequence[str] = ()
    own_log_file = True

    def command(self) -> list[str]:
        log = ["-l", str(self.own_log)] if self.own_log_file else []
        lognot = [PYTHON, "-m", "lognot", "-c", str(self.config_path)]
        return [*self.prefix, *lognot, *log, "-v", *self._arguments]

    def stop_only(self) -> None:
        """Stop, as `stop` does, but leave what it printed to `output`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0

    def output(self) -> str:
        """What a service that has ended printed."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.wait(20)
        return self.process.stdout.read().decode()


class Run:
    """`lognot` with any arguments, to its end. Whatever is left of it is ended by `sweep`."""

    def __init__(self, *, cwd: Path, prefix: Sequence[str] = ()) -> None:
        self._mark = f"LOGNOT_TEST_MARK={uuid.uuid4()}"
        self._cwd = cwd
        self._prefix = prefix

    def __call__(
        self, *arguments: str, data: bytes = b"", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        name, _, value = self._mark.partition("=")
        return subprocess.run(
            [*self._prefix, PYTHON, "-m", "lognot", *arguments],
            env={**os.environ, "PYTHONPATH": str(SOURCE), name: value, **(environment or {})},
            input=data,
            capture_output=True,
            cwd=self._cwd,
            timeout=60,
            check=False,
        )

    def processes(self) -> list[int]:
        """Those that run still."""
        return marked(self._mark)

    def sweep(self) -> None:
        """End what is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def runner(cwd: Path, *prefix: str) -> Iterator[Run]:
    """A Run that leaves nothing behind."""
    run = Run(cwd=cwd, prefix=prefix)
    try:
        yield run
    finally:
        run.sweep()
