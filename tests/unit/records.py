"""Our own log, for tests that look at what was written into it."""

from __future__ import annotations

from lognot.journal import Event


class Records:
    """A sink of the journal."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.messages: list[str] = []
        self.fields: list[dict[str, str]] = []

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        self.events.append(event)
        self.messages.append(message)
        self.fields.append(fields)

    def reopen(self) -> None:
        """Nothing to reopen."""
