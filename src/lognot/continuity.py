"""What a restart goes on from: loaded when the service starts, saved as long as it runs. Supervisor only.

There are two places. Memory (roll.py) is exact at every instant, and gone after a reboot. A file in the state
directory (state.py) is written when something has changed, atomically and to the disk, at most every few
seconds; it is what is left after a reboot or a loss of power, and a line or two may then be read again. For a
log that has lost its own end then, it has an older place, too (anchors.py).

Neither can keep lognot from running: what is damaged is reported and set aside, what cannot be written is
reported and tried again.
"""

from __future__ import annotations

import fcntl
import os
import stat
from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from collections.abc import Callable, Mapping
from contextlib import suppress

from lognot.anchors import Anchors
from lognot.errors import StateError
from lognot.journal import ERROR, INFO, WARNING, Event, Journal
from lognot.ledger import NOT_BEGUN, Ledger, Position
from lognot.loop import Loop, Timer
from lognot.roll import NO_KEY, SECRET_BYTES, Roll, log_digest
from lognot.settings import Config
from lognot.state import KEY_BYTES, MAX_PIDS, SavedLogs, SavedStream, State, state_from_json, state_to_json
from lognot.trust import make_directory

STATE_FILE = "state.json"
NEW_FILE = "state.json.new"
DAMAGED_FILE = "state.json.damaged"
LOCK_FILE = "lock"
MAX_STATE_BYTES = 64 * 1024**2  # of every log that a config can name, with the longest paths
SAVE_AFTER_S = 5.0  # what a loss of power makes lognot read again


def wants_resume(config: Config) -> bool:
    """Say whether anything is to be kept over a restart."""
    return any(item.resume for item in config.items)


def state_directory(config: Config, environment: Mapping[str, str]) -> str:
    """Give the directory for the state file (systemd.exec(5), StateDirectory=; XDG Base Directory)."""
    if config.state_dir:
        return config.state_dir
    if given := environment.get("STATE_DIRECTORY", "").partition(":")[0]:
        return given
    if os.geteuid() == 0:
        return "/var/lib/lognot"
    home = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "lognot")


def runtime_directory(environment: Mapping[str, str]) -> str | None:
    """Give the directory for what is gone after a reboot, None where there is none."""
    if given := environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return given
    if os.geteuid() == 0:
        return "/run/lognot"
    given = environment.get("XDG_RUNTIME_DIR", "")
    return os.path.join(given, "lognot") if given else None


def forget(directory: str, paths: set[str], journal: Journal) -> None:
    """Have no later service go on with these logs from where one before us ended.

    They are read without that now, so their lines would be handled twice. Nothing is made for it, and what
    is not ours is left alone.
    """
    if not os.path.lexists(os.path.join(directory, STATE_FILE)):
        return
    try:
        continuity = Continuity(directory, journal)
    except StateError:  # another lognot's, or one that we would refuse to go on from
        return
    except OSError as error:
        _say_not_forgotten(f"the state directory '{directory}'", error, journal)
        return
    try:
        continuity.forget(paths)
    finally:
        continuity.close()


def _say_not_forgotten(name: str, error: OSError, journal: Journal) -> None:
    text = (
        f"{name} cannot be changed: {error.strerror}; lines that are read now without 'resume' "
        "will be handled again once it is turned on"
    )
    journal.write(Event.STATE_FAILED, ERROR, text)


class Continuity:
    """The state of one service.

    Args:
        directory: for the state file; made where it is not there.
        journal: our own log.

    Attributes:
        ledger: None without memory that outlives the service.
        roll: the same.
        numbers: of items of the last service, by what they are, whose counts are in the ledger.
        pids: of this service and of those before it, the newest first.

    Raises:
        OSError: the directory cannot be had.
        StateError: another service uses it, or another user could change what is in it.
    """

    def __init__(self, directory: str, journal: Journal) -> None:
        self.ledger: Ledger | None = None
        self.roll: Roll | None = None
        self.numbers: dict[bytes, int] = {}
        self.pids: tuple[int, ...] = (os.getpid(),)
        self._path = directory
        self._name = f"the state file '{directory}/{STATE_FILE}'"
        self._journal = journal
        self._key = os.urandom(KEY_BYTES)
        self._anchors = Anchors()
        self._saved = b""  # what the state file holds
        self._trouble = ""
        self._loop: Loop | None = None
        self._positions: Callable[[], SavedLogs] | None = None
        self._timer: Timer | None = None
        self._again = False
        refused = make_directory(directory, 0o700)
        if refused:
            raise StateError(f"the state directory '{directory}' is refused as root: {refused}")
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = -1
        try:
            self._take_directory(directory)
        except BaseException:
            self.close()
            raise

    def _take_directory(self, directory: str) -> None:
        status = os.fstat(self._directory)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StateError(
                f"another user can write to the state directory '{directory}'; "
                "expected one that belongs to the user who starts lognot, with mode 0700"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(LOCK_FILE, flags, 0o600, dir_fd=self._directory)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"the state directory '{directory}' is in use by another lognot; expected another state_dir"
            ) from None

    def close(self) -> None:
        """Let another service have it."""
        os.close(self._directory)
        if self._lock >= 0:
            os.close(self._lock)
        if self.roll is not None:
            self.roll.close()

    # At the start.

    def load(self, runtime: str | None, paths: set[str]) -> SavedLogs:
        """Give what the last service left about these logs.

        Args:
            runtime: the directory for memory that outlives the service, made where it is not there; None:
                without such memory.
            paths: the logs that are to go on.
        """
        state, damaged = self._read()
        self._use_memory(runtime)
        roll = self.roll
        if roll is not None and self.ledger is not None:
            if any(roll.key) and (damaged or (state is not None and state.key in (roll.key, roll.earlier))):
                self._key, self.ledger.secret = roll.key, roll.secret
                self.numbers = roll.items()
                return self._from_memory(roll, self.ledger, paths)
            self.ledger.secret = os.urandom(SECRET_BYTES)
            roll.begin(self._key, self.ledger.secret, state.key if state else NO_KEY)
        return {path: streams for path, streams in state.logs.items() if path in paths} if state else {}

    def forget(self, paths: set[str]) -> None:
        """Let nobody go on with these logs; instead of `load`."""
        state, _ = self._read()
        if state is None:
            return
        kept = {path: streams for path, streams in state.logs.items() if path not in paths}
        if kept and len(kept) == len(state.logs):
            return
        try:
            if kept:  # under a new key: what is in memory names the others, too
                self._write(state_to_json(State(self._key, kept, state.pids)))
            else:
                os.unlink(STATE_FILE, dir_fd=self._directory)
        except OSError as error:
            _say_not_forgotten(self._name, error, self._journal)

    def _use_memory(self, runtime: str | None) -> None:
        if runtime is None:
            return
        name = blake2b(os.fsencode(os.path.realpath(self._path)), digest_size=8).hexdigest()
        try:
            os.makedirs(runtime, 0o755, exist_ok=True)
            self.roll = Roll(os.path.join(runtime, f"ledger-{name}"))
        except (OSError, StateError) as error:
            text = f"resume goes on from what is saved every {SAVE_AFTER_S:g} s, and is not exact: {error}"
            self._journal.write(Event.STATE_FAILED, WARNING, text)
            return
        self.ledger = Ledger(self.roll.ledger)
        self.ledger.complete_commit()  # of a monitor that was killed meanwhile

    def _from_memory(self, roll: Roll, ledger: Ledger, paths: set[str]) -> SavedLogs:
        digests = {log_digest(path): path for path in paths}
        found: dict[str, dict[tuple[int, int], SavedStream]] = {}
        for entry in sorted(roll.slots(), key=lambda entry: entry.stream_id):
            position = ledger.position(entry.slot)
            path = digests.get(entry.log)
            if path is None or position.stream_id != entry.stream_id:
                roll.clear(entry.slot)
                continue
            if position.offset == NOT_BEGUN:
                if not entry.from_begin:
                    roll.clear(entry.slot)
                    continue
                position = Position(entry.stream_id)
            # One that was killed while it went on may have noted a file twice: the newer one counts, and the
            # older one must not come back when that is gone.
            older = found.setdefault(path, {}).get(entry.identity)
            if older is not None:
                roll.clear(older.slot)
            found[path][entry.identity] = SavedStream(entry.identity, position, entry.slot)
        return {path: tuple(streams.values()) for path, streams in found.items()}

    def _read(self) -> tuple[State | None, bool]:
        """Give what the state file says, and whether there was one that cannot be used."""
        try:
            fd = os.open(
                STATE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory
            )
            with open(fd, "rb") as file:
                data = file.read(MAX_STATE_BYTES + 1)
            if len(data) > MAX_STATE_BYTES:
                raise StateError("is too large")
            state = state_from_json(data)
        except FileNotFoundError:
            return None, False
        except (OSError, StateError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            text = f"{self._name} cannot be used and is set aside as {DAMAGED_FILE}: {why}"
            self._journal.write(Event.STATE_FAILED, ERROR, text)
            with suppress(OSError):
                os.replace(STATE_FILE, DAMAGED_FILE, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            return None, True
        self._saved = data
        self._anchors.restore(state.logs)
        self.pids = tuple(dict.fromkeys((*self.pids, *state.pids)))[:MAX_PIDS]
        return state, False

    # While it runs.

    def use(self, loop: Loop, positions: Callable[[], SavedLogs]) -> None:
        """Save from now on what `positions` gives."""
        self._loop = loop
        self._positions = positions

    def keep_numbers(self, numbers: Mapping[bytes, int]) -> None:
        """Keep the counts of these items."""
        if self.roll is not None:
            self.roll.put_items(numbers)

    def note_positions(self) -> None:
        """Take note of where reading begins: the first that is saved has an older place, too."""
        if self._positions is not None:
            self._anchors.attach(self._positions())

    def save_later(self) -> None:
        """Save before long: something has changed."""
        if self._timer is not None:
            self._again = True
        elif self._loop is not None:
            self._timer = self._loop.call_later(SAVE_AFTER_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.save()
        if self._again:  # what was read after that was said is not in what was just saved
            self._again = False
            self.save_later()

    def save(self) -> None:
        """Save now, unless nothing has changed."""
        if self._positions is None:
            return
        data = state_to_json(State(self._key, self._anchors.attach(self._positions()), self.pids))
        if data == self._saved:
            return
        try:
            self._write(data)
        except OSError as error:
            text = f"{self._name} cannot be written, the old one stays: {error.strerror}"
            if text != self._trouble:
                self._journal.write(Event.STATE_FAILED, ERROR, text)
            self._trouble = text
            self.save_later()
            return
        self._saved = data
        if self.roll is not None:
            self.roll.forget_earlier()
        if self._trouble:
            self._trouble = ""
            text = f"{self._name} is written again"
            self._journal.write(Event.STATE_FAILED, INFO, text)

    def _write(self, data: bytes) -> None:
        """Replace the state file: there is the old one or the new one at any moment, also on the disk."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(NEW_FILE, flags, 0o600, dir_fd=self._directory)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.replace(NEW_FILE, STATE_FILE, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            with suppress(OSError):
                os.unlink(NEW_FILE, dir_fd=self._directory)
            raise
        os.fsync(self._directory)
