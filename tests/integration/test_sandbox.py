"""The filter of system calls around the monitor: what ends it, what it may do, and what happens without."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable
from fcntl import F_SETFL, F_SETLEASE, F_SETOWN
from pathlib import Path

import pytest

from integration import accounts
from integration.conftest import ENGINES
from integration.harness import SOURCE, Service, append, lines_of, wait_for
from integration.processes import status
from lognot.children import how_it_ended
from lognot.errors import MatchLimitError
from lognot.monitor import shut_in
from lognot.pattern import compile_pattern, jit_uses_files
from lognot.privileges import JIT_FILE_BYTES, PR_SET_PDEATHSIG
from lognot.tail import Tail, size_of
from lognot.users import Account, current_account, monitor_account

seccomp = pytest.importorskip("seccomp", reason="needs python3-seccomp")

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)

AT_FDCWD = -100
READ, WRITE, EXEC = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
NOWHERE = b"/nowhere/at/all"


def monitors_account() -> Account:
    return current_account() if os.geteuid() else monitor_account()


class Shut:
    """Runs functions in processes that have been through what the monitor goes through."""

    def __init__(self) -> None:
        self.account = monitors_account()

    def status_of(self, function: Callable[[], object]) -> tuple[int, str]:
        """Give the wait status, and what a failing function said."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()  # pytest's
            gc.freeze()  # what pytest has left behind is none of ours
            try:
                without = shut_in(self.account)
                theirs.sendmsg([without.encode() or b"in"])
                function()
                os._exit(0)
            except BaseException as error:
                theirs.sendmsg([repr(error).encode()])
            finally:
                os._exit(1)
        theirs.close()
        with ours:
            words = [ours.recv(4096).decode(), ours.recv(4096).decode()]
        assert words[0] == "in"
        return os.waitpid(pid, 0)[1], words[1]

    def ends(self, function: Callable[[], object]) -> str:
        """Give how a process ends that calls this."""
        return how_it_ended(self.status_of(function)[0])

    def works(self, function: Callable[[], object]) -> None:
        """A process that calls this ends well."""
        wait_status, words = self.status_of(function)
        assert wait_status == 0, f"{how_it_ended(wait_status)} {words}"


@pytest.fixture(scope="module")
def shut() -> Shut:
    return Shut()


ITEM = "[ITEM]\npath = @/log\nregex = go (\\w+)\nupbound_action = echo $1 >> @/out\n"
NO_FILTER = "the monitor runs without a filter of system calls"
FORBIDDEN_END = "killed by SIGSYS: a system call that its sandbox forbids"

# Each of them does no harm where it is not forbidden.
FORBIDDEN: dict[str, tuple[object, ...]] = {
    # Files by their paths.
    "open": (b"/dev/null", 0),
    "openat": (AT_FDCWD, b"/dev/null", 0),
    "openat2": (AT_FDCWD, b"/dev/null", 0, 0),
    "creat": (NOWHERE, 0o600),
    "stat": (b"/", bytes(256)),
    "lstat": (b"/", bytes(256)),
    "newfstatat": (AT_FDCWD, b"/", bytes(256), 0),
    "statx": (AT_FDCWD, b"/", 0, 0, bytes(256)),
    "access": (b"/", 0),
    "readlink": (b"/", bytes(16), 16),
    "unlink": (NOWHERE,),
    "unlinkat": (AT_FDCWD, NOWHERE, 0),
    "rename": (NOWHERE, NOWHERE),
    "renameat2": (AT_FDCWD, NOWHERE, AT_FDCWD, NOWHERE, 0),
    "link": (NOWHERE, NOWHERE),
    "symlink": (NOWHERE, NOWHERE),
    "mkdir": (NOWHERE, 0),
    "mknod": (NOWHERE, 0, 0),
    "chmod": (NOWHERE, 0),
    "fchmodat": (AT_FDCWD, NOWHERE, 0),
    "chown": (NOWHERE, -1, -1),
    "truncate": (NOWHERE, 0),
    "chdir": (NOWHERE,),
    "chroot": (NOWHERE,),
    "getdents64": (0, bytes(64), 64),
    "setxattr": (NOWHERE, b"user.x", b"", 0, 0),
    "inotify_init1": (0,),
    "inotify_add_watch": (0, b"/", 0),
    "fanotify_init": (0, 0),
    "open_by_handle_at": (-1, 0, 0),
    # Connections.
    "socket": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "socketpair": (socket.AF_UNIX, socket.SOCK_STREAM, 0, bytes(8)),
    "connect": (-1, 0, 0),
    "bind": (-1, 0, 0),
    "listen": (-1, 0),
    "accept4": (-1, 0, 0, 0),
    "sendto": (-1, b"", 0, 0, 0, 0),
    "setsockopt": (-1, 0, 0, 0, 0),
    "pipe2": (bytes(8), 0),
    "memfd_create": (b"x", 0),
    # Processes.
    "fork": (),
    "vfork": (),
    "clone": (signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": (0, 0),
    "execve": (b"/bin/true", 0, 0),
    "execveat": (AT_FDCWD, b"/bin/true", 0, 0, 0),
    "kill": (1, 0),
    "tkill": (1, 0),
    "rt_sigqueueinfo": (1, 0, 0),
    "pidfd_open": (1, 0),
    "pidfd_send_signal": (-1, 0, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "ptrace": (0, 0, 0, 0),
    "process_vm_readv": (1, 0, 0, 0, 0, 0),
    "process_vm_writev": (1, 0, 0, 0, 0, 0),
    "kcmp": (1, 1, 0, 0, 0),
    "setpgid": (0, 0),
    "setsid": (),
    "prlimit64": (0, resource.RLIMIT_NPROC, 0, bytes(16)),
    "setpriority": (0, 0, 0),
    # Who it is.
    "setuid": (0,),
    "setgid": (0,),
    "setresuid": (-1, -1, -1),
    "setgroups": (0, 0),
    "capset": (0, 0),
    "prctl": (3,),
    "seccomp": (0, 0, 0),
    "personality": (0xFFFFFFFF,),
    "keyctl": (0, -3, 0),
    "add_key": (0, 0, 0, 0, 0),
    # The kernel.
    "mount": (0, 0, 0, 0, 0),
    "umount2": (NOWHERE, 0),
    "pivot_root": (NOWHERE, NOWHERE),
    "fsopen": (NOWHERE, 0),
    "unshare": (0,),
    "setns": (-1, 0),
    "bpf": (-1, 0, 0),
    "perf_event_open": (0, 0, 0, 0, 0),
    "io_uring_setup": (0, 0),
    "userfaultfd": (-1,),
    "init_module": (0, 0, NOWHERE),
    "kexec_load": (0, 0, 0, 0),
    "reboot": (0, 0, 0, 0),
    "swapon": (NOWHERE, 0),
    "sethostname": (0, -1),
    "shmget": (0, 0, 0),
    "mq_open": (NOWHERE, 0, 0, 0),
    "landlock_create_ruleset": (0, 0, 0),
}

SOME_ARGUMENTS: dict[str, tuple[str, tuple[object, ...]]] = {
    "a terminal's input": ("ioctl", (0, termios.TIOCSTI, b"x")),
    "a terminal's settings": ("ioctl", (0, termios.TCGETS, bytes(256))),
    "a lease": ("fcntl", (0, F_SETLEASE, 0)),
    "signals to others": ("fcntl", (0, F_SETOWN, 1)),
    "direct reads, for whoever reads the same open file": ("fcntl", (0, F_SETFL, os.O_DIRECT)),
    "another signal at the supervisor's end": ("prctl", (PR_SET_PDEATHSIG, signal.SIGCHLD)),
    "another signal to itself": ("tgkill", (0, 0, signal.SIGTERM)),  # 0: not the pid that the filter knows
    "a file that becomes code": ("mmap", (0, 4096, READ | EXEC, mmap.MAP_PRIVATE, 0, 0)),
    "writing to what it holds": ("write", (0, b"x", 0)),
}


def raw(name: str, *arguments: object) -> None:
    """Make a system call, whatever the C library thinks of it."""
    number = seccomp.resolve_syscall(seccomp.Arch(), name)
    LIBC.syscall(
        ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    )


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_a_call_that_is_not_on_the_list_ends_the_monitor(shut: Shut, name: str) -> None:
    if seccomp.resolve_syscall(seccomp.Arch(), name) < 0:
        pytest.skip("this architecture has no such call, or libseccomp does not know it")
    if name == "memfd_create" and jit_uses_files():
        pytest.skip("libpcre2 uses it here")
    assert shut.ends(lambda: raw(name, *FORBIDDEN[name])) == FORBIDDEN_END


@pytest.mark.parametrize("what", sorted(SOME_ARGUMENTS))
def test_a_call_that_is_on_the_list_with_other_arguments_ends_it_too(shut: Shut, what: str) -> None:
    name, arguments = SOME_ARGUMENTS[what]
    if seccomp.resolve_syscall(seccomp.Arch(), f"{name}2") >= 0:
        name += "2"  # mmap2
    assert shut.ends(lambda: raw(name, *arguments)) == FORBIDDEN_END


INT_80 = bytes.fromhex("b814000000 cd80 c3")  # mov eax, 20 (getpid, in the table of i386); int 0x80; ret
X32 = 0x40000000  # asm/unistd.h, __X32_SYSCALL_BIT
GETPID = 39


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="is about amd64")
def test_other_tables_of_calls_are_no_way_around(shut: Shut) -> None:
    def call_as_i386() -> None:
        code = LIBC.mmap(None, 4096, READ | WRITE | EXEC, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        ctypes.memmove(code, INT_80, len(INT_80))
        ctypes.CFUNCTYPE(ctypes.c_int)(code)()

    # A kernel without that table ends it in its own way.
    assert shut.ends(call_as_i386) in (FORBIDDEN_END, "killed by SIGSEGV")
    assert shut.ends(lambda: LIBC.syscall(ctypes.c_long(X32 | GETPID))) == FORBIDDEN_END


# What it may do.


def test_it_reads_and_maps_what_it_holds(shut: Shut, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(8192) + b"one\ntwo\n")
    with path.open("rb") as file:
        fd = file.fileno()

        def read() -> None:
            assert size_of(fd) == 8200
            assert Tail(fd, 1000).read().blocks[0].lines == b"one\ntwo\n"
            mapped = LIBC.mmap(None, 4096, READ, mmap.MAP_PRIVATE, fd, 8192)
            assert ctypes.string_at(mapped, 4) == b"one\n"
            os.close(os.dup(fd))
            os.write(2, b"")

        shut.works(read)


def test_it_talks_through_what_it_holds_and_to_nobody_else(shut: Shut, tmp_path: Path) -> None:
    """Also where it names somebody else to sendmsg(2)."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        service.bind(str(tmp_path / "service"))
        listener.bind(str(tmp_path / "listener"))
        listener.listen()
        for path in (tmp_path, tmp_path / "service", tmp_path / "listener"):
            path.chmod(0o777)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def talk() -> None:
            one = socket.socket(fileno=theirs.detach())
            one.setblocking(False)
            for name in ("service", "listener"):
                one.sendmsg([b"hello"], [], 0, str(tmp_path / name))
            with pytest.raises(BrokenPipeError):
                orphan.sendmsg([b"hello"], [], socket.MSG_NOSIGNAL, str(tmp_path / "service"))

        orphan, gone = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gone.close()
        shut.works(talk)
        assert [ours.recv(10), ours.recv(10)] == [b"hello", b"hello"]
        for end in (ours, theirs, orphan):
            end.close()
        for other in (service, listener):
            other.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.recv(10)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("engine", ENGINES)
def test_it_compiles_and_searches(shut: Shut, engine: str) -> None:
    def search() -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 100)
        for number in range(200):
            pattern = compile_pattern(b"x(\\d+)" * (number + 1), engine)
            assert pattern.search(b"x1" * number) is None
            assert pattern.search(b"\xe9" + b"x1" * 200) is not None
        assert not compile_pattern(b"(a+)+$", engine).search(b"aaa!")
        with pytest.raises(MatchLimitError):
            compile_pattern(b"(a+)+$", engine).search(b"a" * 100 + b"!")

    shut.works(search)


def test_where_machine_code_is_made_in_memory_files_these_may_be_made(
    shut: Shut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What such a libpcre2 does: built with --enable-jit-sealloc, as Fedora has it."""

    def make() -> None:
        fd = os.memfd_create("sljit")
        os.fchmod(fd, 0)
        os.ftruncate(fd, 65536)
        written = LIBC.mmap(None, 65536, READ | WRITE, mmap.MAP_SHARED, fd, 0)
        code = LIBC.mmap(None, 65536, READ | EXEC, mmap.MAP_SHARED, fd, 0)
        ctypes.memmove(written, b"x", 1)
        assert ctypes.string_at(code, 1) == b"x"
        with pytest.raises(OSError, match="too large"):
            os.ftruncate(fd, JIT_FILE_BYTES + 1)
        os.close(fd)

    monkeypatch.setattr("lognot.monitor.jit_uses_files", lambda: True)
    shut.works(make)
    assert shut.ends(lambda: raw("fchmod", 0, 0o777)) == FORBIDDEN_END


def test_it_takes_and_gives_back_memory(shut: Shut) -> None:
    def use() -> None:
        for _ in range(2):
            small = [bytes(size) for size in range(0, 20000, 4)]
            large = bytearray(64 * 2**20)
            large += bytes(64 * 2**20)
            del small, large
        os.urandom(10)

    shut.works(use)


def test_it_lives_through_a_want_of_memory(shut: Shut) -> None:
    LIBC.malloc.restype = ctypes.c_void_p

    def want() -> None:
        more_than_there_is = 2**62
        with pytest.raises(MemoryError):
            bytearray(more_than_there_is)
        assert LIBC.malloc(ctypes.c_size_t(more_than_there_is)) is None
        assert bytearray(2**20)

    shut.works(want)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_real_service_is_shut_in(service: Callable[..., Service], tmp_path: Path, engine: str) -> None:
    lognot = service(f"[general]\nregex_engine = {engine}\n{ITEM}").start()
    own = status(os.getpid())
    for name, role in {"monitor": lognot.role("monitor"), "executor": lognot.role("executor")}.items():
        found = status(role)
        assert (found["Seccomp"], found["NoNewPrivs"]) == (
            ("2", "1") if name == "monitor" else (own["Seccomp"], own["NoNewPrivs"])
        )
    assert status(lognot.pid)["Seccomp"] == own["Seccomp"]
    # What was not loaded at the start is not looked for later.
    for other in ENGINES:
        lognot.reload(f"[general]\nregex_engine = {other}\n{ITEM}")
        append(tmp_path / "log", f"go {other}\n")
        wait_for(lambda other=other: other in lines_of(tmp_path / "out"), "the action")
    assert "monitor ended" not in lognot.log
    assert NO_FILTER not in lognot.log


def limit_memory(pid: int, limit_bytes: int) -> None:
    """Limit a monitor's addresses; as its own user, since root may lack CAP_SYS_RESOURCE (prlimit(2))."""
    account = monitors_account()
    become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    command = ["prlimit", f"--pid={pid}", f"--as={limit_bytes}:{limit_bytes}"]
    subprocess.run([*(become if os.geteuid() == 0 else []), *command], check=True)


def test_a_monitor_that_has_no_memory_left_says_so(service: Callable[..., Service], tmp_path: Path) -> None:
    """The line that was too much is read by the next one, and nothing is lost."""
    lognot = service(f"[general]\nmax_line = 16M\n{ITEM}").start()
    monitor = lognot.role("monitor")
    size_bytes = int(status(monitor)["VmSize"].split()[0]) * 1024
    limit_memory(monitor, size_bytes + 2**20)
    append(tmp_path / "log", b"go 0 " + b"x" * 8 * 2**20 + b"\n" + b"go 1\n")
    lognot.wait_log(r"monitor failed: MemoryError: .*\(\w+\.py:\d+\)$")
    wait_for(lambda: "1" in lines_of(tmp_path / "out"), "the last line")
    lognot.wait_log("action ended with exit status 0", 2)
    seen = [int(line.split()[0]) for line in lines_of(tmp_path / "out")]
    assert sorted(seen) == [0, 1]
    accounts.numbered("monitor without memory", seen, 2, times=1)


def test_the_end_by_the_filter_is_said_in_words(service: Callable[..., Service]) -> None:
    lognot = service(ITEM).start()
    monitor = lognot.role("monitor")
    os.kill(monitor, signal.SIGSYS)
    lognot.wait_log(rf"monitor ended \({FORBIDDEN_END}\), will be started again now$")
    wait_for(lambda: lognot.role("monitor") != monitor, "the next monitor")
    wait_for(lambda: status(lognot.role("monitor"))["Seccomp"] == "2", "the filter")


NO_MODULE = "raise ImportError('none today')\n"
BROKEN_MODULE = "raise RuntimeError('made for another interpreter')\n"
# As where a kernel was built without CONFIG_SECCOMP_FILTER.
NO_KERNEL = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location(__name__, {!r})
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
globals().update(vars(real))
class SyscallFilter(real.SyscallFilter):
    def load(self):
        raise OSError(22, "Invalid argument")
"""


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (NO_MODULE, r"none today; expected the package python3-seccomp .*"),
        (BROKEN_MODULE, r"made for another interpreter; expected the package python3-seccomp .*"),
        (
            NO_KERNEL.format(seccomp.__file__),
            r"the kernel takes no filter of system calls: .*Invalid argument",
        ),
    ],
    ids=["no binding", "broken binding", "no kernel"],
)
def test_without_a_filter_there_is_one_warning(
    service: Callable[..., Service], tmp_path: Path, module: str, reason: str
) -> None:
    """However often the monitor is started again."""
    (tmp_path / "seccomp.py").write_text(module)
    (tmp_path / "seccomp.py").chmod(0o644)
    lognot = service(ITEM, environment={"PYTHONPATH": f"{SOURCE}:{tmp_path}"}).start()
    lognot.wait_log(rf": warning: {NO_FILTER}: {reason}$")
    for number in range(3):
        append(tmp_path / "log", f"go {number}\n")
        wait_for(lambda number=number: str(number) in lines_of(tmp_path / "out"), "the action")
        monitor = lognot.role("monitor")
        assert status(monitor)["Seccomp"] == status(os.getpid())["Seccomp"]
        os.kill(monitor, signal.SIGKILL)
        lognot.wait_log("monitor ended .killed by SIGKILL.", number + 1)
    append(tmp_path / "log", "go on\n")
    wait_for(lambda: "on" in lines_of(tmp_path / "out"), "the action")
    assert lognot.log.count(NO_FILTER) == 1


UNHEARD = """\
import os, warnings
from lognot.monitor import shut_in
from lognot.users import Account
class Broken:
    def __del__(self):
        raise ValueError("nobody hears this")
assert shut_in(Account(*{!r})) == ""
Broken()
warnings.warn("nobody sees this")
os._exit(7)
"""


def test_no_message_of_the_interpreter_opens_a_file(tmp_path: Path) -> None:
    """Python would show the line that it is about."""
    account = monitors_account()
    script = tmp_path / "script.py"
    script.write_text(UNHEARD.format((account.uid, account.gid, (), account.name, account.home)))
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, b"")


def test_when_it_finds_its_memory_broken_it_says_so_in_its_own_way(shut: Shut) -> None:
    assert shut.ends(os.abort) == "killed by SIGABRT"
