"""What is skipped is a failure where CI is set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

MODULE = """
import pytest
pytest.importorskip("no_such_module", reason="needs no_such_module")
"""
EACH_WAY = """
import pytest
@pytest.mark.skipif(True, reason="needs no_such_program")
def test_marked(): ...
@pytest.fixture
def skips():
    pytest.skip("needs no_such_user")
def test_with_a_fixture(skips): ...
def test_itself():
    pytest.skip("needs no_such_limit")
def test_unavoidable():
    pytest.skip("needs Linux 6.16")
@pytest.mark.xfail
def test_that_is_to_fail():
    assert False
def test_passes(): ...
"""


def run(tmp_path: Path, ci: str) -> str:
    """Run those; give what pytest has printed."""
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "test_each_way.py").write_text(EACH_WAY)
    options = ["-p", "no:cacheprovider", "-p", "conftest", "-q", "--continue-on-collection-errors"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        env={**os.environ, "CI": ci, "PYTHONPATH": str(TESTS), "PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    ).stdout


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    assert "\n1 passed, 5 skipped, 1 xfailed in " in run(tmp_path, "")


def test_in_ci_it_is_a_failure_unless_it_is_unavoidable(tmp_path: Path) -> None:
    said = run(tmp_path, "true")
    assert "\n1 failed, 1 passed, 1 skipped, 1 xfailed, 3 errors in " in said, said
    failed = re.findall(r"^CI is set, .* needs no_such_(\w+)$", said, re.MULTILINE)
    assert failed == ["module", "program", "user", "limit"]
