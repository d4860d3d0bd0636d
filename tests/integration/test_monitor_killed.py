"""The monitor is killed at any moment: it is back at once, and nobody notices."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import accounts
from integration.harness import PYTHON, Service, append, lines_of, wait_for
from integration.moments import Moments
from integration.processes import Custom
from integration.writer import REGEX, Writer, assert_each_line_once, counting_items, held, wait_has_open
from lognot.ledger import JOURNAL_RECORDS

Make = Callable[..., Service]


def kill_monitor(lognot: Service) -> None:
    """With SIGKILL; returns when there is another one."""
    pid = lognot.role("monitor")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in lognot.children(), "the end of the monitor")
    lognot.role("monitor")


def wait_count(out: Path, count: int) -> None:
    wait_for(lambda: len(lines_of(out)) >= count, f"{count} lines in {out}")


def test_no_line_is_lost_or_seen_twice(service: Make, lone_log: Path) -> None:
    """Rotations go on meanwhile. Their moments and those of the kills are drawn anew each time."""
    lines, rotations, kills = 4000, 8, 8
    moments = Moments()
    steps = ["rotate"] * rotations + ["kill"] * kills
    moments.shuffle(steps)
    lognot = service(counting_items(str(lone_log), lines)).start()
    killed = 0
    with Writer(lone_log, lines, 0.0003, allowed=0) as writer:
        for number, step in enumerate(steps):
            writer.round(number, len(steps))
            writer.wait_written(writer.written + moments.randrange(60))
            if step == "kill":
                kill_monitor(lognot)
                killed += 1
                if killed % 3 == 0:  # one that dies five times before it was ready is not started again
                    wait_has_open(lognot.role("monitor"), lone_log)
            else:
                wait_has_open(lognot.pid, lone_log)
                lone_log.rename(lone_log.with_name(f"log.{number}"))
                writer.reopen(after=30)
        writer.finish()
    assert_each_line_once(lognot)
    assert lognot.log.count("monitor ended (killed by SIGKILL)") == kills
    accounts.fault("kill -9 of the monitor, with rotations", times=kills, written=lines, seen=lines)


def test_no_action_is_lost_or_run_twice(service: Make, tmp_path: Path) -> None:
    """Each line has an action; more of them wait than the socket to the executor holds."""
    lines, kills = 400, 6
    logs = [tmp_path / "a", tmp_path / "b"]
    config = "[general]\nathread_count = 4\n"
    for log in logs:
        log.touch()
        config += f"[{log.name}]\npath = {log}\nregex = {REGEX}\nupbound_action = echo $1 >> {log}.out\n"
    lognot = service(config).start()
    outs = [log.with_suffix(".out") for log in logs]
    for log in logs:
        append(log, "".join(f"line {number}\n" for number in range(lines)))
    for number in range(kills):
        wait_count(outs[0], number * lines // kills + 1)
        kill_monitor(lognot)
    for out in outs:
        wait_count(out, lines)
    assert lognot.stop() == 0
    for out in outs:
        ran = sorted(map(int, lines_of(out)))
        assert ran == list(range(lines))
        accounts.numbered("kill -9 of the monitor, actions run", ran, lines, times=kills)


def test_counts_survive(service: Make, tmp_path: Path) -> None:
    log, seen = tmp_path / "log", tmp_path / "seen"
    log.touch()
    lognot = service(
        f"[COUNTED]\npath = {log}\nregex = error\nupbound_freq = 5/30\nupbound_action = echo $LOGNOT_COUNT\n"
        f"[SEEN]\npath = {log}\nregex = error\nupbound_action = echo seen >> {seen}\n"
    ).start()
    append(log, "error\n" * 3)
    wait_count(seen, 3)
    kill_monitor(lognot)
    append(log, "error\n" * 2)
    wait_count(seen, 5)
    assert "[COUNTED] fired" not in lognot.log
    kill_monitor(lognot)
    append(log, "error\n")
    lognot.wait_log(r"\[COUNTED\] says: 6")
    assert lognot.stop() == 0
    assert lognot.log.count("[COUNTED] fired") == 1


def test_a_flood_and_a_kill_do_not_put_a_lower_bound_off(service: Make, tmp_path: Path) -> None:
    """The flood pushes the bound's beginning off the journal: it began anew with the next monitor."""
    flooded, quiet = tmp_path / "flooded", tmp_path / "quiet"
    flooded.touch()
    quiet.touch()
    lognot = service(
        f"[FLOODED]\npath = {flooded}\nregex = x\nupbound_freq = 1000000/3600\nupbound_action = true\n"
        f"[SOON]\npath = {quiet}\ndownbound_freq = 1/6\ndownbound_action = true\n"
        f"[LATER]\npath = {quiet}\ndownbound_freq = 1/12\ndownbound_action = true\n"
    ).start()
    for _ in range(JOURNAL_RECORDS // 10_000 + 1):
        append(flooded, b"x\n" * 10_000)
    lognot.wait_log(r"\[SOON\] fired")
    kill_monitor(lognot)
    begin_s = time.monotonic()
    lognot.wait_log(r"\[LATER\] fired")
    assert time.monotonic() - begin_s < 11, "it is due 6 seconds later, and 12 where it began anew"
    assert lognot.stop() == 0


def test_a_size_is_reached_once(service: Make, tmp_path: Path) -> None:
    """Also by a line that is not finished, and when nobody is left who knows that the action ran."""
    log, out, later = tmp_path / "log", tmp_path / "out", tmp_path / "later"
    log.touch()
    one = f"path = {log}\nsize = 1K\nsize_action = echo $LOGNOT_COUNT >> "
    lognot = service(f"[ONE]\n{one}{out}\n").start()
    append(log, b"x" * 900 + b"\n" + b"y" * 300)
    wait_count(out, 1)
    lognot.wait_log("action ended")
    lognot.reload(f"[ONE]\n{one}{out}\n[LATER]\n{one}{later}\n")
    executor = lognot.role("executor")
    os.kill(executor, signal.SIGKILL)
    wait_for(lambda: executor not in lognot.children(), "the end of the executor")
    lognot.role("executor")
    kill_monitor(lognot)
    lognot.reload()  # which the next one answers when it has seen the log
    append(log, b"z" * 1000)
    wait_count(out, 2)
    wait_count(later, 1)
    os.truncate(log, 0)
    lognot.wait_log("was truncated")
    kill_monitor(lognot)
    append(log, b"x" * 1500)
    wait_count(out, 3)
    wait_count(later, 2)
    assert lognot.stop() == 0
    assert lines_of(out) == ["1", "2", "1"]
    assert lines_of(later) == ["2", "1"]


def test_a_size_that_is_reached_just_before_a_rotation(service: Make, tmp_path: Path) -> None:
    """While no monitor looks; and it is not reached again by a link that leads to the old file once more."""
    log, link, out = tmp_path / "log", tmp_path / "link", tmp_path / "out"
    log.touch()
    link.symlink_to(log)
    lognot = service(
        f"[LOG]\npath = {log}\nsize = 1K\nsize_action = echo log >> {out}\n"
        f"[LINK]\npath = {link}\nsize = 1K\nsize_action = echo link >> {out}\n"
        "regex = ^end\nupbound_action = echo end seen\n"
    ).start()
    append(log, b"x" * 900 + b"\n")
    with contextlib.suppress(ProcessLookupError), held(lognot.role("monitor")):  # it is killed
        append(log, b"y" * 300 + b"\n")
        log.rename(tmp_path / "log.1")
        log.touch()
        kill_monitor(lognot)
    wait_count(out, 2)
    for name in ("log.1", "log", "log.1"):
        (tmp_path / "next").symlink_to(name)
        (tmp_path / "next").rename(link)
        lognot.reload()  # which is over when it has seen where the link leads
    append(tmp_path / "log.1", "end\n")
    lognot.wait_log(r"\[LINK\] says: end seen")
    assert lognot.stop() == 0
    assert sorted(lines_of(out)) == ["link", "log"]


def test_an_item_that_comes_later_begins_at_the_size_then(service: Make, tmp_path: Path) -> None:
    """It is the first of its log to wait for a size; its monitor is killed before anything is written."""
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    seen = f"[SEEN]\npath = {log}\nregex = ^x\nupbound_action = true\n"
    lognot = service(seen).start()
    append(log, b"x" * 900 + b"\n" + b"y" * 300)
    lognot.wait_log("action ended")
    lognot.reload(seen + f"[LATER]\npath = {log}\nsize = 1K\nsize_action = echo $LOGNOT_COUNT >> {out}\n")
    kill_monitor(lognot)
    lognot.reload()
    append(log, b"z" * 1000)
    wait_count(out, 1)
    assert lognot.stop() == 0
    assert lines_of(out) == ["2"]


def test_what_was_written_while_there_was_no_monitor_is_read(service: Make, tmp_path: Path) -> None:
    """Old and new file, an unfinished line, and a file that was emptied and has grown again."""
    log, emptied = tmp_path / "log", tmp_path / "emptied"
    log.touch()
    emptied.touch()
    config = "".join(
        f"[{path.name}]\npath = {path}\nregex = .+\nupbound_action = echo $0 >> {path}.out\n"
        for path in (log, emptied)
    )
    lognot = service(f"[general]\nathread_count = 1\n{config}").start()
    append(log, "one\ntw")
    append(emptied, "a\nb\nc\n")
    out, emptied_out = tmp_path / "log.out", tmp_path / "emptied.out"
    wait_count(out, 1)
    wait_count(emptied_out, 3)
    # Dead first: what is done then is done before a new one can look.
    os.kill(lognot.pid, signal.SIGSTOP)
    os.kill(lognot.role("monitor"), signal.SIGKILL)
    append(log, "o\nthree\n")
    log.rename(tmp_path / "log.1")
    append(tmp_path / "log.1", "four\n")
    append(log, "five\n")
    os.truncate(emptied, 0)
    append(emptied, "d\n" * 100)
    os.kill(lognot.pid, signal.SIGCONT)
    wait_count(out, 5)
    wait_count(emptied_out, 103)
    assert lognot.stop() == 0
    assert sorted(lines_of(out)) == sorted(["one", "two", "three", "four", "five"])
    assert lines_of(emptied_out) == ["a", "b", "c"] + ["d"] * 100


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGVTALRM])
def test_a_monitor_that_crashes_is_started_again(
    service: Make, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    log.touch()
    lognot = service(f"[ITEM]\npath = {log}\nregex = .+\nupbound_action = echo $0\n").start()
    os.kill(lognot.role("monitor"), number)
    lognot.wait_log(rf"warning: monitor ended \(killed by {number.name}\), will be started again now")
    append(log, "line\n")
    lognot.wait_log(r"\[ITEM\] says: line")
    assert lognot.stop() == 0


def test_several_searches_that_kill_between_two_commits(service: Make, tmp_path: Path) -> None:
    """Each takes one monitor with it, not all of them in turns for ever."""
    log = tmp_path / "log"
    log.touch()
    regex = "(?=a)[a-z]+[0-9]"
    lognot = service(
        f"[general]\nregex_engine = pcre2\n"
        f"[ONE]\npath = {log}\nregex = {regex}\nupbound_action = echo hostile\n"
        f"[TWO]\npath = {log}\nregex = {regex}\nupbound_action = echo hostile\n"
        f"[GOOD]\npath = {log}\nregex = !$\nupbound_action = echo good\n"
    ).start()
    append(log, b"a" * 240_000 + b"!\n")
    lognot.wait_log(r"\[GOOD\] says: good")
    for name in ("ONE", "TWO"):
        lognot.wait_log(rf"error: \[{name}\] regex was left out on one line")
    assert lognot.stop() == 0
    assert lognot.log.count("monitor ended (killed by SIGVTALRM)") == 2


# Runs lognot with a regex engine that has a bug.
BROKEN_ENGINE = """
import os, sys
from lognot import cli, pattern

match = pattern._AnyLine.match
pattern._AnyLine.match = lambda self, line: os.abort() if line.startswith(b"deadly") else match(self, line)
sys.exit(cli.main(sys.argv[4:]))
"""


def test_short_lines_that_crash_the_engine(tmp_path: Path) -> None:
    """Nothing was noted about the first search that dies; from its block on, each one is, and is found."""
    tmp_path.chmod(0o755)
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    (tmp_path / "broken.py").write_text(BROKEN_ENGINE)
    lognot = Custom(tmp_path, f"[ITEM]\npath = {log}\nregex = .*\nupbound_action = echo $0 >>{out}\n")
    lognot.prefix = (PYTHON, str(tmp_path / "broken.py"))
    lines = 300
    deadly = (70, 71, 200)
    text = "".join(f"{'deadly ' if number in deadly else ''}{number}\n" for number in range(lines))
    try:
        lognot.start()
        append(log, text)
        wait_for(lambda: str(lines - 1) in lines_of(out), "the last line")
        assert lognot.stop() == 0
    finally:
        lognot.end()
    expected = [number for number in range(lines) if number not in deadly]
    seen = list(map(int, lines_of(out)))
    assert sorted(seen) == expected
    assert re.search(r"regex was left out on one line, on which it .* crashed, .*: 'deadly 70'", lognot.log)
    assert lognot.log.count("monitor ended (killed by SIGABRT)") == 1 + len(deadly)
    accounts.fault(
        "lines that crash the regex engine", times=len(deadly), written=len(expected), seen=len(seen)
    )
