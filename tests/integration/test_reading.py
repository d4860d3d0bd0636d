"""What is read of a log, and what is taken for a line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import ENGINES
from integration.harness import Service, append, wait_for
from integration.processes import descriptors
from integration.writer import counting_items, held

MAX_QUEUED_EVENTS = Path("/proc/sys/fs/inotify/max_queued_events")

Make = Callable[..., Service]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def echoing(path: Path, out: Path, *, name: str = "EACH", general: str = "") -> str:
    """An item that writes each line that it sees into a file, in order; of NULs, a shell knows nothing."""
    return (
        f"[general]\nathread_count = 1\n{general}\n"
        f"[{name}]\npath = {path}\nregex = .*\n"
        f"upbound_action = printf '%s\\n' \"$LOGNOT_LINE\" >> {out}\n"
    )


def another(path: Path, out: Path, name: str) -> str:
    """A second item beside `echoing`."""
    return echoing(path, out, name=name).partition("\n\n")[2]


def wait_lines(path: Path, expected: list[bytes]) -> None:
    """Wait for the first lines of a file; what comes later is for whoever stops lognot first."""
    wait_count(path, len(expected))
    assert lines(path) == expected


def wait_count(path: Path, count: int) -> None:
    wait_for(lambda: len(lines(path)) >= count, f"{count} lines in {path}")


@pytest.mark.root
def test_a_log_that_is_roots_alone_is_watched_through_a_rotation(service: Make, tmp_path: Path) -> None:
    private, out = tmp_path / "private", tmp_path / "out"
    private.mkdir(0o700)
    log = private / "log"
    log.touch(0o600)
    lognot = service(echoing(log, out)).start()
    uids = Path(f"/proc/{lognot.role('monitor')}/status").read_text().partition("Uid:")[2].split()[:4]
    assert "0" not in uids  # whoever reads the lines could not open the file
    with log.open("ab", buffering=0) as writer:
        writer.write(b"one\n")
        wait_lines(out, [b"one"])
        log.rename(private / "log.1")
        log.touch(0o600)
        writer.write(b"two\n")
        wait_lines(out, [b"one", b"two"])
    append(log, "three\n")
    wait_lines(out, [b"one", b"two", b"three"])
    assert lognot.stop() == 0
    assert lines(out) == [b"one", b"two", b"three"]


def test_history_is_not_looked_at_but_the_last_line_is_completed(service: Make, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.write_text("history\nmore history\nunfini")
    lognot = service(echoing(log, out)).start()
    append(log, "shed\nnext\n")
    wait_lines(out, [b"unfinished", b"next"])
    assert lognot.stop() == 0
    assert lines(out) == [b"unfinished", b"next"]


def test_an_unfinished_line_waits(service: Make, tmp_path: Path) -> None:
    """Events come in order: when a later line of another log was seen, this one was looked at, too."""
    log, out = tmp_path / "log", tmp_path / "out"
    other, out_of_other = tmp_path / "other", tmp_path / "out_of_other"
    log.touch()
    other.touch()
    lognot = service(echoing(log, out) + another(other, out_of_other, "OTHER")).start()
    for number, piece in enumerate(("un", "fini", "shed")):
        append(log, piece)
        append(other, f"{number}\n")
        wait_lines(out_of_other, [b"%d" % line for line in range(number + 1)])
        assert lines(out) == []
    append(log, "\n")
    wait_lines(out, [b"unfinished"])
    append(log, "never finished")
    assert lognot.stop() == 0
    assert lines(out) == [b"unfinished"]


@pytest.mark.parametrize("engine", ENGINES)
def test_lines_are_bytes(service: Make, tmp_path: Path, engine: str) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    everything = bytes(byte for byte in range(256) if byte not in b"\0\n\r")
    lognot = service(echoing(log, out, general=f"regex_engine = {engine}")).start()
    append(log, b"unix\ndos\r\n\n\r\nre\rturn\nn\0u\0l\n\xff\xfe\xc3\x28\n" + everything + b"\nlast\r\r\n")
    expected = [b"unix", b"dos", b"", b"", b"re\rturn", b"nul", b"\xff\xfe\xc3\x28", everything, b"last\r"]
    wait_lines(out, expected)
    assert lognot.stop() == 0
    assert lines(out) == expected


def test_an_overlong_line_is_cut_and_reading_goes_on(service: Make, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lognot = service(echoing(log, out, general="max_line = 1K")).start()
    append(log, b"a" * 1024 + b"\n" + b"b" * 1025 + b"\n")
    for _ in range(5):
        append(log, b"c" * 500)
    append(log, b"\nnext\n")
    expected = [b"a" * 1024, b"b" * 1024, b"c" * 1024, b"next"]
    wait_lines(out, expected)
    lognot.wait_log(
        r"warning: \d+ lines? of log '.*/log' (was|were) longer than max_line and (was|were) cut there"
    )
    assert lognot.stop() == 0
    assert lines(out) == expected


def test_a_missing_log_is_read_from_its_first_byte(service: Make, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    lognot = service(echoing(log, out)).start()
    lognot.wait_log(r"warning: log '.*/log' is not there yet")
    (tmp_path / "new").write_text("one\ntwo\n")
    (tmp_path / "new").rename(log)
    wait_lines(out, [b"one", b"two"])
    log.unlink()
    lognot.wait_log(r"warning: log '.*/log' is not there yet", 2)
    append(log, "three\n")
    wait_lines(out, [b"one", b"two", b"three"])
    assert lognot.stop() == 0


def test_missing_directories_are_waited_for(service: Make, tmp_path: Path) -> None:
    """Made while lognot is looking at what is there so far: it must not miss the rest."""
    log, out = tmp_path / "a" / "b" / "c" / "log", tmp_path / "out"
    lognot = service(echoing(log, out)).start()
    lognot.wait_log("is not there yet")
    for number in range(50):
        log.parent.mkdir(parents=True)
        append(log, f"{number}\n")
        wait_lines(out, [b"%d" % line for line in range(number + 1)])
        (tmp_path / "a").rename(tmp_path / f"moved {number}")
    assert lognot.stop() == 0


def test_two_items_on_one_path_open_it_once(service: Make, tmp_path: Path) -> None:
    log, one, two = tmp_path / "log", tmp_path / "one", tmp_path / "two"
    log.touch()
    lognot = service(echoing(log, one, name="ONE") + another(log, two, "TWO")).start()
    append(log, "line\n")
    wait_lines(one, [b"line"])
    wait_lines(two, [b"line"])
    for pid in (lognot.pid, lognot.role("monitor")):
        assert list(descriptors(pid).values()).count(str(log)) == 1
    assert lognot.stop() == 0


def test_two_paths_to_one_file_are_two_logs(service: Make, tmp_path: Path) -> None:
    log, link, one, two = (tmp_path / name for name in ("log", "link", "one", "two"))
    log.touch()
    link.symlink_to(log)
    lognot = service(echoing(log, one, name="ONE") + another(link, two, "TWO")).start()
    with log.open("ab", buffering=0) as writer:
        writer.write(b"line\n")
        wait_lines(one, [b"line"])
        wait_lines(two, [b"line"])
        log.rename(tmp_path / "log.1")  # now the link leads nowhere
        writer.write(b"late\n")
    append(log, "new\n")
    for out in (one, two):
        wait_count(out, 3)
        assert sorted(lines(out)) == [b"late", b"line", b"new"]  # of two files
    assert lognot.stop() == 0


def test_nothing_is_lost_when_the_event_queue_overflows(service: Make, tmp_path: Path) -> None:
    """The monitor is held until more events wait than fit, and then misses a rotation of each log."""
    each = int(MAX_QUEUED_EVENTS.read_text()) // 2 + 100
    if each > 100_000:
        pytest.skip("fs.inotify.max_queued_events is too high to be reached in short time")
    logs = [tmp_path / "a", tmp_path / "b"]
    for log in logs:
        log.touch()
    lognot = service("".join(counting_items(str(log), each + 20, log.name) for log in logs)).start()
    with held(lognot.role("monitor")):
        fds = [os.open(log, os.O_WRONLY | os.O_APPEND) for log in logs]
        for number in range(each):  # in turns: the kernel merges an event with an equal one before it
            for fd in fds:
                os.write(fd, b"line %d\n" % number)
        for log in logs:
            log.rename(log.with_suffix(".1"))
            append(log, "".join(f"line {number}\n" for number in range(each, each + 10)))
        for fd in fds:
            os.write(fd, b"".join(b"line %d\n" % number for number in range(each + 10, each + 20)))
            os.close(fd)
    lognot.wait_log(r"warning: the kernel's event queue overflowed")
    lognot.wait_log(r"\[ALL[ab]\] fired", 2)
    assert lognot.stop() == 0
    assert lognot.log.count("] fired") == 2, lognot.log
