"""lognot's own log: what it looks like, where it goes, and how its lines are known again."""

from __future__ import annotations

import ast
import datetime
import errno
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import journal, outlet
from lognot.journal import (
    DEBUG,
    ERROR,
    INFO,
    WARNING,
    Event,
    FileSink,
    Journal,
    JournaldSink,
    StreamSink,
    SyslogSink,
    line_of,
    open_journal,
    own_line_pattern,
)

SOURCE = Path(journal.__file__).parent
PID = 4711
OWN = own_line_pattern(PID)


class Memory:
    """A sink that keeps what it gets, unless it has no room."""

    name = "memory"

    def __init__(self) -> None:
        self.records: list[tuple[Event, int, str, dict[str, str]]] = []
        self.full = False

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.records.append((event, priority, message, fields))

    def reopen(self) -> None:
        raise AssertionError("nobody asked for it")


# Events.


def test_every_event_has_an_id_of_its_own() -> None:
    ids = [event.value for event in Event.__members__.values()]
    assert len(set(ids)) == len(Event.__members__)
    assert all(re.fullmatch(r"[0-9a-f]{32}", value) for value in ids)


def test_every_event_is_written_somewhere() -> None:
    used = {
        node.attr
        for path in SOURCE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Event"
    }
    assert used == set(Event.__members__)


# Escaping.


@given(st.text(), st.text() | st.binary())
def test_no_control_character_passes(message: str, value: str | bytes) -> None:
    sink = Memory()
    Journal((sink,)).write(Event.STARTED, INFO, message, key=value, line=value)
    [(_, _, text, fields)] = sink.records
    assert text.isprintable()
    assert fields["LOGNOT_KEY"].isprintable()
    assert fields["LOGNOT_LINE"].isprintable()
    text.encode("utf-8")  # no surrogate is left either


@given(st.text())
def test_one_event_is_one_line_of_a_file(message: str) -> None:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stream:
        Journal((StreamSink(stream),)).write(Event.STARTED, INFO, message)
        stream.seek(0)
        assert len(stream.read().splitlines()) == 1


def test_fields_are_named_and_those_that_are_none_are_left_out() -> None:
    sink = Memory()
    Journal((sink,)).write(Event.ITEM_FIRED, INFO, "x", item="A", count=0, key=None, line=b"\x1b\xff")
    assert sink.records == [
        (Event.ITEM_FIRED, INFO, "x", {"LOGNOT_ITEM": "A", "LOGNOT_COUNT": "0", "LOGNOT_LINE": "\\x1b\\xff"})
    ]


@pytest.mark.parametrize("verbose", [True, False])
def test_debug_records_are_for_the_verbose(verbose: bool) -> None:
    sink = Memory()
    log = Journal((sink,), verbose=verbose)
    log.write(Event.STARTED, DEBUG, "x")
    log.write(Event.STARTED, INFO, "y")
    assert [message for _, _, message, _ in sink.records] == (["x", "y"] if verbose else ["y"])


# Sinks.


def test_a_file_is_appended_to_and_reopened(tmp_path: Path) -> None:
    path = tmp_path / "own.log"
    path.write_text("before\n")
    log = Journal((FileSink(path),))
    log.write(Event.STARTED, INFO, "one")
    path.rename(tmp_path / "own.log.1")
    log.write(Event.STARTED, INFO, "two")
    log.reopen()
    log.write(Event.STARTED, INFO, "three")
    assert [line.rpartition(" ")[2] for line in (tmp_path / "own.log.1").read_text().splitlines()] == [
        "before",
        "one",
        "two",
    ]
    assert path.read_text().endswith(" three\n")
    assert path.stat().st_mode & 0o007 == 0  # it quotes logs that not everybody may read


def test_a_file_that_cannot_be_reopened_stays_in_use(tmp_path: Path) -> None:
    path = tmp_path / "directory" / "own.log"
    path.parent.mkdir()
    log = Journal((FileSink(path),))
    path.parent.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        log.reopen()
    log.write(Event.STARTED, INFO, "still here")
    assert (tmp_path / "moved" / "own.log").read_text().endswith("still here\n")


def test_a_full_disk_does_not_stop_us(capfd: pytest.CaptureFixture[str]) -> None:
    log = Journal((FileSink(Path("/dev/full")),))
    log.write(Event.STARTED, INFO, "lost")
    log.write(Event.STARTED, INFO, "lost too")
    assert capfd.readouterr().err == "lognot: cannot write /dev/full: No space left on device\n"
    assert log.lost == 2


def test_what_could_not_be_written_is_said_when_there_is_room() -> None:
    """Each sink for itself: what one has lost, another one has told."""
    small, large = Memory(), Memory()
    log = Journal((small, large))
    log.write(Event.STARTED, INFO, "one")
    small.full = True
    for _ in range(3):
        log.write(Event.READY, INFO, "lost")
    log.say_lost()
    assert log.lost == 3
    small.full = False
    log.write(Event.STOPPED, INFO, "two")
    assert [message for _, _, message, _ in small.records] == [
        "one",
        "3 messages could not be written: No space left on device",
        "two",
    ]
    assert small.records[1][0] is Event.MESSAGES_LOST
    assert [message for _, _, message, _ in large.records] == ["one", "lost", "lost", "lost", "two"]
    small.full = True
    log.write(Event.READY, INFO, "lost")
    small.full = False
    log.say_lost()
    log.say_lost()
    assert [message for _, _, message, _ in small.records][3:] == [
        "1 message could not be written: No space left on device"
    ]


def test_the_name_of_a_file_is_not_printed_raw(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own\x1b[31m.log").symlink_to("/dev/full")
    Journal((FileSink(tmp_path / "own\x1b[31m.log"),)).write(Event.STARTED, INFO, "lost")
    assert f"cannot write {tmp_path}/own\\x1b[31m.log: No space left" in capfd.readouterr().err


def test_a_stream_that_nobody_reads_does_not_stop_us() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        log = Journal((StreamSink(stream),))
        log.write(Event.STARTED, INFO, "lost")
        log.write(Event.STARTED, INFO, "lost too")
    assert not log.lost  # there is nobody to whom it could be said
    Journal((StreamSink(None),)).write(Event.STARTED, INFO, "closed from the start")


def test_a_stream_that_somebody_does_not_read_does_not_stop_us() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as told, os.fdopen(writer, "w") as stream:
        log = Journal((StreamSink(stream),))
        number = 0
        while not log.lost:
            log.write(Event.STARTED, INFO, f"{number} " + "x" * 5000)
            number += 1
        log.write(Event.STARTED, INFO, "lost too")
        os.set_blocking(reader, False)
        first = told.read()
        log.write(Event.STARTED, INFO, "heard again")
        lines = (first + told.read()).decode().splitlines()
    texts = [line.split("info: ")[-1].split("error: ")[-1] for line in lines]
    assert texts == [
        *(f"{seen} " + "x" * 5000 for seen in range(number - 1)),
        "2 messages could not be written: whoever reads them does not keep up",
        "heard again",
    ]


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Somebody behind the sockets of journald and syslog."""
    path = str(tmp_path / "socket")
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", path)
    monkeypatch.setattr(journal, "SYSLOG_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.setblocking(False)
        yield sock


def test_the_journal_gets_fields(receiver: socket.socket) -> None:
    JournaldSink().write(Event.READY, WARNING, "it = so", {"LOGNOT_ITEM": "A=B"})
    assert set(receiver.recv(65536).decode().splitlines()) == {
        "MESSAGE=it = so",
        f"MESSAGE_ID={Event.READY.value}",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=lognot",
        "SYSLOG_FACILITY=3",
        f"SYSLOG_PID={os.getpid()}",
        "LOGNOT_ITEM=A=B",
    }


def test_syslog_gets_a_line_that_is_known_again(receiver: socket.socket) -> None:
    SyslogSink().write(Event.READY, WARNING, "it is so", {"LOGNOT_ITEM": "A"})
    record = receiver.recv(65536)
    assert record.startswith(b"<28>")
    assert record.endswith(f" lognot[{os.getpid()}]: it is so".encode())
    assert own_line_pattern(os.getpid()).match(record)


@pytest.mark.parametrize("kind", [JournaldSink, SyslogSink])
def test_a_receiver_that_stands_still_stops_nothing(receiver: socket.socket, kind: type) -> None:
    """Its socket takes so many packets; then it goes, and comes back as another one."""
    log = Journal((kind(),))
    written = 0
    while not log.lost:
        log.write(Event.READY, INFO, f"number {written}")
        written += 1
    for number in range(written - 1):
        assert f"number {number}".encode() in receiver.recv(65536)
    path = Path(receiver.getsockname())
    path.unlink()
    log.write(Event.READY, INFO, "nobody is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
        another.bind(str(path))
        log.write(Event.READY, INFO, "heard")
        said = another.recv(65536)
        assert b"2 messages could not be written: No such file or directory" in said
        assert b"heard" in another.recv(65536)
    assert not log.lost


@pytest.mark.parametrize("kind", [JournaldSink, SyslogSink])
def test_a_receiver_that_is_slower_than_we_are_loses_nothing(
    receiver: socket.socket, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few packets wait in its socket; it takes them while we write."""
    monkeypatch.setattr(outlet, "PATIENCE_S", 20.0)  # the machine may have others to run for longer than that
    receiver.settimeout(20)
    heard: list[bytes] = []
    number = 1000

    def hear() -> None:
        while len(heard) < number:
            heard.append(receiver.recv(65536))

    thread = threading.Thread(target=hear)
    thread.start()
    log = Journal((kind(),))
    for count in range(number):
        log.write(Event.READY, INFO, f"number {count}.")
    thread.join(20)
    assert all(f"number {count}.".encode() in packet for count, packet in enumerate(heard))
    assert not log.lost


def test_a_syslog_that_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some daemons have it; records end in NUL there. A daemon that is restarted is found again."""
    path = tmp_path / "socket"
    monkeypatch.setattr(journal, "SYSLOG_SOCKET", str(path))
    log = Journal((SyslogSink(),))
    for round_number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(20)
            if round_number:
                log.write(Event.READY, INFO, "to the one that is gone")
                assert log.lost == 1
            log.write(Event.READY, INFO, "one")
            log.write(Event.READY, INFO, "two")
            connection, _ = listener.accept()
            with connection:
                texts = [record.split(b": ")[-1] for record in connection.recv(65536).split(b"\0")]
            assert texts == [*([b"Broken pipe"] if round_number else []), b"one", b"two", b""]
        path.unlink()


def kinds(log: Journal) -> list[type]:
    return [type(outlet.sink) for outlet in log._outlets]


def test_where_the_log_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def go(**options: object) -> list[type]:
        return kinds(open_journal(**{"logfile": None, "stdout": False, "verbose": False, **options}))  # type: ignore[arg-type]

    there, absent = tmp_path / "socket", tmp_path / "absent"
    there.touch()
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", there)
    monkeypatch.setattr(journal, "SYSLOG_SOCKET", there)
    assert go(logfile=tmp_path / "log", stdout=True) == [StreamSink, FileSink]
    assert go(stdout=True) == [StreamSink]
    assert go() == [JournaldSink]
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", absent)
    assert go() == [SyslogSink]
    monkeypatch.setattr(journal, "SYSLOG_SOCKET", absent)
    assert go() == [StreamSink]


# Our own lines, when they come back.


FORMATS = {
    "RFC 3164, as rsyslog's files": "Nov 23 04:53:00 host lognot[4711]: ready",
    "day of one digit": "Nov  3 04:53:00 host lognot[4711]: ready",
    "host with a domain": "Nov 23 04:53:00 host.example.org lognot[4711]: ready",
    "an address for a host": "Nov 23 04:53:00 2001:db8::1 lognot[4711]: ready",
    "no host, as written to /dev/log": "Nov 23 04:53:00 lognot[4711]: ready",
    "with priority, as written to /dev/log": "<30>Nov 23 04:53:00 lognot[4711]: ready",
    "RFC 3339, as rsyslog's since Debian 12": "2023-11-23T04:53:00.123456+01:00 host lognot[4711]: ready",
    "RFC 3339 in UTC": "2023-11-23T04:53:00.123456Z host lognot[4711]: ready",
    "RFC 3339 without fraction": "2023-11-23T04:53:00-05:00 host lognot[4711]: ready",
    "journalctl -o short-iso": "2023-11-23T04:53:00+0100 host lognot[4711]: ready",
    "journalctl -o short": "Nov 23 04:53:00 host lognot[4711]: ready",
    "RFC 5424 in a file": "<30>1 2023-11-23T04:53:00.123456+01:00 host lognot 4711 - - ready",
    "busybox": "Nov 23 04:53:00 host daemon.info lognot[4711]: ready",
}


@pytest.mark.parametrize("name", FORMATS)
def test_our_own_line_is_known_again(name: str) -> None:
    assert OWN.match(FORMATS[name].encode())


def test_lines_of_earlier_services_are_known_again() -> None:
    line = line_of(ERROR, "text").encode()
    assert own_line_pattern(1, os.getpid(), 3).match(line)
    assert not own_line_pattern(1, 3).match(line)


def test_our_own_file_is_known_again() -> None:
    line = line_of(ERROR, "text").encode()
    assert own_line_pattern(os.getpid()).match(line)
    assert not own_line_pattern(os.getpid() + 1).match(line)
    stamp, host, _ = line.decode().split(" ", 2)
    assert datetime.datetime.fromisoformat(stamp).tzinfo
    assert host == socket.gethostname()


@pytest.mark.parametrize(
    "line",
    [
        "lognot[4711]: ready",
        "x Nov 23 04:53:00 host lognot[4711]: ready",
        "Nov 23 04:53:00 host lognot[47110]: ready",
        "Nov 23 04:53:00 host lognot[471]: ready",
        "Nov 23 04:53:00 host lognot: ready",
        "Nov 23 04:53:00 host xlognot[4711]: ready",
        "Nov 23 04:53:00 host sshd[1]: lognot[4711]: ready",
        "Nov 23 04:53:00 host kernel: lognot[4711]: ready",
        "Nov 23 04:53:00 host sshd[1]: Nov 23 04:53:00 host lognot[4711]: ready",
        "Nov 23 04:53:00 host auth.info lognot[4711]: ready",
        "Nov 23 04:53:00 host  lognot[4711]: ready",
        "<30>1 2023-11-23T04:53:00+01:00 host sshd 4711 - - lognot 4711 - - ready",
        "2023-11-23T04:53:00+00:00 203.0.113.9 lognot 4711 \"POST /wp-login.php\" 401",
        "2023-11-23T04:53:00+00:00 203.0.113.9 lognot 4711 - - ready",
        "<30>2023-11-23T04:53:00+00:00 203.0.113.9 lognot 4711 - - ready",
        "<38>1 2023-11-23T04:53:00+00:00 203.0.113.9 lognot 4711 - - ready",
        "2023-11-23T04:53:00+00:00 203.0.113.9 lognot[4711]:\"POST /wp-login.php\" 401",
        "10.0.0.1 - - [23/Nov/2023:04:53:00 +0100] \"GET /lognot[4711]: HTTP/1.1\" 200",
    ],
)  # fmt: skip
def test_another_line_is_not_taken_for_ours(line: str) -> None:
    assert not OWN.match(line.encode())


HEADERS = st.sampled_from(
    [
        "Nov 23 04:53:00 host sshd[1]: ",
        "Nov 23 04:53:00 host kernel: ",
        "Nov 23 04:53:00 host daemon.info sshd[4711]: ",
        "2023-11-23T04:53:00.1+01:00 host sshd[4711]: ",
        "<30>Nov 23 04:53:00 host su: ",
        "<30>1 2023-11-23T04:53:00.1+01:00 host sshd 4711 - - ",
        "[23/Nov/2023:04:53:00 +0100] ",
    ]
)
PIECES = st.sampled_from(
    [*FORMATS.values(), "lognot[4711]: ", " ", "\r", "\0", "]", ":", "lognot", "daemon.info "]
)


@given(HEADERS, st.lists(PIECES | st.text(max_size=5)))
def test_nothing_that_is_written_into_a_message_makes_it_ours(header: str, pieces: list[str]) -> None:
    text = "".join(pieces).replace("\n", " ")  # syslog daemons write no newline into a line
    assert not OWN.match((header + text).encode("utf-8", "surrogatepass"))


def test_a_long_hostile_header_costs_little() -> None:
    for filler in (
        b"Nov 23 04:53:00" + b" " * 10**6,
        b"2023-11-23T" + b"1" * 10**6,
        b"Nov 23 04:53:00 " + b"x" * 10**6,
    ):
        assert not OWN.match(filler)
