"""`make install` and `make uninstall`, as whoever makes a package or has no package would use them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from integration.harness import SOURCE
from lognot import __version__

CHECKOUT = SOURCE.parent
UNITS = ("lognot.service", "lognot-exec.socket", "lognot-exec.service")


def make(target: str, **variables: object) -> str:
    """Run make in the checkout and give what it said; it must have gone well."""
    done = subprocess.run(
        ["make", "--no-print-directory", target, *(f"{name}={value}" for name, value in variables.items())],
        cwd=CHECKOUT,
        # What runs the tests may be a make, with variables of its own.
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run(program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def content(root: Path) -> dict[str, bytes | None]:
    """Every path below `root`, with what is in it; None for a directory."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")
    }


def python_directory(root: Path) -> Path:
    [package] = root.rglob("lognot/cli.py")
    return package.parent


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local", "/opt/lognot"])
def test_what_install_made_uninstall_removes(tmp_path: Path, prefix: str) -> None:
    """And nothing else: what was there before stays, the empty directory too."""
    (tmp_path / "usr/share/man/man8").mkdir(parents=True)
    (tmp_path / "usr/local/sbin").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("gate\n")
    before = content(tmp_path)
    make("install", DESTDIR=tmp_path, PREFIX=prefix)
    assert len(content(tmp_path)) > len(before) + 60
    make("uninstall", DESTDIR=tmp_path, PREFIX=prefix)
    assert content(tmp_path) == before


def test_everything_is_where_a_package_has_it(tmp_path: Path) -> None:
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    made = content(tmp_path)
    sources = {
        "etc/lognot.conf": "etc/lognot.conf",
        **{f"usr/lib/systemd/system/{unit}": f"packaging/systemd/{unit}" for unit in UNITS},
        "usr/lib/sysusers.d/lognot.conf": "packaging/systemd/lognot.sysusers",
        "usr/lib/tmpfiles.d/lognot.conf": "packaging/systemd/lognot.tmpfiles",
        "usr/lib/systemd/catalog/lognot.catalog": "packaging/systemd/lognot.catalog",
        "usr/share/man/man8/lognot.8": "man/lognot.8",
        "usr/share/man/man5/lognot.conf.5": "man/lognot.conf.5",
        "usr/share/bash-completion/completions/lognot": "packaging/completions/lognot.bash",
        "usr/share/zsh/site-functions/_lognot": "packaging/completions/_lognot",
    }
    for path, source in sources.items():
        assert made.get(path) == (CHECKOUT / source).read_bytes(), path
    assert "etc/lognot.d" in made and made["etc/lognot.d"] is None
    assert (tmp_path / "usr/sbin/lognot").stat().st_mode & 0o777 == 0o755
    installed = {path.name for path in python_directory(tmp_path).glob("*.py")}
    assert installed == {path.name for path in (SOURCE / "lognot").glob("*.py")}
    for link in re.findall(r"\]\((docs/[^)#:]+)\)", (CHECKOUT / "README.md").read_text()):
        assert f"usr/share/doc/lognot/{link}" in made


def test_the_program_runs_the_package_that_came_with_it(tmp_path: Path) -> None:
    """Whatever the environment offers instead."""
    make("install", PREFIX=tmp_path)
    program = tmp_path / "sbin/lognot"
    assert program.read_text().startswith("#!/usr/bin/python3 -I\n")
    assert run(program, "--version").stdout == f"lognot {__version__}\n"
    own = python_directory(tmp_path) / "__init__.py"
    own.write_text(own.read_text().replace(__version__, "own package"))
    other = tmp_path / "elsewhere"
    shutil.copytree(SOURCE / "lognot", other / "lognot")
    done = run(program, "--version", PYTHONPATH=str(other))
    assert (done.returncode, done.stdout) == (0, "lognot own package\n")

    (tmp_path / "config").write_text(f"[a]\npath = {tmp_path}/config\nupbound_action = true\n")
    done = run(program, "--test", str(tmp_path / "config"))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/config: ok, 1 item\n")


def test_other_places_are_named_where_the_usual_ones_are(tmp_path: Path) -> None:
    """In the units, the program and the manual: they would look for another program, or another config."""
    make("install", DESTDIR=tmp_path / "root", PREFIX="/opt/it", SBINDIR="/opt/it/bin", SYSCONFDIR="/srv/etc")
    root = tmp_path / "root"
    unit = (root / "opt/it/lib/systemd/system/lognot.service").read_text()
    assert "\nExecStart=/opt/it/bin/lognot --config /srv/etc/lognot.conf " in unit
    assert "\nExecReload=/opt/it/bin/lognot --test /srv/etc/lognot.conf\n" in unit
    executor = (root / "opt/it/lib/systemd/system/lognot-exec.service").read_text()
    assert "\nExecStart=/opt/it/bin/lognot --executor --config /srv/etc/lognot.conf\n" in executor
    for path in (*root.rglob("lib/systemd/system/*"), *root.rglob("man/man?/*"), *root.rglob("cli.py")):
        text = path.read_text()
        assert "/usr/sbin/lognot" not in text and not re.search(r"(?<!srv)/etc/lognot\.", text), path
    assert (root / "srv/etc/lognot.conf").exists() and (root / "srv/etc/lognot.d").is_dir()


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local"])
@pytest.mark.parametrize("more", [{}, {"DOCDIR": "/srv/it", "UNITDIR": "/srv/units", "CATALOGDIR": "/srv/c"}])
def test_what_manuals_and_catalog_name_is_there(tmp_path: Path, prefix: str, more: dict[str, str]) -> None:
    make("install", DESTDIR=tmp_path, PREFIX=prefix, **more)
    files = {*UNITS, "lognot.conf", "lognot.catalog", "writing-rules.md"}
    named = set()
    for text in ("lognot.8", "lognot.conf.5", "lognot.catalog"):
        [path] = tmp_path.rglob(text)
        named |= {Path(word) for word in path.read_text().split() if word.startswith("/")}
    named = {path for path in named if path.name in files}
    assert {path.name for path in named} == files
    assert [path for path in sorted(named) if not (tmp_path / path.relative_to("/")).exists()] == []


def test_a_config_that_is_there_is_left_alone(tmp_path: Path) -> None:
    config, new = tmp_path / "etc/lognot.conf", tmp_path / "etc/lognot.conf.new"
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    as_installed = config.read_bytes()
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    assert not new.exists()  # there would be nothing to compare

    config.write_text("[general]\n")
    said = make("install", DESTDIR=tmp_path, PREFIX="/usr")
    assert config.read_text() == "[general]\n" and new.read_bytes() == as_installed
    assert f"{config} is left as it is; the new one is {new}\n" in said

    (tmp_path / "etc/lognot.d/mine.conf").touch()
    said = make("uninstall", DESTDIR=tmp_path, PREFIX="/usr")
    assert f"{config} is left: it is not what was installed\n" in said
    left = {path for path, data in content(tmp_path).items() if data is not None}
    assert left == {"etc/lognot.conf", "etc/lognot.d/mine.conf"}


def test_a_config_from_before_the_installation_stays(tmp_path: Path) -> None:
    """Even where it is what would have been installed."""
    (tmp_path / "etc").mkdir()
    shutil.copy(CHECKOUT / "etc/lognot.conf", tmp_path / "etc/lognot.conf")
    before = content(tmp_path)
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    make("uninstall", DESTDIR=tmp_path, PREFIX="/usr")
    assert content(tmp_path) == before


def test_it_is_byte_compiled_unless_a_package_does_that_itself(tmp_path: Path) -> None:
    """The service could not write what Python compiles, and would compile at every start."""
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    package = python_directory(tmp_path)
    compiled = {path.name.partition(".")[0] for path in (package / "__pycache__").iterdir()}
    assert compiled == {path.stem for path in package.glob("*.py")}
    assert not [path for path in package.rglob("*.pyc") if os.fsencode(tmp_path) in path.read_bytes()]
    make("install", DESTDIR=tmp_path / "package", PREFIX="/usr", BYTECOMPILE="no", RECORD="no")
    assert not [*(tmp_path / "package").rglob("__pycache__")]
    assert not [*(tmp_path / "package").rglob("installed")]


def test_what_a_newer_version_no_longer_has_is_removed(tmp_path: Path) -> None:
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    after = content(tmp_path)
    package, record = python_directory(tmp_path), tmp_path / "usr/share/doc/lognot/installed"
    (package / "gone.py").touch()
    with record.open("a") as file:
        file.write(f"/{package.relative_to(tmp_path)}/gone.py\n")
    make("install", DESTDIR=tmp_path, PREFIX="/usr")
    assert content(tmp_path).keys() == after.keys()
    make("install-data", DESTDIR=tmp_path, PREFIX="/usr")  # says nothing about the Python package
    assert content(tmp_path).keys() == after.keys()


def test_nothing_is_started_but_the_next_steps_are_said(tmp_path: Path) -> None:
    said = make("install", PREFIX=tmp_path / "it")
    assert "Nothing was started." in said
    for step in (
        "systemd-sysusers /",
        f"systemctl link {tmp_path}/it/lib/systemd/system/lognot.service",
        "systemctl enable --now lognot.service",
    ):
        assert f"\n    {step}" in said
    assert make("install", DESTDIR=tmp_path / "package") == ""


def test_paths_must_be_whole(tmp_path: Path) -> None:
    for variable in ("PREFIX", "DESTDIR"):
        done = subprocess.run(
            ["make", "install", f"{variable}=here"], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert f"{variable} is 'here'; expected a path that begins with /" in done.stderr
        assert not (CHECKOUT / "here").exists()
