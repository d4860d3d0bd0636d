"""Multiples of a file size: when does a log reach N times the size that an item names.

Used by the monitor, which has no privilege. Pure: sizes come in as arguments.
"""

from __future__ import annotations


def newly_reached(step_bytes: int, before_bytes: int, size_bytes: int) -> int:
    """Return N when a file has reached N * step_bytes between two looks, else 0.

    The size is the file's own, an unfinished last line included; exactly N * step_bytes counts as reached.
    Several multiples passed at once are one event: N is the highest. A size below the one before is a
    truncation, and what is there now was written since: it counts from zero.
    """
    if size_bytes < before_bytes:
        before_bytes = 0
    reached = size_bytes // step_bytes
    return reached if reached > before_bytes // step_bytes else 0
