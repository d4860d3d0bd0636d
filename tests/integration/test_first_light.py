"""The thin thread through the whole program: a line is written, an action runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import ENGINES
from integration.harness import Service, append, lines_of, wait_for


@pytest.mark.parametrize("engine", ENGINES)
def test_a_matching_line_runs_the_action(
    service: Callable[..., Service], tmp_path: Path, engine: str
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(
        f"[general]\nregex_engine = {engine}\n[ITEM]\npath = @/log\nregex = error (\\d+)\n"
        "upbound_action = printf '%s\\n' $1 >> @/out\n"
    ).start()
    append(log, "fine\nerror 17\nerror none\n")
    wait_for(lambda: lines_of(out) == ["17"], "the action's output")
    lognot.wait_log(r"\[ITEM\] action ended with exit status 0")
    assert lognot.stop() == 0


def test_actions_of_one_block_come_in_the_order_of_lines(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    """Not item by item; and within a line in the order of items."""
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    item = "[{0}]\npath = @/log\nregex = {1}\nupbound_action = echo {0} $1 >> @/out\n"
    service(
        "[general]\nathread_count = 1\n" + item.format("ONE", "a(\\d+)") + item.format("TWO", "([0-9]+)b")
    ).start()
    append(log, "2b\na1\n3b\na4b\na5\n")
    wait_for(
        lambda: lines_of(out) == ["TWO 2", "ONE 1", "TWO 3", "ONE 4", "TWO 4", "ONE 5"], "actions in order"
    )
