"""One action's process: `/bin/sh -c` in a session, and so a process group, of its own. Executor only.

It gets nothing but what it is to have: its environment, /dev/null to read from, a pipe to print into, no
other descriptor (ours are all close-on-exec), the signals that we ignore at their default, none blocked.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from lognot.service import IGNORED_BY_ROLES
from lognot.startmark import set_start_mark

SHELL = "/bin/sh"


def start_shell(shell_text: bytes, variables: dict[bytes, bytes], mark_fd: int) -> tuple[int, int]:
    """Start an action and give its pid and the pipe that it prints into, non-blocking; both are the caller's.

    posix_spawn(3) and not fork(2): a fork copies the page tables of the interpreter, and then every page
    that the child's Python touches on its way to exec: 2.5 ms until the shell runs, against 0.9 ms.

    Args:
        shell_text: for `sh -c`.
        variables: the whole environment.
        mark_fd: a start mark that was set, and is emptied by the new process; set again when that does not
            become the shell.

    Raises:
        OSError: no process (fork(2), EAGAIN) or no pipe can be had now; or execve(2) fails, as with E2BIG.
    """
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(
            SHELL,
            [b"sh", b"-c", shell_text],
            variables,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_DUP2, writer, 2),
                # As 0: what is open there is closed first (posix_spawn(3)), which must not be the mark.
                (os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{mark_fd}", os.O_WRONLY | os.O_TRUNC, 0),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=IGNORED_BY_ROLES,
        )
    except OSError:
        os.close(reader)
        set_start_mark(mark_fd)  # the new process empties it before execve(2), which may fail
        raise
    finally:
        os.close(writer)
    os.set_blocking(reader, False)
    return pid, reader


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal an action's process group; one that has ended, or is somebody else's (setuid), is left alone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def open_other_member(pid: int) -> int:
    """Give a pidfd, the caller's, of a process that runs in a group beside its leader; -1 where none does.

    What has ended and was not waited for yet does not run (proc(5), fields 3 and 5 of stat).
    """
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != pid:
            with suppress(OSError):  # it ended meanwhile
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                if int(fields[2]) == pid and fields[0] != b"Z":
                    return os.pidfd_open(int(name))
    return -1
