"""lognot's own log: journald where it is there, syslog elsewhere, a file or standard output on request.

Only the supervisor writes it (and the command line before there is one). Everything that may come from a
log, a path or a peer is escaped on its way in, so neither a terminal nor the journal ever gets a raw control
character, and one event is one line.

Every kind of event has a MESSAGE_ID of its own, fixed for ever (systemd.journal-fields(7)).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import sys
import syslog
from enum import Enum
from typing import Protocol, TextIO

from lognot.shown import printable

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
    LOG_UNREADABLE = "aa313a985ffe4d42927946f3ead8e96c"
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
    SELF_ERROR = "e8c1d7a65b3f4920a4f7c2b9d0e6f583"


class Sink(Protocol):
    """Somewhere that log records go."""

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Write one record; `fields` have their LOGNOT_ names already."""

    def reopen(self) -> None:
        """Begin a new file, where there is one."""


class JournaldSink:
    """Native protocol of journald, with fields."""

    def __init__(self) -> None:
        from systemd import journal  # only where it is used: it costs 1 MB

        self._send = journal.sendv  # journal.send would add where in our source it was called

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Send it with its MESSAGE_ID and fields; while there is no journald, nobody hears it."""
        with contextlib.suppress(OSError):
            self._send(
                f"MESSAGE={message}",
                f"MESSAGE_ID={event.value}",
                f"PRIORITY={priority}",
                f"SYSLOG_IDENTIFIER={IDENTIFIER}",
                f"SYSLOG_FACILITY={syslog.LOG_DAEMON >> 3}",
                f"SYSLOG_PID={os.getpid()}",  # the line is recognised when journald hands it to syslog
                *(f"{name}={value}" for name, value in fields.items()),
            )

    def reopen(self) -> None:
        """Nothing to reopen."""


class SyslogSink:
    """syslog(3)."""

    def __init__(self) -> None:
        syslog.openlog(IDENTIFIER, syslog.LOG_PID, syslog.LOG_DAEMON)

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Send the sentence; syslog knows no fields."""
        syslog.syslog(priority, message)

    def reopen(self) -> None:
        """Nothing to reopen."""


class StreamSink:
    """Standard output or standard error, a line a record, in the form that syslog files have."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: it was closed when we were started

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Write a line, unless nobody reads any more."""
        if self._stream is None:
            return
        try:
            self._stream.write(f"{line_of(priority, message)}\n")
            self._stream.flush()
        except (OSError, ValueError):  # whoever read it is gone; the service goes on
            _silence(self._stream)
            self._stream = None

    def reopen(self) -> None:
        """Nothing to reopen."""


def _silence(stream: TextIO) -> None:
    """Lead a broken stream nowhere: the interpreter flushes it at its end, and would exit with status 120."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, stream.fileno())
        os.close(null)


class FileSink:
    """A file of our own, reopened on request after it was rotated.

    Raises:
        OSError: the file cannot be opened for appending.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def write(self, event: Event, priority: int, message: str, fields: dict[str, str]) -> None:
        """Append a line."""
        data = f"{line_of(priority, message)}\n".encode()
        try:
            os.write(self._fd, data)
        except OSError as error:  # the disk is full: watching goes on, and somebody may read this
            with contextlib.suppress(OSError, ValueError):
                print(f"{IDENTIFIER}: cannot write {self._path}: {error.strerror}", file=sys.stderr)

    def reopen(self) -> None:
        """Open the path anew, then close the old file."""
        fd = self._open()
        os.close(self._fd)
        self._fd = fd


def line_of(priority: int, message: str) -> str:
    """Give a record as a line of text: time, host, identifier with pid, severity, message."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
    return f"{now} {socket.gethostname()} {IDENTIFIER}[{os.getpid()}]: {_WORDS[priority]}: {message}"


class Journal:
    """What the rest of the program writes to.

    Args:
        sinks: every record goes to each of them.
        verbose: let debug records pass.
    """

    def __init__(self, sinks: tuple[Sink, ...], *, verbose: bool = False) -> None:
        self._sinks = sinks
        self._verbose = verbose

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
        for sink in self._sinks:
            sink.write(event, priority, text, record)

    def reopen(self) -> None:
        """Reopen the log file, after it was rotated.

        Raises:
            OSError: it cannot be opened; the old one stays in use.
        """
        for sink in self._sinks:
            sink.reopen()


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
        try:
            return JournaldSink()
        except ImportError:  # no python3-systemd: journald reads the syslog socket too
            pass
    if os.path.exists(SYSLOG_SOCKET):
        return SyslogSink()
    return StreamSink(sys.stderr)


def own_line_pattern(pid: int) -> re.Pattern[bytes]:
    """Give a pattern for `match` that knows the lines that the lognot of this pid has written itself.

    They must never be reacted to, or one action's record would bring the next. Only the header is looked
    at: a time (RFC 3164 or RFC 3339), at most one word for the host, in busybox's files facility and
    severity, and our tag (RFC 5424 has the pid behind a space). Whoever merely gets text into another
    program's message cannot write there.
    """
    time = rb"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,+Z-]+)"
    priority = rb"(?:<[0-9]{1,3}>(?:1 )?)?"
    severity = rb"(?: daemon\.(?:err|warn|notice|info|debug))?"
    tag = OWN_TAG + f"(?:\\[{pid}\\]:| {pid} )".encode()
    return re.compile(priority + time + rb"(?: [^ ]+)?" + severity + b" " + tag)
