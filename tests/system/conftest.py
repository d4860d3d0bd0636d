"""What system tests share: lognot's packages, built once, and commands that run beside the tests.

Of several processes of pytest-xdist, one gets all tests of a booted system, in their order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from system.packages import NoToolsError, Packages, build_packages
from system.roots import CHECKOUT_INSIDE, NoRootError, Root, Running, fresh_root

SYSTEMS = ("bookworm-deb", "trixie-deb", "bookworm-rpm", "bookworm", "trixie")


@dataclass(frozen=True)
class Begun:
    """A command that runs in a fresh system."""

    root: Root
    running: Running


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out the tests by the systems, which begin the parameters of those that have one."""
    # Not by --dist loadgroup: pytest 9.2 does not see the names that pytest-xdist 3.8 gives to tests.
    from xdist.scheduler import LoadScopeScheduling

    class BySystem(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            system = re.search(rf"\[({'|'.join(SYSTEMS)})\b", nodeid)
            return system[1] if system else nodeid.partition("::")[0]

    return BySystem(config, log)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The packages of this checkout, and those that they can be upgraded to."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to boot systems that the packages are for")
    with _built_once(tmp_path_factory.getbasetemp()) as directory:
        if directory.exists():
            return Packages(directory)
        directory.mkdir()
        try:
            seconds = build_packages(directory)
        except BaseException as error:
            shutil.rmtree(directory)  # so that whoever comes next tries it again
            if isinstance(error, NoToolsError):
                pytest.skip(str(error))
            raise
    say(f"built two versions of .deb and .rpm in {seconds:.1f} s")
    return Packages(directory)


@contextlib.contextmanager
def _built_once(own: Path) -> Iterator[Path]:
    """Give where the packages are, or are to be, while no other process of this run builds them."""
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shared / "packages"


_said: list[str] = []  # in this process, and in none of its reports yet
_told: list[str] = []  # by all processes


def say(text: str) -> None:
    """Have this shown at the end of all tests."""
    _said.append(text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what was said go with the next report, which may be to another process."""
    report = yield
    report.user_properties += [("said", text) for text in _said]
    _said.clear()
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take in what was said."""
    _told.extend(str(text) for name, text in report.user_properties if name == "said")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show it."""
    if _told:
        terminalreporter.section("systems")
        for text in _told:
            terminalreporter.write_line(text)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "beside(command, …): it looks at what was begun before all other tests"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put last what looks at what was begun first."""
    items.sort(key=lambda item: item.get_closest_marker("beside") is not None)


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> Iterator[dict[str, Begun | NoRootError]]:
    """Commands in fresh systems, by their tests: they take long, so they run beside the others."""
    commands: dict[str, Begun | NoRootError] = {}
    with contextlib.ExitStack() as stack:
        for item in request.session.items:
            marker = item.get_closest_marker("beside")
            if marker and isinstance(item, pytest.Function) and not item.get_closest_marker("skip"):
                try:
                    root = stack.enter_context(fresh_root(item.callspec.params["release"]))
                except NoRootError as error:
                    commands[item.name] = error
                else:
                    running = root.begin(*marker.args, directory=CHECKOUT_INSIDE)
                    commands[item.name] = Begun(root, stack.enter_context(running))
        yield commands


@pytest.fixture
def beside(request: pytest.FixtureRequest, begun: dict[str, Begun | NoRootError]) -> Begun:
    """The command of a test that is marked so."""
    command = begun[request.node.name]
    if isinstance(command, NoRootError):
        pytest.skip(str(command))
    return command
