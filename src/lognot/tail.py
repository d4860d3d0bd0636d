"""One log file as it grows: a descriptor becomes blocks of complete lines.

Runs in the monitor, which holds the descriptor but no right to open anything. Reads with pread(2) only:
the file offset is shared with whoever else holds the same open file.

A file that only grows is the easy case. Two things make it harder:

Truncation (logrotate's copytruncate). The size may be below what was read, or may have grown past it again
before anybody looked. So each read begins a little before the place where the last one ended and expects
the same bytes there (the mark). Where they differ, the file was emptied in between and is read from its
first byte. A writer without O_APPEND leaves a hole of NULs before its next line; NULs at the beginning of a
file are skipped.

Unfinished and overlong lines. Only complete lines leave here. The rest waits, in memory, for its newline;
when it passes `max_line_bytes`, that much of it leaves as a line and the remainder is left out.
"""

from __future__ import annotations

import errno
import os
from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from dataclasses import dataclass

BLOCK_BYTES = 128 * 1024  # 51 MB in 0.048 s; 0.059 with half of it, 0.051 with twice as much
LEAST_BLOCK_BYTES = 4 * 1024
TURN_NS = 10_000_000  # of CPU time; a block that takes more is followed by a smaller one, as other logs wait
MARK_BYTES = 1024  # a log line carries a time or a number well within this
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Block:
    """Complete lines, each ending in a newline.

    Attributes:
        lines: the bytes of the lines.
        start: where the first of them begins in the file.
        cut: it is one line that was longer than allowed, without the rest of it.
    """

    lines: bytes
    start: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read brought.

    Attributes:
        blocks: in file order.
        truncated: the file was found emptied; what the next read brings is from its beginning.
        more: the end of the file was not reached yet.
    """

    blocks: tuple[Block, ...] = ()
    truncated: bool = False
    more: bool = False


NOTHING = Reading()


class Tail:
    """The reading position in one file; does not own the descriptor.

    Args:
        fd: open for reading.
        max_line_bytes: longer lines are cut there.
        offset: where to begin; a line must begin there, unless `skipping`.
        generation: how often the file was found truncated before.
        skipping: begin in an overlong line, whose rest is left out.
        mark: the bytes before `offset`, MARK_BYTES or all; read from the file when they are not given.
    """

    def __init__(
        self,
        fd: int,
        max_line_bytes: int,
        *,
        offset: int = 0,
        generation: int = 0,
        skipping: bool = False,
        mark: bytes | None = None,
    ) -> None:
        self._fd = fd
        self.max_line_bytes = max_line_bytes
        self.generation = generation
        self.offset = offset  # everything before it has left as lines
        self.skipping = skipping
        self._block_bytes = BLOCK_BYTES
        self._partial = bytearray()  # what was read behind `offset`
        self._mark = self._bytes_before(offset) if mark is None else mark
        self._offset_mark = self._mark  # the bytes before `offset`; `_mark` is the bytes before what was read
        self._skip_nul = not self._mark.strip(b"\0")  # nothing but NULs so far

    @classmethod
    def at_end(cls, fd: int, max_line_bytes: int, size: int) -> Tail:
        """Begin where the file of `size` bytes ended, with its last line where that was not finished yet."""
        begin = max(0, size - max_line_bytes - 1 - MARK_BYTES)
        # All of it at once: the file may be emptied, and filled again, before another look.
        behind = os.pread(fd, size - begin, begin)
        if len(behind) < size - begin:  # emptied since its size was looked at: all of it is new
            return cls(fd, max_line_bytes)
        last = behind[-max_line_bytes - 1 :]
        newline = last.rfind(b"\n")
        unfinished = last[newline + 1 :]
        if newline < 0:  # at the beginning of the file, or behind a hole
            unfinished = unfinished.lstrip(b"\0")
        if len(unfinished) > max_line_bytes:  # too long to be seen whole
            return cls(fd, max_line_bytes, offset=size, skipping=True, mark=behind[-MARK_BYTES:])
        end = len(behind) - len(unfinished)
        return cls(fd, max_line_bytes, offset=begin + end, mark=_mark_before(behind, end))

    def digest(self) -> bytes:
        """A digest of the bytes before the offset; empty at the beginning of the file."""
        if not self._offset_mark:
            return b""
        return blake2b(self._offset_mark, digest_size=_DIGEST_BYTES).digest()

    def position_of(self, offset: int) -> int:
        """Where in the file something is, so that positions only grow, over truncations too."""
        return (self.generation & 0xFFFF) << 48 | offset & 0xFFFFFFFFFFFF

    def read(self) -> Reading:
        """Read on, at most BLOCK_BYTES, and less where they take long (`pace`).

        Raises:
            OSError: the file cannot be read (pread(2)).
        """
        if self._skip_nul or self.skipping:
            self._jump_hole()
        mark = self._mark
        seen = self.offset + len(self._partial)
        data = os.pread(self._fd, len(mark) + self._block_bytes, seen - len(mark))
        if not data.startswith(mark):
            self._restart()
            return Reading(truncated=True, more=True)
        if len(data) == len(mark):
            return NOTHING
        at = len(mark)  # where in `data` the new bytes begin; slices of them would each be another copy
        self._mark = data[-MARK_BYTES:]
        more = len(data) - at == self._block_bytes
        if self._skip_nul:
            rest = len(data[at:].lstrip(b"\0"))
            self._skip_nul = not rest
            at = self._leave_out(data, at, len(data) - rest)
        if self.skipping:
            newline = data.find(b"\n", at)
            self.skipping = newline < 0
            at = self._leave_out(data, at, len(data) if newline < 0 else newline + 1)
        return Reading(self._lines_of(data, at), more=more)

    def pace(self, took_ns: int) -> None:
        """Learn what CPU time it took to do what comes of the last block."""
        if took_ns > TURN_NS:
            self._block_bytes = max(self._block_bytes // 2, LEAST_BLOCK_BYTES)
        elif self._block_bytes < BLOCK_BYTES and took_ns < TURN_NS // 4:
            self._block_bytes *= 2

    def _bytes_before(self, offset: int) -> bytes:
        length = min(MARK_BYTES, offset)
        # Where the file is shorter than that, this is a mark that it does not have: it counts as emptied.
        return os.pread(self._fd, length, offset - length).ljust(length, b"\0")

    def _restart(self) -> None:
        self.generation += 1
        self.offset = 0
        self.skipping = False
        self._partial = bytearray()
        self._mark = self._offset_mark = b""
        self._skip_nul = True

    def _jump_hole(self) -> None:
        """Pass a hole without reading it: a truncate(2) makes one of any size, and no newline is in it."""
        size = size_of(self._fd)  # first: what is written from now on is behind it, and no hole
        # A small one is read as fast. So no new line is missed where a file system takes for a hole what was
        # just written (OpenZFS before 2.1.14 and 2.2.2, its issue 15526).
        if size - self.offset <= BLOCK_BYTES:
            return
        try:
            data_at = os.lseek(self._fd, self.offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # EINVAL: a file system that knows no holes
                return
            data_at = size  # no data behind it
        hole = data_at - self.offset
        if hole > 0 and self._bytes_before(self.offset) == self._mark:  # else it was emptied before that
            self.offset = data_at
            # Not read from the file: where something else is there by now, it was emptied since.
            self._mark = self._offset_mark = (self._mark + bytes(min(hole, MARK_BYTES)))[-MARK_BYTES:]

    def _leave_out(self, data: bytes, begin: int, end: int) -> int:
        """Pass these bytes of `data`; give their end."""
        self.offset += end - begin
        self._offset_mark = _mark_before(data, end)
        return end

    def _lines_of(self, data: bytes, at: int) -> tuple[Block, ...]:
        end = data.rfind(b"\n", at) + 1
        if end:
            lines = b"".join((self._partial, memoryview(data)[at:end])) if self._partial else data[at:end]
            start = self.offset
            self._partial = bytearray(data[end:])
            self.offset += len(lines)
            self._offset_mark = _mark_before(data, end)
            blocks = self._cut_long_lines(lines, start)
        else:
            self._partial += memoryview(data)[at:]
            blocks = []
        if len(self._partial) > self.max_line_bytes:
            cut = bytes(self._partial[: self.max_line_bytes]) + b"\n"
            blocks.append(Block(cut, self.offset, cut=True))
            self.offset += len(self._partial)
            self._partial = bytearray()
            self._offset_mark = self._mark
            self.skipping = True
        return tuple(blocks)

    def _cut_long_lines(self, lines: bytes, start: int) -> list[Block]:
        limit = self.max_line_bytes
        if len(lines) <= limit:  # so no line of it is longer
            return [Block(lines, start)]
        blocks = []
        begin = at = 0  # where the block in the making begins, and the line looked at
        while at < len(lines):
            newline = lines.find(b"\n", at)
            if newline - at > limit:
                if begin < at:
                    blocks.append(Block(lines[begin:at], start + begin))
                blocks.append(Block(lines[at : at + limit] + b"\n", start + at, cut=True))
                begin = newline + 1
            at = newline + 1
        if begin < len(lines):
            blocks.append(Block(lines[begin:], start + begin))
        return blocks


def size_of(fd: int) -> int:
    """Give the size of a regular file in bytes. Its offset moves, which nobody here reads from.

    Not by fstat(2): the C library makes it a call that takes a path, which the monitor's sandbox forbids.
    """
    return os.lseek(fd, 0, os.SEEK_END)


def _mark_before(data: bytes, end: int) -> bytes:
    return data[max(0, end - MARK_BYTES) : end]
