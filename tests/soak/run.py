"""Everything at once, for as long as you like: rotations, reloads, kills, floods, hostile lines.

Three logs are written without end. Every second or so something happens to the service. At the end the
account is made: lines written, seen, lost, twice; actions; and memory and descriptors, which must not have
grown: nothing is killed in the second half.
`make soak MINUTES=10`.
"""

from __future__ import annotations

import argparse
import operator
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from integration.harness import Service, append, wait_for
from integration.processes import ids, wait_gone
from integration.writer import has_open, held
from lognot.executor import FILES_OF_ACTION
from soak.lines import DIGITS, FLOOD, PER_FIRE, SLOW, Writer, fires, items

LOGS = ("a", "b", "c")
KEEP = 4  # rotated files
FLOOD_LINES = 30_000
HOSTILE = (
    b"a" * 900 + b"!\n",
    b"a" * 20_000 + b"!\n",
    b"\x1b]0;owned\x07 $(reboot) `reboot` '; reboot #\n",
    bytes(range(256)) + b"\n",
    b"\x00" * 5000 + b"\n",
)
GROWTH = 1.3  # how much is going on just then is in it
Step = Callable[[], None]
SETTLE_S = 60.0  # for the last lines
QUIET_S = 0.5
STEPS_AT_ONCE = 10  # until an account is made


class Soak:
    """One run."""

    def __init__(self, directory: Path, minutes: float, seed: int) -> None:
        self._directory = directory
        self._seconds = minutes * 60
        self._random = random.Random(seed)
        self._logs = directory / "logs"
        self._logs.mkdir()
        self._writers = {name: Writer(self._logs / name) for name in LOGS}
        self._hostile = self._logs / "hostile"
        self._hostile.touch()
        self._runtime = Path(tempfile.mkdtemp(dir="/dev/shm"))
        environment = {"STATE_DIRECTORY": str(directory / "state"), "RUNTIME_DIRECTORY": str(self._runtime)}
        self._service = Service(directory, self._config(), environment=environment)
        self._done: Counter[str] = Counter()
        self._steps: list[str] = []  # since the last account
        self._killed: Step | None = None  # which role was, since then
        self._run_again = {name: [0] * len(DIGITS) for name in LOGS}
        self._samples: list[tuple[float, dict[str, int], dict[str, int]]] = []

    def _config(self, extra: str = "") -> str:
        text = "[general]\nresume = yes\nathread_count = 4\n"
        for name in LOGS:
            text += items(name, self._logs / name, self._directory / f"{name}.out")
        text += (
            f"[hostile]\npath = {self._hostile}\nregex = (a+)+$\nupbound_action = true\n"
            f"[hostile-long]\npath = {self._hostile}\nregex = (?>a*)[xy]\nupbound_action = true\n"
            # Thousands of actions, more than may wait. They have an executor of their own; others' run.
            f"[hostile-text]\npath = {self._hostile}\nregex = .*\nupbound_freq = 5/1\n"
            f"upbound_action = echo $@ $0\nuid = daemon\n"
        )
        return text + extra

    def run(self) -> bool:
        """Do it, print the account, and say whether all is well."""
        began = time.monotonic()
        self._service.start()
        gentle: list[tuple[int, Step]] = [
            (10, self.rotate),
            (6, self.reload),
            (2, self.hold_a_role),
            (4, self.flood),
            (4, self.write_hostile_lines),
        ]
        deadly: list[tuple[int, Step]] = [
            (4, self.kill_monitor),
            (4, self.kill_executor),
            (1, self.kill_the_service),
            (1, self.restart),
        ]
        wanted = 0
        next_sample = began
        while (now := time.monotonic()) - began < self._seconds:
            # The second half is for those that live long: what grows in them shows.
            steps = gentle if now - began > self._seconds / 2 else gentle + deadly
            step = self._random.choices([step for _, step in steps], [weight for weight, _ in steps])[0]
            # Monitor and executor are each other's memory. Who kills both at once loses what waits.
            kills = step in (self.kill_monitor, self.kill_executor, self.kill_the_service)
            if len(self._steps) >= STEPS_AT_ONCE or (kills and self._killed not in (None, step)):
                if not self._check(wanted):
                    return False
                self._killed = None
            if kills:
                self._killed = step
            wanted += 10_000
            for writer in self._writers.values():
                writer.want(wanted)
            self._steps.append(f"{datetime.now(UTC).time()} {wanted} {step.__name__}")
            step()
            self._done[step.__name__] += 1
            self._wait_written(wanted)
            if now >= next_sample:
                next_sample = now + max(2.0, self._seconds / 120)
                self._sample(now - began)
        return self._account(wanted)

    # What happens.

    def rotate(self) -> None:
        """Rotate one log, or all of them at once; also several times, whether anybody looks or not."""
        names = LOGS if self._random.random() < 0.3 else (self._random.choice(LOGS),)
        for name in names:
            # Or the oldest might be gone before the service that was just killed goes on.
            wait_for(lambda name=name: has_open(self._service.pid, self._logs / name), "the log open")  # type: ignore[misc]
            for _ in range(self._random.randint(1, KEEP - 1)):
                self._writers[name].rotate(KEEP)

    def reload(self) -> None:
        """Reload: as it is, with an item more, or with an error."""
        extra = self._random.choice(
            ("", f"[more]\npath = {self._hostile}\nregex = nothing\nupbound_action = true\n", "[broken]\n")
        )
        self._service.reload(self._config(extra))
        self._service.reload(self._config())

    def kill_monitor(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):  # a hostile line has just ended it
            os.kill(self._service.role("monitor"), signal.SIGKILL)

    def kill_executor(self) -> None:
        """SIGKILL to one of them."""
        self._service.role("executor")
        running = [pid for pid, role in self._service.children().items() if role == "executor"]
        with suppress(ProcessLookupError, IndexError):
            os.kill(self._random.choice(running), signal.SIGKILL)

    def hold_a_role(self) -> None:
        """SIGSTOP, and SIGCONT after a second of lines."""
        role = self._random.choice([self._service.pid, *self._service.children()])
        with suppress(ProcessLookupError, FileNotFoundError), held(role):  # a hostile line may have ended it
            time.sleep(1.0)

    def flood(self) -> None:
        """As many lines as a process can write; they come on top of the others."""
        for writer in self._writers.values():
            writer.pace(FLOOD)
        append(self._hostile, b"flood\n" * FLOOD_LINES)
        time.sleep(0.2)
        for writer in self._writers.values():
            writer.pace(SLOW)

    def write_hostile_lines(self) -> None:
        """Such as an attacker would."""
        for _ in range(20):
            append(self._hostile, self._random.choice(HOSTILE))

    def kill_the_service(self) -> None:
        """SIGKILL to the supervisor, and another start."""
        children = self._service.children()
        assert self._service.process is not None
        self._service.process.kill()
        self._service.process.wait()
        wait_gone(*children, deadline_s=SETTLE_S)
        self._start_again()

    def restart(self) -> None:
        """A clean stop, and another start."""
        assert self._service.process is not None
        self._service.signal(signal.SIGTERM)
        status = self._service.process.wait(SETTLE_S)
        assert status == 0, f"ended with {status}"
        self._start_again()

    def _start_again(self) -> None:
        assert self._service.process is not None
        if self._service.process.stdout:
            self._service.process.stdout.close()
        self._service.notifications.clear()
        self._service.start()

    # The account.

    def _sample(self, at_s: float) -> None:
        memory: dict[str, int] = {}
        fds: dict[str, int] = {}
        for pid, role in {self._service.pid: "supervisor", **self._service.children()}.items():
            try:
                if role == "executor" and ids(pid)[0] != {0}:
                    role = "flooded executor"
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                fds[role] = _descriptors(pid, "executor" in role)
            except OSError:  # it was killed just now
                continue
            memory[role] = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        self._samples.append((at_s, memory, fds))
        seen = "  ".join(f"{role} {memory[role] / 1024:.1f} MiB {fds[role]} fds" for role in sorted(memory))
        lines_written = sum(writer.written for writer in self._writers.values())
        print(f"{at_s:7.0f} s  {lines_written:>11,} lines  {seen}", flush=True)

    def _check(self, written: int) -> bool:
        """Once all is quiet, each item must have fired as often as `written` lines of a log take.

        An action may have been run again only where two ended at once, such as an executor and soon after it
        the monitor that knows what it ran. None may be missing.
        """
        due = written // (PER_FIRE * len(DIGITS))
        may_run_again = any(" kill_" in step for step in self._steps)
        well = True
        for name, known in self._run_again.items():
            counts = self._quiet(name, due)
            over = [count - due - more for count, more in zip(counts, known, strict=True)]
            if min(over) >= 0 and may_run_again:
                self._run_again[name] = [count - due for count in counts]
            elif any(over):
                print(f"log {name}, actions of its items too many: {over}; since all was well:")
                print(*self._steps, sep="\n")
                well = False
        self._steps.clear()
        return well

    def _quiet(self, name: str, due: int) -> list[int]:
        """Give how often the items of a log have fired, once all have as often as is due and it is quiet."""
        wanted = [due + more for more in self._run_again[name]]
        end, before = time.monotonic() + SETTLE_S, [-1]
        while time.monotonic() < end:
            counts = fires(self._out(name))
            if counts == before and all(map(operator.ge, counts, wanted)):
                break
            before = counts
            time.sleep(QUIET_S)  # between two looks
        return counts

    def _account(self, written: int) -> bool:
        """See how often each item's action was run, and what it takes to have each fire once more.

        `written` is a multiple of what an item needs, so its count is at zero, unless lines were lost or seen
        twice: after all the lines that it needs but one it must not fire, and with that one it must.
        """
        well = self._check(written)
        for more in (PER_FIRE - 1, PER_FIRE):
            for writer in self._writers.values():
                writer.want(written + more * len(DIGITS))
            self._wait_written(written + more * len(DIGITS))
            self.restart()  # which reads whatever is left
            well = well and self._check(written + more * len(DIGITS))
        total = sum(writer.written for writer in self._writers.values())
        actions = sum(sum(fires(self._out(name))) for name in LOGS)
        again = sum(sum(more) for more in self._run_again.values())
        print()
        print("what happened:", ", ".join(f"{name} {times}" for name, times in sorted(self._done.items())))
        if well:
            print(f"lines: written {total:,}, seen {total:,}, lost 0, twice 0")
            print(f"actions: due {actions - again:,}, none lost, {again} run again where two ended at once")
        return self._flat() and well

    def _out(self, name: str) -> Path:
        return self._directory / f"{name}.out"

    def _wait_written(self, count: int) -> None:
        for writer in self._writers.values():
            wait_for(lambda writer=writer: writer.written >= count, "lines written", SETTLE_S)  # type: ignore[misc]

    def _flat(self) -> bool:
        """Compare the end with what was a while after the last kill."""
        # Those that live long have done everything once by then: queues were full, files were behind.
        samples = [sample for sample in self._samples if sample[0] > self._seconds * 0.65]
        quarter = max(1, len(samples) // 4)
        well = True
        for role in ("supervisor", "monitor", "executor", "flooded executor"):
            # The least: an action may have ended a moment ago, and have its descriptors still.
            for what, index, usually in (("KiB", 1, median), ("descriptors", 2, min)):
                first, last = (
                    [sample[index][role] for sample in some if role in sample[index]]
                    for some in (samples[:quarter], samples[-quarter:])
                )
                if not first or not last:
                    continue
                usual = round(usually(first)), round(usually(last))
                flat = usual[1] <= usual[0] * GROWTH
                well = well and flat
                print(
                    f"{role}: {usual[0]} {what} before, {usual[1]} in the end, "
                    f"at most {max(max(first), max(last))}: {'flat' if flat else 'GROWN'}"
                )
        return well

    def end(self) -> None:
        """Leave nothing running, and nothing in memory."""
        self._service.end()
        for writer in self._writers.values():
            writer.end()
        shutil.rmtree(self._runtime)

    @property
    def log(self) -> str:
        """The service's own."""
        return self._service.log


def _descriptors(pid: int, runs_actions: bool) -> int:
    """Count a role's descriptors, without those of actions that run."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(100):
        running = children.read_text()
        number = len(os.listdir(f"/proc/{pid}/fd"))
        if running == children.read_text():  # none began or ended meanwhile
            break
    return number - FILES_OF_ACTION * len(running.split()) * runs_actions


def main() -> int:
    """Run it; the exit status is 0 when nothing was lost and nothing has grown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"{options.minutes:g} minutes, seed {options.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="lognot-soak-"))
    directory.chmod(0o755)
    soak = Soak(directory, options.minutes, options.seed)
    well = False
    try:
        well = soak.run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is in a hurry would leave all of it
        soak.end()
        if well:
            shutil.rmtree(directory)
        print("well" if well else f"NOT WELL: what there is to see is in {directory}", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
