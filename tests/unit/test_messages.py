"""What goes over the wire comes back equal, and nothing else comes back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import messages as m
from lognot import settings
from lognot.channel import MAX_MESSAGE_BYTES, SMALL_MESSAGE_BYTES
from lognot.errors import ProtocolError

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
PID = st.integers(0, 2**22)
NUMBERS = st.lists(U32, max_size=50).map(tuple)
QUOTE = st.binary(max_size=300)
KIND = st.sampled_from(m.Kind)
OFFSET = st.integers(0, 2**32 - 2)
SPANS = st.lists(st.tuples(OFFSET, OFFSET) | st.just((-1, -1)), max_size=20).map(tuple)
WATCHES = st.lists(st.tuples(U32, st.binary(max_size=m.MAX_NAME_BYTES)), max_size=10).map(tuple)
WAIT_STATUS = (
    st.integers(0, 255).map(lambda code: code << 8)  # exited
    | st.integers(1, 126)  # killed
    | st.integers(1, 126).map(lambda number: number | 0x80)  # killed, with a core dump
    | st.just(m.UNKNOWN_STATUS)
)

MESSAGES: dict[type[m.Message], st.SearchStrategy[m.Message]] = {
    m.Configure: st.builds(m.Configure, NUMBERS, NUMBERS, NUMBERS),
    m.UseWatches: st.builds(m.UseWatches),
    m.LogOpened: st.builds(m.LogOpened, U32, U64, U32, U32, st.sampled_from(m.Start), U64, U64),
    m.LogLooked: st.builds(m.LogLooked, U32, U64, WATCHES),
    m.StreamUnwritten: st.builds(m.StreamUnwritten, U64),
    m.ConnectExecutor: st.builds(m.ConnectExecutor, U32),
    m.ConnectMonitor: st.builds(m.ConnectMonitor),
    m.AdoptAction: st.builds(m.AdoptAction, U32, PID, U64, U32),
    m.Begin: st.builds(m.Begin, U64),
    m.Ping: st.builds(m.Ping),
    m.Stop: st.builds(m.Stop, U32),
    m.Begun: st.builds(m.Begun, U64),
    m.Pong: st.builds(m.Pong),
    m.LookAgain: st.builds(m.LookAgain, U32),
    m.StreamDrained: st.builds(m.StreamDrained, U64),
    m.StreamUnreadable: st.builds(m.StreamUnreadable, U64),
    m.StreamDropped: st.builds(m.StreamDropped, U64),
    m.Advanced: st.just(m.Advanced()),
    m.ItemFired: st.builds(m.ItemFired, U32, KIND, U64, QUOTE, QUOTE),
    m.Note: st.builds(m.Note, st.sampled_from(m.Notice), U32, U64, QUOTE),
    m.PeerBroke: st.builds(m.PeerBroke, U32),
    m.RunAction: st.builds(m.RunAction, U32, KIND, U64, U64, U64, st.binary(max_size=500), SPANS),
    m.UseStartMark: st.builds(m.UseStartMark),
    m.ActionStarting: st.builds(m.ActionStarting, U32, KIND, U64, U64),
    m.ActionTaken: st.builds(m.ActionTaken, U32, KIND, U64, U64),
    m.ActionStarted: st.builds(m.ActionStarted, U32, PID, U32),
    m.ActionOutput: st.builds(m.ActionOutput, U32, PID, QUOTE),
    m.ActionFinished: st.builds(m.ActionFinished, U32, PID, WAIT_STATUS, U64, st.booleans()),
    m.LaunchExecutor: st.builds(m.LaunchExecutor, U32, U32),
    m.ExecutorStarted: st.builds(m.ExecutorStarted, PID),
    m.ExecutorEnded: st.builds(m.ExecutorEnded, WAIT_STATUS),
    m.CheckConfig: st.builds(m.CheckConfig, st.binary(max_size=m.MAX_DIGEST_BYTES)),
    m.ConfigChecked: st.builds(m.ConfigChecked, st.booleans()),
}
ALL = frozenset(MESSAGES)
ANY_MESSAGE = st.one_of(list(MESSAGES.values()))

DIRECTIONS = {
    "supervisor to monitor": m.SUPERVISOR_TO_MONITOR,
    "monitor to supervisor": m.MONITOR_TO_SUPERVISOR,
    "supervisor to executor": m.SUPERVISOR_TO_EXECUTOR,
    "executor to supervisor": m.EXECUTOR_TO_SUPERVISOR,
    "monitor to executor": m.MONITOR_TO_EXECUTOR,
    "executor to monitor": m.EXECUTOR_TO_MONITOR,
    "supervisor to launcher": m.SUPERVISOR_TO_LAUNCHER,
    "launcher to supervisor": m.LAUNCHER_TO_SUPERVISOR,
    "executor to launcher": m.EXECUTOR_TO_LAUNCHER,
    "launcher to executor": m.LAUNCHER_TO_EXECUTOR,
}


def test_every_message_is_tried_here_and_somebody_may_send_it() -> None:
    kinds = {kind for kind in vars(m).values() if isinstance(kind, type) and issubclass(kind, m.Message)}
    assert kinds - {m.Message} == ALL
    assert frozenset().union(*DIRECTIONS.values()) == ALL


@given(ANY_MESSAGE)
def test_what_is_encoded_is_decoded_to_the_same(message: m.Message) -> None:
    data = m.encode(message)
    assert m.decode(data, ALL) == message
    assert m.decode(data, frozenset({type(message)})) == message


@given(ANY_MESSAGE, st.data())
def test_only_the_types_that_a_peer_may_send_are_taken(message: m.Message, data: st.DataObject) -> None:
    allowed = data.draw(st.sampled_from(list(DIRECTIONS.values())))
    if type(message) in allowed:
        assert m.decode(m.encode(message), allowed) == message
    else:
        with pytest.raises(ProtocolError, match="not for this peer"):
            m.decode(m.encode(message), allowed)


@given(ANY_MESSAGE, st.data())
def test_a_byte_too_few_or_too_many_is_refused(message: m.Message, data: st.DataObject) -> None:
    encoded = m.encode(message)
    with pytest.raises(ProtocolError):
        m.decode(encoded + data.draw(st.binary(min_size=1, max_size=9)), ALL)
    with pytest.raises(ProtocolError):
        m.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))], ALL)


def refused_or_canonical(data: bytes) -> None:
    """Any bytes are refused, or are exactly what encode would have written."""
    try:
        message = m.decode(data, ALL)
    except ProtocolError:
        return
    assert m.encode(message) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    refused_or_canonical(data)


@given(st.integers(0, 255), st.binary(max_size=80))
def test_any_bytes_behind_a_type_are_a_message_or_a_protocol_error(kind: int, rest: bytes) -> None:
    refused_or_canonical(bytes((kind,)) + rest)


@given(ANY_MESSAGE, st.data())
def test_a_flipped_byte_is_another_message_or_a_protocol_error(
    message: m.Message, data: st.DataObject
) -> None:
    encoded = bytearray(m.encode(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    refused_or_canonical(bytes(encoded))


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def type_byte(message: m.Message) -> bytes:
    return m.encode(message)[:1]


AT_LIMIT = {
    "items": m.Configure((1,) * m.MAX_ITEMS, (), ()),
    "log numbers": m.Configure((), (1,) * m.MAX_ITEMS, ()),
    "executor numbers": m.Configure((), (), (1,) * m.MAX_ITEMS),
    "watches": m.LogLooked(1, 1, ((1, b"n"),) * m.MAX_WATCHES),
    "name": m.LogLooked(1, 1, ((1, b"n" * m.MAX_NAME_BYTES),)),
    "key": m.ItemFired(1, m.Kind.SIZE, 1, b"k" * m.MAX_QUOTE_BYTES, b""),
    "fired line": m.ItemFired(1, m.Kind.SIZE, 1, b"", b"l" * m.MAX_QUOTE_BYTES),
    "note": m.Note(m.Notice.LINE_CUT, 1, 1, b"t" * m.MAX_QUOTE_BYTES),
    "output": m.ActionOutput(1, 1, b"o" * m.MAX_QUOTE_BYTES),
    "line": m.RunAction(1, m.Kind.UPBOUND, 1, 1, 1, b"l" * m.MAX_LINE_BYTES, ()),
    "groups": m.RunAction(1, m.Kind.UPBOUND, 1, 1, 1, b"", ((0, 1),) * m.MAX_GROUPS),
    "exit status": m.ActionFinished(1, 1, 0xFF00, 1, False),
    "number": m.Stop(2**32 - 1),
    "large number": m.Begin(2**64 - 1),
}

OVER_LIMIT = {
    "items": m.Configure((1,) * (m.MAX_ITEMS + 1), (), ()),
    "log numbers": m.Configure((), (1,) * (m.MAX_ITEMS + 1), ()),
    "executor numbers": m.Configure((), (), (1,) * (m.MAX_ITEMS + 1)),
    "watches": m.LogLooked(1, 1, ((1, b"n"),) * (m.MAX_WATCHES + 1)),
    "name": m.LogLooked(1, 1, ((1, b"n" * (m.MAX_NAME_BYTES + 1)),)),
    "key": m.ItemFired(1, m.Kind.SIZE, 1, b"k" * (m.MAX_QUOTE_BYTES + 1), b""),
    "fired line": m.ItemFired(1, m.Kind.SIZE, 1, b"", b"l" * (m.MAX_QUOTE_BYTES + 1)),
    "note": m.Note(m.Notice.LINE_CUT, 1, 1, b"t" * (m.MAX_QUOTE_BYTES + 1)),
    "output": m.ActionOutput(1, 1, b"o" * (m.MAX_QUOTE_BYTES + 1)),
    "line": m.RunAction(1, m.Kind.UPBOUND, 1, 1, 1, b"l" * (m.MAX_LINE_BYTES + 1), ()),
    "groups": m.RunAction(1, m.Kind.UPBOUND, 1, 1, 1, b"", ((0, 1),) * (m.MAX_GROUPS + 1)),
    "exit status": m.ActionFinished(1, 1, 0x10000, 1, False),
    "exit status of a stopped process": m.ActionFinished(1, 1, 0x137F, 1, False),
    "negative exit status": m.ActionFinished(1, 1, -1, 1, False),
    "number": m.Stop(2**32),
    "large number": m.Begin(2**64),
}


@pytest.mark.parametrize("name", AT_LIMIT)
def test_what_is_at_its_limit_passes(name: str) -> None:
    assert m.decode(m.encode(AT_LIMIT[name]), ALL) == AT_LIMIT[name]


def test_whatever_holds_no_line_fits_a_small_channel() -> None:
    # The names of a way are parts of PATH_MAX bytes, and of as many again for each of 40 symbolic links.
    names = 41 * 4096
    largest = len(m.encode(AT_LIMIT["watches"])) + names
    others = [len(m.encode(message)) for message in AT_LIMIT.values() if not isinstance(message, m.RunAction)]
    assert max(largest, *others) <= SMALL_MESSAGE_BYTES
    assert len(m.encode(AT_LIMIT["line"])) + len(m.encode(AT_LIMIT["groups"])) <= MAX_MESSAGE_BYTES


def test_limits_agree_with_those_of_a_config() -> None:
    assert m.MAX_ITEMS == settings.MAX_ITEMS
    assert m.MAX_LINE_BYTES == settings.MAX_LINE_BYTES
    assert m.MAX_NAME_BYTES == settings.MAX_COMPONENT_BYTES


@pytest.mark.parametrize("name", OVER_LIMIT)
def test_what_is_over_its_limit_is_not_even_encoded(name: str) -> None:
    with pytest.raises((ProtocolError, struct.error)):
        m.encode(OVER_LIMIT[name])


RUN = type_byte(AT_LIMIT["line"]) + number(1) + b"\1" + bytes(24)
HOSTILE = {
    "no bytes": b"",
    "type 0": b"\0",
    "unknown type": b"\xff",
    "too many items": type_byte(AT_LIMIT["items"]) + number(m.MAX_ITEMS + 1) + bytes(4 * (m.MAX_ITEMS + 1)),
    "items that are not there": type_byte(AT_LIMIT["items"]) + number(2**32 - 1),
    "too many watches": type_byte(AT_LIMIT["watches"]) + bytes(12) + number(m.MAX_WATCHES + 1),
    "long name": type_byte(AT_LIMIT["name"]) + bytes(12) + number(1) + bytes(4) + number(256) + bytes(256),
    "long note": type_byte(AT_LIMIT["note"]) + b"\1" + bytes(12) + number(4097) + bytes(4097),
    "long line": RUN + number(m.MAX_LINE_BYTES + 1) + bytes(m.MAX_LINE_BYTES + 1) + number(0),
    "too many groups": RUN + number(0) + number(m.MAX_GROUPS + 1) + bytes(8 * (m.MAX_GROUPS + 1)),
    "half a group": RUN + number(0) + number(1) + number(2**32 - 1) + number(7),
    "the other half": RUN + number(0) + number(1) + number(7) + number(2**32 - 1),
    "unknown kind": type_byte(AT_LIMIT["line"]) + number(1) + b"\0" + bytes(24 + 8),
    "unknown notice": type_byte(AT_LIMIT["note"]) + b"\xff" + bytes(16),
    "a flag that is neither": m.encode(AT_LIMIT["exit status"])[:-1] + b"\2",
    "stopped": type_byte(AT_LIMIT["exit status"]) + bytes(8) + number(0x137F) + bytes(9),
    "no C int": type_byte(AT_LIMIT["exit status"]) + bytes(8) + number(2**31) + bytes(9),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_honest_peer_sends_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        m.decode(HOSTILE[name], ALL)


def test_roles_may_send_only_what_is_theirs() -> None:
    """A taken-over monitor can neither open nor name anything: see what it may say."""
    assert {kind.__name__ for kind in m.MONITOR_TO_SUPERVISOR} == {
        "Begun",
        "Pong",
        "LookAgain",
        "StreamUnreadable",
        "StreamDrained",
        "StreamDropped",
        "Advanced",
        "ItemFired",
        "Note",
        "PeerBroke",
    }
    assert {m.RunAction} == m.MONITOR_TO_EXECUTOR


def test_only_the_supervisor_gives_descriptors() -> None:
    """Whoever takes one may have to wait for it: to close a socket, to ask a file in user space (FUSE)."""
    given = {name: kinds for name, kinds in vars(m).items() if "_TO_" in name}
    assert len(given) == 10
    for name, kinds in given.items():
        bring = {kind.__name__ for kind in kinds if kind.fds}
        assert not bring or name.startswith("SUPERVISOR_TO_"), f"{name}: {bring}"


def test_a_pid_that_no_system_has_is_refused() -> None:
    """The functions of the os module would raise OverflowError."""
    with pytest.raises(ProtocolError, match="over the limit"):
        m.decode(m.encode(m.ActionStarted(1, 2**22 + 1, 1)), m.EXECUTOR_TO_SUPERVISOR)
