"""The supervisor is killed: what it had accepted is done all the same, and then nothing of it is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.faults.numbered import (
    assert_each_ran_once,
    kill,
    noting_item,
    numbered_lines,
    wait_noted,
)
from integration.harness import Service, append, lines_of, wait_for
from integration.launching import LauncherService
from integration.moments import Moments
from integration.processes import is_gone, wait_gone
from lognot.service import LEAVE_S, STOP_GRACE_S

ENDLESS = (
    "[ENDLESS]\npath = @/other\nregex = go\n"
    "upbound_action = trap 'echo told >> @/told; exit' TERM; echo \\$\\$ >> @/up; "
    "while :; do sleep 0.1; done\n"
)


class Place:
    """A service in a directory of its own, with a launcher or without."""

    def __init__(self, directory: Path, *, launched: bool) -> None:
        directory.mkdir()
        self.directory = directory
        self.launcher = LauncherService(directory) if launched else None
        arguments = ["--exec-socket", str(self.launcher.path)] if self.launcher else []
        (directory / "log").touch()
        (directory / "other").touch()
        config = (
            "[general]\nathread_count = 3\n" + noting_item(directory / "log", directory / "out") + ENDLESS
        )
        self.lognot = Service(directory, config, *arguments)
        if self.launcher:
            self.launcher.start()
        self.lognot.start()

    def executor(self) -> int:
        return self.launcher.executor() if self.launcher else self.lognot.role("executor")

    def end(self) -> None:
        self.lognot.end()
        if self.launcher:
            self.launcher.end()
        for pid in lines_of(self.directory / "up"):
            kill(int(pid))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """A function that makes a Place; it is ended after the test."""
    with contextlib.ExitStack() as stack:

        def make(name: str, *, launched: bool) -> Place:
            made = Place(tmp_path / name, launched=launched)
            stack.callback(made.end)
            return made

        yield make


def test_what_was_accepted_is_done(place: Callable[..., Place]) -> None:
    """Quick actions at once; one that goes on for longer is told to end, 10 s after its supervisor.

    Meanwhile other services are killed again and again, and started anew beside their old executors.
    """
    kept = [place("forked", launched=False), place("launched", launched=True)]
    executors = [one.executor() for one in kept]
    begin = time.monotonic()
    for one in kept:
        kill_with_work(one, 50)
    again_and_again(place("forked,again", launched=False))
    again_and_again(place("launched,again", launched=True))
    wait_gone(*executors, deadline_s=LEAVE_S)
    assert time.monotonic() - begin > STOP_GRACE_S
    for one in kept:
        assert lines_of(one.directory / "told") == ["told"]
        assert is_gone(int(lines_of(one.directory / "up")[0]))
        name = f"kill -9 of the supervisor ({one.directory.name}), accepted actions run"
        assert_each_ran_once(one.directory / "out", 50, name, times=1)


def kill_with_work(one: Place, lines: int) -> None:
    """Kill a supervisor with an action that runs for ever, and others that wait; these run."""
    append(one.directory / "other", "go\n")
    wait_for(lambda: lines_of(one.directory / "up"), "the endless action")
    append(one.directory / "log", numbered_lines(0, lines))
    one.lognot.wait_log(r"\[NOTE\] fired", lines)
    monitor = one.lognot.role("monitor")
    assert one.lognot.process is not None
    one.lognot.process.kill()
    killed = time.monotonic()
    wait_gone(monitor)
    wait_noted(one.directory / "out", lines)
    endless_is_gone = is_gone(int(lines_of(one.directory / "up")[0]))
    assert not endless_is_gone or time.monotonic() > killed + STOP_GRACE_S, "it has its time"


def again_and_again(one: Place) -> None:
    """Kill a supervisor at any moment after its lines fired, and start the next one at once."""
    rounds, block = 3, 40
    moments = Moments()
    log, out = one.directory / "log", one.directory / "out"
    for number in range(rounds):
        executor = one.executor()
        append(log, numbered_lines(number * block, block))
        one.lognot.wait_log(r"\[NOTE\] fired", (number + 1) * block)
        moments.any(0.05)
        assert one.lognot.process is not None
        one.lognot.process.kill()
        one.lognot.process.wait()
        one.lognot.start()
        wait_noted(out, (number + 1) * block)
        wait_gone(executor)
    assert one.lognot.stop() == 0
    name = f"kill -9 of the supervisor ({one.directory.name}), actions run"
    assert_each_ran_once(out, rounds * block, name, times=rounds)
