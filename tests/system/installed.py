"""lognot's package in a booted system, and what an administrator does with it."""

from __future__ import annotations

from typing import Any

from integration.writer import REGEX
from lognot.journal import Event
from system.booted import Machine
from system.packages import OLD, PackageManager

CONFIG = "/etc/lognot.conf"
UNITS = ("lognot.service", "lognot-exec.socket", "lognot-exec.service")
USER = "watcher"  # whom the actions belong to
TOLD = "/srv/told"  # a directory for what they write; it is the user's
LOG = "/var/log/numbered.log"


def item(name: str, action: str, path: str = LOG, regex: str = REGEX, more: str = "") -> str:
    """Write an item of a config; by default it matches lines with a number, `$1`."""
    return f"[{name}]\npath = {path}\nregex = {regex}\nupbound_action = {action}\n{more}\n"


class Installed:
    """lognot's package in a booted system."""

    def __init__(self, machine: Machine, packages: PackageManager) -> None:
        self.machine = machine
        self.packages = packages
        machine.out("useradd", "--system", USER)
        machine.out("install", "-d", "-o", USER, TOLD)

    def configure(self, config: str) -> None:
        """Write the config; actions are run by `USER` unless it says otherwise."""
        self.machine.write(CONFIG, f"[general]\nuid = {USER}\n\n{config}")

    def start(self, config: str, version: str = OLD) -> None:
        """Have a version run this config from now on; nothing is left of what went before."""
        if self.packages.installed() != version:
            self.packages.install(version)
        self.machine.shell(f"rm -f {TOLD}/* {LOG}")
        self.machine.write(LOG, "")
        self.configure(config)
        self.restart()

    def restart(self) -> None:
        """Restart it; systemd does not count how often."""
        self.machine.shell(f"systemctl reset-failed {' '.join(UNITS)}")
        status, output = self.machine.run("systemctl", "restart", "lognot", check=False)
        assert status == 0, output + self.machine.shell("journalctl -b -u lognot --no-pager -n 40")[1]

    def main_pid(self) -> int:
        """Give the supervisor's pid."""
        return int(self.machine.out("systemctl", "show", "-P", "MainPID", "lognot"))

    def active(self, unit: str = "lognot.service") -> bool:
        """Say whether a unit is active."""
        return self.machine.run("systemctl", "is-active", unit, check=False)[1].strip() == "active"

    def processes(self) -> dict[str, int]:
        """The pids of lognot's processes by their names."""
        listed = [line.split(None, 2) for line in self.machine.out("ps", "axo", "pid,ppid,args").splitlines()]
        named = {pid: (parent, args) for pid, parent, args in listed if args.startswith("lognot: ")}
        return {
            args.split()[1]: int(pid)
            for pid, (parent, args) in named.items()
            if named.get(parent, ("", ""))[1] != args  # it is about to become another: an action
        }

    def told(self, name: str) -> list[str]:
        """Read the lines that actions have written."""
        return self.machine.read(f"{TOLD}/{name}").splitlines()

    def wait_told(self, name: str, line: str) -> None:
        """Wait until an action has written a line."""
        self.machine.wait_for(lambda: line in self.told(name), f"'{line}' in {TOLD}/{name}")

    def append(self, line: str, log: str = LOG) -> None:
        """Write a line into a log."""
        with self.machine.path(log).open("a") as file:
            file.write(f"{line}\n")

    def events(self, event: Event, *matches: str) -> list[dict[str, Any]]:
        """Read lognot's records of one kind."""
        return self.machine.journal("-u", "lognot", f"MESSAGE_ID={event.value}", *matches)

    def wait_back(self, before: int) -> None:
        """Wait until another supervisor has come up."""
        self.machine.wait_for(lambda: self.main_pid() not in (0, before) and self.active(), "it is back")
