"""What all tests share."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Generator, Iterator
from dataclasses import astuple

import pytest
from hypothesis import HealthCheck, settings

from effort import examples, sample
from integration.accounts import ACCOUNTS, Account, table

os.umask(0o022)  # root takes no config that its group can write

# A busy machine is no failure: properties are held by their assertions, not by how long an example takes.
settings.register_profile(
    "lognot",
    examples(settings.default.max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lognot")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a sample where little effort is wanted."""
    items[:] = sample(items)


def pytest_collection_finish() -> None:
    """Have the collector look only at what tests make, not at all that pytest and they are made of."""
    gc.collect()
    gc.freeze()


# With CI set a skip is a failure, unless no package and no setting of the machine mends its reason.
UNAVOIDABLE = [
    "needs Linux 6.16",
    "the kernel cannot forbid executable memory",  # Linux 6.3 can
    "this architecture has no such call, or libseccomp does not know it",
    "is about amd64",
    "libpcre2 uses it here",  # as Fedora builds it
    "this is Debian 12: `make test` shows it here",
]
if sys.version_info >= (3, 12):  # no python-pcre is to be had
    UNAVOIDABLE.append("regex engine 'pcre' cannot be used")
if os.environ.get("container") == "systemd-nspawn":  # noqa: SIM112 - in the fresh systems of tests/system
    UNAVOIDABLE += [
        "needs systemd-analyze; the system tests have it",
        "needs namespaces: .* failed to setup loop device",
        "needs namespaces: .* Read-only file system: '/proc/sys/",
        "no control group with a limit of memory can be made: .* Read-only file system",
    ]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at modules that are skipped."""
    report = yield
    _fail_what_need_not_be_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at tests that are skipped."""
    report = yield
    _fail_what_need_not_be_skipped(report)
    return report


def _fail_what_need_not_be_skipped(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.skipped and os.environ.get("CI") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(re.match(known, reason, re.DOTALL) for known in UNAVOIDABLE):
            report.outcome = "failed"
            report.longrepr = f"CI is set, and this must not be skipped: {reason}"


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
