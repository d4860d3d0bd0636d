"""Which files are drop-ins, in which order they are read, and what is said of one that cannot be."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from lognot import sources
from lognot.sources import read_sources


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "lognot.conf"
    path.write_bytes(b"main")
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "lognot.d"
    path.mkdir()
    return path


def read(main: Path) -> list[tuple[str, bytes]]:
    """The names, from the directory of the config file on, and contents of what is read."""
    found, problems = read_sources(str(main))
    assert problems == ()
    return [(os.path.relpath(source.path, main.parent), source.data) for source in found]


def problems_of(main: Path) -> list[str]:
    return [str(problem) for problem in read_sources(str(main))[1]]


def test_a_missing_directory_is_normal(main: Path) -> None:
    assert read(main) == [("lognot.conf", b"main")]


def test_an_empty_directory_is_normal(main: Path, directory: Path) -> None:
    assert read(main) == [("lognot.conf", b"main")]


def test_dropins_come_after_the_file_in_the_order_of_their_bytes(main: Path, directory: Path) -> None:
    names = [b"10-b.conf", b"9.conf", b"B.conf", b"a.conf", "é.conf".encode(), "\uffff.conf".encode()]
    names += ["\U00010000.conf".encode(), b"\xff.conf"]
    for name in reversed(names):
        Path(os.fsdecode(os.fsencode(directory) + b"/" + name)).write_bytes(name)
    assert [data for _, data in read(main)] == [b"main", *names]
    assert read(main)[1] == ("lognot.d/10-b.conf", b"10-b.conf")


@pytest.mark.parametrize(
    "name",
    [".conf", ".a.conf", ".#a.conf", "a.conf~", "a.conf.dpkg-new", "a.CONF", "aconf", "README", "conf"],
)
def test_other_names_are_left_alone(main: Path, directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"no")
    assert read(main) == [("lognot.conf", b"main")]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/null"),
        lambda path: path.symlink_to(path.parent),
    ],
    ids=["directory", "FIFO", "link to /dev/null", "link to a directory"],
)
def test_what_is_no_regular_file_is_left_alone(
    main: Path, directory: Path, make: Callable[[Path], None]
) -> None:
    make(directory / "a.conf")
    assert read(main) == [("lognot.conf", b"main")]


def test_links_are_followed(main: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").write_bytes(b"linked")
    (tmp_path / "lognot.d").symlink_to("elsewhere")
    (tmp_path / "elsewhere" / "a.conf").symlink_to("../file")
    assert read(main) == [("lognot.conf", b"main"), ("lognot.d/a.conf", b"linked")]


def test_only_a_name_that_ends_in_conf_has_dropins(tmp_path: Path, directory: Path) -> None:
    (directory / "a.conf").write_bytes(b"no")
    for name in ("lognot", "lognot.ini", "lognot.conf.old"):
        (tmp_path / name).write_bytes(b"main")
        assert read(tmp_path / name) == [(name, b"main")]


def test_names_are_those_that_the_config_file_was_given(
    main: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "a.conf").write_bytes(b"")
    monkeypatch.chdir(main.parent)
    assert [source.path for source in read_sources("lognot.conf")[0]] == ["lognot.conf", "lognot.d/a.conf"]


def test_without_the_config_file_nothing_is_read(main: Path, directory: Path) -> None:
    main.unlink()
    (directory / "a.conf").symlink_to("nowhere")
    assert read_sources(str(main))[0] == ()
    assert problems_of(main) == [f"{main}: cannot read the config: No such file or directory"]


def test_a_dropin_that_cannot_be_read_is_named_and_the_others_are_read(main: Path, directory: Path) -> None:
    (directory / "a.conf").symlink_to("nowhere")
    (directory / "b.conf").write_bytes(b"b")
    (directory / "c.conf").symlink_to("c.conf")
    found, _ = read_sources(str(main))
    assert [source.data for source in found] == [b"main", b"b"]
    assert problems_of(main) == [
        f"{directory}/a.conf: cannot read the config: No such file or directory",
        f"{directory}/c.conf: cannot read the config: Too many levels of symbolic links",
    ]


def test_a_dropin_without_the_right_to_read_it_is_named(
    main: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "a.conf").write_bytes(b"")

    def refuse(path: str, flags: int) -> int:
        if path == str(main):
            return os.open(path, flags)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "_open", refuse)  # root may read everything
    assert problems_of(main) == [f"{directory}/a.conf: cannot read the config: Permission denied"]


def test_a_directory_that_cannot_be_read_is_named(main: Path, tmp_path: Path) -> None:
    (tmp_path / "lognot.d").write_bytes(b"")
    assert problems_of(main) == [f"{tmp_path}/lognot.d: cannot read the drop-ins: Not a directory"]


def test_each_dropin_may_be_as_long_as_the_config_file(
    main: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 10)
    (directory / "a.conf").write_bytes(b"x" * 10)
    assert len(read(main)) == 2
    (directory / "b.conf").write_bytes(b"x" * 11)
    assert problems_of(main) == [f"{directory}/b.conf: is longer than 10 bytes"]


def test_all_files_together_are_bounded(main: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 10)
    for name in ("a.conf", "b.conf", "c.conf"):
        (directory / name).write_bytes(b"xxx")
    assert [source.path for source in read_sources(str(main))[0]] == [
        str(main),
        f"{directory}/a.conf",
        f"{directory}/b.conf",
    ]
    assert problems_of(main) == [f"{directory}/c.conf: all files together are longer than 10 bytes"]


def test_the_number_of_dropins_is_bounded(main: Path, directory: Path) -> None:
    for number in range(sources.MAX_DROPINS):
        (directory / f"{number}.conf").touch()
    (directory / "README").touch()
    (directory / "off.conf").symlink_to("/dev/null")
    assert len(read(main)) == 1 + sources.MAX_DROPINS
    (directory / "more.conf").touch()
    assert len(read_sources(str(main))[0]) == 1
    assert problems_of(main) == [f"{directory}: holds more than 1024 drop-ins"]


# --- what would not end ---


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.conf")
    assert problems_of(tmp_path / "fifo.conf") == [
        f"{tmp_path}/fifo.conf: is a FIFO; expected a regular file"
    ]


def test_a_dropin_that_becomes_a_fifo_when_it_was_looked_at_is_not_waited_for(
    main: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(directory / "a.conf")
    monkeypatch.setattr(sources, "_is_dropin", lambda entry: True)
    assert problems_of(main) == [f"{directory}/a.conf: is a FIFO; expected a regular file"]


def test_a_pipe_that_was_passed_open_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # slower than whoever reads
        os.close(reader)
        for _ in range(3):
            time.sleep(0.02)
            os.write(writer, b"; part\n")
        os._exit(0)
    os.close(writer)
    found, problems = read_sources(f"/dev/fd/{reader}")
    os.close(reader)
    os.waitpid(pid, 0)
    assert ([source.data for source in found], problems) == ([b"; part\n" * 3], ())


@pytest.mark.parametrize("path", ["/dev/zero", "big.conf"])
def test_what_is_too_long_is_not_read_to_its_end(tmp_path: Path, path: str) -> None:
    with (tmp_path / "big.conf").open("wb") as file:
        file.truncate(100 * 1024**3)
    tracemalloc.start()
    problems = problems_of(tmp_path / path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problems == [f"{tmp_path / path}: is longer than {sources.MAX_FILE_BYTES} bytes"]
    assert peak < 3 * sources.MAX_FILE_BYTES


def test_a_socket_and_a_directory_are_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name, reason in (("socket", "No such device or address"), (".", "Is a directory")):
        assert problems_of(tmp_path / name) == [f"{tmp_path / name}: cannot read the config: {reason}"]


def test_a_file_system_without_proc_is_enough(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is configured in a place that has none."""
    monkeypatch.setattr(os, "readlink", lambda path: pytest.fail(path))
    assert read(main) == [("lognot.conf", b"main")]
