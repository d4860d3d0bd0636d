"""Before anything is measured: a program that counts wrongly, or nothing at all, is not compared.

lognot, sec and swatchdog must act when a rule's bound is one less than its matches, and must not when it is
equal; fail2ban and mtail must name the number of matches.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import corpus
from peers import Fail2ban, Mtail
from programs import Item, Program, Run, Unavailable

LINES, RULES = 20_000, 10


def prove(program: Program, directory: Path) -> None:
    """Raise Unavailable if it does not count."""
    text = "".join(f"{line}\n" for line in corpus.mixed(LINES))
    every = [(rule, len(re.findall(rule.pattern, text))) for rule in corpus.rules("alike", RULES)]
    hits = [(rule, count) for rule, count in every if count]
    log = directory / "watched" / "log"

    def acted(slack: int) -> int:
        """How many rules act when their bound is so much below their matches."""
        items = [
            Item(log, rule.pattern, bound=max(0, count - slack), window_s=3600, action="@fifo")
            for rule, count in hits
        ]
        run = Run(program, directory, items, ends_in=log)
        try:
            run.append(text.encode())
            run.append_end()
            due = 1 + (len(hits) if slack else 0)  # the last line's, too
            return run.fifo.wait(due, 20.0) + run.fifo.wait(1, 1.0) - 1  # one too many would be seen
        finally:
            run.end()

    def total(run: Run) -> int:
        """What the program itself says."""
        if isinstance(program, Mtail):
            return program.count(run, "rule")
        command = ["fail2ban-client", "-s", f"{directory}/sock", "status", "bench"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
        found = re.search(r"Total failed:\s*(\d+)", said)
        return int(found[1]) - run.ends * Fail2ban.retries if found else -1

    if isinstance(program, (Mtail, Fail2ban)):
        if isinstance(program, Mtail):
            program.hidden = ""
        run = Run(program, directory, [Item(log, rule.pattern) for rule, _ in every], ends_in=log)
        try:
            run.burst(text.encode())
            expected, found = sum(count for _, count in every), total(run)
        finally:
            run.end()
            if isinstance(program, Mtail):
                program.hidden = Mtail.hidden
        if found != expected:
            raise Unavailable(f"counted {found} matches where there are {expected}")
        return
    for slack, expected in ((1, len(hits)), (0, 0)):
        if (found := acted(slack)) != expected:
            raise Unavailable(f"{found} rules acted where {expected} should have")
