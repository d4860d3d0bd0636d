"""Nothing that lognot decides depends on the time of day: clocks are set, and files have any date."""

from __future__ import annotations

import ast
from pathlib import Path

import lognot

SOURCE = Path(lognot.__file__).parent
# What tells the time of day (time(3), datetime), and what a file system keeps of it (stat(2)).
OF_THE_DAY = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime", "clock_gettime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
OF_FILES = {"st_mtime", "st_mtime_ns", "st_atime", "st_atime_ns", "st_ctime", "st_ctime_ns", "utime"}


def test_only_our_own_log_tells_the_time_of_day() -> None:
    found = {
        (path.name, node.attr)
        for path in SOURCE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute)
        and (node.attr in OF_FILES or node.attr in OF_THE_DAY.get(_name(node.value), ()))
    }
    ours = {("journal.py", "now"), ("journal.py", "strftime")}
    # In what order files came that were written while nobody looked, nothing else tells.
    assert found == ours | {("rotated.py", "st_mtime_ns")}


def test_functions_of_the_clock_are_called_by_their_module() -> None:
    """So that the test above sees them."""
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("time", "datetime"), path.name


def _name(node: ast.expr) -> str:
    """The last name of `time` or `datetime.datetime`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
