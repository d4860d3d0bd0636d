"""lognot's own log: what it looks like, where it goes, and how its lines are known again."""

from __future__ import annotations

import ast
import datetime
import io
import os
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import journal
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
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.records: list[tuple[Event, int, str, dict[str, str]]] = []

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
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
    stream = io.StringIO()
    Journal((StreamSink(stream),)).write(Event.STARTED, INFO, message)
    assert len(stream.getvalue().splitlines()) == 1


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


def test_a_full_disk_does_not_stop_us(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal((FileSink(Path("/dev/full")),))
    log.write(Event.STARTED, INFO, "lost")
    assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err
    broken = io.StringIO()
    broken.close()
    monkeypatch.setattr("sys.stderr", broken)
    log.write(Event.STARTED, INFO, "nobody to tell")


def test_the_name_of_a_file_is_not_printed_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own\x1b[31m.log").symlink_to("/dev/full")
    Journal((FileSink(tmp_path / "own\x1b[31m.log"),)).write(Event.STARTED, INFO, "lost")
    assert f"cannot write {tmp_path}/own\\x1b[31m.log: No space left" in capsys.readouterr().err


def test_a_stream_that_nobody_reads_does_not_stop_us() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    log = Journal((StreamSink(stream),))
    log.write(Event.STARTED, INFO, "lost")
    log.write(Event.STARTED, INFO, "lost too")
    stream.close()  # what it still holds goes nowhere: an error here would be the exit status of lognot
    Journal((StreamSink(None),)).write(Event.STARTED, INFO, "closed from the start")


def test_the_journal_gets_fields_and_its_absence_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("systemd.journal")
    sink = JournaldSink()
    sent: list[tuple[str, ...]] = []
    monkeypatch.setattr(sink, "_send", lambda *fields: sent.append(fields))
    sink.write(Event.READY, WARNING, "it = so", {"LOGNOT_ITEM": "A=B"})
    assert set(sent[0]) == {
        "MESSAGE=it = so",
        f"MESSAGE_ID={Event.READY.value}",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=lognot",
        "SYSLOG_FACILITY=3",
        f"SYSLOG_PID={os.getpid()}",
        "LOGNOT_ITEM=A=B",
    }

    def refuse(*fields: str) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(sink, "_send", refuse)
    sink.write(Event.READY, WARNING, "nobody is there", {})


def kinds(log: Journal) -> list[type]:
    return [type(sink) for sink in log._sinks]


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
    monkeypatch.setitem(__import__("sys").modules, "systemd", None)
    assert go() == [SyslogSink]
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
