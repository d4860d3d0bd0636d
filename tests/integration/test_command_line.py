"""The command line, as a shell sees it: what is printed where, and the exit status."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.conftest import as_other
from integration.harness import PYTHON, SOURCE, append, lines_of, wait_for
from integration.processes import Custom, Run, runner, stat_fields
from lognot.options import parse_max_line

GOOD = "[ITEM]\npath = log\nregex = (a+)\nupbound_action = echo $1\n"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "log").touch()
    (tmp_path / "good.conf").write_text(GOOD)
    with runner(tmp_path) as run:
        yield run


# Help.


def test_help_names_every_option(run: Run) -> None:
    for option in ("-h", "--help"):
        done = run(option)
        assert (done.returncode, done.stderr) == (0, b"")
        for name in (
            *("--help", "--config", "--logfile", "--stdout", "--daemon", "--pid", "--uid", "--gid"),
            *("--chdir", "--test", "--retest", "--verbose", "--version", "/etc/lognot.conf"),
        ):
            assert name.encode() in done.stdout, name


def test_version(run: Run) -> None:
    import lognot

    for option in ("-V", "--version"):
        done = run(option)
        assert (done.returncode, done.stdout, done.stderr) == (
            0,
            f"lognot {lognot.__version__}\n".encode(),
            b"",
        )


def test_help_needs_nothing_to_work(tmp_path: Path) -> None:
    """Neither a regex engine nor any other package."""
    command = [PYTHON, "-S", "-m", "lognot", "--help"]
    environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
    assert (
        subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode == 0
    )


# Wrong usage.


@pytest.mark.parametrize(
    "arguments",
    [
        ["--unknown"],
        ["-x"],
        ["--conf", "good.conf"],  # an abbreviation that may mean something else one day
        ["surplus"],
        ["-c"],
        ["-t"],
        ["-T"],
        ["-t", "good.conf", "-T", "a"],
        ["-p", "lognot.pid", "-c", "good.conf"],
        ["-s", "-d", "-c", "good.conf"],
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"usage: lognot ")
    assert b"lognot: error: " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.conf", "log"]


# --test.


def test_a_good_config(run: Run) -> None:
    done = run("--test", "good.conf")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"good.conf: ok, 1 item\n", b"")


def test_a_log_that_is_not_there_yet_is_a_warning(run: Run, tmp_path: Path) -> None:
    (tmp_path / "log").unlink()
    done = run("-t", "good.conf")
    assert done.returncode == 0
    assert done.stderr == (
        b"good.conf:2: warning: [ITEM] path: does not exist yet; will be watched when it appears\n"
    )
    assert done.stdout == b"good.conf: ok, 1 item\n"


BAD = """\
; every line has its own error
option = 1
[general]
athread_count = none
nonsense = 1
[ONE]
path = log
regex = a(
upbound_action = echo
[TWO]
regex = (a)
upbound_action = echo $2
upbound_freq = 5
usecrc = perhaps
[THREE]
path = log
size = 5T
size_action = true
downbound_freq = 1/0
downbound_action = true
[FOUR]
path = log
uid = nosuchuser
upbound_action = echo '
[ONE]
what is this
"""


def test_a_bad_config_shows_all_errors_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.conf").write_text(BAD)
    done = run("-t", "bad.conf")
    assert done.returncode == 1
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    numbers = [int(line.split(":")[1]) for line in lines]
    assert numbers == sorted(numbers)
    for expected in (
        "bad.conf:4: [general] athread_count: expected a whole number from 1 to 1000, got 'none'",
        "bad.conf:10: [TWO] path: is missing; expected path = FILE in every item",
        "bad.conf:13: [TWO] upbound_freq: expected COUNT/SECONDS, got '5'",
        "bad.conf:14: [TWO] usecrc: expected yes or no (1 or 0, true or false), got 'perhaps'",
        "bad.conf:17: [THREE] size: unknown unit 'T'; expected B, K, M or G, or none for bytes",
        "bad.conf:19: [THREE] downbound_freq: expected SECONDS above 0 when COUNT is, got '1/0'",
        "bad.conf:23: [FOUR] uid: there is no user 'nosuchuser'; expected a user name or number",
        "bad.conf:25: [ONE] this section stands at bad.conf:6 already; expected each name once",
    ):
        assert expected in lines
    for start in ("bad.conf:2: ", "bad.conf:5: [general] nonsense: unknown option", "bad.conf:26: "):
        assert any(line.startswith(start) for line in lines), start
    assert all(line.startswith("bad.conf:") for line in lines)


def test_what_only_the_engine_and_the_shell_know(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.conf").write_text(
        "[ONE]\npath = log\nregex = a(\nupbound_action = echo\n"
        "[TWO]\npath = log\nregex = (a)\nupbound_action = echo $2\n"
        "[THREE]\npath = log\nupbound_action = echo '\n"
        "[FOUR]\npath = /dev/null\nupbound_action = true\n"
    )
    done = run("-t", "bad.conf")
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        "bad.conf:3:",
        "bad.conf:8:",
        "bad.conf:11:",
        "bad.conf:13:",
    ]
    assert lines[0].startswith("bad.conf:3: [ONE] regex: ")
    assert lines[1] == (
        "bad.conf:8: [TWO] upbound_action: $2: the regex has only 1 group; "
        r"expected \$2 if the shell's own is meant"
    )
    assert lines[2] == "bad.conf:11: [THREE] upbound_action: unterminated '"
    assert lines[3] == "bad.conf:13: [FOUR] path: is a character device; expected a regular file"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent.conf", "cannot read the config: No such file or directory"),
        (".", "cannot read the config: Is a directory"),
        ("/dev/zero", "is longer than 16777216 bytes"),
    ],
)
def test_a_config_that_cannot_be_read(run: Run, path: str, reason: str) -> None:
    for option in ("-t", "-c"):
        done = run(option, path)
        assert done.returncode == 1
        assert reason in done.stderr.decode()
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(Path("/etc/lognot.conf").exists(), reason="lognot is installed here")
def test_without_a_config_it_does_not_start(run: Run) -> None:
    done = run()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        b"/etc/lognot.conf: cannot read the config: No such file or directory",
        b"lognot: not started, the config has errors",
    ]


def test_a_bad_config_does_not_start_and_shows_all_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.conf").write_text(BAD)
    tried, started = run("-t", str(tmp_path / "bad.conf")), run("-c", "bad.conf")
    assert started.returncode == 1
    expected = tried.stderr.decode().splitlines()
    assert started.stderr.decode().splitlines() == [*expected, "lognot: not started, the config has errors"]
    assert not run.processes()


def test_test_takes_overrides_and_a_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert run("-t", "good.conf", "-u", "nosuchuser").returncode == 1
    assert run("-t", "good.conf", "-g", "nosuchgroup").stderr == (
        b"command line: --gid: there is no group 'nosuchgroup'; expected a group name or number\n"
    )
    done = run("-t", "good.conf", "-w", "elsewhere")
    assert (done.returncode, b"does not exist yet" in done.stderr) == (0, True)


@pytest.mark.root
def test_test_needs_no_root(open_dir: Path) -> None:
    """What a config says of users is checked, but nobody has to be able to become them."""
    prefix = as_other("nobody", open_dir)
    with tempfile.NamedTemporaryFile(prefix="lognot-test-") as config:
        config.write(
            b"[ITEM]\npath = /var/log/lognot-absent\nuid = root\nregex = (a)\nupbound_action = echo $1\n"
        )
        config.flush()
        os.fchmod(config.fileno(), 0o644)
        done = subprocess.run(
            [*prefix, PYTHON, "-m", "lognot", "-t", config.name],
            env={"PYTHONPATH": str(open_dir / "src"), "PATH": os.environ["PATH"]},
            capture_output=True,
            check=False,
            timeout=60,
            cwd="/",
        )
    assert (done.returncode, done.stdout) == (0, f"{config.name}: ok, 1 item\n".encode())


# --retest.


def test_retest_shows_each_group_of_each_line(run: Run) -> None:
    done = run("--retest", r"(\w+)@(\w+)?", data=b"eve@home\nnothing\r\nbob@\n\nlast@line")
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == [
        "1: $0 = eve@home",
        "1: $1 = eve",
        "1: $2 = home",
        "2: no match",
        "3: $0 = bob@",
        "3: $1 = bob",
        "3: $2 = ",
        "4: no match",
        "5: $0 = last@line",
        "5: $1 = last",
        "5: $2 = line",
    ]


def test_retest_takes_bytes_that_are_no_text(run: Run) -> None:
    done = run("-T", r"\xff(.)", data=b"a\xffb\0c\n")
    assert done.stdout == b"1: $0 = \\xffb\n1: $1 = b\n"


@pytest.mark.parametrize(("data", "status"), [(b"no\nno\n", 1), (b"", 1), (b"no\na\n", 0)])
def test_retest_says_whether_anything_matched(run: Run, data: bytes, status: int) -> None:
    assert run("-T", "a", data=data).returncode == status


def test_retest_of_a_regex_that_does_not_compile(run: Run) -> None:
    done = run("-T", "a(", data=b"a\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"lognot: regex: ")


def test_retest_goes_on_after_a_line_that_costs_too_much(run: Run) -> None:
    done = run("-T", "(a+)+$", data=b"a" * 50 + b"b\na\n")
    assert done.returncode == 0
    first, *others = done.stdout.decode().splitlines()
    assert first.startswith("1: no match, the regex gave up: ")
    assert others == ["2: $0 = a", "2: $1 = a"]


def test_retest_cuts_a_line_where_the_service_does(run: Run) -> None:
    """A hole in a log is a line of any length: `truncate -s 16T`."""
    long = b"x" * parse_max_line("1M")
    done = run("-T", "hit", data=long + b"hit\n" + long[3:] + b"hit\nhit\n")
    assert done.stdout == b"1: no match\n2: $0 = hit\n3: $0 = hit\n"


def test_retest_answers_line_by_line(tmp_path: Path) -> None:
    """Who types a line, or pipes a log that grows, sees at once what came of it."""
    with subprocess.Popen(
        [PYTHON, "-m", "lognot", "-T", "a"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"a\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"$0 = a\n")
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_reader_that_has_seen_enough_is_no_error_to_shout_about(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [PYTHON, "-m", "lognot", "-T", "a"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": ""},
        input=b"a\n" * 1000,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-t", "good.conf"], ["-T", "x"]])
def test_output_that_cannot_be_written_is_said_in_a_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "good.conf").write_text(GOOD)
    (tmp_path / "log").touch()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [PYTHON, "-m", "lognot", *arguments],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            input=b"x\n",
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, b"lognot: No space left on device\n")


def test_closed_descriptors_are_no_reason_for_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "good.conf").write_text(GOOD)
    (tmp_path / "log").touch()
    for script, status in (
        ('"$@" -T x <&-', 1),
        ('echo x | "$@" -T x >&-', 0),
        ('"$@" -t good.conf >&- 2>&-', 0),
    ):
        done = subprocess.run(
            ["sh", "-c", script, "sh", PYTHON, "-m", "lognot"],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            cwd=tmp_path,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (status, b""), script


@pytest.mark.parametrize("option", ["-t", "-c"])
def test_the_working_directory_may_be_gone(option: str) -> None:
    gone = tempfile.mkdtemp()
    script = 'cd "$1"; rmdir "$1"; shift; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", gone, PYTHON, "-m", "lognot", option, "good.conf"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert re.fullmatch(rb"lognot: (not started: )?No such file or directory\n", done.stderr)


def test_interrupting_it_shows_no_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [PYTHON, "-m", "lognot", "-T", "a"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` has it ignored
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stdout.readline()
        wait_for(lambda: stat_fields(process.pid)[0] == b"S", "it to wait for the next line")
        process.send_signal(signal.SIGINT)
        process.wait(20)  # while the input is open still: its end might come first
        _, errors = process.communicate()
    assert (process.returncode, errors) == (1, b"")


# The service's options.


@pytest.mark.root
@pytest.mark.parametrize("by", ["name", "number"])
def test_uid_and_gid_override_the_config(tmp_path: Path, by: str) -> None:
    daemon, games = pwd.getpwnam("daemon"), pwd.getpwnam("games")
    gid = "games" if by == "name" else str(games.pw_gid)
    uid = "daemon" if by == "name" else str(daemon.pw_uid)
    (tmp_path / "log").touch()
    lognot = Custom(
        tmp_path,
        "[general]\nuid = nosuchuser\n[ITEM]\npath = @/log\ngid = root\nuid = root\n"
        "upbound_action = echo $(id -u) $(id -g)\n".replace("$(", "\\$("),
        *("-u", uid, "-g", gid),
    )
    try:
        lognot.start()
        append(tmp_path / "log", "x\n")
        lognot.wait_log(rf"says: {daemon.pw_uid} {games.pw_gid}$")
    finally:
        lognot.end()


def test_chdir_is_where_relative_paths_and_actions_begin(run: Run, tmp_path: Path) -> None:
    """The config and the log file are the caller's, as everywhere."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "log").touch()
    (tmp_path / "rel.conf").write_text("[ITEM]\npath = log\nupbound_action = pwd > out\n")
    done = run("-c", "rel.conf", "-w", "here", "-l", "own.log", "-p", "lognot.pid", "-d")
    assert (done.returncode, done.stderr) == (0, b"")
    append(tmp_path / "here" / "log", "x\n")
    wait_for(lambda: lines_of(tmp_path / "here" / "out") == [str(tmp_path / "here")], "the action")
    pid = int((tmp_path / "lognot.pid").read_text())
    os.kill(pid, signal.SIGUSR1)  # finds its config again
    wait_for(lambda: "config reloaded" in (tmp_path / "own.log").read_text(), "the reload")


def test_without_chdir_relative_paths_begin_where_it_was_started(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rel.conf").write_text("[ITEM]\npath = ./log\nupbound_action = pwd\n")
    assert run("-c", "rel.conf", "-l", "own.log", "-d").returncode == 0
    append(tmp_path / "log", "x\n")
    wait_for(lambda: "says: /\n" in (tmp_path / "own.log").read_text(), "the action, in /")


def test_it_runs_as_a_program_of_its_own(tmp_path: Path) -> None:
    """What an installed `lognot` does: call main() and exit with what it gives."""
    code = "import sys; from lognot.cli import main; sys.exit(main())"
    done = subprocess.run(
        [PYTHON, "-c", code, "-t", "absent"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"absent: cannot read the config: No such file or directory\n"
