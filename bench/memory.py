"""PSS of all processes: at start, after a burst, and under many keys."""

from __future__ import annotations

import corpus
import measure
from catch_up import Text
from programs import Item, Program, Run
from report import Aim, Section, shown
from session import Session

ITEMS = 10
MIB = 2**20


def at_start(session: Session, program: Program) -> Run:
    """Ten items on ten logs, and the last line's."""
    where = session.work(program)
    logs = [where / "watched" / f"log{number}" for number in range(ITEMS)]
    rules = corpus.rules("alike", ITEMS)
    items = [Item(log, rule.pattern) for log, rule in zip(logs, rules, strict=True)]
    return Run(program, where, items, ends_in=logs[0])


def started(session: Session, program: Program, burst: Text | None) -> tuple[dict[str, int], int | None]:
    """PSS at rest after the start, and after a burst if one is given."""
    run = at_start(session, program)
    try:
        run.settle()
        before, after = measure.pss_by_name(run.pid), None
        if burst:
            run.burst(burst.data)
            run.settle()
            after = measure.pss_bytes(run.pid)
        return before, after
    finally:
        run.end()


def keyed(session: Session, program: Program, keys: int) -> int:
    """How much PSS grows by so many keys."""
    log = session.work(program) / "watched" / "log"
    item = Item(log, corpus.DENSE_PATTERN, bound=1000, window_s=36_000, keyed=True)
    run = Run(program, session.work(program), [item], ends_in=log)
    try:
        run.burst(corpus.dense_file(session.kept, 5_000, 10).read_bytes())  # buffers have their size now
        run.settle()
        before = measure.pss_bytes(run.pid)
        run.burst(corpus.dense_file(session.kept, keys, keys).read_bytes())
        run.settle()
        return measure.pss_bytes(run.pid) - before
    finally:
        run.end()


def run(session: Session) -> Section:
    """Measure once: memory does not jitter as time does."""
    counts = (20_000,) if session.quick else (200_000, 1_000_000)
    text = Text(corpus.mixed_file(session.kept, 50_000 if session.quick else corpus.LINES))
    found = Section(
        "Memory",
        f"""
PSS of all processes in MiB: {ITEMS} items on {ITEMS} logs at start, and after the burst of the first
measure. Then how much it grows by lines from so many distinct addresses, each counted on its own, and
bytes for each address written: lognot remembers at most 250,000 keys of an item.""",
    )
    rows = []
    for program in session.programs:
        own = program.name == "lognot"
        pss = session.attempt("memory", program, "start", started, session, program, text if own else None)
        if pss:
            parts, after = pss
            start = sum(parts.values())
            each = ", ".join(f"{name} {shown(size / MIB)}" for name, size in parts.items())
            rows.append([program.name, shown(start / MIB), shown(after / MIB if after else None), each])
            if own:
                found.aims.append(Aim.most(f"PSS at start, {ITEMS} items", start / 1e6, 16, "MB"))
    found.tables.append((["program", "start", "after burst", "at start, each process"], rows))
    rows = []
    for program in session.programs:
        for keys in counts if program.name == "lognot" else counts[:1] if program.name == "sec" else ():
            grown = session.attempt("memory", program, f"{keys:,} keys", keyed, session, program, keys)
            if grown is not None:
                rows.append([program.name, f"{keys:,}", shown(grown / MIB), shown(grown / keys)])
                if program.name == "lognot" and keys == counts[0]:
                    found.aims.append(Aim.most(f"bytes a key, {keys:,} keys", grown / keys, 300, "bytes"))
    found.tables.append((["program", "keys", "grown MiB", "bytes/key"], rows))
    found.missing = session.missing("memory")
    return found
