"""journald is stopped, restarted and stands still while lognot has something to say, in a booted system."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from integration import accounts
from lognot.journal import Event
from system.booted import booted
from system.conftest import say
from system.installed import TOLD, Installed, item
from system.packages import OLD, PackageManager, Packages
from system.roots import NoRootError

pytestmark = pytest.mark.system

JOURNALD = (
    "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald"
)
# Each line has three messages: fired, what its action prints, how that ended.
MESSAGES = 3
TELL = item("numbered", f"printf '%s\\n' $1 >>{TOLD}/numbered; echo said $1")


@pytest.fixture(scope="module")
def system(packages: Packages) -> Iterator[Installed]:
    """A booted system in which the package has just been installed."""
    begun = time.monotonic()
    try:
        with booted("bookworm") as machine:
            manager = PackageManager(machine, packages, "deb")
            manager.install(OLD)
            yield Installed(machine, manager)
            say(f"journald in bookworm: all of it {time.monotonic() - begun:.1f} s")
    except NoRootError as error:
        pytest.skip(str(error))


def write_lines(system: Installed, begin: int, end: int) -> None:
    """Write lines, and wait until their actions have run: whatever becomes of the messages."""
    system.append("\n".join(f"line {number}" for number in range(begin, end)))
    system.machine.wait_for(lambda: len(system.told("numbered")) >= end, f"{end} actions")


def about_item(system: Installed) -> list[str]:
    """The messages of the journal about the item."""
    records = system.machine.journal("-u", "lognot", "LOGNOT_ITEM=numbered")
    return [record["MESSAGE"] for record in records]


def wait_ended(system: Installed, number: int) -> None:
    """Wait until the journal has all messages about so many lines."""
    system.machine.wait_for(
        lambda: len(about_item(system)) >= MESSAGES * number, f"the messages about {number} lines"
    )


def lost(system: Installed) -> list[int]:
    return [int(record["LOGNOT_COUNT"]) for record in system.events(Event.MESSAGES_LOST)]


def test_journald_is_stopped_restarted_and_stands_still(system: Installed) -> None:
    machine = system.machine
    system.start(TELL)
    write_lines(system, 0, 20)
    wait_ended(system, 20)
    before = system.processes()

    machine.out("systemctl", "stop", *JOURNALD.split())
    write_lines(system, 20, 60)
    machine.wait_for(
        lambda: not machine.run("pgrep", "-u", "watcher", "-f", "sh -c", check=False)[1], "no action"
    )
    machine.out("systemctl", "start", *JOURNALD.split())
    write_lines(system, 60, 70)
    machine.wait_for(lambda: any("said 69" in text for text in about_item(system)), "it is heard again")

    machine.out("systemctl", "restart", "systemd-journald")  # its socket stays: nothing is lost
    write_lines(system, 70, 90)
    machine.wait_for(lambda: any("said 89" in text for text in about_item(system)), "it is heard again")
    first = sum(lost(system))
    assert first > 0

    journald = machine.out("systemctl", "show", "-P", "MainPID", "systemd-journald")
    machine.out("kill", "-STOP", journald)
    try:
        write_lines(system, 90, 690)  # more messages than its socket holds (net.unix.max_dgram_qlen)
    finally:
        machine.out("kill", "-CONT", journald)
    machine.out("journalctl", "--sync")  # it has taken what waited: there is room again
    write_lines(system, 690, 700)
    machine.wait_for(lambda: any("said 699" in text for text in about_item(system)), "it is heard again")
    assert system.processes() == before
    machine.out("systemctl", "stop", "lognot")
    assert sum(lost(system)) > first
    assert len(about_item(system)) + sum(lost(system)) == MESSAGES * 700

    ran = Counter(map(int, system.told("numbered")))
    assert set(ran) == set(range(700))
    told = list(ran.elements())
    accounts.numbered("journald stopped, restarted, stands still; actions run", told, 700, times=3)
