"""A config with errors is looked through to the end: one run of --test names them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lognot.config import draft_config
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


def test_errors_of_every_file_are_said_in_reading_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, directory = tmp_path / "lognot.conf", tmp_path / "lognot.d"
    path.write_text(BAD)
    directory.mkdir()
    (directory / "1.conf").write_text(
        "[D]\npath = /var/log/d\nregex = (\nupbound_action = true\n[A]\nx = 1\n"
    )
    (directory / "2.conf").symlink_to("nowhere")
    (directory / "3.conf").write_text("[general]\n[E]\npath = /dev/null\nupbound_action = true\n")
    assert try_config(str(path), None, None, None) == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line.removeprefix(f"{tmp_path}/") for line in lines if ": warning: " not in line]
    assert [error.split(" ")[0] for error in errors] == [
        *(f"lognot.conf:{line}:" for line in (2, 5, 6, 8, 10, 13)),
        *("lognot.d/1.conf:3:", "lognot.d/1.conf:5:", "lognot.d/1.conf:5:", "lognot.d/1.conf:6:"),
        *("lognot.d/2.conf:", "lognot.d/3.conf:1:", "lognot.d/3.conf:3:"),
    ]


def test_the_last_line_counts_the_items_of_all_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, directory = tmp_path / "lognot.conf", tmp_path / "lognot.d"
    item = "[{}]\npath = @/log\nupbound_action = true\n".replace("@", str(tmp_path))
    (tmp_path / "log").touch()
    directory.mkdir()
    path.write_text(item.format("A"))
    for name, text, expected in (
        ("README", "not read", "1 item"),
        ("1.conf", "; nothing yet\n", f"1 item (0 of them in 1 file in {directory})"),
        ("2.conf", item.format("B") + item.format("C"), f"3 items (2 of them in 2 files in {directory})"),
    ):
        (directory / name).write_text(text)
        assert try_config(str(path), None, None, None) == 0
        assert capsys.readouterr().out == f"{path}: ok, {expected}\n"


def test_a_draft_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "lognot.conf"
    path.write_text(BAD)
    draft, problems = draft_config(str(path), base_dir="/")
    assert draft is not None
    assert [item.name for item in draft.items] == ["A", "B", "C"]
    assert any(not problem.warning for problem in problems)
    assert draft_config(str(path / "none"), base_dir="/")[0] is None
