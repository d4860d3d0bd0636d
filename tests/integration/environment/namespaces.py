"""Namespaces to make faults in that would be those of the whole machine: mounts, users and their limits."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.harness import PYTHON

# Become root of a new user namespace in which every id means what it means outside, then run the rest.
# The map is written by a process outside of it: the new one may only map itself (user_namespaces(7)).
_NEW_USERS = """\
import ctypes, os, sys
to_helper, helped = os.pipe(), os.pipe()
me = os.getpid()
if os.fork() == 0:
    os.read(to_helper[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{me}/{name}", "w") as file:
            file.write("0 0 4294967295")
    os.write(helped[1], b"1")
    os._exit(0)
CLONE_NEWUSER = 0x10000000
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
    sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
os.write(to_helper[1], b"1")
os.read(helped[0], 1)
os.wait()
for setting in sys.argv[1].split():
    name, _, value = setting.partition("=")
    with open(f"/proc/sys/user/{name}", "w") as file:
        file.write(value)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def own_mounts(script: str = "true") -> list[str]:
    """A command prefix: a mount namespace of its own, set up by a line of sh."""
    prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", f'{script} && exec "$@"', "sh"]
    _need(prefix)
    return prefix


@contextmanager
def mounts_of(pid: int) -> Iterator[list[str]]:
    """A command prefix: the mount namespace of a process, which is kept although it may end."""
    with open(f"/proc/{pid}/ns/mnt") as namespace:
        yield ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{namespace.fileno()}"]


def own_users(limits: str) -> list[str]:
    """A command prefix: a user namespace of its own, with limits (`max_inotify_watches=9 …`)."""
    prefix = [PYTHON, "-c", _NEW_USERS, limits]
    _need(prefix)
    return prefix


def _need(prefix: Sequence[str]) -> None:
    if not shutil.which("nsenter"):
        pytest.skip("needs util-linux, for namespaces")
    done = subprocess.run([*prefix, "true"], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs namespaces: {done.stderr.strip()}")


def set_limit(pid: int, name: str, value: int) -> None:
    """Change a limit of the user namespace of a process."""
    script = f"echo {value} >/proc/sys/user/{name}"
    subprocess.run(["nsenter", f"--target={pid}", "--user", "sh", "-c", script], check=True)


def in_mounts(pid: int, *command: str) -> None:
    """Run a command that must succeed in the mount namespace of a process."""
    subprocess.run(["nsenter", f"--target={pid}", "--mount", *command], check=True, cwd="/")


def inside(pid: int, path: Path) -> Path:
    """Where a path of the mount namespace of a process is for us."""
    return Path(f"/proc/{pid}/root{path}")


def cpu_ticks(pid: int) -> int:
    """How much time of a CPU a process has used, in clock ticks (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


TICKS_PER_S = os.sysconf("SC_CLK_TCK")
