"""A log that can be opened and not be read: an error of its disk, or a server that knows it no more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from integration import accounts
from integration.harness import SOURCE, Service, append
from integration.writer import counting_items

Make = Callable[..., Service]

# What every Python imports first: while a flag is set, what begins so cannot be read. It is in memory that is
# shared with the test, since the monitor may open nothing.
BEGIN = b"on a disk that fails\n"
FAILING_DISK = """
import errno, mmap, os
with open({flag!r}, "rb") as file:
    failing = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
real = os.pread

def pread(fd, count, offset):
    if failing[0] and real(fd, {length}, 0) == {begin!r}:
        raise OSError(errno.EIO, "Input/output error")
    return real(fd, count, offset)

os.pread = pread
"""


def test_a_log_that_cannot_be_read_holds_up_no_other(service: Make, tmp_path: Path) -> None:
    """Nor does it end the service; it is read when that is possible, also when it was rotated meanwhile."""
    flag, first = tmp_path / "flag", tmp_path / "first"
    flag.write_bytes(b"\1")
    first.mkdir()
    code = FAILING_DISK.format(flag=str(flag), begin=BEGIN, length=len(BEGIN))
    (first / "sitecustomize.py").write_text(code)
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_bytes(BEGIN)
    good.touch()
    lines = 100
    config = "".join(counting_items(str(log), lines, f"-{log.name}") for log in (bad, good))
    environment = {"PYTHONPATH": f"{first}:{SOURCE}"}
    lognot = service(config, environment=environment).start()
    lognot.wait_log(f"log '{bad}' cannot be read: Input/output error")
    append(bad, "".join(f"line {number}\n" for number in range(40)))
    append(good, "".join(f"line {number}\n" for number in range(lines)))
    lognot.wait_log(r"\[ALL-good\] fired")
    bad.rename(tmp_path / "bad.1")
    append(bad, "".join(f"line {number}\n" for number in range(40, lines)))
    lognot.wait_log("was rotated")
    os.kill(lognot.role("monitor"), signal.SIGKILL)
    lognot.wait_log("monitor started as pid", 2)
    with flag.open("r+b") as file:
        file.write(b"\0")
    lognot.wait_log(r"\[ALL-bad\] fired")
    assert lognot.stop() == 0
    assert "TWICE" not in lognot.log
    assert lognot.log.count("monitor ended") == 1
    accounts.fault("read errors of a disk, rotation", times=1, written=2 * lines, seen=2 * lines)
