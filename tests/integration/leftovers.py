"""Ends a service at once, and what goes on without its supervisor: executors, and actions that run."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 20.0


def kill_all(pid: int, *, roles: str, actions: str) -> None:
    """Kill a supervisor or launcher, its roles and their actions; returns when roles and actions are gone.

    Whoever has children is stopped before they are looked for: it starts no more, and waits for none, whose
    number could be another process's then.

    Args:
        pid: a child of ours that was not waited for; 0 where there is none any more.
        roles: what their environment has, and no other's: they are found also where their parent has ended,
            if we may read that.
        actions: the same of actions.
    """
    with ExitStack() as stack:
        if pid:
            _stop(pid)
        found = {}
        for one in _processes():
            if one.pid != pid and (one.parent == pid != 0 or one.has(roles)):
                found[one.pid] = os.dup(one.pidfd)
                stack.callback(os.close, found[one.pid])
        for role in found:
            _stop(role)
        sessions = {one.pid for one in _processes() if one.parent in found}  # each action leads its own
        if pid:
            os.kill(pid, signal.SIGKILL)
        assert _wait(lambda: not _kill_actions(sessions, actions)), "actions do not end"
        for pidfd in found.values():
            _kill(pidfd)
            assert select.select([pidfd], [], [], DEADLINE_S)[0], "a role does not end"


def _kill_actions(sessions: set[int], mark: str) -> int:
    """Give how many there were still."""
    count = 0
    for one in _processes():
        if one.session in sessions or one.has(mark):
            _kill(one.pidfd)
            count += 1
    return count


@dataclass(frozen=True)
class _Process:
    """A process that runs, as it was a moment ago; whatever `pid` is by now, `pidfd` is this one."""

    pid: int
    pidfd: int
    parent: int
    session: int
    environment: bytes

    def has(self, mark: str) -> bool:
        """Its environment has a text."""
        return os.fsencode(mark) in self.environment


def _processes() -> Iterator[_Process]:
    """All but what has ended and was not waited for. A pidfd is open until the next one is asked for."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with ExitStack() as stack, suppress(ProcessLookupError, FileNotFoundError):
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            state, parent, _, session, *_ = stat_fields(pid)
            environment = b""
            with suppress(PermissionError):
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            if state != b"Z":
                yield _Process(pid, pidfd, int(parent), int(session), environment)


def stat_fields(pid: int) -> list[bytes]:
    """Fields 3 and on of /proc/PID/stat (proc(5)): state, parent, process group, session, terminal, ..."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _stop(pid: int) -> None:
    """Stop one; returns when it stands still, or cannot for long."""
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, signal.SIGSTOP)
        _wait(lambda: stat_fields(pid)[0] in (b"T", b"t", b"Z"))


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _wait(condition: Callable[[], bool]) -> bool:
    """Say whether it has come true in time."""
    end = time.monotonic() + DEADLINE_S
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.0005)  # between two looks
    return met
