"""Who a process becomes: ids, capabilities, limits. Called by a role in its first moments, never undone.

The order is OpenSSH's (uidswap.c, permanently_set_uid): groups, gid, uid, since each call needs what the
next one gives away. Then it is proved: every id is read back, and getting root again must fail.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable
from functools import cache

from lognot.errors import PrivilegeError
from lognot.users import Account

# linux/prctl.h, linux/capability.h
PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64  # numbers that the kernel's capability sets can hold
_CAPABILITY_SETS = struct.Struct("=6I")  # effective, permitted and inheritable: first the low 32 of each
_CAP_DAC_READ_SEARCH = 2
_CAP_KILL = 5
_CAP_SETGID = 6
_CAP_SETUID = 7
_CAP_SETPCAP = 8
_CAP_LEASE = 28

# Where libpcre2 makes machine code in memory files (`pattern.jit_uses_files`), each holds that of some
# regexes: 64 KiB, or as much as one regex takes, which is 320 KiB for one of 10,000 characters.
JIT_FILE_BYTES = 16 * 1024 * 1024

# What the supervisor uses: open and watch any log, signal the monitor, become others in its children, empty
# the monitor's bounding set, and ask with a lease whether a file has a writer.
_OF_SUPERVISOR = frozenset(
    (_CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_LEASE)
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4
_libc.prctl.restype = ctypes.c_int
_libc.capget.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.capget.restype = ctypes.c_int
_libc.capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.capset.restype = ctypes.c_int


def _prctl(option: int, *arguments: int) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _checked(_libc.prctl(option, *padded))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def is_root() -> bool:
    """Say whether this process may become others; where not, only what any user may do is done here."""
    return os.geteuid() == 0


def become(account: Account) -> None:
    """Become `account` for ever: supplementary groups, gid and uid, all three ids of each.

    Without root nothing changes, as nothing can.

    Raises:
        PrivilegeError: the ids are not those asked for, or root could be had back.
        OSError: the kernel refuses (setgroups(2), setresgid(2), setresuid(2)).
    """
    if not is_root():
        return
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    if account.uid:
        # The inheritable ones are not tied to the uid: a container may have given some.
        _keep_capabilities(frozenset())
    _verify(account)


def _verify(account: Account) -> None:
    if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
        raise PrivilegeError(
            f"ids are {os.getresuid()} {os.getresgid()}, expected {account.uid} {account.gid}"
        )
    if set(os.getgroups()) - {account.gid} != set(account.groups) - {account.gid}:
        raise PrivilegeError(f"groups are {os.getgroups()}, expected {account.groups}")
    if account.uid == 0:
        return
    attempts: dict[str, Callable[[], None]] = {
        "setuid": lambda: os.setuid(0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setgroups": lambda: os.setgroups([0]),
    }
    if account.gid:
        attempts["setgid"] = lambda: os.setgid(0)
    for name, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            continue
        raise PrivilegeError(f"{name} gave privileges back that were dropped")


def keep_supervisor_capabilities(*, for_good: bool) -> None:
    """Give up every capability that the supervisor does not use, of those that it holds.

    Args:
        for_good: also what a program that it executes would have as root, by the bounding set and
            no_new_privs. Not where it starts executors itself: actions of root may do everything.

    Raises:
        OSError: the kernel refuses.
    """
    if for_good:
        _drop_bounding_set(but=_OF_SUPERVISOR)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _keep_capabilities(_OF_SUPERVISOR)


def lock_down(account: Account, file_bytes: int = 0) -> None:
    """Become the monitor's account and give up all that reading and counting does not need.

    No capability in any set, no new privileges, not dumpable (so that no process of the same user can look
    into it), no new process, no new file byte, and the end when the supervisor ends.

    Args:
        account: the monitor's.
        file_bytes: so large may a file become after all, see JIT_FILE_BYTES.

    Raises:
        PrivilegeError: as `become`.
        OSError: the kernel refuses one of the steps.
    """
    parent = os.getppid()
    if is_root():
        _drop_bounding_set()
    become(account)
    _keep_capabilities(frozenset())
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    forbid_tracing()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # RLIMIT_NPROC and RLIMIT_FSIZE at zero: no fork, no thread, no write to any file (setrlimit(2)).
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # to try is an error, and not the end
    # After the change of ids, which would undo it; the supervisor may be gone by then.
    end_with_parent(at_once=True)
    if os.getppid() != parent:
        raise PrivilegeError("the supervisor ended meanwhile")
    if _prctl(_PR_GET_NO_NEW_PRIVS) != 1 or _prctl(_PR_GET_DUMPABLE) != 0:
        raise PrivilegeError("no_new_privs or non-dumpable did not take")


def end_with_parent(*, at_once: bool) -> None:
    """Choose whether SIGKILL comes when the parent ends, or only the end of its connection tells us.

    Raises:
        OSError: the kernel refuses (PR_SET_PDEATHSIG(2const)).
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL if at_once else 0)


def forbid_tracing() -> None:
    """No look into this process by others of its user (ptrace(2), /proc/PID/mem), and no core dump of it.

    What it executes is not bound by that, as by a limit of the size of core dumps it would be.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def set_process_title(title: str) -> None:
    """Set what ps(1) shows of this process: its name, and its command line as far as there is room.

    The command line is the memory between arg_start and arg_end (proc(5), fields 48 and 49 of stat), which
    is ours to write. Where it cannot be had, the name alone changes.
    """
    name = ctypes.create_string_buffer(title.replace(": ", "-").encode()[:15])  # the kernel keeps 15 bytes
    _prctl(_PR_SET_NAME, ctypes.addressof(name))
    start, end = _command_line()
    if 0 < start < end:
        room = end - start
        ctypes.memmove(start, title.encode()[: room - 1].ljust(room, b"\0"), room)


@cache
def _command_line() -> tuple[int, int]:
    """Where it begins and ends in memory, also in what is forked from here; zeros if unknown."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return 0, 0


def _drop_bounding_set(but: frozenset[int] = frozenset()) -> None:
    for number in range(_CAPABILITIES):
        try:
            held = _prctl(_PR_CAPBSET_READ, number)
        except OSError:  # EINVAL: the kernel has no more than these
            return
        # CAP_SETPCAP may go first: what leaves the bounding set stays effective until setresuid().
        if held and number not in but:
            try:
                _prctl(_PR_CAPBSET_DROP, number)
            except PermissionError:  # a sandbox has taken CAP_SETPCAP; no_new_privs makes the set moot
                return


def _keep_capabilities(wanted: frozenset[int]) -> None:
    """Make these, as far as held, the effective and permitted ones; none is inheritable or ambient."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(_CAPABILITY_SETS.size)
    _checked(_libc.capget(header, held))
    mask = sum(1 << number for number in wanted)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _, low_held, _, _, high_held, _ = _CAPABILITY_SETS.unpack(held.raw)
    low, high = low & low_held, high & high_held
    _checked(_libc.capset(header, _CAPABILITY_SETS.pack(low, low, 0, high, high, 0)))
