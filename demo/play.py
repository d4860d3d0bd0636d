"""Show lognot at work: start the real service, replay a recorded attack, tell the tale.

Everything happens in a directory of its own that is removed at the end, and no action does any harm. Ends
with status 0 only when lognot was seen to do all that is claimed, and none of what the attackers wanted.

    python3 demo/play.py
"""

from __future__ import annotations

import contextlib
import datetime
import grp
import os
import pwd
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
CONFIG = HERE.parent / "etc" / "demo.conf"
RECORDING = HERE / "ssh-attack.log"
ACTION_USER = "daemon"  # as in the config
DEADLINE_S = 20.0  # for lognot to start, to catch up, to stop; it needs some hundredths of a second

# What the recording holds.
ATTACKERS = {
    "203.0.113.66": "6 failures",
    "198.51.100.23": "5 failures",
    "198.51.100.77": "4 failures, with user names that blame others and hold commands",
}
INNOCENT = {
    "192.0.2.10": "anna: 2 failures, and blamed for 2 more by a user name that an attacker made up",
    "203.0.113.9": "3 failures, which is not more than 3",
}
BAIT = "mail/pwned"  # what the commands in the user names would make
SIZE_STEP_KIB = 2
ROLES = {
    "supervisor": "opens the logs, and never looks into them",
    "monitor": "reads, matches and counts; may open, connect, fork and execute nothing",
    "executor": "runs the actions, as the user that the config names",
}

NEXT = """\
  etc/lognot.conf                           every option explained, and rules to begin with
  README.md, docs/                          how it is used, how it works
  export PYTHONPATH=src                     to run it from this checkout:
  /usr/bin/python3 -m lognot --test FILE      check a config
  /usr/bin/python3 -m lognot --retest REGEX   try a regex on lines of standard input
  /usr/bin/python3 -m lognot -c FILE -s       watch"""


class Failed(Exception):
    """Something did not happen as it should."""


class Terminal:
    """What the reader sees; in colour only where there is a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str = "", code: str = "") -> None:
        """Print a line at once; `code` is an SGR parameter such as "1" for bold."""
        if code and self._colour:
            text = f"\x1b[{code}m{text}\x1b[0m"
        print(text, flush=True)

    def log_line(self, line: str) -> None:
        """Show a line of the watched log, from its program on."""
        self.say(f"  auth.log | {line.split(' ', 2)[2]}", "2")

    def lognot_line(self, message: str) -> None:
        """Show a line that lognot wrote."""
        self.say(f"    lognot > {message}", "1;32" if " says: " in message else "32")


class Lognot:
    """The service, in a directory, with its own log on a pipe to us."""

    def __init__(self, directory: Path) -> None:
        self.messages: list[str] = []
        self._all_output: list[str] = []
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        environment.pop("NOTIFY_SOCKET", None)
        # Root takes a config only where nobody else can change it, which a checkout is not always.
        config = directory / "lognot.conf"
        config.write_bytes(CONFIG.read_bytes())
        config.chmod(0o600)
        command = ["-m", "lognot", "--config", str(config), "--chdir", str(directory), "--stdout"]
        self._process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        self._unfinished = b""

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it wrote, as it wrote it."""
        return "\n".join(self._all_output)

    def read(self, until: float) -> Iterator[str]:
        """Give its messages as they come, until a time of the monotonic clock or its end."""
        while self._selector.get_map():
            if not self._selector.select(max(0.0, until - time.monotonic())):
                return
            data = self._pipe.read()
            if not data:
                self._selector.unregister(self._pipe)
            *lines, self._unfinished = (self._unfinished + (data or b"")).split(b"\n")
            for line in lines:
                text = line.decode()
                self._all_output.append(text)
                # "TIME HOST lognot[PID]: SEVERITY: MESSAGE"
                message = re.sub(r"^\S+ \S+ lognot\[\d+\]: \w+: ", "", text)
                self.messages.append(message)
                yield message

    def found(self, pattern: str) -> list[str]:
        """The first group of each message so far that matches."""
        return [match[1] for message in self.messages if (match := re.search(pattern, message))]

    def roles(self) -> dict[str, int]:
        """The pid of each role, as the kernel has it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        pids = {_name(pid): pid for pid in [self.pid, *map(int, children)]}
        return {role: pids[name] for role in ROLES if (name := f"lognot-{role}"[:15]) in pids}

    def stop(self) -> int:
        """Ask it to stop, and wait until it did; gives its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise Failed("lognot did not stop") from None

    def end(self) -> None:
        """Make sure that it is gone: the others end with the supervisor."""
        if self._process.poll() is None:
            try:
                self.stop()
            except Failed:
                self._process.kill()
                self._process.wait()
        self._pipe.close()
        self._selector.close()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _user(pid: int) -> str:
    uid = int(_status(pid)["Uid"].split()[0])
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _make_directory() -> Path:
    """Make the place of the demonstration: as closed as a log directory, one place for the action's user."""
    # Root's TMPDIR may be a place where the action's user cannot go (pam_tmpdir).
    directory = Path(tempfile.mkdtemp(prefix="lognot-demo-", dir="/tmp" if os.geteuid() == 0 else None))
    mail = directory / "mail"
    mail.mkdir(0o700)
    if os.geteuid() == 0:
        os.chown(directory, 0, grp.getgrgid(pwd.getpwnam(ACTION_USER).pw_gid).gr_gid)
        directory.chmod(0o710)
        os.chown(mail, pwd.getpwnam(ACTION_USER).pw_uid, -1)
    log = directory / "auth.log"
    log.touch(0o600)
    log.chmod(0o600)
    return directory


def _start(lognot: Lognot, terminal: Terminal) -> None:
    for message in lognot.read(time.monotonic() + DEADLINE_S):
        terminal.lognot_line(message)
        if message.startswith("ready"):
            break
    else:
        raise Failed("lognot did not start")
    terminal.say()
    deadline = time.monotonic() + DEADLINE_S
    while len(roles := lognot.roles()) < len(ROLES) and time.monotonic() < deadline:
        time.sleep(0.01)  # a machine that is busy: it does not wait long for an executor
    for role, task in ROLES.items():
        if role not in roles:
            raise Failed(f"there is no {role}")
        pid = roles[role]
        terminal.say(f"  pid {pid:<7} {_user(pid):<10} lognot: {role:<11} {task}")
    if int(_status(roles["monitor"])["CapEff"], 16):
        raise Failed("the monitor has capabilities")
    terminal.say()


def _replay(lognot: Lognot, terminal: Terminal, log: Path) -> None:
    """Write the recording into the log, each line at its time, and show what lognot says meanwhile."""
    lines = RECORDING.read_text().splitlines()
    times = [datetime.datetime.fromisoformat(line.partition(" ")[0]) for line in lines]
    start = time.monotonic()
    for line, at in zip(lines, times, strict=True):
        for message in lognot.read(start + (at - times[0]).total_seconds()):
            _tell(message, terminal)
        terminal.log_line(line)
        with log.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
    deadline = time.monotonic() + DEADLINE_S
    while (missing := list(_missing(lognot, log))) and time.monotonic() < deadline:
        for message in lognot.read(time.monotonic() + 0.1):
            _tell(message, terminal)
    if missing:
        raise Failed("; ".join(missing))


def _tell(message: str, terminal: Terminal) -> None:
    if "action ended with exit status 0" not in message:
        terminal.lognot_line(message)


def _blocked(lognot: Lognot) -> list[str]:
    return lognot.found(r"^\[ssh-attack\] says: would run: iptables -w -I INPUT -s (\S+) -j DROP$")


def _sizes(lognot: Lognot) -> list[int]:
    return [int(kib) for kib in lognot.found(r"^\[size\] says: auth.log has reached (\d+) KiB")]


def _errors() -> list[str]:
    return [line for line in RECORDING.read_text().splitlines() if ": error:" in line]


def _mailed(log: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return [
            line for line in (log.parent / "mail" / "root").read_text().splitlines() if ": error:" in line
        ]
    return []


def _missing(lognot: Lognot, log: Path) -> Iterator[str]:
    """Say what lognot has not done yet."""
    for address in sorted(ATTACKERS.keys() - set(_blocked(lognot))):
        yield f"{address} was not blocked"
    if len(_mailed(log)) < len(_errors()):
        yield f"only {len(_mailed(log))} of {len(_errors())} errors were mailed"
    due = log.stat().st_size // 1024 // SIZE_STEP_KIB * SIZE_STEP_KIB
    if max(_sizes(lognot), default=0) < due:
        yield f"no notice said that the log has reached {due} KiB"


def _check(lognot: Lognot, log: Path) -> None:
    """Say what lognot did and should not have."""
    blocked = _blocked(lognot)
    if sorted(blocked) != sorted(ATTACKERS):
        raise Failed(f"blocked were {blocked}, expected {sorted(ATTACKERS)}")
    if sorted(_mailed(log)) != sorted(_errors()):
        raise Failed("what was mailed is not what the log says")
    if (log.parent / BAIT).exists():
        raise Failed("a command in a user name was run")


def _sum_up(lognot: Lognot, terminal: Terminal, log: Path) -> None:
    terminal.say()
    terminal.say("Blocked, for more than 3 failed logins within 60 seconds:", "1")
    for address in _blocked(lognot):
        terminal.say(f"  {address:<15} {ATTACKERS[address]}")
    terminal.say("Not blocked:", "1")
    for address, reason in INNOCENT.items():
        terminal.say(f"  {address:<15} {reason}")
    terminal.say("Not run:", "1")
    terminal.say(
        f"  $(touch {BAIT}) and its like in user names: text from a log stays text, {BAIT} is not there"
    )
    terminal.say("Mailed, word for word (mail/root):", "1")
    for line in (log.parent / "mail" / "root").read_text().splitlines():
        if line:
            terminal.say(f"  {line}")
    terminal.say("Size notices:", "1")
    terminal.say(f"  at {', '.join(f'{kib} KiB' for kib in _sizes(lognot))}")
    terminal.say()


def _play(directory: Path, terminal: Terminal) -> None:
    log = directory / "auth.log"
    terminal.say(f"lognot starts with etc/demo.conf in {directory}", "1")
    lognot = Lognot(directory)
    try:
        _start(lognot, terminal)
        whose = "that only root may read" if os.geteuid() == 0 else "that only you may read"
        terminal.say(f"A recorded attack is written into auth.log, a file {whose}", "1")
        _replay(lognot, terminal, log)
        status = lognot.stop()
        for message in lognot.read(time.monotonic() + DEADLINE_S):
            _tell(message, terminal)
        if status != 0:
            raise Failed(f"lognot ended with exit status {status}")
        _check(lognot, log)
        _sum_up(lognot, terminal, log)
    except Failed:
        for _ in lognot.read(time.monotonic() + 0.5):
            pass
        terminal.say(f"\nAll that lognot wrote:\n{lognot.output}")
        raise
    finally:
        lognot.end()


def _on_terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Give the exit status."""
    signal.signal(signal.SIGTERM, _on_terminate)
    terminal = Terminal()
    directory = _make_directory()
    try:
        _play(directory, terminal)
    except Failed as failure:
        terminal.say(f"\nThe demonstration failed: {failure}", "1;31")
        return 1
    except KeyboardInterrupt:
        terminal.say("\nThe demonstration was stopped.")
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    terminal.say("All of it happened as told. Where to go next:", "1")
    terminal.say(NEXT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
