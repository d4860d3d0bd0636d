"""Fresh Debian systems to try things in: made once with mmdebstrap, used through throw-away copies.

A root is cached outside of the checkout (LOGNOT_CACHE, by default ~/.cache/lognot-roots) and never written
to: each use puts an overlay over it, in a mount namespace of its own, so that nothing is left mounted
whatever happens. Packages that apt and pip download are kept beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CHECKOUT_INSIDE = "/root/lognot"  # in a fresh system
CACHE = Path(os.environ.get("LOGNOT_CACHE") or Path.home() / ".cache" / "lognot-roots")
INCLUDED = ("make", "git", "ca-certificates")  # what the README asks for, and nothing else
MIRROR = "http://deb.debian.org/debian"
MAKE_ROOT_S = 600
ATTEMPTS = 3
ABANDONED_S = 24 * 3600  # no run takes so long
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# So that a machine behind a proxy or with a mirror of its own can be used.
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "CI")

# All that happens in a system is a descendant of unshare(1) and ends with it. `die_with_parent` ends that.
ISOLATE = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
PR_SET_PDEATHSIG = 1

# The overlay is mounted by the shell that then becomes the container's supervisor.
_ENTER = """\
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root" || exit 99
shift 2
exec systemd-nspawn "$@"
"""


_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Have this process killed when the thread that forked it ends, as with a pytest that is killed."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class NoRootError(Exception):
    """Fresh systems cannot be had here; says why."""


@dataclass(frozen=True)
class Running:
    """A command in a fresh system."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    def end(self, timeout_s: float) -> tuple[int, str]:
        """Wait until it ends; give its exit status and output."""
        status = self.process.wait(timeout_s)
        # systemd-nspawn's own words are on standard error; they matter when nothing came of it.
        output = self.output.read_bytes() or (self.errors.read_bytes() if status else b"")
        return status, output.decode(errors="replace")


@dataclass(frozen=True)
class Root:
    """A throw-away copy of a fresh system."""

    release: str
    lower: Path
    scratch: Path

    def run(self, *command: str, directory: str = "/", timeout_s: float = 300) -> tuple[int, str]:
        """Run a command as root in it; give its exit status and output."""
        with self.begin(*command, directory=directory) as running:
            return running.end(timeout_s)

    @contextlib.contextmanager
    def begin(self, *command: str, directory: str = "/") -> Iterator[Running]:
        """Run a command as root in it while other things are done; what still runs afterwards is ended."""
        pip = CACHE / f"{self.release}.pip"
        pip.mkdir(parents=True, exist_ok=True)
        options = (
            *("--quiet", "--pipe", "--as-pid2", "--register=no", "--keep-unit", "--resolv-conf=replace-host"),
            *(f"--directory={self.scratch / 'root'}", f"--chdir={directory}"),
            *(f"--setenv={name}={os.environ[name]}" for name in PASSED_ON if name in os.environ),
            # All cases are tried here, and a sample of them there.
            "--setenv=LOGNOT_TEST_EFFORT=0.1",
            *(f"--setenv=PIP_CERT=/{CERTIFICATES}", f"--bind={pip}:/root/.cache/pip"),
            # Not the directory itself: only one apt may use it, and several systems run at once.
            f"--overlay={_apt_cache(self.release)}:{self.scratch / 'apt'}:/var/cache/apt/archives",
        )
        merged = ("sh", "-c", 'exec "$@" 2>&1', "sh", *command)
        output, errors = self.scratch / "output", self.scratch / "errors"
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*ISOLATE, "sh", "-c", _ENTER, "sh", self.lower, self.scratch, *options, "--", *merged],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=die_with_parent,
            )
        try:
            yield Running(process, output, errors)
        finally:
            process.kill()
            process.wait()
            _keep_downloads(self.scratch / "apt", _apt_cache(self.release))


@contextlib.contextmanager
def fresh_root(release: str) -> Iterator[Root]:
    """A copy of a Debian release with nothing but `INCLUDED` and this checkout in /root/lognot.

    Raises:
        NoRootError: it cannot be made here.
    """
    with overlay(cached_root(release, INCLUDED)) as (lower, scratch):
        _copy_checkout(scratch / "upper" / CHECKOUT_INSIDE.lstrip("/"))
        (scratch / "upper" / "root").chmod(0o700)
        certificates = scratch / "upper" / CERTIFICATES
        certificates.parent.mkdir(parents=True)
        shutil.copy(f"/{CERTIFICATES}", certificates)
        yield Root(release, lower, scratch)


@contextlib.contextmanager
def overlay(lower: Path) -> Iterator[tuple[Path, Path]]:
    """Directories for an overlay over a cached root, which is given too; they are gone afterwards."""
    _remove_abandoned()
    scratch = Path(tempfile.mkdtemp(prefix=f"{lower.name}.", dir=CACHE))
    try:
        for name in ("upper", "work", "root", "apt"):
            (scratch / name).mkdir(mode=0o755)
        yield lower, scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove what a run that was killed has left."""
    for directory in CACHE.glob("*-*.*"):
        with contextlib.suppress(FileNotFoundError):  # another run does the same
            if directory.stat().st_mtime < time.time() - ABANDONED_S:
                shutil.rmtree(directory, ignore_errors=True)


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


def _apt_cache(release: str) -> Path:
    directory = CACHE / f"{release}.apt"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _keep_downloads(directory: Path, cache: Path) -> None:
    for package in directory.glob("*.deb"):
        if not (cache / package.name).exists():
            package.rename(cache / package.name)  # at once: others may be reading


def cached_root(release: str, packages: Sequence[str]) -> Path:
    """Give the directory of a Debian release with these packages, which nobody may write to.

    Another list of packages is another root. One that is too old for your taste can simply be removed.

    Raises:
        NoRootError: it cannot be made here.
    """
    if os.geteuid() != 0:
        raise NoRootError("needs root, to make and enter a fresh Debian")
    for program in ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter", "git"):
        if shutil.which(program) is None:
            raise NoRootError(f"needs {program}, to make and enter a fresh Debian")
    wanted = ",".join(sorted(packages))
    root = CACHE / f"{release}-{hashlib.sha256(f'{release} {wanted}'.encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{root.name}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        if not root.exists():
            _make_root(root, release, wanted)
    return root


def _make_root(root: Path, release: str, wanted: str) -> None:
    downloads = _apt_cache(release)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{root.name}.new.", dir=CACHE))
    inside = '"$1/var/cache/apt/archives"'
    options = (
        f"--include={wanted}",
        "--aptopt=APT::Install-Recommends false",
        '--aptopt=Acquire::Retries "5"',
        # What was downloaded once is taken from beside the roots, and what is new is left there.
        "--skip=download/empty,essential/unlink",
        f"--setup-hook=mkdir -p {inside}",
        f'--setup-hook=find "{downloads}" -name "*.deb" -exec cp -t {inside} {{}} +',
        f'--customize-hook=find {inside} -name "*.deb" -exec cp -n -t "{downloads}" {{}} +',
        # systemd-nspawn then gives a name. Without an id each copy makes up its own; without the file it
        # would be a system that is new, and systemd would enable every unit that there is.
        '--customize-hook=rm -f "$1/etc/hostname"; : >"$1/etc/machine-id"',
    )
    try:
        for attempt in range(ATTEMPTS):
            made = subprocess.run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    *options,
                    release,
                    unfinished / "root",
                    MIRROR,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=MAKE_ROOT_S,
                check=False,
            )
            if made.returncode == 0:
                break
            shutil.rmtree(unfinished / "root", ignore_errors=True)
            time.sleep(5 * attempt)  # a mirror that is being written to is whole again soon
        else:
            raise NoRootError(f"mmdebstrap {release} failed: {made.stdout.decode(errors='replace')[-1000:]}")
        (unfinished / "root").rename(root)  # at once or not at all
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
