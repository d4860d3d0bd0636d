"""Multiples of a file size: when does a log reach N times the size that an item names.

Used by the monitor, which has no privilege. Pure: sizes come in as arguments.
"""

from __future__ import annotations


class SizeMultiple:
    """Says when a file's size newly reaches a multiple of `step_bytes`.

    `size_bytes` is the size at the start: what was reached before then is history and of no interest. The
    size is the file's own, an unfinished last line included; exactly N * step_bytes counts as reached.
    """

    def __init__(self, step_bytes: int, size_bytes: int) -> None:
        if step_bytes < 1 or size_bytes < 0:
            raise ValueError(f"no such size: step {step_bytes}, size {size_bytes}")
        self.step_bytes = step_bytes
        self._size_bytes = size_bytes

    def grown(self, size_bytes: int) -> int:
        """Take note of the size; return N when N * step_bytes was newly reached, else 0.

        Several multiples passed at once are one event: N is the highest. A size below the last one is a
        truncation, and what is there now was written since: it counts from zero.
        """
        if size_bytes < self._size_bytes:
            self.restart()
        reached = size_bytes // self.step_bytes
        newly = reached > self._size_bytes // self.step_bytes
        self._size_bytes = size_bytes
        return reached if newly else 0

    def restart(self) -> None:
        """Start again from zero: the file was truncated, or a new one took its place."""
        self._size_bytes = 0
