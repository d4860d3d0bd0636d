"""Thousands of actions at once, more than may wait: what does not run is dropped, and said exactly."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

from integration import accounts
from integration.faults.numbered import dropped, noted, noting_item, numbered_lines, wait_noted
from integration.harness import Service, append
from integration.writer import held
from lognot.dispatch import MAX_WAITING

Make = Callable[..., Service]


def account(lognot: Service, out: Path, lines: int, fault: str) -> list[int]:
    """Hold that all of the lines' actions were started once or reported as dropped; give those that ran.

    One that a stop ends may not have noted its number yet.
    """
    ran = noted(out)
    started = lognot.log.count("[NOTE] action started as pid")
    ended = lognot.log.count("[NOTE] action ended with killed by SIGTERM")
    assert len(ran) == len(set(ran)), "none runs twice"
    assert started - ended <= len(ran) <= started
    assert started + dropped(lognot, "NOTE") == lines
    accounts.fault(fault, times=1, written=lines, seen=started + dropped(lognot, "NOTE"))
    return ran


def test_as_many_as_may_wait(service: Make, tmp_path: Path) -> None:
    """In one write; then the service is stopped, twice, and what waits by then is counted."""
    run = 1000
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(noting_item(log, out)).start()
    append(log, numbered_lines(0, MAX_WAITING))
    wait_noted(out, run)
    lognot.wait_log(r"\[NOTE\] fired", MAX_WAITING)
    assert dropped(lognot, "NOTE") == 0
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping on SIGTERM")
    assert lognot.stop() == 0
    ran = account(
        lognot, out, MAX_WAITING, f"{MAX_WAITING} actions at once, two SIGTERM: run or said dropped"
    )
    assert len(ran) >= run
    ended = lognot.log.count("[NOTE] action ended with killed by SIGTERM")
    assert len(set(range(max(ran))) - set(ran)) <= ended, "the oldest ones"


def test_more_than_may_wait_while_the_executor_stands_still(service: Make, tmp_path: Path) -> None:
    """The newest are dropped, at once; those of another user are not concerned."""
    over, run = 2345, 1000
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(f"[general]\nathread_count = 64\n{noting_item(log, out)}").start()
    with held(lognot.role("executor")):
        append(log, numbered_lines(0, MAX_WAITING + over))
        lognot.wait_log(r"\[NOTE\] fired", MAX_WAITING)
        status = f"STATUS=watching 1 of 1 logs for 1 item: 0.1 MiB read, {MAX_WAITING + over} "
        lognot.wait_notification(status)
    wait_noted(out, run)
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping on SIGTERM")
    assert lognot.stop() == 0
    name = "SIGSTOP of the executor until its queue is full: run or said dropped"
    ran = account(lognot, out, MAX_WAITING + over, name)
    assert max(ran) < MAX_WAITING, "the newest were dropped"
    assert lognot.log.count("[NOTE] fired") == MAX_WAITING
    assert len(re.findall("actions? (?:was|were) dropped", lognot.log)) <= 4, (
        "a message a minute, and those of the end"
    )


def test_a_stop_while_the_executor_stands_still(service: Make, tmp_path: Path) -> None:
    """What no executor has got is counted by the monitor, the rest by the executor once it goes on."""
    lines = 3000
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(f"[general]\nathread_count = 1\n{noting_item(log, out)}").start()
    with held(lognot.role("executor")):
        append(log, numbered_lines(0, lines))
        lognot.wait_log(r"\[NOTE\] fired", lines)
        lognot.signal(signal.SIGTERM)
        lognot.wait_log("stopping on SIGTERM")
        lognot.signal(signal.SIGTERM)
        lognot.wait_log(r"actions? (?:was|were) dropped, since lognot stops")
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    name = "SIGSTOP of the executor, two SIGTERM: run or said dropped"
    account(lognot, out, lines, name)
