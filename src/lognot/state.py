"""How far each log was read, as it is kept over a restart: the state file's JSON. Pure; supervisor only.

The file has a digest of its own content, so that a disk that lost a part of it, or an editor, is noticed.
"""

from __future__ import annotations

import json
from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from collections.abc import Mapping
from dataclasses import dataclass

from lognot.errors import StateError
from lognot.ledger import MAX_OFFSET, MAX_STREAMS, Anchor, Position
from lognot.settings import MAX_ITEMS
from lognot.wire import MAX_PID

VERSION = 1

_DIGEST_BYTES = 16
KEY_BYTES = 16
MAX_PIDS = 16

Identity = tuple[int, int]  # device and inode
# No file has it: in the place of one, it says that a log's path led to nothing and nothing of it is left.
NOWHERE: Identity = (0, 0)


@dataclass(frozen=True, slots=True)
class SavedStream:
    """One file of a log.

    Attributes:
        identity: device and inode; the digest in its position tells whether it is that file still.
        position: how far it was read. The number of its stream is not saved.
        slot: of the ledger, where it is known from there; -1: from the file.
    """

    identity: Identity
    position: Position
    slot: int = -1


# By path, the files of each in the order they were found in.
SavedLogs = Mapping[str, tuple[SavedStream, ...]]


@dataclass(frozen=True, slots=True)
class State:
    """What one service leaves for the next.

    Attributes:
        key: random, the same in the memory that belongs to it (roll.py).
        logs: the last file of each is what the path led to.
        pids: of the services so far, the newest first: what they have written into a log is not reacted to.
        config: the path of the file whose items read them; "" where an older version has not said.
    """

    key: bytes
    logs: SavedLogs
    pids: tuple[int, ...] = ()
    config: str = ""


def state_to_json(state: State) -> bytes:
    """Return the state file's content, in ASCII; read by `state_from_json`."""
    values = {
        "version": VERSION,
        "key": state.key.hex(),
        "config": state.config,
        "pids": state.pids,
        "logs": {
            path: [
                {
                    "device": stream.identity[0],
                    "inode": stream.identity[1],
                    "offset": stream.position.offset,
                    "truncated": stream.position.generation,
                    "skipping": stream.position.skipping,
                    "digest": stream.position.digest.hex(),
                    "size": stream.position.judged_size,
                    "anchor": _anchor_values(stream.position.anchor),
                }
                for stream in streams
                if stream.position.offset <= MAX_OFFSET  # else a monitor that was taken over has said so
            ]
            for path, streams in state.logs.items()
        },
    }
    return json.dumps({**values, "check": _check(values)}, indent=1).encode("ascii") + b"\n"


def state_from_json(data: bytes) -> State:
    """Return what `state_to_json` wrote.

    Raises:
        StateError: it did not write that, with the reason.
    """
    try:
        values = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise StateError(f"is no JSON: {error}") from None
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise StateError(f"expected version {VERSION}")
    if values.pop("check", None) != _check(values):
        raise StateError("was damaged or changed: its digest is another one")
    try:
        logs = {path: tuple(_stream(file) for file in files) for path, files in dict(values["logs"]).items()}
        pids = tuple(_number(pid, MAX_PID) for pid in values.get("pids", ())[:MAX_PIDS])
        state = State(bytes.fromhex(values["key"]), logs, pids, str(values.get("config", "")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"has a value that cannot be: {error}") from None
    if len(logs) > MAX_ITEMS or sum(map(len, logs.values())) > MAX_STREAMS or len(state.key) != KEY_BYTES:
        raise StateError("names more than can be")
    return state


def _check(values: Mapping[str, object]) -> str:
    data = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    return blake2b(data, digest_size=16).hexdigest()


def _anchor_values(anchor: Anchor | None) -> dict[str, object] | None:
    if anchor is None:
        return None
    return {"offset": anchor.offset, "skipping": anchor.skipping, "digest": anchor.digest.hex()}


def _stream(values: dict[str, object]) -> SavedStream:
    offset = _number(values["offset"], MAX_OFFSET)
    position = Position(
        0,
        offset,
        _number(values["truncated"], 2**32 - 1),
        values["skipping"] is True,
        bytes.fromhex(str(values["digest"])),
        # Older versions wrote neither of these.
        _number(values.get("size", offset), MAX_OFFSET),
        _anchor(values.get("anchor")),
    )
    if len(position.digest) not in (0, _DIGEST_BYTES):
        raise ValueError("a digest of another length")
    identity = _number(values["device"], 2**64 - 1), _number(values["inode"], 2**64 - 1)
    return SavedStream(identity, position)


def _anchor(values: object) -> Anchor | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise TypeError("an anchor is none or has values")
    offset = _number(values["offset"], MAX_OFFSET)
    digest = bytes.fromhex(str(values["digest"]))
    if not offset or len(digest) != _DIGEST_BYTES:
        raise ValueError("an anchor that says nothing")
    return Anchor(offset, values["skipping"] is True, digest)


def _number(value: object, high: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= high:
        raise ValueError(f"expected a number up to {high}")
    return value
