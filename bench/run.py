#!/usr/bin/python3
"""Measure lognot beside its peers: `bench/run.py [MEASURE…] [--quick] [--rules 1,10] [--only lognot,sec]`.

bench/README.md says what is measured and how. Prints a report; --write puts it into bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import catch_up
import dense
import growth
import hostile
import idle
import latency
import memory
import proof
import start
from peers import Fail2ban, InotifyShell, Mtail, Sec, Swatchdog
from programs import Lognot, Program, Unavailable, said
from report import Section, markdown, table
from session import Session, say

HERE = Path(__file__).resolve().parent
MEASURES: dict[str, Callable[[Session], Section]] = {
    "catch-up": catch_up.run,
    "dense": dense.run,
    "latency": latency.run,
    "hostile": hostile.run,
    "idle": idle.run,
    "memory": memory.run,
    "start": start.run,
    "growth": growth.run,
}
PROGRAMS: tuple[Program, ...] = (Lognot(), Sec(), Swatchdog(), Fail2ban(), Mtail())
SHELL = InotifyShell()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure lognot beside its peers.")
    parser.add_argument(
        "measures", nargs="*", metavar="MEASURE", help=f"{', '.join(MEASURES)}; by default all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the lines, one round: to see that it works"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each measure (3, with --quick 1)")
    parser.add_argument("--rules", help="numbers of rules for catch-up (1,10,100,1000)")
    parser.add_argument("--only", help="programs, separated by commas")
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md and its plot")
    given = parser.parse_args()
    for name in given.measures:
        if name not in MEASURES:
            parser.error(f"no measure '{name}': {', '.join(MEASURES)}")
    return given


def processor() -> str:
    """Say what /proc/cpuinfo calls it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load() -> str:
    """Say how busy the machine is."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def versions(programs: list[Program], directory: Path) -> tuple[list[Program], list[list[str]]]:
    """Say who is here, in which version, how it is set up, and that it counts."""
    here, rows = [], []
    for program in programs:
        note = getattr(program, "note", "an item for each rule; READY=1; inotify")
        try:
            version = program.version()
            if program is not SHELL:
                say(f"does it count: {program.name} {version}")
                proof.prove(program, directory / "work" / program.name)
            rows.append([program.name, version, note])
            here.append(program)
        except (Unavailable, OSError) as error:
            rows.append([program.name, f"left out: {error}", note])
    rows.append(["grep", said(["grep", "--version"], r"\d+\.[\d.]+"), "LC_ALL=C grep -cP RULE|RULE|…"])
    return here, rows


def main() -> int:
    """Measure, and report."""
    given = arguments()
    if os.geteuid() != 0:
        say("not root: lognot's processes run as one user here, and programs of root cannot be measured")
    rounds = given.rounds or (1 if given.quick else 3)
    rules = [
        int(count) for count in (given.rules or ("1,100" if given.quick else "1,10,100,1000")).split(",")
    ]
    programs = [p for p in (*PROGRAMS, SHELL) if not given.only or p.name in given.only.split(",")]
    directory = Path(os.environ.get("LOGNOT_BENCH_DIR", "/var/tmp/lognot-bench"))
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.chmod(0o755)  # lognot's monitor is another user
    programs, rows = versions(programs, directory)
    session = Session(directory, rounds, rules, programs, given.quick)
    watchers = [program for program in programs if program is not SHELL]
    measured, before, begin = revision(), load(), time.monotonic()
    sections = []
    try:
        for name in given.measures or MEASURES:
            say(f"{name} (load {load()})")
            session.programs = programs if name == "latency" else watchers
            since, busy = time.monotonic(), load()
            section = MEASURES[name](session)
            section.took = f"Took {time.monotonic() - since:.0f} s; load {busy} before, {load()} after."
            sections.append(section)
    finally:
        shutil.rmtree(directory / "work", ignore_errors=True)
    if (now := revision()) != measured:
        measured += f", which was {now[3:]} in the end"
    minutes = (time.monotonic() - begin) / 60
    command = shlex.join(["bench/run.py", *sys.argv[1:]])
    head = f"""# lognot beside its peers

Measured on {time.strftime("%Y-%m-%d")} by `{command}` in {minutes:.0f} minutes; [README.md](README.md)
says how.

- {processor()}, {os.cpu_count()} cores; Linux {platform.release()}; {distribution()}; Python {python()}
- lognot {measured}; load {before} before, {load()} after; the bench itself is part of that

{table(["program", "version", "set up as"], rows)}
"""
    text = markdown(head, sections)
    say("\n" + text)
    if given.write:
        (HERE / "RESULTS.md").write_text(text)
        for section in sections:
            for file, drawn in section.figures.items():
                (HERE / file).write_text(drawn)
    return 0


def revision() -> str:
    """Say which commit is measured, if that can be said."""
    git = ["git", "-C", str(HERE)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../src"]).returncode
        return f"at {commit.stdout.strip()}{', with changes' if changed else ''}"
    return "of no known commit"


def distribution() -> str:
    """Say which it is."""
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def python() -> str:
    """Say which interpreter lognot runs on."""
    return said([Lognot.executable, "--version"], r"[\d.]+")


if __name__ == "__main__":
    sys.exit(main())
