"""Notes for the log, at most one of a kind a minute: what the unprivileged roles want said.

A hostile log must not be able to fill ours, so repeats are counted and said together.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lognot.loop import Loop
from lognot.messages import MAX_QUOTE_BYTES, Note, Notice

INTERVAL_NS = 60 * 10**9  # between two notes of one kind about one thing

Kind = tuple[Notice, int]  # and what it is about


class Notes:
    """Sends the first note of a kind at once, and what gathers within a minute after it as one.

    Args:
        loop: wakes us for a gathered note, and never without one.
        send: to the supervisor.
    """

    def __init__(self, loop: Loop, send: Callable[[Note], None]) -> None:
        self._loop = loop
        self._send = send
        self._last_ns: dict[Kind, int] = {}
        self._gathered: dict[Kind, tuple[int, bytes]] = {}

    def say(self, notice: Notice, about: int, number: int = 1, text: bytes = b"") -> None:
        """Say that something happened `number` times; of a gathered note, `text` is the last one."""
        kind = (notice, about)
        if kind in self._gathered:
            self._gathered[kind] = (self._gathered[kind][0] + number, text)
            return
        now_ns = time.monotonic_ns()
        next_ns = self._last_ns.get(kind, now_ns - INTERVAL_NS) + INTERVAL_NS
        if now_ns >= next_ns:
            self._last_ns[kind] = now_ns
            self._send(Note(notice, about, number, text[:MAX_QUOTE_BYTES]))
        else:
            self._gathered[kind] = (number, text)
            self._loop.call_at(next_ns, lambda: self._say_gathered(kind))

    def flush(self) -> None:
        """Say what has gathered now: this process is about to end."""
        for (notice, about), (number, text) in self._gathered.items():
            self._send(Note(notice, about, number, text[:MAX_QUOTE_BYTES]))
        self._gathered.clear()

    def _say_gathered(self, kind: Kind) -> None:
        if kind in self._gathered:  # not flushed meanwhile
            number, text = self._gathered.pop(kind)
            self.say(*kind, number, text)
