"""From figures to what RESULTS.md shows. Pure: the arithmetic is tested in tests/unit/test_bench.py."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


def median(values: Iterable[float]) -> float | None:
    """Give the median; None when there is no figure, so that nothing looks like one."""
    found = list(values)
    return statistics.median(found) if found else None


def ratio(value: float | None, base: float | None) -> float | None:
    """Give value / base; None unless both were measured and there is something to divide by."""
    return value / base if value is not None and base else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Give the smallest value that so many percent are not above (nearest rank)."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def shown(value: float | None, digits: int = 3) -> str:
    """Give a figure with so many significant digits, thousands apart; a dash for none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


@dataclass(frozen=True, slots=True)
class Aim:
    """What lognot is to reach, and what it did."""

    what: str
    aim: str
    measured: float | None
    unit: str
    met: bool | None

    @classmethod
    def most(cls, what: str, measured: float | None, limit: float, unit: str = "x") -> Aim:
        """Name an upper limit."""
        met = None if measured is None else measured <= limit
        return cls(what, f"at most {limit:g} {unit}".strip(), measured, unit, met)

    @classmethod
    def least(cls, what: str, measured: float | None, limit: float, unit: str = "x") -> Aim:
        """Name a lower limit."""
        met = None if measured is None else measured >= limit
        return cls(what, f"at least {limit:,g} {unit}".strip(), measured, unit, met)

    @property
    def row(self) -> list[str]:
        """Its line in the table of aims."""
        value = f"{shown(self.measured)} {self.unit}".strip() if self.measured is not None else "not measured"
        return [self.what, self.aim, value, {True: "yes", False: "**no**", None: "-"}[self.met]]


@dataclass(slots=True)
class Section:
    """One measure: its tables, what they mean, and who is missing."""

    title: str
    text: str
    tables: list[tuple[list[str], list[list[str]]]] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)  # file name -> SVG
    took: str = ""


def filled(text: str) -> str:
    """Break paragraphs into lines again, now that the figures are in them."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        textwrap.fill(each, 118, break_long_words=False, break_on_hyphens=False) for each in paragraphs
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """Give a Markdown table: the first column to the left, figures to the right; readable as it is."""
    head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in [head, *rows])
    every = [head, *rows]
    widths = [max(3, *(len(row[column]) for row in every)) for column in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), "| " + " | ".join(rule) + " |", *map(line, rows)])


def markdown(head: str, sections: list[Section]) -> str:
    """Give the whole report: the aims first, since they are what one looks for."""
    aims = [aim.row for section in sections for aim in section.aims]
    parts = [head.strip()]
    if aims:
        parts += ["## Aims", table(["lognot", "aim", "measured", "met"], aims)]
    for section in sections:
        parts += [f"## {section.title}", filled(section.text)]
        parts += [table(*each) for each in section.tables]
        parts += [f"![{section.title}]({name})" for name in section.figures]
        if section.missing:
            parts.append("\n".join(["Left out:", "", *(f"- {reason}" for reason in section.missing)]))
        if section.took:
            parts.append(section.took)
    return "\n\n".join(parts) + "\n"
