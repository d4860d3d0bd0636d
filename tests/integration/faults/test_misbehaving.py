"""Actions that do what they should not: the others go on, and nothing of ours grows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.faults.numbered import (
    assert_each_ran_once,
    kill,
    memory_bytes,
    noted,
    noting_item,
    numbered_lines,
    wait_noted,
)
from integration.harness import Service, append, lines_of, wait_for
from integration.processes import is_gone, wait_gone
from integration.writer import held

Make = Callable[..., Service]
PRINTED_BYTES = 1024**3  # by one action
PRINTED_IN_LINES_BYTES = PRINTED_BYTES // 8  # by each of two, which takes us longer
GROWTH_BYTES = 8 * 1024 * 1024  # of a process that handles it


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Path]:
    """Where actions note the processes that they leave behind; those are ended after the test."""
    path = tmp_path / "pids"
    yield path
    for pid in lines_of(path):
        kill(int(pid))


def item(name: str, log: Path, action: str) -> str:
    """An item that fires on its own name."""
    return f"[{name}]\npath = {log}\nregex = ^{name}$\nupbound_action = {action}\n"


def test_those_that_leave_something_behind(service: Make, tmp_path: Path, daemons: Path) -> None:
    """A daemon that forks twice, one behind nohup, one that prints for ever into the pipe that it keeps."""
    log, other, out = tmp_path / "log", tmp_path / "other", tmp_path / "out"
    log.touch()
    other.touch()
    daemon = tmp_path / "daemon"
    daemon.write_text(f'#!/bin/sh\necho $$ >> {daemons}\nexec "$@"\n')
    daemon.chmod(0o755)
    lognot = service(
        "[general]\nathread_count = 1\n"
        + item("TWICE", log, f"(setsid sh -c '{daemon} sleep 300 &' &); exit 0")
        + item("NOHUP", log, f"nohup {daemon} sleep 300 & exit 0")
        + item("PRINTS", log, f"setsid {daemon} yes & exit 0")
        + noting_item(other, out)
    ).start()
    lines = 100
    append(log, "TWICE\nNOHUP\nPRINTS\n")
    append(other, numbered_lines(0, lines))
    for name in ("TWICE", "NOHUP", "PRINTS"):
        lognot.wait_log(rf"\[{name}\] action ended with exit status 0")
    wait_noted(out, lines)
    wait_for(lambda: len(lines_of(daemons)) == 3, "the daemons")
    assert lognot.stop() == 0
    running = [pid for pid in lines_of(daemons) if not is_gone(int(pid))]
    assert len(running) >= 2, "those that do not print into a pipe without a reader"
    assert lognot.log.count("[PRINTS] says") <= 1024
    assert_each_ran_once(out, lines, "actions that leave daemons behind, actions run", times=3)


def test_those_that_print_without_end(service: Make, tmp_path: Path) -> None:
    """In one line, and in millions: memory stays flat, the log is bounded, the others go on."""
    log, other, out = tmp_path / "log", tmp_path / "other", tmp_path / "out"
    log.touch()
    other.touch()

    def zeros(number: int) -> str:
        return f"head -c {number} /dev/zero | tr '\\0'"

    lognot = service(
        "[general]\nathread_count = 4\n"
        + item("LINE", log, f"{zeros(PRINTED_BYTES)} x")
        + item("LINES", log, f"{zeros(PRINTED_IN_LINES_BYTES)} '\\n'")
        + item("SHORT", log, f"yes | head -c {PRINTED_IN_LINES_BYTES}")
        + noting_item(other, out)
    ).start()
    lines = 100
    append(other, numbered_lines(0, lines // 2))
    wait_noted(out, lines // 2)
    ours = [lognot.pid, lognot.role("executor"), lognot.role("monitor")]
    before = [memory_bytes(pid, "VmHWM") for pid in ours]
    append(log, "LINE\nLINES\nSHORT\n")
    lognot.wait_log("action started as pid", lines // 2 + 3)
    append(other, numbered_lines(lines // 2, lines // 2))
    wait_noted(out, lines)
    for name in ("LINE", "LINES", "SHORT"):
        lognot.wait_log(rf"\[{name}\] action ended with exit status 0", deadline_s=300)
    grown = [memory_bytes(pid, "VmHWM") - old for pid, old in zip(ours, before, strict=True)]
    assert max(grown) < GROWTH_BYTES, grown
    assert lognot.stop() == 0
    said = {name: re.findall(rf"\[{name}\] says: (.*)", lognot.log) for name in ("LINE", "LINES", "SHORT")}
    cut = {
        name: int(number)
        for name, number in re.findall(r"\[(\w+)\] action printed too much, (\d+) bytes", lognot.log)
    }
    assert sum(map(len, said["LINE"])) + cut["LINE"] == PRINTED_BYTES
    assert sum(map(len, said["SHORT"])) + cut["SHORT"] == PRINTED_IN_LINES_BYTES // 2, "without newlines"
    assert said["LINES"] == [], "empty lines are not told"
    assert len(lognot.log) < 1024 * 1024
    assert_each_ran_once(out, lines, "actions that print too much, actions run", times=3)


def test_those_that_print_while_the_supervisor_stands_still(service: Make, tmp_path: Path) -> None:
    """All run, timeouts are kept, and what they print is left out once it is too much to keep."""
    log, other, out, pid = (tmp_path / name for name in ("log", "other", "out", "pid"))
    log.touch()
    other.touch()
    lines = 400  # with what each prints, far more than may wait on a connection
    printing = noting_item(other, out).replace("echo $1 >>", "seq 1024; echo $1 >>")
    lognot = service(
        "[general]\nathread_count = 2\n"
        + item("SLEEPS", log, f"echo \\$\\$ >> {pid}; exec sleep 300")
        + "action_timeout = 2\n"
        + printing
    ).start()
    append(log, "SLEEPS\n")
    sleeps = int(wait_for(lambda: lines_of(pid), "the one that takes too long")[0])
    executor = lognot.role("executor")
    before = memory_bytes(executor, "VmHWM")
    with held(lognot.pid):
        append(other, numbered_lines(0, lines))
        wait_gone(sleeps)
        wait_noted(out, lines)
        assert memory_bytes(executor, "VmHWM") - before < 2 * GROWTH_BYTES
    lognot.wait_log(r"\[SLEEPS\] action took too long and was ended \(ended with killed by SIGTERM\)")
    assert lognot.role("executor") == executor
    assert lognot.stop() == 0
    assert "[NOTE] action printed too much" in lognot.log
    assert_each_ran_once(out, lines, "SIGSTOP of the supervisor, actions that print a lot run", times=1)


def test_those_that_do_not_end(service: Make, tmp_path: Path) -> None:
    """One stops itself, and is woken for its end; one waits for a file that never comes."""
    log, other, out = tmp_path / "log", tmp_path / "other", tmp_path / "out"
    log.touch()
    other.touch()
    lognot = service(
        "[general]\nathread_count = 2\n"
        + item("STOPS", log, "kill -STOP \\$\\$; echo never")
        + "action_timeout = 1\n"
        + item("WAITS", log, f"until [ -e {tmp_path}/never ]; do sleep 0.1; done")
        + "action_timeout = 1\n"
        + noting_item(other, out)
    ).start()
    lines = 50
    append(log, "STOPS\nWAITS\n")
    lognot.wait_log("action started as pid", 2)
    append(other, numbered_lines(0, lines))
    wait_noted(out, lines)
    for name in ("STOPS", "WAITS"):
        lognot.wait_log(rf"\[{name}\] action took too long and was ended \(ended with killed by SIGTERM\)")
    assert lognot.stop() == 0
    assert "says: never" not in lognot.log
    assert_each_ran_once(out, lines, "actions that do not end, actions run", times=2)


@pytest.mark.root
def test_those_that_kill_their_executor(service: Make, open_dir: Path) -> None:
    """Again and again, with SIGKILL: each runs once, and so does each of the others."""
    kills, lines = 8, 120
    log, out, killers = open_dir / "log", open_dir / "out", open_dir / "killers"
    log.touch()
    # Not whoever adopts the action of an executor that another one has killed.
    executor_only = "case \\$(cat /proc/\\$PPID/comm) in lognot-executor) kill -9 \\$PPID;; esac"
    killing = noting_item(log, killers, "KILL").replace("^line", "^kill")
    lognot = service(
        "[general]\nathread_count = 3\nuid = games\n"
        + noting_item(log, out)
        + killing.replace(f">> {killers}", f">> {killers}; {executor_only}")
    ).start()
    share = lines // kills
    text = ""
    for number in range(kills):
        text += numbered_lines(number * share, share) + f"kill {number:06d}\n"
    append(log, text)
    wait_noted(out, lines)
    wait_noted(killers, kills)
    lognot.wait_log(r"executor of games ended \(killed by SIGKILL\), will be started again")
    assert lognot.stop() == 0
    assert sorted(noted(killers)) == list(range(kills))
    deaths = lognot.log.count("executor of games ended (killed by SIGKILL)")
    assert 1 <= deaths <= kills
    assert_each_ran_once(out, lines, "actions that kill their executor, actions run", times=deaths)
