"""What the monitor may still ask of the kernel: a list of system calls. Any other ends it (seccomp(2)).

The list is what the monitor calls, what the C library may call for it, and nothing else: read what it holds,
its channels, waiting, time, memory. Nothing that takes a path, a process or an address is on it.

libseccomp's Python binding brings the numbers of each architecture. It is loaded, and the filter made, while
files can still be opened; `enter` then only hands it to the kernel. Monitor only, but for `load_binding`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD
from mmap import MAP_SHARED, PROT_EXEC
from typing import Any

from lognot.privileges import PR_SET_PDEATHSIG

HOW_TO_HAVE_IT = "expected the package python3-seccomp (Debian) or python3-libseccomp (Fedora)"

_CALLS = (
    *("read", "pread64", "lseek", "_llseek", "close"),
    # A destination that is given to sendmsg(2) is ignored: the sockets are connected ones that keep packet
    # boundaries (net/unix/af_unix.c, unix_seqpacket_sendmsg).
    *("recvmsg", "sendmsg", "getsockname", "getpeername", "getsockopt"),
    *("epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"),
    # The timers of long searches and of closes that wait (linger.py); the clocks where the kernel must be
    # asked for them (vdso(7)).
    *("setitimer", "clock_gettime", "clock_gettime64", "gettimeofday", "time"),
    # With mprotect(2) a compiler may make its own memory executable: PCRE's, or one of the interpreter.
    *("brk", "mremap", "munmap", "mprotect", "madvise"),
    # Machine code that was just made is shown to the processor (ARM, RISC-V).
    *("cacheflush", "riscv_flush_icache"),
    *("futex", "futex_time64", "sched_yield", "getrandom", "getpid", "gettid"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall"),
    *("exit", "exit_group"),
)
# No lease, no owner of signals. No flags of open files (F_SETFL) either: the next monitor gets the same open
# files, and with O_DIRECT most reads of a log would fail. O_NONBLOCK is set by ioctl(2), and does no harm.
_FCNTL_COMMANDS = (F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC)
_PR_SET_VMA = 0x53564D41  # linux/prctl.h: the C library names its memory, where a tunable asks for it
_STANDARD_ERROR = 2  # is /dev/null; what a dying interpreter or C library prints
_ALL_BITS = 0xFFFFFFFF  # of a C int
# That there is no binding, none that fits, or no filter to be had of it.
_NOT_TO_BE_HAD = (ImportError, AttributeError, OSError, RuntimeError, ValueError)


def load_binding() -> None:
    """Load what a filter is made with, so that all monitors share it. Where it is missing, they say so."""
    with suppress(*_NOT_TO_BE_HAD):
        import termios  # noqa: F401

        import seccomp  # noqa: F401


class Sandbox:
    """The filter, made but not yet in force.

    Args:
        jit_files: machine code is made in memory files here, see `pattern.jit_uses_files`.

    Attributes:
        missing: why the monitor has to do without; "" when it has not.
    """

    def __init__(self, *, jit_files: bool) -> None:
        self.missing = ""
        try:
            import termios

            import seccomp

            self._filter = _make_filter(seccomp, termios.FIONBIO, jit_files=jit_files)
        except _NOT_TO_BE_HAD as error:
            self.missing = f"{error}; {HOW_TO_HAVE_IT}"

    def enter(self) -> None:
        """Put it in force, for ever. Where that cannot be, `missing` says why."""
        if self.missing:
            return
        # Nobody reads what these print, and both would open the source file to show a line of it.
        sys.unraisablehook = _say_nothing
        warnings.simplefilter("ignore")
        try:
            self._filter.load()
        except (OSError, RuntimeError) as error:
            self.missing = f"the kernel takes no filter of system calls: {error}"
        del self._filter
        ctypes.CDLL(None).malloc_trim(0)  # 0.4 MB that making it took


def _make_filter(seccomp: Any, fionbio: int, *, jit_files: bool) -> Any:
    made = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    # What comes by the table of another architecture (int 0x80 on amd64) has other numbers.
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    here = seccomp.Arch()

    def allow(name: str, *arguments: tuple[int, int, int]) -> None:
        """Allow a call with such arguments: for each its index, the bits looked at, and what they must be."""
        if seccomp.resolve_syscall(here, name) == -1:  # newer than this libseccomp
            return
        expected = (seccomp.Arg(index, seccomp.MASKED_EQ, *bits) for index, *bits in arguments)
        made.add_rule(seccomp.ALLOW, name, *expected)

    def has(index: int, value: int) -> tuple[int, int, int]:
        return index, _ALL_BITS, value & _ALL_BITS

    for name in _CALLS:
        allow(name)
    for name in ("write", "writev"):
        allow(name, has(0, _STANDARD_ERROR))
    for command in _FCNTL_COMMANDS:
        allow("fcntl", has(1, command))
        allow("fcntl64", has(1, command))
    allow("ioctl", has(1, fionbio))
    # abort(3), which is how the interpreter and the C library end when they find their memory broken.
    allow("tgkill", has(0, os.getpid()), has(2, signal.SIGABRT))
    allow("prctl", has(0, _PR_SET_VMA))
    for number in (0, signal.SIGKILL):
        allow("prctl", has(0, PR_SET_PDEATHSIG), has(1, number))
    # No library is loaded by accident: none is mapped as code. It keeps nobody from running a file's bytes,
    # for mprotect(2) is allowed. Where there is mmap2(2), the arguments of mmap(2) are in memory, which no
    # filter can look into.
    mmap = "mmap2" if seccomp.resolve_syscall(here, "mmap2") >= 0 else "mmap"
    allow(mmap, (2, PROT_EXEC, 0))
    allow(mmap, has(4, -1))
    if jit_files:
        allow(mmap, has(3, MAP_SHARED))
        allow("memfd_create")
        allow("fchmod", has(1, 0))
        allow("ftruncate")
        allow("ftruncate64")
    return made


def _say_nothing(_: object) -> None:
    pass
