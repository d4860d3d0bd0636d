"""Actions that note a number each, and what limits a process from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from integration import accounts
from integration.harness import Service, lines_of, wait_for
from integration.processes import ids, is_gone
from integration.writer import REGEX

LATE_S = 60.0  # thousands of actions on a busy machine


def noting_item(log: Path, out: Path, name: str = "NOTE") -> str:
    """An item whose action notes the number of each line."""
    return f"[{name}]\npath = {log}\nregex = {REGEX}\nupbound_action = echo $1 >> {out}\n"


def numbered_lines(first: int, count: int) -> str:
    """Lines that such an item takes."""
    return "".join(f"line {number:06d}\n" for number in range(first, first + count))


def noted(out: Path) -> list[int]:
    """The numbers that actions have noted."""
    return [int(line) for line in lines_of(out)]


def wait_noted(out: Path, count: int) -> None:
    """Wait until so many different numbers are noted."""
    wait_for(lambda: len(set(lines_of(out))) >= count, f"{count} numbers in {out}", LATE_S)


def assert_each_ran_once(out: Path, count: int, fault: str, *, times: int) -> None:
    """Of a service that has ended: the numbers from 0 were all noted, once. Writes a line of the account."""
    numbers = noted(out)
    assert sorted(numbers) == list(range(count)), difference(numbers, count)
    accounts.numbered(fault, numbers, count, times=times)


def difference(numbers: list[int], count: int) -> str:
    """What is missing and what is there twice."""
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    return f"lost: {sorted(set(range(count)) - set(numbers))}, twice: {twice}"


def kill(pid: int) -> None:
    """With SIGKILL, one that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_role(lognot: Service, name: str) -> None:
    """Kill a forked role; returns when there is another one."""
    pid = lognot.role(name)
    kill(pid)
    wait_for(lambda: pid not in lognot.children(), f"the end of the {name}")
    lognot.role(name)


def dropped(lognot: Service, item: str, reason: str = "") -> int:
    """How many actions of an item were reported as dropped."""
    return sum(
        map(int, re.findall(rf"\[{item}\] (\d+) actions? (?:was|were) dropped, since .*{reason}", lognot.log))
    )


def memory_bytes(pid: int, name: str) -> int:
    """What /proc/PID/status says of a process's memory, such as VmHWM."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, name
    return int(found[1]) * 1024


@contextmanager
def limited(pid: int, name: str, value: int) -> Iterator[None]:
    """Set a soft limit of a process that runs, for a while; `name` is an option of prlimit(1)."""
    old = _set_limit(pid, name, str(value))
    try:
        yield
    finally:
        try:
            _set_limit(pid, name, old)
        except (OSError, subprocess.CalledProcessError):
            if not is_gone(pid):  # else it ended meanwhile, perhaps of the limit
                raise


def _set_limit(pid: int, name: str, value: str) -> str:
    """Set a soft limit, as the user that the process runs as, who may; give what it was."""
    uids, gids, _ = ids(pid)
    user = ["setpriv", f"--reuid={uids.pop()}", f"--regid={gids.pop()}", "--keep-groups"]
    prlimit = [*user, "prlimit", "--pid", str(pid)]
    ask = [*prlimit, f"--{name}", "--raw", "--noheadings", "--output=SOFT"]
    old = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run([*prlimit, f"--{name}={value}:"], check=True)
    return old


class MemoryGroup:
    """A control group with a limit of memory: what is over it, the kernel ends (cgroups(7))."""

    _NAME = "lognot-test-"

    def __init__(self, limit_bytes: int) -> None:
        root = Path("/sys/fs/cgroup")
        unified = (root / "cgroup.controllers").exists()
        if unified:
            limit_file, self._events = "memory.max", "memory.events"
        else:
            root /= "memory"
            limit_file, self._events = "memory.limit_in_bytes", "memory.oom_control"
        self._control = root / "cgroup.subtree_control"
        self._switched_on = False
        self._path = root / f"{self._NAME}{os.getpid()}"
        self._path.mkdir()
        try:
            if unified and "memory" not in self._control.read_text().split():
                self._control.write_text("+memory")
                self._switched_on = True
            (self._path / limit_file).write_text(str(limit_bytes))
            with suppress(OSError):  # where there is no swap to account for
                (self._path / "memory.swap.max").write_text("0")
        except OSError:
            self.remove()
            raise

    def add(self, pid: int) -> None:
        """Put a process into it; what it has got by now is not counted here."""
        (self._path / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """How often the kernel has ended a process of it."""
        found = re.search(r"^oom_kill (\d+)$", (self._path / self._events).read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    def remove(self) -> None:
        """Remove it, and leave all as it was; there must be no process in it any more."""

        def gone() -> bool:
            with suppress(OSError):
                self._path.rmdir()
            return not self._path.exists()

        wait_for(gone, "the end of the control group")
        if self._switched_on and not [*self._path.parent.glob(f"{self._NAME}*")]:  # of another run
            with suppress(OSError):  # others may have begun to use it
                self._control.write_text("-memory")
