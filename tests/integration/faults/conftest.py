"""What tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.faults.numbered import MemoryGroup


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    """A control group in which there is room for some shells, and not for many long lines."""
    try:
        group = MemoryGroup(4 * 1024 * 1024)
    except OSError as error:
        pytest.skip(f"no control group with a limit of memory can be made: {error}")
    yield group
    group.remove()
