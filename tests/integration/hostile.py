"""A real lognot whose monitor and executors are taken over, by generations: program of test_hostile_peers.

    hostile.py COUNTERS ROLE CONFIG LOGFILE

The first generation of ROLE is honest, then each attack is one, then it is honest again. COUNTERS is a file
that the test reads: how often a monitor was started, an executor, and how many packets the attacks have sent.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator

from lingering import Lingering
from lognot import channel as channel_module
from lognot import messages as m
from lognot.channel import Channel
from lognot.ledger import Ledger
from lognot.privileges import become, lock_down
from lognot.start import Approve, Options, _Start
from lognot.users import Account

MONITORS, EXECUTORS, SENT = range(3)  # and from there on a counter for each process that sends
MESSAGES = 20_000  # of a flood
LOOKS = 1500  # of a flood of questions, each of which the supervisor walks a path for
COUNTERS = struct.Struct("32Q")
ORPHAN = 28  # of those that send; the others are known by their generation
LINGER_S = 1000  # of a socket: longer than the test
SINCE_LINUX_6_16 = "_SO_PASSRIGHTS"
FORGED = b"what another role would say"
STUCK_S = 2.0  # for a full socket: the other side waits for us to read

KINDS = tuple(m.Kind)


class Counters:
    """Shared by the processes of the service, and the test."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), COUNTERS.size)

    def add(self, index: int, number: int = 1) -> int:
        """Give the value before."""
        (value,) = struct.unpack_from("Q", self._memory, 8 * index)
        struct.pack_into("Q", self._memory, 8 * index, value + number)
        return int(value)


class Hostile:
    """What a process that was taken over does with its sockets: raw packets, as fast as they go."""

    def __init__(self, sock: socket.socket, counters: Counters, sender: int) -> None:
        self.sock = sock
        self._counters = counters
        self.sender = sender  # to add to a counter takes two steps: no other process may do it with this one
        self.dice = random.Random(1)
        sock.setblocking(False)

    def packet(self, data: bytes, fds: list[int] | None = None) -> None:
        """Send one, waiting for room; raises BlockingIOError when the peer waits for us to read."""
        while True:
            try:
                if fds:
                    socket.send_fds(self.sock, [data], fds)
                else:
                    self.sock.send(data)
                self._counters.add(SENT + self.sender)
                return
            except BlockingIOError:
                if not select.select([], [self.sock], [], STUCK_S)[1]:
                    raise

    def say(self, message: m.Message) -> None:
        """Send a message as it is."""
        self.packet(b"\0" + m.encode(message))

    def wait_for_socket(self) -> socket.socket:
        """Read until a socket comes, and give that."""
        while True:
            select.select([self.sock], [], [])
            for fd in self.read():
                if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                    return socket.socket(fileno=fd)

    def read(self) -> list[int]:
        """Take what has come, and give the descriptors."""
        found = []
        while True:
            try:
                _, fds, _, _ = socket.recv_fds(self.sock, 1_000_000, 200)
            except BlockingIOError:
                return found
            found += fds


def _numbers(dice: random.Random) -> int:
    return dice.choice([0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1])


def _monitor_messages(dice: random.Random) -> Iterator[m.Message]:
    text = b"\x1b[31m\n\0\xff" + b"x" * 1000
    for _ in range(MESSAGES):
        number = _numbers(dice)
        yield dice.choice(
            [
                m.ItemFired(number, dice.choice(KINDS), 2**64 - 1, text, text),
                m.Note(dice.choice(tuple(m.NOTICES_OF_MONITOR)), number, 2**64 - 1, text),
                m.ItemFired(number, dice.choice(KINDS), 0, b"", text),
                m.Note(dice.choice(tuple(m.NOTICES_OF_MONITOR)), number, 0, text),
                m.Begun(number),
                m.Pong(),
                m.StreamDrained(number),
            ]
        )


def _random_packets(peer: Hostile, ledger: Ledger) -> None:
    while True:
        peer.packet(peer.dice.randbytes(peer.dice.randrange(1, 300)))


def _flood(peer: Hostile, ledger: Ledger) -> None:
    for message in _monitor_messages(peer.dice):
        peer.say(message)
        peer.read()


def _questions_unread(peer: Hostile, ledger: Ledger) -> None:
    """Each answer to LookAgain has a list of directories; with StreamDropped a file and a descriptor come."""
    for number in range(LOOKS):
        peer.say(m.LookAgain(number % 5))
        peer.say(m.StreamUnreadable(number))
        peer.say(m.StreamDropped(number))
        peer.say(m.StreamDrained(number))


def _break_the_others(peer: Hostile, ledger: Ledger) -> None:
    for number in range(MESSAGES // 10):
        peer.say(m.PeerBroke(number % 4))


def _many_descriptors(peer: Hostile, ledger: Ledger) -> None:
    while True:
        peer.packet(b"\0" + m.encode(m.Pong()), [0] * 200)


def _never_the_last_piece(peer: Hostile, ledger: Ledger) -> None:
    while True:
        peer.packet(b"\1x")


def _speak_for_executors(peer: Hostile, ledger: Ledger) -> None:
    for notice in m.NOTICES_OF_EXECUTOR - m.NOTICES_OF_MONITOR:
        peer.say(m.Note(notice, 1, 1, FORGED))


def _poison(peer: Hostile, ledger: Ledger) -> None:
    for at in range(0, len(ledger._memory), 4096):
        ledger._memory[at : at + 4096] = b"\xff" * min(4096, len(ledger._memory) - at)


def _hostile_actions(peer: Hostile, ledger: Ledger) -> None:
    """To the executor: every item, kind and amount, and never a look at what it answers."""
    peer.read_until_executor()
    line = b"'; touch pwned; $(touch pwned) `touch pwned`\n"
    for number in range(1000):
        kind = KINDS[number % 3]
        item = _numbers(peer.dice)
        peer.executor.say(m.RunAction(item, kind, 2**64 - 1, number, number, line, ((0, len(line)),)))


class HostileMonitor(Hostile):
    """One that has a connection to an executor too."""

    executor: Hostile

    def read_until_executor(self) -> None:
        self.executor = Hostile(self.wait_for_socket(), self._counters, self.sender)


MONITOR_ATTACKS: tuple[Callable[[HostileMonitor, Ledger], None], ...] = (
    _random_packets,
    _flood,
    _questions_unread,
    _break_the_others,
    _many_descriptors,
    _never_the_last_piece,
    _hostile_actions,
    _speak_for_executors,
    _poison,  # at last: the next one is honest
)


def _executor_flood(peer: Hostile) -> None:
    text = b"\x1b[31m" + b"x" * 1000
    for number in range(MESSAGES):
        peer.say(
            peer.dice.choice(
                [
                    m.ActionOutput(_numbers(peer.dice), number, text),
                    m.ActionFinished(_numbers(peer.dice), number, 0x100, 2**64 - 1, True),
                    m.Note(
                        peer.dice.choice(tuple(m.NOTICES_OF_EXECUTOR)), _numbers(peer.dice), 2**64 - 1, text
                    ),
                    m.Pong(),
                ]
            )
        )


def _actions_that_do_not_run(peer: Hostile) -> None:
    for number in range(2**22 - 600, 2**22 + 1):  # the largest that there can be
        peer.say(m.ActionStarted(1, number, 1))


def _a_pid_that_cannot_be(peer: Hostile) -> None:
    while True:
        peer.packet(b"\0\x28" + struct.pack(">III", 1, 2**32 - 1, 1))


def _break_the_monitor(peer: Hostile) -> None:
    for _ in range(MESSAGES // 10):
        peer.say(m.PeerBroke(0))


def _speak_for_the_monitor(peer: Hostile) -> None:
    for notice in m.NOTICES_OF_MONITOR - m.NOTICES_OF_EXECUTOR:
        peer.say(m.Note(notice, 1, 1, FORGED))


def _orphan(peer: Hostile) -> None:
    """A process that stays, and has the channel."""
    if os.fork() == 0:
        try:
            peer.sender = ORPHAN
            _executor_flood(peer)
        finally:
            os._exit(0)


def _descriptors_that_linger(peer: Hostile) -> None:
    """Whoever closes one last would wait for it: the supervisor or the monitor, which take none."""
    pong = b"\0" + m.encode(m.Pong())
    taken = b"\0" + m.encode(m.ActionTaken(1, m.Kind.UPBOUND, 1, 1))
    monitor = peer.wait_for_socket()
    lingering = []
    for number in range(8):
        lingering.append(Lingering(LINGER_S))
        lingering[-1].send_by_child(*((monitor, taken) if number % 2 else (peer.sock, pong)))
    # Who reads the other end must not end, or the sockets would.
    select.select([os.pidfd_open(os.getppid())], [], [])


EXECUTOR_ATTACKS: tuple[Callable[[Hostile], None], ...] = (
    _executor_flood,
    _actions_that_do_not_run,
    _a_pid_that_cannot_be,
    _break_the_monitor,
    _speak_for_the_monitor,
    _orphan,
    _descriptors_that_linger,
)


class _HostileStart(_Start):
    """The service, with a role that is honest in its first generation and after the last attack."""

    role = ""
    counters: Counters

    def _be_monitor(self, channel: Channel, ledger: Ledger, service_pids: tuple[int, ...]) -> None:
        generation = self.counters.add(MONITORS)
        if self.role != "monitor" or not 0 < generation <= len(MONITOR_ATTACKS):
            super()._be_monitor(channel, ledger, service_pids)
            return
        lock_down(self._monitor)
        MONITOR_ATTACKS[generation - 1](HostileMonitor(channel._sock, self.counters, generation), ledger)

    def _be_executor(self, channel: Channel, account: Account, approve: Approve) -> None:
        generation = self.counters.add(EXECUTORS)
        if self.role != "executor" or not 0 < generation <= len(EXECUTOR_ATTACKS):
            super()._be_executor(channel, account, approve)
            return
        become(account)
        EXECUTOR_ATTACKS[generation - 1](Hostile(channel._sock, self.counters, generation))


def main() -> int:
    """Run it."""
    counters, role, config, logfile = sys.argv[1:]
    # As on the kernels that deliver descriptors to whoever takes none: no socket has such an option.
    setattr(channel_module, SINCE_LINUX_6_16, -1)
    service = _HostileStart(Options(config, logfile=logfile, verbose=True))
    service.role = role
    service.counters = Counters(counters)
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
