"""What tests of faults share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.faults.numbered import MemoryGroup


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user may write to; tmp_path lies where only its owner may go."""
    with tempfile.TemporaryDirectory(prefix="lognot-test-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        yield directory


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    """A control group in which there is room for some shells, and not for many long lines."""
    try:
        group = MemoryGroup(4 * 1024 * 1024)
    except OSError as error:
        pytest.skip(f"no control group with a limit of memory can be made: {error}")
    yield group
    group.remove()
