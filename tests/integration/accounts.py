"""The account of every fault that a test makes: lines written, seen, lost, twice. Printed when a run ends.

A test that ends what it does with an exact count writes one line of the account, once its assertions have
passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """One fault: what was done, how often, and what became of the numbered lines (or actions)."""

    fault: str
    times: int  # how often the fault was made
    written: int
    seen: int  # different ones
    twice: int = 0

    @property
    def lost(self) -> int:
        return self.written - self.seen


ACCOUNTS: list[Account] = []  # of this process


def fault(name: str, *, times: int, written: int, seen: int, twice: int = 0) -> None:
    """Write a line of the account. The numbers are those that the test has counted or proved."""
    ACCOUNTS.append(Account(name, times, written, seen, twice))


def numbered(name: str, numbers: list[int], written: int, *, times: int) -> None:
    """Write a line of the account for lines 0 to `written` that an action has noted, one number each."""
    fault(name, times=times, written=written, seen=len(set(numbers)), twice=len(numbers) - len(set(numbers)))


def table(accounts: Sequence[Account]) -> list[str]:
    """The account as it is printed, in the order of names."""
    rows = [("fault", "times", "written", "seen", "lost", "twice")]
    rows += [
        (one.fault, *map(str, (one.times, one.written, one.seen, one.lost, one.twice)))
        for one in sorted(accounts, key=lambda one: one.fault)
    ]
    wide = max(len(row[0]) for row in rows)
    return [f"{row[0]:<{wide}}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows]
