"""Children: how they are started, asked, ended, and how long to wait before the next."""

from __future__ import annotations

import errno
import json
import mmap
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import children
from lognot import messages as m
from lognot.channel import Channel
from lognot.children import LONGEST_DELAY_S, Backoff, Child, ask_child, how_it_ended, start_child
from lognot.errors import LognotError
from lognot.privileges import JIT_FILE_BYTES
from lognot.users import current_account
from unit.descriptors import kernel_can_refuse_descriptors, nothing_leaks, open_descriptors

SECOND_NS = 10**9
DEADLINE_S = 20.0
ME = current_account()


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """No descriptor stays open and no zombie stays behind."""
    with nothing_leaks():
        yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# Back-off.


def test_the_first_deaths_are_answered_at_once_and_further_ones_ever_later() -> None:
    backoff = Backoff()
    delays = [backoff.delay_s(number) for number in range(12)]
    assert delays[:3] == [0.0, 0.0, 0.0]
    assert delays[3:8] == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert set(delays[8:]) == {LONGEST_DELAY_S}


def test_after_a_quiet_minute_all_is_forgotten() -> None:
    backoff = Backoff()
    for number in range(30):
        backoff.delay_s(number)
    assert backoff.delay_s(30 + 60 * SECOND_NS) == 0.0


@given(st.lists(st.integers(0, 100 * SECOND_NS), max_size=60))
def test_a_role_is_always_back_within_a_second(gaps_ns: list[int]) -> None:
    backoff = Backoff()
    now_ns = 0
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        assert 0.0 <= backoff.delay_s(now_ns) < 1.0


@given(st.integers(60 * SECOND_NS // 3, 10**15))
def test_rare_deaths_are_always_answered_at_once(gap_ns: int) -> None:
    backoff = Backoff()
    assert all(backoff.delay_s(number * gap_ns) == 0.0 for number in range(20))


# Words.


def test_how_it_ended() -> None:
    assert how_it_ended(0) == "exit status 0"
    assert how_it_ended(3 << 8) == "exit status 3"
    assert how_it_ended(signal.SIGKILL) == "killed by SIGKILL"
    assert how_it_ended(signal.SIGSEGV | 0x80) == "killed by SIGSEGV"
    assert how_it_ended(33) == "killed by signal 33"  # one that Python has no name for


# Asking.


def nothing() -> None:
    pass


def test_the_answer_comes_whole() -> None:
    data = os.urandom(3_000_000)  # many times what a pipe holds
    assert ask_child(lambda: data, ME, DEADLINE_S, nothing) == data


def test_no_answer_is_an_answer() -> None:
    assert ask_child(lambda: b"", ME, DEADLINE_S, nothing) == b""


def test_what_a_child_failed_of_is_said() -> None:
    def fail() -> bytes:
        raise RuntimeError("no such thing")

    with pytest.raises(LognotError, match="failed: RuntimeError: no such thing"):
        ask_child(fail, ME, DEADLINE_S, nothing)


def test_a_child_may_make_memory_files_for_machine_code_but_no_large_ones() -> None:
    """As libpcre2 does, built with --enable-jit-sealloc. SIGXFSZ would be the end (setrlimit(2))."""

    def grow(size_bytes: int) -> bytes:
        os.ftruncate(os.memfd_create("sljit"), size_bytes)
        return b"grown"

    assert ask_child(lambda: grow(JIT_FILE_BYTES), ME, DEADLINE_S, nothing) == b"grown"
    with pytest.raises(LognotError, match=r"failed: OSError: .*File too large"):
        ask_child(lambda: grow(JIT_FILE_BYTES + 1), ME, DEADLINE_S, nothing)


def test_a_child_that_is_asked_may_start_nothing() -> None:
    def limits() -> bytes:
        with open("/proc/self/status") as file:
            held = [line for line in file if line.startswith(("NoNewPrivs", "CapEff"))]
        return "".join([*held, str(resource.getrlimit(resource.RLIMIT_NPROC))]).encode()

    assert ask_child(limits, ME, DEADLINE_S, nothing).split() == [
        *(b"CapEff:", b"0000000000000000", b"NoNewPrivs:", b"1"),
        *(b"(0,", b"0)"),
    ]


def test_what_a_child_prepares_is_there_and_failing_at_it_is_said() -> None:
    prepared: list[bytes] = []
    assert ask_child(lambda: prepared[0], ME, DEADLINE_S, lambda: prepared.append(b"yes")) == b"yes"
    assert prepared == []  # it was the child that prepared
    with pytest.raises(LognotError, match="failed: IndexError"):
        ask_child(lambda: b"", ME, DEADLINE_S, lambda: prepared[0])


def test_a_crash_is_said() -> None:
    def crash() -> bytes:
        os.abort()

    with pytest.raises(LognotError, match="failed: killed by SIGABRT"):
        ask_child(crash, ME, DEADLINE_S, nothing)


def test_half_an_answer_is_none() -> None:
    def crash() -> bytes:
        (writer,) = [fd for fd, path in open_descriptors().items() if path.startswith("pipe:")]
        os.write(writer, b'{"complete": true}')
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with pytest.raises(LognotError, match="failed"):
        ask_child(crash, ME, DEADLINE_S, nothing)


def test_a_child_that_says_too_much_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ANSWER_BYTES", 100_000)
    with pytest.raises(LognotError, match="more than 100000 bytes"):
        ask_child(lambda: bytes(10_000_000), ME, DEADLINE_S, nothing)


def test_a_child_that_hangs_is_ended() -> None:
    def hang() -> bytes:
        signal.pause()
        return b""

    with pytest.raises(LognotError, match=r"no complete answer within 0\.05 seconds"):
        ask_child(hang, ME, 0.05, nothing)


def test_something_else_is_done_while_a_child_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "ON_WAIT_S", 0.01)
    done = mmap.mmap(-1, 1)  # of both processes

    def dawdle() -> bytes:
        while done[0] < 3:
            time.sleep(0.005)  # between two looks
        return b"late"

    def count() -> None:
        done[0] = min(done[0] + 1, 3)

    with done:
        assert ask_child(dawdle, ME, DEADLINE_S, nothing, count) == b"late"


def test_a_child_that_never_stops_talking_is_ended() -> None:
    def drip() -> bytes:
        (writer,) = [fd for fd, path in open_descriptors().items() if path.startswith("pipe:")]
        while True:
            os.write(writer, b".")
            select.select([], [], [], 0.005)

    begin = time.monotonic()
    with pytest.raises(LognotError, match="no complete answer"):
        ask_child(drip, ME, 0.05, nothing)
    assert time.monotonic() - begin < DEADLINE_S


def test_it_works_with_a_thousand_logs_open() -> None:
    """select(2) ends at descriptor 1023."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 2000:
        pytest.skip(f"needs 2,000 descriptors, the hard limit is {limits[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2000), limits[1]))
    taken: list[int] = []
    try:
        taken.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(1100))
        assert ask_child(lambda: b"yes", ME, DEADLINE_S, nothing) == b"yes"
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_that_no_process_can_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(LognotError, match="no process can be started: Resource temporarily"):
        ask_child(lambda: b"", ME, DEADLINE_S, nothing)


def test_a_child_inherits_nothing_but_its_way_to_answer() -> None:
    def look() -> bytes:
        with open("/proc/self/status") as file:
            status = dict(line.split(":", 1) for line in file)
        return json.dumps([list(open_descriptors().values()), status["SigIgn"], status["SigBlk"]]).encode()

    secret = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(secret, True)
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        descriptors, ignored, blocked = json.loads(ask_child(look, ME, DEADLINE_S, nothing))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR2, before)
        os.close(secret)
    assert descriptors[:3] == [os.devnull] * 3
    assert len(descriptors) == 4
    assert descriptors[3].startswith("pipe:")
    own_of_libc = 0b11 << 31  # 32 and 33: the C library lets nobody change them, so they may come ignored
    assert int(ignored, 16) & ~own_of_libc == 1 << (signal.SIGXFSZ - 1)  # its limit's; it starts nothing
    assert int(blocked, 16) == 0


# Roles.


def start(main: Callable[[Channel], None]) -> Child:
    return start_child("test", main, from_child=frozenset({m.Pong, m.Note}), to_child=frozenset({m.Ping}))


def ended(child: Child) -> int:
    assert select.select([child.pidfd], [], [], DEADLINE_S)[0], "the child does not end"
    status = child.reap()
    child.channel.close()
    return status


def received(child: Child) -> m.Message:
    assert select.select([child.channel], [], [], DEADLINE_S)[0], "the child says nothing"
    [(message, _)] = child.channel.receive()
    return message


def echo(channel: Channel) -> None:
    while True:
        select.select([channel], [], [])
        for _ in channel.receive():
            channel.send(m.Pong())


def test_a_role_answers_and_ends_with_its_channel() -> None:
    child = start(echo)
    child.channel.send(m.Ping())
    assert received(child) == m.Pong()
    with open(f"/proc/{child.pid}/comm") as file:
        assert file.read() == "lognot-test\n"
    child.channel.close()
    assert how_it_ended(ended(child)) == "exit status 1"  # by ChannelClosed


def test_a_role_that_returns_ends_well() -> None:
    assert ended(start(lambda channel: None)) == 0


def test_a_role_that_fails_says_of_what() -> None:
    def fail(channel: Channel) -> None:
        raise ValueError("that \x1b[31m was wrong")

    child = start(fail)
    note = received(child)
    assert isinstance(note, m.Note)
    assert note.notice is m.Notice.ROLE_FAILED
    assert note.text.startswith(b"ValueError: that \x1b[31m was wrong (test_children.py:")
    assert how_it_ended(ended(child)) == "exit status 1"


def test_a_role_inherits_nothing_but_its_channel() -> None:
    def look(channel: Channel) -> None:
        channel.send(m.Note(m.Notice.ROLE_FAILED, 0, 0, json.dumps(open_descriptors()).encode()))

    child = start(look)
    note = received(child)
    assert isinstance(note, m.Note)
    found = list(json.loads(note.text).values())
    assert found[:3] == [os.devnull] * 3
    assert len(found) == 4
    assert found[3].startswith("socket:")
    ended(child)


@pytest.mark.skipif(not kernel_can_refuse_descriptors(), reason="needs Linux 6.16")
def test_a_role_cannot_send_a_descriptor_unless_it_may() -> None:
    def send_one(channel: Channel) -> None:
        with socket.socket(fileno=os.dup(channel.fileno())) as sock:
            socket.send_fds(sock, [b"\0" + m.encode(m.Pong())], [0])

    child = start(send_one)
    assert "Operation not permitted" in str(received(child))
    ended(child)


def test_a_role_is_ended_through_its_pidfd_and_twice_does_no_harm() -> None:
    child = start(echo)
    child.kill()
    assert select.select([child.pidfd], [], [], DEADLINE_S)[0]
    child.kill()
    assert how_it_ended(ended(child)) == "killed by SIGKILL"


@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_a_role_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*arguments: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="Too many open files"):
        start(echo)


def test_the_state_of_random_numbers_is_not_shared() -> None:
    import random

    def draw(channel: Channel) -> None:
        channel.send(m.Note(m.Notice.ROLE_FAILED, 0, random.getrandbits(60), b""))

    def draw_one() -> int:
        child = start(draw)
        note = received(child)
        ended(child)
        assert isinstance(note, m.Note)
        return note.number

    assert draw_one() != draw_one()
