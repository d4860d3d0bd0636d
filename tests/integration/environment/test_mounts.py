"""What is mounted on the way to a log comes and goes; kinds of file systems; no /proc."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from integration import accounts
from integration.environment.namespaces import in_mounts, inside, own_mounts
from integration.harness import append, wait_for
from integration.processes import Custom, runner
from integration.writer import assert_each_line_once, counting_items, held, open_files, wait_has_open

Make = Callable[..., Custom]

pytestmark = pytest.mark.root


def numbers(begin: int, end: int) -> str:
    return "".join(f"line {number}\n" for number in range(begin, end))


def has_open_of(pid: int, device: int) -> bool:
    """Say whether a process has anything of a file system open, also where no path leads to it any more."""
    return any(status.st_dev == device for status in open_files(pid))


def test_a_file_system_that_is_unmounted_and_mounted(custom: Make, tmp_path: Path) -> None:
    """It is busy as long as lognot reads a log on it, so `umount -l`; then another one, and one over that."""
    place = tmp_path / "place"
    place.mkdir()
    log = place / "log"
    mount = f"mount -t tmpfs -o mode=755 one {place}"
    seen = f"[SEEN]\npath = {log}\nregex = ^line (399|449)$\nupbound_action = echo $1\n"
    config = counting_items(str(log), 500) + seen
    lognot = custom(config, prefix=own_mounts(f"{mount} && touch {log}")).start()
    pid = lognot.pid
    append(inside(pid, log), numbers(0, 100))
    busy = subprocess.run(
        ["nsenter", f"--target={pid}", "--mount", "umount", place], capture_output=True, check=False
    )
    assert b"busy" in busy.stderr
    with inside(pid, log).open("ab", buffering=0) as writer:
        device = os.fstat(writer.fileno()).st_dev
        in_mounts(pid, "umount", "-l", str(place))
        writer.write(numbers(100, 150).encode())  # it is gone for everybody but its writer
        lognot.wait_log("is not there yet")
        assert has_open_of(pid, device)
        writer.write(numbers(150, 200).encode())
    wait_for(lambda: not has_open_of(pid, device), "the old file system is let go")
    in_mounts(
        pid, "sh", "-c", f"mount -t tmpfs -o mode=755 two {place} && mkdir {place}/sub && touch {place}/log"
    )
    device = inside(pid, log).stat().st_dev
    append(inside(pid, log), numbers(200, 300))
    wait_has_open(lognot.role("monitor"), inside(pid, log))
    # Another one over it, and away again: the log is where it was, and goes on where it was read to.
    in_mounts(pid, "sh", "-c", f"mount -t tmpfs -o mode=755 over {place} && touch {place}/log")
    append(inside(pid, log), numbers(300, 350))
    wait_has_open(lognot.role("monitor"), inside(pid, log))
    append(inside(pid, log), numbers(350, 400))
    lognot.wait_log(r"\[SEEN\] says: 399")
    in_mounts(pid, "umount", "-l", str(place))
    append(inside(pid, log), numbers(400, 450))
    lognot.wait_log(r"\[SEEN\] says: 449")
    in_mounts(pid, "umount", "-l", str(place))  # and the directory itself, which was below them all
    wait_for(lambda: not has_open_of(pid, device), "the file system in between is let go")
    inside(pid, place).rmdir()
    inside(pid, place).mkdir()
    append(inside(pid, log), numbers(450, 500))
    assert_each_line_once(lognot)
    accounts.fault("file system mounted, mounted over, unmounted", times=5, written=500, seen=500)


def test_a_file_system_that_is_read_only_for_a_while(custom: Make, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    log = place / "log"
    mount = f"mount -t tmpfs -o mode=755 one {place}"
    lognot = custom(counting_items(str(log), 300), prefix=own_mounts(f"{mount} && touch {log}")).start()
    pid = lognot.pid
    for number in range(3):
        wait_has_open(lognot.role("monitor"), inside(pid, log))
        append(inside(pid, log), numbers(number * 100, number * 100 + 100))
        in_mounts(pid, "mount", "-o", "remount,ro", str(place))
        with pytest.raises(OSError, match="Read-only"):
            append(inside(pid, log), "line 0\n")
        in_mounts(pid, "mount", "-o", "remount,rw", str(place))
        inside(pid, log).rename(inside(pid, log).with_suffix(f".{number}"))
        inside(pid, log).touch()
    assert_each_line_once(lognot)
    accounts.fault("remounted read-only and back, rotated", times=3, written=300, seen=300)


def _image(directory: Path, kind: str, size_mb: int = 8) -> str:
    """Make a file system in a file, and give the command that mounts it."""
    if not shutil.which(f"mkfs.{kind}"):
        pytest.skip(f"needs mkfs.{kind}")
    image = directory / kind
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
    return f"mount -o loop {image} {directory}/place"


OVERLAY = (
    "mount -t tmpfs -o mode=755 lower {d}/lower && echo history >{d}/lower/log && "
    "mount -t tmpfs upper {d}/upper && mkdir {d}/upper/data {d}/upper/work && mount -t overlay "
    "-o lowerdir={d}/lower,upperdir={d}/upper/data,workdir={d}/upper/work{options} overlay {d}/place"
)


@pytest.mark.parametrize("kind", ["ext4", "overlay", "overlay,xino=on", "overlay,redirect_dir=on", "tmpfs"])
def test_logs_on_file_systems(custom: Make, tmp_path: Path, kind: str) -> None:
    """On overlayfs the log is in the lower layer: the first line that is written copies it up."""
    for name in ("place", "lower", "upper"):
        (tmp_path / name).mkdir()
    if kind.startswith("overlay"):
        mount = OVERLAY.format(d=tmp_path, options=kind.removeprefix("overlay"))
    elif kind == "tmpfs":
        mount = f"mount -t tmpfs -o mode=755 tmpfs {tmp_path}/place && echo history >{tmp_path}/place/log"
    else:
        mount = (
            f"{_image(tmp_path, kind)} && chmod 755 {tmp_path}/place && echo history >{tmp_path}/place/log"
        )
    log = tmp_path / "place" / "log"
    lognot = custom(counting_items(str(log), 400), prefix=own_mounts(mount))
    lognot.start()
    pid = lognot.pid
    here = inside(pid, log)
    append(here, numbers(0, 50))
    wait_has_open(lognot.role("monitor"), here)
    here.chmod(0o640)  # metadata alone is looked at, too
    append(here, numbers(50, 100))
    for number in range(3):
        begin = 100 * (number + 1)
        with here.open("ab", buffering=0) as writer:
            here.rename(here.with_suffix(f".{number}"))
            writer.write(numbers(begin, begin + 30).encode())
            append(here, numbers(begin + 30, begin + 60))
            writer.write(numbers(begin + 60, begin + 80).encode())
        append(here, numbers(begin + 80, begin + 100))
        wait_has_open(lognot.role("monitor"), here)
    assert_each_line_once(lognot)
    accounts.fault(f"rotation on {kind}", times=3, written=400, seen=400)


def test_a_lower_log_that_is_renamed_before_it_is_written(custom: Make, tmp_path: Path) -> None:
    """The rename copies it up, and the writer, who opens it afterwards, writes into the copy."""
    for name in ("place", "lower", "upper"):
        (tmp_path / name).mkdir()
    log = tmp_path / "place" / "log"
    mount = OVERLAY.format(d=tmp_path, options="")
    lognot = custom(counting_items(str(log), 200), prefix=own_mounts(mount)).start()
    here = inside(lognot.pid, log)
    with ExitStack() as stack:
        with held(lognot.role("monitor")):  # else the old file could be let go before anybody writes to it
            here.rename(here.with_suffix(".1"))
            late = stack.enter_context(here.with_suffix(".1").open("ab", buffering=0))
        late.write(numbers(0, 50).encode())
        append(here, numbers(50, 150))
        late.write(numbers(150, 200).encode())
    assert_each_line_once(lognot)
    accounts.fault("rename of a lower file on overlayfs", times=1, written=200, seen=200)


def test_a_log_that_is_bind_mounted(custom: Make, tmp_path: Path) -> None:
    """As containers have single files: emptied in place, and another file mounted over it."""
    files = [tmp_path / name for name in ("one", "two")]
    log = tmp_path / "log"
    for path in (*files, log):
        path.touch()
    lognot = custom(
        counting_items(str(log), 300), prefix=own_mounts(f"mount --bind {files[0]} {log}")
    ).start()
    with files[0].open("ab", buffering=0) as late:
        late.write(numbers(0, 100).encode())
        append(inside(lognot.pid, log), numbers(100, 150))
        in_mounts(lognot.pid, "mount", "--bind", str(files[1]), str(log))
        append(files[1], numbers(150, 200))
        lognot.wait_log("was rotated")
        late.write(numbers(200, 250).encode())
        append(files[1], numbers(250, 300))
    assert_each_line_once(lognot)
    accounts.fault("another file mounted on a log", times=1, written=300, seen=300)


def test_without_proc_nothing_is_started(tmp_path: Path) -> None:
    (tmp_path / "lognot.conf").write_text(counting_items("/var/log/x", 1))
    with runner(tmp_path, *own_mounts("umount -l /proc")) as run:
        done = run("-c", "lognot.conf")
    assert done.returncode == 1
    assert done.stderr == b"lognot: not started: /proc is not mounted; expected proc(5) there\n"


def test_a_root_that_is_read_only_and_processes_that_are_hidden(custom: Make, tmp_path: Path) -> None:
    """With hidepid=2 nobody but root sees other users' processes. Only one directory is writable."""
    place = tmp_path / "place"
    place.mkdir()
    log = place / "log"
    script = (
        f"mount -t tmpfs -o mode=755 one {place} && touch {log} && mount -t proc -o hidepid=2 proc /proc && "
        "mount -o remount,bind,ro /"
    )
    lognot = custom(counting_items(str(log), 200), prefix=own_mounts(script))
    lognot.own_log = place / "own.log"
    lognot.start()
    here = inside(lognot.pid, log)
    append(here, numbers(0, 100))
    here.rename(here.with_suffix(".1"))
    append(here, numbers(100, 200))
    own = inside(lognot.pid, lognot.own_log)
    wait_for(lambda: "[ALL] fired" in own.read_text(), "all lines")
    with own.open() as file:
        lognot.stop_only()
        said = file.read()
    assert said.count("] fired") == 1, said
    accounts.fault("read-only root, hidden processes, rotation", times=1, written=200, seen=200)
