"""The units: how much they leave open, and that docs/security.md says why for each of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
UNITS = CHECKOUT / "packaging" / "systemd"
SECURITY = (CHECKOUT / "docs" / "security.md").read_text()

# In tenths. Counted on a file the score is 0.2 higher than that of a unit that is loaded (systemd 252).
MOST_EXPOSED = {"lognot.service": 15, "lognot-exec.service": 73}


@pytest.fixture(autouse=True)
def analyzer() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze; the system tests have it")


def analyze(unit: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", *options, str(UNITS / unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def section_of(unit: str) -> str:
    """What docs/security.md says under the unit's heading."""
    found = re.search(rf"^## {re.escape(unit)}:.*?(?=^## )", SECURITY, re.MULTILINE | re.DOTALL)
    assert found, unit
    return found[0]


def names(directive: str) -> list[str]:
    """What to look for in the text: `CapabilityBoundingSet=~CAP_(A|B_*)` -> CAP_A, CAP_B_."""
    if "~" not in directive:
        return [name + "=" for name in re.findall(r"\w+(?==)", directive)]
    value = directive.partition("~")[2]
    if value.startswith("CAP_"):
        return ["CAP_" + name.rstrip("*") for name in re.findall(r"[A-Z_*]+", value.removeprefix("CAP_"))]
    words = re.findall(r"@?[\w]+", value)
    if value.startswith(("AF_", "@")):
        return re.findall(r"@\w+|AF_\w+", value.replace("AF_(INET|INET6)", "AF_INET AF_INET6"))
    return words if directive.startswith("System") else [directive.partition("=")[0] + "="]


@pytest.mark.parametrize("unit", sorted(MOST_EXPOSED))
def test_exposure(unit: str) -> None:
    done = analyze(unit, f"--threshold={MOST_EXPOSED[unit]}")
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.parametrize("unit", sorted(MOST_EXPOSED))
def test_what_stays_open_has_its_reason(unit: str) -> None:
    done = analyze(unit, "--json=short")
    if done.returncode:
        pytest.skip(f"this systemd-analyze has no --json: {done.stderr}")
    text = section_of(unit)
    still_open = [entry["name"] for entry in json.loads(done.stdout) if entry["set"] is False]
    assert len(still_open) > 3
    unnamed = [name for name in still_open if not any(word in text for word in names(name))]
    assert unnamed == []
