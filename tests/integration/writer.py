"""A process that writes numbered lines into a log, and an exact account of which of them lognot saw."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from integration.harness import Service, wait_for

LINE = "line %06d\n"
REGEX = r"^line (\d+)$"
_NUMBER = struct.Struct("Q")
_FAILED = 2**64 - 1


class Writer:
    """Writes `count` lines, one write(2) each, as a daemon does: it keeps its file until it gets SIGHUP.

    Args:
        path: opened with O_APPEND, and made where it is not there; tried again as long as that fails.
        count: of lines, numbered from 0.
        pause_s: between two lines; what sets the pace, not a wait for anything.
        allowed: so many lines may be written for now, so that it cannot be done before the others are.
    """

    def __init__(self, path: Path, count: int, pause_s: float, allowed: int | None = None) -> None:
        self._path = path
        self._count = count
        self._pause_s = pause_s
        self._shared = mmap.mmap(
            -1, _NUMBER.size * (count + 3)
        )  # lines written, files opened, allowed; sizes
        self.allow(count if allowed is None else allowed)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._write()
            except BaseException:
                _NUMBER.pack_into(self._shared, 0, _FAILED)
            finally:
                os._exit(0)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _write(self) -> None:
        asked = [True]
        signal.signal(signal.SIGHUP, lambda number, frame: asked.append(True))
        fd = -1
        for number in range(self._count):
            while asked or number >= self._get(2):
                if asked:
                    asked.clear()
                    new = self._open()
                    if new < 0:  # there is no directory: go on where it is, and try again
                        asked.append(True)
                    else:
                        if fd >= 0:
                            os.close(fd)
                        fd = new
                        self._set(1, self._get(1) + 1)
                if fd >= 0 and number < self._get(2):
                    break
                time.sleep(0.001)  # between two looks, not instead of one
            os.write(fd, (LINE % number).encode())
            self._set(number + 3, os.fstat(fd).st_size)
            self._set(0, number + 1)
            time.sleep(self._pause_s)  # the pace that the test asks for

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def _get(self, index: int) -> int:
        value: int = _NUMBER.unpack_from(self._shared, index * _NUMBER.size)[0]
        return value

    def _set(self, index: int, value: int) -> None:
        _NUMBER.pack_into(self._shared, index * _NUMBER.size, value)

    @property
    def written(self) -> int:
        """How many lines it has written."""
        written = self._get(0)
        assert written != _FAILED, "the writer failed"
        return written

    def allow(self, count: int) -> None:
        """Let it write until there are so many lines."""
        self._set(2, count)

    def wait_written(self, count: int) -> None:
        """Wait until it has written so many lines, or as many as it may."""
        wait_for(lambda: self.written >= min(count, self._get(2)), f"{count} lines written")

    def round(self, number: int, rounds: int) -> None:
        """Wait for the moment to do something for the n-th time, while it writes on; `finish` comes last."""
        share = self._count // (rounds + 1)
        self.allow((number + 1) * share + share // 2)
        self.wait_written((number + 1) * share)

    def another(self) -> int:
        """Have it write a line that it has not written yet; give its number."""
        number = min(self.written + 1, self._count - 1)  # the next one may be written, and not counted yet
        self.allow(max(self._get(2), number + 1))
        self.wait_written(number + 1)
        return number

    def finish(self) -> None:
        """Let it write the rest, and wait for that."""
        self.allow(self._count)
        self.wait_written(self._count)

    def reopen(self, *, after: int = 0) -> None:
        """Let it write `after` lines more where it is, then have it open the path anew; wait until it has."""
        self.wait_written(self.written + after)
        opened = self._get(1)
        os.kill(self.pid, signal.SIGHUP)
        wait_for(lambda: self._get(1) > opened, "reopened")

    def last_before_truncation(self) -> list[int]:
        """The lines that were the last ones of their file before it was emptied."""
        sizes = [self._get(number + 3) for number in range(self._count)]
        following = itertools.pairwise(sizes)
        return [number for number, (size, after) in enumerate(following) if size == 0 or 0 < after < size]


def counting_items(path: str, lines: int, suffix: str = "") -> str:
    """Items that give an exact account of `lines` numbered lines, without an action for each.

    [ALL] fires at the moment at which all were counted, [TWICE] when any of them is seen a second time: both
    together say that each was seen exactly once. Counts outlive a monitor that is killed.
    """
    common = f"path = {path}\nregex = {REGEX}\nupbound_action = true\n"
    return (
        f"[ALL{suffix}]\n{common}upbound_freq = {lines - 1}/86400\n"
        f"[TWICE{suffix}]\n{common}upbound_freq = 1/86400\nusecrc = yes\n"
    )


def assert_each_line_once(lognot: Service) -> None:
    """Wait until [ALL] lines were seen; then stop, which reads whatever is left, and look at the account.

    For a test that goes into the table of faults: `accounts.fault` writes the line that this one proves.
    """
    lognot.wait_log(r"\[ALL\] fired")
    assert lognot.stop() == 0
    assert lognot.log.count("[ALL] fired") == 1, lognot.log
    assert "[TWICE] fired" not in lognot.log, lognot.log


def open_files(pid: int) -> Iterator[os.stat_result]:
    """Give the status of each file that a process has open; none of a process that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                yield entry.stat()


def has_open(pid: int, path: Path) -> bool:
    """Say whether a process has the file open that a path leads to now."""
    try:
        wanted = path.stat()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(os.path.samestat(status, wanted) for status in open_files(pid))


def wait_has_open(pid: int, path: Path) -> None:
    """Wait until lognot has found the file: one that comes and goes before anybody looks is nobody's."""
    wait_for(lambda: has_open(pid, path), f"{path} open in {pid}")


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Keep a process from running."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(
            lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "stopped"
        )
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
