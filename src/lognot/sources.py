"""The files that a config is made of, read: FILE, and beside FILE.conf the drop-ins FILE.d/*.conf.

What counts as a drop-in is what administrators expect of such a directory: a regular file, or a link to one,
whose name ends in `.conf` and does not begin with a dot, in the order of the names' bytes. So a package
manager's `x.conf.dpkg-new` and an editor's `x.conf~` are left alone, and a link to /dev/null turns a drop-in
off.

Run by whoever reads a config, the supervisor as root among them. Nothing in here looks at what the files say.

What root reads must be root's alone, with every directory on the way (lognot.trust): a config says what is
run as root. That is asked first; since nobody but root can put another file there afterwards, it is that file
which is opened then.
"""

from __future__ import annotations

import os
import stat
from itertools import islice

from lognot.errors import Problem
from lognot.ini import Source
from lognot.trust import refusal

SUFFIX = ".conf"
MAX_FILE_BYTES = 16 * 1024**2  # MAX_ITEMS items of 4 KiB: `--config /dev/zero` must come to an end
MAX_BYTES = 4 * MAX_FILE_BYTES  # all files together: they are in memory at the same time
MAX_DROPINS = 1024  # a file for each service of a large machine, and not what lies in a mistaken directory


def read_sources(path: str) -> tuple[tuple[Source, ...], tuple[Problem, ...]]:
    """Return the config file `path` and its drop-ins in reading order, and what could not be read.

    Without the config file itself there is nothing to read: no file, one problem.
    """
    main = _read(path)
    if isinstance(main, Problem):
        return (), (main,)
    names = _list_dropins(path)
    if isinstance(names, Problem):
        return (main,), (names,)
    sources, problems, size = [main], [], len(main.data)
    for name in names:
        found = _read(name)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        size += len(found.data)
        if size > MAX_BYTES:
            problems.append(Problem(name, 0, "", "", f"all files together are longer than {MAX_BYTES} bytes"))
            break
        sources.append(found)
    return tuple(sources), tuple(problems)


def _list_dropins(path: str) -> list[str] | Problem:
    """Return the drop-ins of a config file in reading order; none where there is no directory for them."""
    if not path.endswith(SUFFIX):
        return []
    directory = path.removesuffix(SUFFIX) + ".d"
    try:
        wrong = refusal(directory)
        if wrong:
            return _refused(directory, wrong)
        with os.scandir(directory) as entries:
            names = list(islice((entry.name for entry in entries if _is_dropin(entry)), MAX_DROPINS + 1))
    except FileNotFoundError:
        return []
    except OSError as error:
        return Problem(directory, 0, "", "", f"cannot read the drop-ins: {error.strerror}")
    if len(names) > MAX_DROPINS:
        return Problem(directory, 0, "", "", f"holds more than {MAX_DROPINS} drop-ins")
    return [os.path.join(directory, name) for name in sorted(names, key=os.fsencode)]


def _is_dropin(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.name.endswith(SUFFIX):
        return False
    try:
        return stat.S_ISREG(entry.stat().st_mode)  # asked before it is opened: a FIFO would make us wait
    except OSError:  # such as a link that leads nowhere: reading it says what is wrong
        return True


def _read(path: str) -> Source | Problem:
    try:
        wrong = refusal(path)
        if wrong:
            return _refused(path, wrong)
        with open(path, "rb", opener=_open) as file:
            if _is_fifo(file.fileno()):
                return Problem(path, 0, "", "", "is a FIFO; expected a regular file")
            os.set_blocking(file.fileno(), True)  # the pipe of `--test /dev/stdin` may be filled slowly
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return Problem(path, 0, "", "", f"cannot read the config: {reason}")
    if len(data) > MAX_FILE_BYTES:
        return Problem(path, 0, "", "", f"is longer than {MAX_FILE_BYTES} bytes")
    return Source(path, data)


def _refused(path: str, wrong: str) -> Problem:
    return Problem(path, 0, "", "", f"refused as root: {wrong}")


def _open(path: str, flags: int) -> int:
    """Open without waiting for the other end of a FIFO, and without a terminal to be ended by."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _is_fifo(fd: int) -> bool:
    """Say whether it is a FIFO with a name, and not a pipe that we were started with."""
    return stat.S_ISFIFO(os.fstat(fd).st_mode) and not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
