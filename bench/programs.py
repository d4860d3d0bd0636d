"""How a program is told what to watch, started, and known to be ready and done. lognot, and what all share.

Done is when the action of a last line has run: it writes into a FIFO, on which we sleep. peers.py has the
rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import corpus
import measure

SOURCE = Path(__file__).resolve().parents[1] / "src"
START_S = 60.0
END_PATTERN = r"bench-end\[\d+\]: number (\S+) from (\S+)"


class Unavailable(Exception):
    """Why there is no figure."""


@dataclass(frozen=True, slots=True)
class Item:
    """What to look for in a log: more than `bound` matches within `window_s`; 0: act on each match."""

    log: Path
    pattern: str  # its last group is at its end
    bound: int = 1_000_000
    window_s: int = 1
    keyed: bool = False  # count each text of the last group on its own
    action: str = "true"


class Fifo:
    """Where actions report."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o666)
        os.chmod(path, 0o666)  # whatever the umask: actions may run as another user
        self.action = f"echo >{path}"
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self, count: int, deadline_s: float) -> int:
        """Wait until so many actions have run; give how many did."""
        end, found = time.monotonic() + deadline_s, 0
        while found < count and select.select([self.fd], [], [], max(0.0, end - time.monotonic()))[0]:
            found += len(os.read(self.fd, count - found))
        return found

    def drain(self) -> None:
        """Forget what has come."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 65536):
                pass

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


class Program:
    """One program of the comparison."""

    name = ""
    executable = ""
    acts = True  # runs commands
    tells_start = True  # it can be told from outside when it is up
    burst_s = (
        4.0  # CPU that one measured burst may cost; a slower program is given the file's first lines only
    )

    def version(self) -> str:
        """Say which version is here, or raise Unavailable."""
        raise NotImplementedError

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """Write the program's configuration and give its command line."""
        raise NotImplementedError

    def is_up(self, run: Run) -> bool:
        """Whether it has said, or can be seen, to be watching."""
        raise NotImplementedError

    def end_lines(self, number: int, items: list[Item]) -> list[str]:
        """Give the lines whose handling is the sign that all before them were handled."""
        return [f"bench-end[1]: number {number} from {corpus.address(2**24 - 1 - number)}"]

    def wait_end(self, run: Run, deadline_s: float) -> bool:
        """Wait until the last `end_lines` were handled."""
        return run.fifo.wait(1, deadline_s) == 1


class Lognot(Program):
    """The checkout's lognot, on the distribution's interpreter."""

    name = "lognot"
    executable = "/usr/bin/python3"
    burst_s = 20.0

    def __init__(self, engine: str = "auto") -> None:
        self._engine = engine

    def version(self) -> str:
        """Say lognot's and Python's."""
        return said([self.executable, "-m", "lognot", "--version"], r"[\d.]+\S*", {"PYTHONPATH": str(SOURCE)})

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """An item each."""
        text = f"[general]\nregex_engine = {self._engine}\n"
        for number, item in enumerate(items):
            pattern = item.pattern
            if item.keyed:  # the matched text is the key: let it begin at the group
                before, group, after = pattern.rpartition("(")
                pattern = rf"{before}\K{group}{after}"
            text += f"[ITEM{number}]\npath = {item.log}\nregex = {pattern}\nupbound_action = {item.action}\n"
            if item.bound:
                text += f"upbound_freq = {item.bound}/{item.window_s}\n"
            if item.keyed:
                text += "usecrc = yes\n"
        (directory / "lognot.conf").write_text(text)
        return [
            self.executable,
            "-m",
            "lognot",
            "-c",
            f"{directory}/lognot.conf",
            "-l",
            f"{directory}/own.log",
        ]

    def is_up(self, run: Run) -> bool:
        """READY=1 has come (sd_notify(3))."""
        return run.told("READY=1")


class Run:
    """One program at work, from its start until `end`."""

    def __init__(
        self, program: Program, directory: Path, items: list[Item], *, ends_in: Path | None = None
    ) -> None:
        self.program, self.directory = program, directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.fifo = Fifo(directory / "fifo")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.setblocking(False)
        self._told = b""
        self._number = 0
        logs = {item.log for item in items} | ({ends_in} if ends_in else set())
        for log in logs:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(b"")
        self.ends_in = ends_in
        if ends_in:
            items = [*items, Item(ends_in, END_PATTERN, bound=0, action=self.fifo.action)]
        items = [
            Item(i.log, i.pattern, i.bound, i.window_s, i.keyed, i.action.replace("@fifo", self.fifo.action))
            for i in items
        ]
        self.items = items
        command = program.command(directory, items)
        self.output = directory / "output"
        begin = time.monotonic()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                start_new_session=True,
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME": str(directory),
                    "PYTHONPATH": str(SOURCE),
                    "NOTIFY_SOCKET": str(directory / "notify"),
                },
            )
        self.pid = self.process.pid
        try:
            while not program.is_up(self):
                self._still(begin, "did not start")
                time.sleep(0.001)
            self.start_s = time.monotonic() - begin
            if ends_in:
                self._warm_up(begin)
        except BaseException:
            self.end()
            raise

    def _still(self, begin: float, what: str) -> None:
        if self.process.poll() is not None or time.monotonic() > begin + START_S:
            last = self.output.read_text(errors="replace").strip().splitlines()[-1:]
            code = self.process.returncode
            raise Unavailable(f"{what}{'' if code is None else f', exit status {code}'}: {' '.join(last)}")

    def _warm_up(self, begin: float) -> None:
        """Have a first end handled: only then it surely watches, and does nothing for the first time."""
        while True:
            self.append_end()
            if self.program.wait_end(self, 5.0):
                break
            self._still(begin, "did not act on its first line")
        self.settle()
        self.fifo.drain()

    def settle(self) -> None:
        """Wait until it does nothing: no CPU time within a tenth of a second, at most 3 s long."""
        end, before = time.monotonic() + 3.0, -1.0
        while time.monotonic() < end and (now := measure.cpu_s(self.pid)) - before > 0.001:
            before = now
            time.sleep(0.1)

    def told(self, text: str) -> bool:
        """Whether the program has told its service manager that."""
        with contextlib.suppress(BlockingIOError):
            self._told += self._notify.recv(4096) + b"\n"
        return text.encode() in self._told

    def append(self, data: bytes, log: Path | None = None) -> None:
        """Append to a log, in writes of 1 MB."""
        fd = os.open(log or self.ends_in or self.items[0].log, os.O_WRONLY | os.O_APPEND)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view[: 2**20]) :]
        finally:
            os.close(fd)

    def append_end(self) -> None:
        """Append the lines that `wait_end` waits for."""
        self._number += 1
        lines = self.program.end_lines(self._number, self.items)
        now = time.strftime("%b %e %H:%M:%S")
        self.append("".join(f"{now} host1 {line}\n" for line in lines).encode(), self.ends_in)

    @property
    def ends(self) -> int:
        """How often `append_end` was called."""
        return self._number

    def burst(self, data: bytes, deadline_s: float = 300.0) -> tuple[float, float]:
        """Append it; give the CPU and wall seconds until all of it was handled."""
        before, begin = measure.cpu_s(self.pid), time.monotonic()
        self.append(data)
        self.append_end()
        if not self.program.wait_end(self, deadline_s):
            raise Unavailable(f"not done with {len(data) / 1e6:.1f} MB after {deadline_s:g} s")
        return measure.cpu_s(self.pid) - before, time.monotonic() - begin

    def end(self) -> None:
        """Stop it, and make sure that nothing of it is left."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        # Its session's number is not given to another process while one of its processes is left.
        for pid in measure.tree(self.pid):
            with contextlib.suppress(OSError):
                if pid != self.pid and measure.stat(pid).session == self.pid:
                    os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.fifo.close()
        self._notify.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def said(command: list[str], pattern: str, environment: dict[str, str] | None = None) -> str:
    """Give what of a program's output matches: its version. Raises Unavailable when it does not start."""
    if not shutil.which(command[0]):
        raise Unavailable("not installed")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(environment or {})}
    )
    found = re.search(pattern, done.stdout + done.stderr)
    if not found:
        raise Unavailable(f"does not run: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return found[0]
