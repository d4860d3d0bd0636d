"""The state file's content: what was written is read, and nothing else is."""

from __future__ import annotations

import json
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot.errors import StateError
from lognot.ledger import LEDGER_BYTES, MAX_OFFSET, Anchor, Ledger, Position, _slot_at
from lognot.state import SavedStream, State, _check, state_from_json, state_to_json

U64 = st.integers(0, 2**64 - 1)
DIGESTS = st.binary(min_size=16, max_size=16)
ANCHORS = st.builds(Anchor, st.integers(1, MAX_OFFSET), st.booleans(), DIGESTS)
POSITIONS = st.builds(
    Position,
    st.just(0),
    st.integers(0, MAX_OFFSET),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.just(b"") | DIGESTS,
    st.integers(0, MAX_OFFSET),
    st.none() | ANCHORS,
)
STREAMS = st.lists(st.builds(SavedStream, st.tuples(U64, U64), POSITIONS), max_size=4).map(tuple)
PATHS = st.binary(max_size=40).map(lambda path: path.decode("utf-8", "surrogateescape"))
STATES = st.builds(
    State,
    st.binary(min_size=16, max_size=16),
    st.dictionaries(PATHS, STREAMS, max_size=5),
    st.just(()),
    PATHS,
)


def checked(values: dict[str, object]) -> bytes:
    """The file's content, with the digest of these values."""
    return json.dumps({**values, "check": _check(values)}).encode()


@given(STATES)
def test_what_was_written_is_read(state: State) -> None:
    assert state_from_json(state_to_json(state)) == state


@given(st.binary(min_size=60, max_size=60))
def test_what_a_monitor_left_can_be_read_again(data: bytes) -> None:
    """It may have been taken over, and then anything stands in its ledger; other logs are not to suffer."""
    memory = mmap.mmap(-1, LEDGER_BYTES)
    begin = _slot_at(3) + 8
    memory[begin : begin + len(data)] = data
    other = SavedStream((1, 2), Position(0, 3, 4, True, b"d" * 16))
    streams = (SavedStream((3, 4), Ledger(memory).position(3)), other)
    assert other in state_from_json(state_to_json(State(bytes(16), {"/log": streams}))).logs["/log"]


def test_what_an_older_version_wrote_is_read() -> None:
    """It began with the size up to which lines were read, and knew no older place."""
    one = SavedStream((1, 2), Position(0, 3, 0, False, bytes(16), 5, Anchor(2, False, bytes(16))))
    values = json.loads(state_to_json(State(bytes(16), {"/log": (one,)})))
    del (
        values["check"],
        values["config"],
        values["logs"]["/log"][0]["size"],
        values["logs"]["/log"][0]["anchor"],
    )
    [read] = state_from_json(checked(values)).logs["/log"]
    assert read.position == Position(0, 3, 0, False, bytes(16), 3)


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        state_from_json(data)


@given(STATES, st.data())
def test_any_change_is_noticed(state: State, data: st.DataObject) -> None:
    """Cut at any byte, or any byte another one: refused, or it still says the same (white space)."""
    good = state_to_json(state)
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytes((good[at] ^ data.draw(st.integers(1, 255)),))
    for damaged in (good[:at], good[:at] + changed + good[at + 1 :]):
        try:
            assert state_from_json(damaged) == state
        except StateError:
            continue


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", -1),
        ("offset", 2**63),
        ("offset", MAX_OFFSET + 1),
        ("offset", "1"),
        ("offset", 1.5),
        ("truncated", 2**32),
        ("inode", 2**64),
        ("device", None),
        ("digest", "00"),
        ("size", -1),
        ("size", MAX_OFFSET + 1),
        ("size", None),
        ("anchor", 1),
        ("anchor", {}),
        ("anchor", {"offset": 0, "skipping": False, "digest": "00" * 16}),
        ("anchor", {"offset": MAX_OFFSET + 1, "skipping": False, "digest": "00" * 16}),
        ("anchor", {"offset": 1, "skipping": False, "digest": ""}),
        ("digest", "no hex"),
    ],
)
def test_a_value_that_cannot_be(field: str, value: object) -> None:
    """Also where somebody has computed the digest anew."""
    one = SavedStream((1, 2), Position(0, 3, 0, False, bytes(16)))
    values = json.loads(state_to_json(State(bytes(16), {"/log": (one,)})))
    del values["check"]
    values["logs"]["/log"][0][field] = value
    with pytest.raises(StateError, match="cannot be"):
        state_from_json(checked(values))
