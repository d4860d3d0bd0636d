"""Memory that outlives the service: a file on a tmpfs, gone when the machine restarts. Supervisor only.

It holds the ledger, which is exact at every instant, and beside it what the supervisor alone knows: which
file each slot of the ledger is about, and which item each number means. So a new service goes on exactly
where the last one ended, also after SIGKILL; only the file on disk (state.py) survives a reboot.

The roll is mapped so that children do not inherit it, and what they hold to keep others away is a file beside
it: a monitor, which the ledger is shared with, can neither read nor change it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import time
from _blake2 import blake2b  # as hashlib has it, without OpenSSL (1 MB)
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lognot.errors import StateError
from lognot.ledger import LEDGER_BYTES, MAX_STREAMS
from lognot.service import ORPHAN_S
from lognot.settings import MAX_ITEMS
from lognot.state import KEY_BYTES, Identity

MAGIC = b"lognot 2"  # another one for any other layout, of the ledger too
DIGEST_BYTES = 16
SECRET_BYTES = 32
NO_KEY = bytes(KEY_BYTES)
LOCKED_S = ORPHAN_S + 1.0
LOCK_RETRY_S = 0.02

# What each of these structures begins with says whether the rest means anything. That is one word, written
# last, by one store, since SIGKILL comes at any moment. (Struct.pack_into() clears a place before it writes.)
_HEADER = struct.Struct(f"=8s{KEY_BYTES}s{SECRET_BYTES}s")  # magic, key, secret
_SLOT = struct.Struct(f"=QQQB{DIGEST_BYTES}s")  # stream, device, inode, whether from its beginning, log
_COUNT_AT = 64
_WORD_BYTES = 8
_COUNT = struct.Struct("=Q")  # of items
_EARLIER_AT = 128  # key of the state before; older versions have left it zero
_ITEM = struct.Struct(f"=I{DIGEST_BYTES}s")  # number, what it is
_SLOTS_AT = 4096
_SLOT_BYTES = 64
_ITEMS_AT = _SLOTS_AT + MAX_STREAMS * _SLOT_BYTES
_ITEM_BYTES = 32
_ROLL_BYTES = _ITEMS_AT + MAX_ITEMS * _ITEM_BYTES
assert _HEADER.size <= _COUNT_AT
assert _ROLL_BYTES % mmap.ALLOCATIONGRANULARITY == 0  # where the mapping of the ledger begins

_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

# linux/magic.h: file systems that are memory and nothing else. Elsewhere the file may be of an older boot.
_MEMORY_FILE_SYSTEMS = (0x01021994, 0x858458F6)  # tmpfs, ramfs


@dataclass(frozen=True, slots=True)
class Listed:
    """A slot of the ledger that is in use."""

    slot: int
    stream_id: int
    identity: Identity
    from_begin: bool  # where to begin it, if no monitor has
    log: bytes  # digest of the log's path


class Roll:
    """The memory.

    Args:
        path: of the file, made where it is not there. Beside it is PATH.lock.

    Attributes:
        ledger: memory for the ledger, which is shared with children.
        key: of the state that it belongs to; NO_KEY in a new one.
        secret: the ledger's.
        lock_fd: of an empty file. Whoever holds it too uses the memory, as every monitor does: one that
            sees through what a killed service was about still writes there.

    Raises:
        OSError: it cannot be had (open(2), posix_fallocate(3), mmap(2)).
        StateError: it is not on a file system that is memory, or in use for longer than LOCKED_S seconds.
    """

    def __init__(self, path: str) -> None:
        self.lock_fd = os.open(f"{path}.lock", _FLAGS | os.O_RDONLY, 0o600)
        try:
            if not _locked(self.lock_fd):
                raise StateError(f"'{path}' is still in use by what is left of a lognot that was killed")
            self._map(path)
        except (OSError, StateError):
            self.close()
            raise
        magic, self.key, self.secret = _HEADER.unpack_from(self._memory)
        if magic != MAGIC:
            self.begin(NO_KEY, bytes(SECRET_BYTES))

    def _map(self, path: str) -> None:
        fd = os.open(path, _FLAGS | os.O_RDWR, 0o600)
        try:
            if _file_system(fd) not in _MEMORY_FILE_SYSTEMS:
                raise StateError(f"'{path}' is not on a tmpfs")
            if os.fstat(fd).st_size != _ROLL_BYTES + LEDGER_BYTES:
                os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, _ROLL_BYTES + LEDGER_BYTES)  # no SIGBUS later, when memory is short
            self._memory = mmap.mmap(fd, _ROLL_BYTES)
            self._memory.madvise(mmap.MADV_DONTFORK)
            self.ledger = mmap.mmap(fd, LEDGER_BYTES, offset=_ROLL_BYTES)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let another service have it."""
        os.close(self.lock_fd)

    @property
    def earlier(self) -> bytes:
        """The key of the state that it has begun from, as long as that may not have been replaced."""
        return self._memory[_EARLIER_AT : _EARLIER_AT + KEY_BYTES]

    def begin(self, key: bytes, secret: bytes, earlier: bytes = NO_KEY) -> None:
        """Forget everything, and belong to another state; to `earlier`, too, until `forget_earlier`."""
        self._memory[:_WORD_BYTES] = bytes(_WORD_BYTES)
        self._memory[:] = bytes(_ROLL_BYTES)
        self.ledger[:] = bytes(LEDGER_BYTES)
        self.key, self.secret = key, secret
        self._memory[_EARLIER_AT : _EARLIER_AT + KEY_BYTES] = earlier
        self._put(0, _HEADER.pack(MAGIC, key, secret))

    def forget_earlier(self) -> None:
        """The state before is no more: it was replaced."""
        self._memory[_EARLIER_AT : _EARLIER_AT + KEY_BYTES] = NO_KEY

    def put(self, entry: Listed) -> None:
        """Say what a slot is about; the ledger has its position already.

        That is for the whole life of a stream: to write it again would be a moment without it.
        """
        (stream_id,) = _COUNT.unpack_from(self._memory, _slot_at(entry.slot))
        if stream_id == entry.stream_id:
            return
        known = _SLOT.pack(entry.stream_id, *entry.identity, entry.from_begin, entry.log)
        self._put(_slot_at(entry.slot), known)

    def clear(self, slot: int) -> None:
        """Say that a slot is about nothing any more."""
        self._put(_slot_at(slot), bytes(_WORD_BYTES))

    def slots(self) -> Iterator[Listed]:
        """Give the slots in use."""
        for slot in range(MAX_STREAMS):
            stream_id, device, inode, from_begin, log = _SLOT.unpack_from(self._memory, _slot_at(slot))
            if stream_id:
                yield Listed(slot, stream_id, (device, inode), bool(from_begin), log)

    def put_items(self, numbers: Mapping[bytes, int]) -> None:
        """Say which items have which numbers, by what they are (settings.item_digest)."""
        self._put(_COUNT_AT, _COUNT.pack(0))
        for index, (digest, number) in enumerate(numbers.items()):
            _ITEM.pack_into(self._memory, _ITEMS_AT + index * _ITEM_BYTES, number, digest)
        self._put(_COUNT_AT, _COUNT.pack(len(numbers)))

    def items(self) -> dict[bytes, int]:
        """Give the numbers of items, by what they are."""
        (count,) = _COUNT.unpack_from(self._memory, _COUNT_AT)
        found = (_ITEM.unpack_from(self._memory, _ITEMS_AT + index * _ITEM_BYTES) for index in range(count))
        return {digest: number for number, digest in found}

    def _put(self, at: int, known: bytes) -> None:
        """Write a structure, its first word last; what stands there as it should stays untouched."""
        if self._memory[at : at + len(known)] == known:
            return
        first, rest = at + _WORD_BYTES, known[_WORD_BYTES:]
        self._memory[at:first] = bytes(_WORD_BYTES)
        self._memory[first : first + len(rest)] = rest
        self._memory[at:first] = known[:_WORD_BYTES]


def log_digest(path: str) -> bytes:
    """Give what stands for a log in a slot."""
    return blake2b(os.fsencode(path), digest_size=DIGEST_BYTES).digest()


def _slot_at(slot: int) -> int:
    return _SLOTS_AT + slot * _SLOT_BYTES


def _file_system(fd: int) -> int:
    """Give the type of the file system of an open file, statfs(2); os.fstatvfs() does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    answer = (ctypes.c_long * 64)()  # struct statfs has 120 bytes; its type comes first
    if libc.fstatfs(fd, ctypes.byref(answer)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer[0] & 0xFFFFFFFF


def _locked(fd: int) -> bool:
    """Lock a file, flock(2); False when somebody else has it for too long."""
    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOCK_RETRY_S)  # nothing was begun yet, so a signal just ends us
        else:
            return True
