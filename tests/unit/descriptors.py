"""What a process has open, as the kernel says."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors() -> dict[int, str]:
    """The descriptors of this process and what they lead to, without the one that looking needs."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def kernel_can_refuse_descriptors() -> bool:
    """SO_PASSRIGHTS of AF_UNIX sockets is there: Linux 6.16."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            return sock.getsockopt(socket.SOL_SOCKET, 83) == 1
        except OSError:
            return False


@contextmanager
def no_collection() -> Iterator[None]:
    """What another test has left open stays so meanwhile; to collect it before takes 0.1 s."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """Hold that whatever is opened within is closed at the end."""
    with no_collection():
        before = open_descriptors()
        yield
        assert open_descriptors() == before
