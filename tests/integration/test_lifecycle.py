"""Start, reload, stop, and roles that die: what the service promises while things happen to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.harness import Service, append, changed_source, lines_of, wait_for
from integration.processes import (
    Custom,
    Run,
    descriptors,
    ids,
    is_gone,
    runner,
    stat_fields,
    status,
    wait_gone,
)
from integration.writer import held

Make = Callable[..., Service]

EVERY_LINE = "[ITEM]\npath = @/log\nregex = (\\w+)$\nupbound_action = echo $1 >> @/out\n"
# Says when it runs, and when it is asked to end; ends by itself once there is a file "go". The shell would
# say "Terminated" on a pipe that nobody reads any more, and SIGPIPE would end it before its trap does.
PATIENT = (
    "[ITEM]\npath = @/log\nregex = .*\n"
    "upbound_action = exec 2> /dev/null; trap 'echo TERM >> @/told; exit 7' TERM; "
    "echo \\$\\$ >> @/up; while [ ! -e @/go ]; do sleep 0.02; done; echo done >> @/out\n"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def everything_of(lognot: Service) -> list[int]:
    return [lognot.pid, *lognot.children()]


def running_action(tmp_path: Path, log: Path) -> int:
    """Start the patient action; give its pid."""
    append(log, "x\n")
    wait_for(lambda: lines_of(tmp_path / "up"), "the action")
    return int(lines_of(tmp_path / "up")[0])


# Roles that are killed.


def test_no_action_is_lost_or_run_twice_when_its_executor_is_killed(
    service: Make, log: Path, tmp_path: Path
) -> None:
    out, total, kills = tmp_path / "out", 400, 8
    lognot = service(f"[general]\nathread_count = 3\n{EVERY_LINE}").start()
    chance = random.Random(tmp_path.name)
    for kill in range(kills):
        append(log, "".join(f"line {number}\n" for number in range(kill * 50, kill * 50 + 50)))
        progress = kill * 50 - chance.randrange(40)
        wait_for(lambda progress=progress: len(lines_of(out)) >= progress, "actions")
        victim = lognot.role("executor")
        for _ in range(chance.randrange(20_000)):  # at any moment, not only where this test waits
            pass
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: lognot.role("executor") != victim, "a new executor")
    wait_for(lambda: len(lines_of(out)) >= total, "all actions")
    append(log, "the last\n")
    wait_for(lambda: "last" in lines_of(out), "an action after all others")
    assert sorted(lines_of(out)) == sorted([*map(str, range(total)), "last"])

    ends = lognot.wait_log(r"executor of \w+ ended \(killed by SIGKILL\), will be started again", kills)
    delays = [re.search(r"again (now|in ([\d.]+) s)", line) for line in ends]
    assert all(delay and float(delay[2] or 0) < 1 for delay in delays)
    assert len(lognot.wait_log(r"executor of \w+ started as pid", kills + 1)) == kills + 1
    assert lognot.stop() == 0


@pytest.mark.root
def test_an_executor_that_has_nothing_to_do_may_be_killed_for_ever(service: Make, log: Path) -> None:
    """One that is idle has come up all the same: its deaths are none of one that fails."""
    lognot = service(EVERY_LINE).start()
    for _ in range(7):
        victim = lognot.role("executor")
        # Its last order at the start is to serve the monitor: then it has answered those before.
        wait_for(lambda victim=victim: count_sockets(victim) == 2, "it to be up")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: lognot.role("executor") != victim, "a new executor")
    append(log, "word\n")
    wait_for(lambda: lines_of(log.with_name("out")) == ["word"], "the action")


def count_sockets(pid: int) -> int:
    """How many sockets a process has, none when it is gone."""
    with contextlib.suppress(OSError):
        return sum(target.startswith("socket:") for target in descriptors(pid).values())
    return 0


def test_an_action_that_runs_is_minded_by_the_next_executor(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(PATIENT).start()
    action = running_action(tmp_path, log)
    lognot.wait_log("action started as pid")
    old = lognot.role("executor")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: lognot.role("executor") != old, "a new executor")
    assert not is_gone(action)
    (tmp_path / "go").touch()
    lognot.wait_log(r"\[ITEM\] action ended, its exit status went to an executor that is gone")
    assert lines_of(tmp_path / "out") == ["done"]
    assert not (tmp_path / "told").exists()


def test_when_the_supervisor_is_killed_only_its_actions_go_on(
    service: Make, log: Path, tmp_path: Path
) -> None:
    lognot = service(PATIENT).start()
    action = running_action(tmp_path, log)
    monitor, executor = lognot.role("monitor"), lognot.role("executor")
    assert lognot.process is not None
    lognot.process.kill()
    wait_gone(monitor)
    assert not is_gone(action)
    (tmp_path / "go").touch()
    wait_gone(action, executor)
    assert lines_of(tmp_path / "out") == ["done"]
    assert not (tmp_path / "told").exists()


Change = Callable[..., Custom]


@pytest.fixture
def changed(tmp_path: Path, log: Path) -> Iterator[Change]:
    """A function that starts a lognot with more text in one of its modules."""
    made: list[Custom] = []

    def make(module: str, text: str, config: str, environment: dict[str, str] | None = None) -> Custom:
        tmp_path.chmod(0o755)
        made.append(Custom(tmp_path, config, environment=environment))
        made[-1].source = changed_source(tmp_path, module, text)
        made[-1].start(ready=False)
        return made[-1]

    yield make
    for lognot in made:
        lognot.end()


FAILS = "def run_{}(*_):\n    raise RuntimeError('out of \\x1b order')\n"


def test_a_monitor_that_never_comes_up_ends_the_service(changed: Change) -> None:
    """So that the service manager learns of it, and not only the log."""
    lognot = changed("monitor", FAILS.format("monitor"), EVERY_LINE)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 1
    assert len(re.findall(r"monitor failed: RuntimeError: out of \\x1b order", lognot.log)) == 5
    assert "error: monitor ended 5 times before it was ready (exit status 1); giving up" in lognot.log


def test_an_executor_that_never_comes_up_has_its_actions_wait(changed: Change, log: Path) -> None:
    """Everybody else's go on."""
    lognot = changed("executor", FAILS.format("executor"), EVERY_LINE)
    lognot.wait_notification("READY=1")
    append(log, "word\n")
    lognot.wait_log(r"\[ITEM\] fired")
    lognot.wait_log("will be started again", 4)
    [error] = lognot.wait_log(r"error: executor of \S+ ended 5 times before it was ready \(exit status 1\)")
    assert "its actions wait" in error
    assert len(re.findall(r"executor of \S+ failed: RuntimeError: out of \\x1b order", lognot.log)) == 5
    assert lognot.stop() == 0
    # Either of them says so: the next executor may be about to fail just then.
    assert re.search(r"1 action was dropped|executor of \S+ was to stop and ended early", lognot.log)


@pytest.mark.root
def test_whoever_may_kill_one_executor_ends_no_service(changed: Change, log: Path, tmp_path: Path) -> None:
    """An executor has the user of its actions, who may send it any signal."""
    hold = tmp_path / "hold"
    hold.touch()
    held = f"while args[1].name == 'daemon' and os.path.exists({str(hold)!r}): time.sleep(0.01)"
    lognot = changed(
        "executor",
        f"honest = run_executor\ndef run_executor(*args):\n    {held}\n    honest(*args)\n",
        "[ITEM]\nuid = daemon\npath = @/log\nupbound_action = echo his\n"
        "[OTHER]\nuid = root\npath = @/log\nupbound_action = echo ours\n",
    )
    for number in range(1, 6):
        started = lognot.wait_log(r"executor of daemon started as pid", number)
        os.kill(int(started[-1].rpartition(" ")[2]), signal.SIGKILL)
    [error] = lognot.wait_log(
        r"error: executor of daemon ended 5 times before it was ready \(killed by SIGKILL\)"
    )
    assert "its actions wait" in error
    lognot.wait_notification("READY=1")
    append(log, "word\n")
    lognot.wait_log(r"\[OTHER\] says: ours")
    assert "says: his" not in lognot.log
    hold.unlink()
    lognot.wait_log(r"\[ITEM\] says: his")
    lognot.wait_log(r"executor of daemon started as pid", 6)
    assert lognot.stop() == 0


@pytest.mark.root
def test_an_executor_that_accuses_the_monitor_again_and_again_is_ended_itself(
    changed: Change, log: Path
) -> None:
    """A monitor is ended on an executor's word, and is not to be kept from coming up by it."""
    accuse = (
        "from lognot import messages as m\n"
        "honest = run_executor\n"
        "def run_executor(channel, account, *args):\n"
        "    if account.name == 'root':\n        honest(channel, account, *args)\n        return\n"
        "    channel.send(m.Pong())\n"
        "    sock = channel._sock\n"
        "    while True:\n"
        "        sock.setblocking(True)\n"
        "        sock.send(b'\\0' + m.encode(m.PeerBroke(0)))\n"
        "        time.sleep(0.001)\n"
    )
    lognot = changed(
        "executor",
        accuse,
        "[ITEM]\nuid = daemon\npath = @/log\nupbound_action = echo his\n"
        "[OTHER]\nuid = root\npath = @/log\nupbound_action = echo ours\n",
    )
    lognot.wait_notification("READY=1")
    append(log, "word\n")
    lognot.wait_log(r"\[OTHER\] says: ours")
    ended = r"executor of daemon \(pid \d+\) is ended, .*: it accuses the monitor again and again"
    lognot.wait_log(ended, 8)
    assert lognot.log.count("what it sent to an executor does not validate") < 8
    assert lognot.stop() == 0


# The end.


def test_a_running_action_may_finish(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(PATIENT).start()
    action = running_action(tmp_path, log)
    everything = [*everything_of(lognot), action]
    lognot.signal(signal.SIGTERM)
    lognot.wait_notification("STOPPING=1")
    lognot.wait_log("stopping on SIGTERM")
    assert not is_gone(action)
    (tmp_path / "go").touch()
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    assert lines_of(tmp_path / "out") == ["done"]
    assert not (tmp_path / "told").exists()
    assert "[ITEM] action ended with exit status 0" in lognot.log
    assert all(is_gone(pid) for pid in everything)
    assert lognot.log.splitlines()[-1].endswith("info: stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_written_before_the_end_is_acted_on(
    service: Make, log: Path, tmp_path: Path, number: signal.Signals
) -> None:
    lognot = service(EVERY_LINE).start()
    append(log, "".join(f"{line}\n" for line in range(20)))
    lognot.signal(number)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    assert sorted(map(int, lines_of(tmp_path / "out"))) == list(range(20))


@pytest.mark.parametrize("resume", ["no", "yes"])
def test_what_there_is_no_time_for_is_said(changed: Change, log: Path, resume: str) -> None:
    """An administrator who is in a hurry, and a monitor that is not quick, which is not killed here."""
    item = "[ITEM]\npath = @/log\nregex = never\nupbound_action = :\n"
    lognot = changed("supervisor", "STOP_MONITOR_S = 60.0\n", f"[general]\nresume = {resume}\n{item}")
    lognot.wait_notification("READY=1")
    content = b"word\n" * 2_000_000
    with held(lognot.role("monitor")):
        append(log, content)
        lognot.signal(signal.SIGTERM)
        lognot.wait_log("stopping on SIGTERM")
        lognot.signal(signal.SIGTERM)
        wait_for(lambda: not int(status(lognot.pid)["ShdPnd"], 16), "the second signal is not on its way")
        lognot.own_log.unlink()
        lognot.signal(signal.SIGHUP)
        wait_for(lognot.own_log.exists, "the supervisor has taken them")
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    left = re.findall(
        r"error: (\d+) bytes? of log '\S+' (?:was|were) not read when lognot had to stop", lognot.log
    )
    if resume == "yes":
        assert left == []
    else:
        [number] = map(int, left)
        assert len(content) / 2 < number <= len(content)


@pytest.mark.parametrize("role", ["monitor", "executor"])
def test_a_role_that_is_killed_while_it_stops_is_told_of(
    service: Make, log: Path, tmp_path: Path, role: str
) -> None:
    """Nobody can say any more what it had still to do."""
    lognot = service(PATIENT).start()
    running_action(tmp_path, log)
    pid = lognot.role(role)
    os.kill(pid, signal.SIGSTOP)
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping on SIGTERM")
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    assert re.search(rf"error: {role}\b.* was to stop and ended early \(killed by SIGKILL\)", lognot.log)


def test_a_second_signal_does_not_wait(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(PATIENT).start()
    action = running_action(tmp_path, log)
    begin = time.monotonic()
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping on SIGTERM")
    lognot.signal(signal.SIGTERM)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    assert time.monotonic() - begin < 9, "it has waited for the grace time of 10 s"
    assert lines_of(tmp_path / "told") == ["TERM"]
    assert is_gone(action)
    assert "[ITEM] action ended with exit status 7" in lognot.log or "exit status 7" in lognot.log


def test_actions_of_several_processes_are_waited_for_as_long_as_they_take(
    changed: Change, log: Path, tmp_path: Path
) -> None:
    """Their shells may end a moment earlier than what they have started. SIGKILL is not for these."""
    lognot = changed(
        "executor",
        "KILL_AFTER_S = 60.0\n",
        "[general]\nathread_count = 10\n[ITEM]\npath = @/log\n"
        "upbound_action = echo up >> @/up; sleep 300; echo never >> @/up\n",
    )
    lognot.wait_notification("READY=1")
    append(log, "x\n" * 10)
    wait_for(lambda: len(lines_of(tmp_path / "up")) == 10, "the actions")
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping on SIGTERM")
    lognot.signal(signal.SIGTERM)
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0
    assert lines_of(tmp_path / "up") == ["up"] * 10
    assert lognot.log.count("action ended with killed by SIGTERM") == 10


# Its own log file.


def test_sighup_reopens_the_log_file_and_nothing_else(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(EVERY_LINE).start()
    lognot.own_log.rename(tmp_path / "own.log.1")
    lognot.write_config("[BROKEN")
    append(log, "one\n")
    wait_for(lambda: "action ended" in (tmp_path / "own.log.1").read_text(), "the old file is in use")
    lognot.signal(signal.SIGHUP)
    old, new = str(tmp_path / "own.log.1"), str(lognot.own_log)
    wait_for(lambda: {old, new} & {*descriptors(lognot.pid).values()} == {new}, "the new file alone")
    append(log, "two\n")
    lognot.wait_log("action ended with exit status 0")
    assert lines_of(tmp_path / "out") == ["one", "two"]
    assert "CONFIG" not in lognot.log
    assert "BROKEN" not in lognot.log


def test_a_log_file_that_cannot_be_reopened_stays_in_use(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(EVERY_LINE).start()
    lognot.own_log.rename(tmp_path / "own.log.1")
    lognot.own_log.mkdir()
    lognot.signal(signal.SIGHUP)
    wait_for(
        lambda: "cannot reopen the log file, the old one stays" in (tmp_path / "own.log.1").read_text(),
        "the error in the old file",
    )
    lognot.own_log.rmdir()
    assert lognot.stop() == 0


def test_what_is_left_out_of_it_is_said_in_time(changed: Change, log: Path) -> None:
    """Also when whoever said too much says no more."""
    small = "ROLE_BURST_BYTES, ROLE_BYTES_PER_S, SAID_EVERY_NS = 8192, 1, 10**9\n"
    config = "[ITEM]\npath = @/log\nupbound_action = seq 100\n"
    left_out = r"too much to log about executor of \S+: (\d+) records? (?:was|were) left out$"
    lognot = changed("quota", small, config)
    lognot.wait_notification("READY=1")
    append(log, "x\n")
    lognot.wait_log(r"too much to log about executor of \S+: records are left out, and counted")
    lognot.wait_log(left_out)
    assert lognot.stop() == 0
    said = lognot.log.count("[ITEM] says: ")
    assert 0 < said < 100
    assert said + sum(map(int, re.findall(left_out, lognot.log, re.MULTILINE))) >= 100


def test_what_is_written_while_the_next_monitor_is_put_off_is_read_at_the_stop(
    changed: Change, log: Path, tmp_path: Path
) -> None:
    lognot = changed("children", "FIRST_DELAY_S = LONGEST_DELAY_S = 60.0\n", EVERY_LINE)
    lognot.wait_notification("READY=1")
    for number in itertools.count(1):
        os.kill(lognot.role("monitor"), signal.SIGKILL)
        if lognot.wait_log("monitor ended", number)[-1].endswith(" in 60 s"):
            break
    append(log, "1\n2\n3\n")
    assert "monitor" not in lognot.children().values()
    assert lognot.stop() == 0
    assert sorted(lines_of(tmp_path / "out")) == ["1", "2", "3"]
    assert not re.search("error|ended early", lognot.log)


def test_what_is_left_out_before_the_stop_is_said(changed: Change, log: Path) -> None:
    lognot = changed(
        "quota",
        "ROLE_BURST_BYTES, ROLE_BYTES_PER_S = 8192, 1\n",
        "[ITEM]\npath = @/log\nupbound_action = seq 100\n",
    )
    lognot.wait_notification("READY=1")
    append(log, "x\n")
    lognot.wait_log("records are left out, and counted")
    assert lognot.stop() == 0
    [left_out] = re.findall(r": (\d+) records? (?:was|were) left out$", lognot.log, re.MULTILINE)
    assert lognot.log.count("[ITEM] says: ") + int(left_out) >= 100
    assert lognot.log.splitlines()[-1].endswith("info: stopped")


# Reload.


def test_a_reload_keeps_what_did_not_change(service: Make, log: Path, tmp_path: Path) -> None:
    counted = (
        "[COUNTED]\npath = @/log\nregex = hit.*\nupbound_freq = 3/300\nupbound_action = echo $0 >> @/fired\n"
    )
    every = "[EVERY]\npath = @/log\nregex = hit (\\d+)\nupbound_action = echo $1 >> @/every\n"
    gone = "[GONE]\npath = @/log\nregex = hit.*\nupbound_action = echo $0 >> @/gone\n"
    new = "[NEW]\npath = @/log\nregex = hit (\\d+)\nupbound_action = echo $1 >> @/new\n"
    one = "[general]\nathread_count = 1\n"
    lognot = service(one + counted + every + gone).start()
    append(log, "hit 1\nhit 2\n")
    wait_for(lambda: len(lines_of(tmp_path / "gone")) == 2, "two matches")
    append(log, "hi")  # half a line is no reason to lose it
    monitor, executor = lognot.role("monitor"), lognot.role("executor")
    # A changed action makes it another item; an item that stays may stand elsewhere and have a comment.
    lognot.reload(one + new + every.replace("[EVERY]", "; the same\n[EVERY]") + counted)
    append(log, "t 3\nhit 4\nhit 5\n")
    wait_for(lambda: lines_of(tmp_path / "every") == ["1", "2", "3", "4", "5"], "every line once")
    wait_for(lambda: lines_of(tmp_path / "new") == ["3", "4", "5"], "the new item")
    assert lines_of(tmp_path / "fired") == ["hit 4"]  # more than 3 matches, those before the reload included
    assert lines_of(tmp_path / "gone") == ["hit 1", "hit 2"]
    assert (lognot.role("monitor"), lognot.role("executor")) == (monitor, executor)
    lognot.wait_log("config reloaded, 3 items in")


def test_a_reload_is_said_when_the_config_is_in_use(service: Make, log: Path, tmp_path: Path) -> None:
    new = "[NEW]\npath = @/log\nregex = ^new (\\d+)$\nupbound_action = echo $1 >> @/new\n"
    lognot = service(EVERY_LINE).start()
    with held(lognot.role("monitor")):
        lognot.write_config(EVERY_LINE + new)
        lognot.signal(signal.SIGUSR1)
        lognot.wait_notification("RELOADING=1")
        os.kill(lognot.role("executor"), signal.SIGKILL)
        lognot.wait_log("executor of .* started as pid", 2)  # so the supervisor is through with the reload
        assert "config reloaded" not in lognot.log
    lognot.wait_log("config reloaded, 2 items in")
    append(log, "new 7\n")
    wait_for(lambda: lines_of(tmp_path / "new") == ["7"], "the new item")


def test_a_new_item_acts_though_its_executor_stood_still(service: Make, log: Path, tmp_path: Path) -> None:
    """It finds the new config and the action at once, and more of the monitor before them."""
    new = "[NEW]\npath = @/log\nregex = ^new (\\d+)$\nupbound_action = echo $1 >> @/new\n"
    lognot = service(EVERY_LINE).start()
    with held(lognot.role("executor")):
        append(log, "one\n")
        lognot.wait_log(r"\[ITEM\] fired")
        lognot.write_config(EVERY_LINE + new)
        lognot.signal(signal.SIGUSR1)
        lognot.wait_log("config reloaded, 2 items")

        def fired() -> bool:
            append(log, "new 7\n")  # the monitor may not have the config yet
            return "[NEW] fired" in lognot.log

        wait_for(fired, "the new item")
    wait_for(lambda: "7" in lines_of(tmp_path / "new"), "its action")
    assert lognot.stop() == 0
    assert len(lines_of(tmp_path / "new")) == lognot.log.count("[NEW] fired")


def test_a_changed_item_begins_again(service: Make, log: Path, tmp_path: Path) -> None:
    config = "[A]\npath = @/log\nregex = hit.*\nupbound_freq = {}/300\nupbound_action = echo $0 >> @/fired\n"
    mark = "[MARK]\npath = @/log\nregex = mark (\\d)\nupbound_action = echo $1 >> @/marks\n"
    lognot = service("[general]\nathread_count = 1\n" + config.format(2) + mark).start()
    append(log, "hit 1\nhit 2\nmark 1\n")
    wait_for(lambda: lines_of(tmp_path / "marks") == ["1"], "mark 1")
    lognot.reload("[general]\nathread_count = 1\n" + config.format(1) + mark)
    append(log, "hit 3\nhit 4\nmark 2\n")
    wait_for(lambda: lines_of(tmp_path / "marks") == ["1", "2"], "mark 2")
    assert lines_of(tmp_path / "fired") == ["hit 4"]


@pytest.mark.root
def test_a_reload_takes_and_leaves_logs(service: Make, log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("old\n")
    item = "[{0}]\npath = @/{0}\nregex = (\\w+)$\nupbound_action = echo $1 >> @/out\n"
    lognot = service(item.format("log")).start()
    lognot.reload(item.format("other"))
    opened = descriptors(lognot.pid).values()
    assert str(other) in opened
    assert str(log) not in opened
    assert str(log) not in descriptors(lognot.role("monitor")).values()
    append(log, "unseen\n")
    append(other, "seen\n")
    wait_for(lambda: lines_of(tmp_path / "out") == ["seen"], "the new log")
    assert "STATUS=watching 1 of 1 logs for 1 item" in "\n".join(lognot.notifications)


@pytest.mark.root
def test_a_changed_uid_gets_another_executor(service: Make, log: Path, tmp_path: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    (tmp_path / "out").touch()
    (tmp_path / "out").chmod(0o666)
    item = "[ITEM]\npath = @/log\nregex = .*\nupbound_action = id -u\nuid = {}\n"
    lognot = service(item.format("root")).start()
    append(log, "x\n")
    lognot.wait_log(r"\[ITEM\] says: 0$")
    old = lognot.role("executor")
    lognot.reload(item.format("daemon"))
    wait_gone(old)
    append(log, "y\n")
    lognot.wait_log(rf"\[ITEM\] says: {daemon.pw_uid}$")
    new = lognot.role("executor")
    assert new != old
    assert ids(new)[0] == {daemon.pw_uid}
    assert "will be started again" not in lognot.log

    # And back, while the one that is to end still has work: nobody waits for it.
    config = item.format("root").replace("id -u", "echo now")
    lognot.reload(item.format("daemon").replace("id -u", "sleep 300"))
    append(log, "z\n")
    lognot.wait_log("action started as pid", 3)
    lognot.reload(config)
    append(log, "a\n")
    lognot.wait_log(r"\[ITEM\] says: now")
    lognot.reload(item.format("daemon"))
    append(log, "b\n")
    lognot.wait_log(rf"\[ITEM\] says: {daemon.pw_uid}$", 2, deadline_s=9)
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping")
    lognot.signal(signal.SIGTERM)  # for the sleep
    assert lognot.process is not None
    assert lognot.process.wait(20) == 0


def test_a_broken_config_changes_nothing_and_every_error_is_said(
    service: Make, log: Path, tmp_path: Path
) -> None:
    lognot = service(EVERY_LINE).start()
    lognot.role("executor")
    everything = everything_of(lognot)
    lognot.reload(
        "[A]\npath = @/log\nregex = (\nupbound_action = true\n"
        "[B]\nupbound_freq = often\nupbound_action = echo '\n[A]\nnonsense = 1\n"
    )
    errors = [line for line in lognot.log.splitlines() if ": error: " in line]
    place = re.escape(str(lognot.config_path))
    for wanted in (
        r":5: \[B\] path: is missing",
        r":6: \[B\] upbound_freq: expected COUNT/SECONDS, got 'often'",
        rf":8: \[A\] this section stands at {place}:1 already",
        r":9: \[A\] nonsense: unknown option",
    ):
        assert sum(bool(re.search(place + wanted, line)) for line in errors) == 1, wanted
    assert "config not reloaded, the old one stays in use" in errors[-1]
    lognot.reload("[A]\npath = @/log\nregex = (\nupbound_action = echo $7\n")  # only a child can tell
    lognot.wait_log(rf"error: {place}:3: \[A\] regex: ")
    lognot.config_path.unlink()
    lognot.reload()
    lognot.wait_log("cannot read the config: No such file")
    append(log, "still\n")
    wait_for(lambda: lines_of(tmp_path / "out") == ["still"], "the old config")
    assert everything_of(lognot) == everything
    assert lognot.notifications.count("READY=1") == 4
    assert lognot.notifications.count("RELOADING=1") == 3


@pytest.mark.root
@pytest.mark.parametrize(
    ("option", "values"), [("action_timeout", ("100", "200")), ("uid", ("root", "daemon"))]
)
def test_a_reload_loses_nothing_that_was_found_before(
    service: Make, log: Path, open_dir: Path, option: str, values: tuple[str, str]
) -> None:
    """The moment matters at which the monitor hears of it, after the executors: lines come all the time."""
    out = open_dir / "out"
    out.touch()
    out.chmod(0o666)
    item = EVERY_LINE.replace("@/out", str(out))
    configs = [f"{item}{option} = {value}\n" for value in values]
    lognot = service(configs[0]).start()
    written = 0
    for number in range(1, 9):
        lognot.write_config(configs[number % 2])
        before = lognot.log.count("config reloaded")
        lognot.signal(signal.SIGUSR1)
        while lognot.log.count("config reloaded") == before:
            if written < len(lines_of(out)) + 200:  # or it would take the longer the busier the machine is
                append(log, f"{written}\n")
                written += 1
            time.sleep(0.003)  # as a log is written to; to wait for the reload is the loop's
    wait_for(lambda: len(lines_of(out)) >= written, "every line")
    assert sorted(map(int, lines_of(out))) == list(range(written))
    assert "dropped" not in lognot.log


def test_a_reload_warns_of_what_does_nothing(service: Make, log: Path) -> None:
    useless = "[USELESS]\npath = @/log\n"
    lognot = service(EVERY_LINE + useless).start()
    lognot.wait_log(r"warning: .*lognot.conf:5: warning: \[USELESS\] nothing would ever run")
    lognot.reload()
    lognot.wait_log(r"\[USELESS\] nothing would ever run", 2)


# The service manager.


def test_what_the_service_manager_hears(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(EVERY_LINE + "[LATER]\npath = @/later\nupbound_action = true\n").start()
    append(log, "first\n")  # the very moment it is ready: nothing written now may be missed
    wait_for(lambda: lines_of(tmp_path / "out") == ["first"], "the first line")
    before = time.monotonic_ns() // 1000
    lognot.reload()
    after = time.monotonic_ns() // 1000
    append(log, "second\n")
    lognot.wait_notification(
        "STATUS=watching 1 of 2 logs for 2 items: 0.0 MiB read, 2 matches, 2 times fired, 2 act"
    )
    assert lognot.stop() == 0
    lognot_heard = [line for line in lognot.notifications if not line.startswith("STATUS=watching")]
    usec = lognot_heard[2]
    assert lognot_heard == ["READY=1", "RELOADING=1", usec, "READY=1"]
    assert before <= int(usec.removeprefix("MONOTONIC_USEC=")) <= after


def test_reloads_do_not_have_the_status_line_told_more_often(service: Make, log: Path) -> None:
    lognot = service(EVERY_LINE).start()
    actions = itertools.count(1)

    def act() -> None:
        append(log, "word\n")
        lognot.wait_log("action ended", next(actions))
        lognot.wait_notification("")

    for _ in range(5):  # each while a status line is due: there was one more from then on
        act()
        lognot.reload()
    begin_s, before = time.monotonic(), told_of_status(lognot)
    while time.monotonic() < begin_s + 2.5:
        act()
    assert told_of_status(lognot) - before <= time.monotonic() - begin_s + 1
    assert lognot.stop() == 0


def told_of_status(lognot: Service) -> int:
    return sum(line.startswith("STATUS=") for line in lognot.notifications)


@pytest.mark.root
def test_it_is_ready_only_when_the_logs_are_watched(service: Make, log: Path) -> None:
    lognot = service(EVERY_LINE).start()
    [inotify] = [fd for fd, target in descriptors(lognot.role("monitor")).items() if "inotify" in target]
    watched = Path(f"/proc/{lognot.role('monitor')}/fdinfo/{inotify}").read_text()
    for path in (log, log.parent):
        assert f"ino:{path.stat().st_ino:x} " in watched


def test_the_watchdog_is_fed_until_the_monitor_hangs(service: Make, log: Path) -> None:
    lognot = service(EVERY_LINE, environment={"WATCHDOG_USEC": "100000"}).start()
    lognot.wait_notification("WATCHDOG=1", 4)
    pid = lognot.role("monitor")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stat_fields(pid)[0] == b"T", "it to be stopped")
    lognot.wait_notification("")
    late = [fed(lognot, 1.0)]
    while late[-1]:
        late.append(fed(lognot, 1.0))
        assert sum(late) <= 2, "more than what was on its way"
    os.kill(pid, signal.SIGCONT)
    fed_before = lognot.notifications.count("WATCHDOG=1")
    lognot.wait_notification("WATCHDOG=1", fed_before + 3)
    assert lognot.stop() == 0


SLOW_CHECK = """
import time
_check_patterns = check_patterns
def check_patterns(config):
    if any(item.name == "SLOW" for item in config.items):
        time.sleep(4)
    return _check_patterns(config)
"""


def test_the_watchdog_is_fed_while_a_config_is_checked(changed: Change, log: Path) -> None:
    """That can take longer than a service manager waits, and has an end."""
    lognot = changed("check", SLOW_CHECK, EVERY_LINE, {"WATCHDOG_USEC": "100000"})
    lognot.wait_notification("READY=1")
    lognot.reload(EVERY_LINE.replace("ITEM", "SLOW"))
    told = lognot.notifications[lognot.notifications.index("RELOADING=1") :]
    assert told[: told.index("READY=1")].count("WATCHDOG=1") >= 5
    assert lognot.stop() == 0


def test_an_executor_that_hangs_is_ended_and_nobody_waits_for_it(changed: Change, log: Path) -> None:
    """The user of its actions may stop it, and the service is not to be restarted for that."""
    lognot = changed("executors", "HANGS_S = 5.0\n", EVERY_LINE, {"WATCHDOG_USEC": "100000"})
    lognot.wait_notification("READY=1")
    pid = lognot.role("executor")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stat_fields(pid)[0] == b"T", "it to be stopped")
    lognot.wait_notification("")
    fed_before = lognot.notifications.count("WATCHDOG=1")
    append(log, "word\n")
    lognot.wait_log(rf"executor of \S+ \(pid {pid}\) is ended, since it has not answered")
    lognot.wait_notification("")
    assert lognot.notifications.count("WATCHDOG=1") >= fed_before + 5
    wait_for(lambda: lines_of(log.with_name("out")) == ["word"], "the action")
    assert lognot.stop() == 0


def fed(lognot: Service, span_s: float) -> int:
    """How often the watchdog is fed within a time, which is what there is to wait for."""
    end = time.monotonic() + span_s
    found = 0
    with socket.socket(fileno=os.dup(lognot._notify.fileno())) as notify:
        while (left := end - time.monotonic()) > 0:
            notify.settimeout(left)
            with contextlib.suppress(TimeoutError):
                found += notify.recv(65536).decode().split("\n").count("WATCHDOG=1")
    lognot._notify.setblocking(False)  # the copy has shared this
    return found


def test_a_service_manager_that_is_gone_is_no_trouble(service: Make, log: Path, tmp_path: Path) -> None:
    lognot = service(EVERY_LINE, environment={"WATCHDOG_USEC": "20000"}).start()
    lognot._notify.close()
    append(log, "word\n")
    wait_for(lambda: lines_of(tmp_path / "out") == ["word"], "the action")
    assert lognot.stop() == 0


# The background.


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with runner(tmp_path) as run:
        yield run


def daemon(tmp_path: Path, *more: str) -> list[str]:
    config = tmp_path / "lognot.conf"
    if not config.exists():
        config.write_text(EVERY_LINE.replace("@", str(tmp_path)))
    return ["-c", str(config), "-d", "-p", "lognot.pid", "-l", "own.log", *more]


@pytest.mark.root
def test_a_daemon_from_its_start_to_its_end(run: Run, log: Path, tmp_path: Path) -> None:
    begun = run(*daemon(tmp_path))
    assert (begun.returncode, begun.stdout, begun.stderr) == (0, b"", b"")
    assert "ready, watching 1 of 1 logs" in (tmp_path / "own.log").read_text()
    pid = int((tmp_path / "lognot.pid").read_text())
    everything = run.processes()
    assert pid in everything
    assert Path(f"/proc/{pid}/comm").read_text() == "lognot-supervis\n"
    _, parent, group, session, terminal, *_ = stat_fields(pid)
    assert int(parent) not in everything
    assert int(session) == int(group) not in (os.getsid(0), pid)  # no session leader can get a terminal again
    assert int(terminal) == 0
    assert [descriptors(pid)[fd] for fd in range(3)] == [os.devnull] * 3
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    append(log, "word\n")
    wait_for(lambda: lines_of(tmp_path / "out") == ["word"], "the action")
    wait_for(lambda: len(run.processes()) == 3, "only the three roles")

    second = run(*daemon(tmp_path))
    assert second.returncode == 1
    assert b"lognot.pid' names a lognot that runs: " + str(pid).encode() in second.stderr
    assert int((tmp_path / "lognot.pid").read_text()) == pid
    assert len(run.processes()) == 3

    os.kill(pid, signal.SIGTERM)
    wait_gone(*everything)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "lognot.conf", "out", "own.log"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_as_soon_as_there_is_a_pid_file(run: Run, log: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "lognot.pid"

    def send() -> None:
        pid = int(wait_for(lambda: path.exists() and path.read_text(), "the pid file"))
        os.kill(pid, number)

    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(send)
        begun = run(*daemon(tmp_path))
        sent.result()
    assert (begun.returncode, begun.stdout, begun.stderr) == (0, b"", b"")
    everything = run.processes()
    os.kill(int(path.read_text()), signal.SIGTERM)
    wait_gone(*everything)


def test_a_stale_pid_file_does_not_hinder(run: Run, log: Path, tmp_path: Path) -> None:
    (tmp_path / "lognot.pid").write_text("4194304\n")  # above the largest pid
    assert run(*daemon(tmp_path)).returncode == 0
    assert int((tmp_path / "lognot.pid").read_text()) in run.processes()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-c", "absent.conf"], b"absent.conf: cannot read the config: No such file or directory"),
        (["-l", "absent/own.log"], b"/absent': No such file or directory"),
        (["-p", "absent/lognot.pid"], b"/absent/lognot.pid': No such file or directory"),
        (["-w", "absent"], b"not started: 'absent': No such file or directory"),
        (["-u", "nosuchuser"], b"there is no user 'nosuchuser'"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(
    run: Run, log: Path, tmp_path: Path, arguments: list[str], reason: bytes
) -> None:
    done = run(*daemon(tmp_path), *arguments)
    assert done.returncode == 1
    assert reason in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"lognot: not started" in done.stderr
    wait_for(lambda: not run.processes(), "nothing left")
    assert not (tmp_path / "lognot.pid").exists()


def test_closed_standard_descriptors_do_no_harm(log: Path, tmp_path: Path) -> None:
    with runner(tmp_path, "sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh") as run:
        assert run(*daemon(tmp_path)).returncode == 0
        append(log, "word\n")
        wait_for(lambda: lines_of(tmp_path / "out") == ["word"], "the action")
        pid = int((tmp_path / "lognot.pid").read_text())
        assert [descriptors(pid)[fd] for fd in range(3)] == [os.devnull] * 3
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)


# What strangers can do.


def test_a_winding_path_costs_its_log_only(service: Make, log: Path, tmp_path: Path) -> None:
    """Each `..` of a link is a directory on the way, and each is watched: there is an end to that."""
    (tmp_path / "d").mkdir()
    for number in range(39):
        target = "d/../" * 800 + (f"link{number + 1}" if number < 38 else "log")
        (tmp_path / f"link{number}").symlink_to(target)
    lognot = service(EVERY_LINE + "[WINDING]\npath = @/link0\nupbound_action = echo no >> @/out\n").start()
    lognot.wait_log("link0' cannot be watched, .*leads through too many directories")
    append(log, "word\n")
    wait_for(lambda: lines_of(tmp_path / "out") == ["word"], "the other item")
    assert "ended" not in lognot.log.replace("action ended", "")
