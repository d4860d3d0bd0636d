"""Channels over real SEQPACKET sockets, with honest and with hostile peers."""

from __future__ import annotations

import array
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from lognot import channel as channel_module
from lognot import messages as m
from lognot.channel import (
    MAX_MESSAGE_BYTES,
    PACKET_BYTES,
    RECEIVE_AT_ONCE,
    SMALL_MESSAGE_BYTES,
    Channel,
    ChannelClosed,
    ChannelStuck,
    socket_pair,
)
from lognot.errors import ProtocolError
from unit.descriptors import kernel_can_refuse_descriptors, nothing_leaks, open_descriptors
from unit.test_messages import ALL, ANY_MESSAGE

WITH_FDS = frozenset({m.UseWatches, m.ConnectExecutor, m.LogOpened, m.Stop, m.Ping, m.RunAction})
WITHOUT_FDS = m.MONITOR_TO_SUPERVISOR
LONG = m.RunAction(1, m.Kind.UPBOUND, 2, 3, 4, bytes(range(256)) * 2500, ((0, 640_000), (-1, -1)))


class Pair:
    """A channel and what speaks to it: another channel, or a bare socket to do what no channel does."""

    def __init__(self, accepts: frozenset[type[m.Message]], limit: int = SMALL_MESSAGE_BYTES) -> None:
        one, self.raw = socket_pair()
        self.ours = Channel(one, accepts, limit)
        self.peer = Channel(socket.socket(fileno=os.dup(self.raw.fileno())), ALL, MAX_MESSAGE_BYTES)

    def send_raw(self, packet: bytes, *fds: int) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.raw.sendmsg([packet], ancillary)

    def close_peer(self) -> None:
        self.peer.close()
        self.raw.close()

    def close(self) -> None:
        self.ours.close()
        self.close_peer()


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(accepts: frozenset[type[m.Message]] = WITH_FDS, limit: int = SMALL_MESSAGE_BYTES) -> Pair:
        made.append(Pair(accepts, limit))
        return made[-1]

    with nothing_leaks():
        yield make
        for one in made:
            one.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


def packet(message: m.Message) -> bytes:
    return b"\0" + m.encode(message)


def receive_all(channel: Channel, sender: Channel | None = None) -> list[m.Message]:
    """Everything that is there, and everything that waits in the sender."""
    found = []
    while True:
        messages = channel.receive()
        found += [message for message, _ in messages]
        if messages:
            continue
        if sender is None or not sender.pending_bytes:
            return found
        sender.flush()


# Honest peers.


def test_messages_come_as_they_were_sent_in_order(pair: Callable[..., Pair]) -> None:
    both = pair()
    sent = [m.Stop(number) for number in range(10)]
    for message in sent:
        both.peer.send(message)
    assert both.ours.receive() == [(message, -1) for message in sent]
    assert both.ours.receive() == []


def test_one_turn_takes_a_bounded_number(pair: Callable[..., Pair]) -> None:
    both = pair()
    for number in range(RECEIVE_AT_ONCE + 3):
        both.peer.send(m.Stop(number))
    assert len(both.ours.receive()) == RECEIVE_AT_ONCE
    assert len(both.ours.receive()) == 3


def test_a_descriptor_arrives_as_a_copy_that_no_program_inherits(
    pair: Callable[..., Pair], file: int
) -> None:
    both = pair()
    both.peer.send(m.ConnectExecutor(5), file)
    [(message, fd)] = both.ours.receive()
    assert message == m.ConnectExecutor(5)
    assert fd != file
    assert os.path.sameopenfile(fd, file)
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.fstat(file)  # the sender has kept its own


def test_each_descriptor_stays_with_its_message(pair: Callable[..., Pair], tmp_path: Path) -> None:
    both = pair()
    for number in range(5):
        with (tmp_path / str(number)).open("w") as opened:
            both.peer.send(m.ConnectExecutor(number), opened.fileno())
            both.peer.send(m.Stop(number))
    for message, fd in both.ours.receive():
        if isinstance(message, m.ConnectExecutor):
            assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / str(message.executor_id))
            os.close(fd)
        else:
            assert fd == -1


def test_a_long_line_comes_in_several_packets(pair: Callable[..., Pair]) -> None:
    both = pair(limit=MAX_MESSAGE_BYTES)
    assert len(m.encode(LONG)) > 9 * PACKET_BYTES
    both.peer.send(LONG)
    both.peer.send(m.Stop(1))
    assert both.peer.pending_bytes, "the kernel takes it all at once: this test shows nothing"
    both.peer.flush()
    assert receive_all(both.ours, both.peer) == [LONG, m.Stop(1)]


def test_the_longest_line_with_the_most_groups_arrives(pair: Callable[..., Pair]) -> None:
    both = pair(limit=MAX_MESSAGE_BYTES)
    longest = m.RunAction(
        1, m.Kind.UPBOUND, 2, 3, 4, b"x" * m.MAX_LINE_BYTES, ((0, m.MAX_LINE_BYTES),) * m.MAX_GROUPS
    )
    both.peer.send(longest)
    assert receive_all(both.ours, both.peer) == [longest]


@given(st.lists(ANY_MESSAGE, max_size=20))
@examples(50)
def test_any_messages_arrive(messages: list[m.Message]) -> None:
    with nothing_leaks():
        both = Pair(ALL)
        null = os.open(os.devnull, os.O_RDONLY)
        for message in messages:
            both.peer.send(message, null if message.fds else -1)
        received = both.ours.receive()
        for _, fd in received:
            if fd >= 0:
                os.close(fd)
        assert [message for message, _ in received] == messages
        os.close(null)
        both.close()


# A peer that does not read.


def test_what_a_peer_does_not_read_waits_and_comes_later_in_order(pair: Callable[..., Pair]) -> None:
    both = pair(limit=MAX_MESSAGE_BYTES)
    sent = [m.RunAction(number, m.Kind.UPBOUND, 0, 0, 0, b"x" * 20_000, ()) for number in range(100)]
    for message in sent:
        both.peer.send(message)
    assert both.peer.pending_bytes > 1_000_000
    assert not both.peer.flush()
    assert receive_all(both.ours, both.peer) == sent
    assert both.peer.pending_bytes == 0
    assert both.peer.flush()


def test_a_descriptor_that_waits_is_a_copy_too(pair: Callable[..., Pair], tmp_path: Path) -> None:
    both = pair()
    while not both.peer.pending_bytes:
        both.peer.send(m.Stop(0))
    with (tmp_path / "file").open("w") as opened:
        both.peer.send(m.ConnectExecutor(1), opened.fileno())
    found = []
    while both.peer.pending_bytes or not found:
        both.peer.flush()
        found += [fd for _, fd in both.ours.receive() if fd >= 0]
    [fd] = found
    assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "file")
    os.close(fd)


def test_descriptors_that_wait_are_closed_with_the_channel(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    before = len(open_descriptors())
    while not both.peer.pending_bytes:
        both.peer.send(m.Stop(0))
    for _ in range(10):
        both.peer.send(m.ConnectExecutor(1), file)
    assert len(open_descriptors()) == before + 10
    both.peer.close()
    assert len(open_descriptors()) == before - 1
    assert both.peer.pending_bytes == 0


def test_a_peer_that_never_reads_is_given_up(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_PENDING_BYTES", 1_000_000)
    both = pair()
    with pytest.raises(ChannelStuck):
        for _ in range(10):
            both.peer.send(LONG)
    assert both.peer.pending_bytes < 1_000_000 + 2 * len(LONG.line)


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Fail when it takes longer, also in a system call that blocks."""

    def fail(number: int, frame: object) -> None:
        pytest.fail(f"it has blocked for {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_whoever_shares_our_end_cannot_make_it_block(pair: Callable[..., Pair]) -> None:
    """O_NONBLOCK is a flag of what the launcher and its executor share."""
    both = pair()
    os.set_blocking(both.ours.fileno(), True)
    with within(60):
        assert both.ours.receive() == []
        while not both.ours.pending_bytes:
            both.ours.send(m.Stop(0))
        assert not both.ours.flush()


# Peers that are gone.


def test_what_a_peer_sent_before_it_went_is_given_out_first(pair: Callable[..., Pair]) -> None:
    both = pair()
    both.peer.send(m.Stop(1))
    both.close_peer()
    assert both.ours.receive() == [(m.Stop(1), -1)]
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            both.ours.receive()


def test_sending_to_a_peer_that_is_gone_says_so(pair: Callable[..., Pair]) -> None:
    both = pair()
    both.close_peer()
    with pytest.raises(ChannelClosed):
        both.ours.send(m.Stop(1))


def test_a_peer_that_goes_while_something_waits_is_noticed(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    while not both.ours.pending_bytes:
        both.ours.send(m.Stop(0))
    both.ours.send(m.ConnectExecutor(1), file)
    both.close_peer()
    with pytest.raises(ChannelClosed):
        both.ours.flush()


def test_half_a_message_is_never_given_out(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    both.send_raw(b"\1" + m.encode(m.ConnectExecutor(1)) + bytes(PACKET_BYTES - 5), file)
    assert both.ours.receive() == []
    both.close_peer()
    with pytest.raises(ChannelClosed):
        both.ours.receive()


# Hostile peers. Descriptors that they send must not stay open: `pair` looks at that.


def test_a_message_of_another_role_is_refused(pair: Callable[..., Pair]) -> None:
    both = pair(WITHOUT_FDS)
    both.peer.send(m.Stop(1))
    with pytest.raises(ProtocolError, match="not for this peer"):
        both.ours.receive()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_several_descriptors_in_a_packet_are_refused(
    pair: Callable[..., Pair], file: int, count: int
) -> None:
    """The padding of the control message has room for two."""
    both = pair()
    both.send_raw(packet(m.ConnectExecutor(1)), *[file] * count)
    with pytest.raises(ProtocolError):
        both.ours.receive()


def test_a_descriptor_with_each_packet_of_a_message_is_refused(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    for _ in range(2):
        both.send_raw(b"\1" + bytes(PACKET_BYTES), file)
    with pytest.raises(ProtocolError, match="two descriptors"):
        both.ours.receive()


@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_descriptor_from_who_may_send_none_is_refused(
    pair: Callable[..., Pair], file: int, count: int
) -> None:
    both = pair(WITHOUT_FDS)
    both.send_raw(packet(m.Pong()), *[file] * count)
    with pytest.raises(ProtocolError):
        both.ours.receive()


def test_a_descriptor_with_a_message_that_has_none_is_refused(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    both.send_raw(packet(m.Stop(1)), file)
    with pytest.raises(ProtocolError, match="wrong number"):
        both.ours.receive()


def test_a_message_that_lacks_its_descriptor_is_refused(pair: Callable[..., Pair]) -> None:
    both = pair()
    both.send_raw(packet(m.ConnectExecutor(1)))
    with pytest.raises(ProtocolError, match="wrong number"):
        both.ours.receive()


def test_a_descriptor_with_rubbish_is_closed(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    both.send_raw(b"\0\xff", file)
    with pytest.raises(ProtocolError):
        both.ours.receive()


def test_descriptors_received_before_rubbish_are_closed(pair: Callable[..., Pair], file: int) -> None:
    both = pair()
    both.peer.send(m.ConnectExecutor(1), file)
    both.send_raw(b"\0\xff")
    with pytest.raises(ProtocolError):
        both.ours.receive()


@pytest.mark.parametrize("content", [b"\0", b"\1", b"\2xx", b"\xff"])
def test_malformed_packets_are_refused(pair: Callable[..., Pair], file: int, content: bytes) -> None:
    both = pair()
    both.send_raw(content, file)
    with pytest.raises(ProtocolError, match="malformed"):
        both.ours.receive()


def test_an_empty_packet_is_the_end(pair: Callable[..., Pair], file: int) -> None:
    """recvmsg(2) cannot tell it from a closed end, and no honest peer sends it."""
    both = pair()
    both.send_raw(b"", file)
    with pytest.raises(ChannelClosed):
        both.ours.receive()


def test_a_packet_that_was_cut_is_refused(pair: Callable[..., Pair]) -> None:
    both = pair(limit=MAX_MESSAGE_BYTES)
    both.send_raw(b"\0" + bytes(PACKET_BYTES + 1))
    with pytest.raises(ProtocolError):
        both.ours.receive()


def test_a_message_over_the_cap_is_refused_long_before_its_end(pair: Callable[..., Pair]) -> None:
    both = pair(limit=1000)
    with pytest.raises(ProtocolError, match="more than 1000 bytes"):
        both.send_raw(b"\1" + bytes(PACKET_BYTES))
        both.ours.receive()


@pytest.mark.parametrize("length", [1, 1000, PACKET_BYTES - 1])
def test_a_packet_that_more_follows_is_full(pair: Callable[..., Pair], length: int) -> None:
    """Else a message could be an endless row of tiny ones, each of which takes us time."""
    both = pair()
    both.send_raw(b"\1" + bytes(length))
    with pytest.raises(ProtocolError, match="malformed"):
        both.ours.receive()


def test_a_descriptor_over_our_own_limit_is_a_protocol_error(pair: Callable[..., Pair], file: int) -> None:
    """The kernel drops it and says MSG_CTRUNC: a log that is never read must not look like one that is."""
    both = pair()
    both.peer.send(m.ConnectExecutor(1), file)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 2, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(file))
        with pytest.raises(ProtocolError):
            both.ours.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 3)), max_size=10), st.booleans())
@examples(200)
def test_any_packets_are_messages_or_the_end(packets: list[tuple[bytes, int]], with_fds: bool) -> None:
    with nothing_leaks():
        both = Pair(ALL if with_fds else WITHOUT_FDS, 100)
        null = os.open(os.devnull, os.O_RDONLY)
        for content, count in packets:
            both.send_raw(content, *[null] * count)
        both.close_peer()
        with pytest.raises((ProtocolError, ChannelClosed)):  # never anything else
            while True:
                for _, fd in both.ours.receive():
                    if fd >= 0:
                        os.close(fd)
        os.close(null)
        both.close()


def test_both_ends_are_close_on_exec_and_do_not_block(pair: Callable[..., Pair]) -> None:
    with nothing_leaks():
        ends = socket_pair()
        for end in ends:
            assert not os.get_inheritable(end.fileno())
            assert not os.get_blocking(end.fileno())
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET
            end.close()


@pytest.mark.skipif(not kernel_can_refuse_descriptors(), reason="needs Linux 6.16")
def test_an_end_that_takes_no_descriptor_gets_none(file: int) -> None:
    one, other = socket_pair(WITHOUT_FDS, WITH_FDS)
    with one, other:
        with pytest.raises(PermissionError):
            socket.send_fds(other, [packet(m.Pong())], [file])
        socket.send_fds(one, [packet(m.ConnectExecutor(1))], [file])
    one, other = socket_pair(WITH_FDS, WITHOUT_FDS)
    with one, other:
        socket.send_fds(other, [packet(m.ConnectExecutor(1))], [file])
        with pytest.raises(PermissionError):
            socket.send_fds(one, [packet(m.Pong())], [file])


def test_what_the_peer_cannot_have_yet(pair: Callable[..., Pair]) -> None:
    """A long message counts until its last packet is on its way."""
    both = pair(limit=MAX_MESSAGE_BYTES)
    sent: list[m.Message] = []
    while len(both.ours.unsent()) < 3:
        line = b"%d" % len(sent) + b"x" * 200_000
        sent.append(m.RunAction(1, m.Kind.UPBOUND, 1, len(sent), 1, line, ()))
        both.ours.send(sent[-1])
    unsent = both.ours.unsent()
    assert unsent == sent[-3:]
    arrived = [message for message, _ in both.peer.receive()]
    assert arrived + unsent == sent
    while not both.ours.flush():
        arrived += [message for message, _ in both.peer.receive()]
    assert both.ours.unsent() == []
    arrived += [message for message, _ in both.peer.receive()]
    assert arrived == sent
