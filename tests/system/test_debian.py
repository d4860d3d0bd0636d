"""What the README promises, on fresh Debian systems: `make run` and `make test` are all that it takes."""

from __future__ import annotations

import re

import pytest

from system.conftest import Begun, say
from system.roots import CHECKOUT_INSIDE

pytestmark = pytest.mark.system

ENDS_WITHIN_S = 480


def _is_debian_12() -> bool:
    with open("/etc/os-release") as file:
        return "VERSION_CODENAME=bookworm\n" in file.read()


SHOWN_HERE = pytest.mark.skip(reason="this is Debian 12: `make test` shows it here")


@pytest.mark.beside("make", "run")
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_make_run_shows_the_main_job(release: str, beside: Begun) -> None:
    status, output = beside.running.end(ENDS_WITHIN_S)
    assert status == 0, output
    assert "would run: iptables -w -I INPUT -s 203.0.113.66 -j DROP" in output
    assert "All of it happened as told." in output
    # Nothing is installed twice.
    assert beside.root.run("make", "needed-to-run", directory=CHECKOUT_INSIDE) == (0, "")


@pytest.mark.beside("make", "test")
@pytest.mark.parametrize(
    "release", [pytest.param("bookworm", marks=SHOWN_HERE if _is_debian_12() else ()), "trixie"]
)
def test_make_test_passes(release: str, beside: Begun) -> None:
    status, output = beside.running.end(ENDS_WITHIN_S)
    closing = [line for line in output.splitlines() if re.match(r"\d+ (passed|failed)", line)]
    say(f"make test on {release}: {closing[-1] if closing else 'came to no end'}")
    assert status == 0, output
