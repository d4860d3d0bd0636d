"""The exception family: everything that lognot raises on purpose.

Concepts raise these; the roles catch them, decide and log once.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

# Limits of the system that are met for now; nothing tells when there is room again.
RETRY_LIMITED_S = 5.0  # so it is tried again
LIMITS = frozenset((errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ETOOMANYREFS))
# And what to raise.
RAISE = {
    errno.EMFILE: "raise LimitNOFILE= of the service, or ulimit -n",
    errno.ENFILE: "raise the sysctl fs.file-max",
    errno.ETOOMANYREFS: "raise LimitNOFILE= of the service, or ulimit -n",
}
COMMAND_LINE = "command line"  # the source of problems with options of the command line

NO_DESCRIPTOR_STATUS = 9  # a role ends with it that could not take a descriptor: too much would go on without


class LognotError(Exception):
    """Base of every error that lognot raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a config: where it is, what is wrong, what was expected."""

    source: str  # the file that it is in, or COMMAND_LINE
    line: int  # 1-based; 0 when no line can be named (the file itself cannot be read)
    section: str  # "" outside of every section
    option: str  # "" when the whole section or line is meant
    text: str
    warning: bool = False  # said by --test, but no reason to refuse the config

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        parts = [f"{place}:"]
        if self.warning:
            parts.append("warning:")
        if self.section:
            parts.append(f"[{self.section}]")
        if self.option:
            parts.append(f"{self.option}:")
        return " ".join([*parts, self.text])


def in_reading_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems by file, in the order in which the files are read, then by line.

    That is the order of their names' bytes, for FILE.conf sorts before FILE.d/ and what is in it.
    """

    def place(problem: Problem) -> tuple[bool, bytes, int]:
        source = problem.source
        return source != COMMAND_LINE, source.encode("utf-8", "surrogateescape"), problem.line

    return tuple(sorted(problems, key=place))


class ConfigError(LognotError):
    """A config that cannot be used; holds every problem found, not only the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class PatternError(LognotError):
    """A regex that does not compile."""


class MatchLimitError(LognotError):
    """A match was given up: match limit, recursion limit or JIT stack (pcreapi(3), pcre2api(3))."""


class ProtocolError(LognotError):
    """A peer sent what no honest peer sends. The peer is ended and started again."""


class NoDescriptorError(ProtocolError):
    """A descriptor came that did not fit: our own limit is reached, or a dishonest peer sent too many."""


class OpenRefusedError(LognotError):
    """A log that must not be opened: opening it could make root read another file."""


class StateError(LognotError):
    """What was kept for a restart cannot be used, or not be kept."""


class PrivilegeError(LognotError):
    """Privileges could not be dropped, or could be regained afterwards."""


def reason_of(error: OSError) -> str:
    """Say why a call failed, and which limit is to be raised where one was met."""
    reason = error.strerror or str(error)
    advice = RAISE.get(error.errno or 0)
    return f"{reason}: {advice}" if advice else reason


def described(error: Exception) -> str:
    """Say what went wrong, with the path that it is about where there is one, and without a number."""
    if not isinstance(error, OSError):
        return str(error)
    if not isinstance(error.filename, str):
        return reason_of(error)
    return f"'{error.filename}': {reason_of(error)}"
