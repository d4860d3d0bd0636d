"""What all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from effort import EFFORT
from integration.accounts import ACCOUNTS, table

os.umask(0o022)  # root takes no config that its group can write

# A busy machine is no failure: properties are held by their assertions, not by how long an example takes.
settings.register_profile(
    "lognot",
    deadline=None,
    max_examples=settings.default.max_examples * EFFORT,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lognot")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was lost in each fault."""
    if ACCOUNTS:
        terminalreporter.section("faults")
        for line in table():
            terminalreporter.write_line(line)
