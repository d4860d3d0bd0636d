"""What waiting costs: context switches and CPU ticks while nothing is written."""

from __future__ import annotations

import time

import corpus
import measure
from programs import Item, Program, Run
from report import Aim, Section
from session import Session

SETTLE_S = 3.0


def run(session: Session) -> Section:
    """Measure all programs in the same seconds: they do not write, so none wakes another."""
    watch_s = 2.0 if session.quick else 10.0
    found = Section(
        "Idle",
        f"""
Context switches and CPU ticks ({measure.TICK_S * 1000:.0f} ms) of all processes in {watch_s:g} s without
a write, all programs in the same seconds.""",
    )
    rows = []
    for files in (1, 100):
        running: dict[Program, Run] = {}
        try:
            for program in session.programs:
                where = session.work(program)
                logs = [where / "watched" / f"log{number}" for number in range(files)]
                items = [Item(log, corpus.DENSE_PATTERN) for log in logs]
                started = session.attempt(
                    "idle", program, f"{files} files", Run, program, where, items, ends_in=logs[0]
                )
                if started:
                    running[program] = started
            time.sleep(SETTLE_S)
            before = {p: (measure.switches(r.pid), measure.ticks(r.pid)) for p, r in running.items()}
            time.sleep(watch_s)
            for program, watched in running.items():
                switches = measure.switches(watched.pid) - before[program][0]
                ticks = measure.ticks(watched.pid) - before[program][1]
                rows.append([program.name, str(files), f"{switches:,}", str(ticks)])
                if program.name == "lognot":
                    found.aims.append(
                        Aim.most(f"idle wake-ups, {files} file{'s' if files > 1 else ''}", switches, 0, "")
                    )
        finally:
            for watched in running.values():
                watched.end()
    found.tables.append((["program", "files", "switches", "ticks"], rows))
    found.missing = session.missing("idle")
    return found
