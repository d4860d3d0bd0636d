"""`make run` keeps its promise: it ends by itself, with success, and shows the main job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from integration.harness import SOURCE, wait_for

PLAY = SOURCE.parent / "demo" / "play.py"
BLOCKED = "would run: iptables -w -I INPUT -s"


def play() -> subprocess.Popen[str]:
    """Start the demonstration."""
    return subprocess.Popen(
        [sys.executable, str(PLAY)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_gone(output: str) -> bool:
    """Whether the directory that the first line names was removed."""
    directory = Path(output.splitlines()[0].rpartition(" ")[2])
    return directory.name.startswith("lognot-demo-") and not directory.exists()


def test_the_demonstration_shows_what_it_claims() -> None:
    demonstration = play()
    output, _ = demonstration.communicate(timeout=60)
    assert demonstration.returncode == 0, output
    for role in ("supervisor", "monitor", "executor"):
        assert f"lognot: {role}" in output
    lines = output.splitlines()
    blocked = [line.partition(BLOCKED)[2].split()[0] for line in lines if BLOCKED in line]
    assert sorted(blocked) == ["198.51.100.23", "198.51.100.77", "203.0.113.66"]
    failures = [
        line for line in lines[: _index(lines, f"{BLOCKED} 203.0.113.66")] if "Failed password" in line
    ]
    # As soon as there are more than 3, unless the machine has others to run for a while.
    assert 4 <= len([line for line in failures if "203.0.113.66" in line]) <= 6
    mailed = [line for line in lines if line.startswith("  2026-") and ": error:" in line]
    assert len(mailed) == 3
    assert 1 <= sum("[size] says:" in line for line in lines) <= 2  # one if both steps are reached at once
    assert "\x1b" not in output  # colour is for terminals
    assert "All of it happened as told." in output
    assert is_gone(output)


def _index(lines: list[str], text: str) -> int:
    return next(number for number, line in enumerate(lines) if text in line)


def test_a_demonstration_that_is_stopped_leaves_nothing() -> None:
    demonstration = play()
    assert demonstration.stdout is not None
    output = ""
    while "A recorded attack" not in output:
        output += demonstration.stdout.readline()
    supervisor = int(next(line for line in output.splitlines() if "lognot: supervisor" in line).split()[1])
    demonstration.terminate()
    rest, _ = demonstration.communicate(timeout=60)
    assert demonstration.returncode == 1
    assert "The demonstration was stopped." in rest
    wait_for(lambda: not Path(f"/proc/{supervisor}").exists(), "the end of lognot")
    assert is_gone(output)
