"""How much is tried: the one place that says it.

    LOGNOT_TEST_EFFORT=50 .venv/bin/pytest tests/unit/test_config_fuzz.py

generates fifty times as many examples. Below 1 it is a sample: with 0.1 a tenth of the examples and of the
cases of each test, and three tenths of the integration tests in each file; but at least one of each.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import pytest
from hypothesis import settings

EFFORT = float(os.environ.get("LOGNOT_TEST_EFFORT", "1"))


def times(number: int) -> int:
    """So many, times the effort."""
    return max(1, round(number * EFFORT))


def examples(number: int) -> settings:
    """So many examples, times the effort."""
    return settings(max_examples=times(number))


def sample(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Keep as many as the effort allows, evenly spread."""
    kept: list[pytest.Item] = []
    for _, cases in itertools.groupby(items, lambda item: item.nodeid.partition("[")[0]):
        kept += _spread(list(cases), EFFORT)
    sampled: list[pytest.Item] = []
    for path, tests in itertools.groupby(kept, lambda item: item.path):
        sampled += _spread(list(tests), 3 * EFFORT if "integration" in path.parts else 1.0)
    return sampled


def _spread(items: list[pytest.Item], effort: float) -> list[pytest.Item]:
    """Give this part of them, with the last one."""
    number = min(len(items), max(1, round(len(items) * effort)))
    return [items[turn * len(items) // number - 1] for turn in range(1, number + 1)]
