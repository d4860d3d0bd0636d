"""Drop-ins beside the config file: --test names them, a start and a reload read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import Service, append, lines_of, wait_for
from integration.processes import runner

Make = Callable[..., Service]

ONE = "[general]\nathread_count = 1\n"  # actions in the order of their lines
COUNTED = (
    "[COUNTED]\npath = @/log\nregex = hit.*\nupbound_freq = 3/300\nupbound_action = echo $0 >> @/fired\n"
)
ECHO = "[{0}]\npath = @/log\nregex = hit (\\d+)\nupbound_action = echo $1 >> @/{0}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def write_dropin(tmp_path: Path, name: str, text: str) -> Path:
    """Write a drop-in of the service's config; @ stands for the directory, as in the config."""
    path = tmp_path / "lognot.d" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace("@", str(tmp_path)))
    return path


def test_a_dropin_is_added_changed_and_removed_at_reloads(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(ONE + COUNTED + ECHO.format("main")).start()
    append(log, "hit 1\n")
    wait_for(lambda: lines_of(tmp_path / "main") == ["1"], "the first line")

    dropin = write_dropin(tmp_path, "a.conf", ECHO.format("added"))
    lognot.reload()
    append(log, "hit 2\n")
    wait_for(lambda: lines_of(tmp_path / "added") == ["2"], "the drop-in's item")

    write_dropin(tmp_path, "a.conf", ECHO.format("added").replace("echo $1", "echo changed $1"))
    lognot.reload()
    append(log, "hit 3\n")
    wait_for(lambda: lines_of(tmp_path / "added") == ["2", "changed 3"], "the changed item")

    dropin.unlink()
    lognot.reload()
    append(log, "hit 4\n")
    wait_for(lambda: lines_of(tmp_path / "main") == ["1", "2", "3", "4"], "the item of the config file")
    assert lines_of(tmp_path / "added") == ["2", "changed 3"]
    assert lines_of(tmp_path / "fired") == ["hit 4"]  # more than 3: no reload has reset the count
    lines = lognot.wait_log("config reloaded", 3)
    assert [re.findall(r"reloaded, (\d+) items", line) for line in lines] == [["3"], ["3"], ["2"]]


def test_an_item_that_moves_to_another_file_keeps_its_counts(
    service: Make, log: Path, tmp_path: Path
) -> None:
    mark = ECHO.format("mark")
    lognot = service(ONE + COUNTED + mark).start()
    for number, (main, dropins) in enumerate(
        [
            (ONE + mark, {"a.conf": COUNTED, "b.conf": "; nothing\n"}),
            (ONE + mark, {"a.conf": "", "b.conf": "\n" + COUNTED}),
            (ONE + mark + COUNTED, {"a.conf": "", "b.conf": ""}),
        ],
        start=1,
    ):
        append(log, f"hit {number}\n")
        wait_for(lambda n=number: len(lines_of(tmp_path / "mark")) == n, f"line {number}")
        for name, text in dropins.items():
            write_dropin(tmp_path, name, text)
        lognot.reload(main)
    assert lines_of(tmp_path / "fired") == []
    append(log, "hit 4\n")
    wait_for(lambda: lines_of(tmp_path / "fired") == ["hit 4"], "the count of all four lines")


def test_a_broken_dropin_changes_nothing_and_is_named(service: Make, log: Path, tmp_path: Path) -> None:
    write_dropin(tmp_path, "a.conf", ECHO.format("a"))
    lognot = service(ONE).start()
    append(log, "hit 1\n")
    wait_for(lambda: lines_of(tmp_path / "a") == ["1"], "a drop-in's item after the start")
    write_dropin(tmp_path, "b.conf", "[general]\nuid = root\n" + ECHO.format("a"))
    write_dropin(tmp_path, "c.conf", "[C]\npath = @/log\nregex = (\nupbound_action = true\n")  # a child tells
    (tmp_path / "lognot.d" / "d.conf").symlink_to("nowhere")
    lognot.reload()
    errors = [line for line in lognot.log.splitlines() if ": error: " in line]
    directory = re.escape(f"{tmp_path}/lognot.d/")
    expected = (
        rf"{directory}b\.conf:1: \[general\] .* expected in {re.escape(str(lognot.config_path))}$",
        rf"{directory}b\.conf:3: \[a\] this section stands at {directory}a\.conf:1 already",
        rf"{directory}c\.conf:3: \[C\] regex: ",
        rf"{directory}d\.conf: cannot read the config: No such file or directory$",
        r"config not reloaded, the old one stays in use: 4 problems$",
    )
    assert len(errors) == len(expected)
    for error, pattern in zip(errors, expected, strict=True):
        assert re.search(pattern, error), error
    append(log, "hit 2\n")
    wait_for(lambda: lines_of(tmp_path / "a") == ["1", "2"], "the old config")


def test_a_warning_of_a_dropin_names_it(service: Make, log: Path, tmp_path: Path) -> None:
    dropin = write_dropin(tmp_path, "a.conf", "\n[USELESS]\npath = @/log\n")
    lognot = service(ONE).start()
    lognot.wait_log(rf"warning: {re.escape(str(dropin))}:2: warning: \[USELESS\] nothing would ever run")


def test_a_broken_dropin_refuses_the_start(log: Path, tmp_path: Path) -> None:
    (tmp_path / "lognot.conf").write_text(ONE)
    write_dropin(tmp_path, "a.conf", "[A]\nnonsense = 1\npath = @/log\nupbound_action = true\n")
    with runner(tmp_path) as run:
        done = run("-c", "lognot.conf", "-s")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"{tmp_path}/lognot.d/a.conf:2: [A] nonsense: unknown option; see lognot.conf(5)",
        "lognot: not started, the config has errors",
    ]


def test_test_reads_them_too(log: Path, tmp_path: Path) -> None:
    (tmp_path / "lognot.conf").write_text(ONE + ECHO.format("main").replace("@", str(tmp_path)))
    dropin = write_dropin(tmp_path, "a.conf", ECHO.format("a") + ECHO.format("b"))
    with runner(tmp_path) as run:
        done = run("--test", "lognot.conf")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"lognot.conf: ok, 3 items (2 of them in 1 file in lognot.d)\n"
        dropin.write_text("[a]\npath = log\nregex = (\nupbound_action = true\n")
        done = run("--test", "lognot.conf")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"lognot.d/a.conf:3: [a] regex: ")
