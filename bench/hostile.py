"""What a line a second that is made to keep one item's regex busy does to the actions of other items."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict

from programs import Item, Lognot, Run, Unavailable
from report import Aim, Section, percentile, shown
from session import Session

# What it is, the regex of the item that suffers, and the line.
PAIRS: tuple[tuple[str, str, bytes], ...] = (
    ("quadratic, 64 KiB", "(?=a)[a-z]+[0-9]", b"a" * 65536 + b"!\n"),
    ("cubic, 1 KiB", "a*a*a*[xy]", b"a" * 1000 + b"!\n"),
    ("back-reference, 1 KiB", r"(a*)\1[xy]", b"a" * 1000 + b"!\n"),
    ("exponential, 40 bytes", "(a+)+$", b"a" * 40 + b"!\n"),
    # As many as are read at once: none of them takes long by itself.
    ("500 lines of back-reference, 255 bytes", r"(\w+)\1c", (b"a" * 250 + b"bc-a\n") * 500),
    ("recursion, 4 bytes", "(|a|(?1)(?1))[xy]", b"abcd\n"),  # PCRE 8 refuses it
)
ENGINES = ("pcre", "pcre2")
ITEMS = 10  # of the config: the one that suffers, two that are measured, and others
LINES_A_SECOND = 10  # that are measured; the first of them comes right behind the hostile one


def seconds(session: Session) -> int:
    """How many hostile lines there are."""
    return 3 if session.quick else 15


def once(session: Session, engine: str, regex: str, hostile: bytes, delays_ms: list[float]) -> None:
    """Write them into one log, and lines that other items act on into that and into another one in turn."""
    program = Lognot(engine)
    directory = session.work(program)
    same, other = directory / "watched" / "log", directory / "watched" / "other"
    items = [Item(same, regex, bound=0), Item(same, "^GOOD [0-9]+$", bound=0, action="@fifo")]
    items += [Item(other, "^GOOD [0-9]+$", bound=0, action="@fifo")]
    items += [Item(same, f"^item {n} said ([a-z]+)$", bound=0) for n in range(ITEMS - len(items))]
    run = Run(program, directory, items)
    try:
        run.append(b"GOOD 0\n", same)
        run.append(b"GOOD 0\n", other)
        if run.fifo.wait(2, 10.0) < 2:
            raise Unavailable("did not act on its first lines")
        run.settle()
        next_s = time.monotonic()
        for second in range(seconds(session)):
            for number, log in zip(range(LINES_A_SECOND), itertools.cycle((same, other))):
                begin = time.monotonic_ns()
                if number == 0:
                    log = (same, other)[second % 2]
                    run.append(hostile, same)
                run.append(b"GOOD %d\n" % number, log)
                if not run.fifo.wait(1, 60.0):
                    raise Unavailable("an action did not run within 60 s")
                delays_ms.append((time.monotonic_ns() - begin) / 1e6)
                next_s = max(next_s + 1 / LINES_A_SECOND, time.monotonic())
                time.sleep(max(0.0, next_s - time.monotonic()))
    finally:
        run.end()


def run(session: Session) -> Section:
    """Measure, round by round."""
    program = next((program for program in session.programs if isinstance(program, Lognot)), None)
    delays: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(session.rounds if program else 0):
        for what, regex, line in PAIRS:
            for engine in ENGINES:
                args = (session, engine, regex, line, delays[what, engine])
                session.attempt("hostile", Lognot(engine), f"{what}, {engine}", once, *args)
    found = Section(
        "A hostile line a second",
        f"""
Each second a line that is made for the regex of one item, and {LINES_A_SECOND} lines that two others act
on, in the same log and in another one; {seconds(session)} s in each of {session.rounds} rounds, lognot alone,
with {ITEMS} items. Milliseconds from the write of such a line until its action's shell runs; the first in
each second comes right behind the hostile line, so it waits for all that this one costs.""",
    )
    regexes = {what: regex for what, regex, _ in PAIRS}
    rows = []
    for (what, engine), each in delays.items():
        if each:
            figures = [percentile(each, 50), percentile(each, 90), percentile(each, 99), max(each)]
            rows.append([f"{regexes[what]} ({what})", engine, *(shown(figure) for figure in figures)])
    found.tables.append((["regex and line", "engine", "p50 ms", "p90 ms", "p99 ms", "most ms"], rows))
    single = {what for what, _, line in PAIRS if line.count(b"\n") == 1}
    worst = max((max(each) for (what, _), each in delays.items() if each and what in single), default=None)
    found.aims.append(
        Aim.most("another item's latency beside a hostile line a second, most", worst, 50, "ms")
    )
    found.missing = session.missing("hostile")
    return found
