"""Config files to checked values: every option, every error text, and that nothing else ever comes out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot.config import (
    EVERY_MATCH,
    Config,
    Frequency,
    Item,
    Source,
    config_from_json,
    config_to_json,
    draft_config,
    parse_config,
)
from lognot.errors import Problem, ProtocolError
from lognot.options import OPTIONS, OPTIONS_BY_NAME, Where
from lognot.settings import MAX_ITEMS, MAX_SIZE_BYTES
from lognot.users import Account
from unit.people import BOB, ROOT, USERS

INSTALLED = Path(__file__).parents[2] / "etc" / "lognot.conf"
ENV = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}

ITEM = Item(
    name="a",
    path="/x",
    regex=b".*",
    upbound_action=b"run",
    upbound=EVERY_MATCH,
    downbound_action=None,
    downbound=None,
    usecrc=False,
    size=None,
    size_action=None,
    run_as=ROOT,
    action_timeout_s=300,
)


def parse(data: bytes, **options: str) -> tuple[Config | None, tuple[Problem, ...]]:
    return parse_config(data, "f", started_by=ROOT, users=USERS, **options)


def config_of(data: bytes, **options: str) -> Config:
    config, problems = parse(data, **options)
    assert config is not None and problems == ()
    return config


def item_of(options: bytes, general: bytes = b"") -> Item:
    """Return the one item of a config in which `options` follow a path and an action."""
    config, problems = parse(b"[general]\n" + general + b"\n[a]\npath = /x\nupbound_action = run\n" + options)
    assert config is not None and all(problem.warning for problem in problems)
    return config.items[0]


def problems_of(data: bytes, **options: str) -> list[str]:
    return [str(problem) for problem in parse(data, **options)[1]]


# --- what is good ---


def test_an_item_with_only_a_path_and_an_action_takes_the_defaults() -> None:
    config = config_of(b"[a]\npath = /x\nupbound_action = run\n")
    assert config == Config("f", 2, "auto", 1024**2, (ITEM,))


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("path = /y", "path", "/y"),
        ("regex = \\d+ # no comment", "regex", b"\\d+ # no comment"),
        ("upbound_action = echo \"$1\" '$@'", "upbound_action", b"echo \"$1\" '$@'"),
        ("upbound_freq = 5/30", "upbound", Frequency(5, 30)),
        ("upbound_freq = 5 / 30", "upbound", Frequency(5, 30)),
        ("upbound_freq = 0/0", "upbound", EVERY_MATCH),
        ("upbound_freq = 0/30", "upbound", EVERY_MATCH),
        ("upbound_freq =", "upbound", EVERY_MATCH),
        ("upbound_freq = 1000000/31622400", "upbound", Frequency(1_000_000, 31_622_400)),
        ("downbound_action = restart", "downbound_action", b"restart"),
        ("downbound_action =", "downbound_action", None),
        ("downbound_freq = 1/60", "downbound", Frequency(1, 60)),
        ("downbound_freq = 0/60", "downbound", None),
        ("downbound_freq = 0/0", "downbound", None),
        ("downbound_freq =", "downbound", None),
        *((f"usecrc = {text}", "usecrc", True) for text in ("1", "yes", "true", "YES", "True")),
        *((f"usecrc = {text}", "usecrc", False) for text in ("0", "no", "false", "NO", "False")),
        ("size = 100", "size", 100),
        ("size = 100B", "size", 100),
        ("size = 3k", "size", 3 * 1024),
        ("size = 100 M", "size", 100 * 1024**2),
        ("size = 2g", "size", 2 * 1024**3),
        ("size = 9223372036854775807", "size", MAX_SIZE_BYTES),
        ("size =", "size", None),
        ("size_action = logrotate", "size_action", b"logrotate"),
        ("uid = bob", "run_as", BOB),
        ("uid = 1000", "run_as", BOB),
        ("gid = wheel", "run_as", Account(0, 10, (4, 10), "root", "/root")),
        ("action_timeout = 86400", "action_timeout_s", 86400),
    ],
)
def test_each_item_option_has_its_meaning(option: str, field: str, value: object) -> None:
    data = b"[a]\nupbound_action = run\npath = /x\n".replace(option.split()[0].encode() + b" =", b"; was =")
    config, problems = parse(data + option.encode())
    assert config is not None and all(problem.warning for problem in problems)
    expected = ITEM if field != "upbound_action" else replace(ITEM, upbound_action=None)
    assert config.items[0] == replace(expected, **{field: value})


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("athread_count = 1000", "athread_count", 1000),
        ("regex_engine = PCRE2", "regex_engine", "pcre2"),
        ("max_line = 64K", "max_line_bytes", 65536),
        ("max_line = 1024", "max_line_bytes", 1024),
    ],
)
def test_each_general_option_has_its_meaning(option: str, field: str, value: object) -> None:
    config = config_of(b"[a]\npath = /x\nupbound_action = run\n[general]\n" + option.encode())
    assert getattr(config, field) == value


def test_every_option_of_the_table_is_known_where_it_says_and_parses_its_default() -> None:
    for option in OPTIONS:
        value = {"path": "/x", "uid": "bob", "gid": "bob"}.get(option.name, option.default)
        assert value is not None and option.help and option.form
        for section, places in (
            ("general", (Where.GENERAL, Where.ANYWHERE)),
            ("a", (Where.ITEM, Where.ANYWHERE)),
        ):
            problems = parse(f"[{section}]\n{option.name} = {value or 'true'}\n".encode())[1]
            mine = [problem for problem in problems if problem.option == option.name and not problem.warning]
            refused = any("expected it in" in problem.text for problem in mine)
            assert refused == (option.where not in places), option.name


def test_the_table_and_the_values_have_the_same_options() -> None:
    renamed = {"upbound": "upbound_freq", "downbound": "downbound_freq", "action_timeout_s": "action_timeout"}
    places = {"source", "line", "lines", "dropins"}
    item_fields = set(Item.__dataclass_fields__) - {"name", "run_as"} - places
    general_fields = set(Config.__dataclass_fields__) - {"items", "max_line_bytes"} - places
    expected = {renamed.get(name, name) for name in item_fields} | general_fields | {"uid", "gid", "max_line"}
    assert set(OPTIONS_BY_NAME) == expected and len(OPTIONS) == len(expected)


def test_general_gives_defaults_to_every_item_wherever_it_stands() -> None:
    first = b"[a]\npath = /a\n"
    second = b"[b]\npath = /b\nupbound_action =\nsize = 1\nsize_action = x\nuid = root\n"
    general = b"[general]\nupbound_action = run\nuid = bob\nregex = e\naction_timeout = 5\n"
    config = config_of(first + second + general)
    assert config.items == config_of(general + first + second).items
    first, second = config.items
    assert (first.upbound_action, first.run_as, first.regex, first.action_timeout_s) == (b"run", BOB, b"e", 5)
    assert second.upbound_action is None
    assert second.run_as == Account(0, 0, (0, 4), "root", "/home/root")


def test_items_keep_the_order_of_the_file() -> None:
    config = config_of(b"".join(b"[%d]\npath = /x\nupbound_action = x\n" % number for number in (3, 1, 2)))
    assert [item.name for item in config.items] == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/log/x", "/var/log/x"),
        ("//var///log/./x", "/var/log/x"),
        ("/var/../log/x", "/var/../log/x"),
        ("x", "/base/dir/x"),
        ("./x/..y", "/base/dir/x/..y"),
        ("../x", "/base/dir/../x"),
        ("/a b/c;d", "/a b/c;d"),
        ("/" + "x" * 255, "/" + "x" * 255),
    ],
)
def test_paths_are_made_absolute_and_nothing_more(path: str, expected: str) -> None:
    data = f"[a]\npath = {path}\nupbound_action = run\n".encode()
    assert config_of(data, base_dir="/base//./dir").items[0].path == expected


def test_bytes_that_are_no_utf8_survive() -> None:
    item = config_of(b"[a]\npath = /\xff\nregex = \xe9\xff\nupbound_action = \xfe\n").items[0]
    assert (item.path.encode("utf-8", "surrogateescape"), item.regex, item.upbound_action) == (
        b"/\xff",
        b"\xe9\xff",
        b"\xfe",
    )


def test_items_are_equal_whatever_their_lines_are() -> None:
    first, second = item_of(b"upbound_freq = 0/7\n"), item_of(b"\n\n; moved\nregex = .*\n")
    assert first == second == ITEM and hash(first) == hash(second)
    assert (first.line, first.lines["path"], second.line, second.lines["regex"]) == (3, 4, 3, 9)


def test_an_inherited_option_is_to_be_found_in_general() -> None:
    config = config_of(b"[general]\nregex = x\n[a]\npath = /x\nsize = 1\nsize_action = x\n")
    places = [config.place_of(config.items[0], option) for option in ("regex", "size", "usecrc")]
    assert places == [("f", 2), ("f", 5), ("f", 3)]


def test_the_command_line_overrides_general_and_items() -> None:
    data = b"[general]\nuid = eve\n[a]\npath = /x\nupbound_action = x\ngid = wheel\n"
    assert config_of(data, uid="bob").items[0].run_as == replace(BOB, gid=10, groups=(2, 4, 10, 1000))
    assert config_of(data, uid="bob", gid="bob").items[0].run_as == BOB


# --- what is wrong ---


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("regx = x", "regx: unknown option; did you mean regex?"),
        ("zzz = x", "zzz: unknown option; see lognot.conf(5)"),
        ("athread_count = 2", "athread_count: is for the whole of lognot; expected it in [general]"),
        ("regex =", "regex: is empty; expected a PCRE, or leave the option out to match every line"),
        ("upbound_freq = 5", "upbound_freq: expected COUNT/SECONDS, got '5'"),
        ("upbound_freq = -1/5", "upbound_freq: expected COUNT/SECONDS, got '-1/5'"),
        ("upbound_freq = 1/5/6", "upbound_freq: expected COUNT/SECONDS, got '1/5/6'"),
        ("upbound_freq = \u0661/5", "upbound_freq: expected COUNT/SECONDS, got '\u0661/5'"),
        ("upbound_freq = 5/0", "upbound_freq: expected SECONDS above 0 when COUNT is, got '5/0'"),
        ("upbound_freq = 1000001/1", "upbound_freq: expected a COUNT up to 1000000, got '1000001/1'"),
        (
            "upbound_freq = 1/31622401",
            "upbound_freq: expected SECONDS up to 31622400 (366 days), got '1/31622401'",
        ),
        ("downbound_freq = 5/0", "downbound_freq: expected SECONDS above 0 when COUNT is, got '5/0'"),
        ("downbound_freq = x", "downbound_freq: expected COUNT/SECONDS, got 'x'"),
        ("usecrc = maybe", "usecrc: expected yes or no (1 or 0, true or false), got 'maybe'"),
        ("usecrc =", "usecrc: expected yes or no (1 or 0, true or false), got ''"),
        ("size = 0", "size: expected a size from 1 byte to 8 EiB, got '0'"),
        ("size = 8589934592G", "size: expected a size from 1 byte to 8 EiB, got '8589934592G'"),
        ("size = M", "size: expected NUMBER[B K M G], got 'M'"),
        ("size = 1.5G", "size: expected NUMBER[B K M G], got '1.5G'"),
        ("size = -1", "size: expected NUMBER[B K M G], got '-1'"),
        ("size = 100MB", "size: unknown unit 'MB'; expected B, K, M or G, or none for bytes"),
        ("size = 100 T", "size: unknown unit 'T'; expected B, K, M or G, or none for bytes"),
        ("uid = eve", "uid: there is no user 'eve'; expected a user name or number"),
        ("uid =", "uid: is empty; expected a name or a number"),
        ("uid = 4711", "uid: 4711 has no passwd entry that would name its group; expected gid to be set too"),
        ("gid = eve", "gid: there is no group 'eve'; expected a group name or number"),
        ("uid = _lognot", "uid: '_lognot' is who lognot's own monitor runs as; expected another user"),
        ("uid = 990", "uid: '_lognot' is who lognot's own monitor runs as; expected another user"),
        ("action_timeout = 0", "action_timeout: expected a whole number from 1 to 86400, got '0'"),
        ("action_timeout = 5s", "action_timeout: expected a whole number from 1 to 86400, got '5s'"),
        (
            "action_timeout = " + "9" * 5000,
            f"action_timeout: expected a whole number from 1 to 86400, got '{'9' * 57}...'",
        ),
    ],
)
def test_each_wrong_item_option_is_said_exactly(option: str, text: str) -> None:
    config, problems = parse(f"[a]\npath = /x\nupbound_action = run\n{option}\n".encode())
    assert config is None
    assert [str(problem) for problem in problems] == [f"f:4: [a] {text}"]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("athread_count = 0", "athread_count: expected a whole number from 1 to 1000, got '0'"),
        ("regex_engine = re", "regex_engine: expected auto, pcre or pcre2, got 're'"),
        ("max_line = 1023", "max_line: expected a size from 1K to 16M, got '1023'"),
        ("max_line =", "max_line: expected NUMBER[B K M G], got ''"),
        ("path = /x", "path: belongs to one item; expected it in an item's section"),
        ("uid = eve", "uid: there is no user 'eve'; expected a user name or number"),
        ("uid = _lognot", "uid: '_lognot' is who lognot's own monitor runs as; expected another user"),
        ("size = 1X", "size: unknown unit 'X'; expected B, K, M or G, or none for bytes"),
    ],
)
def test_each_wrong_general_option_is_said_once_and_exactly(option: str, text: str) -> None:
    items = b"[a]\npath = /x\nupbound_action = run\n[b]\npath = /x\nupbound_action = run\n"
    assert problems_of(f"[general]\n{option}\n".encode() + items) == [f"f:2: [general] {text}"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", "is empty; expected the name of a log file"),
        ("/var/log/", "'/var/log/' names a directory; expected the name of a log file"),
        ("..", "'..' names a directory; expected the name of a log file"),
        ("/" + "x" * 256, "a name between slashes is longer than 255 bytes"),
        ("/" + "é" * 128, "a name between slashes is longer than 255 bytes"),
        ("/x" * 2048, "is longer than 4095 bytes"),
        ("x/" * 2047 + "x", "is longer than 4095 bytes"),
    ],
)
def test_each_wrong_path_is_said_exactly(path: str, text: str) -> None:
    data = f"[a]\npath = {path}\nupbound_action = run\n".encode()
    assert problems_of(data, base_dir="/base") == [f"f:2: [a] path: {text}"]


def test_a_nul_in_a_path_is_refused() -> None:
    assert problems_of(b"[a]\npath = /x\0y\nupbound_action = run\n") == [
        "f:2: [a] holds a NUL byte; expected text"
    ]
    with pytest.raises(ValueError, match=r"^holds a NUL byte; expected the name of a log file$"):
        OPTIONS_BY_NAME["path"].parse("/x\0y")


def test_a_missing_path_is_said_at_the_section() -> None:
    assert problems_of(b"\n[a]\nupbound_action = run\n") == [
        "f:2: [a] path: is missing; expected path = FILE in every item"
    ]


def test_a_wrong_user_and_a_wrong_group_are_both_said() -> None:
    general, rest = b"[general]\nuid = eve\n", b"path = /x\nupbound_action = run\n"
    assert problems_of(general + b"[a]\ngid = x\n" + rest + b"[b]\n" + rest) == [
        "f:2: [general] uid: there is no user 'eve'; expected a user name or number",
        "f:4: [a] gid: there is no group 'x'; expected a group name or number",
    ]


def test_a_number_without_user_does_not_ask_for_a_group_that_is_only_wrong() -> None:
    assert problems_of(b"[a]\npath = /x\nupbound_action = run\nuid = 4711\ngid = x\n") == [
        "f:5: [a] gid: there is no group 'x'; expected a group name or number"
    ]


def test_items_may_bring_the_group_for_a_number_in_general() -> None:
    general, rest = b"[general]\nuid = 4711\n", b"path = /x\nupbound_action = run\n"
    assert config_of(general + b"[a]\ngid = adm\n" + rest).items[0].run_as == Account(
        4711, 4, (), "4711", "/"
    )
    assert problems_of(general + b"[a]\n" + rest) == [
        "f:2: [general] uid: 4711 has no passwd entry that would name its group; expected gid to be set too"
    ]


def test_wrong_ids_on_the_command_line_are_said_without_a_line() -> None:
    assert problems_of(b"[a]\npath = /x\nupbound_action = run\nuid = eve\n", uid="x", gid="y") == [
        "command line: --uid: there is no user 'x'; expected a user name or number",
        "command line: --gid: there is no group 'y'; expected a group name or number",
    ]


def test_too_many_items_are_refused() -> None:
    item = b"[%d]\npath = /x\nupbound_action = x\n"
    assert len(config_of(b"".join(item % number for number in range(MAX_ITEMS))).items) == MAX_ITEMS
    assert problems_of(b"".join(item % number for number in range(MAX_ITEMS + 2))) == [
        f"f:{3 * MAX_ITEMS + 1}: [{MAX_ITEMS}] one item too many; expected at most 4096"
    ]


def test_all_problems_come_at_once_in_line_order() -> None:
    first = b"x = 1\n[a]\nsize = 1\nregex =\n"
    general = b"[general]\nuid = eve\nathread_count = x\n"
    problems = parse(first + general + b"[a]\npath = /y\nsize_action = x\n")[1]
    assert [problem.line for problem in problems if not problem.warning] == [1, 2, 4, 6, 7, 8]
    assert [problem.line for problem in problems if problem.warning] == [2, 3, 10]
    assert [problem.line for problem in problems] == [1, 2, 2, 3, 4, 6, 7, 8, 10]


# --- what is only odd ---


NOTHING = "nothing would ever run; expected upbound_action, downbound_action or size_action"
NO_UPBOUND = "has no effect without upbound_action"
NEVER = "never runs: downbound_freq is unset or has a COUNT of 0"


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ("", [f"f:1: warning: [a] {NOTHING}"]),
        ("size_action = x\nsize = 1\nupbound_freq = 1/1", [f"f:5: warning: [a] upbound_freq: {NO_UPBOUND}"]),
        ("size_action = x\nsize = 1\nusecrc = 1", [f"f:5: warning: [a] usecrc: {NO_UPBOUND}"]),
        ("size_action = x\nsize = 1\nusecrc = 0\nupbound_freq = 0/0", []),
        (
            "upbound_action = x\ndownbound_freq = 1/1",
            ["f:4: warning: [a] downbound_freq: has no effect without downbound_action"],
        ),
        ("downbound_action = x", [f"f:3: warning: [a] downbound_action: {NEVER}"]),
        ("downbound_action = x\ndownbound_freq = 0/9", [f"f:3: warning: [a] downbound_action: {NEVER}"]),
        ("downbound_action = x\ndownbound_freq = 1/9", []),
        ("upbound_action = x\nsize = 1", ["f:4: warning: [a] size: has no effect without size_action"]),
        ("size_action = x", ["f:3: warning: [a] size_action: never runs: size is unset"]),
    ],
)
def test_each_warning_is_said_exactly_and_refuses_nothing(options: str, warnings: list[str]) -> None:
    config, problems = parse(f"[a]\npath = /x\n{options}\n".encode())
    assert config is not None
    assert [str(problem) for problem in problems] == warnings


def test_a_default_for_other_items_is_no_warning() -> None:
    data = b"[general]\nusecrc = yes\nsize = 1\ndownbound_freq = 1/9\n[a]\npath = /x\ndownbound_action = x\n"
    assert problems_of(data) == []


def test_an_option_with_an_error_does_not_make_its_partner_useless() -> None:
    assert problems_of(b"[a]\npath = /x\ndownbound_action = x\ndownbound_freq = x\n") == [
        "f:4: [a] downbound_freq: expected COUNT/SECONDS, got 'x'"
    ]


@pytest.mark.parametrize("data", [b"", b"[general]\n", b"; nothing\n"])
def test_no_item_is_a_warning(data: bytes) -> None:
    config, problems = parse(data)
    assert config is not None and config.items == ()
    assert [str(problem) for problem in problems] == ["f: warning: names no log: there is nothing to watch"]


# --- the file ---


def test_a_file_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "c"
    file.write_bytes(b"[a]\npath = x\nupbound_action = run\nuid = bob\n")
    config, problems = draft_config(str(file), base_dir="/base", users=USERS)
    assert config is not None
    assert not problems
    assert (config.source, config.items) == (str(file), (replace(ITEM, path="/base/x", run_as=BOB),))


def test_a_bad_file_has_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "c"
    file.write_bytes(b"[a]\nx = 1\n")
    _, problems = draft_config(str(file), base_dir="/", users=USERS)
    assert [problem.line for problem in problems] == [1, 1, 2]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    expected = f"{missing}: cannot read the config: No such file or directory"
    assert [str(problem) for problem in draft_config(missing, base_dir="/")[1]] == [expected]
    expected = f"{tmp_path}: cannot read the config: Is a directory"
    assert [str(problem) for problem in draft_config(str(tmp_path), base_dir="/")[1]] == [expected]
    assert draft_config("a\0b", base_dir="/")[0] is None


def test_an_endless_file_is_refused() -> None:
    problems = draft_config("/dev/zero", base_dir="/")[1]
    assert [str(problem) for problem in problems] == ["/dev/zero: is longer than 16777216 bytes"]


def test_the_installed_config_watches_nothing_and_passes() -> None:
    config, problems = parse(INSTALLED.read_bytes().replace(b"uid = _lognot-action", b"uid = bob"))
    assert config is not None and config.items == ()
    assert [problem.text for problem in problems] == ["names no log: there is nothing to watch"]


def test_the_installed_config_shows_every_option_with_its_default() -> None:
    general = INSTALLED.read_text().partition("[ssh-")[0]
    used = dict(re.findall(r"(?m)^(\w+) =[ ]?(.*)$", general))
    assert used == {"uid": "_lognot-action"}
    shown = dict(re.findall(r"(?m)^;(\w+) =[ ]?(.*)$", general))
    assert set(shown) == set(OPTIONS_BY_NAME) - {"path", "uid"}
    for name, value in shown.items():
        assert value == (OPTIONS_BY_NAME[name].default if name != "gid" else "adm"), name


def test_the_examples_of_the_installed_config_are_good() -> None:
    data = re.sub(rb"(?m)^;", b"", INSTALLED.read_bytes())
    config = config_of(re.sub(rb"uid = (mail|_lognot-action)\b", b"uid = bob", data))
    assert {item.name for item in config.items} >= {"ssh-password", "errors", "application-size", "heartbeat"}
    # Whoever can mail need not be root; nobody else can change the packet filter or restart a service.
    assert {item.name for item in config.items if item.run_as.uid != 0} == {"errors"}


# --- drop-ins ---

RUN = b"path = /x\nupbound_action = run\n"
PLACED_ITEM = b"[%s]\n" + RUN


def parse_files(*data: bytes) -> tuple[Config | None, tuple[Problem, ...]]:
    """Parse c.conf and its drop-ins c.d/0.conf, c.d/1.conf and so on."""
    dropins = [Source(f"c.d/{number}.conf", text) for number, text in enumerate(data[1:])]
    return parse_config(data[0], "c.conf", dropins=dropins, started_by=ROOT, users=USERS)


def said_of(*data: bytes) -> list[str]:
    return [str(problem) for problem in parse_files(*data)[1]]


def test_items_come_in_reading_order_and_general_holds_for_all() -> None:
    general = b"[general]\nregex = e\nuid = bob\n"
    config, problems = parse_files(PLACED_ITEM % b"z" + general, PLACED_ITEM % b"b", PLACED_ITEM % b"a")
    assert config is not None and problems == ()
    assert [(item.name, item.regex, item.run_as) for item in config.items] == [
        (name, b"e", BOB) for name in ("z", "b", "a")
    ]
    assert (config.source, config.dropins) == ("c.conf", ("c.d/0.conf", "c.d/1.conf"))


def test_an_option_is_to_be_found_in_the_file_that_it_stands_in() -> None:
    config, _ = parse_files(b"[general]\nregex = e\nsize = 1\n", b"\n[a]\n" + RUN + b"size = 2\n")
    assert config is not None
    for known in (config, config_from_json(config_to_json(config))):
        places = [known.place_of(known.items[0], option) for option in ("regex", "size", "path", "usecrc")]
        assert places == [("c.conf", 2), ("c.d/0.conf", 5), ("c.d/0.conf", 3), ("c.d/0.conf", 2)]


def test_an_item_is_the_same_in_another_file() -> None:
    here, there = parse_files(b";\n" + PLACED_ITEM % b"a")[0], parse_files(b"", PLACED_ITEM % b"a")[0]
    assert here is not None and there is not None
    assert here.items == there.items == (ITEM,) and here == there
    assert here.items[0].source != there.items[0].source


def test_items_in_dropins_only_are_something_to_watch() -> None:
    assert said_of(b"", PLACED_ITEM % b"a") == []
    assert said_of(b"", b"; nothing\n") == ["c.conf: warning: names no log: there is nothing to watch"]


def test_problems_name_the_file_and_come_in_reading_order() -> None:
    general = b"\n\n\n[general]\nuid = eve\nusecrc = x\n"
    assert said_of(general + PLACED_ITEM % b"a", b"[b]\nsize = x\n", b"x\n[c]\n" + RUN + b"gid = x\n") == [
        "c.conf:5: [general] uid: there is no user 'eve'; expected a user name or number",
        "c.conf:6: [general] usecrc: expected yes or no (1 or 0, true or false), got 'x'",
        f"c.d/0.conf:1: warning: [b] {NOTHING}",
        "c.d/0.conf:1: [b] path: is missing; expected path = FILE in every item",
        "c.d/0.conf:2: [b] size: expected NUMBER[B K M G], got 'x'",
        "c.d/1.conf:1: expected [section], option = value or a comment, got 'x'",
        "c.d/1.conf:5: [c] gid: there is no group 'x'; expected a group name or number",
    ]


def test_wrong_ids_on_the_command_line_are_said_first() -> None:
    _, problems = parse_config(b"[general]\nx = 1\n", "bad.conf", uid="x", started_by=ROOT, users=USERS)
    assert [problem.source for problem in problems] == ["command line", "bad.conf", "bad.conf"]


def test_two_items_of_one_name_are_refused_across_files() -> None:
    expected = "this section stands at {} already; expected each name once"
    assert said_of(PLACED_ITEM % b"a", PLACED_ITEM % b"b", PLACED_ITEM % b"a" + PLACED_ITEM % b"b") == [
        f"c.d/1.conf:1: [a] {expected.format('c.conf:1')}",
        f"c.d/1.conf:4: [b] {expected.format('c.d/0.conf:1')}",
    ]


def test_general_in_a_dropin_is_refused_and_changes_nothing() -> None:
    general = b"[general]\nuid = eve\nathread_count = x\n"
    for first in (b"", b"[general]\n"):
        assert said_of(first + PLACED_ITEM % b"a", general + PLACED_ITEM % b"b") == [
            "c.d/0.conf:1: [general] a drop-in holds items only; this section is expected in c.conf"
        ]


def test_the_items_of_all_files_are_bounded_together() -> None:
    items = [PLACED_ITEM % str(number).encode() for number in range(MAX_ITEMS + 1)]
    assert said_of(items[0], b"".join(items[1:-1])) == []
    assert said_of(items[0], b"".join(items[1:-1]), b"\n" + items[-1]) == [
        f"c.d/1.conf:2: [{MAX_ITEMS}] one item too many; expected at most 4096"
    ]


def test_dropins_are_read_with_the_file_beside_them(tmp_path: Path) -> None:
    file, directory = tmp_path / "c.conf", tmp_path / "c.d"
    directory.mkdir()
    file.write_bytes(b"[general]\nregex = e\n" + PLACED_ITEM % b"b")
    (directory / "x.conf").write_bytes(PLACED_ITEM % b"a")
    config, _ = draft_config(str(file), base_dir="/", users=USERS)
    assert config is not None
    assert [(item.name, item.regex) for item in config.items] == [("b", b"e"), ("a", b"e")]
    assert config.dropins == (str(directory / "x.conf"),)


def test_a_dropin_that_cannot_be_read_refuses_the_config(tmp_path: Path) -> None:
    file, directory = tmp_path / "c.conf", tmp_path / "c.d"
    directory.mkdir()
    file.write_bytes(b"[a]\nx = 1\n")
    (directory / "0.conf").symlink_to("nowhere")
    (directory / "1.conf").write_bytes(b"[b]\npath = /x\n")
    _, problems = draft_config(str(file), base_dir="/", users=USERS)
    assert [(problem.source, problem.line) for problem in problems if not problem.warning] == [
        (str(file), 1),
        (str(file), 2),
        (str(directory / "0.conf"), 0),
    ]
    assert problems[-1].source == str(directory / "1.conf")


# --- any bytes, and JSON ---

_WORDS = [
    *OPTIONS_BY_NAME,
    *(
        "[a]",
        "[b]",
        "[general]",
        "[",
        "]",
        "\n",
        "\n",
        "\n",
        " = ",
        " = ",
        "=",
        "/",
        "5/30",
        "0/1",
        "1/0",
        "/x",
        "bob",
    ),
    *("eve", "4711", "yes", "100M", "auto", "x", " ", "\t", "\0", "#", ";", "\xff", "\udcff", "\r", "$1"),
]
SOUP = st.lists(st.sampled_from(_WORDS)).map(lambda words: "".join(words).encode("utf-8", "surrogateescape"))
VALUES = st.sampled_from(
    ["", "x", "/x", "5/30", "0/0", "7/0", "yes", "0", "1", "100M", "bob", "4711", "auto"]
)
LINES = st.tuples(st.sampled_from([*OPTIONS_BY_NAME]), VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}")
SECTIONS = st.tuples(
    st.sampled_from(["general", "a", "b"]), st.lists(LINES, unique_by=lambda line: line.split()[0])
)
FILES = st.lists(SECTIONS, unique_by=lambda section: section[0]).map(
    lambda sections: "\n".join(line for name, lines in sections for line in (f"[{name}]", *lines)).encode()
)


@examples(400)
@given(SOUP | FILES | st.binary())
def test_any_bytes_give_a_config_or_problems(data: bytes) -> None:
    config, problems = parse(data)
    lines = [problem.line for problem in problems]
    assert lines == sorted(lines)
    assert all(str(problem).isprintable() for problem in problems)
    assert len(set(problems)) == len(problems)
    assert (config is None) == any(not problem.warning for problem in problems)
    if config is not None:
        again = config_from_json(config_to_json(config))
        assert again == config
        assert places_of(again) == places_of(config)


@given(st.lists(SOUP | FILES, min_size=2, max_size=3))
def test_any_files_give_a_config_or_problems(data: list[bytes]) -> None:
    config, problems = parse_files(*data)
    names = ["c.conf", "c.d/0.conf", "c.d/1.conf"]
    places = [(names.index(problem.source), problem.line) for problem in problems]
    assert places == sorted(places)
    assert (config is None) == any(not problem.warning for problem in problems)
    if config is not None:
        order = [(names.index(item.source), item.line) for item in config.items]
        assert order == sorted(set(order))


def places_of(config: Config) -> list[object]:
    """List what equality does not look at."""
    return [
        config.lines,
        config.dropins,
        *((item.source, item.line, item.lines) for item in config.items),
    ]


ACCOUNTS = st.builds(
    Account,
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    groups=st.lists(st.integers(0, 2**32 - 2)).map(tuple),
    name=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    home=st.just("/"),
)
BYTES = st.binary().map(lambda data: data.replace(b"\0", b""))
PATHS = BYTES.map(lambda data: "/" + data.decode("utf-8", "surrogateescape"))
FREQUENCIES = st.builds(Frequency, count=st.integers(0, 10**6), seconds=st.integers(1, 31_622_400))
ITEMS = st.builds(
    Item,
    name=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1),
    path=PATHS,
    regex=BYTES.filter(bool),
    upbound_action=st.none() | BYTES,
    upbound=FREQUENCIES | st.just(EVERY_MATCH),
    downbound_action=st.none() | BYTES,
    downbound=st.none() | FREQUENCIES,
    usecrc=st.booleans(),
    size=st.none() | st.integers(1, 2**63 - 1),
    size_action=st.none() | BYTES,
    run_as=ACCOUNTS,
    action_timeout_s=st.integers(1, 86400),
    source=PATHS,
    line=st.integers(0, 2**20),
    lines=st.dictionaries(st.sampled_from([*OPTIONS_BY_NAME]), st.integers(0, 2**20)),
)
CONFIGS = st.builds(
    Config,
    source=st.just("/etc/lognot.conf"),
    athread_count=st.integers(1, 1000),
    regex_engine=st.sampled_from(["auto", "pcre", "pcre2"]),
    max_line_bytes=st.integers(1024, 16 * 1024**2),
    items=st.lists(ITEMS, max_size=3, unique_by=lambda item: item.name).map(tuple),
    lines=st.dictionaries(st.sampled_from(["uid", "regex_engine"]), st.integers(0, 2**20)),
    dropins=st.lists(PATHS, max_size=3).map(tuple),
)


@given(CONFIGS)
def test_json_loses_nothing(config: Config) -> None:
    again = config_from_json(config_to_json(config))
    assert again == config and places_of(again) == places_of(config)


GOOD = json.loads(
    config_to_json(Config("f", 2, "auto", 1024**2, (replace(ITEM, downbound=Frequency(1, 9)),)))
)


def _places(value: object, way: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """List the ways to every value inside `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, below in inner for place in _places(below, (*way, key)))]


def _changed(way: tuple[str | int, ...], value: object) -> bytes:
    changed = json.loads(json.dumps({"": GOOD}))
    place = changed
    *parents, last = ("", *way)
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(changed.get("")).encode()


@pytest.mark.parametrize("way", [way for way in _places(GOOD) if "lines" not in way and way != ("items", 0)])
def test_json_with_a_value_of_another_type_is_refused(way: tuple[str | int, ...]) -> None:
    for value in (1.5, -1, {"x": 1}, [None], "\0", "\ud800"):
        with pytest.raises(ProtocolError):
            config_from_json(_changed(way, value))


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("items", 0, "size"), ...),
        (("items", 0, "more"), 1),
        (("more",), 1),
        (("athread_count",), True),
        (("athread_count",), 1001),
        (("regex_engine",), "re"),
        (("lines",), []),
        (("lines",), {"uid": "1"}),
        (("dropins",), None),
        (("dropins",), [1]),
        (("dropins",), ["\0"]),
        (("items", 0, "source"), ...),
        (("items", 0, "name"), ""),
        (("items", 0, "path"), "x"),
        (("items", 0, "regex"), ""),
        (("items", 0, "size"), 0),
        (("items", 0, "usecrc"), 1),
        (("items", 0, "upbound"), {"count": 1, "seconds": 0}),
        (("items", 0, "upbound"), None),
        (("items", 0, "run_as", "uid"), 2**32 - 1),
        (("items",), [GOOD["items"][0]] * 2),
    ],
)
def test_json_out_of_bounds_is_refused(way: tuple[str | int, ...], value: object) -> None:
    assert config_from_json(_changed(("source",), "g")).source == "g"
    with pytest.raises(ProtocolError):
        config_from_json(_changed(way, value))


@given(st.binary() | st.text().map(str.encode))
def test_other_bytes_are_no_config(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        config_from_json(data)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"NaN", b"\xff", b"null"])
def test_json_that_is_made_to_hurt_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        config_from_json(data)


def test_reading_a_config_loads_neither_the_regex_engine_nor_anything_heavy() -> None:
    program = "import sys, lognot.config; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, env=ENV
    )
    heavy = {
        "typing",
        "configparser",
        "difflib",
        "ctypes",
        "pcre",
        "lognot.pattern",
        "lognot.check",
        "lognot.action",
    }
    assert heavy.isdisjoint(run.stdout.split())
