"""From exec until a program says that it is watching."""

from __future__ import annotations

from collections import defaultdict

from memory import ITEMS, at_start
from programs import Program
from report import Section, median, shown
from session import Session


def once(session: Session, program: Program, found: list[float]) -> None:
    """Start it and end it."""
    run = at_start(session, program)
    found.append(run.start_s * 1000)
    run.end()


def run(session: Session) -> Section:
    """Measure, round by round."""
    rounds = 2 * session.rounds + 1
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for program in session.programs:
            if program.tells_start:
                session.attempt("start", program, "", once, session, program, times[program.name])
    rows = [
        [name, shown(median(each)), shown(min(each)), shown(max(each))]
        for name, each in times.items()
        if each
    ]
    silent = ", ".join(program.name for program in session.programs if not program.tells_start)
    text = f"""
Milliseconds from exec until ready with {ITEMS} items, {rounds} starts: lognot's READY=1 (sd_notify(3)),
sec's and fail2ban's own word, the answer of mtail's web page. Of others it cannot be told:
{silent or "none"}."""
    found = Section("Start", text, [(["program", "median ms", "least", "most"], rows)])
    found.missing = session.missing("start")
    return found
