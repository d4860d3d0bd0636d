"""How the fields of a message are written and read: one maker for each kind of field. Pure.

A maker gives a dataclass field that carries its codec; `lognot.messages` declares its messages with them.
Reading is strict: a length over its limit, a byte too few or too many is a ProtocolError.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import field
from enum import IntEnum
from typing import Any, NamedTuple

from lognot.errors import ProtocolError

MAX_NAME_BYTES = 255  # NAME_MAX of Linux
MAX_WATCHES = 256  # directories that one path may lead through, symbolic links included
MAX_PID = 2**22  # PID_MAX_LIMIT of Linux (proc(5), pid_max)
UNKNOWN_STATUS = 0xFFFFFFFF  # of a process that was another's child
MAX_GROUPS = 65536  # PCRE numbers groups up to 65535

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_PAIR = struct.Struct(">II")
_NONE = 0xFFFFFFFF  # stands for -1 in a span: a group that took no part


class Reader:
    """Takes fields off an encoded message, front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1  # behind the type byte

    def take(self, length: int) -> bytes:
        """Give the next bytes.

        Raises:
            ProtocolError: there are not so many.
        """
        end = self._at + length
        if end > len(self._data):
            raise ProtocolError("message is too short")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self) -> int:
        """Give the next number of four bytes."""
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def end(self) -> None:
        """Make sure that all was taken.

        Raises:
            ProtocolError: something is left.
        """
        if self._at != len(self._data):
            raise ProtocolError("message is too long")


class Codec(NamedTuple):
    """How one field is written and read."""

    put: Callable[[Any], bytes]
    get: Callable[[Reader], Any]


def _bounded(value: int, limit: int) -> int:
    if value > limit:
        raise ProtocolError(f"{value} is over the limit of {limit}")
    return value


def u32() -> Any:
    """An unsigned number below 2**32."""
    return field(metadata={"codec": Codec(_U32.pack, Reader.number)})


def u64() -> Any:
    """An unsigned number below 2**64."""
    return field(metadata={"codec": Codec(_U64.pack, lambda reader: _U64.unpack(reader.take(8))[0])})


def pid() -> Any:
    """A process id: the functions of the os module take no larger ones."""
    return field(
        metadata={"codec": Codec(_U32.pack, lambda reader: _bounded(reader.number(), MAX_PID))},
    )


def flag() -> Any:
    """True or False, nothing else."""

    def get(reader: Reader) -> bool:
        return bool(_bounded(reader.take(1)[0], 1))

    return field(metadata={"codec": Codec(lambda value: bytes((bool(value),)), get)})


def data(limit: int) -> Any:
    """Bytes, at most `limit` of them."""

    def put(value: bytes) -> bytes:
        return _U32.pack(_bounded(len(value), limit)) + value

    def get(reader: Reader) -> bytes:
        return reader.take(_bounded(reader.number(), limit))

    return field(metadata={"codec": Codec(put, get)})


def choice(kind: type[IntEnum]) -> Any:
    """A member of an IntEnum."""

    def get(reader: Reader) -> IntEnum:
        try:
            return kind(reader.take(1)[0])
        except ValueError as error:
            raise ProtocolError(str(error)) from None

    return field(metadata={"codec": Codec(lambda value: bytes((value,)), get)})


def numbers(limit: int) -> Any:
    """A tuple of numbers below 2**32, at most `limit` of them."""

    def put(value: tuple[int, ...]) -> bytes:
        return struct.pack(f">I{len(value)}I", _bounded(len(value), limit), *value)

    def get(reader: Reader) -> tuple[int, ...]:
        count = _bounded(reader.number(), limit)
        return struct.unpack(f">{count}I", reader.take(4 * count))

    return field(metadata={"codec": Codec(put, get)})


def spans() -> Any:
    """A tuple of (start, end) offsets; (-1, -1) is a group that took no part."""

    def put(value: tuple[tuple[int, int], ...]) -> bytes:
        flat = [_NONE if number < 0 else number for span in value for number in span]
        return struct.pack(f">I{len(flat)}I", _bounded(len(value), MAX_GROUPS), *flat)

    def get(reader: Reader) -> tuple[tuple[int, int], ...]:
        count = _bounded(reader.number(), MAX_GROUPS)
        pairs = list(_PAIR.iter_unpack(reader.take(_PAIR.size * count)))
        if any((start == _NONE) != (end == _NONE) for start, end in pairs):
            raise ProtocolError("half a group")
        return tuple((-1, -1) if start == _NONE else (start, end) for start, end in pairs)

    return field(metadata={"codec": Codec(put, get)})


def wait_status() -> Any:
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
            "codec": Codec(lambda value: _U32.pack(checked(value)), lambda reader: checked(reader.number()))
        }
    )


def watches() -> Any:
    """A tuple of (watch descriptor, name in that directory)."""

    def put(value: tuple[tuple[int, bytes], ...]) -> bytes:
        parts = [_U32.pack(_bounded(len(value), MAX_WATCHES))]
        for wd, name in value:
            parts.append(_PAIR.pack(wd, _bounded(len(name), MAX_NAME_BYTES)) + name)
        return b"".join(parts)

    def get(reader: Reader) -> tuple[tuple[int, bytes], ...]:
        found = []
        for _ in range(_bounded(reader.number(), MAX_WATCHES)):
            wd, length = _PAIR.unpack(reader.take(_PAIR.size))
            found.append((wd, reader.take(_bounded(length, MAX_NAME_BYTES))))
        return tuple(found)

    return field(metadata={"codec": Codec(put, get)})
