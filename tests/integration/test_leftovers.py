"""What a test leaves running ends with its service; an executor would go on with what it has accepted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import Service, append, lines_of, wait_for
from integration.launching import LauncherService
from integration.processes import is_gone

Make = Callable[..., Service]
# Does not end by itself, nor when it is asked to; has another process in its session.
ENDLESS = "trap '' TERM; sleep 300 & echo \\$! \\$\\$ >> @/up; while :; do sleep 0.02; done"


def config(log: Path) -> str:
    """More actions than may run at once."""
    return f"[general]\nathread_count = 2\n[ENDLESS]\npath = {log}\nupbound_action = {ENDLESS}\n"


def running(log: Path, up: Path) -> list[int]:
    """Have actions started; give the pids of what runs."""
    append(log, "line\n" * 20)
    wait_for(lambda: len(lines_of(up)) == 2, "two actions")
    return begun(up)


def begun(up: Path) -> list[int]:
    """The pids of all actions that were started, and of what they have started."""
    return [int(pid) for line in lines_of(up) for pid in line.split()]


@pytest.mark.parametrize(
    "killed", ["nothing", "executor", pytest.param("supervisor", marks=pytest.mark.root)]
)
def test_a_service_whose_actions_run(service: Make, tmp_path: Path, open_dir: Path, killed: str) -> None:
    """As it is; and where what has started them, or that has started an executor, was killed before."""
    log = (tmp_path if killed == "executor" else open_dir) / "log"
    log.touch()
    lognot = service(config(log)).start()
    actions = running(log, tmp_path / "up")
    roles = [*lognot.children()]
    if killed == "executor":
        os.kill(lognot.role("executor"), signal.SIGKILL)
        lognot.wait_log("executor of .* started as pid", 2)
    elif killed == "supervisor":
        assert lognot.process is not None
        lognot.process.kill()
        lognot.process.wait()
        assert not is_gone(actions[0])
    lognot.end()
    assert all(map(is_gone, [*roles, *begun(tmp_path / "up")])), lines_of(tmp_path / "up")
    if killed != "executor":  # whose successor may have gone on
        assert begun(tmp_path / "up") == actions


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.root)])
def test_a_launcher_whose_actions_run(
    service: Make, launcher: LauncherService, tmp_path: Path, open_dir: Path, killed: bool
) -> None:
    log = open_dir / "log"
    log.touch()
    lognot = service(config(log), "--exec-socket", str(launcher.path))
    launcher.start()
    lognot.start()
    actions = running(log, tmp_path / "up")
    executor = launcher.executor()
    if killed:
        assert launcher.process is not None
        launcher.process.kill()
        launcher.process.wait()
    launcher.end()
    assert all(map(is_gone, [launcher.pid, executor, *actions]))
    assert not is_gone(lognot.pid)
    assert not is_gone(lognot.role("monitor"))


def test_what_an_action_has_left_behind_is_not_its_services(service: Make, tmp_path: Path) -> None:
    """After a clean stop; tests look at it then."""
    log, up = tmp_path / "log", tmp_path / "up"
    log.touch()
    lognot = service(f"[ITEM]\npath = {log}\nupbound_action = sleep 300 & echo \\$! > {up}\n").start()
    append(log, "line\n")
    lognot.wait_log("action ended")
    assert lognot.stop() == 0
    (pid,) = map(int, lines_of(up))
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)
