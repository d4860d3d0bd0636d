"""What system tests share: lognot's packages, built once, and commands that run beside the tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from system.packages import NoToolsError, Packages, build_packages
from system.roots import CHECKOUT_INSIDE, NoRootError, Root, Running, fresh_root


@dataclass(frozen=True)
class Begun:
    """A command that runs in a fresh system."""

    root: Root
    running: Running


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The packages of this checkout, and those that they can be upgraded to."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to boot systems that the packages are for")
    try:
        built = build_packages(tmp_path_factory.mktemp("packages"))
    except NoToolsError as error:
        pytest.skip(str(error))
    with capture_off(request):
        print(f"\nbuilt two versions of .deb and .rpm in {built.seconds:.1f} s")
    return built


def capture_off(request: pytest.FixtureRequest) -> contextlib.AbstractContextManager[None]:
    """What a fixture prints in it is seen; tests have `capsys` for that."""
    return request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled()


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
