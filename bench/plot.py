"""Curves over a logarithmic grid, as SVG: nothing to install, and readable on light and dark pages."""

from __future__ import annotations

import itertools
import math

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 30, 50
COLOURS = ("#d6336c", "#1c7ed6", "#2f9e44", "#e8590c", "#7048e8", "#0c8599", "#868e96")


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def curves(title: str, x_name: str, y_name: str, lines: dict[str, list[tuple[float, float]]]) -> str:
    """Draw a curve for each name; values that are not positive have no place here."""
    lines = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    x_low, x_high = _decades([x for points in lines.values() for x, _ in points])
    y_low, y_high = _decades([y for points in lines.values() for _, y in points])

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (math.log10(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (math.log10(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    def text(x: float, y: float, what: str, more: str = "") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{what}</text>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#555">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 18, title, 'font-size="14" fill="#222"'),
        text((WIDTH - RIGHT + LEFT) / 2, HEIGHT - 10, x_name, 'text-anchor="middle"'),
        text(
            0,
            0,
            y_name,
            f'text-anchor="middle" transform="translate(16 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)"',
        ),
    ]
    grid = 'stroke="#ddd" stroke-width="1"'
    for power in range(x_low, x_high + 1):
        x, y = at(10.0**power, 10.0**y_low)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y:.1f}" {grid}/>')
        out.append(text(x, y + 18, f"{10.0**power:,g}", 'text-anchor="middle"'))
    for power in range(y_low, y_high + 1):
        x, y = at(10.0**x_low, 10.0**power)
        out.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" {grid}/>')
        out.append(text(x - 6, y + 4, f"{10.0**power:,g}", 'text-anchor="end"'))
    labels: list[float] = []
    for (name, points), colour in zip(
        sorted(lines.items(), key=lambda line: -line[1][-1][1]), itertools.cycle(COLOURS), strict=False
    ):
        places = [at(x, y) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        label = max([places[-1][1] + 4, *(other + 14 for other in labels[-1:])])
        labels.append(label)
        out.append(text(WIDTH - RIGHT + 10, label, name, f'fill="{colour}"'))
    return "\n".join([*out, "</svg>"]) + "\n"
