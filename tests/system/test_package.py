"""The packages in booted systems: what an administrator does with them, from the installation to the purge.

Each system is booted once, with the package of `OLD` in it, and the tests go through it in order. Each of
them sets up what it needs and can also be run alone.
"""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import wait_for
from integration.writer import Writer
from lognot.journal import Event
from system.booted import Machine, booted
from system.conftest import say
from system.installed import CONFIG, LOG, TOLD, UNITS, USER, Installed, item
from system.packages import NEW, OLD, PackageManager, Packages
from system.roots import NoRootError

pytestmark = pytest.mark.system

EXPOSURE = 1.5  # at most, by systemd-analyze(1); 10 is no protection
WATCHDOG_S = 3
PAUSE_S = 0.01  # of a writer, between lines; sets the pace


@pytest.fixture(scope="module", params=["bookworm-deb", "trixie-deb", "bookworm-rpm"])
def system(request: pytest.FixtureRequest, packages: Packages) -> Iterator[Installed]:
    """A booted system in which the package has just been installed."""
    release, kind = request.param.split("-")
    begun = time.monotonic()
    try:
        with booted(release) as machine:
            manager = PackageManager(machine, packages, kind)
            manager.install(OLD)
            yield Installed(machine, manager)
            seconds = time.monotonic() - begun
            say(f"{release}, {kind}: booted in {machine.boot_s:.1f} s, all of it {seconds:.1f} s")
    except NoRootError as error:
        pytest.skip(str(error))


# What most tests watch: each numbered line is told, by its number.
NUMBERED = item("numbered", f"printf '%s\\n' $1 >>{TOLD}/numbered")


# --- the installation ---


def test_installation_enables_and_starts_nothing(system: Installed) -> None:
    for unit in UNITS:
        assert not system.active(unit)
    assert system.machine.run("systemctl", "is-enabled", "lognot", check=False)[1] == "disabled\n"
    assert not system.processes()


def test_files_are_in_their_places(system: Installed) -> None:
    zsh = "vendor-completions" if system.packages.kind == "deb" else "site-functions"
    for path, is_kind in {
        "/usr/sbin/lognot": Path.is_file,
        "/usr/lib/python3/dist-packages/lognot/cli.py": Path.is_file,
        "/etc/lognot.conf": Path.is_file,
        "/etc/lognot.d": Path.is_dir,
        **{f"/usr/lib/systemd/system/{unit}": Path.is_file for unit in UNITS},
        "/usr/lib/sysusers.d/lognot.conf": Path.is_file,
        "/usr/lib/tmpfiles.d/lognot.conf": Path.is_file,
        "/usr/lib/systemd/catalog/lognot.catalog": Path.is_file,
        "/usr/share/bash-completion/completions/lognot": Path.is_file,
        f"/usr/share/zsh/{zsh}/_lognot": Path.is_file,
        "/usr/share/doc/lognot/README.md": Path.is_file,
    }.items():
        assert is_kind(system.machine.path(path)), path


def test_users_were_made_and_may_not_log_in(system: Installed) -> None:
    for user in ("_lognot", "_lognot-action"):
        assert system.machine.out("id", "-Gn", user) == user
        assert system.machine.out("getent", "passwd", user).endswith(":/usr/sbin/nologin")


def test_installed_config_is_valid(system: Installed) -> None:
    assert f"{CONFIG}: ok" in system.machine.out("lognot", "--test", CONFIG)


def test_program_says_its_version(system: Installed) -> None:
    assert system.machine.out("lognot", "--version") == f"lognot {OLD}"


@pytest.mark.parametrize(("section", "page"), [("8", "lognot"), ("5", "lognot.conf")])
def test_manual_page_renders(system: Installed, section: str, page: str) -> None:
    assert system.machine.out("man", "-w", page) == f"/usr/share/man/man{section}/{page}.{section}.gz"
    shown = system.machine.out("sh", "-c", f"man --warnings=w {page} 2>/run/warnings")
    assert shown.startswith(f"{page.upper()}({section})"), shown[:200]
    assert system.machine.read("/run/warnings") == ""


def test_catalog_is_compiled(system: Installed) -> None:
    listed = system.machine.out("journalctl", "--list-catalog")
    for event in Event:
        assert event.value in listed, event.name


def test_starts_as_it_was_installed(system: Installed) -> None:
    system.machine.out("systemctl", "enable", "--now", "lognot")
    assert system.active()
    assert system.machine.out("systemctl", "is-enabled", "lognot") == "enabled"
    system.machine.out("systemctl", "is-system-running")  # nothing has failed


# --- the main job ---


def test_failed_login_runs_the_action_as_the_configured_user(system: Installed) -> None:
    system.start(
        item(
            "SSH_AUTH",
            f"id -un >>{TOLD}/who; printf '%s\\n' $1 >>{TOLD}/address",
            "/var/log/auth.log",
            r"sshd(?:-session)?\[\d+\]: Failed password for .* from (\S+) port \d+ ssh2$",
        )
    )
    login = "Failed password for root from 192.0.2.7 port 22 ssh2"
    system.machine.out("logger", "-p", "auth.info", "-t", "sshd[123]", login)
    system.wait_told("address", "192.0.2.7")
    assert system.told("who") == [USER]
    written = system.machine.read("/var/log/auth.log").splitlines()[-1]
    assert re.fullmatch(rf"\S+ {system.machine.release} sshd\[123\]: {login}", written)

    ended = system.machine.wait_for(
        lambda: system.events(Event.ACTION_ENDED, "LOGNOT_ITEM=SSH_AUTH"), "the journal has the end"
    )
    assert ended[0]["LOGNOT_STATUS"] == "0"
    fired = system.events(Event.ITEM_FIRED, "LOGNOT_ITEM=SSH_AUTH")
    assert len(fired) == 1
    assert fired[0]["LOGNOT_LINE"] == written
    assert fired[0]["LOGNOT_PATH"] == "/var/log/auth.log"
    assert fired[0]["SYSLOG_IDENTIFIER"] == "lognot"
    assert fired[0]["MESSAGE"] == "[SSH_AUTH] fired (upbound): a line matched"
    explained = system.machine.out(
        "journalctl", "-x", "-u", "lognot", "LOGNOT_ITEM=SSH_AUTH", "-q", "--no-pager"
    )
    assert "Subject: [SSH_AUTH] " in explained
    assert "Defined-By: lognot" in explained


def test_rotation_by_logrotate_loses_no_line(system: Installed) -> None:
    tell = f"printf '%s\\n' $1 >>{TOLD}/rotated"
    system.start(item("rotated", tell, "/var/log/auth.log", r"counting: line (\d+)$"))
    count = "count() { seq -f 'line %.0f' $1 $2 | logger -p auth.info -t counting; }"
    rotate = "logrotate -f /etc/logrotate.d/rsyslog"
    # rsyslog hears of a rotation by a signal, and may still be writing to the old file when this comes back.
    reopened = (
        "reopened() { until grep -qs marker: /var/log/auth.log; do"
        " logger -p auth.info -t marker here; sleep 0.1; done; }"
    )
    began = "until grep -qs 'counting: line 9$' /var/log/auth.log; do sleep 0.1; done"
    _, output = system.machine.shell(
        f"{count}; {reopened}; count 0 9; {began}\n"
        "(for ten in $(seq 30); do count ${ten}0 ${ten}9; done) &\n"
        f"{rotate}; reopened; {rotate}; reopened; wait; count 310 319"
    )
    assert output == ""
    system.wait_told("rotated", "319")
    system.machine.out("systemctl", "stop", "lognot")  # what it still had to do is done then
    _, written = system.machine.shell("zcat -f /var/log/auth.log* | sed -n 's/.*counting: line //p'")
    assert sorted(written.split(), key=int) == [str(number) for number in range(320)]
    assert Counter(system.told("rotated")) == Counter(written.split())
    rotated = system.machine.shell("zcat -f /var/log/auth.log.*")[1].split()
    assert "0" in rotated
    assert "310" not in rotated


# --- reload ---

KEPT = item("kept", f"echo fired >>{TOLD}/kept", more="upbound_freq = 2/3600")


def test_reload_takes_a_new_item_and_keeps_counts(system: Installed) -> None:
    system.start(NUMBERED + KEPT)
    pid = system.main_pid()
    system.append("line 1")
    system.append("line 2")
    system.wait_told("numbered", "2")
    before = len(system.events(Event.RELOADED))
    system.configure(NUMBERED + KEPT + item("new", f"printf '%s\\n' $1 >>{TOLD}/new"))
    system.machine.out("systemctl", "reload", "lognot")
    system.machine.wait_for(lambda: len(system.events(Event.RELOADED)) > before, "reloaded")
    assert system.told("kept") == []
    system.append("line 3")
    system.wait_told("new", "3")
    system.wait_told("kept", "fired")
    assert (system.told("new"), system.told("kept")) == (["3"], ["fired"])
    assert system.main_pid() == pid


def test_reload_of_a_broken_config_fails_and_changes_nothing(system: Installed) -> None:
    system.start(NUMBERED + KEPT)
    pid = system.main_pid()
    system.append("line 1")
    system.append("line 2")
    system.wait_told("numbered", "2")  # so lognot-exec.service has read the good config
    system.configure(f"{NUMBERED}{KEPT}upbound_frequency = often\n")
    status, _ = system.machine.run("systemctl", "reload", "lognot", check=False)
    assert status != 0
    assert system.active()
    assert system.main_pid() == pid
    told = [record["MESSAGE"] for record in system.machine.journal("-u", "lognot")]
    assert any(re.match(rf"{CONFIG}:\d+: \[kept\] upbound_frequency: ", line) for line in told), told[-10:]
    system.append("line 3")
    system.wait_told("kept", "fired")


def test_a_config_that_others_can_write_is_refused(system: Installed) -> None:
    system.start(NUMBERED)
    pid = system.main_pid()
    refused = f"{CONFIG}: refused as root: '{CONFIG}' can be written by others; "

    def refusals() -> int:
        return sum(record["MESSAGE"].startswith(refused) for record in system.machine.journal("-u", "lognot"))

    system.machine.out("chmod", "666", CONFIG)
    status, _ = system.machine.run("systemctl", "reload", "lognot", check=False)
    assert (status != 0, system.active(), system.main_pid()) == (True, True, pid)
    system.machine.wait_for(lambda: refusals() == 1, "the reason in the journal")
    system.machine.out("systemctl", "stop", "lognot")
    status, _ = system.machine.run("systemctl", "start", "lognot", check=False)
    assert (status != 0, system.active()) == (True, False)
    system.machine.wait_for(lambda: refusals() >= 2, "the reason in the journal again")
    system.machine.out("chmod", "644", CONFIG)
    system.restart()
    system.append("line 1")
    system.wait_told("numbered", "1")


# --- stop, start, restart ---


def test_stop_ends_both_services(system: Installed) -> None:
    system.start(NUMBERED)
    system.append("line 1")
    system.wait_told("numbered", "1")
    for unit in UNITS:
        assert system.active(unit), unit
    assert {"supervisor", "monitor", "launcher", "executor"} <= system.processes().keys()
    system.machine.out("systemctl", "stop", "lognot")
    for unit in UNITS:  # the socket goes after what listens there, and nobody waits for it
        wait_for(lambda unit=unit: not system.active(unit), f"end of {unit}")  # type: ignore[misc]
    assert not system.processes()
    system.machine.out("systemctl", "start", "lognot")
    system.append("line 2")
    system.wait_told("numbered", "2")
    for unit in UNITS:
        assert system.active(unit), unit


def test_restart_renews_both_services(system: Installed) -> None:
    system.start(NUMBERED)
    system.append("line 1")
    system.wait_told("numbered", "1")
    before = system.processes()
    system.machine.out("systemctl", "restart", "lognot")
    system.append("line 2")
    system.wait_told("numbered", "2")
    after = system.processes()
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_restart_under_load_keeps_its_promises(system: Installed) -> None:
    """No action twice; what was counted was acted on; what is written after READY is seen.

    Lines that are written while it is down are history, which is not looked at.
    """
    system.start(item("restarted", f"printf '%s\\n' $1 >>{TOLD}/restarted"))
    promised: set[int] = set()
    with Writer(system.machine.path(LOG), 10_000, PAUSE_S) as writer:
        for verb in ("restart", "restart", "restart", "stop"):
            since = writer.written + 1  # the one before may have been written before READY
            writer.wait_written(since + 60)
            promised.update(range(since, writer.written))
            system.machine.out("systemctl", verb, "lognot")
        written = writer.written
    told = Counter(map(int, system.told("restarted")))
    assert set(told.values()) == {1}
    assert promised <= told.keys(), sorted(promised - told.keys())
    assert 4 * 60 <= len(promised) <= len(told) < written  # while it was down, too
    fired = system.events(Event.ITEM_FIRED, "LOGNOT_ITEM=restarted")
    assert Counter(int(record["LOGNOT_LINE"].split()[1]) for record in fired) == told


def test_resume_loses_no_line(system: Installed) -> None:
    """Restarted, killed, stopped while the log is rotated, rebooted: each line is acted on, and just once."""
    tell = f"printf '%s\\n' $1 >>{TOLD}/resumed"
    system.start(item("resumed", tell, more="resume = yes"))
    system.machine.out("systemctl", "enable", "lognot")
    log = system.machine.path(LOG)
    lines = 400
    with Writer(log, lines, PAUSE_S, allowed=0) as writer:
        writer.round(0, 4)
        system.machine.out("systemctl", "restart", "lognot")
        writer.round(1, 4)
        before = system.main_pid()
        system.machine.out("kill", "-9", str(before))
        system.wait_back(before)
        writer.round(2, 4)
        system.machine.out("systemctl", "stop", "lognot")
        log.rename(log.with_suffix(".1"))
        writer.reopen(after=20)
        system.machine.out("systemctl", "start", "lognot")
        writer.round(3, 4)
        system.machine.reboot()
        writer.finish()
    system.wait_told("resumed", str(lines - 1).zfill(6))
    system.machine.out("systemctl", "stop", "lognot")  # what it still had to do is done then
    assert Counter(map(int, system.told("resumed"))) == Counter(range(lines))
    assert not system.events(Event.RESUME_LOST)


# --- what is killed comes back ---


def kill(system: Installed, role: str, number: signal.Signals = signal.SIGKILL) -> None:
    system.machine.out("kill", f"-{number.value}", str(system.processes()[role]))


@pytest.mark.parametrize("role", ["supervisor", "launcher"])
def test_service_comes_back(system: Installed, role: str) -> None:
    system.start(NUMBERED)
    system.append("line 1")
    system.wait_told("numbered", "1")
    before = system.processes()
    kill(system, role)
    if role == "supervisor":
        system.wait_back(before[role])
    else:
        system.machine.wait_for(
            lambda: system.processes().get("executor") not in (None, before["executor"]), "a new executor"
        )
    system.append("line 2")
    system.wait_told("numbered", "2")
    assert system.processes()[role] != before[role]
    assert system.told("numbered") == ["1", "2"]


@pytest.mark.parametrize("role", ["monitor", "executor"])
def test_killed_role_loses_no_line(system: Installed, role: str) -> None:
    system.start(NUMBERED)
    killed: list[int] = []
    with Writer(system.machine.path(LOG), 200, PAUSE_S) as writer:
        for turn in range(2):
            writer.round(turn, 2)
            system.machine.wait_for(lambda: system.processes().get(role) not in (None, *killed), f"a {role}")
            killed.append(system.processes()[role])
            kill(system, role)
        writer.finish()
    system.wait_told("numbered", "000199")
    system.machine.out("systemctl", "stop", "lognot")
    assert Counter(map(int, system.told("numbered"))) == Counter(range(200))


def test_watchdog_restarts_a_supervisor_that_hangs(system: Installed) -> None:
    drop_in = "/run/systemd/system/lognot.service.d/watchdog.conf"
    system.machine.write(drop_in, f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    try:
        system.machine.out("systemctl", "daemon-reload")
        system.start(NUMBERED)
        before = system.main_pid()
        kill(system, "supervisor", signal.SIGSTOP)
        system.wait_back(before)
        told = [record["MESSAGE"] for record in system.machine.journal("-u", "lognot")]
        assert any("Watchdog timeout" in line for line in told), told[-20:]
    finally:
        system.machine.path(drop_in).unlink()
        system.machine.out("systemctl", "daemon-reload")
    system.append("line 1")
    system.wait_told("numbered", "1")


def test_monitor_has_a_filter_of_its_own_and_works_without(system: Installed) -> None:
    def filters(role: str) -> int:
        found = system.machine.read(f"/proc/{system.processes()[role]}/status")
        return int(re.findall(r"^Seccomp_filters:\s+(\d+)$", found, re.MULTILINE)[0])

    def warnings() -> list[str]:
        return [one["MESSAGE"] for one in system.events(Event.PRIVILEGES)]

    before = warnings()
    system.start(NUMBERED)
    assert filters("monitor") == filters("supervisor") + 1  # the unit's are those of both
    assert warnings() == before
    [module] = system.machine.path("/usr/lib/python3/dist-packages").glob("seccomp*.so")
    module.rename(module.with_suffix(".off"))
    try:
        system.restart()
        system.append("line 1")
        system.wait_told("numbered", "1")
        assert filters("monitor") == filters("supervisor")
        system.machine.wait_for(lambda: len(warnings()) > len(before), "the warning")
        assert "python3-seccomp (Debian)" in warnings()[-1]
    finally:
        module.with_suffix(".off").rename(module)


# --- the whole system ---


def test_exposure_is_low(system: Installed) -> None:
    shown = system.machine.out("systemd-analyze", "security", "--no-pager", "lognot.service")
    score = re.search(r"Overall exposure level for lognot.service: (\d+\.\d)", shown)
    assert score, shown
    print(f"systemd-analyze security lognot.service: {score[1]}")
    assert float(score[1]) <= EXPOSURE, shown


def test_reboot_starts_it_again(system: Installed) -> None:
    system.start(NUMBERED)
    system.machine.out("systemctl", "enable", "lognot")
    system.machine.reboot()
    assert system.active()
    system.append("line 1")
    system.wait_told("numbered", "1")


# --- other versions ---


def test_upgrade_restarts_it_and_keeps_the_config(system: Installed) -> None:
    system.start(NUMBERED)
    system.machine.out("systemctl", "enable", "lognot")
    before, config = system.main_pid(), system.machine.read(CONFIG)
    system.packages.install(NEW)
    assert system.active()
    assert system.main_pid() not in (0, before)
    assert system.machine.out("lognot", "--version") == f"lognot {NEW}"
    assert system.machine.read(CONFIG) == config
    assert system.machine.out("systemctl", "is-enabled", "lognot") == "enabled"
    system.append("line 1")
    system.wait_told("numbered", "1")


def test_upgrade_leaves_a_stopped_service_stopped(system: Installed) -> None:
    system.start(NUMBERED)
    system.machine.out("systemctl", "stop", "lognot")
    system.packages.install(NEW)
    assert not system.active()
    system.machine.wait_for(lambda: not system.processes(), "the end of what was stopped")
    assert not system.active()


def test_upgrade_over_a_broken_config_leaves_the_old_process(system: Installed) -> None:
    system.start(NUMBERED)
    before = system.main_pid()
    system.append("line 0")
    system.wait_told("numbered", "0")
    system.configure(f"{NUMBERED}upbound_frequency = often\n")
    said = system.packages.install(NEW)
    assert re.search(rf"^{CONFIG}:\d+: \[numbered\] upbound_frequency: ", said, re.MULTILINE), said
    assert system.packages.installed() == NEW
    assert system.active()
    assert system.main_pid() == before
    system.append("line 1")
    system.wait_told("numbered", "1")
    system.configure(NUMBERED)
    system.restart()
    assert system.main_pid() not in (0, before)
    system.append("line 2")
    system.wait_told("numbered", "2")


# --- the end ---


def leftovers(machine: Machine) -> list[str]:
    """Find what has lognot's name, on the disk and in /run.

    But for what the tests have brought, and what man(1) has kept of pages that it has shown.
    """
    mine = f"-path {PackageManager.PLACE} -prune -o -path /var/cache/man -prune -o"
    return machine.out(
        "sh", "-c", f"find / /run -ignore_readdir_race -xdev {mine} -iname '*lognot*' -print"
    ).splitlines()


def test_removal_stops_it_and_keeps_the_config(system: Installed) -> None:
    system.start(NUMBERED)
    system.machine.out("systemctl", "enable", "lognot")
    config = system.machine.read(CONFIG)
    system.packages.remove()
    for unit in UNITS:
        assert not system.active(unit), unit
    assert not system.processes()
    assert system.packages.installed() == ""
    assert system.machine.read(CONFIG if system.packages.kind == "deb" else f"{CONFIG}.rpmsave") == config
    assert not system.machine.path("/usr/sbin/lognot").exists()


def test_nothing_is_left_in_the_end(system: Installed) -> None:
    """But for the users: what they own must not become another user's; and with rpm, an edited config."""
    if system.packages.installed():
        system.packages.remove()
    if system.packages.kind == "deb":
        system.packages.purge()
        expected = set()
    else:
        expected = {f"{CONFIG}.rpmsave", "/var/lib/lognot"}
    assert set(leftovers(system.machine)) == expected
    system.machine.out("id", "_lognot")
    assert system.machine.run("systemctl", "is-system-running", check=False)[1].strip() == "running"
