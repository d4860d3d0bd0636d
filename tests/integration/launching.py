"""A launcher as the service manager runs it: it gets its socket, and may come and go."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from integration.harness import PYTHON, SOURCE, wait_for
from integration.leftovers import kill_all
from integration.processes import is_gone

# What the service manager does (sd_listen_fds(3)): the socket as descriptor 3, and LISTEN_* about it.
PASS_SOCKET = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
MARK = "LOGNOT_TEST_LAUNCHER"  # in the environment of a launcher and its executors: which socket it has


class LauncherService:
    """A listening socket, and the launcher behind it, which may come and go."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "exec.sock"
        self.config_path = directory / "lognot.conf"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self.errors = directory / "launcher.err"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, config_path: Path | None = None) -> LauncherService:
        fd = self._listener.fileno()
        lognot = [PYTHON, "-m", "lognot", "--executor", "-c", str(config_path or self.config_path)]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [PYTHON, "-c", PASS_SOCKET, str(fd), *lognot],
                pass_fds=(fd,),
                env={**os.environ, "PYTHONPATH": str(SOURCE), MARK: str(self.path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def executors(self) -> list[int]:
        with contextlib.suppress(OSError):
            return [
                int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            ]
        return []

    def executor(self) -> int:
        """The pid of the executor, waiting until there is one that has taken its name."""

        def pid() -> int | None:
            for pid in self.executors():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/comm").read_text() == "lognot-executor\n" and not is_gone(pid):
                        return pid
            return None

        result: int = wait_for(pid, "an executor")
        return result

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.path))
        return sock

    def end(self) -> None:
        """Kill it and what it has started, as the service manager does with what is left in the unit."""
        if self.process is not None:
            kill_all(
                self.pid if self.process.poll() is None else 0,
                roles=f"{MARK}={self.path}",
                actions=f"LOGNOT_PATH={self.path.parent}/",
            )
            self.process.wait()

    def remove(self) -> None:
        """End it, and the socket too: nobody takes connections any more."""
        self._listener.close()
        self.path.unlink()
        self.end()
