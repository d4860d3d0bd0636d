"""Whether the action that was being started has started, when its executor is killed meanwhile.

A mark is a memfd that is emptied by the new process itself, just before it becomes the shell. Whoever has
been given its descriptor, and knows which action was next, can tell afterwards.

The supervisor makes one for each connection between a monitor and an executor, and gives it to both: what an
executor brought could be a file that never answers (FUSE), or no file.
"""

from __future__ import annotations

import os

from lognot.tail import size_of


def new_start_mark() -> int:
    """Give the descriptor of a new mark, which is the caller's, close-on-exec.

    Raises:
        OSError: a limit of the system was met (memfd_create(2)).
    """
    return os.memfd_create("lognot-start", os.MFD_CLOEXEC)


def set_start_mark(fd: int) -> None:
    """Nothing has started since now."""
    os.ftruncate(fd, 1)


def has_started(fd: int) -> bool:
    """Say whether an action has started since the mark was set; True for one that never was."""
    return size_of(fd) == 0
