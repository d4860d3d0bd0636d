"""Lines written to many logs in turn: what one more log adds to the cost of a line."""

from __future__ import annotations

import os
import time
from collections import defaultdict

import corpus
import measure
from programs import Item, Program, Run, Unavailable
from report import Aim, Section, median, ratio, shown
from session import Session

LINES = 2_000
GAP_S = 0.0005  # each line finds the program waiting: its cost is that of a whole wake-up


def once(session: Session, program: Program, files: int, lines: int, found: list[float]) -> None:
    """Write to each log in turn; CPU microseconds per line."""
    where = session.work(program)
    logs = [where / "watched" / f"log{number}" for number in range(files)]
    chance_lines = [f"{line}\n".encode() for line in corpus.mixed(lines)]
    run = Run(program, where, [Item(log, corpus.DENSE_PATTERN) for log in logs], ends_in=logs[0])
    fds = []
    try:
        fds = [os.open(log, os.O_WRONLY | os.O_APPEND) for log in logs]
        before = measure.cpu_s(run.pid)
        due = time.monotonic()
        for number, line in enumerate(chance_lines):
            os.write(fds[number % files], line)
            due += GAP_S
            time.sleep(max(0.0, due - time.monotonic()))
        run.append_end()
        if not program.wait_end(run, 60.0):
            raise Unavailable("not done after 60 s")
        found.append((measure.cpu_s(run.pid) - before) / lines * 1e6)
    finally:
        for fd in fds:
            os.close(fd)
        run.end()


def run(session: Session) -> Section:
    """Measure, round by round."""
    counts = (1, 100) if session.quick else (1, 10, 100, 1000)
    lines = 1_000 if session.quick else LINES
    cells: dict[tuple[str, int], list[float]] = defaultdict(list)
    for files in counts:
        for _ in range(session.rounds):
            for program in session.programs:
                cell = cells[program.name, files]
                session.attempt(
                    "growth", program, f"{files:,} logs", once, session, program, files, lines, cell
                )
    found = Section(
        "Many logs",
        f"""
{lines:,} lines, one every {GAP_S * 1000:g} ms, to so many logs in turn, with an item for each. CPU µs per
line, median of {session.rounds} rounds; *growth* is the last column to the first. Programs that poll save
by it here, as they take several lines at a time, and pay when idle.""",
    )
    value = {key: median(each) for key, each in cells.items()}
    rows = []
    for program in session.programs:
        each = [value[program.name, files] for files in counts]
        if any(each):
            rows.append([program.name, *map(shown, each), shown(ratio(each[-1], each[0]))])
    found.tables.append(
        (["program", *(f"{files:,} log{'s' if files > 1 else ''}" for files in counts), "growth"], rows)
    )
    own = ratio(value["lognot", counts[-1]], value["lognot", 1]) if ("lognot", 1) in value else None
    found.aims.append(Aim.most(f"CPU a line with {counts[-1]:,} logs to one", own, 1.5))
    found.missing = session.missing("growth")
    return found
