"""Actions as they really run: when, how many at once, how long, with which words; what is said of them."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.harness import Service, append, lines_of, time_of, wait_for

NewService = Callable[..., Service]
CUT_BYTES = 100 * 1024
PROCESS_START_S = 0.1  # from a deadline to the first word of its action, on a machine that is busy
DEADLINE_SLACK_S = 0.05


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The watched log, empty."""
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture
def urgent() -> Iterator[None]:
    """Let us and lognot run ahead of whatever else the machine does: that is not what is measured."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # inherited by lognot and its actions
    yield
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def item(name: str, log: Path, **options: str | int) -> str:
    """A section of the config."""
    return f"[{name}]\npath = {log}\n" + "".join(f"{option} = {value}\n" for option, value in options.items())


def is_running(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


# When.


@pytest.mark.usefixtures("urgent")
def test_downbound_runs_at_its_deadline_and_once_per_period(
    service: NewService, log: Path, tmp_path: Path
) -> None:
    """First judged SECONDS after READY, then once per SECONDS; late by less than 50 ms, and no drift."""
    out = tmp_path / "out"
    action = f"date +%s.%N >> {out}"
    lognot = service(item("ITEM", log, regex="alive", downbound_freq="1/1", downbound_action=action)).start()
    ready = time.time()
    wait_for(lambda: len(lines_of(out)) >= 5, "five periods without a match")
    assert lognot.stop() == 0
    fired = [time_of(line) for line in lognot.wait_log(r"fired \(downbound\): 0 matches")[:5]]
    late = [at - ready - number for number, at in enumerate(fired, 1)]
    assert min(late) > -DEADLINE_SLACK_S
    assert statistics.median(late) < DEADLINE_SLACK_S
    assert late[-1] - late[0] < DEADLINE_SLACK_S
    starts = [float(line) for line in lines_of(out)[:5]]
    delays = [start - at for start, at in zip(starts, fired, strict=True)]
    assert statistics.median(delays) < PROCESS_START_S


@pytest.mark.usefixtures("urgent")
def test_a_match_moves_the_deadline(service: NewService, log: Path, tmp_path: Path) -> None:
    """A heartbeat often enough keeps it silent; SECONDS after the last one it speaks."""
    out = tmp_path / "out"
    action = f"date +%s.%N >> {out}"
    lognot = service(item("ITEM", log, regex="alive", downbound_freq="1/4", downbound_action=action)).start()
    for _ in range(4):
        time.sleep(0.4)  # the heart's own pace
        before = time.time()
        append(log, "alive\n")
        after = time.time()
    assert lines_of(out) == []
    wait_for(lambda: lines_of(out), "the action after the last heartbeat")
    at = float(lines_of(out)[0])
    assert before + 4 <= at < after + 4 + DEADLINE_SLACK_S + PROCESS_START_S
    assert lognot.stop() == 0


# How many at once.


def test_one_at_a_time_run_in_the_order_of_lines(service: NewService, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lognot = service(
        "[general]\nathread_count = 1\n" + item("ITEM", log, regex=r"\d+", upbound_action=f"echo $0 >> {out}")
    ).start()
    numbers = [str(number) for number in range(100)]
    append(log, "".join(f"{number}\n" for number in numbers))
    wait_for(lambda: len(lines_of(out)) == 100, "all actions")
    assert lines_of(out) == numbers
    assert lognot.stop() == 0


def test_no_more_than_athread_count_run_at_once(service: NewService, log: Path, tmp_path: Path) -> None:
    out, gate = tmp_path / "out", tmp_path / "gate"
    action = f"echo begin >> {out}; until [ -e {gate} ]; do sleep 0.01; done; echo end >> {out}"
    lognot = service(
        "[general]\nathread_count = 3\n" + item("ITEM", log, regex=r"\d+", upbound_action=action)
    ).start()
    append(log, "".join(f"{number}\n" for number in range(12)))
    lognot.wait_log(r"\[ITEM\] fired", 12)
    wait_for(lambda: lines_of(out) == ["begin"] * 3, "three of them begun")
    gate.touch()
    wait_for(lambda: len(lines_of(out)) == 24, "all actions")
    running = peak = 0
    for line in lines_of(out):
        running += 1 if line == "begin" else -1
        peak = max(peak, running)
    assert peak == 3
    assert lognot.stop() == 0


def test_a_full_queue_drops_the_newest_and_matching_goes_on(
    service: NewService, log: Path, tmp_path: Path
) -> None:
    """10,000 wait at most; what is dropped is said, and every line is still read and counted."""
    out, gate = tmp_path / "out", tmp_path / "gate"
    action = f"echo $1 >> {out}; until [ -e {gate} ]; do sleep 0.01; done"
    lognot = service(
        "[general]\nathread_count = 1\n" + item("ITEM", log, regex=r"line (\d+)", upbound_action=action)
    ).start()
    append(log, "".join(f"line {number}\n" for number in range(12_000)))
    lognot.wait_log(r"\[ITEM\] \d+ actions? (?:was|were) dropped, since too many wait")
    lognot.wait_notification(
        "STATUS=watching 1 of 1 logs for 1 item: 0.1 MiB read, 12000 matches, 12000 times"
    )
    assert len(lognot.wait_log(r"\[ITEM\] fired", 10_000)) <= 10_001
    wait_for(lambda: lines_of(out) == ["0"], "the first action")
    gate.touch()
    wait_for(lambda: lines_of(out)[:20] == [str(number) for number in range(20)], "the oldest, in order")
    lognot.signal(signal.SIGTERM)
    lognot.wait_log("stopping")
    assert lognot.stop() == 0  # asked twice: what still waits is dropped, and said
    said = re.findall(r"\[ITEM\] (\d+) actions? (?:was|were) dropped.*lognot stops", lognot.log)
    started = len(re.findall(r"\[ITEM\] action started", lognot.log))
    fired = len(re.findall(r"\[ITEM\] fired", lognot.log))
    # The executor says what had reached it; on a busy machine some may still have been on their way.
    assert 100 < sum(map(int, said)) <= fired - started


# For how long.


def test_an_action_over_its_time_is_ended_with_its_whole_group(
    service: NewService, log: Path, tmp_path: Path
) -> None:
    """SIGTERM, 5 s later SIGKILL: a shell or grandchild that is deaf to the first does not outlive both."""
    deaf = "trap '' TERM; echo $$ >> {pids}; while :; do sleep 0.2; done"
    actions = {
        "PLAIN": "echo $$ >> {pids}; exec sleep 300",
        "DEAF": deaf,
        "GRANDCHILD": f'sh -c "sh -c \\"{deaf}\\" & wait" & echo $$ >> {{pids}}; wait',
    }
    lognot = service(
        "[general]\naction_timeout = 4\nathread_count = 3\n"
        + "".join(
            item(
                name,
                log,
                regex="go",
                upbound_action=action.format(pids=tmp_path / name).replace("$$", r"\$$"),
            )
            for name, action in actions.items()
        )
    ).start()
    append(log, "go\n")
    lognot.wait_log("took too long and was ended", 1)
    pids = wait_for(
        lambda: (
            pids if len(pids := [int(n) for name in actions for n in lines_of(tmp_path / name)]) == 4 else []
        ),
        "the pids of all four",
    )
    wait_for(lambda: not is_running(int(lines_of(tmp_path / "PLAIN")[0])), "the end of the plain one")
    lognot.wait_log(r"\[DEAF\] action took too long and was ended \(ended with killed by SIGKILL\)")
    lognot.wait_log(r"\[GRANDCHILD\] action took too long and was ended \(ended with killed by SIGTERM\)")
    lognot.wait_log(
        r"\[PLAIN\] action took too long and was ended \(ended with killed by SIGTERM\) after [4-9]\.\d+ s"
    )
    wait_for(lambda: not any(map(is_running, pids)), "the end of every process")
    assert lognot.stop() == 0


def test_a_daemon_that_an_action_starts_lives_on_and_holds_no_slot(
    service: NewService, log: Path, tmp_path: Path
) -> None:
    """In a session of its own or not, with lognot's pipe still open or not."""
    pids = tmp_path / "pids"
    action = (
        f"setsid sleep 300 </dev/null >/dev/null 2>&1 & echo \\$! >> {pids}; "
        f"sleep 300 & echo \\$! >> {pids}; echo done $0"
    )
    lognot = service(
        "[general]\nathread_count = 1\n" + item("ITEM", log, regex=r"\d", upbound_action=action)
    ).start()
    try:
        append(log, "1\n2\n")
        lognot.wait_log(r"\[ITEM\] says: done 2")
        lognot.wait_log(r"\[ITEM\] action ended with exit status 0", 2)
        assert lognot.stop() == 0
        assert all(is_running(int(pid)) for pid in lines_of(pids))
    finally:
        for pid in lines_of(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    assert len(lines_of(pids)) == 4


# What is said of it.


def test_output_and_status_are_logged(service: NewService, log: Path) -> None:
    """Line by line, marked with the item, both streams, with nothing that a terminal acts on."""
    lognot = service(
        item(
            "OUT",
            log,
            regex="go",
            upbound_action=r"echo one; echo two >&2; echo; printf 'no newline'; exit 3",
        )
        + item("KILLED", log, regex="go", upbound_action=r"kill -9 \$$")
        + item("JUNK", log, regex="go", upbound_action=r"printf 'a\033]0;x\007b\000c\377d\342\200\256e\r\n'")
    ).start()
    append(log, "go\n")
    lognot.wait_log(r"warning: \[OUT\] action ended with exit status 3 after \d+\.\d{3} s$")
    lognot.wait_log(r"warning: \[KILLED\] action ended with killed by SIGKILL")
    lognot.wait_log(r"info: \[JUNK\] action ended with exit status 0")
    assert re.findall(r"info: \[OUT\] says: (.*)", lognot.log) == ["one", "two", "no newline"]
    assert lognot.log.count(r"[JUNK] says: a\x1b]0;x\x07b\x00c\xffd\u202ee" + "\n") == 1
    assert lognot.log.replace("\n", "").isprintable()
    assert lognot.stop() == 0


@pytest.mark.parametrize(
    ("printing", "newlines"),
    [
        ("yes 0123456789abcde | head -c 1000000", 1_000_000 // 16),
        ("yes | head -c 1000000", 500_000),
        ("yes | tr -d '\\n' | head -c 1000000", 0),
    ],
    ids=["lines", "short lines", "never a newline"],
)
def test_an_action_that_prints_a_megabyte_is_cut(
    service: NewService, log: Path, printing: str, newlines: int
) -> None:
    """At 64 KiB or 1024 lines; what is left out is counted, and nothing else suffers."""
    lognot = service(
        item("LOUD", log, regex="go", upbound_action=f"{printing}; exit 4")
        + item("OTHER", log, regex="other", upbound_action="echo still here")
    ).start()
    append(log, "go\n")
    lognot.wait_log(r"\[LOUD\] action ended with exit status 4")
    cut = lognot.wait_log(r"\[LOUD\] action printed too much, \d+ bytes were left out")
    said = re.findall(r"\[LOUD\] says: (.*)", lognot.log)
    said_bytes = sum(map(len, said))
    assert len(said) == 1024 or (len(said) < 1024 and 60 * 1024 < said_bytes <= 64 * 1024)
    assert int(re.findall(r"(\d+) bytes", cut[0])[0]) + said_bytes + newlines == 1_000_000
    append(log, "other\n")
    lognot.wait_log(r"\[OTHER\] says: still here")
    assert lognot.stop() == 0


# With which words.

HOSTILE = [
    b"$(touch @/pwned)",
    b"`touch @/pwned`",
    b"';touch @/pwned;'",
    b'";touch @/pwned;"',
    b"'\"$(touch @/pwned)\"'",
    b"| touch @/pwned &",
    b"$1 ${LOGNOT_ITEM} $@ \\$1",
    b"\\",
    b"\\\\'",
    b"* ? [a-z] ~",
    b"  two  spaces\tand a tab ",
    b"-n",
    b"\xff\xfe\xc3\x28 \x1b[2J \x07",
    b"inner\rreturn",
    b"x" * (CUT_BYTES - 1),
]


def test_hostile_text_arrives_as_it_is_in_one_argument(
    service: NewService, log: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    action = rf"""printf '%s\0' $1 "$1" '$1' "<$1>" "$LOGNOT_1" \$# >> {out}"""
    lognot = service(
        "[general]\nathread_count = 1\n" + item("ITEM", log, regex=r"(?s)^v=(.*)$", upbound_action=action)
    ).start()
    values = [value.replace(b"@", os.fsencode(tmp_path)) for value in HOSTILE]
    append(log, b"".join(b"v=" + value + b"\n" for value in values))
    append(log, b"v=with\0a NUL\r\n")  # which no argument can hold
    append(log, b"v=" + b"y" * 200 * 1024 + b"\n")
    expected = [*values, b"witha NUL", b"y" * CUT_BYTES]
    lognot.wait_log(r"\[ITEM\] action ended with exit status 0", len(expected))
    arrived = out.read_bytes().split(b"\0")[:-1]
    for number, value in enumerate(expected):
        assert arrived[6 * number : 6 * number + 6] == [value, value, value, b"<" + value + b">", value, b"0"]
    assert len(arrived) == 6 * len(expected)
    assert not (tmp_path / "pwned").exists()
    assert lognot.stop() == 0


def test_a_line_over_the_limit_is_cut_and_still_acts(service: NewService, log: Path, tmp_path: Path) -> None:
    """Lines of 1 MiB and more: the match is in time, the values are cut, the next line is whole again."""
    out = tmp_path / "out"
    lognot = service(
        item("ITEM", log, regex=r"^(first|next)\b.*", upbound_action=f"echo $1 ${{#LOGNOT_0}} >> {out}")
    ).start()
    append(log, b"first " + b"z" * (2 * 1024**2) + b"\nnext one\n")
    wait_for(lambda: sorted(lines_of(out)) == [f"first {CUT_BYTES}", "next 8"], "both lines")
    lognot.wait_log("1 line of log .* was longer than max_line")
    assert lognot.stop() == 0


def test_what_an_action_is_given(service: NewService, log: Path, tmp_path: Path) -> None:
    """Its environment and nothing else: no signal blocked or ignored, no descriptor, no terminal."""
    actions = {
        kind: f"env -0 > {tmp_path}/{kind}.new; mv {tmp_path}/{kind}.new {tmp_path}/{kind}"
        for kind in ("upbound", "downbound", "size")
    }
    state = (
        f"grep -E '^Sig(Blk|Ign)' /proc/self/status > {tmp_path}/state.new; "
        f"ls -l /proc/self/fd | grep -c pipe: >> {tmp_path}/state.new; "
        f"readlink /proc/self/fd/0 /proc/self/cwd >> {tmp_path}/state.new; "
        f"ls /proc/self/fd | wc -w >> {tmp_path}/state.new; "
        f"cut -d' ' -f5,6 /proc/\\$$/stat >> {tmp_path}/state.new; echo \\$$ >> {tmp_path}/state.new; "
        f"mv {tmp_path}/state.new {tmp_path}/state"
    )
    lognot = service(
        item("UP", log, regex="(go)(never)?( now)", upbound_freq="1/10", upbound_action=actions["upbound"])
        + item("DOWN", log, regex="never", downbound_freq="3/1", downbound_action=actions["downbound"])
        + item("SIZE", log, size="1K", size_action=actions["size"])
        + item("STATE", log, regex="state", upbound_action=state),
        environment={"SECRET": "of the service", "LANG": "de_DE"},
    ).start()
    append(log, "first: go now\nthe line: go now!\nstate\n")
    append(log, "x" * 2048)
    entry = pwd.getpwuid(os.geteuid())
    common = {
        "HOME": entry.pw_dir,
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "LOGNOT_PATH": str(log),
    }
    of_match = {"LOGNOT_0": "go now", "LOGNOT_1": "go", "LOGNOT_2": "", "LOGNOT_3": " now"}
    line = {"LOGNOT_LINE": "the line: go now!"}
    expected = {
        "upbound": {"LOGNOT_ITEM": "UP", "LOGNOT_COUNT": "2", **of_match, **line},
        "downbound": {"LOGNOT_ITEM": "DOWN", "LOGNOT_COUNT": "0"},
        "size": {"LOGNOT_ITEM": "SIZE", "LOGNOT_COUNT": "2"},
    }
    for kind, variables in expected.items():
        wait_for((tmp_path / kind).exists, f"the {kind} action")
        pairs = (tmp_path / kind).read_text().split("\0")[:-1]
        found = dict(pair.split("=", 1) for pair in pairs)
        assert found.pop("PATH").split(":")[-1] == "/bin"
        for of_the_shell in ("PWD", "OLDPWD", "SHLVL", "_"):
            found.pop(of_the_shell, None)
        assert found == {**common, "LOGNOT_KIND": kind, **variables}
    wait_for((tmp_path / "state").exists, "the action that looks at itself")
    *signals, pipes, stdin, directory, descriptors, session, pid = lines_of(tmp_path / "state")
    of_libc = 0b11 << 31  # 32 and 33, which glibc's posix_spawn leaves ignored: they are its own
    assert [int(line.split()[1], 16) & ~of_libc for line in signals] == [0, 0]
    assert (stdin, directory) == ("/dev/null", "/")
    assert pipes == "2"  # its output and its errors; `ls` itself has none of ours
    assert descriptors == "4"  # the standard three, and the one by which ls looks
    assert session == f"{pid} {pid}"  # process group and session are its own
    assert lognot.stop() == 0


@pytest.mark.root
def test_each_user_has_an_executor_of_its_own(service: NewService, log: Path, open_dir: Path) -> None:
    """With that user's ids and groups; and one user's slow actions never hold up another's."""
    gate = open_dir / "gate"
    who = f"id -u >> {open_dir}/{{0}}; id -g >> {open_dir}/{{0}}; id -G >> {open_dir}/{{0}}; "
    lognot = service(
        "[general]\nathread_count = 1\n"
        + item(
            "SLOW", log, uid="daemon", regex="go", upbound_action=f"until [ -e {gate} ]; do sleep 0.01; done"
        )
        + item("DAEMON", log, uid="daemon", regex="go", upbound_action=who.format("daemon"))
        + item("GAMES", log, uid="games", gid="adm", regex="go", upbound_action=who.format("games"))
    ).start()
    daemon, games = pwd.getpwnam("daemon"), pwd.getpwnam("games")
    adm = int(next(line.split(":")[2] for line in lines_of(Path("/etc/group")) if line.startswith("adm:")))

    def executor_uids() -> list[str]:
        executors = [pid for pid, role in lognot.children().items() if role == "executor"]
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in executors]
        return sorted(status.split("Uid:")[1].split()[0] for status in statuses)

    # They need not be who they will be yet when lognot is ready.
    wait_for(lambda: executor_uids() == sorted([str(daemon.pw_uid), str(games.pw_uid)]), "two executors")
    append(log, "go\n")
    wait_for(lambda: len(lines_of(open_dir / "games")) == 3, "the action of the other user")
    assert lines_of(open_dir / "daemon") == []
    gate.touch()
    wait_for(lambda: len(lines_of(open_dir / "daemon")) == 3, "the action that had to wait")
    for entry, gid in ((daemon, daemon.pw_gid), (games, adm)):
        uid, own_gid, groups = lines_of(open_dir / entry.pw_name)
        assert (uid, own_gid) == (str(entry.pw_uid), str(gid))
        assert set(map(int, groups.split())) == {gid, *os.getgrouplist(entry.pw_name, gid)}
    assert lognot.stop() == 0
