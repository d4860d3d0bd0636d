"""An action that can never be started does not hold up the others; one that cannot be started now waits."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

from integration.harness import Service, append, lines_of, wait_for

CONFIG = "[ITEM]\npath = @/log\nregex = ^(a*)(b*) (\\d+)$\nupbound_action = printf '%s\\n' $3 >> @/out\n"


def test_arguments_that_no_process_can_take_are_dropped_and_said(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(CONFIG).start()
    # execve(2) takes a quarter of the stack limit, and 128 KiB at least.
    resource.prlimit(lognot.role("executor"), resource.RLIMIT_STACK, (512 * 1024, 512 * 1024))
    append(log, b"a" * 90_000 + b"b" * 90_000 + b" 1\nab 2\n")
    lognot.wait_log(r"error: \[ITEM\] 1 action was dropped, since the shell cannot start: Argument list too")
    wait_for(lambda: lines_of(out) == ["2"], "the next action")
    assert lognot.stop() == 0


def test_no_descriptor_for_a_moment_delays_an_action(service: Callable[..., Service], tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(CONFIG).start()
    append(log, "ab 2\n")
    lognot.wait_log("action ended")  # so the executor has all that it needs
    executor = lognot.role("executor")
    limits = resource.prlimit(executor, resource.RLIMIT_NOFILE)
    resource.prlimit(executor, resource.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays, no more can be
    append(log, "ab 3\n")
    lognot.wait_log(r"cannot start an action now, will try again")
    assert lines_of(out) == ["2"]
    resource.prlimit(executor, resource.RLIMIT_NOFILE, limits)
    wait_for(lambda: lines_of(out) == ["2", "3"], "the delayed action")
    assert lognot.stop() == 0
