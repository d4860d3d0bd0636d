"""The kernel's word that something was mounted or unmounted (proc(5), /proc/PID/mountinfo).

What is mounted on a directory changes where a path through it leads, and inotify(7) tells nobody. Only the
moment is of interest here: nothing is read.
"""

from __future__ import annotations

import os
import select


class MountTable:
    """The mounts that this process sees.

    Raises:
        OSError: /proc is not there.
    """

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        # An epoll of its own: the file can always be read, and only a change is urgent (EPOLLPRI).
        self._changes = select.epoll()
        self._changes.register(self._fd, select.EPOLLPRI)

    def fileno(self) -> int:
        """The descriptor to select for."""
        return self._changes.fileno()

    def close(self) -> None:
        """Close it."""
        self._changes.close()
        os.close(self._fd)

    def take(self) -> None:
        """Have it readable again only after the next change."""
        self._changes.poll(0)
