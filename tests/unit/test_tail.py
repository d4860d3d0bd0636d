"""A file that grows and is emptied: every complete line once, whatever is read when."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from effort import examples
from lognot import tail
from lognot.tail import MARK_BYTES, Tail

MAX_LINE = 100


class File:
    """A log and its writer."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._at = 0

    def write(self, data: bytes) -> None:
        self._at += os.pwrite(self.fd, data, self._at)

    def empty(self, writer_stays_at: int | None = None) -> None:
        """Truncate; a writer without O_APPEND goes on where it was (or further on), and leaves a hole."""
        os.ftruncate(self.fd, 0)
        self._at = writer_stays_at or 0

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    @property
    def content(self) -> bytes:
        return os.pread(self.fd, self.size, 0)


@contextmanager
def new_file(content: bytes = b"") -> Iterator[File]:
    with tempfile.TemporaryFile(buffering=0) as temporary:
        file = File(temporary.fileno())
        file.write(content)
        yield file


@pytest.fixture
def file() -> Iterator[File]:
    with new_file() as made:
        yield made


def expected_lines(content: bytes, max_line: int) -> list[bytes]:
    """What the documentation promises for a file's content, read in one go."""
    *lines, unfinished = content.lstrip(b"\0").split(b"\n")
    if len(unfinished) > max_line:
        lines.append(unfinished)
    return [line[:max_line] for line in lines]


def read_once(file: File, reader: Tail) -> tuple[list[bytes], bool]:
    """The lines of one read, and whether there is more; checks what the blocks say of themselves."""
    reading = reader.read()
    lines: list[bytes] = []
    for block in reading.blocks:
        assert block.lines.endswith(b"\n")
        length = len(block.lines) - block.cut
        assert os.pread(file.fd, length, block.start) == block.lines[:length]
        if block.cut:
            assert length == reader.max_line_bytes
            assert os.pread(file.fd, 1, block.start + length) != b"\n"
        if block.start:
            assert os.pread(file.fd, 1, block.start - 1) in (b"\n", b"\0")
        lines += block.lines[:-1].split(b"\n")
    return lines, reading.more


def read_all(file: File, reader: Tail) -> list[bytes]:
    lines: list[bytes] = []
    more = True
    while more:
        new, more = read_once(file, reader)
        lines += new
    return lines


def saved(reader: Tail) -> tuple[int, int, bool, bytes]:
    return reader.offset, reader.generation, reader.skipping, reader.digest()


def resumed(file: File, state: tuple[int, int, bool, bytes], max_line: int) -> Tail:
    """What a new monitor does with what the last one has saved."""
    offset, generation, skipping, digest = state
    reader = Tail(file.fd, max_line, offset=offset, generation=generation, skipping=skipping)
    if reader.digest() != digest:
        return Tail(file.fd, max_line, generation=generation + 1)
    return reader


# Any bytes at all, with those that mean something coming often. Each write begins with a byte of its own: a
# file that is emptied and filled again with the same bytes cannot be told from one that was not.
texts = st.lists(
    st.one_of(st.sampled_from([b"\n", b"\r\n", b"\0", b"\xff\xfe", b"", b"\n\n"]), st.binary(max_size=30)),
    max_size=6,
).map(b"".join)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), texts),
        st.tuples(st.just("long"), st.integers(1, 4000)),
        st.tuples(st.just("newline"), st.none()),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("resume"), st.none()),
        st.tuples(st.just("drain and empty"), st.none()),
        st.tuples(st.just("empty"), st.none()),
        st.tuples(st.just("drain and empty, hole"), st.integers(0, 20_000)),
        st.tuples(st.just("empty, hole"), st.integers(0, 20_000)),
    ),
    max_size=40,
)


@examples(400)
@given(steps, st.sampled_from([1, 10, 100, 1500]), st.sampled_from([1, 7, 64, 1000, 65536]))
@example(
    [("write", b"\n"), ("drain and empty, hole", 9000), ("write", b"\n"), ("read", None), ("resume", None)],
    100,
    65536,
)
@example(
    [("write", b"\n"), ("drain and empty, hole", 9000), ("write", b""), ("resume", None), ("newline", None)],
    100,
    65536,
)
def test_every_line_once_whatever_happens(
    sequence: list[tuple[str, bytes | int | None]], max_line: int, block_bytes: int
) -> None:
    with new_file() as file, patch.object(tail, "BLOCK_BYTES", block_bytes):
        reader = Tail(file.fd, max_line)
        seen: list[bytes] = []  # of the file as it is since it was emptied last
        for number, (step, argument) in enumerate(sequence):
            mark = bytes((128 + number,))
            if step == "write":
                assert isinstance(argument, bytes)
                file.write(mark + argument)
            elif step == "long":
                assert isinstance(argument, int)
                file.write(mark * argument)
            elif step == "newline":
                file.write(mark + b"\n")
            elif step == "read":
                seen += read_once(file, reader)[0]
            elif step == "resume":
                reader = resumed(file, saved(reader), max_line)
            else:
                if step.startswith("drain"):
                    seen += read_all(file, reader)
                    assert seen == expected_lines(file.content, max_line)
                else:  # what was not read is gone for everybody
                    assert seen == expected_lines(file.content, max_line)[: len(seen)]
                seen = []
                file.empty(file.size + argument if isinstance(argument, int) else None)
        seen += read_all(file, reader)
        assert seen == expected_lines(file.content, max_line)


@examples(200)
@given(
    st.binary(max_size=300).map(lambda data: data.replace(b"\1", b"\n")),
    st.binary(max_size=300).map(lambda data: data.replace(b"\1", b"\n")),
    st.sampled_from([1, 10, 100, 1500]),
)
@example(b"old\n" + b"u" * 100, b"\nnew\n", 100)
@example(b"u" * 100, b"\nnew\n", 100)
@example(b"\n" + b"u" * 101, b"\nnew\n", 100)
def test_from_the_end_completes_the_last_line(history: bytes, later: bytes, max_line: int) -> None:
    with new_file(history) as file:
        reader = Tail.at_end(file.fd, max_line, len(history))
        file.write(later)
        finished, _, unfinished = history.rpartition(b"\n")
        if not finished:
            unfinished = unfinished.lstrip(b"\0")
        # Of a line that is too long, only so much is looked at: NULs there are taken for a hole.
        assume(len(unfinished) <= max_line or unfinished[-max_line - 1] != 0)
        expected = expected_lines(history + later, max_line)
        before = history.count(b"\n")
        if len(unfinished) > max_line:  # was too long already: history, with all that belongs to it
            before += 1
        assert read_all(file, reader) == expected[before:]


@contextmanager
def before_each_call(steps: Iterator[Callable[[], object]]) -> Iterator[None]:
    """Have the writer do its next step just before each system call that the reader makes."""
    within = False

    def patched(name: str) -> object:
        def call(*arguments: int) -> object:
            nonlocal within
            if not within:  # a step makes calls, too
                within = True
                next(steps, lambda: None)()
                within = False
            return real(*arguments)

        real = getattr(os, name)
        return patch.object(tail.os, name, call)

    with patched("pread"), patched("lseek"):  # type: ignore[attr-defined]
        yield


@examples(600)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.tuples(st.just("write"), texts),
            st.tuples(st.just("line"), st.integers(0, 3000)),
            st.tuples(st.just("empty"), st.sampled_from([None, 0, 1, 5000])),
        ),
        max_size=30,
    ),
    st.integers(0, 1500),
    st.booleans(),
    st.sampled_from([10, 1500]),
    st.sampled_from([7, 1000, 65536]),
)
@example([None, ("line", 1)], 0, False, 1500, 65536)
@example([None, None, ("line", 1)], 0, False, 1500, 65536)
@example([None, None, None, ("line", 1)], 0, False, 1500, 65536)
@example([None, ("line", 19), *[None] * 6, ("empty", 5000), ("write", b"\n")], 1, True, 10, 7)
@example([None, None, ("line", 19), *[None] * 4, ("empty", 5000), ("write", b"\n")], 1, True, 10, 7)
@example([None, ("empty", None), ("line", 3000)], 1500, True, 1500, 65536)
@example([None, None, ("empty", None), ("line", 3000)], 1500, True, 1500, 65536)
def test_what_is_written_between_any_two_calls_is_not_lost(
    sequence: list[tuple[str, bytes | int | None] | None],
    history: int,
    at_end: bool,
    max_line: int,
    block_bytes: int,
) -> None:
    """The writer does not wait for the reader to have looked at the size and at the bytes."""
    old = b"x" * history + b"\n" if history else b""
    with new_file(old) as file, patch.object(tail, "BLOCK_BYTES", block_bytes):
        emptied = False

        def step(number: int, what: str, argument: bytes | int | None) -> None:
            nonlocal emptied
            mark = b"%d:" % number
            if isinstance(argument, bytes):
                file.write(mark + argument)
            elif what == "line":
                assert isinstance(argument, int)
                file.write(mark + bytes((65 + number,)) * argument + b"\n")
            else:
                emptied = True
                file.empty(file.size + argument if isinstance(argument, int) else None)

        steps = iter([partial(step, number, *one) if one else int for number, one in enumerate(sequence)])
        seen: list[bytes] = []
        with before_each_call(steps):
            reader = Tail.at_end(file.fd, max_line, len(old)) if at_end else Tail(file.fd, max_line)
            for _ in range(len(sequence)):
                seen += (line for block in reader.read().blocks for line in block.lines[:-1].split(b"\n"))
        seen += read_all(file, reader)
        new = file.content if emptied or not at_end else file.content[len(old) :]
        expected = expected_lines(new, max_line)
        assert seen[max(0, len(seen) - len(expected)) :] == expected
        if not emptied:
            assert seen == expected


def test_from_the_end_behind_a_hole(file: File) -> None:
    file.empty(writer_stays_at=1_000_000)
    file.write(b"unfini")
    reader = Tail.at_end(file.fd, MAX_LINE, file.size)
    file.write(b"shed\n")
    assert read_all(file, reader) == [b"unfinished"]


@pytest.mark.parametrize("size", [3, 3 * MAX_LINE])
def test_from_the_end_of_a_file_that_is_emptied_meanwhile(file: File, size: int) -> None:
    file.write(b"x" * size)
    file.empty()
    file.write(b"a\n")
    reader = Tail.at_end(file.fd, MAX_LINE, size)
    assert read_all(file, reader) == [b"a"]


def test_nothing_new_is_nothing(file: File) -> None:
    file.write(b"a\n")
    reader = Tail(file.fd, MAX_LINE)
    assert read_all(file, reader) == [b"a"]
    assert reader.read() == tail.NOTHING


def test_a_truncation_is_told_and_counted(file: File) -> None:
    file.write(b"one\n")
    reader = Tail(file.fd, MAX_LINE)
    read_all(file, reader)
    file.empty()
    reading = reader.read()
    assert reading.truncated
    assert reading.more
    assert (reader.generation, reader.offset) == (1, 0)
    file.write(b"two\n")
    assert read_all(file, reader) == [b"two"]
    assert reader.generation == 1


def test_a_truncation_below_what_was_read_of_an_unfinished_line(file: File) -> None:
    file.write(b"one\nunfinished")
    reader = Tail(file.fd, MAX_LINE)
    assert read_all(file, reader) == [b"one"]
    file.empty()
    file.write(b"two\n")
    assert read_all(file, reader) == [b"two"]


def test_a_truncation_that_has_grown_past_what_was_read(file: File) -> None:
    file.write(b"".join(b"old line %d\n" % number for number in range(200)))
    reader = Tail(file.fd, MAX_LINE)
    assert len(read_all(file, reader)) == 200
    file.empty()
    new = [b"new line %d" % number for number in range(1000)]
    file.write(b"".join(line + b"\n" for line in new))
    assert read_all(file, reader) == new


def test_a_hole_is_passed_without_reading_it(file: File) -> None:
    """It is as large as the file ever was; reading it would take hours."""
    file.write(b"old\n")
    reader = Tail(file.fd, MAX_LINE)
    read_all(file, reader)
    file.empty(writer_stays_at=2**42)
    file.write(b"new\n")
    with patch.object(os, "pread", wraps=os.pread) as pread:
        assert read_all(file, reader) == [b"new"]
    assert pread.call_count < 10
    assert reader.offset == 2**42 + 4


@pytest.mark.parametrize("then", [b"", b"\nnew\n"])
@pytest.mark.parametrize("begin", [b"", b"x"])
def test_a_hole_of_any_size_is_passed(file: File, begin: bytes, then: bytes) -> None:
    """Whoever owns the log makes one for nothing, and there is nothing in it."""
    file.write(b"old\n")
    reader = Tail(file.fd, MAX_LINE)
    read_all(file, reader)
    if not begin:
        file.empty()
        read_all(file, reader)
    file.write(begin)
    os.truncate(f"/proc/self/fd/{file.fd}", 2**40)
    with open(f"/proc/self/fd/{file.fd}", "ab", buffering=0) as writer:
        writer.write(then)
        for _ in range(9):  # 10 TB/s otherwise
            reader.read()
        assert reader.offset == 2**40 + len(then)
        writer.write(b"\nnext\n")
    assert read_all(file, reader)[-1:] == [b"next"]


def test_a_monitor_that_dies_in_a_hole_is_followed_by_one_that_passes_it(file: File) -> None:
    file.write(b"old\n")
    reader = Tail(file.fd, MAX_LINE)
    read_all(file, reader)
    file.empty(writer_stays_at=100_000)
    assert read_all(file, reader) == []
    state = saved(reader)
    file.write(b"new\n")
    assert read_all(file, resumed(file, state, MAX_LINE)) == [b"new"]


def test_a_short_file_behind_a_saved_offset_is_read_from_its_beginning(file: File) -> None:
    file.write(b"x" * 50 + b"\n")
    reader = Tail(file.fd, MAX_LINE)
    read_all(file, reader)
    state = saved(reader)
    file.empty()
    file.write(b"new\n")
    again = resumed(file, state, MAX_LINE)
    assert again.generation == 1
    assert read_all(file, again) == [b"new"]


def test_the_digest_is_of_the_last_bytes_only(file: File) -> None:
    file.write(b"head\n" + b"x" * MARK_BYTES + b"\n")
    reader = Tail(file.fd, 10 * MARK_BYTES)
    assert reader.digest() == b""
    read_all(file, reader)
    digest = reader.digest()
    os.pwrite(file.fd, b"HEAD", 0)
    assert Tail(file.fd, MAX_LINE, offset=reader.offset).digest() == digest
    os.pwrite(file.fd, b"X", MARK_BYTES)
    assert Tail(file.fd, MAX_LINE, offset=reader.offset).digest() != digest


def test_a_cut_line_leaves_before_its_end_is_written(file: File) -> None:
    """Whoever writes a line without end must not make us wait, nor hold all of it."""
    reader = Tail(file.fd, MAX_LINE)
    file.write(b"a" * (MAX_LINE + 1))
    reading = reader.read()
    assert [(block.lines, block.start, block.cut) for block in reading.blocks] == [
        (b"a" * MAX_LINE + b"\n", 0, True)
    ]
    file.write(b"b" * 10_000)
    assert read_all(file, reader) == []
    assert reader.offset == file.size
    file.write(b"c\nnext\n")
    assert read_all(file, reader) == [b"next"]


def test_the_offset_of_the_descriptor_is_not_used(file: File) -> None:
    """Its other holders share it."""
    file.write(b"a\nb\n")
    os.lseek(file.fd, 3, os.SEEK_SET)
    assert read_all(file, Tail(file.fd, MAX_LINE)) == [b"a", b"b"]


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            Tail(directory, MAX_LINE).read()
    finally:
        os.close(directory)


def test_a_log_whose_blocks_take_long_is_read_in_smaller_ones(file: File) -> None:
    """Whatever the pace, no byte is missed; and it is the usual one again when they take long no more."""
    content = b"".join(b"line %06d\n" % number for number in range(100_000))
    file.write(content)
    tail_ = Tail(file.fd, MAX_LINE)
    read, sizes, more = b"", [], True
    while more:
        reading = tail_.read()
        more = reading.more
        lines = b"".join(block.lines for block in reading.blocks)
        read += lines
        sizes.append(len(lines))
        tail_.pace(tail.TURN_NS + 1 if len(sizes) < 10 else 1000)
    assert read == content
    assert sizes[0] > tail.BLOCK_BYTES - MAX_LINE
    assert max(sizes[6:10]) <= tail.LEAST_BLOCK_BYTES + MAX_LINE
    assert sizes[-2] > tail.BLOCK_BYTES - MAX_LINE
