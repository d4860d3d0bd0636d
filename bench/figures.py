#!/usr/bin/python3
"""The figures of one run on this machine: latency, memory, wake-ups, start. Prints a table.

write to action   a line is written until the first instruction of its action's shell has run, over 200 lines
PSS               of all processes together, 10 items on 10 logs, at rest (proc_pid_smaps(5))
idle wake-ups     context switches of all processes in IDLE_S seconds (proc_pid_status(5))
start to READY    from exec of the interpreter to READY=1 (sd_notify(3)), median of 5
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
LINES = 200
IDLE_S = float(os.environ.get("IDLE_S", "60"))


class Run:
    """One lognot, until `end`."""

    def __init__(self, directory: Path, config: str) -> None:
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = directory / "notify"
        path.unlink(missing_ok=True)
        notify.bind(str(path))
        notify.settimeout(30)
        (directory / "lognot.conf").write_text(config)
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [
                "/usr/bin/python3",
                "-m",
                "lognot",
                "-c",
                str(directory / "lognot.conf"),
                "-l",
                str(directory / "own"),
            ],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "NOTIFY_SOCKET": str(path)},
        )
        while b"READY=1" not in notify.recv(4096):
            pass
        self.start_ms = (time.monotonic() - begin) * 1000
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.pids = [self.process.pid, *map(int, children)]

    def pss_kib(self) -> dict[str, int]:
        """PSS of each process, KiB."""
        found = {}
        for pid in self.pids:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found[name] = int(line.split()[1])
        return found

    def switches(self) -> int:
        """Voluntary context switches of all processes so far: each sleep that ended was a wake-up."""
        return sum(
            int(line.split()[1])
            for pid in self.pids
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait()


def latencies_ms(directory: Path) -> list[float]:
    """Write lines one by one; the action of each writes one byte into a FIFO, and that moment is taken."""
    log, fifo = directory / "log", directory / "fifo"
    log.touch()
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    run = Run(directory, f"[L]\npath = {log}\nregex = hit (\\d+)\nupbound_action = echo $1 > {fifo}\n")
    found = []
    with log.open("ab", buffering=0) as file:
        for number in range(LINES):
            begin = time.monotonic_ns()
            file.write(b"hit %d\n" % number)
            os.read(reader, 100)
            found.append((time.monotonic_ns() - begin) / 1e6)
            time.sleep(0.01)  # lines of a quiet log, not a burst
    run.end()
    return found


def main() -> int:
    """Measure all and print it."""
    with tempfile.TemporaryDirectory(prefix="lognot-bench.") as name:
        directory = Path(name)
        directory.chmod(0o755)
        found = sorted(latencies_ms(directory))
        config = "[general]\nuid = daemon\n" if os.geteuid() == 0 else ""
        for number in range(10):
            (directory / f"log{number}").touch()
            config += (
                f"[ITEM{number}]\npath = {directory}/log{number}\nregex = failed {number} from (\\S+)\n"
                "usecrc = 1\nupbound_freq = 5/30\nupbound_action = echo $1\n"
            )
        starts = []
        for _ in range(5):
            run = Run(directory, config)
            starts.append(run.start_ms)
            run.end()
        run = Run(directory, config)
        time.sleep(1)
        pss = run.pss_kib()
        before = run.switches()
        time.sleep(IDLE_S)
        switches = run.switches() - before
        run.end()
    print(f"python             {sys.version.split()[0]}")
    p50, p99 = found[LINES // 2], found[LINES * 99 // 100]
    print(f"write to action    p50 {p50:.2f} ms   p99 {p99:.2f} ms   {LINES} lines")
    print(f"PSS, 10 items      {sum(pss.values()) / 1024:.1f} MiB   {pss}")
    print(f"idle wake-ups      {switches} in {IDLE_S:g} s")
    print(f"start to READY     {statistics.median(starts):.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
