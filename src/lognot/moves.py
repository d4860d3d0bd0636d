"""Where the files of logs were moved to, as the kernel reports it. Supervisor only. Pure.

A rename is two events with one cookie (inotify(7)): what leaves a name, and where it arrives. So a file that
a log's path led to is followed from name to name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

MAX_FILES = 1024  # of one log
MAX_MOVING = 64  # between the two events of a rename there may be others (inotify(7)), but hardly many

Place = tuple[int, bytes]  # the watch descriptor of a directory, and a name in it


@dataclass(slots=True, eq=False)
class Moved:
    """A file that a log's path led to."""

    log_id: int
    directory: int  # its watch: what goes to another directory is followed no further
    place: Place | None = None  # where it is; None: it is being moved, or followed no further
    stream_id: int = 0  # what it is to be as a stream: streams are in the order in which files were current
    misses: int = 0  # how often there was nothing at its name


class Moves:
    """The files of all logs that were moved, until somebody has looked at them."""

    def __init__(self) -> None:
        self._of_log: dict[int, dict[Moved, None]] = {}  # oldest first
        self._at: dict[Place, list[Moved]] = {}
        self._moving: dict[int, list[Moved]] = {}  # by cookie

    def moved_from(self, place: Place, cookie: int, log_ids: Collection[int]) -> list[int]:
        """A file has left a name, which is that of these logs.

        Returns: those of which there are too many files; the oldest one was forgotten.
        """
        files, crowded = self._at.pop(place, []), []
        back = {file.log_id for file in files}  # it came back to the log's name, and is followed already
        for log_id in log_ids:
            if log_id in back:
                continue
            of_log = self._of_log.setdefault(log_id, {})
            if len(of_log) >= MAX_FILES:
                self.forget(next(iter(of_log)))
                crowded.append(log_id)
            files.append(Moved(log_id, place[0]))
            of_log[files[-1]] = None
        for file in files:
            file.place = None
        if files:
            self._moving[cookie] = files
            if len(self._moving) > MAX_MOVING:
                self._forget_all(self._moving.pop(next(iter(self._moving))))
        return crowded

    def moved_to(self, place: Place, cookie: int) -> None:
        """A file has arrived at a name."""
        self.gone(place)
        for file in self._moving.pop(cookie, []):
            if file.directory != place[0]:
                self.forget(file)
            elif file in self._of_log.get(file.log_id, {}):
                file.place, file.misses = place, 0
                self._at.setdefault(place, []).append(file)

    def gone(self, place: Place) -> None:
        """What was at a name is no more."""
        self._forget_all(self._at.pop(place, []))

    def of_log(self, log_id: int) -> list[Moved]:
        """Give a log's files, oldest first."""
        return list(self._of_log.get(log_id, ()))

    def logs(self) -> list[int]:
        """Give the logs of which there are files."""
        return list(self._of_log)

    def forget(self, file: Moved) -> None:
        """Follow a file no further."""
        of_log = self._of_log.get(file.log_id, {})
        of_log.pop(file, None)
        if not of_log:
            self._of_log.pop(file.log_id, None)
        if file.place is not None:
            files = self._at.get(file.place, [])
            if file in files:
                files.remove(file)
            if not files:
                self._at.pop(file.place, None)
            file.place = None

    def _forget_all(self, files: list[Moved]) -> None:
        for file in files:
            self.forget(file)
