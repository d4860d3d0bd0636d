"""The programs that lognot is measured beside, as Debian packages them, configured to do the same.

What cannot be the same is said in `note`, which RESULTS.md prints.
"""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.request
from pathlib import Path

import measure
import programs
from programs import Item, Program, Run, said


def unique(items: list[Item]) -> dict[str, Item]:
    """One rule for each pattern, for programs that apply every rule to every log."""
    return {item.pattern: item for item in items}


def logs(items: list[Item]) -> list[str]:
    """Give every log once."""
    return list(dict.fromkeys(str(item.log) for item in items))


class Sec(Program):
    """sec: one Perl process, which polls."""

    name = "sec"
    executable = "/usr/bin/sec"
    note = "SingleWithThreshold; polls every 0.1 s (default); the first rule that matches ends the search"

    def version(self) -> str:
        """As it says."""
        return said([self.executable, "--version"], r"\d+\.[\d.]+")

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """A rule for each pattern."""
        text = ""
        for number, item in enumerate(unique(items).values()):
            action = "none" if item.action == "true" else f"shellcmd {item.action}"
            kind = "SingleWithThreshold" if item.bound else "Single"
            text += f"type={kind}\nptype=RegExp\npattern={item.pattern}\n"
            text += f"desc={'$1' if item.keyed else f'rule{number}'}\naction={action}\n"
            if item.bound:
                text += f"window={item.window_s}\nthresh={item.bound + 1}\n"
            text += "\n"
        (directory / "sec.conf").write_text(text)
        inputs = [f"--input={log}" for log in logs(items)]
        return [self.executable, f"--conf={directory}/sec.conf", f"--log={directory}/own.log", *inputs]

    def is_up(self, run: Run) -> bool:
        """It says that it has opened the last log."""
        own = run.directory / "own.log"
        return own.exists() and f"Opening input file {logs(run.items)[-1]}\n" in own.read_text()


class Swatchdog(Program):
    """swatchdog: a generated Perl script behind tail(1)."""

    name = "swatchdog"
    executable = "/usr/bin/swatchdog"
    tells_start = False
    note = "threshold; tail -n 0 -F; the first rule that matches ends the search"

    def version(self) -> str:
        """As it says."""
        return said([self.executable, "--version"], r"\d+\.[\d.]+")

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """A watchfor block for each pattern."""
        text = ""
        for number, item in enumerate(unique(items).values()):
            text += f"watchfor /{item.pattern}/\n"
            if item.bound:
                key = "$1" if item.keyed else f"rule{number}"
                text += f"\tthreshold track_by={key},type=threshold,count={item.bound + 1},"
                text += f"seconds={item.window_s}\n"
            text += f"\texec {item.action}\n\n"
        (directory / "swatchdogrc").write_text(text)
        return [
            self.executable,
            f"--config-file={directory}/swatchdogrc",
            f"--script-dir={directory}",
            "--tail-args=-n 0 -F",
            f"--tail-file={' '.join(logs(items))}",
        ]

    def is_up(self, run: Run) -> bool:
        """Its tail has the last log open."""
        return has_open(run.pid, logs(run.items)[-1])


class Fail2ban(Program):
    """fail2ban: a Python process with threads."""

    name = "fail2ban"
    executable = "/usr/bin/fail2ban-server"
    note = "one jail, a failregex for each rule; pyinotify; counts addresses, whichever rule matches"
    retries = 50  # more than any address has in the mixed log

    def version(self) -> str:
        """As it says."""
        return said([self.executable, "--version"], r"\d+\.[\d.]+")

    def _retries(self, items: list[Item]) -> int:
        return self.retries if any(item.bound for item in items) else 1

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """One jail. Old lines count, too: the corpus is of another day."""
        for name in ("filter.d", "action.d"):
            (directory / name).mkdir()
        (directory / "fail2ban.conf").write_text(
            "[Definition]\nloglevel = ERROR\nlogtarget = STDOUT\nsyslogsocket = auto\n"
            f"socket = {directory}/sock\npidfile = {directory}/pid\ndbfile = None\ndbmaxmatches = 0\n"
        )
        regexes = []
        for item in unique(items).values():
            before, _, after = item.pattern.rpartition(r"(\S+)")
            regexes.append(f"{before}<HOST>{after}")
        (directory / "filter.d/bench.conf").write_text(
            "[Definition]\nfailregex = " + "\n            ".join(regexes) + "\n"
        )
        action = next((item.action for item in items if item.action != "true"), "true")
        (directory / "action.d/bench.conf").write_text(f"[Definition]\nactionban = {action}\n")
        (directory / "jail.conf").write_text(
            "[DEFAULT]\nbackend = pyinotify\nusedns = no\nfindtime = 10y\nbantime = 10y\nignoreself = false\n"
            f"maxmatches = 0\nmaxretry = {self._retries(items)}\n\n[bench]\nenabled = true\nfilter = bench\n"
            "action = bench\nlogpath = " + "\n          ".join(logs(items)) + "\n"
        )
        return [
            self.executable,
            "-f",
            "-c",
            str(directory),
            "-s",
            f"{directory}/sock",
            "-p",
            f"{directory}/pid",
        ]

    def is_up(self, run: Run) -> bool:
        """It says so."""
        return "Server ready" in run.output.read_text(errors="replace")

    def end_lines(self, number: int, items: list[Item]) -> list[str]:
        """It bans an address once: so many lines of a new one."""
        return super().end_lines(number, items) * self._retries(items)


class Mtail(Program):
    """mtail: a Go process; counts, and runs nothing."""

    name = "mtail"
    executable = "/usr/bin/mtail"
    acts = False
    note = "a counter for each rule; runs no actions: its web page, asked every 0.05 s, says that it is done"
    hidden = "hidden"

    def version(self) -> str:
        """As it says."""
        return said([self.executable, "--version"], r"\d+\.[\d.]+\S*")

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """Counters that its page does not show, but for the last line's."""
        declared, blocks = "counter bench_end\n", ""
        for number, item in enumerate(unique(items).values()):
            if item.pattern == programs.END_PATTERN:
                blocks += f"/{item.pattern}/ {{\n  bench_end++\n}}\n"
                continue
            declared += f"{self.hidden} counter rule{number}{' by key' if item.keyed else ''}\n"
            blocks += f"/{item.pattern}/ {{\n  rule{number}{'[$1]' if item.keyed else ''}++\n}}\n"
        (directory / "progs").mkdir()
        (directory / "progs/bench.mtail").write_text(declared + blocks)
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (directory / "port").write_text(str(port))
        return [
            self.executable,
            "-address=127.0.0.1",
            f"-port={port}",
            f"-progs={directory}/progs",
            f"-log_dir={directory}",
            *(f"-logs={log}" for log in logs(items)),
        ]

    def count(self, run: Run, counter: str) -> int:
        """Ask its page; -1 while there is none."""
        port = (run.directory / "port").read_text()
        with contextlib.suppress(OSError):
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
            return sum(int(line.split()[-1]) for line in page.splitlines() if line.startswith(counter))
        return -1

    def is_up(self, run: Run) -> bool:
        """Its page answers."""
        return self.count(run, "bench_end") >= 0

    def wait_end(self, run: Run, deadline_s: float) -> bool:
        """Ask until the last line was counted."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if self.count(run, "bench_end") >= run.ends:
                return True
            time.sleep(0.05)
        return False


class InotifyShell(Program):
    """What one would write in a minute: inotifywait and a shell loop, which look at no line at all."""

    name = "inotifywait + sh"
    executable = "/usr/bin/inotifywait"
    note = (
        "inotifywait -m -e modify | while read; do sh -c ACTION; done: acts on every write, whatever is in it"
    )

    def version(self) -> str:
        """As its help says."""
        return said([self.executable, "--help"], r"\d+\.[\d.]+")

    def command(self, directory: Path, items: list[Item]) -> list[str]:
        """The loop runs the action as lognot does: with a shell of its own."""
        loop = f"while read -r _; do sh -c '{items[-1].action}'; done"
        return ["/bin/sh", "-c", f"{self.executable} -m -e modify {items[0].log} | {loop}"]

    def is_up(self, run: Run) -> bool:
        """It says so."""
        return "Watches established" in run.output.read_text(errors="replace")


def has_open(root: int, path: str) -> bool:
    """Whether one of the program's processes has the file open."""
    for pid in measure.tree(root):
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(fd.readlink()) == path:
                        return True
    return False
