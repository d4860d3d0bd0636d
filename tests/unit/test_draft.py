"""A config with errors is looked through to the end: one run of --test names them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lognot.config import draft_config, read_config
from lognot.trial import try_config

BAD = """\
[general]
nonsense = 1
[A]
path = /var/log/a
regex = (
upbound_freq = 5
upbound_action = echo $1
[B]
regex = a(b)
upbound_action = echo $2
[C]
path = /var/log/c
upbound_action = echo "
"""


def test_errors_of_every_kind_are_said_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lognot.conf"
    path.write_text(BAD)
    assert try_config(str(path), None, None, None) == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line.removeprefix(f"{path}:") for line in lines if ": warning: " not in line]
    assert [error.split(":")[:2] for error in errors] == [
        ["2", " [general] nonsense"],
        ["5", " [A] regex"],
        ["6", " [A] upbound_freq"],
        ["8", " [B] path"],
        ["10", " [B] upbound_action"],
        ["13", " [C] upbound_action"],
    ]


def test_a_draft_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "lognot.conf"
    path.write_text(BAD)
    draft, problems = draft_config(str(path), base_dir="/")
    assert draft is not None
    assert [item.name for item in draft.items] == ["A", "B", "C"]
    assert read_config(str(path), base_dir="/") == (None, problems)
    assert draft_config(str(path / "none"), base_dir="/")[0] is None
