"""From the write of a line until its action's shell runs; and a thousand actions from one write."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections import defaultdict

import corpus
from peers import InotifyShell
from programs import Fifo, Item, Program, Run, Unavailable
from report import Aim, Section, median, percentile, ratio, shown
from session import Session

SAMPLES = 300
PAUSE_S = 0.01  # lines of a quiet log
BURST = 1000
IN_TURN = "sh -c, one by one"


def samples_s(session: Session) -> float:
    """For how long at most: some look once a second."""
    return 1.0 if session.quick else 5.0


def p99_of(values: list[float]) -> float | None:
    """Of fewer than a hundred it would be the greatest."""
    return percentile(values, 99) if len(values) >= 100 else None


def items(session: Session, program: Program) -> list[Item]:
    """One rule that acts on each match."""
    log = session.work(program) / "watched" / "log"
    return [Item(log, corpus.DENSE_PATTERN, bound=0, action="@fifo")]


def line(number: int) -> bytes:
    """A line that matches, from an address of its own."""
    now = time.strftime("%b %e %H:%M:%S")
    return (
        f"{now} host1 sshd[1]: Failed password for root from {corpus.address(number)} port 1 ssh2\n".encode()
    )


def once(session: Session, program: Program, delays_ms: list[float], bursts_ms: list[float]) -> None:
    """Single lines first, then the thousand."""
    run = Run(program, session.work(program), items(session, program))
    try:
        lines = map(line, itertools.count())
        for _ in range(3):  # until it is warm; the first may come before it looks
            run.append(next(lines))
            acted = run.fifo.wait(1, 5.0)
        if not acted:
            raise Unavailable("did not act on its first three lines")
        run.settle()
        run.fifo.drain()
        end = time.monotonic() + samples_s(session)
        for text in itertools.islice(lines, SAMPLES):
            begin = time.monotonic_ns()
            run.append(text)
            if not run.fifo.wait(1, 30.0):
                raise Unavailable("an action did not run within 30 s")
            delays_ms.append((time.monotonic_ns() - begin) / 1e6)
            if time.monotonic() > end:
                break
            time.sleep(PAUSE_S)
        if isinstance(program, InotifyShell):
            return  # one event for one write: it knows nothing of lines
        data = b"".join(itertools.islice(lines, BURST))
        run.settle()
        begin = time.monotonic_ns()
        run.append(data)
        ran = run.fifo.wait(BURST, 60.0)
        if ran < BURST:
            raise Unavailable(f"of {BURST} actions from one write {ran} ran within 60 s")
        bursts_ms.append((time.monotonic_ns() - begin) / 1e6)
    finally:
        run.end()


def in_turn(session: Session) -> float:
    """A shell that runs a thousand times the same action with `sh -c`: wall milliseconds."""
    path = session.directory / "work" / "in-turn"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    fifo = Fifo(path)
    loop = f"i=0; while [ $i -lt {BURST} ]; do sh -c '{fifo.action}'; i=$((i+1)); done"
    begin = time.monotonic_ns()
    subprocess.run(["/bin/sh", "-c", loop], check=True, timeout=60)
    took = (time.monotonic_ns() - begin) / 1e6
    fifo.close()
    os.unlink(path)
    return took


def run(session: Session) -> Section:
    """Measure, round by round."""
    delays: dict[str, list[float]] = defaultdict(list)
    bursts: dict[str, list[float]] = defaultdict(list)
    for _ in range(session.rounds):
        bursts[IN_TURN].append(in_turn(session))
        for program in session.programs:
            if program.acts:
                name = program.name
                session.attempt("latency", program, "", once, session, program, delays[name], bursts[name])
    found = Section(
        "From write to action",
        f"""
A matching line is written, then nothing for {PAUSE_S * 1000:.0f} ms; milliseconds until `echo >FIFO`, run
by a shell, has reached us. Up to {SAMPLES} lines or {samples_s(session):g} s in each of {session.rounds}
rounds. p99 is shown from 100 lines on. *{BURST:,} lines*: as many matching lines in one write, each with
its action: milliseconds until the last one ran, beside a shell that runs as many `sh -c` one by one.""",
    )
    rows = []
    for name in dict.fromkeys([*delays, *bursts]):
        each = delays[name]
        rows.append(
            [
                name,
                f"{len(each):,}" if each else "-",
                shown(percentile(each, 50)),
                shown(p99_of(each)),
                shown(max(each, default=None)),
                shown(median(bursts[name])),
            ]
        )
    found.tables.append((["program", "lines", "p50 ms", "p99 ms", "most ms", f"{BURST:,} lines ms"], rows))
    p50, p99 = percentile(delays["lognot"], 50), p99_of(delays["lognot"])
    shell = percentile(delays[InotifyShell.name], 50)
    found.aims += [
        Aim.most("latency p50 to inotifywait + sh", ratio(p50, shell), 1.5),
        Aim.most("latency p50", p50, 3, "ms"),
        Aim.most("latency p99 to p50", ratio(p99, p50), 3),
        Aim.most("1,000 lines to 1,000 sh -c", ratio(median(bursts["lognot"]), median(bursts[IN_TURN])), 1),
    ]
    found.missing = session.missing("latency")
    return found
