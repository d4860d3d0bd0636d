"""What a restart goes on from: on disk, in memory, damaged, not writable."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lognot import roll
from lognot.continuity import Continuity, forget, runtime_directory, state_directory
from lognot.errors import StateError
from lognot.journal import Event, Journal
from lognot.ledger import Anchor, Ledger, Position
from lognot.loop import Loop
from lognot.roll import Listed, log_digest
from lognot.settings import Config
from lognot.state import SavedStream
from unit.descriptors import nothing_leaks
from unit.records import Records

STREAM = SavedStream((1, 2), Position(0, 3, 4, True, b"d" * 16))
LATER = SavedStream((1, 2), Position(0, 30, 4, False, b"e" * 16))


@pytest.fixture
def memory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield directory


def opened(path: Path, records: Records | None = None) -> Continuity:
    return Continuity(str(path), Journal([records or Records()]))


def loaded(path: Path, *paths: str) -> object:
    """What the next service finds on the disk."""
    one = opened(path)
    try:
        return one.load(None, set(paths))
    finally:
        one.close()


def saving(path: Path, *streams: SavedStream) -> Continuity:
    one = opened(path)
    one.use(Loop(), lambda: {"/log": streams})
    one.save()
    return one


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    saving(tmp_path / "s", STREAM).close()
    assert loaded(tmp_path / "s", "/log", "/other") == {"/log": (STREAM,)}


def test_only_logs_that_are_to_go_on(tmp_path: Path) -> None:
    saving(tmp_path / "s", STREAM).close()
    assert loaded(tmp_path / "s", "/other") == {}


def test_nothing_is_written_when_nothing_has_changed(tmp_path: Path) -> None:
    one = saving(tmp_path / "s", STREAM)
    before = (tmp_path / "s" / "state.json").stat().st_ino
    one.save()
    assert (tmp_path / "s" / "state.json").stat().st_ino == before


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "write"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever step; and the next attempt succeeds, which is said."""
    records = Records()
    one = opened(tmp_path / "s", records)
    now = (STREAM,)
    one.use(Loop(), lambda: {"/log": now})
    one.save()
    now = (LATER,)

    def fail(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr(Continuity, "_write", fail)
        else:
            patch.setattr(os, call, fail)
        one.save()
        one.save()
    assert records.messages == [
        f"the state file '{tmp_path}/s/state.json' cannot be written, the old one stays: "
        "No space left on device"
    ]
    assert sorted(os.listdir(tmp_path / "s")) == ["lock", "state.json"]
    assert opened_again(tmp_path / "s") == {"/log": (STREAM,)}
    one.save()
    assert records.messages[-1].endswith("is written again")
    earlier = Anchor(STREAM.position.offset, STREAM.position.skipping, STREAM.position.digest)
    expected = SavedStream(LATER.identity, replace(LATER.position, anchor=earlier))
    assert opened_again(tmp_path / "s") == {"/log": (expected,)}
    one.close()


def opened_again(path: Path) -> object:
    with tempfile.TemporaryDirectory() as copy:
        Path(copy, "state.json").write_bytes((path / "state.json").read_bytes())
        return loaded(Path(copy), "/log")


def test_memory_is_exact_and_goes_first(tmp_path: Path, memory: str) -> None:
    one = opened(tmp_path / "s")
    assert one.load(memory, {"/log"}) == {}
    one.use(Loop(), lambda: {"/log": (STREAM,)})
    one.save()
    assert one.ledger is not None
    assert one.roll is not None
    position = Position(7, 500, 1, False, b"f" * 16)
    one.ledger.assign(3, position)
    one.roll.put(Listed(3, 7, (1, 2), True, log_digest("/log")))
    one.keep_numbers({b"i" * 16: 12})
    secret = one.ledger.secret
    one.close()
    two = opened(tmp_path / "s")
    assert two.load(memory, {"/log"}) == {"/log": (SavedStream((1, 2), position, 3),)}
    assert two.numbers == {b"i" * 16: 12}
    assert two.ledger is not None
    assert two.ledger.secret == secret


def reading(path: Path, memory: str) -> tuple[Continuity, Ledger]:
    """Give a service that has read 100 bytes of a file, in slot 3, and its ledger."""
    one = opened(path)
    one.load(memory, {"/log"})
    one.use(Loop(), dict)
    one.save()
    assert one.roll is not None
    assert one.ledger is not None
    one.ledger.assign(3, Position(7, 100))
    one.roll.put(Listed(3, 7, (1, 2), True, log_digest("/log")))
    return one, one.ledger


def read_to(path: Path, memory: str, offset: int) -> tuple[int, ...]:
    """Have a service go on and read to `offset`, without a last word; give where it began."""
    one = opened(path)
    saved = one.load(memory, {"/log"}).get("/log", ())
    assert one.roll is not None
    assert one.ledger is not None
    position = Position(7, offset)
    one.use(Loop(), lambda: {"/log": (SavedStream((1, 2), position),)})
    one.save()
    one.ledger.assign(3, position)
    one.roll.put(Listed(3, 7, (1, 2), True, log_digest("/log")))
    one.close()
    return tuple(stream.position.offset for stream in saved)


def test_new_memory_goes_on_from_a_file_that_cannot_be_replaced(tmp_path: Path, memory: str) -> None:
    """As after a reboot with a full disk, however often it is started then; and the next reboot."""
    saving(tmp_path / "s", STREAM).close()
    with patch.object(Continuity, "_write", side_effect=OSError(28, "No space left on device")):
        assert read_to(tmp_path / "s", memory, 100) == (3,)
        assert read_to(tmp_path / "s", memory, 200) == (100,)
    assert read_to(tmp_path / "s", memory, 300) == (200,)
    assert read_to(tmp_path / "s", memory, 400) == (300,)
    for path in Path(memory).iterdir():
        path.unlink()
    assert read_to(tmp_path / "s", memory, 500) == (400,)


def test_memory_that_is_older_than_the_file_is_not_used(tmp_path: Path, memory: str) -> None:
    """Though both have begun from one file; as where a service was started with another directory for it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        saving(tmp_path / "s", STREAM).close()
        assert read_to(tmp_path / "s", memory, 100) == (3,)
        assert read_to(tmp_path / "s", other, 200) == (100,)
        assert read_to(tmp_path / "s", memory, 300) == (200,)


def test_a_monitor_was_killed_in_a_commit(tmp_path: Path, memory: str) -> None:
    """What was committed, and not yet put in its place, is where the next service goes on."""
    one, ledger = reading(tmp_path / "s", memory)
    with patch.object(Ledger, "complete_commit"):
        ledger.commit([(3, Position(7, 200))])
    one.close()
    (saved,) = opened(tmp_path / "s").load(memory, {"/log"})["/log"]
    assert saved.position.offset == 200


def test_memory_that_somebody_still_writes_to_is_not_used(tmp_path: Path, memory: str) -> None:
    """A monitor that outlives its service for too long keeps no other from starting."""
    one = opened(tmp_path / "s")
    one.load(memory, {"/log"})
    assert one.roll is not None
    kept = os.dup(one.roll.lock_fd)
    one.use(Loop(), lambda: {"/log": (STREAM,)})
    one.save()
    one.close()
    records = Records()
    two = opened(tmp_path / "s", records)
    with patch.object(roll, "LOCKED_S", 0.0):
        assert two.load(memory, {"/log"}) == {"/log": (STREAM,)}
    assert two.ledger is None
    assert records.events == [Event.STATE_FAILED]
    os.close(kept)


def test_the_first_that_is_saved_has_an_anchor(tmp_path: Path) -> None:
    """It is where reading began."""
    one = opened(tmp_path / "s")
    one.note_positions()  # of nothing so far
    one.use(Loop(), lambda: {"/log": (STREAM,)})
    one.note_positions()
    one.use(Loop(), lambda: {"/log": (LATER,)})
    one.save()
    one.close()
    [stream] = opened(tmp_path / "s").load(None, {"/log"})["/log"]
    assert stream.position.anchor == Anchor(3, True, b"d" * 16)


def test_the_anchor_outlives_a_restart(tmp_path: Path, memory: str) -> None:
    """Memory has none, since it is exact; what is saved then has the old one all the same."""
    one = opened(tmp_path / "s")
    one.load(memory, {"/log"})
    one.use(Loop(), lambda: {"/log": (STREAM,)})
    one.save()
    one.use(Loop(), lambda: {"/log": (LATER,)})
    one.save()
    assert one.ledger is not None
    assert one.roll is not None
    one.ledger.assign(3, replace(LATER.position, stream_id=7))
    one.roll.put(Listed(3, 7, LATER.identity, True, log_digest("/log")))
    one.close()
    two = opened(tmp_path / "s")
    found = two.load(memory, {"/log"})
    [stream] = found["/log"]
    assert stream.position == replace(LATER.position, stream_id=7)
    two.use(Loop(), lambda: found)
    two.save()
    two.close()
    third = opened(tmp_path / "s").load(None, {"/log"})
    assert third["/log"][0].position.anchor == Anchor(3, True, b"d" * 16)


def test_without_its_file_memory_is_forgotten(tmp_path: Path, memory: str) -> None:
    """To remove the file is how an administrator begins anew."""
    one, _ = reading(tmp_path / "s", memory)
    one.close()
    (tmp_path / "s" / "state.json").unlink()
    assert opened(tmp_path / "s").load(memory, {"/log"}) == {}


def test_logs_that_are_read_without_it_are_forgotten(tmp_path: Path, memory: str) -> None:
    """On the disk and in memory, and others are not: whoever tries a config out has other logs."""
    records = Records()
    one = opened(tmp_path / "s")
    one.load(memory, {"/log", "/other"})
    one.use(Loop(), lambda: {"/log": (STREAM,), "/other": (LATER,)})
    one.save()
    assert one.roll is not None
    one.roll.put(Listed(3, 7, (1, 2), True, log_digest("/log")))
    one.close()
    before = (tmp_path / "s" / "state.json").read_bytes()
    forget(str(tmp_path / "s"), {"/a third"}, Journal([records]))
    assert (tmp_path / "s" / "state.json").read_bytes() == before
    forget(str(tmp_path / "s"), {"/log"}, Journal([records]))
    again = opened(tmp_path / "s")
    assert again.load(memory, {"/log", "/other"}) == {"/other": (LATER,)}
    again.close()
    forget(str(tmp_path / "s"), {"/log", "/other"}, Journal([records]))
    assert os.listdir(tmp_path / "s") == ["lock"]
    forget(str(tmp_path / "s"), {"/log", "/other"}, Journal([records]))
    forget(str(tmp_path / "none"), {"/log"}, Journal([records]))
    assert not (tmp_path / "none").exists()
    assert records.messages == []


def test_what_is_anothers_is_not_forgotten(tmp_path: Path) -> None:
    one = saving(tmp_path / "s", STREAM)
    with nothing_leaks():
        forget(str(tmp_path / "s"), {"/log"}, Journal([Records()]))
    one.close()
    assert loaded(tmp_path / "s", "/log") == {"/log": (STREAM,)}


@pytest.mark.parametrize("call", ["open", "unlink"])
def test_what_cannot_be_forgotten_is_said(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    saving(tmp_path / "s", STREAM).close()
    records = Records()

    def fail(*arguments: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    with nothing_leaks(), monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        forget(str(tmp_path / "s"), {"/log"}, Journal([records]))
    assert records.events == [Event.STATE_FAILED]
    assert "cannot be changed: Read-only file system; lines" in records.messages[0]


@given(st.binary(max_size=300))
def test_any_content_is_no_reason_not_to_start(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "state.json").write_bytes(data)
        records = Records()
        one = opened(Path(directory), records)
        assert one.load(None, {"/log"}) == {}
        one.close()
        assert records.events == [Event.STATE_FAILED]
        assert Path(directory, "state.json.damaged").read_bytes() == data


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_a_file_of_another_kind(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "state.json"
    tmp_path.chmod(0o700)
    match kind:
        case "directory":
            place.mkdir()
        case "fifo":
            os.mkfifo(place)
        case "link":
            place.symlink_to("/etc/passwd")
    records = Records()
    one = opened(tmp_path, records)
    assert one.load(None, {"/log"}) == {}
    assert len(records.messages) == 1
    one.use(Loop(), lambda: {"/log": (STREAM,)})
    one.save()
    one.close()
    assert loaded(tmp_path, "/log") == {"/log": (STREAM,)}


def test_where_things_are() -> None:
    config = Config("f", 2, "auto", 1024**2, ())
    assert state_directory(config, {"STATE_DIRECTORY": "/a:/b"}) == "/a"
    assert state_directory(Config("f", 2, "auto", 1024**2, (), "/own"), {"STATE_DIRECTORY": "/a"}) == "/own"
    assert runtime_directory({"RUNTIME_DIRECTORY": "/r"}) == "/r"


def test_a_directory_that_is_in_use_leaves_nothing_open(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with nothing_leaks(), pytest.raises(StateError):
        opened(tmp_path)
    first.close()
