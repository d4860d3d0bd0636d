"""Asleep until the kernel or a deadline calls: an idle lognot costs nothing."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.environment.namespaces import own_mounts
from integration.harness import append, wait_for
from integration.processes import Custom, stat_fields

IDLE_S = float(os.environ.get("LOGNOT_IDLE_S", "6"))


def _switches(pids: list[int]) -> int:
    """Voluntary context switches so far: each time that a process was woken and slept again."""
    return sum(
        int(line.split()[1])
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def _at_rest(pids: list[int]) -> bool:
    before = _switches(pids)
    time.sleep(1.5)  # longer than the second after which the status line is told; nothing else is due
    return _switches(pids) == before and all(stat_fields(pid)[0] == b"S" for pid in pids)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Path]:
    """A directory in which, and above which, nobody else makes files: in /tmp each one is an event."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/srv", prefix="lognot-test.") as name:
        yield Path(name)


def test_no_wake_up_while_nothing_is_due(custom: Callable[..., Custom], quiet: Path) -> None:
    for number in range(3):
        (quiet / f"log{number}").touch()
    lognot = custom(
        f"[UP]\npath = {quiet}/log0\nregex = x\nusecrc = 1\nupbound_freq = 5/2\nupbound_action = echo $0\n"
        f"[DOWN]\npath = {quiet}/log1\nregex = y\ndownbound_freq = 1/3600\ndownbound_action = echo silent\n"
        f"[SIZE]\npath = {quiet}/log2\nsize = 1K\nsize_action = echo size\n"
        f"[MISSING]\npath = {quiet}/none/log\nupbound_action = echo never\n",
        prefix=own_mounts() if os.geteuid() == 0 else (),  # what others mount is an event, too
    ).start()
    lognot.role("executor")
    pids = [lognot.pid, *lognot.children()]
    assert len(pids) == 3
    # Something happens, so that windows hold matches, an action has run and files have moved.
    append(quiet / "log0", "x\n" * 4)
    append(quiet / "log2", "z" * 2000 + "\n")
    lognot.wait_log(r"\[SIZE\] action ended")
    wait_for(lambda: _at_rest(pids), "rest after the last action")
    before = _switches(pids)
    time.sleep(IDLE_S)  # the time in which nothing may happen
    assert _switches(pids) == before
