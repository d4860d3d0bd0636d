"""`resume = yes`: a restart goes on where reading ended, however the last service ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from integration import accounts
from integration.harness import Service, append, changed_source, lines_of, time_of, wait_for
from integration.moments import Moments
from integration.processes import descriptors, ids, is_gone, wait_gone
from integration.resuming import kill, noting, numbers, reboot, stop, write
from integration.writer import Writer, counting_items, has_open, held, wait_has_open
from lognot.service import LEAVE_S, ORPHAN_S
from lognot.state import State, state_from_json, state_to_json

Make = Callable[..., Service]


def open_names(pid: int) -> list[str]:
    """Give what a process has open; the name of a file that was removed ends in " (deleted)"."""
    names = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(entry))
    return names


@pytest.mark.parametrize("how", ["stop", "kill", "reboot"])
def test_goes_on_where_it_ended(service: Make, tmp_path: Path, environment: dict[str, str], how: str) -> None:
    log, out, fresh = tmp_path / "log", tmp_path / "out", tmp_path / "fresh"
    write(log, 0, 5)  # history, of no interest to either
    config = "[general]\nathread_count = 1\n" + noting(log, out) + noting(log, fresh, "FRESH", "")
    lognot = service(config, environment=environment).start()
    write(log, 5, 10)
    wait_for(lambda: len(numbers(fresh)) == 5 and len(numbers(out)) == 5, "the first lines")
    kill(lognot) if how == "kill" else stop(lognot)
    if how == "reboot":
        reboot(environment)
    write(log, 10, 20)
    lognot.start()
    lognot.wait_log(r"going on with log")
    write(log, 20, 25)
    wait_for(lambda: len(numbers(out)) >= 20, "the lines since")
    wait_for(lambda: len(numbers(fresh)) >= 10, "the new lines")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(5, 25))
    assert numbers(fresh) == [*range(5, 10), *range(20, 25)]
    accounts.numbered(f"restart with resume = yes ({how})", [n - 5 for n in numbers(out)], 20, times=1)


@pytest.mark.parametrize("how", ["stop", "kill", "reboot"])
def test_a_log_that_was_rotated_meanwhile(
    service: Make, tmp_path: Path, environment: dict[str, str], how: str
) -> None:
    """Three times, so that there are files in between that nobody has seen; the old one is finished first."""
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    (tmp_path / "log.offset").write_text("line 999999\n")  # a name like theirs, and none of them
    config = "[general]\nathread_count = 1\n" + noting(log, out)
    lognot = service(config, environment=environment).start()
    write(log, 0, 10)
    wait_for(lambda: len(numbers(out)) == 10, "the first lines")
    kill(lognot) if how == "kill" else stop(lognot)
    if how == "reboot":
        reboot(environment)
    write(log, 10, 20)
    for rotation in range(3):
        for number in range(rotation, -1, -1):
            source = tmp_path / (f"log.{number}" if number else "log")
            source.rename(tmp_path / f"log.{number + 1}")
        write(log, 20 + 10 * rotation, 30 + 10 * rotation)
    lognot.start()
    wait_for(lambda: len(numbers(out)) >= 50, "all lines")
    write(log, 50, 60)
    wait_for(lambda: len(numbers(out)) >= 60, "the new lines")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(60))
    accounts.numbered(f"rotated 3 times while it did not run ({how})", numbers(out), 60, times=3)


def test_killed_at_any_moment(service: Make, lone_log: Path, environment: dict[str, str]) -> None:
    """Counts go on too: [ALL] fires at exactly the last line, [TWICE] at none."""
    lines, rotations, ends = 4000, 6, 8
    moments = Moments()
    steps = ["rotate"] * rotations + ["kill"] * (ends - 2) + ["stop"] * 2
    moments.shuffle(steps)
    config = "[general]\nresume = yes\n" + counting_items(str(lone_log), lines)
    lognot = service(config, environment=environment).start()
    with Writer(lone_log, lines, 0.0003, allowed=0) as writer:
        for number, step in enumerate(steps):
            writer.round(number, len(steps))
            writer.wait_written(writer.written + moments.randrange(60))
            if step == "rotate":
                wait_has_open(lognot.pid, lone_log)
                lone_log.rename(lone_log.with_name(f"log.{number}"))
                writer.reopen(after=30)
            else:
                kill(lognot) if step == "kill" else stop(lognot)
                lognot.start()
        writer.finish()
    lognot.wait_log(r"\[ALL\] fired")
    assert lognot.stop() == 0
    assert lognot.log.count("[ALL] fired") == 1, lognot.log
    assert "[TWICE] fired" not in lognot.log, lognot.log
    accounts.fault(
        "kill -9 and restart of the service, with rotations", times=ends, written=lines, seen=lines
    )


def test_the_monitor_cannot_read_what_only_the_supervisor_knows(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Which file is which, and the secret of their digests."""
    (tmp_path / "log").touch()
    lognot = service(noting(tmp_path / "log", tmp_path / "out"), environment=environment).start()
    held_there = [
        Path(path)
        for path in descriptors(lognot.role("monitor")).values()
        if path.startswith(environment["RUNTIME_DIRECTORY"])
    ]
    assert [path.stat().st_size for path in held_there] == [0]  # what keeps the next service waiting
    assert lognot.stop() == 0


def test_killed_while_actions_are_handed_over(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The monitor sees that through, and writes down how far it came: none is run again, none is lost.

    The next service waits for that.
    """
    lines = 400  # more than an executor's socket takes, and it has 10 s for them on a slow machine, too
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    config = "[general]\nathread_count = 8\n" + noting(log, out)
    lognot = service(config, environment=environment)
    # The others have all the time that they need to finish: how much that is, the machine decides.
    lognot.source = changed_source(tmp_path, "service", "ORPHAN_S = STOP_GRACE_S = 60.0\n")
    lognot.start()
    monitor, executor = lognot.role("monitor"), lognot.role("executor")
    with held(executor):
        write(log, 0, lines)
        lognot.wait_log(r"\[ITEM\] fired", lines)
        assert lognot.process is not None
        lognot.process.kill()
        lognot.process.wait()
        killed = time.monotonic()
        lognot.start(ready=False)
        wait_for(
            lambda: (
                has_open(lognot.pid, tmp_path / "state" / "lock") or time.monotonic() > killed + ORPHAN_S / 2
            ),
            "the next service, or half of the time that the monitor has",
        )
        assert not is_gone(monitor)
    lognot.wait_notification("READY=1")
    assert is_gone(monitor)
    write(log, lines, lines + 20)
    wait_for(lambda: len(lines_of(out)) >= lines + 20, "all actions")
    wait_gone(executor, deadline_s=LEAVE_S)
    assert lognot.stop() == 0
    assert sorted(numbers(out)) == list(range(lines + 20))
    accounts.numbered("kill -9 while actions are handed over", numbers(out), lines + 20, times=1)


def test_counts_and_windows_go_on(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    log = tmp_path / "log"
    log.touch()
    common = f"path = {log}\nregex = error\nupbound_freq = 5/3600\nupbound_action = echo $LOGNOT_COUNT\n"
    seen = f"[SEEN]\npath = {log}\nregex = .+\nupbound_action = echo seen\n"
    config = f"[KEPT]\n{common}resume = yes\n[FRESH]\n{common}{seen}"
    lognot = service(config, environment=environment).start()
    append(log, "error\n" * 3)
    lognot.wait_log(r"\[SEEN\] says", 3)
    stop(lognot)
    lognot.start()
    append(log, "error\n" * 3)
    lognot.wait_log(r"\[KEPT\] says: 6")
    lognot.wait_log(r"\[SEEN\] says", 6)
    assert "[FRESH] fired" not in lognot.log
    stop(lognot)
    reboot(environment)  # a count does not outlive that
    lognot.start()
    append(log, "error\n" * 6)
    lognot.wait_log(r"\[KEPT\] says: 6", 2)
    assert lognot.stop() == 0


def test_a_new_item_counts_from_zero(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    """Also where it gets the number that an item had which did not resume."""
    log = tmp_path / "log"
    log.touch()

    def item(name: str, more: str) -> str:
        return f"[{name}]\npath = {log}\nregex = ^{name}$\nupbound_freq = 5/600\nupbound_action = :\n{more}"

    old, other = item("OLD", "resume = yes\n"), item("OTHER", "")
    lognot = service(old + other, environment=environment).start()
    append(log, "OTHER\n" * 5)
    stop(lognot)
    lognot.write_config(old + item("NEW", "resume = yes\n") + other)
    lognot.start()
    append(log, "NEW\n" * 5 + "OLD\n" * 6)
    lognot.wait_log(r"\[OLD\] fired")
    assert lognot.stop() == 0
    assert "[NEW] fired" not in lognot.log


def test_a_lower_bound_begins_anew(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    """Nobody counted while it did not run, so that is no reason to fire at once."""
    log = tmp_path / "log"
    log.touch()
    config = (
        f"[ITEM]\npath = {log}\nregex = .+\nresume = yes\ndownbound_freq = 1/2\n"
        "downbound_action = echo quiet at $(date +%s%N)\n"
    )
    lognot = service(config, environment=environment).start()
    lognot.wait_log(r"\[ITEM\] says: quiet")
    stop(lognot)
    told = lognot.log.count("says: quiet")
    lognot.start()
    lognot.wait_log(r"\[ITEM\] says: quiet", told + 1)
    assert lognot.stop() == 0
    began = lognot.wait_log("started, 1 item")[-1]
    fired = next(line for line in lognot.log.partition(began)[2].splitlines() if "fired (downbound)" in line)
    assert time_of(fired) - time_of(began) > 1.99


def test_a_file_that_was_emptied_or_replaced_meanwhile(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Its fingerprint tells; what is there now is new, from its first byte, even when it is longer."""
    emptied, replaced = tmp_path / "emptied", tmp_path / "replaced"
    emptied.touch()
    replaced.touch()
    config = noting(emptied, tmp_path / "e.out", "E") + noting(replaced, tmp_path / "r.out", "R")
    lognot = service(f"[general]\nathread_count = 1\n{config}", environment=environment).start()
    for log in (emptied, replaced):
        write(log, 0, 10)
    wait_for(lambda: len(numbers(tmp_path / "e.out")) == len(numbers(tmp_path / "r.out")) == 10, "lines")
    stop(lognot)
    reboot(environment)
    os.truncate(emptied, 0)
    write(emptied, 100, 150)
    replaced.unlink()
    write(replaced, 100, 150)  # mostly with the inode of the old one
    lognot.start()
    for name in ("e.out", "r.out"):
        wait_for(lambda name=name: len(numbers(tmp_path / name)) >= 60, name)  # type: ignore[misc]
    assert lognot.stop() == 0
    for name in ("e.out", "r.out"):
        assert numbers(tmp_path / name) == [*range(10), *range(100, 150)]
    meanwhile = "while lognot did not run, and"
    lognot.wait_log(
        rf"error: log '.*/emptied' was emptied or replaced {meanwhile} no copy is there: .* byte 120"
    )
    # Whether the new one has the inode of the old one is up to the file system.
    lognot.wait_log(rf"error: log '.*/replaced' was (emptied or replaced|rotated) {meanwhile} ")


def test_a_device_with_another_number_after_a_reboot(
    service: Make, lone_log: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out, state_file = tmp_path / "out", tmp_path / "state" / "state.json"
    config = "[general]\nathread_count = 1\n" + noting(lone_log, out)
    lognot = service(config, environment=environment).start()
    write(lone_log, 0, 20)
    wait_for(lambda: len(numbers(out)) == 20, "the first lines")
    stop(lognot)
    reboot(environment)
    state = state_from_json(state_file.read_bytes())
    logs = {
        path: tuple(replace(one, identity=(one.identity[0] + 1, one.identity[1])) for one in streams)
        for path, streams in state.logs.items()
    }
    state_file.write_bytes(state_to_json(State(state.key, logs)))
    write(lone_log, 20, 21)
    lognot.start()
    wait_for(lambda: 20 in numbers(out), "the new line")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(21))


@pytest.mark.parametrize("how", ["kill", "reboot"])
@pytest.mark.parametrize("grown", [False, True])
def test_a_log_that_was_copied_and_emptied_meanwhile(
    service: Make, lone_log: Path, tmp_path: Path, environment: dict[str, str], grown: bool, how: str
) -> None:
    """As logrotate does it with `copytruncate`, twice: the older copy has what was not read."""
    out = tmp_path / "out"
    config = "[general]\nathread_count = 1\n" + noting(lone_log, out)
    lognot = service(config, environment=environment).start()
    write(lone_log, 0, 20)
    wait_for(lambda: len(numbers(out)) == 20, "the first lines")
    kill(lognot) if how == "kill" else stop(lognot)
    if how == "reboot":
        reboot(environment)
    write(lone_log, 20, 30)
    shutil.copy2(lone_log, lone_log.with_name("log.2"))
    os.truncate(lone_log, 0)
    write(lone_log, 30, 100)
    shutil.copy2(lone_log, lone_log.with_name("log.1"))
    os.truncate(lone_log, 0)
    end = 200 if grown else 101
    write(lone_log, 100, end)
    lognot.start()
    wait_for(lambda: len(numbers(out)) >= end, "the lines since")
    write(lone_log, end, end + 1)
    wait_for(lambda: len(numbers(out)) >= end + 1, "the new line")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(end + 1))
    lognot.wait_log("info: log '.*' was emptied meanwhile, what stood there was read in '.*/log.2'")
    assert "error: " not in lognot.log
    accounts.numbered(
        f"copied and emptied twice while it did not run ({how})", numbers(out), end + 1, times=2
    )


@pytest.mark.parametrize("how", ["stop", "kill", "reboot"])
def test_a_size_is_reached_once(service: Make, tmp_path: Path, environment: dict[str, str], how: str) -> None:
    """Also by a line that is not finished; and one that is reached meanwhile counts."""
    log, out, fresh = tmp_path / "log", tmp_path / "out", tmp_path / "fresh"
    log.write_bytes(b"x" * 500 + b"\n")
    config = sized(log, out, "KEPT") + sized(log, fresh, "FRESH", "")
    lognot = service(config, environment=environment).start()
    append(log, b"y" * 600)
    wait_for(lambda: numbers(out) == numbers(fresh) == [1], "the first multiple")
    lognot.wait_log(r"action ended", 2)  # started, so it is not handed over again
    kill(lognot) if how == "kill" else stop(lognot)
    if how == "reboot":
        reboot(environment)
    lognot.start()
    append(log, b"z" * 1000)
    wait_for(lambda: len(numbers(fresh)) == len(numbers(out)) == 2, "the second multiple")
    stop(lognot)
    append(log, b"z" * 1000)
    lognot.start()
    wait_for(lambda: len(numbers(out)) == 3, "what was reached meanwhile")
    append(log, b"z" * 1000)
    wait_for(lambda: len(numbers(fresh)) == 3 and len(numbers(out)) == 4, "the fourth multiple")
    assert lognot.stop() == 0
    assert numbers(out) == [1, 2, 3, 4]
    assert numbers(fresh) == [1, 2, 4]


def sized(log: Path, out: Path, name: str, more: str = "resume = yes\n") -> str:
    """An item that notes each multiple of a kilobyte."""
    return f"[{name}]\npath = {log}\nsize = 1K\nsize_action = echo $LOGNOT_COUNT >> {out}\n{more}"


def test_the_rotated_file_is_gone(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(noting(log, out), environment=environment).start()
    write(log, 0, 1)
    wait_for(lambda: numbers(out) == [0], "the first line")
    stop(lognot)
    log.rename(tmp_path / "log.1")
    write(tmp_path / "log.1", 1, 2)
    (tmp_path / "log.1.gz").write_bytes((tmp_path / "log.1").read_bytes())
    write(log, 2, 3)  # before the other goes, so that it does not get its inode
    (tmp_path / "log.1").unlink()
    lognot.start()
    wait_for(lambda: numbers(out) == [0, 2], "the new file")
    lognot.wait_log("error: log '.*/log' was rotated while lognot did not run, .* is gone")
    assert lognot.stop() == 0


def test_an_unfinished_line(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(noting(log, out), environment=environment).start()
    append(log, "line 000000\nline 00")
    wait_for(lambda: numbers(out) == [0], "the first line")
    stop(lognot)
    append(log, "0001\n")
    lognot.start()
    wait_for(lambda: numbers(out) == [0, 1], "the other line")
    assert lognot.stop() == 0
    assert numbers(out) == [0, 1]


def test_a_reload_turns_it_on(service: Make, tmp_path: Path, environment: dict[str, str]) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(noting(log, out, more=""), environment=environment).start()
    assert not (tmp_path / "state").exists()
    assert not os.listdir(environment["RUNTIME_DIRECTORY"])
    write(log, 0, 1)
    wait_for(lambda: numbers(out) == [0], "the first line")
    lognot.reload(noting(log, out))
    stop(lognot)
    write(log, 1, 2)
    lognot.start()
    wait_for(lambda: numbers(out) == [0, 1], "the other line")
    assert lognot.stop() == 0


@pytest.mark.parametrize("how", ["stop", "kill", "reboot"])
@pytest.mark.parametrize("other", [False, True], ids=["alone", "beside another"])
def test_turned_off_and_on_again(
    service: Make, tmp_path: Path, environment: dict[str, str], how: str, other: bool
) -> None:
    """What was read without it is not read again: it begins at the end, as where it was never on."""
    log, out, others = tmp_path / "log", tmp_path / "out", tmp_path / "others"
    log.touch()
    others.touch()
    general = "[general]\nathread_count = 1\n" + (noting(others, others, "OTHER") if other else "")
    configs = [general + noting(log, out, more=f"resume = {answer}\n") for answer in ("yes", "no", "yes")]
    lognot = service(configs[0], environment=environment)
    for number, config in enumerate(configs):
        lognot.write_config(config)
        lognot.start()
        write(log, 10 * number, 10 * number + 5)
        wait_for(lambda end=5 * number + 5: len(numbers(out)) >= end, "the lines")  # type: ignore[misc]
        if number < 2:
            kill(lognot) if how == "kill" else stop(lognot)
        if how == "reboot":
            reboot(environment)
        write(log, 10 * number + 5, 10 * number + 6)  # for nobody, since it is off before or after
    assert lognot.stop() == 0
    assert numbers(out)[:15] == [*range(5), *range(10, 15), *range(20, 25)]


def test_a_config_that_is_tried_out_without_it(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """It costs the service nothing, though it reads the same log."""
    log, out, tried = tmp_path / "log", tmp_path / "out", tmp_path / "tried"
    log.touch()
    one_by_one = "[general]\nathread_count = 1\n"
    lognot = service(one_by_one + noting(log, out), environment=environment).start()
    write(log, 0, 5)
    wait_for(lambda: len(numbers(out)) == 5, "the first lines")
    stop(lognot)
    own, lognot.config_path = lognot.config_path, tmp_path / "tried.conf"
    lognot.write_config(one_by_one + noting(log, tried, more=""))
    lognot.start()
    write(log, 5, 10)
    wait_for(lambda: len(numbers(tried)) == 5, "the lines")
    stop(lognot)
    lognot.config_path = own
    lognot.start()
    wait_for(lambda: len(numbers(out)) == 10, "the lines since")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(10))


def test_a_log_that_is_missing_at_the_start(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Its rotated file is read all the same, and the new one when it comes."""
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service("[general]\nathread_count = 1\n" + noting(log, out), environment=environment).start()
    write(log, 0, 1)
    wait_for(lambda: numbers(out) == [0], "the first line")
    stop(lognot)
    write(log, 1, 2)
    log.rename(tmp_path / "log-20261123")
    lognot.start()
    wait_for(lambda: numbers(out) == [0, 1], "the rotated file")
    write(log, 2, 3)
    wait_for(lambda: numbers(out) == [0, 1, 2], "the new file")
    assert lognot.stop() == 0


def test_a_directory_that_is_there_later(
    service: Make, lone_log: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """As one that is mounted late. A service in between changes nothing."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    config = "[general]\nathread_count = 1\n" + noting(lone_log, out)
    lognot = service(config, environment=environment).start()
    write(lone_log, 0, 20)
    wait_for(lambda: len(numbers(out)) == 20, "the first lines")
    stop(lognot)
    reboot(environment)
    lone_log.parent.rename(elsewhere)
    lognot.start()
    stop(lognot)
    lognot.start()
    elsewhere.rename(lone_log.parent)
    write(lone_log, 20, 21)
    wait_for(lambda: 20 in numbers(out), "the new line")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(21))


@pytest.mark.parametrize("how", ["stop", "kill", "reboot"])
@pytest.mark.parametrize("away", ["removed", "renamed", "directory"])
def test_a_log_that_is_away_at_the_end(
    service: Make, lone_log: Path, tmp_path: Path, environment: dict[str, str], away: str, how: str
) -> None:
    """Whichever comes then, a new one or the old one: each line is read once."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    config = "[general]\nathread_count = 1\n" + noting(lone_log, out)
    lognot = service(config, environment=environment).start()
    write(lone_log, 0, 10)
    wait_for(lambda: len(numbers(out)) == 10, "the first lines")
    if away == "removed":
        lone_log.unlink()
    elif away == "renamed":
        lone_log.rename(lone_log.with_name("log.1"))
    else:
        lone_log.parent.rename(elsewhere)
    lognot.wait_log("is not there yet")
    places = f"{lone_log.parent}/", f"{elsewhere}/"
    wait_for(lambda: not any(name.startswith(places) for name in open_names(lognot.pid)), "it to be let go")
    kill(lognot) if how == "kill" else stop(lognot)
    if how == "reboot":
        reboot(environment)
    if away == "directory":
        elsewhere.rename(lone_log.parent)
    write(lone_log, 10, 20)
    lognot.start()
    wait_for(lambda: len(numbers(out)) >= 20, "the lines that were written meanwhile")
    write(lone_log, 20, 30)
    wait_for(lambda: len(numbers(out)) >= 30, "the new lines")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(30))
    assert "error: " not in lognot.log
    accounts.numbered(f"its log was away at the end: {away} ({how})", numbers(out), 30, times=1)


@pytest.mark.parametrize("how", ["stop", "kill", "reboot"])
def test_a_log_that_was_never_there_before(
    service: Make, lone_log: Path, tmp_path: Path, environment: dict[str, str], how: str
) -> None:
    """A service waited for it, so whatever comes is new; to an item that does not resume it is history."""
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    lone_log.unlink()
    config = "[general]\nathread_count = 1\n" + noting(lone_log, out) + noting(lone_log, fresh, "FRESH", "")
    lognot = service(config, environment=environment).start()
    lognot.wait_log("is not there yet")
    kill(lognot) if how == "kill" else stop(lognot)
    if how == "reboot":
        reboot(environment)
    write(lone_log, 0, 10)
    lognot.start()
    write(lone_log, 10, 20)
    wait_for(lambda: len(numbers(out)) >= 20, "all lines")
    wait_for(lambda: len(numbers(fresh)) >= 10, "the new lines")
    assert lognot.stop() == 0
    assert numbers(out) == list(range(20))
    assert numbers(fresh) == list(range(10, 20))
    assert "error: " not in lognot.log


def executor_of_daemon(lognot: Service) -> int:
    """The pid of the one that is not root's, waiting until there is one."""

    def pid() -> int | None:
        executors = (pid for pid, role in lognot.children().items() if role == "executor")
        return next((pid for pid in executors if ids(pid)[0] != {0}), None)

    result: int = wait_for(pid, "the executor of daemon")
    return result


@pytest.mark.root
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_end_while_an_executor_stands_still(
    service: Make, tmp_path: Path, environment: dict[str, str], how: str
) -> None:
    """What it could not be given any more is dropped, and said; the actions of others are not run again."""
    log, flooded, out = tmp_path / "log", tmp_path / "flooded", tmp_path / "out"
    log.touch()
    flooded.touch()
    flood = f"[FLOOD]\npath = {flooded}\nregex = ^flood\nuid = daemon\nupbound_action = true\nresume = yes\n"
    lognot = service(flood + noting(log, out), environment=environment).start()
    append(flooded, "flood\n")
    write(log, 0, 20)
    wait_for(lambda: len(lines_of(out)) == 20, "20 actions")
    lognot.wait_log("action ended", 21)
    executor = executor_of_daemon(lognot)
    monitor = lognot.role("monitor")
    with held(executor):
        append(flooded, ("flood " + "x" * 1000 + "\n") * 2000)  # more than its socket takes
        lognot.wait_log(r"\[FLOOD\] fired", 2001)
        write(log, 20, 40)
        wait_for(lambda: len(lines_of(out)) == 40, "40 actions")
        assert lognot.process is not None
        lognot.process.send_signal(signal.SIGTERM if how == "stop" else signal.SIGKILL)
        wait_gone(monitor, deadline_s=ORPHAN_S + 5)
    assert lognot.process.wait(20) == (0 if how == "stop" else -signal.SIGKILL)
    if how == "stop":
        lognot.wait_log(r"error: \[FLOOD\] \d+ actions? (?:was|were) dropped, since lognot stops")
    lognot.start()
    write(log, 40, 60)
    wait_for(lambda: "000059" in lines_of(out), "the last action")
    assert lognot.stop() == 0
    assert lognot.log.count("[FLOOD] fired") == 2001
    assert sorted(numbers(out)) == list(range(60))
    accounts.numbered(f"{how} while an executor stands still, other actions", numbers(out), 60, times=1)


@pytest.mark.root
def test_the_end_of_all_while_an_executor_stands_still(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """How far the logs of others were read is not forgotten for it."""
    log, flooded, out = tmp_path / "log", tmp_path / "flooded", tmp_path / "out"
    log.touch()
    flooded.touch()
    flood = f"[FLOOD]\npath = {flooded}\nregex = ^flood\nuid = daemon\nupbound_action = true\n"
    lognot = service(flood + noting(log, out), environment=environment).start()
    executor = executor_of_daemon(lognot)
    state = tmp_path / "state" / "state.json"
    with contextlib.suppress(ProcessLookupError), held(executor):  # it is gone at the end
        append(flooded, ("flood " + "x" * 1000 + "\n") * 2000)  # more than its socket takes
        lognot.wait_log(r"\[FLOOD\] fired", 2000)
        write(log, 0, 20)
        wait_for(lambda: len(lines_of(out)) == 20, "20 actions")
        wait_for(lambda: f'"offset": {log.stat().st_size},' in state.read_text(), "the last line to be saved")
        lognot.signal(signal.SIGSTOP)
        for pid in (*lognot.children(), lognot.pid):
            os.kill(pid, signal.SIGKILL)
    assert lognot.process is not None
    assert lognot.process.wait(20) == -signal.SIGKILL
    wait_gone(executor)
    lognot.start()
    write(log, 20, 40)
    wait_for(lambda: "000039" in lines_of(out), "the last action")
    assert lognot.stop() == 0
    accounts.numbered("kill -9 of all while an executor stands still, actions", numbers(out), 40, times=1)


def test_it_does_not_react_to_what_the_last_service_has_written(
    service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Its last lines come after its last look: the next service reads them, where its own log is watched."""
    own, out = tmp_path / "own.log", tmp_path / "out"
    own.touch()
    action = f"printf '%s\\n' $0 >> {out}"
    config = f"[A]\npath = {own}\nregex = .*\nresume = yes\nupbound_action = {action}\n"
    lognot = service(config, environment=environment).start()
    for number in range(3):
        append(own, f"foreign {number}\n")
        wait_for(lambda: lines_of(out) == [f"foreign {n}" for n in range(number + 1)], "the action")  # noqa: B023
        stop(lognot)
        assert "stopped" in own.read_text()
        lognot.start()
    assert lognot.stop() == 0
    assert lines_of(out) == [f"foreign {n}" for n in range(3)]
