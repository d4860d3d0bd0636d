"""What a program costs: the CPU time, memory and wake-ups of all its processes together.

CPU time is read from each process's clock (clock_getcpuclockid(3)): nanoseconds, with finished
threads. Children that have ended are in their parent's cutime and cstime (proc_pid_stat(5)).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # the kernel's number of the clock that the scheduler keeps


@dataclass(frozen=True, slots=True)
class Stat:
    """What of /proc/PID/stat is of use here."""

    parent: int
    session: int
    own_ticks: int
    ended_children_ticks: int


def stat(pid: int) -> Stat:
    """Read /proc/PID/stat; the name in it may hold blanks and parentheses, so count from its end."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Stat(
        int(fields[1]), int(fields[3]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    )


def tree(root: int) -> list[int]:
    """Give the process, its descendants, and whoever of its session has lost its parent."""
    stats = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stats[int(name)] = stat(int(name))
    found = {root}
    while more := {p for p, s in stats.items() if s.parent in found or s.session == root} - found:
        found |= more
    return sorted(found & set(stats))


def cpu_s(root: int) -> float:
    """Give the CPU seconds, user and system, that the program has used so far."""
    total = 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += (
                time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) + stat(pid).ended_children_ticks * TICK_S
            )
    return total


def ticks(root: int) -> int:
    """Give the same in whole ticks, as other tools report it: 0 is what an idle program should use."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            found = stat(pid)
            total += found.own_ticks + found.ended_children_ticks
    return total


def switches(root: int) -> int:
    """Give the context switches of all threads so far: each sleep that ended is one."""
    total = 0
    for pid in tree(root):
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                for line in status.read_text().splitlines():
                    if line.startswith(("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")):
                        total += int(line.split()[1])
    return total


def pss_by_name(root: int) -> dict[str, int]:
    """Give the bytes of each process; what n processes share counts 1/n for each (proc_pid_smaps(5))."""
    found: dict[str, int] = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found[name] = found.get(name, 0) + int(line.split()[1]) * 1024
    return found


def pss_bytes(root: int) -> int:
    """Give those of all its processes together."""
    return sum(pss_by_name(root).values())
