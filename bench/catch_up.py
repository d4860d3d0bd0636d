"""CPU time to catch up with a burst of mixed lines, by number of rules; and grep's for the same bytes.

A program that would need longer than its `burst_s` is given as many of the first lines as it can take in that
time: what is compared is the CPU time per line.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import corpus
import plot
from programs import Item, Program, Run, Unavailable
from report import Aim, Section, median, ratio, shown
from session import Session

TRY_LINES = 5_000
SIZES = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000)
GREP = "grep -cP"
GREP_S = 10.0
PEERS_IN = "alike"


@dataclass(slots=True)
class Cell:
    """One program with one number of rules."""

    lines: int = 0
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    @property
    def us_per_line(self) -> float | None:
        """The median."""
        return self.us(statistics.median) if self.cpu_s else None

    def us(self, chosen: Callable[[list[float]], float]) -> float:
        """Give the one that is chosen, per line."""
        return chosen(self.cpu_s) / self.lines * 1e6


class Text:
    """The corpus in memory, to be cut anywhere between two lines."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.path = path
        self.lines = self.data.count(b"\n")

    def head(self, lines: int) -> bytes:
        """Give the first so many lines."""
        if lines >= self.lines:
            return self.data
        return b"".join(line + b"\n" for line in self.data[: lines * 400].split(b"\n")[:lines])


def fitting(us_per_line: float, budget_s: float, lines: int) -> int:
    """Give the largest size that stays below the budget, the smallest if none does."""
    sizes = [min(size, lines) for size in SIZES]
    return max([size for size in sizes if size * us_per_line / 1e6 <= budget_s], default=sizes[0])


ItemsOf = Callable[[Path], list[Item]]  # for a log


def rules(family: str, count: int) -> ItemsOf:
    """Give an item for each rule."""
    return lambda log: [Item(log, rule.pattern) for rule in corpus.rules(family, count)]


def burst(session: Session, program: Program, text: Text, items_of: ItemsOf, cell: Cell) -> None:
    """Start it, have it read a little, then measure."""
    log = session.work(program) / "watched" / "log"
    run = Run(program, session.work(program), items_of(log), ends_in=log)
    try:
        cpu, _ = run.burst(text.head(TRY_LINES))
        run.settle()
        cell.lines = cell.lines or fitting(cpu / TRY_LINES * 1e6, program.burst_s, text.lines)
        cpu, wall = run.burst(text.head(cell.lines))
        cell.cpu_s.append(cpu)
        cell.wall_s.append(wall)
    finally:
        run.end()


def grep(session: Session, text: Text, family: str, count: int, cell: Cell) -> None:
    """Let grep count the same lines: -P takes one pattern, so they are joined."""
    pattern = "|".join(rule.pattern for rule in corpus.rules(family, count))

    def once(lines: int) -> float:
        path = text.path
        if lines < text.lines:
            path = corpus.kept(
                session.kept, f"head-{lines}-of-{text.lines}", lambda: text.head(lines).decode().splitlines()
            )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["grep", "-cP", "-e", pattern, str(path)],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise Unavailable(
                done.stderr.strip() or f"exit status {done.returncode}, counted {done.stdout.strip()}"
            )
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    if not cell.lines:
        small = min(TRY_LINES, text.lines)
        cell.lines = fitting(once(small) / small * 1e6, GREP_S, text.lines)
    cell.cpu_s.append(once(cell.lines))


class Grep(Program):
    """Only a name in the tables: grep watches nothing."""

    name = GREP


def run(session: Session) -> Section:
    """Measure, round by round, every program in each."""
    lines = 50_000 if session.quick else corpus.LINES
    text = Text(corpus.mixed_file(session.kept, lines))
    cells: dict[tuple[str, str, int], Cell] = defaultdict(Cell)
    for family in corpus.FAMILIES[:1] if session.quick else corpus.FAMILIES:
        for count in session.rules:
            for _ in range(session.rounds):
                what = f"{counted(count)}, {family}"
                cell = cells[family, GREP, count]
                session.attempt("catch-up", Grep(), what, grep, session, text, family, count, cell)
                for program in session.programs:
                    if program.name == "lognot" or family == PEERS_IN:
                        cell = cells[family, program.name, count]
                        items_of = rules(family, count)
                        session.attempt(
                            "catch-up", program, what, burst, session, program, text, items_of, cell
                        )
    return section(session, text, cells)


def counted(rules: int) -> str:
    """Say how many."""
    return f"{rules:,} rule{'' if rules == 1 else 's'}"


def section(session: Session, text: Text, cells: dict[tuple[str, str, int], Cell]) -> Section:
    """Tables, aims and the plot."""
    found = Section(
        "Catch up with a burst",
        f"""
{text.lines:,} mixed syslog lines ({len(text.data) / 1e6:.1f} MB) are appended at once; 1 % of them match
the first rule, 0.2 % one of the others. CPU time, user and system, of all processes of a program from
before the append until the action of a last line has run; µs per line, median of {session.rounds} rounds,
and how many times lognot's that is. A program that would take long gets only the first lines of the same
text: *lines* says how many. Rules never reach their threshold. `LC_ALL=C grep -cP` reads the same file
with the rules joined by `|`, and keeps no counts.

*alike* are rules such as `svc042\\[\\d+\\]: error (\\S+) from (\\S+)`; *unlike* are made of words that
have nothing in common. The peers are measured with the first only.""",
    )
    value = {key: cell.us_per_line for key, cell in cells.items()}
    names = [GREP, *(program.name for program in session.programs)]
    for family in corpus.FAMILIES:
        rows = []
        for count in session.rules:
            for name in names:
                cell = cells.get((family, name, count))
                if cell and cell.cpu_s:
                    wall = median(cell.wall_s)
                    rows.append(
                        [
                            f"{counted(count)}, {family}",
                            name,
                            f"{cell.lines:,}",
                            shown(cell.us_per_line),
                            f"{shown(cell.us(min))} … {shown(cell.us(max))}",
                            shown(ratio(cell.us_per_line, value.get((family, "lognot", count)))),
                            shown(None if wall is None else cell.lines / wall),
                        ]
                    )
        if rows:
            head = ["rules", "program", "lines", "CPU µs/line", "least … most", "x lognot", "lines/s"]
            found.tables.append((head, rows))
        for count, limit in ((1, 2), (100, 6), (1000, 20)):
            if (family, "lognot", count) in value:
                one = value.get((family, GREP, 1))
                of = ratio(value[family, "lognot", count], one)
                found.aims.append(
                    Aim.most(f"CPU to grep -cP with one rule: {counted(count)}, {family}", of, limit)
                )
    for count, limit in ((1, 20), (100, 100)):
        of = ratio(value.get((PEERS_IN, "sec", count)), value.get((PEERS_IN, "lognot", count)))
        if of is not None:
            found.aims.append(Aim.least(f"sec's CPU to lognot's: {counted(count)}", of, limit))
    lines = {
        name: [(float(n), us) for n in session.rules if (us := value.get((PEERS_IN, name, n)))]
        for name in names
    }
    drawn = plot.curves("CPU time to catch up with a burst", "rules", "µs per line", lines)
    if drawn:
        found.figures["catch-up.svg"] = drawn
    found.missing = session.missing("catch-up")
    return found
