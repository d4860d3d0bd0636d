"""What the processes say to each other: one frozen dataclass per message, pure encode and decode.

A message travels as one type byte and then its fields in order; what each field may hold is written beside
it. `decode` is strict: an unknown type, a type that this peer may not send, a field over its limit, or a
byte too few or too many is a ProtocolError, since no honest peer of ours sends that. Nothing on the wire
names a path or a command: files, items and executors are numbers that the supervisor has given out.

A descriptor can go with a message whose `fds` is 1 (unix(7), SCM_RIGHTS); the channel carries it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

from lognot.errors import ProtocolError

MAX_NAME_BYTES = 255  # NAME_MAX of Linux
MAX_WATCHES = 4096  # directories that one path may lead through, symbolic links included
MAX_QUOTE_BYTES = 4096  # log text that goes into our own log: enough to recognise the line
MAX_GROUPS = 65536  # PCRE numbers groups up to 65535
MAX_ITEMS = 4096
UNKNOWN_STATUS = 0xFFFFFFFF
MAX_LINE_BYTES = 16 * 1024 * 1024  # the largest max_line that a config may set

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_PAIR = struct.Struct(">II")
_NONE = 0xFFFFFFFF  # stands for -1 in a span: a group that took no part


class _Reader:
    """Takes fields off an encoded message, front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1  # behind the type byte

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise ProtocolError("message is too short")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self) -> int:
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def end(self) -> None:
        if self._at != len(self._data):
            raise ProtocolError("message is too long")


class _Codec(NamedTuple):
    """How one field is written and read."""

    put: Callable[[Any], bytes]
    get: Callable[[_Reader], Any]


def _bounded(value: int, limit: int) -> int:
    if value > limit:
        raise ProtocolError(f"{value} is over the limit of {limit}")
    return value


def _u32() -> Any:
    """An unsigned number below 2**32."""
    return field(metadata={"codec": _Codec(_U32.pack, _Reader.number)})


def _u64() -> Any:
    """An unsigned number below 2**64."""
    return field(metadata={"codec": _Codec(_U64.pack, lambda reader: _U64.unpack(reader.take(8))[0])})


def _flag() -> Any:
    """True or False, nothing else."""

    def get(reader: _Reader) -> bool:
        return bool(_bounded(reader.take(1)[0], 1))

    return field(metadata={"codec": _Codec(lambda value: bytes((bool(value),)), get)})


def _data(limit: int) -> Any:
    """Bytes, at most `limit` of them."""

    def put(value: bytes) -> bytes:
        return _U32.pack(_bounded(len(value), limit)) + value

    def get(reader: _Reader) -> bytes:
        return reader.take(_bounded(reader.number(), limit))

    return field(metadata={"codec": _Codec(put, get)})


def _choice(kind: type[IntEnum]) -> Any:
    """A member of an IntEnum."""

    def get(reader: _Reader) -> IntEnum:
        try:
            return kind(reader.take(1)[0])
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    return field(metadata={"codec": _Codec(lambda value: bytes((value,)), get)})


def _numbers(limit: int) -> Any:
    """A tuple of numbers below 2**32, at most `limit` of them."""

    def put(value: tuple[int, ...]) -> bytes:
        return struct.pack(f">I{len(value)}I", _bounded(len(value), limit), *value)

    def get(reader: _Reader) -> tuple[int, ...]:
        count = _bounded(reader.number(), limit)
        return struct.unpack(f">{count}I", reader.take(4 * count))

    return field(metadata={"codec": _Codec(put, get)})


def _spans() -> Any:
    """A tuple of (start, end) offsets; (-1, -1) is a group that took no part."""

    def put(value: tuple[tuple[int, int], ...]) -> bytes:
        flat = [_NONE if number < 0 else number for span in value for number in span]
        return struct.pack(f">I{len(flat)}I", _bounded(len(value), MAX_GROUPS), *flat)

    def get(reader: _Reader) -> tuple[tuple[int, int], ...]:
        count = _bounded(reader.number(), MAX_GROUPS)
        pairs = list(_PAIR.iter_unpack(reader.take(_PAIR.size * count)))
        if any((start == _NONE) != (end == _NONE) for start, end in pairs):
            raise ProtocolError("half a group")
        return tuple((-1, -1) if start == _NONE else (start, end) for start, end in pairs)

    return field(metadata={"codec": _Codec(put, get)})


def _wait_status() -> Any:
    """What waitpid(2) says of a process that ended, or UNKNOWN_STATUS."""

    def checked(value: int) -> int:
        # Others, such as that of a stopped process, have no exit code, and the os module raises for them.
        if value != UNKNOWN_STATUS:
            _bounded(value, 0xFFFF)
            if not os.WIFEXITED(value) and not os.WIFSIGNALED(value):
                raise ProtocolError(f"{value} is no wait status of a process that ended")
        return value

    return field(
        metadata={
            "codec": _Codec(lambda value: _U32.pack(checked(value)), lambda reader: checked(reader.number()))
        }
    )


def _watches() -> Any:
    """A tuple of (watch descriptor, name in that directory)."""

    def put(value: tuple[tuple[int, bytes], ...]) -> bytes:
        parts = [_U32.pack(_bounded(len(value), MAX_WATCHES))]
        for wd, name in value:
            parts.append(_PAIR.pack(wd, _bounded(len(name), MAX_NAME_BYTES)) + name)
        return b"".join(parts)

    def get(reader: _Reader) -> tuple[tuple[int, bytes], ...]:
        found = []
        for _ in range(_bounded(reader.number(), MAX_WATCHES)):
            wd, length = _PAIR.unpack(reader.take(_PAIR.size))
            found.append((wd, reader.take(_bounded(length, MAX_NAME_BYTES))))
        return tuple(found)

    return field(metadata={"codec": _Codec(put, get)})


class Kind(IntEnum):
    """Why an action runs."""

    UPBOUND = 1
    DOWNBOUND = 2
    SIZE = 3

    @property
    def label(self) -> str:
        """The word that LOGNOT_KIND and the log use."""
        return self.name.lower()


class Start(IntEnum):
    """Where reading of a newly passed log begins."""

    END = 1  # the log was there when lognot started: history is not of interest
    BEGIN = 2  # the log appeared later: every byte is new
    COMMITTED = 3  # a monitor has read it before: go on where the ledger says


class Notice(IntEnum):
    """What a less privileged process wants the log to say; the supervisor has the words."""

    LINE_CUT = 1  # about a log; number: lines
    TRUNCATED = 2  # about a log
    MATCH_FAILED = 3  # about an item; number: how often since last said; text: the error
    KEYS_EVICTED = 4  # about an item; number: keys
    ACTIONS_DROPPED = 5  # about an item; number: actions
    QUEUE_OVERFLOW = 6  # the kernel's event queue; number: how often
    LINE_SKIPPED = 7  # about an item: a line whose search took the last monitor with it; text: the line
    ROLE_FAILED = 8  # text: what it was about to die of
    FORK_FAILED = 9  # an action could not be started yet; text: the error
    ACTION_OUTPUT_CUT = 10  # about an item; number: bytes left out
    FILE_UNREADABLE = 11  # about a log; text: the error


class Message:
    """Base of all messages."""

    __slots__ = ()
    fds: ClassVar[int] = 0


# From the supervisor.


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """A checked config, as JSON in the memfd that comes with it, and the numbers given to its items."""

    fds: ClassVar[int] = 1
    item_ids: tuple[int, ...] = _numbers(MAX_ITEMS)  # one for each item, in order
    log_ids: tuple[int, ...] = _numbers(MAX_ITEMS)  # which log each item reads
    executor_ids: tuple[int, ...] = _numbers(MAX_ITEMS)  # which executor runs each item's actions


@dataclass(frozen=True, slots=True)
class UseWatches(Message):
    """The inotify instance to read events from; it comes with the message."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class LogOpened(Message):
    """A file behind a log's path; its descriptor comes with the message."""

    fds: ClassVar[int] = 1
    log_id: int = _u32()
    stream_id: int = _u64()  # never used twice
    slot: int = _u32()  # where in the ledger its position is kept
    wd: int = _u32()
    start: Start = _choice(Start)
    size: int = _u64()  # of the file when it was opened, which is where its end was


@dataclass(frozen=True, slots=True)
class LogLooked(Message):
    """The answer to LookAgain: what the path leads to now, and through which directories."""

    log_id: int = _u32()
    stream_id: int = _u64()  # 0: there is no file
    watches: tuple[tuple[int, bytes], ...] = _watches()


@dataclass(frozen=True, slots=True)
class StreamUnwritten(Message):
    """No process has this rotated-away file open for writing any more."""

    stream_id: int = _u64()


@dataclass(frozen=True, slots=True)
class ConnectExecutor(Message):
    """One end of a connection to an executor; it comes with the message."""

    fds: ClassVar[int] = 1
    executor_id: int = _u32()


@dataclass(frozen=True, slots=True)
class ConnectMonitor(Message):
    """One end of a connection to a new monitor; it comes with the message."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class AdoptAction(Message):
    """An action that the last executor started and that still runs: mind its timeout, say when it ends."""

    item_id: int = _u32()
    pid: int = _u32()
    age_ms: int = _u64()


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Every log that exists was passed: deadlines run from now. Answered by Begun."""

    token: int = _u64()


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Show that your loop turns. Answered by Pong."""


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """End cleanly; an executor lets its actions finish for `grace_ms` milliseconds."""

    grace_ms: int = _u32()


# From the monitor to the supervisor.


@dataclass(frozen=True, slots=True)
class Begun(Message):
    """The answer to Begin."""

    token: int = _u64()


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The answer to Ping."""


@dataclass(frozen=True, slots=True)
class LookAgain(Message):
    """Something changed on the way to a log. Answered by LogLooked."""

    log_id: int = _u32()


@dataclass(frozen=True, slots=True)
class StreamDrained(Message):
    """A rotated-away file was read to its end: does anybody write to it still?"""

    stream_id: int = _u64()


@dataclass(frozen=True, slots=True)
class StreamDropped(Message):
    """A file is read no more."""

    stream_id: int = _u64()


@dataclass(frozen=True, slots=True)
class ItemFired(Message):
    """A bound was passed. For the log only: the action goes to the executor by itself."""

    item_id: int = _u32()
    kind: Kind = _choice(Kind)
    count: int = _u64()
    key: bytes = _data(MAX_QUOTE_BYTES)
    line: bytes = _data(MAX_QUOTE_BYTES)


@dataclass(frozen=True, slots=True)
class Note(Message):
    """Something that the log should say, from a monitor or an executor."""

    notice: Notice = _choice(Notice)
    about: int = _u32()  # an item or a log, as the notice says
    number: int = _u64()
    text: bytes = _data(MAX_QUOTE_BYTES)


@dataclass(frozen=True, slots=True)
class PeerBroke(Message):
    """Another process sent what no honest one sends: an executor by its number, or (0) the monitor."""

    executor_id: int = _u32()


# Between the monitor and an executor.


@dataclass(frozen=True, slots=True)
class RunAction(Message):
    """Run an item's action; an executor also sends it back, to a new monitor: this one still waits.

    (item_id, kind, stream_id, position) names the occasion: an executor starts each only once, however
    often it is told, and positions of one item, kind and stream only grow.
    """

    item_id: int = _u32()
    kind: Kind = _choice(Kind)
    stream_id: int = _u64()
    position: int = _u64()
    count: int = _u64()
    line: bytes = _data(MAX_LINE_BYTES)
    spans: tuple[tuple[int, int], ...] = _spans()


@dataclass(frozen=True, slots=True)
class UseStartMark(Message):
    """Says whether the last ActionStarting came true, should the executor die (process.StartMark)."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ActionStarting(Message):
    """An action is being started this moment; ActionTaken follows."""

    item_id: int = _u32()
    kind: Kind = _choice(Kind)
    stream_id: int = _u64()
    position: int = _u64()


@dataclass(frozen=True, slots=True)
class ActionTaken(Message):
    """An action was started, or was refused: the monitor need not keep it any longer."""

    item_id: int = _u32()
    kind: Kind = _choice(Kind)
    stream_id: int = _u64()
    position: int = _u64()


# From an executor to the supervisor.


@dataclass(frozen=True, slots=True)
class ActionStarted(Message):
    """An action's shell was started."""

    item_id: int = _u32()
    pid: int = _u32()


@dataclass(frozen=True, slots=True)
class ActionOutput(Message):
    """One line that an action printed."""

    item_id: int = _u32()
    pid: int = _u32()
    line: bytes = _data(MAX_QUOTE_BYTES)


@dataclass(frozen=True, slots=True)
class ActionFinished(Message):
    """An action's shell ended."""

    item_id: int = _u32()
    pid: int = _u32()
    wait_status: int = _wait_status()  # as waitpid(2) gives it; UNKNOWN_STATUS for one that was adopted
    duration_ms: int = _u64()
    timed_out: bool = _flag()


_TYPES: dict[int, type[Message]] = {
    1: Configure,
    2: UseWatches,
    3: LogOpened,
    4: LogLooked,
    5: StreamUnwritten,
    6: ConnectExecutor,
    7: ConnectMonitor,
    8: Begin,
    9: Ping,
    10: Stop,
    11: AdoptAction,
    20: Begun,
    21: Pong,
    22: LookAgain,
    23: StreamDrained,
    24: StreamDropped,
    25: ItemFired,
    26: Note,
    27: PeerBroke,
    30: RunAction,
    31: ActionTaken,
    32: ActionStarting,
    33: UseStartMark,
    40: ActionStarted,
    41: ActionOutput,
    42: ActionFinished,
}
_NUMBERS = {kind: number for number, kind in _TYPES.items()}
_CODECS = {
    kind: tuple((entry.name, entry.metadata["codec"]) for entry in fields(kind))  # type: ignore[arg-type]
    for kind in _TYPES.values()
}

# Who may send what to whom: anything else is a protocol error.
SUPERVISOR_TO_MONITOR = frozenset(
    {Configure, UseWatches, LogOpened, LogLooked, StreamUnwritten, ConnectExecutor, Begin, Ping, Stop}
)
MONITOR_TO_SUPERVISOR = frozenset(
    {Begun, Pong, LookAgain, StreamDrained, StreamDropped, ItemFired, Note, PeerBroke}
)
SUPERVISOR_TO_EXECUTOR = frozenset({Configure, ConnectMonitor, AdoptAction, Ping, Stop})
EXECUTOR_TO_SUPERVISOR = frozenset({Pong, ActionStarted, ActionOutput, ActionFinished, Note, PeerBroke})
MONITOR_TO_EXECUTOR = frozenset({RunAction})
EXECUTOR_TO_MONITOR = frozenset({RunAction, UseStartMark, ActionStarting, ActionTaken})


def encode(message: Message) -> bytes:
    """Give the bytes of a message; read by `decode`.

    Raises:
        ProtocolError: a field is over its limit.
        struct.error: a number does not fit.
    """
    kind = type(message)
    parts = [bytes((_NUMBERS[kind],))]
    parts.extend(codec.put(getattr(message, name)) for name, codec in _CODECS[kind])
    return b"".join(parts)


def decode(data: bytes, allowed: frozenset[type[Message]]) -> Message:
    """Give the message that `encode` wrote, when its type is one of `allowed`.

    Raises:
        ProtocolError: the bytes are no message, or none that this peer may send.
    """
    kind = _TYPES.get(data[0]) if data else None
    if kind is None:
        raise ProtocolError("unknown message")
    if kind not in allowed:
        raise ProtocolError(f"{kind.__name__} is not for this peer to send")
    reader = _Reader(data)
    values = {name: codec.get(reader) for name, codec in _CODECS[kind]}
    reader.end()
    return kind(**values)
