"""What --test says beyond the syntax: regexes, groups, actions, logs."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from lognot import check
from lognot.check import check_actions, check_config, check_logs, check_patterns
from lognot.config import Config, Source, config_from_json, config_to_json, parse_config
from lognot.errors import PatternError, Problem
from unit.people import ROOT, USERS

INSTALLED = Path(__file__).parents[2] / "etc" / "lognot.conf"


def config_of(data: bytes) -> Config:
    config, _ = parse_config(data, "f", started_by=ROOT, users=USERS)
    assert config is not None
    return config


def item(options: str, path: str = "/x") -> Config:
    return config_of(f"[a]\npath = {path}\n{options}\n".encode())


def texts(problems: tuple[Problem, ...]) -> list[str]:
    return [str(problem) for problem in problems]


def test_good_patterns_and_groups_that_exist_are_silent() -> None:
    config = item("regex = (a)(?:b)(?<name>c)\nupbound_action = echo $0 $1 $2 $@ \\$3")
    assert check_patterns(config) == check_actions(config) == ()


@pytest.mark.parametrize(
    ("regex", "action", "expected"),
    [
        ("a", "echo $1", ["$1: the regex has no group; expected \\$1 if the shell's own is meant"]),
        ("(a)", "echo $3", ["$3: the regex has only 1 group; expected \\$3 if the shell's own is meant"]),
        (
            "(a)(b)",
            "echo $10 $1 $4 $4",
            [
                "$4: the regex has only 2 groups; expected \\$4 if the shell's own is meant",
                "$10: the regex has only 2 groups; expected \\$10 if the shell's own is meant",
            ],
        ),
    ],
)
def test_a_group_that_the_regex_does_not_have_is_said_exactly(
    regex: str, action: str, expected: list[str]
) -> None:
    problems = check_patterns(item(f"regex = {regex}\nupbound_action = {action}"))
    assert texts(problems) == [f"f:4: [a] upbound_action: {text}" for text in expected]


def test_actions_without_match_arguments_may_say_what_they_like() -> None:
    config = item(
        "downbound_action = awk '{print $9}'\ndownbound_freq = 1/1\nsize = 1\nsize_action = echo $7"
    )
    assert check_patterns(config) == check_actions(config) == ()


def test_a_regex_that_does_not_compile_is_said_at_its_line() -> None:
    rest = b"path = /x\nupbound_action = x $1\n"
    data = b"[general]\nregex = (\n[a]\n" + rest + b"regex = [\n[b]\n" + rest
    problems = check_patterns(config_of(data))
    assert [(problem.line, problem.section, problem.option) for problem in problems] == [
        (2, "b", "regex"),
        (6, "a", "regex"),
    ]
    assert all(problem.text and str(problem).isprintable() and not problem.warning for problem in problems)


def test_lines_are_still_known_in_the_process_that_got_the_config_as_json() -> None:
    config = item("upbound_action = echo $1")
    assert texts(check_patterns(config_from_json(config_to_json(config)))) == texts(check_patterns(config))


def test_what_is_wrong_is_said_where_it_stands_also_in_a_dropin() -> None:
    config, _ = parse_config(
        b"[general]\nregex = (\n[a]\npath = /dev/null\nupbound_action = x '\n",
        "c.conf",
        dropins=[Source("c.d/x.conf", b"[b]\npath = /dev/null\nregex = a\nupbound_action = x $1\n")],
        started_by=ROOT,
        users=USERS,
    )
    assert config is not None
    places = [(problem.source, problem.line, problem.section) for problem in check_config(config)]
    assert places == [
        ("c.conf", 2, "a"),
        ("c.conf", 4, "a"),
        ("c.conf", 5, "a"),
        ("c.d/x.conf", 2, "b"),
        ("c.d/x.conf", 4, "b"),
    ]


def test_an_engine_that_cannot_be_had_is_the_only_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose_engine(wanted: str) -> str:
        raise PatternError(f"{wanted} cannot be loaded")

    monkeypatch.setattr(check, "choose_engine", choose_engine)
    data = b"[general]\nregex_engine = pcre\n[a]\npath = /x\nregex = (\nupbound_action = x $1\n"
    assert texts(check_patterns(config_of(data))) == ["f:2: [general] regex_engine: pcre cannot be loaded"]
    assert texts(check_patterns(config_of(b""))) == ["f: [general] regex_engine: auto cannot be loaded"]


def test_an_action_that_cannot_become_shell_text_is_an_error() -> None:
    config = item("regex = (a)\nupbound_action = echo 'x $1\nsize = 1\nsize_action = " + "x" * 102_401)
    assert texts(check_actions(config)) == [
        "f:4: [a] upbound_action: unterminated '",
        "f:6: [a] size_action: longer than 102400 bytes: put it into a script",
    ]


def test_a_group_that_cannot_be_passed_at_all_is_said_once() -> None:
    assert texts(check_config(item("upbound_action = echo $100", path="/dev/null/x"))) == [
        "f:2: warning: [a] path: does not exist yet; will be watched when it appears",
        "f:3: [a] upbound_action: $100: no group above $99 can be passed",
    ]


def test_an_action_that_hands_a_log_s_text_to_another_parser_is_a_warning() -> None:
    problems = check_actions(item('regex = (a)\nupbound_action = sh -c "echo $1"'))
    assert [(problem.line, problem.option, problem.warning) for problem in problems] == [
        (4, "upbound_action", True)
    ]


def test_a_regular_log_and_a_link_to_one_are_silent(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    (tmp_path / "link").symlink_to("log")
    for name in ("log", "link"):
        assert check_logs(item("upbound_action = x", str(tmp_path / name))) == ()


@pytest.mark.parametrize("name", ["missing", "missing/log", "file/log", "dangling"])
def test_a_missing_log_is_a_warning(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    expected = "f:2: warning: [a] path: does not exist yet; will be watched when it appears"
    assert texts(check_logs(item("upbound_action = x", str(tmp_path / name)))) == [expected]


def test_a_log_that_cannot_be_looked_at_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    expected = "f:2: warning: [a] path: cannot be looked at: Too many levels of symbolic links"
    assert texts(check_logs(item("upbound_action = x", str(tmp_path / "loop")))) == [expected]


def test_what_is_no_regular_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for path, kind in (
        (tmp_path / "fifo", "a FIFO"),
        (tmp_path / "directory", "a directory"),
        (tmp_path / "socket", "a socket"),
        (Path("/dev/null"), "a character device"),
    ):
        expected = f"f:2: [a] path: is {kind}; expected a regular file"
        assert texts(check_logs(item("upbound_action = x", str(path)))) == [expected]


def test_the_examples_of_the_installed_config_pass() -> None:
    data = re.sub(rb"(?m)^;", b"", INSTALLED.read_bytes())
    config = config_of(re.sub(rb"uid = (mail|_lognot-action)\b", b"uid = bob", data))
    assert check_patterns(config) == check_actions(config) == ()
