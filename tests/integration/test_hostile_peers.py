"""Monitors and executors that were taken over: all others live, open and run nothing but the config's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
from pathlib import Path

import pytest

from integration.harness import PYTHON, SOURCE, Service, append, lines_of, wait_for
from integration.hostile import (
    COUNTERS,
    EXECUTOR_ATTACKS,
    EXECUTORS,
    FORGED,
    MONITOR_ATTACKS,
    MONITORS,
    SENT,
)
from integration.processes import descriptors, status

CONFIG = """\
[ITEM]
path = @/logs/log
regex = ^line (\\d+)$
upbound_action = echo $1 >> @/out
[OTHER]
path = @/logs/missing/log
upbound_action = echo wrong >> @/wrong
"""
ALLOWED_GROWTH_KIB = 24 * 1024  # of the supervisor; to keep what comes in would take some hundred MiB
ALLOWED_DESCRIPTORS = 64  # more than at the start, at any time; as many messages are answered at once
ALLOWED_LOG_BYTES = 64 * 1024 * 1024  # of the quota's 8 MiB, each byte of which may be escaped
LINES = 100

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


class Hostile(Service):
    """A service whose monitor or executor is taken over; strace watches what the supervisor opens."""

    taken_over = ""
    source = f"{SOURCE}:{Path(__file__).parent.parent}"

    def command(self) -> list[str]:
        self._counters = self.directory / "counters"
        self._counters.write_bytes(bytes(COUNTERS.size))
        self.trace = self.directory / "trace"
        # -D: the supervisor is our child, and strace is not; no -f: the children are not watched.
        tracer = ["strace", "-D", "-q", "-o", str(self.trace), "-e", "trace=open,openat,openat2,execve"]
        program = [PYTHON, str(Path(__file__).with_name("hostile.py")), str(self._counters), self.taken_over]
        return [*tracer, *program, str(self.config_path), str(self.own_log)]

    def counter(self, index: int) -> int:
        (value,) = struct.unpack_from("Q", self._counters.read_bytes(), 8 * index)
        return int(value)

    def sent(self) -> int:
        """How many packets all attacks have sent."""
        return sum(COUNTERS.unpack(self._counters.read_bytes())[SENT:])

    def memory_kib(self) -> int:
        return int(status(self.pid)["RssAnon"].removesuffix(" kB"))


def opened(lines: list[str]) -> set[str]:
    """The names that system calls have opened or executed."""
    found = set()
    for line in lines:
        match = re.search(r'^(?:open|openat|openat2|execve)\((?:[^",]+, )?"((?:[^"\\]|\\.)*)"', line)
        if match:
            found.add(re.sub(r"^/proc/self/fd/\d+$", "/proc/self/fd/N", match.group(1)))
        else:
            assert not line.startswith(("open", "execve")), line
    return found


@pytest.mark.parametrize(
    ("role", "index", "attacks"),
    [("monitor", MONITORS, len(MONITOR_ATTACKS)), ("executor", EXECUTORS, len(EXECUTOR_ATTACKS))],
)
def test_what_was_taken_over_harms_nobody_else(tmp_path: Path, role: str, index: int, attacks: int) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs/log"
    log.touch()
    lognot = Hostile(tmp_path, CONFIG)
    lognot.taken_over = role
    out = tmp_path / "out"
    try:
        lognot.start()
        before = list(tmp_path.iterdir())
        before_kib, before_fds = lognot.memory_kib(), len(descriptors(lognot.pid))
        lines_before = len(lines_of(lognot.trace))
        most_kib = most_fds = 0

        def through() -> bool:
            nonlocal most_kib, most_fds
            most_kib = max(most_kib, lognot.memory_kib())
            most_fds = max(most_fds, len(descriptors(lognot.pid)))
            return lognot.counter(index) > attacks + 1

        os.kill(lognot.role(role), signal.SIGKILL)
        wait_for(through, "the end of all attacks", 100)
        # How far it was read is not known any more: lines are seen from the first one on that is seen.
        wait_for(lambda: append(log, "line 0\n") or lines_of(out)[-1:] == ["0"], "a line that is seen")
        append(log, "".join(f"line {number}\n" for number in range(1, LINES + 1)))

        def numbers() -> list[str]:
            return [line for line in lines_of(out) if line not in ("", "0")]  # an attack's has no group 1

        wait_for(lambda: len(numbers()) >= LINES, "what honest roles do")
        assert sorted(numbers(), key=int) == [str(number) for number in range(1, LINES + 1)]
        assert lognot.sent() > 20_000
        assert most_kib - before_kib < ALLOWED_GROWTH_KIB
        assert most_fds - before_fds < ALLOWED_DESCRIPTORS
        wait_for(lambda: len(descriptors(lognot.pid)) <= before_fds, "the descriptors of the start")
        components = {name for path in (log, log.parent / "missing") for name in path.parts}
        names = opened(lines_of(lognot.trace)[lines_before:])
        assert names >= {"log", "missing", "/proc/self/fd/N"}, "it has looked, and strace has seen it"
        left = {name for name in names if not re.match(r"/usr/lib/python3[^/]*/encodings/", name)}
        # Where Python looks, since 3.12, whether a process that forks has threads.
        assert left <= components | {"/proc/self/fd/N", ".", "/proc/self/stat"}
        # An action of the config that was run for nothing is all that it comes to.
        made = {path.name for path in tmp_path.iterdir()} - {path.name for path in before}
        assert made <= {"out", "wrong"}
        assert set(lines_of(tmp_path / "wrong")) <= {"wrong"}
        assert lognot.own_log.stat().st_size < ALLOWED_LOG_BYTES
        lognot.wait_log(rf"too much to log about (the )?{role}")
        assert all(line.isprintable() for line in lognot.log.splitlines())
        assert FORGED.decode() not in lognot.log
        lognot.wait_log(rf"{role}.* broke the protocol: [A-Z_]+ is not for an? {role} to say")
        assert lognot.stop() == 0
    finally:
        lognot.end()
