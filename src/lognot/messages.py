"""What the processes say to each other: one frozen dataclass per message, pure encode and decode.

A message travels as one type byte and then its fields in order; what each field may hold is written beside
it. `decode` is strict: an unknown type, a type that this peer may not send, a field over its limit, or a
byte too few or too many is a ProtocolError, since no honest peer of ours sends that. Nothing on the wire
names a path or a command: files, items and executors are numbers that the supervisor has given out.

A descriptor can go with a message whose `fds` is 1 (unix(7), SCM_RIGHTS); the channel carries it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar

from lognot import wire
from lognot.errors import ProtocolError
from lognot.wire import MAX_GROUPS as MAX_GROUPS
from lognot.wire import MAX_NAME_BYTES as MAX_NAME_BYTES
from lognot.wire import MAX_WATCHES as MAX_WATCHES
from lognot.wire import UNKNOWN_STATUS as UNKNOWN_STATUS

MAX_QUOTE_BYTES = 4096  # log text that goes into our own log: enough to recognise the line
MAX_DIGEST_BYTES = 64
MAX_ITEMS = 4096
MAX_LINE_BYTES = 16 * 1024 * 1024  # the largest max_line that a config may set


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
    COMMITTED = 3  # it was read before: go on where the ledger says
    LEFTOVER = 4  # as COMMITTED, left by the last service; dropped if its bytes differ


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
    CONFIG_DIFFERS = 12  # an executor waits, since its launcher reads another config
    POSITION_LOST = 13  # about a log: how far it was read makes no sense
    NO_SANDBOX = 15  # the monitor has no filter of system calls; text: why
    REGEX_LIMITED = 16  # about an item whose regex costs too much; number: how often; text: the line
    LINES_LEFT_OUT = 17  # about such an item; number: lines; text: one of them
    END_LOST = 18  # about a log: a file of it is not what was read up to its end
    LEFT_UNREAD = 19  # about a log; number: bytes that there was no time for
    EMPTIED_UNSEEN = 20  # about a log: it was truncated while no monitor looked


class Message:
    """Base of all messages."""

    __slots__ = ()
    fds: ClassVar[int] = 0


# From the supervisor.


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """A checked config, as JSON in the memfd that comes with it, and the numbers given to its items."""

    fds: ClassVar[int] = 1
    item_ids: tuple[int, ...] = wire.numbers(MAX_ITEMS)  # one for each item, in order
    log_ids: tuple[int, ...] = wire.numbers(MAX_ITEMS)  # which log each item reads
    executor_ids: tuple[int, ...] = wire.numbers(MAX_ITEMS)  # which executor runs each item's actions


@dataclass(frozen=True, slots=True)
class UseWatches(Message):
    """The inotify instance to read events from; it comes with the message."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class LogOpened(Message):
    """A file behind a log's path; its descriptor comes with the message."""

    fds: ClassVar[int] = 1
    log_id: int = wire.u32()
    stream_id: int = wire.u64()  # never used for another file
    slot: int = wire.u32()  # where in the ledger its position is kept
    wd: int = wire.u32()
    start: Start = wire.choice(Start)
    size: int = wire.u64()  # of the file when it was opened, which is where its end was
    history: int = wire.u64()  # bytes that were there before lognot started: for items that resume, no others


@dataclass(frozen=True, slots=True)
class LogLooked(Message):
    """The answer to LookAgain: what the path leads to now, and through which directories."""

    log_id: int = wire.u32()
    stream_id: int = wire.u64()  # 0: there is no file
    watches: tuple[tuple[int, bytes], ...] = wire.watches()


@dataclass(frozen=True, slots=True)
class StreamUnwritten(Message):
    """No process has this rotated-away file open for writing any more."""

    stream_id: int = wire.u64()


@dataclass(frozen=True, slots=True)
class UseStartMark(Message):
    """Ahead of ConnectExecutor and ConnectMonitor: says whether the last ActionStarting there came true.

    That is asked when the executor has died (startmark.py).
    """

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ConnectExecutor(Message):
    """One end of a connection to an executor; it comes with the message."""

    fds: ClassVar[int] = 1
    executor_id: int = wire.u32()


@dataclass(frozen=True, slots=True)
class ConnectMonitor(Message):
    """One end of a connection to a new monitor; it comes with the message."""

    fds: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class AdoptAction(Message):
    """An action that the last executor started and that still runs: mind its timeout, say when it ends.

    Its item may be one of an earlier config.
    """

    item_id: int = wire.u32()
    pid: int = wire.pid()
    age_ms: int = wire.u64()
    timeout_s: int = wire.u32()


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Every log that exists was passed: deadlines run from now. Answered by Begun."""

    token: int = wire.u64()


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Show that your loop turns. Answered by Pong."""


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """End cleanly; an executor lets its actions finish for `grace_ms` milliseconds."""

    grace_ms: int = wire.u32()


@dataclass(frozen=True, slots=True)
class LaunchExecutor(Message):
    """The first thing on a connection to a launcher: whose executor it is to lead to."""

    uid: int = wire.u32()
    gid: int = wire.u32()


# From the monitor to the supervisor.


@dataclass(frozen=True, slots=True)
class Begun(Message):
    """The answer to Begin."""

    token: int = wire.u64()


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The answer to Ping."""


@dataclass(frozen=True, slots=True)
class LookAgain(Message):
    """Something changed on the way to a log. Answered by LogLooked."""

    log_id: int = wire.u32()


@dataclass(frozen=True, slots=True)
class StreamDrained(Message):
    """A rotated-away file was read to its end: does anybody write to it still?"""

    stream_id: int = wire.u64()


@dataclass(frozen=True, slots=True)
class Advanced(Message):
    """Positions of files were committed since this was last said, and a restart is to go on from them."""


@dataclass(frozen=True, slots=True)
class StreamUnreadable(Message):
    """A file cannot be read at its place: it is to be passed again later."""

    stream_id: int = wire.u64()


@dataclass(frozen=True, slots=True)
class StreamDropped(Message):
    """A file is read no more."""

    stream_id: int = wire.u64()


@dataclass(frozen=True, slots=True)
class ItemFired(Message):
    """A bound was passed. For the log only: the action goes to the executor by itself."""

    item_id: int = wire.u32()
    kind: Kind = wire.choice(Kind)
    count: int = wire.u64()
    key: bytes = wire.data(MAX_QUOTE_BYTES)
    line: bytes = wire.data(MAX_QUOTE_BYTES)


@dataclass(frozen=True, slots=True)
class Note(Message):
    """Something that the log should say, from a monitor or an executor."""

    notice: Notice = wire.choice(Notice)
    about: int = wire.u32()  # an item or a log, as the notice says
    number: int = wire.u64()
    text: bytes = wire.data(MAX_QUOTE_BYTES)


@dataclass(frozen=True, slots=True)
class PeerBroke(Message):
    """Another process sent what no honest one sends: an executor by its number, or (0) the monitor."""

    executor_id: int = wire.u32()


# Between the monitor and an executor.


@dataclass(frozen=True, slots=True)
class RunAction(Message):
    """Run an item's action; an executor also sends it back, to a new monitor: this one still waits.

    (item_id, kind, stream_id, position) names the occasion: an executor starts each only once, however
    often it is told, and positions of one item, kind and stream only grow, and wrap around (RFC 1982).
    """

    item_id: int = wire.u32()
    kind: Kind = wire.choice(Kind)
    stream_id: int = wire.u64()
    position: int = wire.u64()
    count: int = wire.u64()
    line: bytes = wire.data(MAX_LINE_BYTES)
    spans: tuple[tuple[int, int], ...] = wire.spans()


@dataclass(frozen=True, slots=True)
class ActionStarting(Message):
    """An action is being started this moment; ActionTaken follows."""

    item_id: int = wire.u32()
    kind: Kind = wire.choice(Kind)
    stream_id: int = wire.u64()
    position: int = wire.u64()


@dataclass(frozen=True, slots=True)
class ActionTaken(Message):
    """An action was started, or was refused: the monitor need not keep it any longer."""

    item_id: int = wire.u32()
    kind: Kind = wire.choice(Kind)
    stream_id: int = wire.u64()
    position: int = wire.u64()


# From an executor to the supervisor.


@dataclass(frozen=True, slots=True)
class ActionStarted(Message):
    """An action's shell was started."""

    item_id: int = wire.u32()
    pid: int = wire.pid()
    timeout_s: int = wire.u32()  # for whoever has to mind it when this executor has died


@dataclass(frozen=True, slots=True)
class ActionOutput(Message):
    """One line that an action printed."""

    item_id: int = wire.u32()
    pid: int = wire.pid()
    line: bytes = wire.data(MAX_QUOTE_BYTES)


@dataclass(frozen=True, slots=True)
class ActionFinished(Message):
    """An action's shell ended."""

    item_id: int = wire.u32()
    pid: int = wire.pid()
    wait_status: int = wire.wait_status()  # as waitpid(2) gives it; UNKNOWN_STATUS for one that was adopted
    duration_ms: int = wire.u64()
    timed_out: bool = wire.flag()


# Within the service that runs the actions.


@dataclass(frozen=True, slots=True)
class ExecutorStarted(Message):
    """From the launcher, on an executor's connection to the supervisor: its process."""

    pid: int = wire.pid()


@dataclass(frozen=True, slots=True)
class ExecutorEnded(Message):
    """From the launcher, the last thing on an executor's connection to the supervisor."""

    wait_status: int = wire.wait_status()


@dataclass(frozen=True, slots=True)
class CheckConfig(Message):
    """An executor asks its launcher whether a config, by its digest, is the administrator's."""

    digest: bytes = wire.data(MAX_DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class ConfigChecked(Message):
    """The answer to CheckConfig."""

    is_good: bool = wire.flag()


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
    12: LaunchExecutor,
    13: UseStartMark,
    20: Begun,
    21: Pong,
    22: LookAgain,
    23: StreamDrained,
    24: StreamDropped,
    25: ItemFired,
    26: Note,
    27: PeerBroke,
    28: Advanced,
    29: StreamUnreadable,
    30: RunAction,
    31: ActionTaken,
    32: ActionStarting,
    40: ActionStarted,
    41: ActionOutput,
    42: ActionFinished,
    50: ExecutorStarted,
    51: ExecutorEnded,
    52: CheckConfig,
    53: ConfigChecked,
}
_NUMBERS = {kind: number for number, kind in _TYPES.items()}
_CODECS = {
    kind: tuple((entry.name, entry.metadata["codec"]) for entry in fields(kind))  # type: ignore[arg-type]
    for kind in _TYPES.values()
}

# Who may send what to whom: anything else is a protocol error.
SUPERVISOR_TO_MONITOR = frozenset(
    {
        Configure,
        UseWatches,
        LogOpened,
        LogLooked,
        StreamUnwritten,
        UseStartMark,
        ConnectExecutor,
        Begin,
        Ping,
        Stop,
    }
)
MONITOR_TO_SUPERVISOR = frozenset(
    {
        Begun,
        Pong,
        LookAgain,
        StreamUnreadable,
        StreamDrained,
        StreamDropped,
        Advanced,
        ItemFired,
        Note,
        PeerBroke,
    }
)
SUPERVISOR_TO_EXECUTOR = frozenset({Configure, UseStartMark, ConnectMonitor, AdoptAction, Ping, Stop})
EXECUTOR_TO_SUPERVISOR = frozenset({Pong, ActionStarted, ActionOutput, ActionFinished, Note, PeerBroke})
MONITOR_TO_EXECUTOR = frozenset({RunAction})
EXECUTOR_TO_MONITOR = frozenset({RunAction, ActionStarting, ActionTaken})
SUPERVISOR_TO_LAUNCHER = frozenset({LaunchExecutor})
LAUNCHER_TO_SUPERVISOR = frozenset({ExecutorStarted, ExecutorEnded, Note})
EXECUTOR_TO_LAUNCHER = frozenset({CheckConfig, Note})
LAUNCHER_TO_EXECUTOR = frozenset({ConfigChecked})

# What each may have the log say in a Note; also a protocol error otherwise, of whoever judges the Note.
NOTICES_OF_EXECUTOR = frozenset(
    {
        Notice.ACTIONS_DROPPED,
        Notice.ROLE_FAILED,
        Notice.FORK_FAILED,
        Notice.ACTION_OUTPUT_CUT,
        Notice.CONFIG_DIFFERS,
    }
)
NOTICES_OF_MONITOR = frozenset(Notice) - {
    Notice.FORK_FAILED,
    Notice.ACTION_OUTPUT_CUT,
    Notice.CONFIG_DIFFERS,
}


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
    reader = wire.Reader(data)
    values = {name: codec.get(reader) for name, codec in _CODECS[kind]}
    reader.end()
    return kind(**values)
