"""Where lognot's own log goes, what is in it, and that lognot never reacts to it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.environment.namespaces import own_mounts
from integration.harness import PYTHON, SOURCE, Service, append, lines_of, wait_for
from integration.processes import Custom, runner
from lognot.journal import Event

Make = Callable[..., Service]

ITEM = '[ITEM]\npath = @/log\nregex = user (.*)\nupbound_action = printf "say %s\\n" "$1"; exit 3\n'
# What a terminal acts on, in bytes and as UTF-8, and a line of lognot's own.
HOSTILE = b"user \x1b[31m\x07\x08\x9b\xc2\x9b\x7f\x00\r\xe2\x80\xae Nov 23 04:53:00 host lognot[1]: forged"
# Every other byte, all of C1 as UTF-8, what turns or hides text, ends of lines that are none, halves of
# surrogate pairs, and what looks like our own escapes.
CODE_POINTS = [
    *range(0x80, 0xA0),
    0xAD,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
]
CODE_POINTS += [
    0x61C,
    0x180E,
    0xD800,
    0xDCFF,
    0xE000,
    0xFEFF,
    0xFFF9,
    0xFFFE,
    0x1D173,
    0xE0001,
    0xE007F,
    0x10FFFF,
]
HOSTILE += bytes(set(range(256)) - {0x0A})
HOSTILE += "".join(map(chr, CODE_POINTS)).encode("utf-8", "surrogatepass") + rb"\x1b[31m\n\u202e"


def assert_clean(data: bytes) -> None:
    """Nothing that a terminal acts on is in there, but newlines."""
    text = data.decode("utf-8")
    assert all(character == "\n" or character.isprintable() for character in text), text
    assert not {ord(character) for character in text} & {*range(0x0A), *range(0x0B, 0x20), 0x7F, *CODE_POINTS}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


# Files and standard output.


def test_the_log_file_has_one_line_for_each_event(service: Make, log: Path) -> None:
    lognot = service(ITEM).start()
    append(log, "user eve\n")
    lognot.wait_log(r"action ended with exit status 3")
    assert lognot.stop() == 0
    header = re.compile(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d "
        rf"{re.escape(socket.gethostname())} lognot\[{lognot.pid}\]: (error|warning|notice|info|debug): .+"
    )
    assert all(header.fullmatch(line) for line in lognot.log.splitlines())
    texts = [line.split("]: ", 1)[1] for line in lognot.log.splitlines()]
    texts = [text for text in texts if "_lognot" not in text and "without root" not in text]
    expected = (
        r"info: started, 1 item in '.*'",
        r"info: executor of \w+ started as pid \d+",
        r"info: monitor started as pid \d+",
        r"info: watching log '.*/log'",
        r"info: ready, watching 1 of 1 logs",
        r"notice: \[ITEM\] fired \(upbound\): a line matched",
        r"debug: \[ITEM\] action started as pid \d+",
        r"info: \[ITEM\] says: say eve",
        r"warning: \[ITEM\] action ended with exit status 3 after \d+\.\d{3} s",
        r"info: stopping on SIGTERM",
        r"info: stopped",
    )
    assert len(texts) == len(expected)
    # The monitor and the executor have nothing to do with each other's order.
    for pattern in expected:
        assert sum(bool(re.fullmatch(pattern, text)) for text in texts) == 1, pattern


def test_standard_output_is_a_log_too(tmp_path: Path, log: Path) -> None:
    lognot = Custom(tmp_path, ITEM, "-s")
    try:
        lognot.start()
        append(log, "user eve\n")
        lognot.wait_log("exit status 3")
        lognot.stop_only()
        times = re.compile(r"^\S+", re.MULTILINE)
        assert times.sub("", lognot.output()) == times.sub("", lognot.log)
    finally:
        lognot.end()


def test_standard_output_alone(tmp_path: Path, log: Path) -> None:
    lognot = Custom(tmp_path, ITEM, "-s")
    lognot.own_log_file = False
    try:
        lognot.start()
        lognot.stop_only()
        assert "info: ready, watching 1 of 1 logs\n" in lognot.output()
        assert not lognot.own_log.exists()
    finally:
        lognot.end()


def test_without_verbose_there_are_no_debug_lines(tmp_path: Path, log: Path) -> None:
    config = tmp_path / "lognot.conf"
    config.write_text(ITEM.replace("@", str(tmp_path)))
    with runner(tmp_path) as run:
        assert run("-c", str(config), "-d", "-l", "own.log").returncode == 0
        append(log, "user eve\n")
        wait_for(lambda: "exit status 3" in (tmp_path / "own.log").read_text(), "the action's end")
    assert ": debug: " not in (tmp_path / "own.log").read_text()


def test_control_characters_of_a_log_reach_no_log_of_ours(tmp_path: Path, log: Path) -> None:
    lognot = Custom(tmp_path, ITEM, "-s", environment={"PYTHONIOENCODING": "ascii"})
    try:
        lognot.start()
        append(log, HOSTILE + b"\nuser \xe6\x97\xa5\xe6\x9c\xac\n")
        lognot.wait_log("exit status 3", 2)
        lognot.stop_only()
        assert_clean(lognot.own_log.read_bytes())
        output = lognot.output()
        assert_clean(output.encode())
        assert "says: say \\x1b[31m\\x07\\x08\\x9b\\x9b\\x7f\\r\\u202e Nov 23" in output
        assert "says: say \\u65e5\\u672c" in output  # what the stream's encoding lacks stops nothing
        assert "says: say 日本" in lognot.log
    finally:
        lognot.end()


def test_retest_prints_nothing_raw(tmp_path: Path) -> None:
    with runner(tmp_path) as run:
        done = run("-T", "user (.*)", data=HOSTILE + b"\n")
        assert done.returncode == 0
        assert_clean(done.stdout)
        done = run("-T", "(", data=b"")
        assert done.returncode == 1
        done = run("-T", "\x1b[31m(", data=b"")
        assert done.returncode == 1
        assert_clean(done.stderr)


def test_test_prints_nothing_raw(tmp_path: Path) -> None:
    (tmp_path / "bad.conf").write_bytes(
        b"[\x1b[31mA]\npath = \x9b\x07/x\n\x1b]0;title\x07 = 1\nregex = (\x1b\n"
    )
    with runner(tmp_path) as run:
        done = run("-t", "bad.conf")
        assert done.returncode == 1
        assert_clean(done.stderr)
        assert_clean(done.stdout)
        assert_clean(run("-c", "bad.conf").stderr)


# A name of a file with every byte that can be in one.
NAME = HOSTILE.replace(b"/", b"").replace(b"\0", b"").replace(b" ", b"")[:255]


def on_terminal(directory: Path, *arguments: bytes, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run lognot on a terminal; give its exit status and what the terminal got."""
    controller, terminal = pty.openpty()
    settings = termios.tcgetattr(terminal)
    settings[1] &= ~termios.OPOST  # bytes as they were written
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
    process = subprocess.Popen(
        [PYTHON, "-m", "lognot", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        cwd=directory,
    )
    os.close(terminal)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    said = b""
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while data := os.read(controller, 65536):
            said += data
    os.close(controller)
    return process.wait(60), said


def test_a_terminal_gets_nothing_raw(tmp_path: Path, log: Path) -> None:
    """Whatever is quoted: arguments, names of files and users, regexes, lines."""
    (tmp_path / "good.conf").write_text(ITEM.replace("@", str(tmp_path)))
    (tmp_path / "bad.conf").write_bytes(
        b"[%s]\n%s\npath = %s\nregex = (%s\nuid = %s\nsize = %s\nupbound_action = '%s\n" % ((HOSTILE,) * 7)
        + b"[b]\npath = /%s/%s\nupbound_action = eval $1 %s\n%s = 1\n" % (NAME, NAME, HOSTILE, HOSTILE)
    )
    (tmp_path / "bad.d").mkdir()
    (tmp_path / "bad.d" / os.fsdecode(NAME[-250:] + b".conf")).write_bytes(HOSTILE)
    argument = HOSTILE.replace(b"\0", b"")
    for status, arguments in (
        (1, [b"-t", b"bad.conf"]),
        (1, [b"-c", b"bad.conf"]),
        (1, [b"-t", argument]),
        (1, [b"-c", argument]),
        (1, [b"-t", b"good.conf", b"-u", argument, b"-g", argument, b"-w", argument]),
        (1, [b"-c", b"good.conf", b"-w", argument]),
        (1, [b"-c", b"good.conf", b"-l", argument]),
        (1, [b"-c", b"good.conf", b"-d", b"-p", argument]),
        (1, [b"-c", b"good.conf", b"-s", b"--exec-socket", argument, b"-l", b"/"]),
        (1, [b"-T", b"(" + argument]),
        (0, [b"-T", b"[^y]*"]),
        (2, [argument]),
        (2, [b"-t", b"x", b"-T", argument]),
        (2, [b"--" + argument]),
        (2, [b"-s\x9b" + argument]),
    ):
        found, said = on_terminal(tmp_path, *arguments, stdin=HOSTILE + b"\n")
        assert (found, bool(said)) == (status, True), (arguments, said)
        assert_clean(said)


# lognot's own lines in a log that it watches.


def foreign_and_own(lognot: Service, watched: Path, write: Callable[[str], None]) -> None:
    """Hold that of all that is written to `watched`, only the foreign lines are reacted to.

    Lines are handled in order: when the last foreign one has fired, all own ones before it were judged.
    """
    for number in range(1, 5):
        write(f"foreign {number}")
        lognot.wait_log("action ended with exit status 0", number)
    wait_for(
        lambda: watched.read_text().count("action ended with exit status 0") >= 4, "own lines in the log"
    )
    write("foreign 5")
    lognot.wait_log("action ended with exit status 0", 5)
    lognot.wait_log(r"fired \(upbound\)", 5)  # the monitor says that, and may be heard after the executor
    fired = [line for line in lognot.log.splitlines() if "fired (upbound)" in line]
    assert len(fired) == 5, lognot.log


def test_its_own_log_file_may_be_watched(service: Make, tmp_path: Path) -> None:
    (tmp_path / "own.log").touch()
    lognot = service("[SELF]\npath = @/own.log\nregex = .*\nupbound_action = true\n").start()
    foreign_and_own(lognot, lognot.own_log, lambda text: append(lognot.own_log, f"{text}\n"))


def test_its_own_log_file_may_be_watched_by_many_items(service: Make, tmp_path: Path) -> None:
    """And what their actions print comes back in it too."""
    (tmp_path / "own.log").touch()
    item = "[SELF{}]\npath = @/own.log\nregex = (?s).*\nusecrc = {}\nupbound_action = echo foreign $0\n"
    lognot = service("".join(item.format(number, number % 2) for number in range(6))).start()
    append(lognot.own_log, "foreign\n")
    lognot.wait_log("action ended with exit status 0", 6)
    append(lognot.own_log, "foreign\n")
    lognot.wait_log("action ended with exit status 0", 12)
    lognot.wait_log(r"fired \(upbound\)", 12)
    assert len([line for line in lognot.log.splitlines() if "fired (upbound)" in line]) == 12


class FakeSyslog:
    """A syslog daemon: takes what comes on a socket and writes it to a file as rsyslog does."""

    def __init__(self, path: Path, file: Path, form: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        path.chmod(0o666)
        self._file = file
        self._form = form
        self._end, self._told = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._sock, self._end], [], [])
            if self._sock in ready:
                self.write(self._sock.recv(65536).decode())
            elif self._end in ready:
                return

    def write(self, packet: str) -> None:
        """What syslog(3) sends: `<30>Nov 23 04:53:00 tag: text`."""
        match = re.fullmatch(r"<(\d+)>([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (.*)", packet.rstrip("\n\0"))
        assert match, packet
        if self._form == "RFC 3164":
            line = f"{match[2]} host {match[3]}"
        elif self._form == "busybox":
            words = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
            line = f"{match[2]} host daemon.{words[int(match[1]) & 7]} {match[3]}"
        else:
            line = f"2023-11-23T04:53:00.123456+01:00 host {match[3]}"
        append(self._file, f"{line}\n")

    def close(self) -> None:
        self._told.close()
        self._thread.join()
        self._end.close()
        self._sock.close()


def in_namespace(tmp_path: Path) -> list[str]:
    """A command prefix: a mount namespace whose /dev has our own `log`, and whose /run is `run` here."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "run").mkdir()
    binds = []
    for name in ("null", "zero", "full", "urandom", "random"):
        (tmp_path / "dev" / name).touch()
        binds.append(f"mount --bind /dev/{name} {tmp_path}/dev/{name}")
    (tmp_path / "dev" / "fd").symlink_to("/proc/self/fd")
    return own_mounts(
        " && ".join([*binds, f"mount --rbind {tmp_path}/dev /dev", f"mount --bind {tmp_path}/run /run"])
    )


@pytest.mark.root
@pytest.mark.parametrize("form", ["RFC 3164", "RFC 3339", "busybox"])
def test_syslog_where_there_is_no_journald(tmp_path: Path, form: str) -> None:
    watched = tmp_path / "messages"
    watched.touch()
    lognot = Custom(
        tmp_path, "[SELF]\npath = @/messages\nregex = .*\nupbound_action = printf '%s\\n' $0; false\n"
    )
    lognot.prefix = in_namespace(tmp_path)
    lognot.own_log_file = False
    lognot.own_log = watched  # where `wait_log` looks
    daemon = FakeSyslog(tmp_path / "dev" / "log", watched, form)
    try:
        lognot.start()
        tag = f"lognot[{lognot.pid}]: "
        lognot.wait_log(re.escape(tag) + "started, 1 item")
        lognot.wait_log(re.escape(tag) + "ready, watching 1 of 1 logs")
        # Its own lines are there; only others are reacted to, each once.
        for number in range(1, 4):
            daemon.write(f"<38>Nov 23 04:53:00 sshd[{lognot.pid}]: {tag}forged {number}")
            lognot.wait_log("action ended with exit status 1", number)
        lognot.wait_log(r"fired \(upbound\)", 3)
        fired = [line for line in lines_of(watched) if "fired (upbound)" in line]
        assert len(fired) == 3
        append(watched, HOSTILE + b"\n")
        wait_for(
            lambda: watched.read_bytes().count(b"action ended with exit status 1") == 4, "the action's end"
        )
        lognot.stop_only()
        wait_for(lambda: f"{tag}stopped".encode() in watched.read_bytes(), "the end")
        written = watched.read_bytes().replace(HOSTILE, b"")
        assert b"[SELF] says: user \\x1b[31m" in written
        assert_clean(written)
    finally:
        lognot.end()
        daemon.close()


def native(packet: bytes) -> dict[str, bytes]:
    """The fields of an entry in journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    found = {}
    while packet:
        head, _, rest = packet.partition(b"\n")
        if b"=" in head:
            name, _, value = head.partition(b"=")
            packet = rest
        else:
            name = head
            (length,) = struct.unpack_from("<Q", rest)
            value, packet = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[name.decode()] = value
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[tuple[Custom, Callable[[], list[dict[str, bytes]]]]]:
    """A service whose system log is a fake journald, and a function that gives all entries so far."""
    lognot = Custom(tmp_path, ITEM + "upbound_freq = 1/300\nusecrc = yes\n")
    lognot.prefix = in_namespace(tmp_path)
    lognot.own_log_file = False
    directory = tmp_path / "run" / "systemd" / "journal"
    directory.mkdir(parents=True)
    entries: list[dict[str, bytes]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        here = os.open(directory, os.O_PATH)  # sun_path has room for 107 bytes only
        sock.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        (directory / "socket").chmod(0o666)
        sock.setblocking(False)

        def read() -> list[dict[str, bytes]]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    entries.append(native(sock.recv(1 << 20)))
            return entries

        try:
            yield lognot, read
        finally:
            lognot.end()


def of(entries: list[dict[str, bytes]], event: Event) -> list[dict[str, bytes]]:
    return [entry for entry in entries if entry["MESSAGE_ID"] == event.value.encode()]


@pytest.mark.root
def test_the_journal_gets_fields(
    journald: tuple[Custom, Callable[[], list[dict[str, bytes]]]], log: Path
) -> None:
    lognot, read = journald
    lognot.start()
    append(log, HOSTILE + b"\n" + HOSTILE + b"\n")
    wait_for(lambda: of(read(), Event.ACTION_FAILED), "the action's end")
    lognot.stop_only()
    wait_for(lambda: of(read(), Event.STOPPED), "the last entry")
    entries = read()
    for entry in entries:
        for name, value in entry.items():
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
            assert_clean(value)
            assert b"\n" not in value
        assert entry["SYSLOG_IDENTIFIER"] == b"lognot"
        assert entry["SYSLOG_PID"] == str(lognot.pid).encode()
        assert entry["SYSLOG_FACILITY"] == b"3"
        assert not {name for name in entry if name.startswith("CODE_")}
    for event in (Event.STARTED, Event.READY, Event.STOPPING, Event.LOG_OPENED, Event.ACTION_STARTED):
        assert len(of(entries, event)) == 1, event.name
    assert len(of(entries, Event.ROLE_STARTED)) == 2

    [fired] = of(entries, Event.ITEM_FIRED)
    shown = HOSTILE.decode("utf-8", "surrogateescape")
    assert fired["PRIORITY"] == b"5"
    assert fired["MESSAGE"] == b"[ITEM] fired (upbound): 2 matches in 300 s, more than 1 are the bound"
    assert fired["LOGNOT_ITEM"] == b"ITEM"
    assert fired["LOGNOT_PATH"] == str(log).encode()
    assert fired["LOGNOT_KIND"] == b"upbound"
    assert fired["LOGNOT_COUNT"] == b"2"
    assert fired["LOGNOT_LINE"].startswith(b"user \\x1b[31m\\x07\\x08\\x9b\\x9b\\x7f\\x00\\r\\u202e Nov 23")
    assert fired["LOGNOT_KEY"] == fired["LOGNOT_LINE"]
    assert len(fired["LOGNOT_LINE"]) > len(shown)

    [failed] = of(entries, Event.ACTION_FAILED)
    assert failed["PRIORITY"] == b"4"
    assert failed["LOGNOT_ITEM"] == b"ITEM"
    assert failed["LOGNOT_STATUS"] == b"3"
    assert int(failed["LOGNOT_PID"]) > 1
    assert int(failed["LOGNOT_DURATION_MS"]) >= 0
    [output] = of(entries, Event.ACTION_OUTPUT)
    assert output["MESSAGE"].startswith(b"[ITEM] says: say \\x1b[31m")


@pytest.mark.root
def test_the_journal_and_the_manager_get_nothing_raw(
    journald: tuple[Custom, Callable[[], list[dict[str, bytes]]]], log: Path, tmp_path: Path
) -> None:
    """Whatever is quoted, besides lines: names of items and logs, problems of a config at a reload."""
    lognot, read = journald
    place = os.fsencode(tmp_path)
    item = b"\n[\xc3\xa9\xe2\x80\x8b-]\npath = %s/%s\n[two]\npath = %s/log\n" % (place, NAME, place)
    config = ITEM.replace("@", str(tmp_path)).encode() + b"[b]\nregex = %s\npath = %s/%s\n" % (
        b"user [^\\n]*",
        place,
        NAME,
    )
    lognot.config_path.write_bytes(config)
    (tmp_path / os.fsdecode(NAME)).touch()
    lognot.start()
    append(tmp_path / os.fsdecode(NAME), HOSTILE + b"\n")
    append(log, HOSTILE + b"\n")
    wait_for(lambda: of(read(), Event.ACTION_FAILED), "the action's end")
    (tmp_path / os.fsdecode(NAME)).unlink()
    wait_for(lambda: of(read(), Event.LOG_MISSING), "the missing log")

    def said() -> list[bool]:
        return [b"config not reloaded" in entry["MESSAGE"] for entry in read()]

    for broken in (config + item, config + b"[%s]\n%s\nuid = %s\nsize = %s\n" % ((HOSTILE,) * 4)):
        before = said().count(True)
        lognot.config_path.write_bytes(broken)
        lognot.signal(signal.SIGUSR1)
        wait_for(lambda before=before: said().count(True) > before, "the refusal")
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (lognot.pid, *lognot.children())]
    lognot.stop_only()
    wait_for(lambda: of(read(), Event.STOPPED), "the last entry")
    for entry in read():
        for value in entry.values():
            assert_clean(value)
            assert b"\n" not in value
    for command in commands:
        assert_clean(command.rstrip(b"\0"))
    assert any(line.startswith("STATUS=") for line in lognot.notifications)
    assert_clean("\n".join(lognot.notifications).encode())


@pytest.mark.root
def test_a_journald_that_is_gone_stops_nothing(
    journald: tuple[Custom, Callable[[], list[dict[str, bytes]]]], log: Path, tmp_path: Path
) -> None:
    lognot, read = journald
    lognot.write_config("[ITEM]\npath = @/log\nregex = (\\w+)$\nupbound_action = echo $1 >> @/out\n")
    lognot.start()
    (tmp_path / "run" / "systemd" / "journal" / "socket").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:  # its name is there, but nobody behind it
        here = os.open(tmp_path / "run" / "systemd" / "journal", os.O_PATH)
        dead.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    for number in range(1, 4):
        append(log, f"word{number}\n")
        wait_for(lambda number=number: len(lines_of(tmp_path / "out")) == number, "the action")
    assert lognot.stop() == 0
    assert read()


# A log that cannot be written.


@pytest.mark.parametrize("path", ["absent/own.log", "."])
def test_a_log_file_that_cannot_be_opened_is_a_clear_error(tmp_path: Path, log: Path, path: str) -> None:
    (tmp_path / "lognot.conf").write_text(ITEM.replace("@", str(tmp_path)))
    with runner(tmp_path) as run:
        done = run("-c", "lognot.conf", "-l", path)
        assert done.returncode == 1
        assert done.stderr.startswith(b"lognot: not started: ")
        assert b"Traceback" not in done.stderr


def test_a_reader_of_standard_output_that_goes_stops_nothing(tmp_path: Path, log: Path) -> None:
    lognot = Custom(tmp_path, ITEM, "-s")
    try:
        lognot.start()
        assert lognot.process is not None
        assert lognot.process.stdout is not None
        lognot.process.stdout.close()
        append(log, "user eve\n")
        lognot.wait_log("exit status 3")
        begin = time.monotonic()
        lognot.stop_only()
        assert time.monotonic() - begin < 10
    finally:
        lognot.end()
