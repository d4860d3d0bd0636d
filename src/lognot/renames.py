"""What is renamed in the directories of logs. Supervisor only.

The supervisor has an inotify instance of its own for that. The monitor cannot tell it: a name that it gives
could be that of any file, and its events end with it. Nothing wakes the supervisor for these; what has
gathered is read when it looks at a log anyway.
"""

from __future__ import annotations

from collections import Counter

from lognot import watch
from lognot.moves import Moved, Moves, Place

MAX_READS = 70  # the kernel's queue of 16,384 events, with the longest names


class Renames:
    """The files that were moved from the names of logs."""

    def __init__(self) -> None:
        self._watches: watch.Watches | None = None
        self._moves = Moves()
        self._places: dict[int, Place] = {}  # of logs
        self._logs_at: dict[Place, set[int]] = {}
        self._incomplete: set[int] = set()  # logs of which something was missed
        self._given_up: Counter[int] = Counter()  # files of each log
        self._gave_way = False

    def follow(self, log_id: int, directory: int, name: bytes) -> None:
        """Follow what is renamed from a name from now on, which is a log's.

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
        self.settle_all(log_id)
        self._incomplete.discard(log_id)
        place = self._places.pop(log_id, None)
        if place is not None:
            self._release(log_id, place)

    def _release(self, log_id: int, place: Place) -> None:
        if self._places.get(log_id) != place:
            self._logs_at[place].discard(log_id)
            if not self._logs_at[place]:
                del self._logs_at[place]
        assert self._watches is not None
        self._watches.release(place[0])
        if not self._places:
            self._close()

    def _close(self) -> None:
        if self._watches is not None:
            self._watches.close()
        self._watches, self._moves = None, Moves()
        self._places.clear()
        self._logs_at.clear()

    def give_way(self) -> bool:
        """Leave the watches to what cannot do without any; False when there are none.

        There is a limit to those of a user. Until `try_again` nothing is followed, and everything is
        incomplete.
        """
        if self._watches is None:
            return False
        self._gave_way = True
        self._incomplete.update(self._places)
        self._close()
        return True

    def try_again(self) -> None:
        """There may be watches again."""
        self._gave_way = False

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
        # Two files that are exchanged (renameat2(2)) are reported as two renames, one after the other, and so
        # the first is taken for gone. Nobody rotates like that.
        place = event.wd, event.name
        if event.mask & watch.OVERFLOWED:
            self._incomplete.update(self._places)
            self._moves = Moves()  # nobody knows where they went meanwhile
        elif event.mask & watch.MOVED_FROM:
            logs = self._logs_at.get(place, ())
            self._given_up.update(self._moves.moved_from(place, event.cookie, logs))
        else:
            # What was there until then may have another name, by a link.
            self._incomplete.update(self._logs_at.get(place, ()))
            if event.mask & watch.MOVED_TO:
                self._moves.moved_to(place, event.cookie)
            elif event.mask & watch.DELETED:
                self._moves.gone(place)

    def moved(self, log_id: int) -> list[Moved]:
        """Give the files that have left a log's name and are beside it now, oldest first."""
        own = self._places.get(log_id)
        if own is None:
            return []
        files = self._moves.of_log(log_id)
        return [file for file in files if file.place and file.place[0] == own[0] and file.place != own]

    def unsettled(self) -> set[int]:
        """Give the logs of which there are such files."""
        return {log_id for log_id in self._moves.logs() if self.moved(log_id)}

    def settle(self, file: Moved) -> None:
        """Somebody has looked at a file."""
        self._moves.forget(file)

    def settle_all(self, log_id: int) -> None:
        """A log's files until now are of no interest."""
        for file in self._moves.of_log(log_id):
            self._moves.forget(file)
        self._given_up.pop(log_id, None)

    def is_incomplete(self, log_id: int) -> bool:
        """Say whether there may be files that were not reported."""
        return log_id in self._incomplete

    def complete(self, log_id: int) -> None:
        """They were found in another way."""
        self._incomplete.discard(log_id)

    def take_given_up(self, log_id: int) -> int:
        """Give how many of a log's files were given up since this was last asked, for there were too many."""
        return self._given_up.pop(log_id, 0)
