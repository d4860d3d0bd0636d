"""Limits of the system are met while lognot runs, and raised again: nothing is lost, and it is said once."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import accounts
from integration.environment.namespaces import TICKS_PER_S, cpu_ticks, own_users, set_limit
from integration.harness import Service, append, lines_of, wait_for
from integration.processes import Custom, descriptors, ids
from integration.writer import (
    REGEX,
    Writer,
    assert_each_line_once,
    counting_items,
    has_open,
    held,
    wait_has_open,
)

Make = Callable[..., Service]
MakeCustom = Callable[..., Custom]

OPEN_FILES = r"Too many open files: raise LimitNOFILE= of the service, or ulimit -n"


def leave_no_descriptor(pid: int, spare: int = 0) -> tuple[int, int]:
    """Lower the limit of open files of a process to what it has, and `spare` more; give the old limits.

    What counts is the number of a new descriptor, and the lowest free one is taken.
    """
    taken = set(descriptors(pid))
    lowest_free = next(number for number in range(len(taken) + 1) if number not in taken)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(0, lowest_free + spare), before[1]))
    return before


def give_back(pid: int, limits: tuple[int, int]) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def leave_monitor_none(pid: int) -> None:
    """Take from a process of any user every descriptor to come; without CAP_SYS_RESOURCE too."""
    uids, gids, _ = ids(pid)
    become = [f"--reuid={uids.pop()}", f"--regid={gids.pop()}", "--clear-groups"] if os.geteuid() == 0 else []
    prefix = ["setpriv", *become] if become else []
    subprocess.run([*prefix, "prlimit", f"--pid={pid}", "--nofile=0:0"], check=True)


def say_once(lognot: Service, pattern: str) -> None:
    assert len(re.findall(pattern, lognot.log)) == 1, lognot.log


# Open files.


def test_the_supervisor_has_no_descriptor_left(service: Make, tmp_path: Path) -> None:
    """For a rotated log, a reload with a new item, a monitor that was killed, and an executor for it."""
    lines = 400
    logs = [tmp_path / name for name in ("old", "new")]
    for log in logs:
        log.parent.mkdir(exist_ok=True)
        log.touch()
    old, new = (counting_items(str(log), lines, f"-{log.name}") for log in logs)
    lognot = service(old).start()
    append(logs[1], "history\n")
    append(logs[0], "".join(f"line {number}\n" for number in range(100)))
    limits = leave_no_descriptor(lognot.pid)
    with logs[0].open("ab", buffering=0) as late:
        logs[0].rename(tmp_path / "old.1")
        append(logs[0], "".join(f"line {number}\n" for number in range(100, 150)))
        lognot.wait_log(f"log '{logs[0]}' cannot be watched, .*: {OPEN_FILES}")
        late.write(b"".join(b"line %d\n" % number for number in range(150, 200)))
        lognot.reload(old + new)  # refused: the config cannot be read either
        lognot.wait_log(r"config not reloaded, the old one stays in use")
        give_back(lognot.pid, limits)
        lognot.reload()
        wait_has_open(lognot.pid, logs[0])
        wait_has_open(lognot.pid, logs[1])
    append(logs[0], "".join(f"line {number}\n" for number in range(200, lines)))
    append(logs[1], "".join(f"line {number}\n" for number in range(lines)))
    lognot.wait_log(r"\[ALL-\w+\] fired", 2)
    say_once(lognot, f"cannot be watched, .*: {OPEN_FILES}")
    assert lognot.stop() == 0
    assert "TWICE" not in lognot.log
    accounts.fault("no descriptor for a rotated log and a reload", times=1, written=2 * lines, seen=2 * lines)


def test_a_reload_with_a_descriptor_too_few_for_each_step(service: Make, tmp_path: Path) -> None:
    """With each number of descriptors: somewhere between reading the config and opening the new log."""
    lines = 40
    logs = [tmp_path / str(number) for number in range(8)]
    for log in logs:
        log.write_text("history\n")
    items = [counting_items(str(log), lines, f"-{log.name}") for log in logs]
    lognot = service(items[0]).start()
    for spare in range(1, len(logs)):
        limits = leave_no_descriptor(lognot.pid, spare)
        lognot.write_config("".join(items[: spare + 1]))
        before = lognot.log.count("config reloaded") + lognot.log.count("config not reloaded")
        lognot.wait_notification("")
        ready = lognot.notifications.count("READY=1")
        lognot.signal(signal.SIGUSR1)
        wait_for(
            lambda before=before: (
                lognot.log.count("config reloaded") + lognot.log.count("config not reloaded") > before
            ),
            "reloaded, or not",
        )
        refused = "config not reloaded" in lognot.log.splitlines()[-1]
        for log in logs[: spare if refused else spare + 1]:
            append(log, f"line {spare}\n")
        give_back(lognot.pid, limits)
        lognot.wait_notification("READY=1", ready + 1)  # not to be taken for the end of the next reload
        lognot.reload()
        if refused:
            append(logs[spare], f"line {spare}\n")
    for number, log in enumerate(logs):
        written = [value for value in range(1, len(logs)) if value >= number]
        append(log, "".join(f"line {value}\n" for value in range(lines) if value not in written))
    lognot.wait_log(r"\[ALL-\d\] fired", len(logs))
    assert lognot.stop() == 0
    assert "[TWICE" not in lognot.log
    total = lines * len(logs)
    accounts.fault("too few descriptors for a reload", times=len(logs) - 1, written=total, seen=total)


def test_a_monitor_dies_when_the_supervisor_has_no_descriptor(service: Make, tmp_path: Path) -> None:
    """No new one can be had, or only one that cannot be given its config, watches or logs."""
    lines = 700
    log = tmp_path / "log"
    log.touch()
    lognot = service(counting_items(str(log), lines)).start()
    troubles = (
        rf"(cannot start monitor|cannot watch logs|actions of .* wait|cannot be watched).*: {OPEN_FILES}"
    )
    spares = (-99, -2, -1, 0, 1, 2)
    for number, spare in enumerate(spares):
        monitor = lognot.role("monitor")
        said = len(re.findall(troubles, lognot.log))
        append(log, "".join(f"line {value}\n" for value in range(number * 100, number * 100 + 50)))
        with held(lognot.pid):
            os.kill(monitor, signal.SIGKILL)
            limits = leave_no_descriptor(lognot.pid, spare)
        wait_for(
            lambda said=said, monitor=monitor: (
                len(re.findall(troubles, lognot.log)) > said
                or any(has_open(pid, log) for pid in lognot.children() if pid != monitor)
            ),
            "another monitor, or the reason why not",
        )
        append(log, "".join(f"line {value}\n" for value in range(number * 100 + 50, number * 100 + 100)))
        give_back(lognot.pid, limits)
        wait_for(
            lambda monitor=monitor: any(has_open(pid, log) for pid in lognot.children() if pid != monitor),
            "another monitor",
        )
    append(log, "".join(f"line {value}\n" for value in range(600, lines)))
    assert_each_line_once(lognot)
    assert "cannot start monitor" in lognot.log
    assert "giving up" not in lognot.log
    times = len(spares)
    accounts.fault(
        "kill -9 of the monitor, no descriptor for the next", times=times, written=lines, seen=lines
    )


def test_the_monitor_has_no_descriptor_left(service: Make, tmp_path: Path) -> None:
    """A new file cannot be passed to it: it ends, says why, and the next one reads on."""
    lines = 300
    log = tmp_path / "log"
    log.touch()
    lognot = service(counting_items(str(log), lines)).start()
    with Writer(log, lines, 0.0003, allowed=0) as writer:
        for number in range(2):
            writer.round(number, 2)
            wait_has_open(lognot.pid, log)
            monitor = lognot.role("monitor")
            wait_has_open(monitor, log)  # it has all that it needs itself
            leave_monitor_none(monitor)
            log.rename(tmp_path / f"log.{number}")
            writer.reopen(after=20)
            lognot.wait_log(
                r"monitor ended \(it met its limit of open files: raise LimitNOFILE= of the service, or u",
                number + 1,
            )
        writer.finish()
    assert_each_line_once(lognot)
    accounts.fault("no descriptor left in the monitor, rotation", times=2, written=lines, seen=lines)


def test_an_executor_has_no_descriptor_left(service: Make, tmp_path: Path) -> None:
    """Its actions wait; each is run once. It is told of a new monitor meanwhile, too."""
    lines = 60
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    # The shell has the limit of the executor, too: a redirection would take one more descriptor, numbered 10.
    action = f"echo $1 | tee -a {out}"
    lognot = service(f"[ITEM]\npath = {log}\nregex = {REGEX}\nupbound_action = {action}\n").start()
    append(log, "line 0\n")
    wait_for(lambda: lines_of(out), "the first action")
    lognot.wait_log("action ended")
    executor = lognot.role("executor")
    for spare in range(4):  # a pipe takes two, a pidfd one
        limits = leave_no_descriptor(executor, spare)
        append(log, "".join(f"line {value}\n" for value in range(spare * 10 + 1, spare * 10 + 11)))
        if spare < 2:
            lognot.wait_log(f"cannot start an action now, will try again: {OPEN_FILES}")
        give_back(executor, limits)
        wait_for(lambda spare=spare: len(lines_of(out)) == spare * 10 + 11, "all actions")
        lognot.wait_log("action ended", spare * 10 + 11)
    assert lognot.role("executor") == executor
    lognot.reload()  # when the monitor has answered, what the actions came of is committed
    monitor = lognot.role("monitor")
    give_back(executor, (0, 0))  # not even where the last monitor's connection was
    os.kill(monitor, signal.SIGKILL)
    append(log, "".join(f"line {value}\n" for value in range(41, 50)))
    lognot.wait_log(r"executor of \w+ ended \(it met its limit of open files")
    append(log, "".join(f"line {value}\n" for value in range(50, lines)))
    wait_for(lambda: len(lines_of(out)) >= lines, "all actions")
    assert lognot.stop() == 0
    ran = sorted(map(int, lines_of(out)))
    assert ran == list(range(lines))
    accounts.numbered("no descriptor left in an executor, actions run", ran, lines, times=5)


# inotify.


@pytest.mark.root
def test_no_watch_can_be_had(custom: MakeCustom, tmp_path: Path) -> None:
    """At the start, where the lines from then on are read later, and for a file that is new."""
    lines = 300
    first, second = tmp_path / "first", tmp_path / "second"
    for log in (first, second):
        log.write_text("line 0 is history\nline 0\n")
    config = "".join(counting_items(str(log), lines, f"-{log.name}") for log in (first, second))
    few = len(first.parts) - 1 + 1  # the directories, and one file
    lognot = custom(config, prefix=own_users(f"max_inotify_watches={few}")).start()
    lognot.wait_log(
        f"log '{second}' cannot be watched, will be tried again every few seconds: "
        "inotify limit reached, raise the sysctl fs.inotify.max_user_watches"
    )
    lognot.wait_log("ready, watching 1 of 2 logs")
    for log in (first, second):
        append(log, "".join(f"line {number}\n" for number in range(100)))
    begun = cpu_ticks(lognot.pid)
    set_limit(lognot.pid, "max_inotify_watches", few + 1)
    lognot.wait_log(f"watching log '{second}'")  # nobody tells: it is tried every 5 seconds
    assert cpu_ticks(lognot.pid) - begun < TICKS_PER_S
    for log in (first, second):
        with log.open("ab", buffering=0) as late:
            log.rename(log.with_suffix(".1"))
            append(log, "".join(f"line {number}\n" for number in range(100, 200)))
            late.write(b"".join(b"line %d\n" % number for number in range(200, 250)))
    for log in (first, second):
        append(log, "".join(f"line {number}\n" for number in range(250, lines)))
    lognot.wait_log(r"\[ALL-\w+\] fired", 2)
    lognot.stop_only()
    assert "[TWICE" not in lognot.log
    assert lognot.log.count(f"'{second}' cannot be watched") == 2, lognot.log
    total = 2 * lines
    accounts.fault("no inotify watch left, at start and rotation", times=2, written=total, seen=total)


@pytest.mark.root
def test_no_inotify_instance_can_be_had(custom: MakeCustom, tmp_path: Path) -> None:
    """Not by a monitor whose predecessor was killed: it waits, instead of being given up."""
    lines = 300
    log = tmp_path / "log"
    log.touch()
    lognot = custom(counting_items(str(log), lines), prefix=own_users("max_inotify_instances=5")).start()
    append(log, "".join(f"line {number}\n" for number in range(100)))
    with held(lognot.pid):
        set_limit(lognot.pid, "max_inotify_instances", 0)
        os.kill(lognot.role("monitor"), signal.SIGKILL)
    lognot.wait_log(
        "cannot watch logs, will be tried again every 5 s: "
        "inotify limit reached, raise the sysctl fs.inotify.max_user_instances"
    )
    append(log, "".join(f"line {number}\n" for number in range(100, 200)))
    log.rename(tmp_path / "log.1")
    append(log, "".join(f"line {number}\n" for number in range(200, lines)))
    set_limit(lognot.pid, "max_inotify_instances", 5)
    assert_each_line_once(lognot)
    say_once(lognot, "cannot watch logs")
    assert lognot.log.count("monitor ended") == 1
    accounts.fault("no inotify instance for a new monitor", times=1, written=lines, seen=lines)


def test_the_event_queue_overflows_over_many_files(service: Make, tmp_path: Path) -> None:
    """The monitor is held until more events wait than fit, and misses a rotation of every second log."""
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = 30
    each = room // files + 50
    if each > 5000:
        pytest.skip("fs.inotify.max_queued_events is too high to be reached in short time")
    logs = [tmp_path / f"log{number}" for number in range(files)]
    for log in logs:
        log.touch()
    lognot = service("".join(counting_items(str(log), each + 20, f"-{log.name}") for log in logs)).start()
    with held(lognot.role("monitor")):
        fds = [os.open(log, os.O_WRONLY | os.O_APPEND) for log in logs]
        for number in range(each):  # in turns: the kernel merges an event with an equal one before it
            for fd in fds:
                os.write(fd, b"line %d\n" % number)
        for log in logs[::2]:
            log.rename(log.with_suffix(".1"))
        for log, fd in zip(logs, fds, strict=True):
            append(log, "".join(f"line {number}\n" for number in range(each, each + 10)))
            os.write(fd, b"".join(b"line %d\n" % number for number in range(each + 10, each + 20)))
            os.close(fd)
    lognot.wait_log(r"warning: the kernel's event queue overflowed")
    lognot.wait_log(r"\[ALL-\w+\] fired", files)
    assert lognot.stop() == 0
    assert lognot.log.count("] fired") == files
    total = files * (each + 20)
    accounts.fault("event queue overflows, many files rotated", times=files // 2, written=total, seen=total)
