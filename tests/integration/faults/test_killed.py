"""Executors, the launcher, and several roles at once are killed at any moment, while lines are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from integration import accounts
from integration.faults.numbered import (
    assert_each_ran_once,
    kill,
    kill_role,
    noted,
    noting_item,
    wait_noted,
)
from integration.harness import Service, wait_for
from integration.launching import LauncherService
from integration.moments import Moments
from integration.processes import wait_gone
from integration.writer import Writer, assert_each_line_once, counting_items, wait_has_open

Make = Callable[..., Service]


def rotate(lognot: Service, log: Path, writer: Writer, number: int) -> None:
    wait_has_open(lognot.pid, log)
    log.rename(log.with_name(f"{log.name}.{number}"))
    writer.reopen(after=5)


def wait_acted_on(out: Path, line: int) -> None:
    """Wait until the action of a line has run that was written since: who has come anew knows the others."""
    wait_for(lambda: line in noted(out), f"the action of line {line}")


def test_executor_and_monitor_in_turns(service: Make, tmp_path: Path) -> None:
    """Never both within the same moment: the one that lives has what the other one had."""
    lines, steps = 500, ["executor"] * 7 + ["monitor"] * 4 + ["rotate"] * 4
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    moments = Moments()
    moments.shuffle(steps)
    lognot = service(f"[general]\nathread_count = 3\n{noting_item(log, out)}").start()
    with Writer(log, lines, 0.0002, allowed=0) as writer:
        for number, step in enumerate(steps):
            writer.round(number, len(steps))
            moments.any()
            if step == "rotate":
                rotate(lognot, log, writer, number)
                continue
            kill_role(lognot, step)
            wait_acted_on(out, writer.another())
        writer.finish()
    wait_noted(out, lines)
    assert lognot.stop() == 0
    assert_each_ran_once(out, lines, "kill -9 of executor or monitor, actions run", times=11)


def test_an_executor_again_and_again(service: Make, tmp_path: Path) -> None:
    """While many wait, and more come."""
    lines, kills = 500, 8
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    moments = Moments()
    lognot = service(f"[general]\nathread_count = 3\n{noting_item(log, out)}").start()
    with Writer(log, lines, 0.0002, allowed=0) as writer:
        for number in range(kills):
            writer.round(number, kills)
            moments.any(0.1)
            kill_role(lognot, "executor")
            if number % 3 == 0:
                rotate(lognot, log, writer, number)
        writer.finish()
    wait_noted(out, lines)
    assert lognot.stop() == 0
    assert_each_ran_once(out, lines, "kill -9 of an executor, actions run", times=kills)


def test_launcher_and_launched_executor(service: Make, launcher: LauncherService, tmp_path: Path) -> None:
    """The launcher alone, or with its executors as the service manager ends them, or an executor alone."""
    lines, steps = 400, ["executor"] * 4 + ["launcher"] * 2 + ["both"] * 3
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    moments = Moments()
    moments.shuffle(steps)
    config = f"[general]\nathread_count = 3\n{noting_item(log, out)}"
    lognot = service(config, "--exec-socket", str(launcher.path))
    launcher.start()
    lognot.start()
    with Writer(log, lines, 0.0002, allowed=0) as writer:
        for number, step in enumerate(steps):
            writer.round(number, len(steps))
            executor = launcher.executor()
            moments.any(0.1)
            if step != "executor":
                assert launcher.process is not None
                launcher.process.kill()
                launcher.process.wait()
                moments.any()
            kill(executor)  # the unit's, after its main process: nothing else is left in it
            if step != "executor":
                if step == "both":
                    moments.any(0.1)
                launcher.start()
            wait_gone(executor)
        writer.finish()
    wait_noted(out, lines)
    assert lognot.stop() == 0
    assert_each_ran_once(out, lines, "kill -9 of launcher or its executor, actions run", times=len(steps))


def test_all_but_the_supervisor_at_once(service: Make, launcher: LauncherService, tmp_path: Path) -> None:
    """Lines are counted exactly; actions that wait in both of them may be lost."""
    lines, rounds = 2500, 5
    log = tmp_path / "log"
    log.touch()
    moments = Moments()
    lognot = service(counting_items(str(log), lines), "--exec-socket", str(launcher.path))
    launcher.start()
    lognot.start()
    with Writer(log, lines, 0.0002, allowed=0) as writer:
        for number in range(rounds):
            writer.round(number, rounds)
            monitor = lognot.role("monitor")
            victims = [monitor, launcher.executor(), launcher.pid]
            moments.shuffle(victims)
            moments.any()
            for pid in victims:
                kill(pid)
            wait_gone(*victims)
            wait_for(lambda monitor=monitor: monitor not in lognot.children(), "the end to be noticed")
            launcher.start()
            rotate(lognot, log, writer, number)
            wait_has_open(lognot.role("monitor"), log)
        writer.finish()
        launcher.executor()
    assert_each_line_once(lognot)
    assert lognot.log.count("monitor ended (killed by SIGKILL)") == rounds
    accounts.fault(
        "kill -9 of monitor, executor and launcher at once", times=rounds, written=lines, seen=lines
    )
