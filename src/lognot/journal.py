"""lognot's own log: journald where it is there, syslog elsewhere, a file or standard output on request.

Only the supervisor writes it (and the command line before there is one). Everything that may come from a
log, a path or a peer is escaped on its way in, so neither a terminal nor the journal ever gets a raw control
character, and one event is one line.

Writing waits for nobody who stands still (outlet.py). What could not be written is counted, and said as soon
as something can be.

Every kind of event has a MESSAGE_ID of its own, fixed for ever (systemd.journal-fields(7)).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import socket
import sys
import syslog
import time
from enum import Enum
from functools import cache
from typing import Protocol, TextIO

from lognot.outlet import Datagrams, Lines
from lognot.shown import counted, printable
from lognot.trust import open_to_append

IDENTIFIER = "lognot"
OWN_TAG = IDENTIFIER.encode()  # in each line that `own_line_pattern` knows; quick to look for
JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"

ERROR = syslog.LOG_ERR  # something was lost
WARNING = syslog.LOG_WARNING  # we carry on, and the text says how
NOTICE = syslog.LOG_NOTICE  # a bound was passed
INFO = syslog.LOG_INFO  # start, stop, reload, rotation, actions
DEBUG = syslog.LOG_DEBUG
_WORDS = {ERROR: "error", WARNING: "warning", NOTICE: "notice", INFO: "info", DEBUG: "debug"}


class Event(Enum):
    """A kind of event; the value is its MESSAGE_ID."""

    STARTED = "51376fc2b2e24a35a5489a6f60257749"
    READY = "c605068cd4ef41edba4c88d21cb52a92"
    STOPPING = "b14a86ce6e9d4718b74785cf1d74d03f"
    STOPPED = "3a72bba4d4bc46b78f4e5430d326e63c"
    RELOADED = "7342a5a185a14e26be99c580485f0b6e"
    CONFIG_REFUSED = "44d494bdd5bf433ba629e1c80c79c675"
    CONFIG_WARNING = "13ef3e3408ef400182c671c5e5e6000c"
    LOG_OPENED = "cc2394e101584b5789cf08d4cbe8df8b"
    LOG_MISSING = "0b81d5cb6f2f46879a231ea3bcf239b7"
    LOG_REFUSED = "7121c479788c40eebc4b9b9d056e7124"
    LOG_ROTATED = "e5ed22c1976c4b7b97090f64f87a59c1"
    LOG_TRUNCATED = "aef864eafd4c4b3c8a87479cdb5af542"
    RESUMED = "c3a7e54106df496b9b9cea8e07d47275"
    RESUME_LOST = "e58cbc28d12d4b8d8fc94f8100c94e80"
    STATE_FAILED = "e05eeba8add646d0a37a196f8b17b048"
    LOG_UNREADABLE = "aa313a985ffe4d42927946f3ead8e96c"
    LOG_LEFT = "fd84dd496aac405287c5172e96188749"
    LINE_CUT = "8d9d462095fb429ba557f11bcccfbb6e"
    LINE_SKIPPED = "eb0bd447c38f4ba6927eedeab8b68751"
    REGEX_LIMITED = "9d25123126eb41759972aa6cf4ee52ae"
    MATCH_FAILED = "741fbbdc2ff64ed890eca20f732a8346"
    KEYS_EVICTED = "452d441db30241bf836df5a398c6cd50"
    QUEUE_OVERFLOW = "feedd78db04a436dbc36b76b66377159"
    ITEM_FIRED = "ed91fd60fa83402ab73894ff44cdac95"
    ACTION_STARTED = "28dc05591bc84034872b6e825b4dd783"
    ACTION_OUTPUT = "1a143d025b584f0b94ae681a064f8c4e"
    ACTION_ENDED = "94b936256e464c69aefa12326b6de750"
    ACTION_FAILED = "ad1590aa550945f780e5907deb3240f5"
    ACTION_TIMEOUT = "835d0fb507f24ae898e49ae4a7131479"
    ACTIONS_DROPPED = "6d1c0f36a5a24f3f8b6a0b3f58b0e9d1"
    ACTION_DELAYED = "0f3a8f0f0d654c0c9b0a5c2d3f7e4b16"
    ROLE_ENDED = "c3e9a1b7d2f84e5fa6b8071c4d9e2f35"
    ROLE_STARTED = "f5b2d8c4917e4a3c8e6d0a7b1f2c3d48"
    ROLE_EXPELLED = "2a7c4e9b8d1f4650b3e8f9a0c6d5b471"
    PRIVILEGES = "9d4b6f1e3c2a4d7fb5a8e0c97f6d3b12"
    RECORDS_DROPPED = "99cc88065666427fbe74e0c800c0ea03"
    SELF_ERROR = "e8c1d7a65b3f4920a4f7c2b9d0e6f583"
    MESSAGES_LOST = "7be04a5f9c1d4f0c8d2b6e3a914f5c07"


class Sink(Protocol):
    """Somewhere that log records go."""

    name: str  # for the sentence that it cannot be written

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Write one record; `fields` have their LOGNOT_ names already.

        Raises:
            OSError: it was not written.
        """

    def reopen(self) -> None:
        """Begin a new file, where there is one."""


class JournaldSink:
    """Native protocol of journald, with fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    sd_journal_send(3) would wait for a journald that is stopped or slow, and we with it.

    Raises:
        OSError: no socket can be had.
    """

    name = "the journal"

    def __init__(self) -> None:
        self._datagrams = Datagrams(JOURNAL_SOCKET)

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Send it with its MESSAGE_ID and fields; no value has a newline."""
        entry = {
            "MESSAGE": message,
            "MESSAGE_ID": event.value,
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "SYSLOG_FACILITY": syslog.LOG_DAEMON >> 3,
            "SYSLOG_PID": os.getpid(),  # the line is recognised when journald hands it to syslog
            **fields,
        }
        self._datagrams.send("".join(f"{name}={value}\n" for name, value in entry.items()).encode())

    def reopen(self) -> None:
        """Nothing to reopen."""


class SyslogSink:
    """The socket of syslog, written as syslog(3) does, which would wait for a daemon that is stopped.

    Raises:
        OSError: no socket can be had.
    """

    name = "syslog"

    def __init__(self) -> None:
        self._datagrams = Datagrams(SYSLOG_SOCKET)
        self._stream: socket.socket | None = None
        self._lines: Lines | None = None

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Send the sentence; syslog knows no fields."""
        header = f"<{syslog.LOG_DAEMON | priority}>{time.strftime('%b %e %H:%M:%S')}"
        record = f"{header} {IDENTIFIER}[{os.getpid()}]: {message}".encode()
        try:
            self._datagrams.send(record)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            self._send_stream(record + b"\0")  # as syslog(3) ends records where the socket is a stream

    def _send_stream(self, record: bytes) -> None:
        if self._stream is None or self._lines is None:
            self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._stream.setblocking(False)
            self._stream.connect(SYSLOG_SOCKET)
            self._lines = Lines(self._stream.fileno())
        try:
            self._lines.write(record)
        except BlockingIOError:
            raise
        except OSError:  # the daemon was restarted: the next record goes to the new one
            self._lines.close()
            self._lines = self._stream = None
            raise

    def reopen(self) -> None:
        """Nothing to reopen."""


class StreamSink:
    """Standard output or standard error, a line a record, in the form that syslog files have."""

    name = "the terminal or pipe"

    def __init__(self, stream: TextIO | None) -> None:
        self._encoding = stream.encoding if stream else ""
        self._lines = Lines(stream.fileno()) if stream else None  # None: it was closed when we were started

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Write a line, unless nobody reads any more."""
        if self._lines is None:
            return
        line = f"{line_of(priority, message)}\n"
        try:
            self._lines.write(line.encode(self._encoding, "backslashreplace"))
        except BrokenPipeError:  # whoever read it is gone, and nobody else can come; the service goes on
            self._lines.close()
            self._lines = None

    def reopen(self) -> None:
        """Nothing to reopen."""


class FileSink:
    """A file of our own, reopened on request after it was rotated.

    Raises:
        OSError: the file cannot be opened for appending.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._fd = self._open()
        self._lines = Lines(self._fd)

    def _open(self) -> int:
        return open_to_append(self.name, 0o640)

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Append a line."""
        self._lines.write(f"{line_of(priority, message)}\n".encode())

    def reopen(self) -> None:
        """Open the path anew, then close the old file."""
        fd = self._open()
        lines = Lines(fd, self._lines.begun)
        self._lines.close()
        os.close(self._fd)
        self._fd, self._lines = fd, lines


class _Outlet:
    """One sink, and what it could not take."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.lost = 0
        self._reason = ""

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        try:
            self.say_lost()
            self.sink.write(event, priority, message, fields)
        except OSError as error:
            self._reason = _reason(error)
            if not self.lost:
                _tell_stderr(f"cannot write {self.sink.name}: {self._reason}")
            self.lost += 1

    def say_lost(self) -> None:
        """Say what could not be written, if there is anything to say.

        Raises:
            OSError: it still cannot be written.
        """
        if self.lost:
            text = f"{counted(self.lost, 'message')} could not be written: {self._reason}"
            self.sink.write(Event.MESSAGES_LOST, ERROR, text, {"LOGNOT_COUNT": str(self.lost)})
            self.lost = 0


def _reason(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return "whoever reads them does not keep up"
    return error.strerror or str(error)


def _tell_stderr(text: str) -> None:
    """Say something where an administrator may see it, if that does not make us wait either."""
    with contextlib.suppress(OSError):
        lines = Lines(2)
        try:
            lines.write(f"{IDENTIFIER}: {printable(text)}\n".encode())
        finally:
            lines.close()


def line_of(priority: int, message: str) -> str:
    """Give a record as a line of text: time, host, identifier with pid, severity, message."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
    return f"{now} {socket.gethostname()} {IDENTIFIER}[{os.getpid()}]: {_WORDS[priority]}: {message}"


class Counting(Protocol):
    """Whoever leaves records out and counts them."""

    def say_left_out(self) -> None:
        """Write how many, and begin to count anew."""


class Journal:
    """What the rest of the program writes to.

    Args:
        sinks: every record goes to each of them.
        verbose: let debug records pass.

    Attributes:
        counting: those who have left something out and not said so yet (quota.py).
    """

    def __init__(self, sinks: tuple[Sink, ...], *, verbose: bool = False) -> None:
        self._outlets = tuple(_Outlet(sink) for sink in sinks)
        self._verbose = verbose
        self.counting: set[Counting] = set()

    def write(self, event: Event, priority: int, message: str, /, **fields: str | bytes | int | None) -> None:
        """Write one record.

        Args:
            event: its kind.
            priority: ERROR to DEBUG.
            message: a whole sentence; escaped here, once more does no harm.
            fields: by their names without LOGNOT_, in lower case; None is left out.
        """
        if priority == DEBUG and not self._verbose:
            return
        record = {
            f"LOGNOT_{name.upper()}": printable(value) if isinstance(value, (str, bytes)) else str(value)
            for name, value in fields.items()
            if value is not None
        }
        text = printable(message)
        for outlet in self._outlets:
            outlet.write(event, priority, text, record)

    @property
    def lost(self) -> int:
        """How many records could not be written so far, and nobody was told."""
        return sum(outlet.lost for outlet in self._outlets)

    def say_lost(self) -> None:
        """Try to say what could not be written; whoever has nothing else to write calls it now and then."""
        for outlet in self._outlets:
            with contextlib.suppress(OSError):
                outlet.say_lost()

    def say_left_out(self) -> None:
        """Say what was left out and not said yet."""
        while self.counting:
            self.counting.pop().say_left_out()

    def reopen(self) -> None:
        """Reopen the log file, after it was rotated.

        Raises:
            OSError: it cannot be opened; the old one stays in use.
        """
        for outlet in self._outlets:
            outlet.sink.reopen()


def open_journal(*, logfile: str | os.PathLike[str] | None, stdout: bool, verbose: bool) -> Journal:
    """Make the journal that the command line asks for.

    Raises:
        OSError: the log file cannot be opened.
    """
    sinks: list[Sink] = []
    if stdout:
        sinks.append(StreamSink(sys.stdout))
    if logfile is not None:
        sinks.append(FileSink(logfile))
    if not sinks:
        sinks.append(_system_log())
    return Journal(tuple(sinks), verbose=verbose)


def _system_log() -> Sink:
    if os.path.exists(JOURNAL_SOCKET):
        return JournaldSink()
    if os.path.exists(SYSLOG_SOCKET):
        return SyslogSink()
    return StreamSink(sys.stderr)


@cache
def own_line_pattern(*pids: int) -> re.Pattern[bytes]:
    """Give a pattern for `match` that knows the lines that lognot has written under one of these pids.

    They must never be reacted to, or one action's record would bring the next. Only the header is looked
    at, in the forms that our sinks and syslog daemons write: a time (RFC 3164 or RFC 3339), at most one word
    for the host, in busybox's files facility and severity, and our tag `lognot[PID]: `; or all of RFC 5424's
    header, with our priority and no message id.

    Whoever merely gets text into another program's message cannot write there, where a syslog daemon writes
    the header. A program that writes a log of its own may begin its lines with a time, one word and then what
    a stranger chose: such a line is taken for ours when that is our tag, pid and colon included.
    """
    date = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?"
    rfc3339 = date + rb"(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
    time = rb"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}|" + rfc3339 + rb")"
    priority = rb"<(?:2[7-9]|3[01])>"  # LOG_DAEMON, and ERROR to DEBUG
    severity = rb"(?: daemon\.(?:err|warn|notice|info|debug))?"
    line = b"(?:" + priority + b")?" + time + rb"(?: [^ ]+)?" + severity + b" " + OWN_TAG
    rfc5424 = priority + b"1 " + rfc3339 + rb" [^ ]+ " + OWN_TAG
    end, number = re.escape(b"]: "), b"(?:" + b"|".join(b"%d" % pid for pid in pids) + b")"
    return re.compile(line + rb"\[" + number + end + b"|" + rfc5424 + b" " + number + b" - ")
