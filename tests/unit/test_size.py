"""size.py: multiples of a size, to the letter, and against a model that looks at every byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot.size import newly_reached


@pytest.mark.parametrize(
    ("before", "size", "expected"),
    [
        (0, 99, 0),
        (99, 100, 1),  # exactly a multiple counts as reached
        (100, 100, 0),
        (100, 199, 0),
        (199, 200, 2),
        (250, 299, 0),
        (0, 450, 4),  # several at once are one event
        (450, 500, 5),
        (350, 50, 0),  # a truncation counts from zero
        (350, 120, 1),
    ],
)
def test_multiples_of_100(before: int, size: int, expected: int) -> None:
    assert newly_reached(100, before, size) == expected


@given(st.integers(1, 7), st.lists(st.integers(0, 40), min_size=1))
def test_like_looking_at_every_byte(step: int, sizes: list[int]) -> None:
    before = sizes[0]
    for size in sizes:
        begin = before if size >= before else 0
        reached = [byte // step for byte in range(begin + 1, size + 1) if byte % step == 0]
        assert newly_reached(step, before, size) == (reached[-1] if reached else 0)
        before = size
