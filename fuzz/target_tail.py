"""A file that grows, is emptied, gets holes: each line once while it only grows, and never an exception."""

from __future__ import annotations

import os

from lognot.tail import Tail

MAX_LINE_BYTES = 64
APPEND, EMPTY, SHRINK, HOLE, READ, AGAIN, END = range(7)
SEEDS = [
    bytes((APPEND, 4))
    + b"a\nb\n"
    + bytes((READ, 0, APPEND, 3))
    + b"c\nd"
    + bytes((READ, 0, APPEND, 2))
    + b"e\n",
    bytes((APPEND, 3)) + b"a\nb" + bytes((READ, 0, EMPTY, 0, APPEND, 2)) + b"c\n" + bytes((READ, 0)),
    bytes((APPEND, 100)) + b"x" * 99 + b"\n" + bytes((READ, 0, HOLE, 50, APPEND, 2)) + b"y\n",
    bytes((APPEND, 5)) + b"a\nb\nc" + bytes((AGAIN, 0, SHRINK, 2, READ, 0, END, 0, APPEND, 1)) + b"\n",
]


def check(data: bytes) -> None:
    """Steps of two bytes: what is done, and how much."""
    fd = os.memfd_create("log")
    try:
        _run(fd, data)
    finally:
        os.close(fd)


def _run(fd: int, data: bytes) -> None:
    tail = Tail(fd, MAX_LINE_BYTES)
    seen = bytearray()
    only_grows = True
    at = 0
    while at + 2 <= len(data):
        step, length = data[at] % 7, data[at + 1]
        at += 2
        size = os.fstat(fd).st_size
        if step == APPEND:
            os.pwrite(fd, data[at : at + length], size)
            at += length
        elif step == READ:
            seen += _read(tail)
        elif step == AGAIN:  # the next monitor
            tail = Tail(
                fd, MAX_LINE_BYTES, offset=tail.offset, generation=tail.generation, skipping=tail.skipping
            )
        else:
            only_grows = False
            if step == END:
                tail = Tail.at_end(fd, MAX_LINE_BYTES, size + length % 3)
            else:
                os.ftruncate(fd, {EMPTY: 0, SHRINK: max(0, size - length), HOLE: size + length}[step])
    seen += _read(tail)
    if only_grows:
        assert bytes(seen) == _expected(os.pread(fd, os.fstat(fd).st_size, 0))


def _read(tail: Tail) -> bytes:
    lines = bytearray()
    while True:
        before = (tail.offset, tail.generation)
        reading = tail.read()
        for block in reading.blocks:
            assert block.lines.endswith(b"\n")
            assert max(map(len, block.lines.split(b"\n"))) <= MAX_LINE_BYTES
            lines += block.lines
        if not reading.more:
            return bytes(lines)
        assert before != (tail.offset, tail.generation)


def _expected(text: bytes) -> bytes:
    """All that is a line, or is longer than one may be, which is cut."""
    text = text.lstrip(b"\0")  # of a hole
    *lines, rest = text.split(b"\n")
    if len(rest) > MAX_LINE_BYTES:
        lines.append(rest)
    return b"".join(line[:MAX_LINE_BYTES] + b"\n" for line in lines)
