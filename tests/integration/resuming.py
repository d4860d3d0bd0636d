"""Items that note the lines that they were run for, and the ends of a service that is to go on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from integration.harness import Service, append, lines_of
from integration.processes import wait_gone
from integration.writer import REGEX


def reboot(environment: dict[str, str]) -> None:
    """What is in memory is gone."""
    shutil.rmtree(environment["RUNTIME_DIRECTORY"])
    os.mkdir(environment["RUNTIME_DIRECTORY"])


def kill(lognot: Service) -> None:
    """End the supervisor with SIGKILL; the others follow."""
    children = lognot.children()
    assert lognot.process is not None
    lognot.process.kill()
    lognot.process.wait()
    wait_gone(*children)


def stop(lognot: Service) -> None:
    """Stop cleanly, but leave what is needed to start again."""
    lognot.signal(signal.SIGTERM)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0


def noting(log: Path, out: Path, name: str = "ITEM", more: str = "resume = yes\n") -> str:
    """An item that notes the number of each line."""
    return f"[{name}]\npath = {log}\nregex = {REGEX}\nupbound_action = echo $1 >> {out}\n{more}"


def numbers(out: Path) -> list[int]:
    return [int(line) for line in lines_of(out)]


def write(log: Path, begin: int, end: int) -> None:
    append(log, "".join(f"line {number:06d}\n" for number in range(begin, end)))
