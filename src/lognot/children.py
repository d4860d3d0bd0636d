"""Start a role as a child process of the supervisor, and help when one ends.

A child is forked, not executed: the interpreter's pages stay shared and a role is back in milliseconds.
What makes that safe is that it inherits nothing that it was not given: every descriptor but its channel is
closed, standard input, output and error are /dev/null (a terminal is a way back to its owner), signals and
random state are reset. The supervisor's memory holds no log content,
and no secret but the keys of digests, which are worth nothing without the ledger.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lognot.channel import Channel, socket_pair
from lognot.errors import NO_DESCRIPTOR_STATUS, RAISE, LognotError
from lognot.messages import MAX_QUOTE_BYTES, UNKNOWN_STATUS, Message, Note, Notice
from lognot.privileges import JIT_FILE_BYTES, lock_down, set_process_title
from lognot.service import forget_signals
from lognot.users import Account

ON_WAIT_S = 0.25  # after which a caller that waits may do something else for a moment
ANSWER_BYTES = 16 * 1024 * 1024  # what a checking child may say: all the problems of a large config

_SIGNALS_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)

QUICK_DEATHS = 3  # so many in QUICK_WINDOW_NS are answered at once
QUICK_WINDOW_NS = 60 * 10**9
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 0.9  # so that a role is back within a second whatever happened


@dataclass(slots=True)
class Child:
    """A role that runs as our child: its process, and our channel to it."""

    name: str
    pid: int
    pidfd: int  # can be read once the process has ended
    channel: Channel

    def kill(self) -> None:
        """End it at once; through its pidfd, which can mean no other process."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Take what waitpid(2) says of it, after the pidfd said that it has ended."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return status


def crashed(wait_status: int) -> bool:
    """Say whether a process died of what it did: of a search that took too long, or broke the engine."""
    if wait_status == UNKNOWN_STATUS or not os.WIFSIGNALED(wait_status):
        return False
    return os.WTERMSIG(wait_status) not in _SIGNALS_FROM_OUTSIDE


def how_it_ended(wait_status: int) -> str:
    """Say in words what waitpid(2) says in a number, or that nobody could say it."""
    if wait_status == UNKNOWN_STATUS:
        return "nobody can say how"
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        if number == signal.SIGSYS:
            return "killed by SIGSYS: a system call that its sandbox forbids"
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    status = os.waitstatus_to_exitcode(wait_status)
    if status == NO_DESCRIPTOR_STATUS:
        return f"it met its limit of open files: {RAISE[errno.EMFILE]}"
    return f"exit status {status}"


def start_child(
    name: str,
    main: Callable[[Channel], None],
    *,
    from_child: frozenset[type[Message]],
    to_child: frozenset[type[Message]],
    kept: tuple[int, ...] = (),
) -> Child:
    """Fork a role.

    Args:
        name: "monitor" or "executor", for ps(1) and the log.
        main: what the child does; when it returns, the child ends with status 0.
        from_child: what we accept from it.
        to_child: what it accepts from us.
        kept: descriptors that the child has too, besides its channel.

    Raises:
        OSError: fork(2), socketpair(2) or pidfd_open(2) failed.
    """
    ours, theirs = socket_pair(from_child, to_child)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        ours.detach()  # closed below; the object must not close that number a second time
        _run_child(name, main, Channel(theirs, to_child), kept)
    theirs.close()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # no descriptor left: nothing would tell us of its end
        ours.close()
        os.kill(pid, signal.SIGKILL)  # our own child, not waited for yet: the pid is still its own
        os.waitpid(pid, 0)
        raise
    return Child(name, pid, pidfd, Channel(ours, from_child))


def _run_child(name: str, main: Callable[[Channel], None], channel: Channel, kept: tuple[int, ...]) -> None:
    """Be the child; never returns, so nothing of the supervisor's goes on here."""
    status = 1
    try:
        _inherit_only(channel.fileno(), *kept)
        set_process_title(f"lognot: {name}")
        main(channel)
        status = 0
    except BaseException as error:
        _tell_failure(channel, error)
    finally:
        os._exit(status)


def _tell_failure(channel: Channel, error: BaseException) -> None:
    with contextlib.suppress(Exception):  # it dies anyway, and the supervisor says so
        # Not by the module traceback, which opens the source files: that would be the end of a monitor.
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        assert place is not None  # it was caught
        file = os.path.basename(place.tb_frame.f_code.co_filename)
        text = f"{type(error).__name__}: {error} ({file}:{place.tb_lineno})"
        channel.send(Note(Notice.ROLE_FAILED, 0, 0, text.encode("utf-8", "replace")[:MAX_QUOTE_BYTES]))


def _inherit_only(*kept: int) -> None:
    forget_signals()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    begin = 3
    for fd in sorted(kept):
        os.closerange(begin, fd)
        begin = fd + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))
    if "random" in sys.modules:
        sys.modules["random"].seed()


def ask_child(
    function: Callable[[], bytes],
    account: Account,
    timeout_s: float,
    prepare: Callable[[], object],
    on_wait: Callable[[], object] = lambda: None,
) -> bytes:
    """Run a function in a child that became `account`, and give what it returned.

    For work on text that the supervisor itself should not touch. `prepare` is called in the child before it
    becomes `account`, to load what that one may not be able to read. `on_wait` is called now and then here.

    Raises:
        LognotError: the child could not be started, failed, said too much or took longer than `timeout_s`.
    """
    reader = writer = -1
    try:
        reader, writer = os.pipe()
        pid = os.fork()
    except OSError as error:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
        raise LognotError(f"no process can be started: {error.strerror}") from error
    if pid == 0:
        _answer(function, account, writer, prepare)
    os.close(writer)
    answer = bytearray()
    deadline = time.monotonic() + timeout_s
    complete = False
    poll = select.poll()  # select(2) takes no descriptor above 1023, and we may have a log behind each
    poll.register(reader, select.POLLIN)
    try:
        while len(answer) <= ANSWER_BYTES:
            left_s = max(0.0, deadline - time.monotonic())
            if not poll.poll(min(left_s, ON_WAIT_S) * 1000):
                if left_s <= ON_WAIT_S:
                    break
                on_wait()
                continue
            piece = os.read(reader, 65536)
            if not piece:
                complete = True
                break
            answer += piece
    finally:
        os.close(reader)
        # Our own child, not waited for yet: the pid is still its own. One that has exited keeps its status.
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if len(answer) > ANSWER_BYTES:
        raise LognotError(f"answered with more than {ANSWER_BYTES} bytes")
    if not complete:
        raise LognotError(f"gave no complete answer within {timeout_s:g} seconds")
    if status:
        reason = answer[:MAX_QUOTE_BYTES].decode("utf-8", "replace")
        raise LognotError(f"failed: {reason or how_it_ended(status)}")
    return bytes(answer)


def _answer(
    function: Callable[[], bytes], account: Account, writer: int, prepare: Callable[[], object]
) -> None:
    """Be the child of `ask_child`; never returns."""
    status = 1
    try:
        _inherit_only(writer)
        try:
            prepare()
            lock_down(account, JIT_FILE_BYTES)
            data = function()
            status = 0
        except Exception as error:
            data = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(status)


class Backoff:
    """How long to wait before a role is started again. Pure.

    The first deaths within a minute are answered at once, further ones after a delay that doubles, but never
    so long that a role would not be back within a second.
    """

    def __init__(self, quick_deaths: int = QUICK_DEATHS) -> None:
        self._quick_deaths = quick_deaths
        self._deaths_ns: deque[int] = deque(maxlen=quick_deaths + 16)

    def delay_s(self, now_ns: int) -> float:
        """Note a death, and give the seconds to wait."""
        self._deaths_ns.append(now_ns)
        recent = sum(now_ns - death < QUICK_WINDOW_NS for death in self._deaths_ns)
        if recent <= self._quick_deaths:
            return 0.0
        return min(FIRST_DELAY_S * 2.0 ** (recent - self._quick_deaths - 1), LONGEST_DELAY_S)
