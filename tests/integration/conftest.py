"""What integration tests share: a lognot that is surely gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from integration.harness import PYTHON, SOURCE, Service
from integration.launching import LauncherService
from integration.processes import Custom

MEMORY = Path("/dev/shm")
ENGINES = ["pcre2"] + (["pcre"] if importlib.util.find_spec("pcre") else [])


def as_other(name: str, directory: Path) -> list[str]:
    """A command prefix: what follows runs as a user, for whom a copy of lognot is put into a directory."""
    user = pwd.getpwnam(name)
    prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if subprocess.run([*prefix, PYTHON, "-c", "pass"], check=False, capture_output=True).returncode:
        pytest.skip(f"{PYTHON} is not for other users")
    shutil.copytree(SOURCE, directory / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return prefix


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A function that makes a Service in the test's directory; it is ended after the test."""
    made: list[Service] = []

    def make(config: str, *arguments: str, environment: dict[str, str] | None = None) -> Service:
        made.append(Service(tmp_path, config, *arguments, environment=environment))
        return made[-1]

    tmp_path.chmod(0o755)
    yield make
    for one in made:
        one.end()
        print("\n".join(["Own log, its end:", *one.log.splitlines()[-200:]]))  # shown of a test that failed


@pytest.fixture
def custom(tmp_path: Path) -> Iterator[Callable[..., Custom]]:
    """A function that makes a Custom behind a command prefix; it is ended after the test."""
    made: list[Custom] = []

    def make(config: str, *arguments: str, prefix: Sequence[str] = (), **options: object) -> Custom:
        made.append(Custom(tmp_path, config, *arguments, **options))  # type: ignore[arg-type]
        made[-1].prefix = prefix
        return made[-1]

    tmp_path.chmod(0o755)
    yield make
    for one in made:
        one.end()


@pytest.fixture
def lone_log(tmp_path: Path) -> Path:
    """An empty log in a directory of its own, where nothing else is but what it was rotated to."""
    log = tmp_path / "logs" / "log"
    log.parent.mkdir()
    log.touch()
    return log


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user may write to; tmp_path lies where only its owner may go."""
    with tempfile.TemporaryDirectory(prefix="lognot-test-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        yield directory


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What a service manager says of directories for `resume`: one on disk, one in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY, ignore_cleanup_errors=True) as runtime:
        yield {"STATE_DIRECTORY": str(tmp_path / "state"), "RUNTIME_DIRECTORY": runtime}


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[LauncherService]:
    one = LauncherService(tmp_path)
    yield one
    one.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what cannot be done without root."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: users and privileges"))
