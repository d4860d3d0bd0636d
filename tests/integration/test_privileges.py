"""Who the processes are and what they can do, as the kernel sees it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.conftest import ENGINES, as_other
from integration.harness import SOURCE, Service, append, capabilities, lines_of, wait_for
from integration.processes import (
    Custom,
    descriptors,
    ids,
    is_gone,
    limit,
    runner,
    stat_fields,
    status,
    wait_gone,
)

pytestmark = pytest.mark.root

HAS_FILTER = importlib.util.find_spec("seccomp") is not None


def monitor_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("_lognot")
    except KeyError:
        return pwd.getpwnam("nobody")


@dataclass(frozen=True)
class Person:
    """A throw-away user: its name, uid, own gid and the gids of its two further groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, int]


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    if not shutil.which("useradd"):
        pytest.skip("needs useradd")
    name = f"lgt{os.getpid()}"
    groups = [f"{name}a", f"{name}b"]
    try:
        for group in groups:
            subprocess.run(["groupadd", group], check=True)
        subprocess.run(["useradd", "-M", "-U", "-G", ",".join(groups), "-d", "/nowhere", name], check=True)
        entry = pwd.getpwnam(name)
        gids = sorted(set(os.getgrouplist(name, entry.pw_gid)) - {entry.pw_gid})
        yield Person(name, entry.pw_uid, entry.pw_gid, (gids[0], gids[1]))
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)
        for group in (name, *groups):
            subprocess.run(["groupdel", group], check=False, capture_output=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach; pytest's own is root's alone."""
    # Not below /tmp, which may be mounted so that no program gets another user's rights.
    with tempfile.TemporaryDirectory(prefix="lognot-test-", dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "out").mkdir()
        (path / "out").chmod(0o1777)
        (path / "log").touch(mode=0o600)
        yield path


@pytest.fixture
def make(place: Path) -> Iterator[Callable[..., Custom]]:
    made: list[Custom] = []

    def new(config: str, *arguments: str) -> Custom:
        made.append(Custom(place, config, *arguments))
        return made[-1]

    yield new
    for one in made:
        one.end()


def action_pid(lognot: Service, item: str) -> int:
    """The pid of an action that was started."""
    line = lognot.wait_log(rf"\[{item}\] action started as pid")[-1]
    return int(line.rpartition(" ")[2])


def as_user(uid: int, gid: int, script: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [
            "setpriv",
            f"--reuid={uid}",
            f"--regid={gid}",
            "--clear-groups",
            "/usr/bin/env",
            "python3",
            "-c",
            script,
        ]
        + [str(argument) for argument in arguments],
        capture_output=True,
        check=False,
        timeout=60,
    )


LOOK_INTO = "import os, sys; os.readlink(f'/proc/{sys.argv[1]}/exe')"
OPEN_MEMORY = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb')"


def assert_nobody_looks_into(pid: int, uid: int, gid: int) -> None:
    """Not even processes of the same user, which may look into others of theirs (ptrace(2))."""
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
    for script in (LOOK_INTO, OPEN_MEMORY):
        refused = as_user(uid, gid, script, pid)
        assert b"PermissionError" in refused.stderr, refused
    command = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "sleep", "300"]
    with subprocess.Popen(command) as other:
        try:
            wait_for(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n", "sleep")
            assert as_user(uid, gid, LOOK_INTO, other.pid).returncode == 0, "the test itself is wrong"
        finally:
            other.kill()


CONFIG = """
[WATCH]
path = @/log
regex = go
upbound_action = exec sleep 300
downbound_freq = 1/300
downbound_action = true
"""


@pytest.fixture
def running(make: Callable[..., Custom], place: Path, person: Person) -> Iterator[Custom]:
    """A service that runs one action, as `person`; the action is ended afterwards."""
    lognot = make(f"[general]\nuid = {person.name}\n{CONFIG}")
    lognot.start()
    append(place / "log", "go\n")
    pid = action_pid(lognot, "WATCH")
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the action")
    yield lognot
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# The monitor.


def test_the_monitor_is_nobody_and_can_do_nothing(running: Custom) -> None:
    user = monitor_user()
    pid = running.role("monitor")
    assert ids(pid) == ({user.pw_uid}, {user.pw_gid}, set())
    sets = dict(capabilities(pid))
    assert set(sets) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert set(sets.values()) == {0}
    assert status(pid)["NoNewPrivs"] == "1"
    if HAS_FILTER:
        assert status(pid)["Seccomp"] == "2"
    assert limit(pid, "Max processes") == ("0", "0")
    assert limit(pid, "Max file size") == ("0", "0")
    assert limit(pid, "Max core file size") == ("0", "0")
    assert_nobody_looks_into(pid, user.pw_uid, user.pw_gid)


def test_the_monitor_has_open_what_it_reads_and_nothing_else(running: Custom, place: Path) -> None:
    pid = running.role("monitor")
    found = descriptors(pid)
    assert [found.pop(fd) for fd in range(3)] == [os.devnull] * 3
    assert sorted(re.sub(r":\[\d+\]$", "", target) for target in found.values()) == sorted(
        [
            "anon_inode:[eventpoll]",
            "anon_inode:inotify",
            "socket",  # to the supervisor
            "socket",  # to the one executor
            "/memfd:lognot-start (deleted)",  # of that executor: did the last action start?
            str(place / "log"),
        ]
    )
    for fd, target in found.items():
        if target == str(place / "log"):
            flags = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
            assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def test_only_the_monitor_has_a_regex_engine_in_memory(running: Custom) -> None:
    def has_engine(pid: int) -> bool:
        return "libpcre" in Path(f"/proc/{pid}/maps").read_text()

    assert has_engine(running.role("monitor"))
    assert not has_engine(running.pid)
    assert not has_engine(running.role("executor"))


def test_the_monitor_ends_when_the_supervisor_does_even_while_it_cannot_run(running: Custom) -> None:
    """PR_SET_PDEATHSIG: a hanging regex does not outlive the service."""
    monitor = running.role("monitor")
    os.kill(monitor, signal.SIGSTOP)
    assert running.process is not None
    running.process.kill()
    wait_gone(monitor)


# Executors.


def test_an_executor_is_exactly_the_configured_user(running: Custom, person: Person) -> None:
    pid = running.role("executor")
    assert ids(pid) == ({person.uid}, {person.gid}, {person.gid, *person.groups})
    sets = dict(capabilities(pid))
    assert sets["CapPrm"] == sets["CapEff"] == sets["CapInh"] == sets["CapAmb"] == 0
    assert_nobody_looks_into(pid, person.uid, person.gid)


def test_an_executor_has_open_its_channels_and_its_actions(running: Custom) -> None:
    found = descriptors(running.role("executor"))
    assert [found.pop(fd) for fd in range(3)] == [os.devnull] * 3
    kinds = {target.partition(":[")[0] for target in found.values()}
    assert kinds <= {"anon_inode:[eventpoll]", "anon_inode", "anon_inode:[pidfd]", "socket", "pipe"} | {
        kind for kind in kinds if kind.startswith(("/memfd:lognot-start", "pidfd"))
    }
    assert sum(target.startswith("socket:") for target in found.values()) == 2


def test_each_uid_and_gid_has_one_executor(make: Callable[..., Custom], place: Path, person: Person) -> None:
    other = person.groups[0]
    item = "[{0}]\npath = @/log\nregex = go\nupbound_action = id -u; id -g; id -G >> @/out/{0}\n{1}"
    lognot = make(
        item.format("A", "uid = root\n")
        + item.format("B", "")
        + item.format("C", f"uid = {person.name}\n")
        + item.format("D", f"uid = {person.uid}\n")
        + item.format("E", f"uid = {person.uid}\ngid = {other}\n")
    ).start()
    append(place / "log", "go\n")
    lognot.wait_log("action ended with exit status 0", 5)
    executors = [pid for pid, role in lognot.children().items() if role == "executor"]
    assert sorted(sorted(ids(pid)[0] | ids(pid)[1]) for pid in executors) == sorted(
        [[0], sorted({person.uid, person.gid}), sorted({person.uid, other})]
    )


# Actions.


def test_an_action_is_the_configured_user_with_its_groups(
    make: Callable[..., Custom], place: Path, person: Person
) -> None:
    lognot = make(
        f"[general]\nuid = {person.name}\n[ITEM]\npath = @/log\n"
        "upbound_action = { id -u; id -g; id -G; } > @/out/id\n"
    ).start()
    append(place / "log", "x\n")
    lognot.wait_log(r"\[ITEM\] action ended with exit status 0")
    uid, gid, groups = lines_of(place / "out" / "id")
    assert (int(uid), int(gid)) == (person.uid, person.gid)
    assert set(map(int, groups.split())) == {person.gid, *person.groups}


def test_what_an_action_inherits(running: Custom, person: Person, place: Path) -> None:
    pid = action_pid(running, "WATCH")
    assert ids(pid) == ({person.uid}, {person.gid}, {person.gid, *person.groups})
    found = status(pid)
    own_of_libc = 0b11 << 31  # signals 32 and 33, which nobody else may use: posix_spawn(3) ignores them
    assert int(found["SigIgn"], 16) & ~own_of_libc == 0
    assert int(found["SigBlk"], 16) == 0
    assert found["NoNewPrivs"] == "0"  # so that an action may use sudo
    assert int(found["CapEff"], 16) == 0

    # The loader opens libraries, and closes them; what is inherited stays.
    wait_for(lambda: set(descriptors(pid)) == {0, 1, 2}, "nothing else to be open")
    opened = descriptors(pid)
    assert opened[0] == os.devnull
    assert opened[1] == opened[2]
    assert opened[1].startswith("pipe:")

    _, parent, group, session, terminal, *_ = stat_fields(pid)
    assert int(parent) == running.role("executor")
    assert int(group) == int(session) == pid
    assert int(terminal) == 0
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    for name, number in {
        "open files": resource.RLIMIT_NOFILE,
        "core file size": resource.RLIMIT_CORE,
    }.items():
        values = ["unlimited" if v == resource.RLIM_INFINITY else str(v) for v in resource.getrlimit(number)]
        assert limit(pid, f"Max {name}") == tuple(values)


def test_an_actions_environment_is_made_from_nothing(running: Custom, person: Person, place: Path) -> None:
    data = Path(f"/proc/{action_pid(running, 'WATCH')}/environ").read_bytes()
    variables = dict(entry.split("=", 1) for entry in data.decode().split("\0") if entry)
    variables.pop("PWD", None)  # some shells set it
    variables.pop("_", None)
    assert variables == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "HOME": "/nowhere",
        "USER": person.name,
        "LOGNAME": person.name,
        "LOGNOT_ITEM": "WATCH",
        "LOGNOT_PATH": str(place / "log"),
        "LOGNOT_KIND": "upbound",
        "LOGNOT_COUNT": "1",
        "LOGNOT_LINE": "go",
        "LOGNOT_0": "go",
    }


# The supervisor.

# linux/capability.h: DAC_READ_SEARCH, KILL, SETGID, SETUID, SETPCAP, LEASE
OF_SUPERVISOR = sum(1 << number for number in (2, 5, 6, 7, 8, 28))


def test_the_supervisor_keeps_only_the_capabilities_that_it_uses(running: Custom) -> None:
    own = dict(capabilities(os.getpid()))
    sets = dict(capabilities(running.pid))
    assert sets["CapEff"] == sets["CapPrm"] == OF_SUPERVISOR & own["CapPrm"]
    assert sets["CapInh"] == sets["CapAmb"] == 0
    assert sets["CapBnd"] == own["CapBnd"]  # it starts executors, and their actions as root may do everything
    assert status(running.pid)["NoNewPrivs"] == status(os.getpid())["NoNewPrivs"]


def test_with_executors_elsewhere_it_cannot_have_more_by_any_program(
    make: Callable[..., Custom], place: Path
) -> None:
    lognot = make(CONFIG, "--exec-socket", str(place / "nobody-listens"))
    lognot.start(ready=False)
    monitor = lognot.role("monitor")
    own = dict(capabilities(os.getpid()))
    sets = dict(capabilities(lognot.pid))
    assert sets["CapEff"] == sets["CapPrm"] == OF_SUPERVISOR & own["CapPrm"]
    assert sets["CapBnd"] == OF_SUPERVISOR & own["CapBnd"]
    assert sets["CapInh"] == sets["CapAmb"] == 0
    assert status(lognot.pid)["NoNewPrivs"] == "1"
    wait_for(lambda: set(dict(capabilities(monitor)).values()) == {0}, "the monitor to have none")


def test_an_action_as_root_has_roots_capabilities_and_may_write_anywhere(
    make: Callable[..., Custom], place: Path, person: Person
) -> None:
    (place / "private").mkdir(mode=0o700)
    os.chown(place / "private", person.uid, person.gid)
    lognot = make(
        "[ITEM]\npath = @/log\nregex = go\n"
        "upbound_action = grep Cap /proc/self/status > @/private/out && chown 1 @/private/out\n"
    ).start()
    append(place / "log", "go\n")
    lognot.wait_log("action ended with exit status 0")
    found = dict(line.split(":") for line in lines_of(place / "private" / "out"))
    own = dict(capabilities(os.getpid()))
    assert int(found["CapEff"], 16) == own["CapBnd"] & own["CapPrm"]
    executor = dict(capabilities(lognot.role("executor")))
    assert executor["CapEff"] == executor["CapPrm"] == OF_SUPERVISOR & own["CapPrm"]


def test_logs_and_programs_of_others_are_within_its_reach(
    make: Callable[..., Custom], place: Path, person: Person
) -> None:
    """A log that only its owner may read, and an action that takes root from an ordinary user."""
    (place / "private").mkdir(mode=0o700)
    (place / "private" / "log").touch(mode=0o600)
    shutil.copy("/bin/cat", place / "cat")
    (place / "cat").chmod(0o4755)
    for path in (place / "private", place / "private" / "log"):
        os.chown(path, person.uid, person.gid)
    (place / "secret").write_text("of root\n")
    (place / "secret").chmod(0o600)
    lognot = make(
        f"[ITEM]\npath = @/private/log\nuid = {person.name}\nregex = go\n"
        "upbound_action = @/cat @/secret > @/out/$0\n"
    ).start()
    append(place / "private" / "log", "go\n")
    lognot.wait_log("action ended with exit status 0")
    assert lines_of(place / "out" / "go") == ["of root"]
    # Rotated, with a writer of another user: a lease tells when it is gone.
    with (place / "private" / "log").open("ab") as old:
        (place / "private" / "log").rename(place / "private" / "log.1")
        (place / "private" / "log").touch(mode=0o600)
        old.write(b"go\n")
    lognot.wait_log("action ended with exit status 0", 2)
    wait_for(
        lambda: str(place / "private" / "log.1") not in descriptors(lognot.role("monitor")).values(),
        "the old log to be left",
    )


def test_a_log_file_in_a_directory_of_another_user_is_refused_with_the_reason(
    place: Path, person: Person
) -> None:
    (place / "theirs").mkdir(mode=0o755)
    os.chown(place / "theirs", person.uid, person.gid)
    (place / "lognot.conf").write_text(f"[ITEM]\npath = {place}/log\nupbound_action = true\n")
    with runner(place) as run:
        done = run("-c", str(place / "lognot.conf"), "-l", str(place / "theirs" / "own.log"))
    assert done.returncode == 1
    assert b"Permission denied" in done.stderr
    assert b"(of root's rights lognot keeps none to write where only other users may)" in done.stderr


def test_the_supervisor_keeps_no_terminal_of_a_child_and_writes_the_log(running: Custom) -> None:
    found = descriptors(running.pid).values()
    assert str(running.own_log) in found
    assert str(running.config_path) not in found
    for role in ("monitor", "executor"):
        assert str(running.own_log) not in descriptors(running.role(role)).values()


@pytest.mark.parametrize("where", ["general", "item", "-u name", "-u number"])
def test_actions_never_run_as_the_monitors_user(place: Path, where: str) -> None:
    user = monitor_user()
    config = place / "lognot.conf"
    general = f"[general]\nuid = {user.pw_name}\n" if where == "general" else ""
    item = f"uid = {user.pw_uid}\n" if where == "item" else ""
    config.write_text(f"{general}[ITEM]\npath = {place}/log\nupbound_action = true\n{item}")
    arguments = {"-u name": ["-u", user.pw_name], "-u number": ["-u", str(user.pw_uid)]}.get(where, [])
    with runner(place) as run:
        done = run("-c", str(config), "-s", *arguments)
    assert done.returncode == 1
    assert b"is who lognot's own monitor runs as; expected another user" in done.stderr


def test_without_a_user_of_its_own_there_is_one_warning(running: Custom) -> None:
    fallback = monitor_user().pw_name == "nobody"
    warnings = [line for line in running.log.splitlines() if ": warning: " in line]
    expected = ["there is no user _lognot"] * fallback + ["without a filter"] * (not HAS_FILTER)
    assert len(warnings) == len(expected)
    assert all(text in line for text, line in zip(expected, warnings, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_lognot_may_be_where_the_monitors_user_cannot_read(place: Path, engine: str) -> None:
    """As when root runs it from its own home."""
    shutil.copytree(SOURCE, place / "private" / "src")
    (place / "private").chmod(0o700)
    lognot = Custom(
        place,
        f"[general]\nregex_engine = {engine}\n[ITEM]\npath = @/log\nregex = (g)o\nupbound_action = true\n",
    )
    lognot.source = place / "private" / "src"
    try:
        lognot.start()
        append(place / "log", "go\n")
        lognot.wait_log("action ended with exit status 0")
        assert lognot.stop() == 0
    finally:
        lognot.end()


# Without root.


def test_without_root_everything_works_as_the_caller(place: Path) -> None:
    user = pwd.getpwnam("nobody")
    place.chmod(0o777)
    (place / "log").chmod(0o644)
    # A uid that it cannot become is no error: a config of the system can be tried as anybody.
    lognot = Custom(
        place,
        "[general]\nuid = root\n[ITEM]\npath = @/log\nregex = go (\\w+)\nupbound_freq = 1/300\n"
        "upbound_action = { echo $1; id -u; id -g; } > @/out/done\n",
    )
    lognot.prefix, lognot.source = as_other("nobody", place), place / "src"
    (place / "notify").chmod(0o777)
    try:
        lognot.start()
        append(place / "log", "go one\ngo two\n")
        lognot.wait_log("action ended with exit status 0")
        assert lines_of(place / "out" / "done") == ["two", str(user.pw_uid), str(user.pw_gid)]
        for pid in (lognot.pid, *lognot.children()):
            assert ids(pid) == ({user.pw_uid}, {user.pw_gid}, set())
            assert set(dict(capabilities(pid)).values()) <= {0, dict(capabilities(os.getpid()))["CapBnd"]}
        monitor = lognot.role("monitor")
        assert status(monitor)["NoNewPrivs"] == "1"
        assert status(monitor)["Seccomp"] == ("2" if HAS_FILTER else status(os.getpid())["Seccomp"])
        assert limit(monitor, "Max processes") == ("0", "0")
        assert_nobody_looks_into(monitor, user.pw_uid, user.pw_gid)

        (place / "log").rename(place / "log.1")
        append(place / "log", "go three\ngo four\n")
        (place / "log").chmod(0o644)
        wait_for(lambda: lines_of(place / "out" / "done")[:1] == ["four"], "the new log")
        os.kill(monitor, signal.SIGKILL)
        lognot.wait_log("monitor ended .killed by SIGKILL., will be started again")
        append(place / "log", "go five\ngo six\n")
        wait_for(lambda: lines_of(place / "out" / "done")[:1] == ["six"], "the new monitor")

        warnings = [line for line in lognot.log.splitlines() if ": warning: " in line]
        about_events = ("is not there yet", "monitor ended")  # what this test has brought about
        others = [line for line in warnings if not any(text in line for text in about_events)]
        assert "started without root" in others[0]
        assert len(others) == 1 + (not HAS_FILTER)
        assert lognot.stop() == 0
        assert is_gone(monitor)
    finally:
        lognot.end()
        sys.stdout.flush()
