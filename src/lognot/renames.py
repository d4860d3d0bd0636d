"""Which files a log's path has led to, but not when anybody looked: it was rotated twice. Supervisor only.

The supervisor has an inotify instance of its own for that, with a watch on the directory of each log. The
monitor cannot tell it: a name that it gives could be that of any file, and its events end with it. Nothing
wakes the supervisor for these; what has gathered is read when it looks at a log anyway.
"""

from __future__ import annotations

from lognot import watch
from lognot.moves import Moved, Moves, Place

MAX_READS = 70  # the kernel's queue of 16,384 events, with the longest names


class Renames:
    """What was renamed in the directories of logs."""

    def __init__(self) -> None:
        self._watches: watch.Watches | None = None
        self._moves = Moves()
        self._places: dict[int, Place] = {}  # of logs
        self._logs_at: dict[Place, set[int]] = {}
        self._incomplete: set[int] = set()  # logs of which something was missed
        self._gave_way = False

    def follow(self, log_id: int, directory: int, name: bytes) -> None:
        """Follow from now on what is renamed from a name, which is a log's.

        Args:
            directory: an open descriptor of the one that the name is in.
        """
        if self._gave_way:
            self._incomplete.add(log_id)
            return
        try:
            if self._watches is None:
                self._watches = watch.Watches()
            place = self._watches.add(directory, watch.RENAME_MASK), name
        except OSError:  # a limit, or a directory that we may pass but not read
            self._incomplete.add(log_id)
            return
        old = self._places.get(log_id)
        self._places[log_id] = place
        self._logs_at.setdefault(place, set()).add(log_id)
        if old is not None:
            self._release(log_id, old)

    def forget(self, log_id: int) -> None:
        """Follow a log no further."""
        for file in self._moves.of_log(log_id):
            self._moves.forget(file)
        self._incomplete.discard(log_id)
        place = self._places.pop(log_id, None)
        if place is not None:
            self._release(log_id, place)

    def _release(self, log_id: int, place: Place) -> None:
        assert self._watches is not None
        self._watches.release(place[0])
        if self._places.get(log_id) != place:
            self._logs_at[place].discard(log_id)
            if not self._logs_at[place]:
                del self._logs_at[place]
        if not self._places:
            self.close()

    def give_way(self) -> bool:
        """Leave the watches to what cannot do without any; False when there are none.

        There is a limit to those of a user. From now on nothing is followed, and everything is incomplete.
        """
        if self._watches is None:
            return False
        self._gave_way = True
        self._incomplete.update(self._places)
        self._places.clear()
        self._logs_at.clear()
        self.close()
        return True

    def close(self) -> None:
        """Follow nothing any more."""
        if self._watches is not None:
            self._watches.close()
        self._watches, self._moves = None, Moves()

    def moved(self, log_id: int) -> list[Moved]:
        """Give the files that have left a log's name and are in its directory, oldest first."""
        return [file for file in self._moves.of_log(log_id) if file.place is not None]

    def unsettled(self) -> set[int]:
        """Give the logs of which there are such files."""
        return {log_id for log_id in self._moves.logs() if self.moved(log_id)}

    def settled(self, file: Moved) -> None:
        """Somebody has looked at a file, or it is of no interest."""
        self._moves.forget(file)

    def is_incomplete(self, log_id: int) -> bool:
        """Say whether there may be files that were not reported."""
        return log_id in self._incomplete

    def complete(self, log_id: int) -> None:
        """They were found in another way."""
        self._incomplete.discard(log_id)

    def read(self) -> None:
        """Take what was renamed by now."""
        if self._watches is None:
            return
        for _ in range(MAX_READS):
            events, may_be_more = watch.read_events(self._watches.fileno())
            for event in events:
                self._on_event(event)
            if not may_be_more:
                return

    def _on_event(self, event: watch.Event) -> None:
        place = event.wd, event.name
        if event.mask & watch.OVERFLOWED:
            self._incomplete.update(self._places)
        elif event.mask & watch.MOVED_FROM:
            self._incomplete.update(self._moves.moved_from(place, event.cookie, self._logs_at.get(place, ())))
        elif event.mask & watch.MOVED_TO:
            self._moves.moved_to(place, event.cookie)
        elif event.mask & watch.DELETED:
            self._moves.gone(place)
