"""Executors in a service of their own: what a launcher does for a supervisor, and what it does for nobody."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import accounts
from integration.harness import PYTHON, SOURCE, Service, append, changed_source, lines_of, wait_for
from integration.launching import LauncherService
from integration.processes import ids, is_gone, stat_fields, wait_gone
from lognot import messages as m
from lognot.channel import Channel
from lognot.config import draft_config, parse_config
from lognot.launcher import CHECKS_AT_ONCE, Launcher
from lognot.settings import config_to_json
from lognot.users import current_account

ITEM = "[ITEM]\npath = @/log\nregex = go (.*)\nupbound_action = echo $1 >> @/out\n"

OTHER = "[OTHER]\npath = @/other\nupbound_action = true\n"


@pytest.fixture
def lognot(service: Callable[..., Service], launcher: LauncherService, tmp_path: Path) -> Service:
    """A service that has its executor launched, ready."""
    (tmp_path / "log").touch()
    one = service(ITEM, "--exec-socket", str(launcher.path))
    launcher.start()
    return one.start()


def say(directory: Path, *words: str) -> None:
    append(directory / "log", "".join(f"go {word}\n" for word in words))


def wait_out(directory: Path, *words: str) -> None:
    """Wait for these actions and no others; two may run at the same time."""
    wait_for(lambda: sorted(lines_of(directory / "out")) == sorted(words), f"actions for {words}")


def test_actions_run_in_the_other_service_and_are_logged_by_the_supervisor(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    say(tmp_path, "one", "$(two)")
    wait_out(tmp_path, "one", "$(two)")
    lognot.wait_log(r"\[ITEM\] action ended with exit status 0", 2)
    assert list(lognot.children().values()) == ["monitor"]
    executor = launcher.executor()
    lognot.wait_log(rf"executor of \S+ started as pid {executor}$")
    assert ids(executor)[0] == {os.geteuid()}
    assert lognot.stop() == 0
    wait_gone(executor)
    assert launcher.process is not None
    assert launcher.process.poll() is None, "it waits for the next supervisor"


def test_a_killed_executor_is_back_and_what_waited_runs(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    say(tmp_path, "one")
    wait_out(tmp_path, "one")
    executor = launcher.executor()
    os.kill(executor, signal.SIGSTOP)
    say(tmp_path, "two", "three")
    os.kill(executor, signal.SIGKILL)
    wait_out(tmp_path, "one", "two", "three")
    lognot.wait_log(r"executor of \S+ ended \(killed by SIGKILL\), will be started again")


def test_a_killed_launcher_is_followed_by_the_next_one_and_what_waited_runs(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    say(tmp_path, "one")
    wait_out(tmp_path, "one")
    launcher.end()
    say(tmp_path, "two")
    launcher.start()
    wait_out(tmp_path, "one", "two")


def test_the_service_is_ready_before_any_launcher_is(
    service: Callable[..., Service], launcher: LauncherService, tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    service(ITEM, "--exec-socket", str(launcher.path)).start()
    say(tmp_path, "one")
    launcher.start()
    wait_out(tmp_path, "one")


def test_where_nobody_listens_the_log_says_so_and_it_is_tried_again(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    lognot = service(ITEM, "--exec-socket", str(tmp_path / "exec.sock")).start()
    lognot.wait_log(r"cannot start executor of .*: No such file or directory: '.*/exec.sock'")
    say(tmp_path, "one")
    late = LauncherService(tmp_path).start()
    try:
        wait_out(tmp_path, "one")
    finally:
        late.end()


def test_a_reload_takes_the_new_config(lognot: Service, launcher: LauncherService, tmp_path: Path) -> None:
    say(tmp_path, "one")
    wait_out(tmp_path, "one")
    executor = launcher.executor()
    lognot.reload(ITEM.replace("echo $1", "echo new $1"))
    say(tmp_path, "two")
    wait_out(tmp_path, "one", "new two")
    assert launcher.executors() == [executor]


def test_an_executor_may_restart_while_the_file_is_being_edited(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    say(tmp_path, "one")
    wait_out(tmp_path, "one")
    lognot.config_path.write_text("half a con")
    os.kill(launcher.executor(), signal.SIGKILL)
    say(tmp_path, "two")
    wait_out(tmp_path, "one", "two")


def test_a_config_that_the_launcher_does_not_read_itself_has_no_actions_until_it_does(
    service: Callable[..., Service], launcher: LauncherService, tmp_path: Path
) -> None:
    (tmp_path / "log").touch()
    lognot = service(ITEM, "--exec-socket", str(launcher.path))
    lognot.start()
    lognot.write_config(ITEM + OTHER)  # and no reload
    launcher.start()
    lognot.wait_log("holds back its actions")
    say(tmp_path, "one")
    lognot.wait_log(r"\[ITEM\].*upbound", 1)
    assert lines_of(tmp_path / "out") == []
    lognot.reload()
    wait_out(tmp_path, "one")


@pytest.mark.root
def test_a_config_that_others_can_write_is_not_approved(
    service: Callable[..., Service], launcher: LauncherService, tmp_path: Path
) -> None:
    """What the supervisor has read before does not count: the launcher asks for itself."""
    (tmp_path / "log").touch()
    lognot = service(ITEM, "--exec-socket", str(launcher.path))
    lognot.start()
    lognot.config_path.chmod(0o666)
    launcher.start()
    lognot.wait_log("no item of the config that this service reads runs as")
    say(tmp_path, "one")
    lognot.wait_log(r"\[ITEM\].*upbound", 1)
    assert lines_of(tmp_path / "out") == []
    lognot.config_path.chmod(0o644)
    wait_out(tmp_path, "one")


def test_after_a_reload_that_the_file_has_overtaken_actions_wait_for_the_next(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    """The supervisor reads one config and, an edit later, the launcher another."""
    say(tmp_path, "one")
    wait_out(tmp_path, "one")
    os.kill(launcher.pid, signal.SIGSTOP)  # it has not read the file yet
    lognot.reload(OTHER + ITEM)
    lognot.write_config(ITEM + OTHER)
    os.kill(launcher.pid, signal.SIGCONT)
    lognot.wait_log("the new config is not the administrator's")
    lognot.wait_log("holds back its actions")
    say(tmp_path, "two")
    lognot.reload()
    wait_out(tmp_path, "one", "two")


def test_what_a_supervisor_that_was_taken_over_can_not_do(launcher: LauncherService, tmp_path: Path) -> None:
    """No account that the file does not name, no action that it does not have."""
    launcher.config_path.write_text(ITEM.replace("@", str(tmp_path)))
    launcher.start()
    me = current_account()

    stranger = Channel(launcher.connect(), m.EXECUTOR_TO_SUPERVISOR | m.LAUNCHER_TO_SUPERVISOR)
    stranger.send(m.LaunchExecutor(12345, 12345))
    assert isinstance(stranger.wait(20), m.ExecutorStarted)
    said = stranger.wait(20)
    assert isinstance(said, m.Note)
    assert b"no item of the config that this service reads runs as 12345:12345" in said.text
    assert stranger.wait(20) == m.ExecutorEnded(1 << 8)

    config, _ = draft_config(str(launcher.config_path), uid=None, gid=None, base_dir="/")
    assert config
    forged = config_to_json(config).replace(b"echo ", b"evil ")
    with open(os.memfd_create("config"), "w+b") as file:
        file.write(forged)
        file.flush()
        liar = Channel(launcher.connect(), m.EXECUTOR_TO_SUPERVISOR | m.LAUNCHER_TO_SUPERVISOR)
        liar.send(m.LaunchExecutor(me.uid, me.gid))
        liar.send(m.Configure((1,), (1,), (1,)), file.fileno())
    assert isinstance(liar.wait(20), m.ExecutorStarted)
    refused = liar.wait(20)
    assert isinstance(refused, m.Note)
    assert refused.notice is m.Notice.CONFIG_DIFFERS
    executor = launcher.executor()
    liar.close()
    wait_gone(executor)


@pytest.mark.root
def test_a_connection_from_another_user_is_refused(launcher: LauncherService, tmp_path: Path) -> None:
    launcher.config_path.write_text(ITEM.replace("@", str(tmp_path)))
    launcher.start()
    launcher.path.chmod(0o666)  # as if the socket's mode did not protect it
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    script = (
        "import socket, sys\n"
        "peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "peer.connect(sys.argv[1])\n"
        "sys.exit(peer.recv(1) != b'')\n"
    )
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", PYTHON, "-c", script, launcher.path],
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert "refused a connection from user 65534" in launcher.errors.read_text()
    assert launcher.executors() == []


def test_an_executor_that_hangs_is_ended_when_its_supervisor_wants_it_no_more(
    launcher: LauncherService, tmp_path: Path
) -> None:
    launcher.config_path.write_text(ITEM.replace("@", str(tmp_path)))
    launcher.start()
    supervisor = Channel(launcher.connect(), m.EXECUTOR_TO_SUPERVISOR | m.LAUNCHER_TO_SUPERVISOR)
    supervisor.send(m.LaunchExecutor(current_account().uid, current_account().gid))
    executor = launcher.executor()
    os.kill(executor, signal.SIGSTOP)
    supervisor.close()
    wait_gone(executor)


def test_told_to_stop_it_ends_its_executors_and_they_their_actions(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    lognot.reload(ITEM.replace("echo $1", "sleep 600; echo $1"))
    say(tmp_path, "one")
    action = int(lognot.wait_log(r"\[ITEM\] action started as pid")[-1].rpartition(" ")[2])
    executor = launcher.executor()
    assert int(stat_fields(action)[1]) == executor
    assert launcher.process is not None
    launcher.process.terminate()
    assert launcher.process.wait(20) == 0
    wait_gone(executor, action)


def test_an_action_outlives_its_executor_and_keeps_its_timeout(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    lognot.reload("[general]\naction_timeout = 8\n" + ITEM.replace("echo $1", "sleep 600; echo $1"))
    say(tmp_path, "one")
    action = int(lognot.wait_log(r"\[ITEM\] action started as pid")[-1].rpartition(" ")[2])
    os.kill(launcher.executor(), signal.SIGKILL)
    lognot.wait_log(r"executor of \S+ started as pid", 2)
    assert not is_gone(action)
    wait_gone(action)
    lognot.wait_log(r"\[ITEM\] action took too long")


@pytest.mark.parametrize("option", ["-s", "-d", "--exec-socket=/run/x", "--logfile=/tmp/x"])
def test_options_that_mean_nothing_to_it_are_wrong_usage(option: str) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "lognot", "--executor", option],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "--executor goes with --config, --uid, --gid and --chdir alone" in done.stderr


def test_it_is_not_started_by_hand() -> None:
    done = subprocess.run(
        [PYTHON, "-m", "lognot", "--executor", "-c", "/dev/null"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "expected one listening socket from the service manager" in done.stderr


def test_once_it_is_ready_the_file_may_be_changed(
    service: Callable[..., Service], launcher: LauncherService, tmp_path: Path
) -> None:
    """The launcher has read the config by then, however late it came up."""
    (tmp_path / "log").touch()
    lognot = service(ITEM, "--exec-socket", str(launcher.path))
    lognot.start(ready=False)
    launcher.start()
    lognot.wait_notification("READY=1")
    lognot.config_path.write_text("half a con")
    say(tmp_path, "one")
    wait_out(tmp_path, "one")


def test_a_launcher_without_a_descriptor_waits_for_one(
    lognot: Service, launcher: LauncherService, tmp_path: Path
) -> None:
    """It looks again once a second, not all the time, and the actions wait for as long."""
    say(tmp_path, "0")
    wait_out(tmp_path, "0")
    limits = resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (0, limits[1]))
    begin_s = time.monotonic()
    os.kill(launcher.executor(), signal.SIGKILL)
    wait_for(lambda: "cannot take a connection" in launcher.errors.read_text(), "it says so")
    say(tmp_path, *map(str, range(1, 20)))
    said = launcher.errors.read_text().count("cannot take a connection: Too many open files: raise Limit")
    assert said < time.monotonic() - begin_s + 2
    resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, limits)
    wait_out(tmp_path, *map(str, range(20)))
    assert lognot.stop() == 0
    ran = sorted(map(int, lines_of(tmp_path / "out")))
    accounts.numbered("no descriptor left in the launcher, actions run", ran, 20, times=1)


def test_an_executor_that_asks_without_end_is_ended(tmp_path: Path) -> None:
    """To answer can mean to read the config file, and the others have to wait meanwhile."""
    config, problems = parse_config(b"[A]\npath = /log\nupbound_action = true\n", "/etc/lognot.conf")
    assert config is not None, problems
    account = current_account()
    asked = tmp_path / "asked"

    def ask(channel: Channel, of: object, approve: Callable[[bytes], bool]) -> None:
        while True:
            append(asked, f"{approve(b'another config')}\n")

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        pid = os.fork()
        if pid == 0:
            try:
                Launcher(listener, lambda: config, ask).run()
            finally:
                os._exit(1)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(str(tmp_path / "socket"))
                supervisor = Channel(sock, m.LAUNCHER_TO_SUPERVISOR)
                supervisor.send(m.LaunchExecutor(account.uid, account.gid))
                assert isinstance(supervisor.wait(20), m.ExecutorStarted)
                assert supervisor.wait(20) == m.ExecutorEnded(signal.SIGKILL)
        finally:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
    answers = lines_of(asked)
    assert set(answers) == {"False"}
    assert CHECKS_AT_ONCE <= len(answers) < 2 * CHECKS_AT_ONCE


def test_counts_stay_right_while_no_executor_can_be_had(
    service: Callable[..., Service], launcher: LauncherService, tmp_path: Path
) -> None:
    """Nothing is committed meanwhile; the next monitor reads it again, but counts it as of when it came."""
    log = tmp_path / "log"
    log.touch()
    item = "[{0}]\npath = @/log\nregex = ^{0}\nupbound_freq = {1}\nupbound_action = :\n{2}"
    down = "[DOWN]\npath = @/log\nregex = ^UP\ndownbound_freq = 1/12\ndownbound_action = :\n"
    lognot = service(
        item.format("ONCE", "0/1", "") + item.format("UP", "1/1", "") + down,
        "--exec-socket",
        str(launcher.path),
    )
    # However long this takes here: nothing is committed before its actions are handed over.
    lognot.source = changed_source(tmp_path, "files", "UNSETTLED_NS = 600 * 10**9\n")
    launcher.start()
    lognot.start()
    launcher.remove()
    append(log, "ONCE\nUP\n")
    lognot.wait_log(r"\[ONCE\] fired")
    for _ in range(3):
        time.sleep(3)  # the pace of what is counted, which may be late by 2 s
        append(log, "UP\n")
    monitor = lognot.role("monitor")
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: monitor not in lognot.children(), "the end of the monitor")
    lognot.wait_log(r"\[ONCE\] fired", 2)
    append(log, "UP\nUP\n")
    lognot.wait_log(r"\[UP\] fired")
    assert lognot.stop() == 0
    assert lognot.log.count("[UP] fired") == 1
    assert "[DOWN] fired" not in lognot.log
