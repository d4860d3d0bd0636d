"""Whatever a config, its directory, its JSON and the arguments hold: a config comes out, or problems do."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import cli, start
from lognot.check import check_config
from lognot.config import Config, config_from_json, config_to_json, draft_config, parse_config
from lognot.errors import Problem, ProtocolError
from lognot.ini import Source
from lognot.options import OPTIONS, OPTIONS_BY_NAME
from unit.people import ROOT, USERS

# --- the text of a config ---

# What parsers stumble over: ends of lines and blanks that are none, half of UTF-8, numbers that are too large
# to convert, what shells and regexes nest.
ODD = [
    *(
        b"\0",
        b"\r",
        b"\r\n",
        b"\x0b",
        b"\x0c",
        b"\x1b[2J",
        b"\x1c",
        b"\x7f",
        b"\x80",
        b"\x9b",
        b"\xff",
        b"\xfe",
    ),
    *(
        b"\xc2\x85",
        b"\xc2\x9b",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
    ),
    *(
        b"\xc3",
        b"\xf4\x90\x80\x80",
        b"\xff\xfe",
        "١٢".encode(),
        "²".encode(),
        "\u017f".encode(),
        "İ".encode(),
    ),
    *(
        b"9" * 5000,
        b"-1",
        b"+1",
        b"1_000",
        b"0x10",
        b"1e9",
        b"00000000000000000000001",
        b"18446744073709551616",
    ),
    *(b"x" * 70, b"x" * 300, b"/x" * 3000, b"(" * 300, b"[" * 300, b"a{65535}" * 3, b"(?1)", b"(?R)", b"\\"),
    *(
        b"$",
        b"$1",
        b"$99",
        b"$100",
        b"$" + b"9" * 5000,
        b"$@",
        b"'",
        b'"',
        b"`",
        b"$(" * 200,
        b"<<E",
        b"#",
        b";",
    ),
    *(
        b"..",
        b"/",
        b"//",
        b"/.",
        b"~",
        b"=",
        b"]",
        b"[",
        b"[]",
        b"[general]",
        b"%(x)s",
        b"${x:-",
        b"\t",
        b" ",
        b"",
    ),
]
NAMES = st.sampled_from([option.name.encode() for option in OPTIONS])
GOOD = {
    **{name: st.just(b"yes") for name in ("usecrc",)},
    **{name: st.sampled_from([b"1", b"1B", b"16M", b"1024"]) for name in ("size", "max_line")},
    **{name: st.sampled_from([b"5/30", b"0/0", b"1000000/1"]) for name in ("upbound_freq", "downbound_freq")},
    **{name: st.sampled_from([b"0", b"bob", b"wheel", b"4711"]) for name in ("uid", "gid")},
    **{name: st.sampled_from([b"1", b"300"]) for name in ("athread_count", "action_timeout")},
    "regex_engine": st.sampled_from([b"auto", b"pcre2"]),
    "path": st.sampled_from([b"/x", b"x/y", b"/var/log/syslog"]),
    "regex": st.sampled_from([b".*", b"(a+)(b)?", rb"\d+ from (\S+)"]),
}
ACTIONS = st.sampled_from([b"", b"echo $1", b"echo '$0' \"$@\" \\$HOME", b'sh -c "$1"'])
ODD_VALUES = st.lists(st.sampled_from(ODD) | st.binary(max_size=4), max_size=3).map(b"".join)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """An option that is good, odd, or cut and joined with something odd."""
    name = draw(NAMES)
    value = draw(GOOD.get(name.decode(), ACTIONS) | ODD_VALUES)
    if draw(st.integers(0, 9)) == 0:
        value = value[: draw(st.integers(0, 9))] + draw(ODD_VALUES)
    if draw(st.integers(0, 19)) == 0:
        name += draw(ODD_VALUES)
    return name + draw(st.sampled_from([b" = ", b"=", b" =", b"\t=\t", b" "])) + value


SECTION_NAMES = (
    st.sampled_from([b"a", b"b", b"c d", b"general", b"GENERAL", b"x" * 64, "ü".encode()]) | ODD_VALUES
)
SECTIONS = st.tuples(SECTION_NAMES, st.lists(lines() | ODD_VALUES, max_size=12)).map(
    lambda section: b"\n".join((b"[" + section[0] + b"]", *section[1]))
)
CONFIGS = st.lists(SECTIONS, max_size=6).map(b"\n".join)
TEXTS = CONFIGS | st.lists(st.sampled_from(ODD)).map(b"\n".join) | st.binary()


def assert_sound(config: Config | None, problems: tuple[Problem, ...]) -> None:
    """All that is said of one config is in order, and can be printed."""
    assert len(set(problems)) == len(problems)
    for problem in problems:
        assert "\n" not in str(problem) and "\0" not in str(problem)
        assert len(problem.text) < 1000
        json.dumps([problem.source, problem.section, problem.option, problem.text])
    assert (config is None) == any(not problem.warning for problem in problems)
    if config is not None:
        assert config_from_json(config_to_json(config)) == config


@examples(150)
@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_any_texts_give_a_config_or_problems(texts: list[bytes]) -> None:
    dropins = [Source(f"f.d/{number}.conf", text) for number, text in enumerate(texts[1:])]
    config, problems = parse_config(texts[0], "f.conf", dropins=dropins, started_by=ROOT, users=USERS)
    assert_sound(config, problems)


@examples(80)
@given(CONFIGS)
def test_what_could_be_understood_of_a_config_with_errors_can_be_checked(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "f.conf"
        path.write_bytes(text)
        config, problems = draft_config(str(path), base_dir=name, users=USERS)
        assert config is not None
        found = check_config(config)
        assert all(len(str(problem)) < 5000 for problem in (*problems, *found))


def test_a_long_line_is_no_trouble_in_any_option() -> None:
    long = [
        b"x" * 2**20,
        b"9" * 2**20,
        b"(" * 2**20,
        b"/" * 2**20,
        b"\xff" * 2**20,
        b"'$(" * 2**18,
        b" \t" * 2**19,
    ]
    for name in OPTIONS_BY_NAME:
        for value in long:
            text = b"[general]\n%s = %s.\n[a]\npath = /x\n%s = %s.\n" % ((name.encode(), value) * 2)
            assert_sound(*parse_config(text, "f.conf", started_by=ROOT, users=USERS))


# --- a directory of drop-ins ---

KINDS = {
    "file": lambda path, data: path.write_bytes(data),
    "others' file": lambda path, data: (path.write_bytes(data), os.chown(path, 12345, 12345)),
    "writable file": lambda path, data: (path.write_bytes(data), path.chmod(0o666)),
    "closed file": lambda path, data: (path.write_bytes(data), path.chmod(0)),
    "sparse file": lambda path, data: (path.write_bytes(data), os.truncate(path, 2**40)),
    "directory": lambda path, data: path.mkdir(),
    "fifo": lambda path, data: os.mkfifo(path),
    "link to a fifo": lambda path, data: (os.mkfifo(f"{path}~"), path.symlink_to(f"{path}~")),
    "link to nothing": lambda path, data: path.symlink_to("nothing"),
    "link to itself": lambda path, data: path.symlink_to(path.name),
    "link to the config": lambda path, data: path.symlink_to("../f.conf"),
    "link to its directory": lambda path, data: path.symlink_to("."),
    "link to /dev/null": lambda path, data: path.symlink_to("/dev/null"),
    "link to /dev/zero": lambda path, data: path.symlink_to("/dev/zero"),
}
if os.geteuid() != 0:
    del KINDS["others' file"]
FILE_NAMES = st.binary(min_size=1, max_size=20).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")
)


@examples(40)
@given(
    TEXTS,
    st.dictionaries(
        FILE_NAMES.map(lambda name: name + b".conf"), st.tuples(st.sampled_from([*KINDS]), TEXTS)
    ),
)
def test_any_directory_gives_a_config_or_problems(
    text: bytes, entries: dict[bytes, tuple[str, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        main, directory = Path(name) / "f.conf", Path(name) / "f.d"
        main.write_bytes(text)
        directory.mkdir()
        for entry, (kind, data) in entries.items():
            KINDS[kind](directory / os.fsdecode(entry), data)
        config, problems = draft_config(str(main), base_dir=name, users=USERS)
        assert config is not None
        config_to_json(config)
        assert all(problem.source.startswith(name) for problem in problems)
        for problem in problems:
            str(problem).encode("utf-8", "surrogateescape")


# --- JSON ---


def _values(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key there."""
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _values(inner)
    return found


EXAMPLE = (
    b"[general]\nuid = bob\n[a]\npath = /x\nupbound_action = a\nsize = 1\nsize_action = b\n[b]\npath = /y\n"
    b"downbound_freq = 1/2\ndownbound_action = b\n"
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(2**64)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@examples(150)
@given(st.data())
def test_any_change_of_the_json_gives_a_config_or_an_error(data: st.DataObject) -> None:
    config, _ = parse_config(EXAMPLE, "f", started_by=ROOT, users=USERS)
    assert config is not None
    value = json.loads(config_to_json(config))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(_values(value)))
        change = data.draw(st.sampled_from(["set", "set", "delete", "add"]))
        if change == "delete":
            del holder[key]
        elif change == "set" or isinstance(holder, list):
            holder[key] = data.draw(JSON)
        else:
            holder[data.draw(st.text(max_size=5))] = data.draw(JSON)
    text = json.dumps(value).encode()
    with contextlib.suppress(ProtocolError):
        assert config_from_json(config_to_json(config_from_json(text))) == config_from_json(text)


# --- arguments ---

# As Python has them: bytes that are no UTF-8 are surrogates, and NUL cannot be in any.
TEXT = st.binary(max_size=12).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
FLAGS = ["-c", "-t", "-T", "-l", "-s", "-d", "-p", "-u", "-g", "-w", "-v", "-V", "-h", "--"]
LONG = [
    "config",
    "test",
    "retest",
    "logfile",
    "stdout",
    "daemon",
    "pid",
    "uid",
    "gid",
    "chdir",
    "verbose",
    "exec-socket",
]
ARGUMENTS = st.lists(
    st.sampled_from([*FLAGS, *(f"--{name}" for name in LONG), "--help", "--version", "--executor", "-", ""])
    | st.tuples(st.sampled_from(LONG), TEXT).map(lambda pair: f"--{pair[0]}={pair[1]}")
    | st.tuples(st.sampled_from(FLAGS), TEXT).map("".join)
    | TEXT
    | st.sampled_from(
        ["good.conf", "bad.conf", "absent.conf", "fifo", ".", "/dev/zero", "/dev/null", "a(.", "(", "root"]
    ),
    max_size=6,
)


@examples(150)
@given(ARGUMENTS, st.binary(max_size=50))
def test_any_arguments_end_with_a_status(arguments: list[str], stdin: bytes) -> None:
    status, output = run(arguments, stdin)
    assert status in (0, 1, 2)
    assert all(character == "\n" or character.isprintable() for character in output), output
    assert "Traceback" not in output


def run(arguments: list[str], stdin: bytes) -> tuple[int, str]:
    """Give the exit status and all that is printed; what would run for long does not start."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        os.chdir(name)
        Path("good.conf").write_text("[a]\npath = /x\nupbound_action = echo $0\n")
        Path("bad.conf").write_bytes(
            b"[\x1b[31ma]\npath = \xff\x9b\nregex = (\nx\n\x9b = 1\nuid = \xe2\x80\xae\n"
        )
        os.mkfifo("fifo")
        output = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace") for _ in range(2)]
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        patch.setattr(sys, "stdout", output[0])
        patch.setattr(sys, "stderr", output[1])
        patch.setattr(start, "start", lambda options: options.config == "")
        patch.setattr(start, "start_launcher", lambda options: options.config == "")
        try:
            status = int(cli.main(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os.chdir(home)
        for stream in output:
            stream.flush()
        return status, "".join(stream.buffer.getvalue().decode("utf-8") for stream in output)  # type: ignore[attr-defined]
