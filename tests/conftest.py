"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import astuple

import pytest
from hypothesis import HealthCheck, settings

from effort import EFFORT
from integration.accounts import ACCOUNTS, Account, table

os.umask(0o022)  # root takes no config that its group can write

# A busy machine is no failure: properties are held by their assertions, not by how long an example takes.
settings.register_profile(
    "lognot",
    deadline=None,
    max_examples=settings.default.max_examples * EFFORT,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lognot")


_told: list[Account] = []  # by all workers, where tests run in several


@pytest.fixture(autouse=True)
def _tell_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test's lines of the account go with its report, which may be to another process."""
    before = len(ACCOUNTS)
    yield
    request.node.user_properties += [("fault", astuple(account)) for account in ACCOUNTS[before:]]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take in what a test has told."""
    if report.when == "teardown":
        _told.extend(Account(*values) for name, values in report.user_properties if name == "fault")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was lost in each fault."""
    if _told:
        terminalreporter.section("faults")
        for line in table(_told):
            terminalreporter.write_line(line)
