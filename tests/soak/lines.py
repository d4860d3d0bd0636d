"""Writers of numbered lines that go on for ever, and items that count them exactly.

Each log has ten items, one for each last digit of a line's number. An item fires at each so many of its
lines, so at any moment a line too few or too many is known from what it takes to make the item fire next.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from pathlib import Path

from integration.harness import wait_for

DIGITS = range(10)
PER_FIRE = 250  # lines of one item; of all items together, far fewer than the ledger's journal holds
_NUMBER = struct.Struct("Q")
_WRITTEN, _WANTED, _PACE, _OPENED = range(4)
SLOW, FLOOD = 0, 1
BURST = 200  # lines between two looks at what is wanted


class Writer:
    """A process that writes numbered lines, one write(2) each, and opens its file anew on SIGHUP."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared = mmap.mmap(-1, 4096)
        self._parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._write()
            finally:
                os._exit(1)
        wait_for(lambda: self._get(_OPENED), f"{path} open")

    def _write(self) -> None:
        asked = [True]
        signal.signal(signal.SIGHUP, lambda number, frame: asked.append(True))
        fd, number = -1, 0
        while os.getppid() == self._parent:
            if asked:
                asked.clear()
                if fd >= 0:
                    os.close(fd)
                fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                self._set(_OPENED, self._get(_OPENED) + 1)
            wanted = self._get(_WANTED)
            for _ in range(min(BURST, wanted - number)):
                os.write(fd, b"line %d\n" % number)
                number += 1
                self._set(_WRITTEN, number)
                if asked:
                    break
            if self._get(_PACE) == SLOW or number == wanted:
                time.sleep(0.005)  # the pace: some ten thousand lines a second

    def _get(self, index: int) -> int:
        value: int = _NUMBER.unpack_from(self._shared, index * _NUMBER.size)[0]
        return value

    def _set(self, index: int, value: int) -> None:
        _NUMBER.pack_into(self._shared, index * _NUMBER.size, value)

    @property
    def written(self) -> int:
        """How many lines there are."""
        return self._get(_WRITTEN)

    def want(self, count: int) -> None:
        """Have it go on until there are so many lines."""
        self._set(_WANTED, count)

    def pace(self, pace: int) -> None:
        """SLOW or FLOOD."""
        self._set(_PACE, pace)

    def rotate(self, keep: int) -> None:
        """What logrotate does: rename the file and its elders, and have it opened anew."""
        for number in range(keep, 0, -1):
            source = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            if source.exists():
                source.rename(self.path.with_name(f"{self.path.name}.{number}"))
        opened = self._get(_OPENED)
        time.sleep(random.random() / 50)  # a writer goes on with its old file for a while
        os.kill(self.pid, signal.SIGHUP)
        wait_for(lambda: self._get(_OPENED) > opened, f"{self.path} open anew")

    def end(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def items(name: str, path: Path, out: Path) -> str:
    """The items of one log."""
    return "".join(
        f"[{name}{digit}]\npath = {path}\nregex = ^line \\d*{digit}$\n"
        f"upbound_freq = {PER_FIRE - 1}/86400\nupbound_action = echo {digit} $LOGNOT_COUNT >> {out}\n"
        for digit in DIGITS
    )


def fires(out: Path) -> list[int]:
    """How often the item of each digit has fired."""
    count = [0] * len(DIGITS)
    if out.exists():
        for line in out.read_text().splitlines():
            count[int(line.split()[0])] += 1
    return count
