"""WATCHDOG=1 from loops that really turned (sd_watchdog_enabled(3)). Supervisor only.

Who must not hang is asked, and only when each has answered is the service manager told. While one hangs,
nothing is said, and the service manager ends and restarts the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lognot.loop import Loop
from lognot.service import Notifier


class Watchdog:
    """Asks, waits for the answers, and tells.

    Args:
        loop: for the time between two rounds.
        notifier: knows whether a watchdog is wanted, and how often.
        ask: sends a Ping to every role that must not hang and runs, and gives their names.
    """

    def __init__(self, loop: Loop, notifier: Notifier, ask: Callable[[], Iterable[str]]) -> None:
        self._loop = loop
        self._notifier = notifier
        self._ask = ask
        self._awaited: set[str] = set()

    def start(self) -> None:
        """Begin the rounds, if the service manager wants any; without it nothing ever wakes for them."""
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is None:
            return
        self._loop.call_later(interval_s, self.start)
        if not self._awaited:
            self._awaited = set(self._ask())
            if not self._awaited:  # all are about to be started again, by a loop that turns
                self._notifier.alive()

    def feed(self) -> None:
        """Tell the service manager that we are alive, during what nobody turns for and surely has an end."""
        if self._notifier.watchdog_interval_s is not None:
            self._notifier.alive()

    def answered(self, name: str) -> None:
        """A role has answered, or has ended and cannot."""
        if name in self._awaited:
            self._awaited.remove(name)
            if not self._awaited:
                self._notifier.alive()
