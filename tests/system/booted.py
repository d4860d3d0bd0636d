"""A Debian system that has really booted, with systemd as its process 1, in a container.

It is a throw-away copy of a cached root (roots.py) in namespaces of its own: mounts, processes and network.
Everything in it is a descendant of one process whose end ends them all, and that process ends with pytest:
nothing runs on and nothing stays mounted, also when pytest is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from system.roots import ISOLATE, NoRootError, cached_root, die_with_parent, overlay

BOOT_S = 60.0
DEADLINE_S = 30.0  # generous: a machine may be busy; nothing is measured here
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
)

# What lognot takes from Debian, and what a system for it has.
DAEMON_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "man-db", "procps", "passwd", "rsyslog", "logrotate"),
    *("python3", "python3-pyinotify", "python3-systemd", "python3-sdnotify", "libpcre2-8-0"),
    "python3-seccomp",  # recommended
)
# Debian 13 has no python-pcre. With rpm, Debian 12 stands in for a distribution of RPM packages.
MORE_PACKAGES = {"bookworm": ("python3-pcre", "rpm")}

# $1 is the cgroup of this system and /run one of its own: systemd-nspawn tells systems apart by them. The
# shell stays as process 1 of the namespace, to be the parent of what loses its own. 133: boot once more.
_BOOT = """\
mount -t overlay -o "lowerdir=$2,upperdir=$3/upper,workdir=$3/work" overlay "$3/root" || exit 99
echo 0 >"$1/cgroup.procs" || exit 98
mount -t tmpfs tmpfs /run || exit 97
directory=$3/root
shift 3
status=133
while [ $status = 133 ]; do
    systemd-nspawn --quiet --directory="$directory" --boot --register=no --keep-unit --private-network \
        --console=pipe "$@"
    status=$?
done
exit $status
"""

_ENTER = ("nsenter", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")


class Machine:
    """A booted system.

    Attributes:
        release: of Debian.
        boot_s: how long the last boot took.
    """

    def __init__(self, release: str, process: subprocess.Popen[bytes], said: Path) -> None:
        self.release = release
        self._process = process
        self._said = said
        self._leader = 0
        self._wait_booted(time.monotonic())

    def run(self, *command: str, check: bool = True, timeout_s: float = 60) -> tuple[int, str]:
        """Run a command as root; give its exit status and output, of which standard error is a part.

        Args:
            check: a command that fails is a test that fails.
            timeout_s: how long it may take.
        """
        done = subprocess.run(
            [*_ENTER, f"--target={self._leader}", "--", "env", "-i", *ENVIRONMENT, *command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{output}"
        return done.returncode, output

    def out(self, *command: str, timeout_s: float = 60) -> str:
        """Run a command that must succeed; give its output without the last newline."""
        return self.run(*command, timeout_s=timeout_s)[1].rstrip("\n")

    def shell(self, script: str, timeout_s: float = 60) -> tuple[int, str]:
        """Run sh as root; give its exit status and output."""
        return self.run("sh", "-c", script, check=False, timeout_s=timeout_s)

    def path(self, inside: str) -> Path:
        """Where a path of this system is for the tests.

        Of this boot only. An absolute symlink on the way would lead out of the system.
        """
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str) -> None:
        """Make a file with this text, and the directories that it takes."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(self, inside: str) -> str:
        """Read a file; one that is not there is empty."""
        try:
            return self.path(inside).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def copy_in(self, file: Path, inside: str) -> None:
        """Copy a file into the system."""
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, self.path(inside))

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Read what the journal has of this boot, as `journalctl -o json MATCHES` gives it."""
        self.run("journalctl", "--sync")
        arguments = ("journalctl", "--boot", "--quiet", "--no-pager", "--output=json", "--all")
        return [json.loads(line) for line in self.out(*arguments, *matches).splitlines()]

    def pids(self, unit: str) -> list[int]:
        """The processes of a unit, by the pids that they have in the system; the main one first."""
        shown = self.out("systemctl", "show", "-p", "ControlGroup", "-p", "MainPID", unit)
        properties = dict(line.split("=", 1) for line in shown.splitlines())
        main = int(properties["MainPID"])
        if not properties["ControlGroup"]:  # it does not run
            return []
        procs = f"/sys/fs/cgroup{properties['ControlGroup']}/cgroup.procs"
        status, output = self.run("cat", procs, check=False)  # inside, where pids are those of the system
        pids = [int(pid) for pid in output.split()] if status == 0 else []
        return sorted(pids, key=lambda pid: (pid != main, pid))

    def wait_for(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """Give the condition's first true value; a failure shows what lognot has told."""
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            if time.monotonic() > end:
                told = self.shell("journalctl -b --no-pager -n 30 -o short-precise -u 'lognot*'")[1]
                raise AssertionError(f"did not happen within {deadline_s} s: {what}\n{told}")
            time.sleep(0.01)  # between two looks, not instead of one
        return value

    def reboot(self) -> None:
        """Restart the system, and wait until it has booted."""
        before, begun = self._leader, time.monotonic()
        self.run("systemctl", "reboot", "--no-block", check=False)  # it may end with the rest
        self.wait_for(lambda: self._find_leader() not in (0, before), "a new process 1", BOOT_S)
        self._wait_booted(begun)

    def _wait_booted(self, begun: float) -> None:
        state = ""
        while state != "running":
            if self._process.poll() is not None:
                said = self._said.read_text(errors="replace")[-1000:]
                raise NoRootError(f"systemd-nspawn cannot boot {self.release} here: {said}")
            if time.monotonic() > begun + BOOT_S or state == "degraded":
                failed = self.shell("systemctl --failed --no-legend")[1]
                raise AssertionError(f"the boot of {self.release} has come to '{state}': {failed}")
            self._leader = self._find_leader()
            if self._leader:
                # Until systemd answers at all, this comes back at once.
                state = self.run("systemctl", "is-system-running", "--wait", check=False)[1].strip()
            time.sleep(0.01)  # between two looks, not instead of one
        self.boot_s = time.monotonic() - begun

    def _find_leader(self) -> int:
        """Find the process that is process 1 of a pid namespace two below ours; 0 when there is none yet."""
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError, StopIteration):
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                ids = next(line for line in status if line.startswith("NSpid:")).split()[1:]
                if ids[-1] == "1" and len(ids) == self._depth() + 2:
                    # systemd-nspawn's own child has that pid before it becomes systemd.
                    return pid if Path(f"/proc/{pid}/comm").read_text() == "systemd\n" else 0
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return 0

    @staticmethod
    def _depth() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return len(next(line for line in status if line.startswith("NSpid:")).split()) - 1


@contextlib.contextmanager
def booted(release: str, packages: Sequence[str] = (), *options: str) -> Iterator[Machine]:
    """Boot a Debian release that has these packages, beside those that lognot needs.

    Args:
        release: its code name.
        packages: what the system has beside `DAEMON_PACKAGES`. There is no network to install more.
        options: more of systemd-nspawn.

    Raises:
        NoRootError: it cannot be done here.
    """
    root = cached_root(release, {*DAEMON_PACKAGES, *MORE_PACKAGES.get(release, ()), *packages})
    with overlay(root) as (lower, scratch), _cgroup() as cgroup, open(scratch / "said", "wb") as said:
        arguments = (f"--machine={release}", *options)
        process = subprocess.Popen(
            [*ISOLATE, "sh", "-c", _BOOT, "sh", str(cgroup), str(lower), str(scratch), *arguments],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
        try:
            yield Machine(release, process, scratch / "said")
        finally:
            process.kill()  # and with it, by --kill-child, process 1 of the namespace and all others
            process.wait()


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """A cgroup for one system; it is removed when its processes have gone."""
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    kinds = {fields[4]: fields[fields.index("-") + 1] for fields in mounts}
    unified = next((place for place, kind in kinds.items() if kind == "cgroup2"), None)
    if unified is None:
        raise NoRootError("needs cgroups of version 2, to boot a system")
    try:
        cgroup = Path(tempfile.mkdtemp(prefix="lognot-test.", dir=unified))
    except OSError as error:
        raise NoRootError(f"cannot make a cgroup: {error.strerror}") from error
    try:
        yield cgroup
    finally:
        _remove_cgroup(cgroup)
        # Beside cgroups of version 1, systemd-nspawn makes another one in the hierarchy of systemd.
        for place in (place for place, kind in kinds.items() if kind == "cgroup"):
            _remove_cgroup(Path(place) / cgroup.name)


def _remove_cgroup(cgroup: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while cgroup.exists():
        for directory, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):  # the last processes are still being buried
                os.rmdir(directory)
        if time.monotonic() > end:
            raise AssertionError(f"{cgroup} still has processes")
        time.sleep(0.01)
