"""An action's process, and the mark that says that it has started."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator

import pytest

from lognot.process import SHELL, open_other_member, signal_group, start_shell
from lognot.startmark import has_started, new_start_mark, set_start_mark
from unit.descriptors import nothing_leaks

PATH = {b"PATH": b"/usr/bin:/bin"}


@pytest.fixture
def mark_fd() -> Iterator[int]:
    fd = new_start_mark()
    set_start_mark(fd)
    yield fd
    os.close(fd)


def _output(shell_text: bytes, variables: dict[bytes, bytes] | None = None) -> tuple[int, bytes]:
    """Run it; give its wait status and all that it printed."""
    mark_fd = new_start_mark()
    pid, output = start_shell(shell_text, {**PATH, **(variables or {})}, mark_fd)
    os.close(mark_fd)
    data = b""
    while select.select([output], [], [], 20)[0]:
        piece = os.read(output, 65536)
        if not piece:
            break
        data += piece
    os.close(output)
    return os.waitpid(pid, 0)[1], data


def test_shell_text_and_environment_arrive() -> None:
    status, data = _output(b'printf "<%s>" "$LOGNOT_1"; exit 7', {b"LOGNOT_1": b"a 'b' $(c)\n\xff"})
    assert os.waitstatus_to_exitcode(status) == 7
    assert data == b"<a 'b' $(c)\n\xff>"


def test_standard_error_comes_too_and_standard_input_is_empty() -> None:
    assert _output(b"cat; echo out; echo err >&2")[1] == b"out\nerr\n"


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def test_no_descriptor_but_the_standard_three() -> None:
    # What the tests themselves were started with is not ours to close: roles do that when they are forked.
    inherited = {number for number in map(int, os.listdir("/proc/self/fd")) if _is_inheritable(number)}
    seen = set(map(int, _output(b"ls /proc/self/fd")[1].split()))
    assert len(seen - inherited - {0, 1, 2}) == 1  # ls itself opens the directory that it lists


def test_session_and_group_of_its_own_and_signals_at_their_default() -> None:
    program = "import os, signal; print(os.getsid(0) == os.getpgrp() == os.getppid() or os.getpid())\n"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status, data = _output(
            b"grep -E '^Sig(Blk|Ign)' /proc/self/status; exec " + sys.executable.encode() + b' -c "$P"',
            {b"P": (program + "print(os.getsid(0) == os.getpgrp() == os.getpid())").encode()},
        )
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert status == 0
    lines = data.decode().splitlines()
    masks = {line.split(":")[0]: int(line.split()[1], 16) for line in lines[:2]}
    assert masks["SigBlk"] == 0
    assert not masks["SigIgn"] & 1 << (signal.SIGHUP - 1)
    assert lines[-1] == "True"


def test_the_mark_says_whether_it_started(mark_fd: int) -> None:
    assert not has_started(mark_fd)
    pid, output = start_shell(b":", PATH, mark_fd)
    os.waitpid(pid, 0)
    os.close(output)
    assert has_started(mark_fd)
    set_start_mark(mark_fd)
    assert not has_started(mark_fd)


@pytest.mark.parametrize("lowest", [3, 9])
def test_the_mark_may_have_any_number(mark_fd: int, lowest: int) -> None:
    """The spawn opens it by its number, into another one."""
    os.dup2(mark_fd, 200, inheritable=False)
    for number in range(lowest, 12):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(200, number, inheritable=False)
            pid, output = start_shell(b"exit 3", PATH, number)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            assert has_started(number)
            os.close(output)
            os.close(number)
    os.close(200)


def test_a_group_ends_as_a_whole(mark_fd: int) -> None:
    pid, output = start_shell(b"sleep 1000 & sleep 1000 & echo; wait", PATH, mark_fd)
    assert select.select([output], [], [], 20)[0]
    other = open_other_member(pid)
    assert other >= 0
    signal_group(pid, signal.SIGTERM)
    while other >= 0:  # two at most: each is waited for, not looked for again and again
        assert select.select([other], [], [], 20)[0]
        os.close(other)
        other = open_other_member(pid)
    os.close(output)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    signal_group(pid, signal.SIGTERM)  # nobody is there any more, and that is fine


@pytest.mark.parametrize("shell", [SHELL, "/no/such/shell"])
def test_what_could_not_become_the_shell_has_not_started(
    monkeypatch: pytest.MonkeyPatch, mark_fd: int, shell: str
) -> None:
    """It is tried again, also by another executor when this one is killed before."""
    monkeypatch.setattr("lognot.process.SHELL", shell)
    with pytest.raises(OSError, match=r"Argument list too long|No such file"):
        start_shell(b":", {b"TOO_LONG": b"x" * 200_000}, mark_fd)
    assert not has_started(mark_fd)


def test_a_failed_start_leaks_nothing(monkeypatch: pytest.MonkeyPatch, mark_fd: int) -> None:
    monkeypatch.setattr("lognot.process.SHELL", "/no/such/shell")
    with nothing_leaks(), pytest.raises(FileNotFoundError):
        start_shell(b":", PATH, mark_fd)
