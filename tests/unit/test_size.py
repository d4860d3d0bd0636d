"""size.py: multiples of a size, to the letter, and against a model that looks at every byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot.size import SizeMultiple


def test_exactly_a_multiple_counts_as_reached() -> None:
    size = SizeMultiple(100, 0)
    assert size.grown(99) == 0
    assert size.grown(100) == 1
    assert size.grown(100) == 0
    assert size.grown(199) == 0
    assert size.grown(200) == 2


def test_what_was_reached_before_the_start_is_history() -> None:
    size = SizeMultiple(100, 250)
    assert size.grown(250) == 0
    assert size.grown(299) == 0
    assert size.grown(300) == 3


def test_a_baseline_on_a_multiple_is_history_too() -> None:
    assert SizeMultiple(100, 200).grown(299) == 0


def test_several_multiples_at_once_are_one_event() -> None:
    size = SizeMultiple(100, 0)
    assert size.grown(450) == 4
    assert size.grown(499) == 0
    assert size.grown(500) == 5


def test_a_smaller_size_is_a_truncation_and_counts_from_zero() -> None:
    size = SizeMultiple(100, 350)
    assert size.grown(50) == 0
    assert size.grown(100) == 1


def test_a_truncated_file_that_has_grown_past_a_multiple_already() -> None:
    assert SizeMultiple(100, 350).grown(120) == 1


def test_restart_counts_from_zero_even_if_the_new_file_is_larger() -> None:
    size = SizeMultiple(100, 350)
    size.restart()
    assert size.grown(360) == 3
    assert size.grown(399) == 0


@pytest.mark.parametrize(("step", "start"), [(0, 0), (-1, 0), (1, -1)])
def test_nonsense_is_refused(step: int, start: int) -> None:
    with pytest.raises(ValueError, match="no such size"):
        SizeMultiple(step, start)


@given(st.integers(1, 7), st.integers(0, 40), st.lists(st.integers(0, 40)))
def test_like_looking_at_every_byte(step: int, start: int, sizes: list[int]) -> None:
    multiple = SizeMultiple(step, start)
    previous = start
    for size in sizes:
        if size < previous:
            previous = 0
        reached = [byte // step for byte in range(previous + 1, size + 1) if byte % step == 0]
        assert multiple.grown(size) == (reached[-1] if reached else 0)
        previous = size
