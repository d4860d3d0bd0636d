"""The older position that is saved beside the newest one of each file. Supervisor only.

After a loss of power a log may have lost its end, which its writer had not synced: what was read of it is not
there any more. Then reading goes on at the anchor, a place that it had reached a minute before or more. By
then the kernel has written what was there (vm.dirty_expire_centisecs is 30 seconds).

Two places are kept of each file, the anchor and the one that is to follow it when it is old enough. So the
anchor is one to two minutes older than the newest position; in the first minute it is the oldest place known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from lognot.ledger import Anchor, Position
from lognot.state import Identity, SavedLogs, SavedStream

ANCHOR_AGE_S = 60.0


@dataclass(slots=True)
class _Places:
    """What is known of one file, as it is after `generation` truncations."""

    generation: int
    anchor: Anchor | None = None
    next_anchor: Anchor | None = None  # is not old enough yet
    since_s: float = 0.0  # when that was the newest position, on the clock
    # What the last service has saved: nobody may have looked yet whether that is there.
    restored_offset: int = -1


class Anchors:
    """The anchors of all files.

    Args:
        clock: gives seconds, only ever growing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._files: dict[tuple[str, Identity], _Places] = {}

    def restore(self, logs: SavedLogs) -> None:
        """Begin with what the last service has saved."""
        for path, streams in logs.items():
            for stream in streams:
                position = stream.position
                self._files[path, stream.identity] = _Places(
                    position.generation, position.anchor, restored_offset=position.offset
                )

    def attach(self, logs: SavedLogs) -> SavedLogs:
        """Give the positions that are about to be saved with their anchors; other files are forgotten."""
        before, self._files = self._files, {}
        now_s = self._clock()

        def attached(path: str, stream: SavedStream) -> SavedStream:
            key = path, stream.identity
            places = self._files[key] = before.get(key) or _Places(stream.position.generation)
            anchor = _advance(places, stream.position, now_s)
            return replace(stream, position=replace(stream.position, anchor=anchor))

        return {path: tuple(attached(path, stream) for stream in streams) for path, streams in logs.items()}


def _advance(places: _Places, position: Position, now_s: float) -> Anchor | None:
    """Take note of the newest position; give the anchor for it, None for none that is before it."""
    places.anchor = _valid(places, places.anchor, position)
    places.next_anchor = _valid(places, places.next_anchor, position)
    places.generation = position.generation
    has_aged = now_s - places.since_s >= ANCHOR_AGE_S and position.offset != places.restored_offset
    if places.next_anchor is None or has_aged:
        places.anchor = places.next_anchor or places.anchor
        places.next_anchor = _anchor_at(position)
        places.since_s = now_s
    best = places.anchor or places.next_anchor
    return best if best is not None and best.offset < position.offset else None


def _valid(places: _Places, anchor: Anchor | None, position: Position) -> Anchor | None:
    """Give an anchor, None when the file was emptied since or has lost the place."""
    kept = (
        anchor is not None and places.generation == position.generation and anchor.offset <= position.offset
    )
    return anchor if kept else None


def _anchor_at(position: Position) -> Anchor | None:
    """Give the place of a position; None at the beginning of a file, where nothing proves it."""
    if not position.offset or not position.digest:
        return None
    return Anchor(position.offset, position.skipping, position.digest)
