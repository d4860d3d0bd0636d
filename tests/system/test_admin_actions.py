"""What administrators let actions do works in lognot-exec.service; lognot.service may do none of it.

One booted system runs all of it: each probe is an item with a log of its own, and its `upbound_action` is
what an administrator would write. A probe passes when lognot's own log says that the action ended with status
0, and when a check that is run outside of the service sees what was done. That every check can fail is tested
too: each is run before the action.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from dataclasses import dataclass

import pytest

from lognot.journal import Event
from system.attempts import GRANTED, REFUSED, SANDBOX_ENDING, SANDBOX_HELPERS, SANDBOX_PROGRAM, Attempt
from system.booted import Machine, booted
from system.packages import OLD, PackageManager, Packages
from system.probes import LIMITS, LINE, LOGS, PREPARE, PROBES, REGEX, SOON, Limit, Probe
from system.roots import NoRootError

pytestmark = pytest.mark.system

CAP_DAC_READ_SEARCH = 2  # linux/capability.h

Outcome = tuple[int, str]  # exit status and output

ENDS = {event.value for event in (Event.ACTION_ENDED, Event.ACTION_FAILED, Event.ACTION_TIMEOUT)}
ENDS_WITHIN_S = 90.0

SHOW_WHY = "{ journalctl -b --no-pager -n 40 -o cat -u 'lognot*'; false; }"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one booted system has shown."""

    checked_before: dict[str, Outcome]
    checked: dict[str, Outcome]
    ended: dict[str, dict[str, str]]  # by item: lognot's own record of its action
    said: dict[str, str]  # by item: what the action printed
    limits_outside: dict[str, Outcome]
    sandbox: dict[str, str]  # by attempt: the error that it got, or "done"
    sandbox_outside: dict[str, str]
    sandbox_status: dict[str, str]  # /proc/PID/status of what made the attempts
    supervisor_status: dict[str, str]


def config() -> str:
    """An item for each probe and limit, with a log of its own."""
    lines = ["[general]", "athread_count = 4", "action_timeout = 60", f"regex = {REGEX}"]
    for probe in PROBES:
        lines += [
            "",
            f"[{probe.name}]",
            f"path = {LOGS}/{probe.name}.log",
            f"upbound_action = {probe.action}",
        ]
        lines += [f"{name} = {value}" for name, value in (("uid", probe.uid), ("gid", probe.gid)) if value]
    for limit in LIMITS:
        lines += [
            "",
            f"[{limit.name}]",
            f"path = {LOGS}/{limit.name}.log",
            f"upbound_action = {limit.action}",
        ]
    return "\n".join(lines) + "\n"


def exercise(machine: Machine) -> Seen:
    """Start lognot, write a line into each log, wait until each action has ended, and look what was done."""
    must(machine, PREPARE)
    for probe in PROBES:
        must(machine, probe.prepare)
    names = [item.name for item in (*PROBES, *LIMITS)]
    # Root may read them only by its capability.
    each = f"cd {LOGS}\nfor log in {' '.join(names)}"
    must(
        machine,
        f"mkdir {LOGS}\n{each}; do install -o alice -m 600 /dev/null $log.log; done\ntouch read-only.log",
    )
    attempts = {attempt.name: attempt.code for attempt in REFUSED} | GRANTED
    machine.write(SANDBOX_PROGRAM, f"{SANDBOX_HELPERS}\nATTEMPTS = {attempts!r}\n{SANDBOX_ENDING}")
    machine.write(
        "/run/systemd/system/lognot.service.d/probe.conf",
        f"[Service]\nExecStartPre=/usr/bin/python3 -I {SANDBOX_PROGRAM} /var/lib/lognot/sandbox\n",
    )
    machine.write("/etc/lognot.conf", config())
    checked_before = run_checks(machine, patience=1)

    must(machine, f"systemctl daemon-reload\nsystemctl enable --now lognot || {SHOW_WHY}")
    must(machine, f"{each}; do echo '{LINE}' >>$log.log; done")
    ended = wait_for_ends(machine, set(names))
    checked = run_checks(machine, patience=300)

    inside, outside = "/var/lib/lognot/sandbox", "/run/probes/sandbox"
    must(machine, f"systemd-run --quiet --wait --collect /usr/bin/python3 -I {SANDBOX_PROGRAM} {outside}")
    told, told_outside = (json.loads(must(machine, f"cat {path}")) for path in (inside, outside))
    supervisor = must(machine, 'cat "/proc/$(systemctl show -P MainPID lognot)/status"')
    return Seen(
        checked_before=checked_before,
        checked=checked,
        ended=ended,
        said=read_said(machine),
        limits_outside={
            limit.name: machine.shell(
                f"systemd-run --quiet --wait --collect --pipe sh -c {shlex.quote(limit.action)}"
            )
            for limit in LIMITS
        },
        sandbox=told["attempts"],
        sandbox_outside=told_outside["attempts"],
        sandbox_status=fields_of(told["status"]),
        supervisor_status=fields_of(supervisor),
    )


def must(machine: Machine, script: str) -> str:
    """Run sh that must succeed; give its output."""
    status, output = machine.shell(f"set -e\n{script}", timeout_s=300)
    assert status == 0, f"{script}\n{output}"
    return output


def fields_of(status: str) -> dict[str, str]:
    """/proc/PID/status, as in proc(5)."""
    return dict(line.split(":\t", 1) for line in status.splitlines())


def run_checks(machine: Machine, patience: int) -> dict[str, Outcome]:
    """Run the checks of all probes; give what each has come to."""
    lines = [f"PATIENCE={patience}", SOON]
    for probe in PROBES:
        lines += [f"(\n{probe.check}\n) >/run/probe-check 2>&1 </dev/null", f'echo "$? {probe.name}"']
        lines += ["sed 's/^/ /' /run/probe-check"]
    outcomes: dict[str, Outcome] = {}
    for block in re.split(r"^(?=\d)", must(machine, "set +e\n" + "\n".join(lines)), flags=re.MULTILINE)[1:]:
        heading, _, said = block.partition("\n")
        number, name = heading.split()
        outcomes[name] = (int(number), said)
    return outcomes


def wait_for_ends(machine: Machine, names: set[str]) -> dict[str, dict[str, str]]:
    """Wait until lognot has told how the action of each item ended; give what it has told by then."""
    ended: dict[str, dict[str, str]] = {}

    def all_ended() -> bool:
        records = machine.journal("_SYSTEMD_UNIT=lognot.service", *(f"MESSAGE_ID={value}" for value in ENDS))
        ended.update((record["LOGNOT_ITEM"], record) for record in records)
        return names <= ended.keys()

    # One that does not end is the failure of its own test, not of all.
    with contextlib.suppress(AssertionError):
        machine.wait_for(all_ended, "the end of every action", ENDS_WITHIN_S)
    return ended


def read_said(machine: Machine) -> dict[str, str]:
    """Read what the actions printed."""
    said: dict[str, str] = {}
    for record in machine.journal(f"MESSAGE_ID={Event.ACTION_OUTPUT.value}"):
        said[record["LOGNOT_ITEM"]] = said.get(record["LOGNOT_ITEM"], "") + record["MESSAGE"] + "\n"
    return said


def by_name(item: Probe | Limit | Attempt) -> str:
    return item.name


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def seen(request: pytest.FixtureRequest, packages: Packages) -> Seen:
    """What one boot of a Debian 12 or 13 has shown, in which all probes were tried."""
    needed = sorted({package for item in (*PROBES, *LIMITS) for package in item.packages.split()})
    try:
        with booted(request.param, needed) as machine:
            PackageManager(machine, packages, "deb").install(OLD)
            return exercise(machine)
    except NoRootError as error:
        pytest.skip(str(error))


def test_names_are_unique() -> None:
    names = [item.name for item in (*PROBES, *LIMITS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("probe", PROBES, ids=by_name)
def test_action_works(seen: Seen, probe: Probe) -> None:
    record = seen.ended.get(probe.name)
    assert record, "lognot has not told that the action ended"
    assert record["LOGNOT_STATUS"] == "0", record["MESSAGE"] + "\n" + seen.said.get(probe.name, "")
    assert record["MESSAGE_ID"] == Event.ACTION_ENDED.value
    status, output = seen.checked[probe.name]
    assert status == 0, f"the action went well, and did nothing: {probe.check}\n{output}"


@pytest.mark.parametrize("probe", PROBES, ids=by_name)
def test_check_fails_without_the_action(seen: Seen, probe: Probe) -> None:
    status, output = seen.checked_before[probe.name]
    assert status != 0, output


@pytest.mark.parametrize("limit", LIMITS, ids=by_name)
def test_action_is_refused(seen: Seen, limit: Limit) -> None:
    """By the directive that it names: another service may do it."""
    record = seen.ended[limit.name]
    assert record["MESSAGE_ID"] == Event.ACTION_FAILED.value, record["MESSAGE"]
    assert "not permitted" in seen.said[limit.name]
    status, output = seen.limits_outside[limit.name]
    assert status == 0, output


@pytest.mark.parametrize("attempt", REFUSED, ids=by_name)
def test_sandbox_refuses(seen: Seen, attempt: Attempt) -> None:
    assert seen.sandbox[attempt.name] == attempt.refusal
    assert seen.sandbox_outside[attempt.name] == "done", "not even possible outside of the sandbox"


@pytest.mark.parametrize("name", GRANTED)
def test_sandbox_grants(seen: Seen, name: str) -> None:
    assert seen.sandbox[name] == "done"


def test_what_could_not_read_shadow_may_read_everything(seen: Seen) -> None:
    """Or else the permissions of the files would have been enough."""
    assert int(seen.sandbox_status["CapEff"], 16) & 1 << CAP_DAC_READ_SEARCH


def test_supervisor_is_in_the_sandbox_that_was_tried(seen: Seen) -> None:
    for field in ("CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
        assert seen.supervisor_status[field] == seen.sandbox_status[field], field
    assert seen.supervisor_status["NoNewPrivs"] == "1"
    assert seen.supervisor_status["Seccomp"] == "2"
