"""Whoever owns a directory on the way to a log swaps what is in it while lognot opens: no secret is read."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from integration import accounts
from integration.harness import Service, append, lines_of, wait_for

BOB = 12345
SWAPS = 3000
LONGEST_PAUSE_S = 0.002  # between two swaps: from shorter to longer than lognot takes to open a log
SEEN = 150  # different files of his that lognot has opened, read and acted on in the meantime
LINES = 200  # in the honest log, and then as many in the one that was attacked
MARKER = "xyzzy-secret"
CONFIG = """\
[ATTACKED]
path = @/bob/logs/log
regex = .*
upbound_action = printf '%s\\n' "$0" >> @/attacked
[HONEST]
path = @/honest.log
regex = ^line (\\d+)$
upbound_action = echo $1 >> @/honest
"""
_RENAME_EXCHANGE = 2  # renameat2(2)
_AT_FDCWD = -100
_COUNTERS = struct.Struct("QQ")  # swaps made; whether it may stop

pytestmark = pytest.mark.root


class Attacker:
    """A process of Bob's in his own directory, which swaps until it is told to leave an honest file there."""

    def __init__(self, home: Path, secret: Path) -> None:
        self._secret = secret
        self._shared = mmap.mmap(-1, _COUNTERS.size)
        self._number = 0
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.chdir(home)
                os.setgroups([])
                os.setresgid(BOB, BOB, BOB)
                os.setresuid(BOB, BOB, 0)
                self._attack()
                os._exit(0)
            finally:
                os._exit(1)

    @property
    def swaps(self) -> int:
        swaps: int = _COUNTERS.unpack_from(self._shared)[0]
        return swaps

    def finish(self) -> None:
        """Let it put an honest file there, and end."""
        struct.pack_into("Q", self._shared, 8, 1)
        _, status = os.waitpid(self.pid, 0)
        assert status == 0

    def _attack(self) -> None:
        tricks = (self._regular, self._symlink, self._hard_link, self._fifo, self._exchange, self._leave)
        dice = random.Random(self._number)
        while True:
            for trick in (*tricks, *reversed(tricks)):
                trick()
                time.sleep(dice.uniform(0, LONGEST_PAUSE_S))
                struct.pack_into("Q", self._shared, 0, self.swaps + 1)
            if _COUNTERS.unpack_from(self._shared)[1]:
                self._regular()
                return

    def _regular(self) -> None:
        self._number += 1
        with open("new", "w") as file:
            file.write(f"bob {self._number}\n")
        os.rename("new", "logs/log")

    def _symlink(self) -> None:
        os.symlink(self._secret, "new")
        os.rename("new", "logs/log")

    def _hard_link(self) -> None:
        os.seteuid(0)  # for this alone, which everybody can where fs.protected_hardlinks is off
        os.link(self._secret, "new")
        os.seteuid(BOB)
        os.rename("new", "logs/log")

    def _fifo(self) -> None:
        os.mkfifo("new")
        os.rename("new", "logs/log")

    def _exchange(self) -> None:
        """The directory itself becomes a link to the one of the secret, and back."""
        for _ in range(2):
            if _libc.renameat2(_AT_FDCWD, b"logs", _AT_FDCWD, b"trap", _RENAME_EXCHANGE) < 0:
                raise OSError(ctypes.get_errno(), "renameat2")

    def _leave(self) -> None:
        """The name leads nowhere, whatever was found there just before."""
        with suppress(FileNotFoundError):
            os.unlink("logs/log")


_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def attack(home: Path, secret: Path) -> Iterator[Attacker]:
    attacker = Attacker(home, secret)
    try:
        yield attacker
    finally:
        if not struct.unpack_from("Q", attacker._shared, 8)[0]:
            os.kill(attacker.pid, signal.SIGKILL)
            os.waitpid(attacker.pid, 0)


def test_no_swap_leads_to_a_secret(service: Callable[..., Service], tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    secret = private / "log"
    secret.write_text("".join(f"{MARKER} {number}\n" for number in range(20)))
    secret.chmod(0o600)
    bob = tmp_path / "bob"
    (bob / "logs").mkdir(parents=True)
    (bob / "trap").symlink_to(private)
    for path in (bob, bob / "logs", bob / "trap"):
        os.chown(path, BOB, BOB, follow_symlinks=False)
    honest = tmp_path / "honest.log"
    honest.touch()
    lognot = service(CONFIG).start()

    def seen() -> int:
        return len(set(lines_of(tmp_path / "attacked")))

    with attack(bob, secret) as attacker:
        for number in range(LINES):
            append(honest, f"line {number}\n")
            wait_for(lambda n=number: attacker.swaps * LINES >= n * SWAPS, "swaps")
        wait_for(lambda: attacker.swaps >= SWAPS and seen() >= SEEN, "an attack that lognot has noticed", 60)
        attacker.finish()
    swaps = attacker.swaps
    # The last file is found by its last line, whatever lognot was looking at when it came.
    for number in range(LINES):
        append(bob / "logs/log", f"after {number}\n")
    expected = [str(number) for number in range(LINES)]

    def after() -> list[str]:
        return [line[6:] for line in lines_of(tmp_path / "attacked") if line.startswith("after ")]

    wait_for(lambda: len(after()) >= LINES, "the lines after the attack")
    wait_for(lambda: len(lines_of(tmp_path / "honest")) >= LINES, "the honest lines")
    assert sorted(after(), key=int) == expected
    assert sorted(lines_of(tmp_path / "honest"), key=int) == expected
    attacked = lines_of(tmp_path / "attacked")
    assert all(line.startswith(("bob ", "after ")) for line in attacked)
    own = lognot.log
    assert MARKER not in own
    for refused in ("a FIFO", "symbolic link|not this user's", "several hard links"):
        lognot.wait_log(rf"cannot be watched.*({refused})")
    assert "ended (" not in own
    assert "broke the protocol" not in own
    assert lognot.stop() == 0
    assert MARKER not in lognot.log
    accounts.numbered(
        "swaps in a directory that others can write to", list(map(int, after())), LINES, times=swaps
    )
