"""The supervisor is killed: what it had accepted is done all the same, and then nothing of it is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.faults.numbered import (
    Moments,
    assert_each_ran_once,
    kill,
    noting_item,
    numbered_lines,
    wait_noted,
)
from integration.harness import Service, append, lines_of, wait_for
from integration.launching import LauncherService
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
def places(tmp_path: Path) -> Iterator[list[Place]]:
    """One in each layout."""
    made: list[Place] = []
    with contextlib.ExitStack() as stack:
        for name in ("forked", "launched"):
            made.append(Place(tmp_path / name, launched=name == "launched"))
            stack.callback(made[-1].end)
        yield made


def test_accepted_actions_run_and_endless_ones_are_ended(places: list[Place]) -> None:
    """Quick ones at once; one that goes on for longer is told to end, 10 s after its supervisor."""
    lines = 50
    executors = [place.executor() for place in places]
    begin = 0.0
    for place in places:
        append(place.directory / "other", "go\n")
        wait_for(lambda place=place: lines_of(place.directory / "up"), "the endless action")
        append(place.directory / "log", numbered_lines(0, lines))
        place.lognot.wait_log(r"\[NOTE\] fired", lines)
        monitor = place.lognot.role("monitor")
        assert place.lognot.process is not None
        begin = time.monotonic()
        place.lognot.process.kill()
        wait_gone(monitor, deadline_s=5)
    for place in places:
        wait_noted(place.directory / "out", lines)
        assert not is_gone(int(lines_of(place.directory / "up")[0])), "it has its time"
    wait_gone(*executors, deadline_s=LEAVE_S)
    assert time.monotonic() - begin > STOP_GRACE_S
    for place in places:
        assert lines_of(place.directory / "told") == ["told"]
        assert is_gone(int(lines_of(place.directory / "up")[0]))
        name = f"kill -9 of the supervisor ({place.directory.name}), accepted actions run"
        assert_each_ran_once(place.directory / "out", lines, name, times=1)


def test_at_any_moment_what_fired_runs_once(places: list[Place]) -> None:
    """A new service beside the old executors does its own work, and none of theirs."""
    moments = Moments()
    rounds, block = 3, 40
    for place in places:
        log, out = place.directory / "log", place.directory / "out"
        for number in range(rounds):
            executor = place.executor()
            append(log, numbered_lines(number * block, block))
            place.lognot.wait_log(r"\[NOTE\] fired", (number + 1) * block)
            moments.any(0.05)
            assert place.lognot.process is not None
            place.lognot.process.kill()
            place.lognot.process.wait()
            place.lognot.notifications.clear()
            place.lognot.start()
            wait_noted(out, (number + 1) * block)
            wait_gone(executor)
        assert place.lognot.stop() == 0
        name = f"kill -9 of the supervisor ({place.directory.name}), started again, actions run"
        assert_each_ran_once(out, rounds * block, name, times=rounds)
