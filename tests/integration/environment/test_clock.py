"""The clock of the day is set to and fro, by hours at each look; files have dates of any century."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from integration import accounts
from integration.harness import SOURCE, append, lines_of
from integration.processes import Custom
from integration.writer import REGEX, Writer, assert_each_line_once, counting_items, wait_has_open

Make = Callable[..., Custom]

# Loaded by the interpreter before anything of lognot is (module site).
JUMPING_CLOCK = """\
import datetime, itertools, time
_real_time, _real_strftime = time.time, time.strftime
_jumps = itertools.cycle((0, -7200, 18000, -400 * 86400, 3 * 365 * 86400))
def _now():
    return _real_time() + next(_jumps)
class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_now(), tz)
time.time = _now
time.time_ns = lambda: int(_now() * 10**9)
time.strftime = lambda format, when=None: _real_strftime(format, when or time.localtime(_now()))
datetime.datetime = _Datetime
"""


def test_the_clock_is_set_to_and_fro(custom: Make, tmp_path: Path) -> None:
    lines, each = 600, 10
    log, quiet = tmp_path / "log", tmp_path / "quiet"
    log.touch()
    quiet.touch()
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMPING_CLOCK)
    lognot = custom(
        f"{counting_items(str(log), lines)}"
        f"[UP]\npath = {log}\nregex = {REGEX}\nupbound_action = true\nupbound_freq = {each - 1}/3600\n"
        f"[DOWN]\npath = {quiet}\ndownbound_action = true\ndownbound_freq = 1/1\n"
        f"[NEVER]\npath = {quiet}\ndownbound_action = true\ndownbound_freq = 1/3600\n"
        f"[SLOW]\npath = {quiet}\nregex = slow\nupbound_action = sleep 60\naction_timeout = 1\n"
        f"[PATIENT]\npath = {quiet}\nregex = slow\nupbound_action = sleep 1.5; echo waited\n"
    )
    lognot.source = f"{site}:{SOURCE}"
    begun = time.monotonic()
    lognot.start()
    append(quiet, "slow\n")
    with Writer(log, lines, 0.0003, allowed=0) as writer:
        for number in range(4):
            writer.round(number, 4)
            wait_has_open(lognot.pid, log)
            os.utime(log, (number * 10**9, number * 10**9))  # 1970, 2001, 2033, 2065
            log.rename(tmp_path / f"log.{number}")
            writer.reopen(after=10)
        writer.finish()
    lognot.wait_log(r"\[SLOW\] action took too long and was ended")
    lognot.wait_log(r"\[PATIENT\] says: waited")
    lognot.wait_log(r"\[DOWN\] fired", 2)
    assert_each_line_once(lognot)
    seconds = time.monotonic() - begun
    assert 2 <= lognot.log.count("[DOWN] fired") <= seconds
    assert "[NEVER] fired" not in lognot.log
    assert lognot.log.count("[UP] fired") == lines // each
    assert lognot.log.count("took too long") == 1
    years = {line[:4] for line in lines_of(lognot.own_log)}
    assert len(years) > 2, years  # the clock has really jumped
    accounts.fault("clock set to and fro, rotation", times=4, written=lines, seen=lines)
