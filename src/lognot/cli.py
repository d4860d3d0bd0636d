"""The command line: options to one call, nothing else."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from lognot import __version__
from lognot.errors import described
from lognot.shown import printable

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

DEFAULT_CONFIG = "/etc/lognot.conf"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))  # it quotes arguments, which another program may have put together

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Write help or usage; since Python 3.12, argparse says nothing where that cannot be written."""
        stream = file or sys.stderr
        if message and stream:
            stream.write(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lognot",
        description="Watch logs as they are written, count the lines that match, and run a command when they "
        "come too often, too seldom, or the log grows too large.",
        epilog="See lognot(8) and lognot.conf(5).",
        allow_abbrev=False,
    )
    job = parser.add_mutually_exclusive_group()
    job.add_argument("-t", "--test", metavar="FILE", help="check a config, say what is wrong, start nothing")
    job.add_argument("-T", "--retest", metavar="REGEX", help="try a regex on the lines of standard input")
    job.add_argument(
        "--executor",
        action="store_true",
        help="run actions for a lognot with --exec-socket; systemd passes the socket",
    )
    job.add_argument("-V", "--version", action="version", version=f"lognot {__version__}")
    parser.add_argument(
        "-c", "--config", metavar="FILE", default=DEFAULT_CONFIG, help="the config (default: %(default)s)"
    )
    parser.add_argument("-l", "--logfile", metavar="FILE", help="write the own log to FILE")
    parser.add_argument("-s", "--stdout", action="store_true", help="write the own log to standard output")
    parser.add_argument("-d", "--daemon", action="store_true", help="go into the background when ready")
    parser.add_argument("-p", "--pid", metavar="PATH", help="write the process id to PATH, with --daemon")
    parser.add_argument("-u", "--uid", metavar="UID", help="run actions as this user (name or number)")
    parser.add_argument("-g", "--gid", metavar="GID", help="run actions as this group (name or number)")
    parser.add_argument(
        "-w", "--chdir", metavar="DIR", help="work in DIR: actions start there, relative paths begin there"
    )
    parser.add_argument(
        "--exec-socket", metavar="PATH", help="have actions run by the lognot --executor behind PATH"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run lognot with these arguments (those of the process by default); give the exit status.

    0: it went well. 1: it failed. 2 (by SystemExit, from argparse): wrong usage.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Log text may hold what the terminal's encoding has no character for.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        return _run(_arguments(argv))
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # else whoever read our output has seen enough
            print(f"lognot: {printable(described(error))}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in the buffer
        return 1
    except KeyboardInterrupt:
        return 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.pid and not arguments.daemon:
        parser.error("--pid is for --daemon: in the foreground, whoever started lognot knows its process id")
    if arguments.stdout and arguments.daemon:
        parser.error(
            "--stdout and --daemon exclude each other: in the background there is no standard output"
        )
    others = ("logfile", "stdout", "daemon", "exec_socket")
    if arguments.executor and any(getattr(arguments, name) for name in others):
        parser.error(
            "--executor goes with --config, --uid, --gid and --chdir alone: the other lognot has the log"
        )
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    if arguments.retest is not None:
        from lognot.trial import try_regex

        # Where standard input is closed, Python has none.
        lines = sys.stdin.buffer if sys.stdin else io.BytesIO()
        return try_regex(arguments.retest, lines, sys.stdout)
    if arguments.test is not None:
        from lognot.trial import try_config

        return try_config(arguments.test, arguments.uid, arguments.gid, arguments.chdir)
    from lognot.start import Options, start, start_launcher

    options = Options(
        config=arguments.config,
        logfile=arguments.logfile,
        stdout=arguments.stdout,
        daemon=arguments.daemon,
        pid_file=arguments.pid,
        uid=arguments.uid,
        gid=arguments.gid,
        directory=arguments.chdir,
        verbose=arguments.verbose,
        exec_socket=arguments.exec_socket,
    )
    return start_launcher(options) if arguments.executor else start(options)
