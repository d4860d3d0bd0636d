"""No process can be had for a while (fork(2), EAGAIN): whoever needs one waits, and says so once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import accounts
from integration.conftest import as_other
from integration.faults.numbered import (
    assert_each_ran_once,
    kill,
    limited,
    noted,
    noting_item,
    numbered_lines,
    wait_noted,
)
from integration.harness import append, wait_for
from integration.moments import Moments
from integration.processes import Custom, wait_gone
from integration.writer import assert_each_line_once, counting_items

Make = Callable[..., Custom]
USER = "games"  # has no processes


@pytest.fixture
def own_dir() -> Iterator[Path]:
    """For the service's own files: root takes no config that others can change, and a user must get there."""
    with tempfile.TemporaryDirectory(prefix="lognot-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def custom(own_dir: Path) -> Iterator[Make]:
    """A function that makes a service."""
    made: list[Custom] = []

    def make(config: str) -> Custom:
        made.append(Custom(own_dir, config))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.root
def test_an_executor_that_cannot_fork(custom: Make, open_dir: Path) -> None:
    """Its user has no room for another process, time and again: all run, in their order."""
    lines, rounds = 150, 3
    log, out = open_dir / "log", open_dir / "out"
    log.touch()
    moments = Moments()
    lognot = custom(f"[general]\nathread_count = 1\nuid = {USER}\n{noting_item(log, out)}").start()
    share = lines // rounds
    for number in range(rounds):
        append(log, numbered_lines(number * share, 1))
        wait_noted(out, number * share + 1)
        executor = lognot.role("executor")
        with limited(executor, "nproc", 0):
            append(log, numbered_lines(number * share + 1, share - 1))
            lognot.wait_log("cannot start an action now, will try again: Resource temporarily unavailable")
            moments.any(0.6)  # it tries every half second
            at_most = len(noted(out)) + 1
            append(log, "nothing\n")
            moments.any(0.6)
            assert len(noted(out)) <= at_most, "one may have been on its way, and no more"
            if number == 1:
                kill(executor)
                wait_gone(executor)
        wait_noted(out, (number + 1) * share)
    assert lognot.log.count("cannot start an action now") <= 2, "once for each executor, within a minute"
    assert lognot.stop() == 0
    assert noted(out) == list(range(lines)), "in their order"
    assert_each_ran_once(out, lines, "no process for an executor, actions run", times=rounds)


@pytest.mark.root
def test_a_supervisor_that_cannot_fork(custom: Make, open_dir: Path, own_dir: Path) -> None:
    """Without root, since no such limit binds root: it tries again until it can."""
    lines, kills = 900, 3
    log, other, out = open_dir / "log", open_dir / "other", open_dir / "out"
    for path in (log, other):
        path.touch(mode=0o644)
    moments = Moments()
    lognot = custom(counting_items(str(log), lines) + noting_item(other, out))
    lognot.prefix, lognot.source = as_other(USER, open_dir), open_dir / "src"
    own_dir.chmod(0o777)
    (own_dir / "notify").chmod(0o777)
    lognot.start()
    share = lines // kills
    actions = 20
    for number, role in enumerate(["monitor", "executor", "monitor"]):
        append(other, numbered_lines(number * actions, actions))
        append(log, numbered_lines(number * share, share // 2))
        wait_noted(out, number * actions + 1)
        if role == "monitor":
            wait_noted(out, (number + 1) * actions)  # the executor cannot start them meanwhile
        moments.any()
        victim = lognot.role(role)
        with limited(lognot.pid, "nproc", 0):
            kill(victim)
            wait_gone(victim)
            refused = rf"cannot start {role}.*, will be tried again in .*: Resource temporarily unavailable"
            lognot.wait_log(refused, 1 + number // 2)
            append(log, numbered_lines(number * share + share // 2, share - share // 2))
        wait_for(lambda role=role: lognot.role(role), f"a new {role}")
        wait_noted(out, (number + 1) * actions)
    assert_each_line_once(lognot)
    assert_each_ran_once(out, kills * actions, "no process for the supervisor, actions run", times=kills)
    accounts.fault("no process for the supervisor, lines", times=kills, written=lines, seen=lines)
