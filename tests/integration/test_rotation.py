"""Every way in which logs are rotated, while a writer goes on: no line is lost, none is seen twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from integration import accounts
from integration.harness import Service, append, lines_of, wait_for
from integration.writer import (
    REGEX,
    Writer,
    assert_each_line_once,
    counting_items,
    has_open,
    held,
    wait_has_open,
)

LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
LINES = 2400
PAUSE_S = 0.0002  # 1,000 to 3,000 lines a second
ROTATIONS = 8
LATE = 30  # lines that a writer still writes into a file that was rotated away

Rotate = Callable[[Path, Writer, int], None]


def rename_and_create(log: Path, writer: Writer, number: int) -> None:
    """As logrotate's `create`; the daemon is told a little later."""
    log.rename(log.with_name(f"log.{number}"))
    log.touch()
    writer.reopen(after=LATE)


def rename_and_let_the_writer_create(log: Path, writer: Writer, number: int) -> None:
    """As logrotate's `nocreate`."""
    log.rename(log.with_name(f"log.{number}"))
    writer.reopen(after=LATE)


def rename_at_once_and_create(log: Path, writer: Writer, number: int) -> None:
    """The name never leads nowhere: the new file replaces the old one."""
    log.with_name("new").touch()
    os.link(log, log.with_name(f"log.{number}"))
    log.with_name("new").rename(log)
    writer.reopen(after=LATE)


def delete_and_create(log: Path, writer: Writer, number: int) -> None:
    log.unlink()
    log.touch()
    writer.reopen(after=LATE)


def delete_and_let_it_appear_later(log: Path, writer: Writer, number: int) -> None:
    log.unlink()
    writer.reopen(after=5 * LATE)


def switch_a_symlink_and_back(log: Path, writer: Writer, number: int) -> None:
    """Between two targets, so that each comes back, with lines that were read before."""
    if not log.is_symlink():
        log.rename(log.with_name("target 0"))
    log.with_name("new").symlink_to(f"target {(number + 1) % 2}")
    log.with_name(f"target {(number + 1) % 2}").touch()
    log.with_name("new").rename(log)
    writer.reopen(after=LATE)


def move_the_directory_and_make_it_again(log: Path, writer: Writer, number: int) -> None:
    log.parent.rename(log.parent.with_name(f"moved {number}"))
    log.parent.mkdir()
    writer.reopen(after=LATE)


def move_a_directory_above_and_make_it_again(log: Path, writer: Writer, number: int) -> None:
    above = log.parent.parent
    above.rename(above.with_name(f"moved {number}"))
    log.parent.mkdir(parents=True)
    writer.reopen(after=LATE)


def switch_a_directory(log: Path, writer: Writer, number: int) -> None:
    """The directory is a symlink, and each day has its own."""
    if not log.parent.is_symlink():
        log.parent.rename(log.parent.with_name("day 0"))
        log.parent.symlink_to("day 0")
    log.parent.with_name(f"day {number + 1}").mkdir()
    log.parent.with_name("new").symlink_to(f"day {number + 1}")
    log.parent.with_name("new").rename(log.parent)
    writer.reopen(after=LATE)


@pytest.mark.parametrize(
    "rotate",
    [
        rename_and_create,
        rename_and_let_the_writer_create,
        rename_at_once_and_create,
        delete_and_create,
        delete_and_let_it_appear_later,
        switch_a_symlink_and_back,
        move_the_directory_and_make_it_again,
        move_a_directory_above_and_make_it_again,
        switch_a_directory,
    ],
)
def test_each_line_is_seen_once(service: Callable[..., Service], tmp_path: Path, rotate: Rotate) -> None:
    log = tmp_path / "above" / "logs" / "log"
    log.parent.mkdir(parents=True)
    log.touch()
    lognot = service(counting_items(str(log), LINES)).start()
    with Writer(log, LINES, PAUSE_S, allowed=0) as writer:
        for number in range(ROTATIONS):
            writer.round(number, ROTATIONS)
            wait_has_open(lognot.pid, log)
            rotate(log, writer, number)
        writer.finish()
    assert_each_line_once(lognot)


def test_a_log_that_appears_only_later(service: Callable[..., Service], tmp_path: Path) -> None:
    log = tmp_path / "not" / "yet" / "log"
    lognot = service(counting_items(str(log), LINES)).start()
    lognot.wait_log("is not there yet")
    with Writer(log, LINES, PAUSE_S) as writer:
        log.parent.mkdir(parents=True)
        writer.finish()
    assert_each_line_once(lognot)


# Truncation. Lines that are truncated away before anybody could look cannot be seen by anyone.


def _echo_each(path: Path) -> str:
    return (
        "[general]\nathread_count = 4\n"
        f"[EACH]\npath = {path}\nregex = {REGEX}\nupbound_action = echo $1 >> {path.parent.parent}/out\n"
    )


def _copytruncate_under_a_writer(
    lognot: Service, log: Path, out: Path, lines: int, rotations: int, copytruncate: Callable[[], None]
) -> None:
    """Truncate again and again; each time, only what was not seen yet when it began may be missing."""
    seen_before: list[set[int]] = []

    def seen() -> set[int]:
        return {int(line) for line in lines_of(out)}

    with Writer(log, lines, pause_s=0.003, allowed=0) as writer:
        for number in range(rotations):
            writer.round(number, rotations)
            wait_for(lambda: max(seen(), default=-1) >= writer.written - 2, "lognot keeps up")
            seen_before.append(seen())
            copytruncate()
        writer.finish()
    may_be_missing: set[int] = set()
    first = 0
    for last, before in zip(writer.last_before_truncation(), seen_before, strict=True):
        may_be_missing |= set(range(first, last + 1)) - before
        first = last + 1
    must = set(range(lines)) - may_be_missing
    assert len(must) > lines / 2  # else this says nothing
    wait_for(lambda: must <= seen(), "all that can be seen")
    assert lognot.stop() == 0
    found = [int(line) for line in lines_of(out)]
    assert len(found) == len(set(found))
    assert must <= set(found) <= set(range(lines))
    assert "was truncated" in lognot.log


def test_copytruncate(service: Callable[..., Service], tmp_path: Path, lone_log: Path) -> None:
    lognot = service(_echo_each(lone_log)).start()

    def copytruncate() -> None:
        shutil.copyfile(lone_log, tmp_path / "copy")
        os.truncate(lone_log, 0)

    _copytruncate_under_a_writer(lognot, lone_log, tmp_path / "out", 400, 8, copytruncate)


def test_a_truncation_that_has_grown_past_what_was_read(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    """The monitor is held meanwhile, so that it surely finds a longer file than it left."""
    log = tmp_path / "log"
    log.touch()
    marker = f"[READ]\npath = {log}\nregex = ^line 99$\nupbound_action = true\n"
    lognot = service(counting_items(str(log), 1100) + marker).start()
    append(log, "".join(f"line {number}\n" for number in range(100)))
    lognot.wait_log(r"\[READ\] fired")
    with held(lognot.role("monitor")):
        os.truncate(log, 0)
        append(log, "".join(f"line {number}\n" for number in range(100, 1100)))
    assert_each_line_once(lognot)


# logrotate itself.

needs_logrotate = pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate")


def _logrotate(directory: Path, log: Path, *directives: str) -> None:
    config = directory / "logrotate.conf"
    config.write_text(f"{log} {{\n  size 1\n  rotate 100\n  " + "\n  ".join(directives) + "\n}\n")
    config.chmod(0o644)
    assert LOGROTATE is not None
    command = [LOGROTATE, "--state", str(directory / "state"), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


@needs_logrotate
@pytest.mark.parametrize(
    "directives",
    [("create",), ("create", "compress", "delaycompress"), ("nocreate", "delaycompress", "compress")],
    ids="-".join,
)
def test_logrotate(
    service: Callable[..., Service], tmp_path: Path, lone_log: Path, directives: tuple[str, ...]
) -> None:
    lognot = service(counting_items(str(lone_log), LINES)).start()
    with Writer(lone_log, LINES, PAUSE_S, allowed=0) as writer:
        for number in range(ROTATIONS):
            writer.round(number, ROTATIONS)
            wait_has_open(lognot.pid, lone_log)
            _logrotate(tmp_path, lone_log, *directives)
            writer.reopen(after=LATE)
        writer.finish()
    rotated = sorted(path.suffix for path in lone_log.parent.iterdir() if path != lone_log)
    assert len(rotated) == ROTATIONS
    assert rotated.count(".gz") == (ROTATIONS - 1 if "compress" in directives else 0)
    assert_each_line_once(lognot)


@needs_logrotate
def test_logrotate_compresses_at_once(
    service: Callable[..., Service], tmp_path: Path, lone_log: Path
) -> None:
    """The writer has to be told before that, by the postrotate script, as logrotate(8) says."""
    lognot = service(counting_items(str(lone_log), LINES)).start()
    with Writer(lone_log, LINES, PAUSE_S, allowed=0) as writer:
        for number in range(ROTATIONS):
            writer.round(number, ROTATIONS)
            wait_has_open(lognot.pid, lone_log)
            hup = f"kill -HUP {writer.pid}"
            _logrotate(tmp_path, lone_log, "create", "compress", "postrotate", hup, "endscript")
        writer.finish()
    assert len(list(lone_log.parent.glob("*.gz"))) == ROTATIONS
    assert_each_line_once(lognot)


@needs_logrotate
def test_logrotate_copytruncate(service: Callable[..., Service], tmp_path: Path, lone_log: Path) -> None:
    lognot = service(_echo_each(lone_log)).start()
    _copytruncate_under_a_writer(
        lognot,
        lone_log,
        tmp_path / "out",
        400,
        6,
        lambda: _logrotate(tmp_path, lone_log, "copytruncate", "compress"),
    )


# Several rotations before anybody has looked.


def number_the_files(log: Path) -> None:
    """The newest has the largest number."""
    log.rename(log.with_name(f"log.{len(os.listdir(log.parent))}"))


def move_the_files_up(log: Path) -> None:
    """The newest is 1, as with logrotate."""
    for number in range(len(os.listdir(log.parent)) - 1, 0, -1):
        log.with_name(f"log.{number}").rename(log.with_name(f"log.{number + 1}"))
    log.rename(log.with_name("log.1"))


def compress_the_one_before(log: Path) -> None:
    """As logrotate's `compress` and `delaycompress`; the file that lognot knows is compressed meanwhile."""
    last = log.with_name("log.1")
    if last.exists():
        subprocess.run(["gzip", last], check=True)
    log.rename(last)


@pytest.mark.parametrize("role", ["supervisor", "monitor"])
@pytest.mark.parametrize(
    ("rotate", "rotations"), [(number_the_files, 3), (move_the_files_up, 3), (compress_the_one_before, 2)]
)
def test_several_rotations_while_nobody_looks(
    service: Callable[..., Service],
    lone_log: Path,
    rotate: Callable[[Path], None],
    rotations: int,
    role: str,
) -> None:
    """The files in between were never seen under the log's name."""
    lognot = service(counting_items(str(lone_log), 10 * (rotations + 1))).start()
    with held(lognot.pid if role == "supervisor" else lognot.role(role)):
        for number in range(rotations + 1):
            if number:
                rotate(lone_log)
            append(lone_log, "".join(f"line {line}\n" for line in range(10 * number, 10 * number + 10)))
    assert_each_line_once(lognot)
    assert lognot.log.count("was rotated twice before it was looked at") == rotations - 1
    account = f"rotated while the {role} stands still: {rotate.__name__}"
    accounts.fault(account, times=rotations, written=10 * (rotations + 1), seen=10 * (rotations + 1))


@pytest.mark.parametrize(
    ("rotate", "rotations"), [(number_the_files, 300), (move_the_files_up, 60)], ids=["number", "move"]
)
def test_rotations_faster_than_anybody_looks(
    service: Callable[..., Service], lone_log: Path, rotate: Callable[[Path], None], rotations: int
) -> None:
    lognot = service(counting_items(str(lone_log), 5 * rotations)).start()
    for number in range(rotations):
        if number:
            rotate(lone_log)
        append(lone_log, "".join(f"line {line}\n" for line in range(5 * number, 5 * number + 5)))
    assert_each_line_once(lognot)
    account = f"rotated faster than anybody looks: {rotate.__name__}"
    accounts.fault(account, times=rotations, written=5 * rotations, seen=5 * rotations)


@pytest.mark.parametrize("rotate", [number_the_files, move_the_files_up])
def test_a_stop_right_after_rotations(
    service: Callable[..., Service], lone_log: Path, rotate: Callable[[Path], None]
) -> None:
    """What was written before the stop is read, in files too that nobody has looked at by then."""
    lognot = service(counting_items(str(lone_log), 50)).start()
    for number in range(10):
        if number:
            rotate(lone_log)
        append(lone_log, "".join(f"line {line}\n" for line in range(5 * number, 5 * number + 5)))
    assert lognot.stop() == 0
    assert lognot.log.count("[ALL] fired") == 1
    assert "[TWICE] fired" not in lognot.log


@pytest.mark.parametrize("rotate", [number_the_files, move_the_files_up])
def test_several_rotations_while_there_is_no_monitor(
    service: Callable[..., Service], lone_log: Path, rotate: Callable[[Path], None]
) -> None:
    """Nobody was told of the names; they and the times tell."""
    lognot = service(counting_items(str(lone_log), 40)).start()
    with held(lognot.pid):
        append(lone_log, "".join(f"line {line}\n" for line in range(10)))
        os.kill(lognot.role("monitor"), signal.SIGKILL)
        for number in range(1, 4):
            rotate(lone_log)
            append(lone_log, "".join(f"line {line}\n" for line in range(10 * number, 10 * number + 10)))
    assert_each_line_once(lognot)


# What it costs.


def test_descriptors_and_watches_do_not_grow(service: Callable[..., Service], lone_log: Path) -> None:
    lognot = service(counting_items(str(lone_log), 51)).start()
    monitor = lognot.role("monitor")

    def files(pid: int) -> int:
        found = [_target(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        return sum(name.startswith(str(lone_log.parent)) for name in found)

    def in_use() -> tuple[int, int, int]:
        counts = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (lognot.pid, monitor)]
        return counts[0], counts[1], _watches(lognot.pid)

    append(lone_log, "line 0\n")
    before = (0, 0, 0)
    for number in range(1, 51):
        lone_log.rename(lone_log.with_name(f"log.{number}"))
        append(lone_log, f"line {number}\n")
        wait_for(lambda: has_open(monitor, lone_log), "the new file in the monitor")
        if number == 1:
            wait_for(lambda: (files(lognot.pid), files(monitor)) == (1, 1), "the first file is let go")
            before = in_use()
    wait_for(lambda: (files(lognot.pid), files(monitor)) == (1, 1), "the old files are let go")
    # One of another kind may have come since, from the executor; 49 rotations would leave more.
    assert max(now - then for now, then in zip(in_use(), before, strict=True)) < 5
    assert_each_line_once(lognot)


def _target(fd: Path) -> str:
    with suppress(FileNotFoundError):
        return os.readlink(fd)
    return ""


def _watches(pid: int) -> int:
    count = 0
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += entry.read_text().count("inotify wd:")
    return count
