"""Fresh Debian systems to try things in: made once with mmdebstrap, used through throw-away copies.

A root is cached outside of the checkout (LOGNOT_CACHE, by default ~/.cache/lognot-roots) and never written
to: each use puts an overlay over it, in a mount namespace of its own, so that nothing is left mounted
whatever happens. Packages that apt and pip download are kept beside it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LOGNOT_CACHE") or Path.home() / ".cache" / "lognot-roots")
INCLUDED = "make,git,ca-certificates"  # what the README asks for, and nothing else
MIRROR = "http://deb.debian.org/debian"
MAKE_ROOT_S = 600
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# So that a machine behind a proxy or with a mirror of its own can be used.
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "CI")

# The overlay is mounted by the shell that then becomes the container's supervisor.
_ENTER = """\
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root" || exit 99
shift 2
exec systemd-nspawn "$@"
"""


class NoRootError(Exception):
    """Fresh systems cannot be had here; says why."""


@dataclass(frozen=True)
class Root:
    """A throw-away copy of a fresh system."""

    release: str
    lower: Path
    scratch: Path

    def run(self, *command: str, directory: str = "/", timeout_s: float = 300) -> tuple[int, str]:
        """Run a command as root in it; give its exit status and output."""
        downloads = {
            "/var/cache/apt/archives": CACHE / f"{self.release}.apt",
            "/root/.cache/pip": CACHE / f"{self.release}.pip",
        }
        for path in downloads.values():
            path.mkdir(parents=True, exist_ok=True)
        passed_on = [f"--setenv={name}={os.environ[name]}" for name in PASSED_ON if name in os.environ]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"]
            + [str(self.lower), str(self.scratch)]
            + ["--quiet", "--pipe", "--as-pid2", "--register=no", "--keep-unit"]
            + [f"--directory={self.scratch / 'root'}", f"--chdir={directory}", "--resolv-conf=replace-host"]
            + [f"--setenv=PIP_CERT=/{CERTIFICATES}", *passed_on]
            + [f"--bind={path}:{inside}" for inside, path in downloads.items()]
            + ["--", "sh", "-c", 'exec "$@" 2>&1', "sh", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        # systemd-nspawn's own words are on standard error; they matter when nothing came of it.
        output = done.stdout if done.stdout or not done.returncode else done.stderr
        return done.returncode, output.decode(errors="replace")


@contextlib.contextmanager
def fresh_root(release: str) -> Iterator[Root]:
    """A copy of a Debian release with nothing but `INCLUDED` and this checkout in /root/lognot.

    Raises:
        NoRootError: it cannot be made here.
    """
    lower = _cached_root(release)
    scratch = Path(tempfile.mkdtemp(prefix=f"{release}.", dir=CACHE))
    try:
        for name in ("upper", "work", "root"):
            (scratch / name).mkdir()
        _copy_checkout(scratch / "upper" / "root" / "lognot")
        (scratch / "upper" / "root").chmod(0o700)
        certificates = scratch / "upper" / CERTIFICATES
        certificates.parent.mkdir(parents=True)
        shutil.copy(f"/{CERTIFICATES}", certificates)
        yield Root(release, lower, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy_checkout(target: Path) -> None:
    """Copy what a commit of the working tree would hold: in CI that is a clone."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file():  # it may be deleted and not yet committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)


def _cached_root(release: str) -> Path:
    if os.geteuid() != 0:
        raise NoRootError("needs root, to make and enter a fresh Debian")
    for program in ("mmdebstrap", "systemd-nspawn", "unshare", "git"):
        if shutil.which(program) is None:
            raise NoRootError(f"needs {program}, to make and enter a fresh Debian")
    root = CACHE / release
    if root.exists():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{release}.new.", dir=CACHE))
    arguments = (f"--include={INCLUDED}", release, str(unfinished / "root"), MIRROR)
    try:
        made = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MAKE_ROOT_S,
            check=False,
        )
        if made.returncode:
            raise NoRootError(f"mmdebstrap {release} failed: {made.stdout.decode(errors='replace')[-1000:]}")
        (unfinished / "root").rename(root)  # at once or not at all
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root
