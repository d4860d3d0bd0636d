"""What a process has open, as the kernel says."""

from __future__ import annotations

import os
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


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """Hold that whatever is opened within is closed at the end."""
    before = open_descriptors()
    yield
    after = open_descriptors()
    assert after == before
