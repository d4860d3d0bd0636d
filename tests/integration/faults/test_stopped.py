"""Roles are stopped (SIGSTOP) at any moment, and for so long that whatever waits for them fills up."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from integration import accounts
from integration.faults.numbered import (
    assert_each_ran_once,
    kill,
    noted,
    noting_item,
    numbered_lines,
    wait_noted,
)
from integration.harness import Service, append, wait_for
from integration.launching import LauncherService
from integration.moments import Moments
from integration.processes import wait_gone
from integration.writer import Writer, assert_each_line_once, counting_items, held, wait_has_open

Make = Callable[..., Service]


def test_any_role_at_any_moment(service: Make, tmp_path: Path) -> None:
    """With rotations while it is stopped."""
    lines, block = 3000, 40
    log, other, out = tmp_path / "log", tmp_path / "other", tmp_path / "out"
    log.touch()
    other.touch()
    roles = ["supervisor", "monitor", "executor"] * 3
    moments = Moments()
    moments.shuffle(roles)
    lognot = service(counting_items(str(log), lines) + noting_item(other, out)).start()
    with Writer(log, lines, 0.0001, allowed=0) as writer:
        for number, role in enumerate(roles):
            append(other, numbered_lines(number * block, block // 2))
            wait_has_open(lognot.role("monitor"), log)
            moments.any()
            with held(lognot.pid if role == "supervisor" else lognot.role(role)):
                append(other, numbered_lines(number * block + block // 2, block // 2))
                writer.round(number, len(roles))
                log.rename(log.with_name(f"log.{number}"))
                writer.reopen(after=20)
        writer.finish()
    wait_noted(out, len(roles) * block)
    assert_each_line_once(lognot)
    assert "will be started again" not in lognot.log
    assert_each_ran_once(out, len(roles) * block, "SIGSTOP of any role, actions run", times=len(roles))
    accounts.fault("SIGSTOP of any role, with rotations", times=len(roles), written=lines, seen=lines)


def test_a_supervisor_that_stands_still_for_long(service: Make, tmp_path: Path) -> None:
    """All that the others have to say waits for it, and is in its log in the end."""
    lines = 1000
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    printing = noting_item(log, out).replace("echo $1 >>", "echo one; echo two; echo $1 >>")
    lognot = service(printing).start()
    with held(lognot.pid):
        append(log, numbered_lines(0, lines))
        wait_noted(out, lines)
    all_said = ("fired", "says: one", "says: two", "action started", "action ended with exit status 0")
    for said in all_said:
        lognot.wait_log(rf"\[NOTE\] {said}", lines)
    assert lognot.stop() == 0
    for said in all_said:
        assert lognot.log.count(f"[NOTE] {said}") == lines, said
    assert_each_ran_once(out, lines, "SIGSTOP of the supervisor until all is full, actions run", times=1)


def test_a_monitor_that_stands_still_while_its_executor_is_killed(service: Make, tmp_path: Path) -> None:
    """It cannot be told of more actions than its connection holds: no more than those are started."""
    lines = 600
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(f"[general]\nathread_count = 1\n{noting_item(log, out)}").start()
    executor = lognot.role("executor")
    with ExitStack() as stack:
        with held(executor):  # or it could be done with all before the monitor stands still
            append(log, numbered_lines(0, lines))
            lognot.wait_log(r"\[NOTE\] fired", lines)
            stack.enter_context(held(lognot.role("monitor")))
        wait_for(lambda: noted(out), "the first action")
        ended = r"\[NOTE\] action ended with"
        quiet = 0
        while quiet < 20:  # until nothing happens any more
            before = len(re.findall(ended, lognot.log))
            Moments().any(0.02)
            quiet = quiet + 1 if len(re.findall(ended, lognot.log)) == before else 0
        stalled = len(noted(out))
        kill(executor)
        wait_for(lambda: lognot.role("executor") != executor, "a new executor")
    assert 0 < stalled < lines
    wait_noted(out, lines)
    assert lognot.stop() == 0
    assert_each_ran_once(out, lines, "SIGSTOP of the monitor, kill -9 of its executor, actions", times=1)


def test_a_launcher_that_stands_still(service: Make, launcher: LauncherService, tmp_path: Path) -> None:
    """Its executors work on; one that is killed is back as soon as it goes on."""
    lines, rounds = 240, 3
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    moments = Moments()
    lognot = service(noting_item(log, out), "--exec-socket", str(launcher.path))
    launcher.start()
    lognot.start()
    share = lines // rounds
    for number in range(rounds):
        executor = launcher.executor()
        append(log, numbered_lines(number * share, 1))
        wait_noted(out, number * share + 1)  # it has its config, which takes the launcher
        with held(launcher.pid):
            append(log, numbered_lines(number * share + 1, share // 2 - 1))
            wait_noted(out, number * share + share // 2)
            append(log, numbered_lines(number * share + share // 2, share // 2))
            moments.any(0.1)
            kill(executor)
            wait_gone(executor)
        wait_noted(out, (number + 1) * share)
    assert lognot.stop() == 0
    assert_each_ran_once(
        out, lines, "SIGSTOP of the launcher, kill -9 of its executor, actions run", times=rounds
    )
