"""Bounds how long it takes to close what a peer has sent.

A peer can attach a TCP socket with SO_LINGER and unsent data to a message, and close its own copy. Whoever
holds the last reference then waits for the linger time (socket(7)), which may be years: in recvmsg(2), where
the kernel drops a descriptor that there is no room for, or in close(2). Where the kernel cannot refuse
descriptors (channel.limit_descriptors), a signal ends that wait.
"""

from __future__ import annotations

import signal

LIMIT_S = 0.1  # recvmsg(2) and close(2) take microseconds otherwise


class LingerLimit:
    """Within it, no close waits for longer than LIMIT_S. For one thread of a process: takes ITIMER_REAL.

    Armed around single calls, and not for a whole turn of a loop: a file system in user space may give up
    what it is asked for when a signal comes, is asked again, and would never come to an end.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, _do_nothing)
        # What is not a close goes on in the kernel, as if nothing were (signal(7), SA_RESTART).
        signal.siginterrupt(signal.SIGALRM, False)

    def __enter__(self) -> None:
        # Again and again: a message can bring several, and a signal can come before the wait.
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S, LIMIT_S)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _do_nothing(number: int, frame: object) -> None:
    """A handler, so that the signal interrupts; ignored ones do not."""
