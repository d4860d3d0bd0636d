"""What the README promises, on fresh Debian systems: `make run` and `make test` are all that it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NoReturn

import pytest

from system.roots import NoRootError, Root, fresh_root

pytestmark = pytest.mark.system

DIRECTORY = "/root/lognot"


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest) -> Iterator[Root]:
    """A fresh Debian 12 or 13 with this checkout in it."""
    try:
        with fresh_root(request.param) as root:
            yield root
    except NoRootError as error:
        _cannot(str(error))


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def test_make_run_shows_the_main_job(debian: Root) -> None:
    status, output = debian.run("make", "run", directory=DIRECTORY)
    assert status == 0, output
    assert "would run: iptables -w -I INPUT -s 203.0.113.66 -j DROP" in output
    assert "All of it happened as told." in output


def test_nothing_is_installed_twice(debian: Root) -> None:
    status, output = debian.run("make", "needed-to-run", directory=DIRECTORY)
    assert (status, output) == (0, "")


def test_make_test_passes(debian: Root, capsys: pytest.CaptureFixture[str]) -> None:
    if debian.release == "bookworm" and _is_debian_12():
        pytest.skip("this is Debian 12: `make test` shows it here")
    status, output = debian.run("make", "test", directory=DIRECTORY, timeout_s=480)
    closing = [line for line in output.splitlines() if re.match(r"\d+ (passed|failed)", line)]
    with capsys.disabled():
        print(f"\nmake test on {debian.release}: {closing[-1] if closing else 'came to no end'}")
    assert status == 0, output


def _is_debian_12() -> bool:
    with open("/etc/os-release") as file:
        return "VERSION_CODENAME=bookworm\n" in file.read()
