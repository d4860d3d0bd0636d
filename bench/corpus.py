"""Syslog text to measure with: the same bytes on every machine, made once and kept in the bench directory.

`mixed` is what a busy host writes: many programs, one line in a hundred that the first rule wants, one in
five hundred for one of the others. `dense` is an attack: every line matches, from many addresses.

The rules come in two families. *alike*: `svc042[7]: error E1 from 10.0.0.1`, as the services of one house
look; a prefilter can use what they share. *unlike*: made-up words, which share nothing but blanks.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 20240101
LINES = 500_000
MAX_RULES = 1000
FAMILIES = ("alike", "unlike")
FIRST_EVERY = 100  # one line in so many is for rule 0 of a family
OTHERS_EVERY = 500  # and one in so many for one of the other rules

VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its pattern, with two groups of which the second is an address; and a line for it."""

    pattern: str
    line: str  # %s twice: what, address

    def message(self, chance: random.Random) -> str:
        """Give the text of a line that matches."""
        return self.line % (f"E{chance.randrange(1000)}", address(chance.getrandbits(24)))


def address(number: int) -> str:
    """One IPv4 address for each number below 2^24, from the block for private networks."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def rules(family: str, count: int) -> list[Rule]:
    """Give the first rules of a family: the same ones whatever the count."""
    if family == "alike":
        names = [f"svc{number:03d}" for number in range(count)]
        return [
            Rule(rf"{name}\[\d+\]: error (\S+) from (\S+)", f"{name}[4711]: error %s from %s")
            for name in names
        ]
    words = _words(3 * count)
    return [
        Rule(rf"{program}: {verb} (\S+) {noun} (\S+)", f"{program}: {verb} %s {noun} %s")
        for program, verb, noun in zip(words[::3], words[1::3], words[2::3], strict=True)
    ]


def _words(count: int) -> list[str]:
    """Give words that no two lines share by accident: 7 letters each."""
    chance = random.Random(SEED)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choice("bcdfghjklmnpqrstvwxz" if i % 2 == 0 else "aeiou") for i in range(7))] = (
            None
        )
    return list(found)


# How often, and what. {…} is made anew each time: see Fields.
BACKGROUND = (
    (6, "sshd[{pid}]: Failed password for invalid user {user} from {ip} port {port} ssh2"),
    (3, "sshd[{pid}]: Accepted publickey for {user} from {ip} port {port} ssh2: RSA SHA256:{number}{number}"),
    (3, "sshd[{pid}]: Connection closed by authenticating user {user} {ip} port {port} [preauth]"),
    (4, "CRON[{pid}]: ({user}) CMD (   cd / && run-parts --report /etc/cron.hourly)"),
    (4, "CRON[{pid}]: pam_unix(cron:session): session opened for user {user}(uid={pid}) by (uid=0)"),
    (
        5,
        "kernel: [{pid}.{number}] [UFW BLOCK] IN=eth0 OUT= SRC={ip} DST={ip} PROTO=TCP DPT={port}",
    ),
    (2, "kernel: [{pid}.{number}] EXT4-fs (vda1): mounted filesystem with ordered data mode"),
    (5, "postfix/smtpd[{pid}]: connect from unknown[{ip}]"),
    (
        4,
        "postfix/smtp[{pid}]: {hex}: to=<{user}@example.org>, relay=mx[{ip}]:25, status=sent (250 Ok)",
    ),
    (3, "postfix/qmgr[{pid}]: {hex}: removed"),
    (
        12,
        'nginx: {ip} - - "GET {path}?id={number} HTTP/1.1" {status} {pid} "-" "Mozilla/5.0"',
    ),
    (3, 'nginx: {ip} - - "POST {path} HTTP/1.1" {status} {pid} "-" "curl/7.88.1"'),
    (3, "systemd[1]: Started session-{number}.scope of {user}."),
    (2, "dhclient[{pid}]: DHCPACK of {ip} from {ip} (xid=0x{hex})"),
    (3, "named[{pid}]: client @0x{hex} {ip}#{port} (example.org): query (cache) 'example.org/A/IN' denied"),
    (2, "sudo: {user} : TTY=pts/0 ; PWD=/home/{user} ; USER=root ; COMMAND=/usr/bin/id"),
    # What a careless filter would stop at: words of the rules where they do not match.
    (1, "svcmon[{pid}]: no error in {number} checks from {user}"),
)


class Fields:
    """What stands for a {name} in BACKGROUND: something else each time it is asked."""

    def __init__(self, chance: random.Random) -> None:
        self._makers: dict[str, Callable[[], object]] = {
            "ip": lambda: address(chance.getrandbits(24)),
            "pid": lambda: chance.randrange(100_000),
            "port": lambda: chance.randrange(65_536),
            "number": lambda: chance.randrange(10**6),
            "hex": lambda: f"{chance.getrandbits(40):010X}",
            "status": lambda: chance.choice((200, 200, 200, 304, 403, 404, 500)),
            "user": lambda: chance.choice(
                ("root", "admin", "backup", "deploy", "git", "postgres", "www-data")
            ),
            "path": lambda: chance.choice(("/", "/index.html", "/api/v1/items", "/static/app.js", "/login")),
        }

    def __getitem__(self, name: str) -> object:
        return self._makers[name]()


def mixed(lines: int = LINES) -> Iterator[str]:
    """Give the lines of a busy host."""
    chance = random.Random(SEED)
    fields = Fields(chance)
    background = [text for weight, text in BACKGROUND for _ in range(weight)]
    families = [rules(family, MAX_RULES) for family in FAMILIES]
    for index in range(lines):
        message = ""
        for offset, family in enumerate(families):
            if index % FIRST_EVERY == 37 + offset:
                message = family[0].message(chance)
            elif index % OTHERS_EVERY == 151 + offset:
                # A third each for the first ten, hundred and thousand: so that few rules have hits, too.
                message = family[chance.randrange(1, chance.choice((10, 100, MAX_RULES)))].message(chance)
        message = message or chance.choice(background).format_map(fields)
        yield f"{stamp(index // 20)} host{chance.randrange(4)} {message}"


DENSE_PATTERN = r"sshd\[\d+\]: Failed password for root from (\S+)"


def dense(lines: int, keys: int) -> Iterator[str]:
    """Give lines that all match DENSE_PATTERN, from `keys` addresses in turn, in no order of theirs."""
    for index in range(lines):
        number = index % keys * 7_368_787 % 2**24  # odd, so different for every index below 2^24
        head, port = f"{stamp(index // 1000)} host1 sshd[{index % 30000}]", index % 60000
        yield f"{head}: Failed password for root from {address(number)} port {port} ssh2"


def stamp(second: int) -> str:
    """Give a syslog time stamp so many seconds into the year; in the past on nearly every day."""
    return f"Jan {1 + second // 86400:2d} {second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def kept(directory: Path, name: str, make: Callable[[], Iterable[str]]) -> Path:
    """Give the file of that name with these lines, and make it if it is not there yet."""
    path = directory / f"{name}.{VERSION}.log"
    if not path.exists():
        for old in directory.glob(f"{name}.*.log"):  # of a corpus.py that was another
            old.unlink()
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("w") as file:
            file.writelines(line + "\n" for line in make())
        part.rename(path)
    return path


def mixed_file(directory: Path, lines: int) -> Path:
    """Give a file with the lines of a busy host."""
    return kept(directory, f"mixed-{lines}", lambda: mixed(lines))


def dense_file(directory: Path, lines: int, keys: int) -> Path:
    """Give a file with an attack."""
    return kept(directory, f"dense-{lines}-{keys}", lambda: dense(lines, keys))
