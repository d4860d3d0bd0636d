"""The examples of the seed document and of etc/lognot.conf, as an administrator would put them to use."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import ENGINES
from integration.harness import SOURCE, Service, append, lines_of, wait_for

INSTALLED = SOURCE.parent / "etc" / "lognot.conf"
SSH = "2026-03-14T03:12:07+01:00 gate sshd[4711]: "


def installed_item(name: str) -> dict[str, str]:
    """An item of the installed config, which are all commented out."""
    text = "\n".join(line.removeprefix(";") for line in INSTALLED.read_text().splitlines())
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    parser.read_string(text)
    return dict(parser[name])


def config_of(items: dict[str, dict[str, str]], engine: str = "auto") -> str:
    """A config with these items."""
    text = f"[general]\nregex_engine = {engine}\n"
    for name, options in items.items():
        text += f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
    return text


def recorder(directory: Path, name: str) -> Path:
    """A program that writes down its arguments, a line a call, as `name: <first> <second> …`."""
    program = directory / name
    program.write_text(f"#!/bin/sh\necho {name}: $(printf ' <%s>' \"$@\") >> {directory}/calls\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("engine", ENGINES)
def test_ssh_brute_force(service: Callable[..., Service], tmp_path: Path, engine: str) -> None:
    """Each address on its own, at the (COUNT + 1)th failure, and again after as many more."""
    iptables = str(recorder(tmp_path, "iptables"))
    log = tmp_path / "auth.log"
    log.touch()
    items = {name: installed_item(name) for name in ("ssh-password", "ssh-user")}
    assert [item["upbound_freq"] for item in items.values()] == ["5/30", "3/60"]
    for item in items.values():
        assert "iptables -w -I INPUT -s $2 -j DROP" in item["upbound_action"]
        assert item.pop("uid") == "root"  # whom a test without root cannot become
        item["path"] = str(log)
        item["upbound_action"] = item["upbound_action"].replace("iptables", iptables)
    lognot = service(config_of(items, engine)).start()

    def failed(address: str, times: int) -> str:
        return times * f"{SSH}Failed password for root from {address} port 40022 ssh2\n"

    def invalid(address: str, times: int) -> str:
        return times * f"{SSH}Invalid user $(id) from 9.9.9.9 port 1 from {address} port 40022\n"

    def blocked() -> list[str]:
        return [re.sub(r".*<-s> <(.*)> <-j> <DROP>", r"\1", line) for line in lines_of(tmp_path / "calls")]

    append(log, failed("192.0.2.1", 5) + failed("198.51.100.2", 5) + failed("2001:db8::3", 6))
    wait_for(lambda: blocked() == ["2001:db8::3"], "only the address with 6 failures blocked")
    append(log, failed("192.0.2.1", 1))
    wait_for(lambda: blocked() == ["2001:db8::3", "192.0.2.1"], "the 6th failure of another")
    append(log, failed("192.0.2.1", 5) + invalid("203.0.113.4", 3))
    append(log, failed("192.0.2.1", 1))
    wait_for(lambda: blocked()[2:] == ["192.0.2.1"], "again after 6 more")
    append(log, invalid("203.0.113.4", 1))
    wait_for(
        lambda: blocked()[3:] == ["203.0.113.4"], "the 4th invalid user, by the last address in the line"
    )
    assert lognot.stop() == 0
    assert len(blocked()) == 4
    assert lines_of(tmp_path / "calls")[0] == "iptables: <-w> <-I> <INPUT> <-s> <2001:db8::3> <-j> <DROP>"


def test_notify_on_errors(service: Callable[..., Service], tmp_path: Path) -> None:
    """`$@` is the line, word for word, whatever is in it."""
    log, mail = tmp_path / "syslog", tmp_path / "mail"
    log.touch()
    item = {**installed_item("errors"), "path": str(log)}
    del item["uid"]  # who cannot write to our directory
    assert "$@ | mail -s 'error in the log' root" in item["upbound_action"]
    item["upbound_action"] = item["upbound_action"].replace("| mail -s 'error in the log' root", f">> {mail}")
    lognot = service(config_of({"errors": item})).start()
    errors = [
        "Mar 14 03:12:07 gate app: Error: $(touch /tmp/pwned) `id` \"quoted\" 'too' \\n %s",
        "Mar 14 03:12:07 gate app:   ERROR   *   spaces  ",
    ]
    for line in [
        "Mar 14 03:12:06 gate app: no terror",
        errors[0],
        "Mar 14 03:12:07 gate app: fine",
        errors[1],
    ]:
        append(log, f"{line}\n")
    wait_for(lambda: len(lines_of(mail)) == 2, "two mails")
    assert lognot.stop() == 0
    assert sorted(lines_of(mail)) == sorted(errors)


def test_each_multiple_of_a_size(service: Callable[..., Service], tmp_path: Path) -> None:
    """Exactly reached counts, an unfinished line too; several at once are one; truncation starts again."""
    mebi = 1024**2
    log, calls = tmp_path / "application.log", tmp_path / "calls"
    log.touch()
    grow_to(log, 250 * mebi)  # the past is of no interest
    item = installed_item("application-size")
    assert item["size"] == "100M"
    assert item.pop("uid") == "root"
    item["path"] = str(log)
    item["size_action"] = f'echo "$LOGNOT_KIND $LOGNOT_COUNT $LOGNOT_PATH" $# >> {calls}'
    lognot = service(config_of({"application-size": item})).start()

    def wait_multiple(*multiples: int) -> None:
        expected = [f"size {multiple} {log} 0" for multiple in multiples]
        wait_for(lambda: lines_of(calls) == expected, f"multiples {multiples}")

    grow_to(log, 300 * mebi)
    wait_multiple(3)
    grow_to(log, 301 * mebi)
    grow_to(log, 610 * mebi)  # over 400, 500 and 600
    wait_multiple(3, 6)
    grow_to(log, 700 * mebi - 10)
    append(log, "unfinishe")
    append(log, "d")  # the last byte of 700 MiB
    wait_multiple(3, 6, 7)
    with log.open("r+b") as file:
        file.truncate(0)
    lognot.wait_log("was truncated")
    grow_to(log, 100 * mebi - 1)
    append(log, "\n")
    wait_multiple(3, 6, 7, 1)
    assert lognot.stop() == 0
    wait_multiple(3, 6, 7, 1)


def grow_to(path: Path, size: int) -> None:
    """Make a file longer, by a hole that costs no disk and that ends in a newline."""
    with path.open("r+b") as file:
        file.truncate(size - 1)
    append(path, "\n")


def test_every_item_of_the_installed_config_is_good(tmp_path: Path) -> None:
    """With its comments taken away, `--test` has nothing against it."""
    config = tmp_path / "lognot.conf"
    text = INSTALLED.read_text().replace(";size =\n;size_action =\n", "")
    text = re.sub(r"^;(?=[a-z\[])", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(uid = (root|_lognot-action)|gid = adm)\n", "", text, flags=re.MULTILINE)
    config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "lognot", "--test", str(config)],
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ok, 5 items" in done.stdout
