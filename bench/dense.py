"""Every line matches and is counted for its address: lines a second and CPU time."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import corpus
from catch_up import Cell, Text, burst
from programs import Item
from report import Aim, Section, median, ratio, shown
from session import Session

KEYS = 100_000
LINES = 500_000


def keyed(log: Path) -> list[Item]:
    """Count each address on its own."""
    return [Item(log, corpus.DENSE_PATTERN, bound=1000, window_s=3600, keyed=True)]


def run(session: Session) -> Section:
    """Measure, round by round."""
    lines = 50_000 if session.quick else LINES
    text = Text(corpus.dense_file(session.kept, lines, KEYS))
    cells: dict[str, Cell] = defaultdict(Cell)
    for _ in range(session.rounds):
        for program in session.programs:
            session.attempt("dense", program, "", burst, session, program, text, keyed, cells[program.name])
    found = Section(
        "Every line matches",
        f"""
{lines:,} lines ({len(text.data) / 1e6:.1f} MB) of failed logins from {min(KEYS, lines):,} addresses, each
counted on its own (`usecrc`, in a window of an hour). Median of {session.rounds} rounds; *lines* as
above.""",
    )
    own = cells["lognot"].us_per_line
    rows = []
    for name, cell in cells.items():
        if cell.cpu_s:
            wall = median(cell.wall_s) or 0
            us = cell.us_per_line
            rows.append(
                [name, f"{cell.lines:,}", shown(us), shown(ratio(us, own)), shown(ratio(cell.lines, wall))]
            )
    found.tables.append((["program", "lines", "CPU µs/line", "x lognot", "lines/s"], rows))
    own_wall = median(cells["lognot"].wall_s)
    found.aims.append(
        Aim.least("dense, lines a second", ratio(cells["lognot"].lines, own_wall), 300_000, "lines/s")
    )
    for name, limit in (("sec", 10), ("swatchdog", 4)):
        if cells[name].cpu_s:
            found.aims.append(
                Aim.least(f"dense, {name}'s CPU to lognot's", ratio(cells[name].us_per_line, own), limit)
            )
    found.missing = session.missing("dense")
    return found
