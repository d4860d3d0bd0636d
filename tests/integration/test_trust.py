"""Started as root: a config that others can change is refused, by every way to a config, with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import SOURCE, Service, append, lines_of, wait_for
from integration.processes import runner

pytestmark = pytest.mark.root

ITEM = "[ITEM]\npath = @/log\nregex = user (.*)\nupbound_action = echo $1 >> @/out\n"
WRONG = "can be written by others; expected that only root can change it (chmod go-w)"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").touch()
    return tmp_path / "log"


def test_a_config_that_others_can_write_is_refused(tmp_path: Path, log: Path) -> None:
    config = tmp_path / "lognot.conf"
    config.write_text(ITEM.replace("@", str(tmp_path)))
    config.chmod(0o666)
    refused = f"{config}: refused as root: '{config}' {WRONG}\n".encode()
    with runner(tmp_path, "env", "-i", f"PYTHONPATH={SOURCE}") as run:  # as cron and sudo start it
        tried, started = run("-t", "lognot.conf"), run("-c", "lognot.conf")
        assert (tried.returncode, tried.stdout) == (1, b"")
        assert tried.stderr == refused.replace(f"{config}: ".encode(), b"lognot.conf: ", 1)
        assert (started.returncode, started.stdout) == (1, b"")
        assert started.stderr == refused + b"lognot: not started, the config has errors\n"
        config.chmod(0o644)
        assert run("-t", "lognot.conf").returncode == 0


def test_a_reload_of_one_changes_nothing(service: Callable[..., Service], tmp_path: Path, log: Path) -> None:
    (tmp_path / "lognot.d").mkdir()
    lognot = service(ITEM + "upbound_freq = 1/300\n").start()
    append(log, "user one\n")
    lognot.wait_log("watching log")
    for path in (tmp_path / "lognot.d", tmp_path, lognot.config_path):
        mode = path.stat().st_mode & 0o7777
        path.chmod(0o777)
        lognot.reload()
        lognot.wait_log(f"refused as root: '{path}' {WRONG}".replace("(", r"\(").replace(")", r"\)"))
        path.chmod(mode)
    assert lognot.log.count("config not reloaded, the old one stays in use") == 3
    append(log, "user two\n")  # the count is kept
    wait_for(lambda: lines_of(tmp_path / "out") == ["two"], "the action")
    lognot.reload()
    lognot.wait_log("config reloaded")


@pytest.mark.parametrize(
    "script",
    [
        'cat lognot.conf | "$@" --test /dev/stdin',
        '"$@" --test /dev/stdin <lognot.conf',
        '"$@" --test <(cat lognot.conf)',
    ],
)
def test_what_is_passed_open_is_the_choice_of_who_passes_it(tmp_path: Path, log: Path, script: str) -> None:
    (tmp_path / "lognot.conf").write_text(ITEM.replace("@", str(tmp_path)))
    (tmp_path / "lognot.conf").chmod(0o666)
    with runner(tmp_path, "bash", "-c", script, "bash") as run:
        done = run()
        assert (done.returncode, done.stderr) == (0, b"")
        assert b": ok, 1 item" in done.stdout


@pytest.fixture
def bobs(tmp_path: Path) -> Path:
    """A directory that another user can write to."""
    directory = tmp_path / "bobs"
    directory.mkdir()
    os.chown(directory, 12345, 12345)
    return directory


def test_the_log_file_is_not_led_elsewhere(tmp_path: Path, log: Path, bobs: Path) -> None:
    """Nor after a rotation, by whoever may write to its directory."""
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (bobs / "own.log").symlink_to(victim)
    (tmp_path / "lognot.conf").write_text(ITEM.replace("@", str(tmp_path)))
    with runner(tmp_path) as run:
        done = run("-c", "lognot.conf", "-l", "bobs/own.log")
    assert done.returncode == 1
    said = f"lognot: not started: '{bobs}/own.log': leads over a symbolic link, though "
    assert said.encode() in done.stderr
    assert victim.read_text() == "precious\n"


@pytest.fixture
def victim(tmp_path: Path, bobs: Path) -> Path:
    """A directory of root's, of which no other may decide that we write there, and bob's link to it."""
    directory = tmp_path / "victim"
    directory.mkdir(mode=0o700)
    for name in ("state.json", "lognot.pid"):
        (directory / name).write_text("precious\n")
    (bobs / "link").symlink_to(directory)
    return directory


def assert_untouched(victim: Path) -> None:
    assert {path.name: path.read_text() for path in victim.iterdir()} == {
        "state.json": "precious\n",
        "lognot.pid": "precious\n",
    }


@pytest.mark.parametrize("state_dir", ["link", "link/below/it", "new"])
def test_the_state_directory_is_not_led_elsewhere(
    service: Callable[..., Service], tmp_path: Path, log: Path, bobs: Path, victim: Path, state_dir: str
) -> None:
    config = f"[general]\nstate_dir = {bobs}/{state_dir}\n{ITEM}resume = yes\n".replace("@", str(tmp_path))
    (tmp_path / "lognot.conf").write_text(config)
    with runner(tmp_path) as run:
        done = run("-c", "lognot.conf")
    assert done.returncode == 1
    refused = f"the state directory '{bobs}/{state_dir}' is refused as root: '{bobs}' belongs to user 12345"
    assert f"lognot: not started: {refused}" in done.stderr.decode()
    # One that does not resume has no use for it.
    lognot = service(config.replace("resume = yes", "resume = no")).start()
    assert lognot.stop() == 0
    assert_untouched(victim)
    assert [path.name for path in bobs.iterdir()] == ["link"]


def test_the_pid_file_is_not_led_elsewhere(tmp_path: Path, log: Path, bobs: Path, victim: Path) -> None:
    (tmp_path / "lognot.conf").write_text(ITEM.replace("@", str(tmp_path)))
    with runner(tmp_path) as run:
        done = run("-c", "lognot.conf", "-d", "-p", "bobs/link/lognot.pid")
    assert done.returncode == 1
    said = f"lognot: not started: '{bobs}/link/lognot.pid': leads over a symbolic link, though "
    assert said.encode() in done.stderr
    assert_untouched(victim)
