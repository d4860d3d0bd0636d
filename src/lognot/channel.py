"""A connection between two of the processes: messages and descriptors over a SEQPACKET socket.

The kernel keeps packet boundaries (unix(7)), so there is no framing: a packet is one flag byte and a piece
of a message, and nearly every message is one packet. Only a long log line needs more than one.

Never blocks. What the kernel does not take now waits in `pending` and goes out with `flush`, so a peer that
does not read cannot stop us; whoever feeds a slow peer looks at `pending_bytes` and holds back.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections import deque

from lognot.errors import LognotError, NoDescriptorError, ProtocolError
from lognot.messages import MAX_LINE_BYTES, Message, decode, encode

PACKET_BYTES = 64 * 1024  # fits net.core.wmem_default (208 KiB) thrice, so a packet never meets EMSGSIZE
MAX_MESSAGE_BYTES = MAX_LINE_BYTES + 1024 * 1024  # a line of the largest max_line, and all its groups
SMALL_MESSAGE_BYTES = 512 * 1024  # peers that send no lines: the largest is LogLooked with long names
MAX_PENDING_BYTES = 64 * 1024 * 1024  # a peer that leaves this much unread is not coming back
# What a waiting packet takes beside its bytes: a peer can leave many short ones unread.
PACKET_COST_BYTES = 256
RECEIVE_AT_ONCE = 64  # packets taken in one turn, so that one busy peer does not hold up the others

_LAST = b"\0"
_MORE = b"\1"
_FD = struct.Struct("i")
# As plain numbers: the socket module has them as enums, which cost 5 us a packet.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_BROKEN = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_NOSIGNAL = int(socket.MSG_NOSIGNAL)
# O_NONBLOCK is a flag of the open file description (fcntl(2)): whoever shares it, as the executor does its
# launcher's, could clear it.
_DONTWAIT = int(socket.MSG_DONTWAIT)


# Linux 6.16, for which the socket module has no name: whether the end takes descriptors (unix(7)).
_SO_PASSRIGHTS = 83

Kinds = frozenset[type[Message]]


class ChannelClosed(LognotError):
    """The peer has closed its end, or died."""


class ChannelStuck(LognotError):
    """The peer has stopped reading, and more waits for it than may; or it says nothing for too long."""


def socket_pair(one: Kinds | None = None, other: Kinds | None = None) -> tuple[socket.socket, socket.socket]:
    """Give both ends of a new SEQPACKET connection, close-on-exec and non-blocking.

    Args:
        one: what the first end accepts; None: also any descriptor.
        other: what the second end accepts.
    """
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end, accepts in zip(ends, (one, other), strict=True):
        end.setblocking(False)
        if accepts is not None:
            limit_descriptors(end, accepts)
    return ends


def limit_descriptors(sock: socket.socket, accepts: Kinds) -> None:
    """Have the kernel refuse descriptors to whoever sends one, at an end where no message brings one.

    For an end that nobody else has yet: before the other end is in other hands, since one that is on its way
    already stays there. An older kernel delivers them, and drops them when there is no room (Channel).
    """
    if not _bring_descriptors(accepts):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def _bring_descriptors(accepts: Kinds) -> bool:
    return any(kind.fds for kind in accepts)


class Channel:
    """One end of a connection, which it owns.

    Args:
        sock: a connected SEQPACKET socket.
        accepts: the types of message that this peer may send.
        max_message_bytes: longer messages from the peer are a protocol error.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepts: Kinds,
        max_message_bytes: int = SMALL_MESSAGE_BYTES,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._accepts = accepts
        self._max_message_bytes = max_message_bytes
        # Room for one descriptor, and only where a message may bring one: with no room the kernel drops
        # whatever a hostile peer attaches and says so with MSG_CTRUNC.
        self._fd_space = socket.CMSG_SPACE(_FD.size) if _bring_descriptors(accepts) else 0
        self._incoming = bytearray()
        self._incoming_fd = -1
        self._outgoing: deque[tuple[bytes, int, Message | None]] = deque()  # a message with its last packet
        self.pending_bytes = 0

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._sock.fileno()

    def send(self, message: Message, fd: int = -1) -> None:
        """Send a message, and a copy of `fd` with it (the caller keeps its own).

        Raises:
            ChannelClosed: the peer is gone.
            ChannelStuck: more than MAX_PENDING_BYTES wait for it.
            ProtocolError: the message does not fit its own limits.
            OSError: a limit of descriptors is met (dup(2); unix(7), ETOOMANYREFS): nothing was sent.
        """
        data = encode(message)
        pieces = [data[at : at + PACKET_BYTES] for at in range(0, len(data), PACKET_BYTES)]
        for number, piece in enumerate(pieces, 1):
            packet = (_LAST if number == len(pieces) else _MORE) + piece
            if self._outgoing or not self._send_packet(packet, fd):
                whole = message if number == len(pieces) else None
                self._outgoing.append((packet, os.dup(fd) if fd >= 0 else -1, whole))
                self.pending_bytes += len(packet) + PACKET_COST_BYTES
            fd = -1  # goes with the first packet
        if self.pending_bytes > MAX_PENDING_BYTES:
            raise ChannelStuck(f"{self.pending_bytes} bytes wait for a peer that does not read")

    def unsent(self) -> list[Message]:
        """Give the messages that the peer cannot have yet."""
        return [message for _, _, message in self._outgoing if message is not None]

    def flush(self) -> bool:
        """Send what waits, as far as the kernel takes it; True when nothing waits any more."""
        while self._outgoing:
            packet, fd, _ = self._outgoing[0]
            if not self._send_packet(packet, fd):
                return False
            self._outgoing.popleft()
            self.pending_bytes -= len(packet) + PACKET_COST_BYTES
            if fd >= 0:
                os.close(fd)
        return True

    def _send_packet(self, packet: bytes, fd: int) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))] if fd >= 0 else []
        try:
            self._sock.sendmsg([packet], ancillary, _NOSIGNAL | _DONTWAIT)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionError) as error:
            raise ChannelClosed("the peer is gone") from error
        return True

    def receive(self, at_once: int = RECEIVE_AT_ONCE) -> list[tuple[Message, int]]:
        """Give the messages that wait, each with its descriptor (-1: none), which the caller then owns.

        At most `at_once` packets at a time; the selector says when there are more.

        Raises:
            ChannelClosed: the peer is gone, and all that it sent was given out before.
            ProtocolError: the peer sent what it must not.
        """
        messages: list[tuple[Message, int]] = []
        try:
            self._receive_into(messages, at_once)
        except ProtocolError:
            for _, fd in messages:  # nobody will get them
                if fd >= 0:
                    os.close(fd)
            raise
        return messages

    def _receive_into(self, messages: list[tuple[Message, int]], at_once: int) -> None:
        for _ in range(at_once):
            try:
                packet, fd = self._receive_packet()
            except BlockingIOError:
                break
            except ChannelClosed:
                if messages:
                    break  # said again at the next call
                raise
            if fd >= 0:
                if self._incoming_fd >= 0:
                    os.close(fd)
                    raise ProtocolError("two descriptors with one message")
                self._incoming_fd = fd
            self._incoming += memoryview(packet)[1:]
            if len(self._incoming) > self._max_message_bytes:
                raise ProtocolError(f"message of more than {self._max_message_bytes} bytes")
            if packet[:1] == _MORE:
                continue
            data, self._incoming = bytes(self._incoming), bytearray()
            message = decode(data, self._accepts)
            fd, self._incoming_fd = self._incoming_fd, -1
            if (fd >= 0) != bool(message.fds):
                if fd >= 0:
                    os.close(fd)
                raise ProtocolError(f"{type(message).__name__} with the wrong number of descriptors")
            messages.append((message, fd))

    def wait(self, timeout_s: float) -> Message:
        """Wait for one message; of a peer that sends no descriptors.

        Raises:
            ChannelClosed: the peer is gone.
            ChannelStuck: it said nothing within `timeout_s` seconds.
            ProtocolError: it sent what it must not.
        """
        poll = select.poll()
        poll.register(self, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            for message, _ in self.receive(at_once=1):
                return message
        raise ChannelStuck(f"the peer said nothing within {timeout_s:g} seconds")

    def _receive_packet(self) -> tuple[bytes, int]:
        try:
            packet, ancillary, flags, _ = self._sock.recvmsg(
                PACKET_BYTES + 1, self._fd_space, _CLOEXEC | _DONTWAIT
            )
        except ConnectionResetError:
            # The peer died with something of ours unread: said once, and ahead of what it has still sent.
            return self._receive_packet()
        fd = _take_fd(ancillary, broken=bool(flags & _BROKEN))
        if not packet:
            if fd >= 0:
                os.close(fd)
            raise ChannelClosed("the peer has closed its end")
        # One that more follows is full: else a message could be an endless row of tiny packets.
        least = {_LAST: 2, _MORE: PACKET_BYTES + 1}.get(packet[:1])
        if least is None or len(packet) < least:
            if fd >= 0:
                os.close(fd)
            raise ProtocolError("malformed packet")
        return packet, fd

    def shut_down(self) -> None:
        """End the connection for every process that holds this end of it."""
        with contextlib.suppress(OSError):  # it has ended already
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close our end, and every descriptor that was on its way."""
        for _, fd, _ in self._outgoing:
            if fd >= 0:
                os.close(fd)
        self._outgoing.clear()
        self.pending_bytes = 0
        if self._incoming_fd >= 0:
            os.close(self._incoming_fd)
            self._incoming_fd = -1
        self._sock.close()


def _take_fd(ancillary: list[tuple[int, int, bytes]], *, broken: bool) -> int:
    """Give the one descriptor in `ancillary`, -1 when there is none; close them all when that is not so.

    The padding of a control message can carry a second descriptor, and MSG_CTRUNC can leave some of them
    installed (it also comes when our own descriptor limit is reached): none may leak.
    """
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(number for (number,) in _FD.iter_unpack(data[: len(data) - len(data) % _FD.size]))
    if broken or len(fds) > 1:
        for fd in fds:
            os.close(fd)
        raise NoDescriptorError("packet or its descriptors do not fit (is the descriptor limit reached?)")
    return fds[0] if fds else -1
