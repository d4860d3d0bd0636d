"""What is kept for `resume = yes` outlives a loss of power, a full disk and damage, and is one service's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import accounts
from integration.environment.namespaces import inside, mounts_of, own_mounts
from integration.harness import Service, wait_for
from integration.processes import Custom
from integration.resuming import kill, noting, numbers, reboot, stop, write

Make = Callable[..., Service]


@pytest.mark.parametrize("rotated", [False, True], ids=["in place", "rotated"])
@pytest.mark.parametrize("end", ["missing", "another"])
def test_a_loss_of_power(
    service: Make, tmp_path: Path, environment: dict[str, str], end: str, rotated: bool
) -> None:
    """The log has lost its end, which was read: what is older than a minute or two is not read again.

    In the first minute that is what was there before.
    """
    log, out, fresh = tmp_path / "log", tmp_path / "out", tmp_path / "fresh"
    write(log, 0, 10)
    config = "[general]\nathread_count = 1\n" + noting(log, out) + noting(log, fresh, "FRESH", "")
    lognot = service(config, environment=environment).start()
    write(log, 10, 20)
    wait_for(lambda: len(numbers(out)) == len(numbers(fresh)) == 10, "the lines that are to be lost")
    wait_for(lambda: saved_offsets(tmp_path / "state", log) == [12 * 20], "the position on the disk")
    kill(lognot)
    reboot(environment)
    os.truncate(log, 12 * 18)
    if end == "another":
        write(log, 30, 33)
    if rotated:
        log.rename(tmp_path / "log.1")
    write(log, 40, 45)
    lognot.start()
    lognot.wait_log("warning: log '.*/log' has lost its end, .* what was read .* before is read again")
    write(log, 50, 55)
    wait_for(lambda: {54} <= set(numbers(out)) & set(numbers(fresh)), "the new lines")
    assert lognot.stop() == 0
    since = [*(range(30, 33) if end == "another" else ()), *range(40, 45), *range(50, 55)]
    assert numbers(out) == [*range(10, 20), *range(10, 18), *since]
    assert numbers(fresh) == [*range(10, 20), *range(50, 55)]
    name = f"loss of power, the log has lost its end ({end}{', rotated' * rotated})"
    written = 10 + len(since)
    accounts.fault(
        name, times=1, written=written, seen=len({*numbers(out)}), twice=len(numbers(out)) - written
    )


def saved_offsets(state: Path, log: Path) -> list[int]:
    """How far the files of a log were read, as the state file has it."""
    logs = json.loads((state / "state.json").read_bytes())["logs"]
    return [stream["offset"] for stream in logs.get(str(log), ())]


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "disk"])
@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff" * 100, b"[1]\n", b'{"version": 99}\n', "half", "changed"], ids=str
)
def test_a_damaged_state_file(
    service: Make, tmp_path: Path, environment: dict[str, str], damage: bytes | str, memory: bool
) -> None:
    """Reported and set aside; memory knows what it said, without memory the log is watched from its end."""
    log, out, state = tmp_path / "log", tmp_path / "out", tmp_path / "state" / "state.json"
    log.touch()
    lognot = service(noting(log, out), environment=environment).start()
    write(log, 0, 1)
    wait_for(lambda: numbers(out) == [0], "the first line")
    stop(lognot)
    if not memory:
        reboot(environment)
    good = state.read_bytes()
    match damage:
        case "half":
            damage = good[: len(good) // 2]
        case "changed":
            damage = good.replace(b'"offset": 12', b'"offset": 99')
            assert damage != good
    assert isinstance(damage, bytes)
    state.write_bytes(damage)
    write(log, 1, 2)
    lognot.start()
    lognot.wait_log("error: the state file '.*' cannot be used and is set aside as state.json.damaged: ")
    write(log, 2, 3)
    expected = [0, 1, 2] if memory else [0, 2]
    wait_for(lambda: len(numbers(out)) == len(expected), "the lines")
    assert lognot.stop() == 0
    assert sorted(numbers(out)) == expected
    assert state.with_name("state.json.damaged").read_bytes() == damage
    json.loads(state.read_bytes())


@pytest.mark.root
def test_a_full_disk(custom: Callable[..., Custom], tmp_path: Path, environment: dict[str, str]) -> None:
    """Said once, tried again, and nothing is lost; the old file stays whole."""
    log, out, state = tmp_path / "log", tmp_path / "out", tmp_path / "state"
    log.touch()
    state.mkdir()
    prefix = own_mounts(f"mount -t tmpfs -o size=64k,mode=700 tmpfs {state}")
    config = "[general]\nathread_count = 1\n" + noting(log, out)
    lognot = custom(config, prefix=prefix, environment=environment)
    lognot.start()
    with mounts_of(lognot.pid) as lognot.prefix:
        filling = inside(lognot.pid, state / "fill")
        fill(filling)
        write(log, 0, 10)
        lognot.wait_log("error: the state file '.*' cannot be written, the old one stays: No space left")
        json.loads(filling.with_name("state.json").read_bytes())
        write(log, 10, 20)
        wait_for(lambda: len(numbers(out)) == 20, "the lines")
        filling.unlink()
        lognot.wait_log("info: the state file '.*' is written again")
        assert lognot.log.count("cannot be written") == 1
        stop(lognot)
        write(log, 20, 30)
        lognot.start()
        wait_for(lambda: len(numbers(out)) == 30, "the lines since")
        assert lognot.stop() == 0
    assert numbers(out) == list(range(30))
    accounts.numbered("disk full for the state directory", numbers(out), 30, times=1)


@pytest.mark.root
def test_a_disk_that_is_full_since_a_reboot(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """What is in memory belongs to the old file then, and that goes on for as many restarts as there are."""
    log, out, state = tmp_path / "log", tmp_path / "out", tmp_path / "state"
    log.touch()
    state.mkdir(0o700)
    with tmpfs(state, "64k"):
        lognot = service("[general]\nathread_count = 1\n" + noting(log, out), environment=environment)
        lognot.start()
        write(log, 0, 5)
        wait_for(lambda: len(numbers(out)) == 5, "the first lines")
        stop(lognot)
        reboot(environment)
        fill(state / "fill")
        for begin, how in ((5, stop), (15, kill), (25, stop)):
            write(log, begin, begin + 5)
            lognot.start()
            write(log, begin + 5, begin + 10)
            wait_for(lambda end=begin + 10: len(numbers(out)) >= end, "the lines")  # type: ignore[misc]
            how(lognot)
        assert "error: the state file" in lognot.log
        (state / "fill").unlink()
        lognot.start()
        write(log, 35, 40)
        wait_for(lambda: len(numbers(out)) >= 40, "the last lines")
        assert lognot.stop() == 0
    assert numbers(out) == list(range(40))
    accounts.numbered("disk full for the state directory since a reboot", numbers(out), 40, times=1)


def fill(path: Path) -> None:
    """Leave no room on a file system."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@contextlib.contextmanager
def tmpfs(path: Path, size: str) -> Iterator[None]:
    """A small file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_two_services_do_not_share_it(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    log = tmp_path / "log"
    log.touch()
    one = service(noting(log, tmp_path / "out"), environment=environment).start()
    other_place = tmp_path / "other"
    other_place.mkdir()
    other = Service(other_place, noting(log, tmp_path / "out"), environment=environment)
    try:
        other.start(ready=False)
        assert other.process is not None
        assert other.process.wait(20) == 1
        assert other.process.stdout is not None
        text = other.process.stdout.read().decode()
    finally:
        other.end()
    assert f"the state directory '{tmp_path}/state' is in use by another lognot" in text
    assert one.stop() == 0


@pytest.mark.root
def test_a_directory_that_others_can_write_to_is_refused(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    lognot = service(noting(tmp_path / "log", tmp_path / "out"), environment=environment).start(ready=False)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 1
    assert lognot.process.stdout is not None
    text = lognot.process.stdout.read().decode()
    assert f"the state directory '{tmp_path}/state' is refused as root: '{tmp_path}/state' can be " in text
