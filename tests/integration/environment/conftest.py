"""What tests of the environment share: a lognot in namespaces of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from integration.processes import Custom


@pytest.fixture
def custom(tmp_path: Path) -> Iterator[Callable[..., Custom]]:
    """A function that makes a Custom behind a command prefix; it is ended after the test."""
    made: list[Custom] = []

    def make(config: str, *arguments: str, prefix: Sequence[str] = (), **options: object) -> Custom:
        made.append(Custom(tmp_path, config, *arguments, **options))  # type: ignore[arg-type]
        made[-1].prefix = prefix
        return made[-1]

    tmp_path.chmod(0o755)
    yield make
    for one in made:
        one.end()
