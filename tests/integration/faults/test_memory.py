"""A role gets no more memory: the kernel ends it, or it fails by itself; both are a restart and no more."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import accounts
from integration.faults.numbered import (
    MemoryGroup,
    assert_each_ran_once,
    kill_role,
    limited,
    memory_bytes,
    noting_item,
    numbered_lines,
    wait_noted,
)
from integration.harness import Service, append, wait_for
from integration.launching import LauncherService
from integration.processes import wait_gone
from integration.writer import counting_items, held

Make = Callable[..., Service]
LONG = b"x" * 900_000 + b"\n"  # has to be in memory as one piece; max_line is 1 MiB
LONG_LINES = 12  # more than there is room for in the control group
COMMENTS = "; a long comment\n" * 500_000  # so much has to be in memory to read a config that ends in it
SPARE_BYTES = 256 * 1024  # what a role that does nothing may still take


def counted_and_noted(log: Path, out: Path, lines: int) -> str:
    """Every numbered line is counted and noted; long ones between them cost memory."""
    long = f"[LONG]\npath = {log}\nregex = ^x\nupbound_action = :\n"
    return "[general]\nathread_count = 2\n" + counting_items(str(log), lines) + noting_item(log, out) + long


def assert_exact(lognot: Service, out: Path, lines: int, fault: str, *, times: int) -> None:
    wait_noted(out, lines)
    lognot.wait_log(r"\[ALL\] fired")
    assert lognot.stop() == 0
    assert lognot.log.count("[ALL] fired") == 1
    assert "[TWICE] fired" not in lognot.log
    assert_each_ran_once(out, lines, f"{fault}, actions run", times=times)
    accounts.fault(f"{fault}, lines", times=times, written=lines, seen=lines)


@pytest.mark.root
def test_the_kernel_ends_roles_for_want_of_memory(
    memory_group: MemoryGroup, service: Make, tmp_path: Path
) -> None:
    """Monitor and executor in turns, each as soon as it needs a page more.

    Nothing is being started meanwhile: the kernel ends a process that is about to become a shell with its
    executor, whose memory it shares, and an action that may have started is not started again.
    """
    roles = ["monitor", "executor"] * 2
    block = 60
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lines = len(roles) * block
    gate = f"[GATE]\npath = {log}\nregex = ^gate (\\d)$\n"
    gate += f"upbound_action = until [ -e {tmp_path}/gate.$1 ]; do sleep 0.01; done\n"
    lognot = service(counted_and_noted(log, out, lines) + gate).start()
    for number, role in enumerate(roles):
        kill_role(lognot, role)  # a new one has nothing in hand that it could use again
        pid = lognot.role(role)
        append(log, f"gate {number}\n" * 2)
        lognot.wait_log(r"\[GATE\] fired", 2 * (number + 1))
        lognot.wait_log(r"\[GATE\] action started as pid", 2 * (number + 1))
        memory_group.add(pid)
        with held(pid), log.open("ab", buffering=0) as file:  # all of it waits for this role
            file.write(numbered_lines(number * block, block // 2).encode())
            file.write(LONG * LONG_LINES)
            file.write(numbered_lines(number * block + block // 2, block // 2).encode())
            if role == "executor":
                lognot.wait_log(r"\[LONG\] fired", LONG_LINES * (number + 1))
        wait_gone(pid)
        (tmp_path / f"gate.{number}").touch()
        wait_noted(out, (number + 1) * block)
    assert memory_group.kills >= len(roles)
    assert_exact(lognot, out, lines, "out of memory, ended by the kernel", times=len(roles))


@pytest.mark.root
def test_the_kernel_ends_the_supervisor_for_want_of_memory(
    memory_group: MemoryGroup, service: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The next one goes on where it was: with what had begun, and with what was written in between."""
    ends, block = 3, 60
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    config = counted_and_noted(log, out, ends * block).replace("[general]\n", "[general]\nresume = yes\n")
    lognot = service(config, environment=environment).start()
    for number in range(ends):
        append(log, numbered_lines(number * block, block // 2))
        lognot.write_config(config + COMMENTS)
        memory_group.add(lognot.pid)
        lognot.signal(signal.SIGUSR1)
        assert lognot.process is not None
        assert lognot.process.wait(20) == -signal.SIGKILL
        append(log, numbered_lines(number * block + block // 2, block // 2))
        lognot.write_config(config)
        lognot.start()
        wait_noted(out, (number + 1) * block)
    assert memory_group.kills == ends
    assert_exact(lognot, out, ends * block, "out of memory, the supervisor ended by the kernel", times=ends)


@pytest.mark.root
def test_the_kernel_ends_the_launcher_for_want_of_memory(
    memory_group: MemoryGroup, service: Make, launcher: LauncherService, tmp_path: Path
) -> None:
    """It meets its limit where it reads the config that a supervisor wants used."""
    ends, block = 3, 60
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    config = counted_and_noted(log, out, ends * block)
    lognot = service(config, "--exec-socket", str(launcher.path))
    launcher.start()
    lognot.start()
    for number in range(ends):
        append(log, numbered_lines(number * block, block // 2))
        wait_noted(out, number * block + 1)
        lognot.write_config(config.replace("athread_count = 2", f"athread_count = {number + 3}") + COMMENTS)
        memory_group.add(launcher.pid)
        lognot.signal(signal.SIGUSR1)
        assert launcher.process is not None
        assert launcher.process.wait(20) == -signal.SIGKILL
        append(log, numbered_lines(number * block + block // 2, block // 2))
        launcher.start()
        wait_noted(out, (number + 1) * block)
    assert memory_group.kills == ends
    assert_exact(lognot, out, ends * block, "out of memory, the launcher ended by the kernel", times=ends)


def test_roles_without_address_space(service: Make, tmp_path: Path) -> None:
    """Where malloc(3) fails, each says so and is started again; an executor may also wait."""
    rounds, block = 2, 60
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    lines = 2 * rounds * block
    lognot = service(counted_and_noted(log, out, lines)).start()
    for number in range(rounds):
        first = 2 * number * block
        monitor = lognot.role("monitor")
        with limited(monitor, "as", memory_bytes(monitor, "VmSize") + SPARE_BYTES):
            append(log, numbered_lines(first, block).encode() + LONG)
            wait_gone(monitor)
        lognot.wait_log(r"monitor failed: MemoryError", number + 1)
        wait_noted(out, first + block)
        executor = lognot.role("executor")
        with limited(executor, "as", 1):
            append(log, numbered_lines(first + block, block))
            wait_for(
                lambda executor=executor: (
                    executor not in lognot.children() or "cannot start an action now" in lognot.log
                ),
                "the executor to meet its limit",
            )
        wait_noted(out, first + 2 * block)
    assert_exact(lognot, out, lines, "no address space", times=2 * rounds)


def test_a_supervisor_without_address_space(service: Make, tmp_path: Path) -> None:
    """It cannot be started again by any of ours: it says why it ends, and the accepted actions run."""
    log, out = tmp_path / "log", tmp_path / "out"
    log.touch()
    config = f"[general]\nathread_count = 4\n{noting_item(log, out)}"
    lognot = service(config).start()
    lines = 60
    roles = list(lognot.children())
    append(log, numbered_lines(0, lines))
    lognot.wait_log(r"\[NOTE\] fired", lines)
    lognot.write_config(config + COMMENTS)
    assert lognot.process is not None
    with limited(lognot.pid, "as", memory_bytes(lognot.pid, "VmSize") + SPARE_BYTES):
        lognot.signal(signal.SIGUSR1)
        assert lognot.process.wait(20) == 1
    wait_gone(*roles)
    assert lognot.process.stdout is not None
    assert b"MemoryError" in lognot.process.stdout.read()
    assert_each_ran_once(out, lines, "no address space for the supervisor, actions run", times=1)
