"""From options to a running service: everything that is done once, before the supervisor's loop turns."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial

from lognot.channel import Channel
from lognot.children import Child, ask_child, start_child
from lognot.config import draft_config
from lognot.continuity import Continuity, forget, runtime_directory, state_directory
from lognot.errors import (
    ConfigError,
    LognotError,
    PatternError,
    Problem,
    StateError,
    described,
    in_reading_order,
)
from lognot.journal import ERROR, WARNING, Event, Journal, open_journal
from lognot.launched import Launched, connect_executor
from lognot.ledger import Ledger
from lognot.messages import EXECUTOR_TO_SUPERVISOR, SUPERVISOR_TO_EXECUTOR
from lognot.privileges import is_root, keep_supervisor_capabilities, set_process_title
from lognot.service import Background, PidFile, hold_standard_descriptors, ignore_requests, passed_listener
from lognot.settings import Config
from lognot.shown import printable
from lognot.state import SavedLogs
from lognot.supervisor import Roles, Supervisor
from lognot.users import FALLBACK_MONITOR_USER, Account, AccountError, current_account, monitor_account

Approve = Callable[[bytes], bool]  # says whether a config is the administrator's

CHECK_S = 30.0  # for all the regexes of a large config
MAX_OPEN_FILES = 65536  # a log needs one or two; systemd's hard limit is 524288, and closing costs time


def _nothing() -> None:
    """There is nobody to tell, but the service manager."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; see lognot(8)."""

    config: str
    logfile: str | None = None
    stdout: bool = False
    daemon: bool = False
    pid_file: str | None = None
    uid: str | None = None
    gid: str | None = None
    directory: str | None = None
    verbose: bool = False
    exec_socket: str | None = None


def start(options: Options) -> int:
    """Run the service until it is told to stop; give the exit status."""
    try:
        hold_standard_descriptors()
        if is_root():
            keep_supervisor_capabilities(for_good=options.exec_socket is not None)
        return _Start(options).run()
    except ConfigError as error:
        for problem in error.problems:
            print(printable(str(problem)), file=sys.stderr)
        print("lognot: not started, the config has errors", file=sys.stderr)
    except (LognotError, OSError) as error:
        print(f"lognot: not started: {printable(described(error))}{_about(error)}", file=sys.stderr)
    return 1


def _about(error: LognotError | OSError) -> str:
    """What root would not expect: that something can be forbidden."""
    if isinstance(error, PermissionError) and is_root():
        return " (of root's rights lognot keeps none to write where only other users may)"
    return ""


def start_launcher(options: Options) -> int:
    """Run executors for a supervisor in another service, until told to stop; give the exit status."""
    try:
        hold_standard_descriptors()
        places = _Places(options)
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        listener = passed_listener()
        directory = os.path.abspath(options.directory or "/")
        set_process_title("lognot: launcher")
        import lognot.executor  # so that all executors share its pages
        from lognot.launcher import Launcher

        _free_and_freeze()

        def run(channel: Channel, account: Account, approve: Approve) -> None:
            lognot.executor.run_executor(channel, account, directory, open_files, approve)

        return Launcher(listener, lambda: places.read_config()[0], run).run()
    except (LognotError, OSError) as error:
        print(f"lognot: not started: {printable(described(error))}", file=sys.stderr)
    return 1


class _Places:
    """The paths of the place where we were started, whatever becomes the working directory."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.config = os.path.abspath(options.config)
        self._base_dir = os.path.abspath(options.directory or os.getcwd())

    def read_config(self) -> tuple[Config, tuple[Problem, ...]]:
        """Give what the config file says, and what else there is to say of it, the regexes unchecked.

        Raises:
            ConfigError: with every problem that can be found without a regex engine.
        """
        config, problems = draft_config(
            self.config, uid=self._options.uid, gid=self._options.gid, base_dir=self._base_dir
        )
        if config is None:
            raise ConfigError(problems)
        if not is_root():
            me = current_account()
            config = replace(config, items=tuple(replace(item, run_as=me) for item in config.items))
        return config, problems


class _Start:
    """The steps, and what the later ones need of the earlier."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._places = _Places(options)
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._monitor = _monitor_of(is_root())
        self._engine = "auto"
        self._journal: Journal | None = None
        self._warnings: tuple[Problem, ...] = ()  # about the config, not said yet
        self._environment = dict(os.environ)  # as we were started with

    def run(self) -> int:
        options = self._options
        _need_proc()
        logfile = os.path.abspath(options.logfile) if options.logfile else None
        pid_path = os.path.abspath(options.pid_file) if options.pid_file else None
        config = self._load_config()  # before anything is done that would have to be undone
        if options.directory:
            os.chdir(options.directory)
        elif options.daemon:
            os.chdir("/")
        ignore_requests()  # who reads the pid file may send one at once
        background = Background() if options.daemon else None
        pid_file = PidFile(pid_path) if pid_path else None
        try:
            self._journal = journal = open_journal(
                logfile=logfile, stdout=options.stdout, verbose=options.verbose
            )
            self._warn(journal)
            self._say_warnings(journal)
            _raise_open_files(self._open_files)
            set_process_title("lognot: supervisor")
            roles = Roles(self._be_monitor, self._start_executor, self._load_config, self._keep_state)
            continuity, saved = self._load_state(config, journal)
            _share_pages()
            on_ready = background.ready if background else _nothing
            return Supervisor(config, roles, journal, on_ready, continuity, saved).run()
        finally:
            if pid_file:
                pid_file.remove()

    def _warn(self, journal: Journal) -> None:
        if not is_root():
            text = "started without root: all processes and actions run as the user who started lognot"
            journal.write(Event.PRIVILEGES, WARNING, text)
        elif self._monitor.name == FALLBACK_MONITOR_USER:
            text = (
                "there is no user _lognot: the monitor runs as nobody, whose other processes share its rights"
            )
            journal.write(Event.PRIVILEGES, WARNING, text)

    def _say_warnings(self, journal: Journal) -> None:
        for problem in self._warnings:
            journal.write(Event.CONFIG_WARNING, WARNING, str(problem), item=problem.section or None)
        self._warnings = ()

    def _load_config(self, on_wait: Callable[[], object] = _nothing) -> Config:
        """Read and check the config, and say what it warns of as soon as there is a journal.

        `on_wait` is called now and then meanwhile.

        Raises:
            ConfigError: with every problem.
        """
        config, problems = self._places.read_config()
        problems = in_reading_order((*problems, *self._check(config, on_wait)))
        if any(not problem.warning for problem in problems):
            raise ConfigError(problems)
        self._engine = config.regex_engine
        self._warnings = problems
        if self._journal:
            self._say_warnings(self._journal)
        return config

    def _load_state(self, config: Config, journal: Journal) -> tuple[Continuity | None, SavedLogs]:
        """Open what is kept over a restart, and give what the last service has left.

        Raises:
            StateError: it cannot be trusted, or another service uses it.
        """
        resuming = {item.path for item in config.items if item.resume}
        directory = state_directory(config, self._environment)
        if not resuming:
            forget(directory, config.source, journal)
            return None, {}
        try:
            continuity = Continuity(directory, config.source, journal)
        except OSError as error:
            journal.write(Event.STATE_FAILED, ERROR, f"nothing is kept for a restart: {described(error)}")
            return None, {}
        return continuity, continuity.load(runtime_directory(self._environment), resuming)

    def _keep_state(self, config: Config) -> Continuity | None:
        """Begin to keep what a restart goes on from, in a service that was started without."""
        assert self._journal is not None
        try:
            return Continuity(state_directory(config, self._environment), config.source, self._journal)
        except (OSError, StateError) as error:
            self._journal.write(
                Event.STATE_FAILED, ERROR, f"nothing is kept for a restart: {described(error)}"
            )
            return None

    def _check(self, config: Config, on_wait: Callable[[], object]) -> tuple[Problem, ...]:
        """Check the regexes and actions where they can do no harm: in a child with the monitor's rights."""

        def check() -> bytes:
            from lognot.check import check_actions, check_patterns  # it is loaded already

            problems = (*check_patterns(config), *check_actions(config))
            return json.dumps([astuple(problem) for problem in problems]).encode()

        try:
            prepare = partial(_load_checks, config.regex_engine)
            answer = json.loads(ask_child(check, self._monitor, CHECK_S, prepare, on_wait))
            return tuple(Problem(*values) for values in answer)
        except (LognotError, ValueError, TypeError) as error:
            text = f"the regexes could not be checked: {error}"
            return (Problem(self._places.config, 0, "", "", text),)

    def _be_monitor(self, channel: Channel, ledger: Ledger, service_pids: tuple[int, ...]) -> None:
        from lognot.monitor import run_monitor

        _load_engine(self._engine)
        run_monitor(channel, ledger, service_pids, self._monitor)

    def _start_executor(self, account: Account) -> Child | Launched:
        if self._options.exec_socket is not None:
            return connect_executor(self._options.exec_socket, account)
        return start_child(
            "executor",
            lambda channel: self._be_executor(channel, account, _approve_all),
            from_child=EXECUTOR_TO_SUPERVISOR,
            to_child=SUPERVISOR_TO_EXECUTOR,
        )

    def _be_executor(self, channel: Channel, account: Account, approve: Approve) -> None:
        from lognot.executor import run_executor

        directory = os.getcwd() if self._options.directory else "/"
        run_executor(channel, account, directory, self._open_files, approve)


def _load_checks(engine: str) -> None:
    """Load what checks a config, in a child that is still root, as `_load_engine` does."""
    import lognot.check  # noqa: F401

    _load_engine(engine)


def _load_engine(engine: str) -> None:
    """Load what compiles patterns, in a child that is still root.

    The monitor's user may not be able to read where lognot is installed, such as root's own home. Nothing
    else: while a monitor starts, all logs wait.
    """
    from lognot.pattern import choose_engine

    with contextlib.suppress(PatternError):  # said by whoever needs it
        choose_engine(engine)


def _share_pages() -> None:
    """Make what the children need now, so that they share its pages: 12 MB of PSS less, and a quicker fork.

    It is code that the supervisor has in memory and never calls. The regex engines are not part of it: they
    are loaded by whoever compiles a pattern, which is never the supervisor.
    """
    import lognot.executor
    import lognot.monitor  # noqa: F401
    from lognot.sandbox import load_binding

    load_binding()
    _free_and_freeze()


def _free_and_freeze() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what reading the config has left behind
    gc.freeze()  # the collector would write to every object, and each page written to is a page of one's own


def _need_proc() -> None:
    """Logs are opened and watched by what /proc/self/fd leads to.

    Raises:
        LognotError: it is not there.
    """
    if not os.path.isdir("/proc/self/fd"):
        raise LognotError("/proc is not mounted; expected proc(5) there")


def _monitor_of(root: bool) -> Account:
    if not root:
        return current_account()
    try:
        return monitor_account()
    except AccountError as error:
        raise LognotError(f"no user for the monitor: {error}") from error


def _raise_open_files(limits: tuple[int, int]) -> None:
    soft, hard = limits
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _approve_all(config: bytes) -> bool:
    """A supervisor that forks its executors could make them do anything: its config need not be checked."""
    return True
