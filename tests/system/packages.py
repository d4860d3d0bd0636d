"""lognot's own packages: building them as `make` does, installing and removing them in a booted system."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lognot import __version__
from system.booted import Machine
from system.roots import CHECKOUT

BUILD_S = 600  # the tools may have to be installed first
CHANGE_S = 300  # dpkg writes each file through to the disk
OLD = __version__
NEW = f"{OLD}.1"  # what OLD is upgraded to


class NoToolsError(Exception):
    """Packages cannot be built here; says why."""


@dataclass(frozen=True)
class Packages:
    """A .deb and a .rpm of two versions, `OLD` and `NEW`."""

    directory: Path

    def file(self, kind: str, version: str) -> Path:
        """Give the package of a kind (deb or rpm) and a version."""
        return self.directory / name_of(kind, version)


def name_of(kind: str, version: str) -> str:
    """Give the name of a package's file."""
    return f"lognot_{version}_all.deb" if kind == "deb" else f"lognot-{version}-1.noarch.rpm"


def build_packages(directory: Path) -> float:
    """Make all of them; give the seconds that it took.

    Raises:
        NoToolsError: it takes programs that are missing, and that make could not install.
    """
    begun = time.monotonic()
    _make([("deb", OLD)])
    _make([("rpm", OLD)])
    # Now whatever it takes is installed, which cannot be done twice at the same time.
    _make([("deb", NEW), ("rpm", NEW)])
    for kind, version in itertools.product(("deb", "rpm"), (OLD, NEW)):
        shutil.copy(CHECKOUT / "dist" / name_of(kind, version), directory)
    return time.monotonic() - begun


def _make(wanted: Sequence[tuple[str, str]]) -> None:
    builds = [
        subprocess.Popen(
            ["make", "--no-print-directory", kind, f"VERSION={version}"],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for kind, version in wanted
    ]
    try:
        for build in builds:
            output, _ = build.communicate(timeout=BUILD_S)
            said = output.decode(errors="replace")
            if build.returncode and "Missing" in said:
                raise NoToolsError(said)
            assert build.returncode == 0, f"{build.args}\n{said}"
    finally:
        for build in builds:
            build.kill()
            build.wait()


class PackageManager:
    """dpkg or rpm in a booted system.

    Both are driven inside of it: from the outside, the scripts of a package would not reach its systemd.
    """

    PLACE = "/root/packages"

    def __init__(self, machine: Machine, packages: Packages, kind: str) -> None:
        self.kind = kind
        self._machine = machine
        for version in (OLD, NEW):
            machine.copy_in(packages.file(kind, version), f"{self.PLACE}/{name_of(kind, version)}")

    def install(self, version: str) -> str:
        """Have a version installed, keeping a config that was edited; give what was said."""
        file = f"{self.PLACE}/{name_of(self.kind, version)}"
        if self.kind == "rpm":
            # The system is Debian: rpm knows nothing of what dpkg has installed.
            return self._out(*_RPM, "--upgrade", "--oldpackage", "--nodeps", file)
        return self._out(
            *("apt-get", "install", "-y", "-q", "--no-install-recommends", "--allow-downgrades"),
            *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", file),
        )

    def remove(self) -> str:
        """Remove the package, but not what its administrator has made."""
        if self.kind == "rpm":
            return self._out(*_RPM, "--erase", "lognot")
        return self._out("apt-get", "remove", "-y", "-q", "lognot")

    def purge(self) -> str:
        """Remove the config too."""
        return self._out("apt-get", "purge", "-y", "-q", "lognot")

    def _out(self, *command: str) -> str:
        return self._machine.out(*command, timeout_s=CHANGE_S)

    def installed(self) -> str:
        """Give the version that is installed; nothing is empty."""
        if self.kind == "rpm":
            status, output = self._machine.run(*_RPM, "-q", "--qf", "%{VERSION}", "lognot", check=False)
            return "" if status else output
        query = ("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "lognot")
        found = re.fullmatch(r"installed (\S+)", self._machine.run(*query, check=False)[1])
        return found[1] if found else ""


# Debian's rpm would keep its database in root's home directory.
_RPM = ("rpm", "--dbpath", "/var/lib/rpm")
