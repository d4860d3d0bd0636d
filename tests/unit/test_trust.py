"""What root takes orders from is root's alone: which files and directories are refused, and why."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lognot.sources import read_sources
from lognot.trust import (
    MAX_SYMLINKS,
    Reach,
    make_directory,
    open_directory_of,
    open_to_append,
    reach_of,
    refusal,
)

BOB = 12345

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of several users")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which everything is root's alone, below the sticky /tmp."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        (Path(name) / "etc/lognot.d").mkdir(parents=True)
        (Path(name) / "etc/lognot.conf").write_text("[main]\n")
        (Path(name) / "etc/lognot.d/a.conf").write_text("[a]\n")
        (Path(name) / "etc/lognot.d/b.conf").write_text("[b]\n")
        yield Path(name)


def problems_of(place: Path) -> list[str]:
    """What is said of a config, with @ for its place."""
    return [str(problem).replace(str(place), "@") for problem in read_sources(f"{place}/etc/lognot.conf")[1]]


def files_of(place: Path) -> list[str]:
    """What is read of it."""
    return [
        source.path.replace(f"{place}/etc/", "") for source in read_sources(f"{place}/etc/lognot.conf")[0]
    ]


def test_what_is_roots_alone_is_read(place: Path) -> None:
    assert problems_of(place) == []
    assert files_of(place) == ["lognot.conf", "lognot.d/a.conf", "lognot.d/b.conf"]


TELLS = "expected that only root can change it"


@pytest.mark.parametrize("where", ["@", "@/etc", "@/etc/lognot.conf"])
@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda path: os.chown(path, BOB, 0), f"belongs to user {BOB}; {TELLS} (chown root)"),
        (lambda path: path.chmod(0o775), f"can be written by its group; {TELLS} (chmod go-w)"),
        (lambda path: path.chmod(0o757), f"can be written by others; {TELLS} (chmod go-w)"),
        (
            lambda path: (os.chown(path, BOB, BOB), path.chmod(0o777)),
            f"belongs to user {BOB} and can be written by others; {TELLS} (chown root, chmod go-w)",
        ),
    ],
    ids=["owner", "group", "others", "both"],
)
def test_a_file_or_a_directory_of_others_refuses_all(
    place: Path, where: str, change: Callable[[Path], None], wrong: str
) -> None:
    change(Path(where.replace("@", str(place))))
    assert problems_of(place) == [f"@/etc/lognot.conf: refused as root: '{where}' {wrong}"]
    assert files_of(place) == []


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_a_directory_of_dropins_that_others_can_write_to_is_refused(place: Path, mode: int) -> None:
    """A sticky one as well: whoever may add a file would be asked what to run."""
    (place / "etc/lognot.d").chmod(mode)
    whom = "its group" if mode == 0o775 else "others"
    assert problems_of(place) == [
        f"@/etc/lognot.d: refused as root: '@/etc/lognot.d' can be written by {whom}; {TELLS} (chmod go-w)"
    ]
    assert files_of(place) == ["lognot.conf"]


def test_a_dropin_of_others_is_named_and_the_others_are_read(place: Path) -> None:
    os.chown(place / "etc/lognot.d/a.conf", BOB, 0)
    assert problems_of(place) == [
        f"@/etc/lognot.d/a.conf: refused as root: '@/etc/lognot.d/a.conf' belongs to user {BOB}; {TELLS} "
        "(chown root)"
    ]
    assert files_of(place) == ["lognot.conf", "lognot.d/b.conf"]


@pytest.mark.parametrize("target", ["../../srv/in/a.conf", "@/srv/in/a.conf"])
def test_a_link_is_followed_through_every_directory(place: Path, target: str) -> None:
    (place / "srv/in").mkdir(parents=True)
    (place / "srv/in/a.conf").write_text("[elsewhere]\n")
    link = place / "etc/lognot.d/link.conf"
    link.symlink_to(target.replace("@", str(place)).replace("../../srv", "../../srv/../srv/."))
    assert problems_of(place) == []
    for name in ("srv", "srv/in", "srv/in/a.conf"):
        os.chown(place / name, BOB, 0)
        assert problems_of(place) == [
            f"@/etc/lognot.d/link.conf: refused as root: '@/{name}' belongs to user {BOB}; "
            f"{TELLS} (chown root)"
        ]
        os.chown(place / name, 0, 0)
    assert problems_of(place) == []


def test_a_linked_directory_is_judged_where_it_is(place: Path) -> None:
    (place / "etc/lognot.d").rename(place / "real")
    (place / "etc/lognot.d").symlink_to(place / "real")
    assert problems_of(place) == []
    (place / "real").chmod(0o777)
    assert len(problems_of(place)) == 1 and "'@/real' can be written by others" in problems_of(place)[0]


def test_a_link_to_a_link_is_judged_where_it_stands(place: Path) -> None:
    (place / "bob").mkdir()
    (place / "bob/link").symlink_to(place / "etc/lognot.d/a.conf")
    os.chown(place / "bob", BOB, BOB)
    (place / "etc/lognot.d/link.conf").symlink_to("../../bob/link")
    assert problems_of(place) == [
        f"@/etc/lognot.d/link.conf: refused as root: '@/bob' belongs to user {BOB}; {TELLS} (chown root)"
    ]


def sticky(place: Path) -> Path:
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    return place / "sticky"


def test_in_a_sticky_directory_what_is_roots_is_roots(place: Path) -> None:
    directory = sticky(place)
    (directory / "file").touch()
    (directory / "link").symlink_to("file")
    (directory / "sub").mkdir()
    (directory / "sub/file").touch()
    for name in ("file", "link", "sub/file", "sub"):
        assert refusal(f"{directory}/{name}") == "", name
    os.chown(directory, BOB, -1)  # its owner may remove what is root's
    for name in ("file", "link", "sub/file", "sub"):
        assert f"'{directory}' belongs to user {BOB}" in refusal(f"{directory}/{name}"), name


def test_in_a_sticky_directory_what_is_anothers_or_linked_twice_is_refused(place: Path) -> None:
    directory = sticky(place)
    (directory / "bobs").touch()
    os.chown(directory / "bobs", BOB, BOB)
    (directory / "bobs link").symlink_to(place / "etc/lognot.conf")
    os.lchown(directory / "bobs link", BOB, BOB)
    os.link(place / "etc/lognot.conf", directory / "twice")
    for name in ("bobs", "bobs link"):
        expected = f"'{directory}/{name}' belongs to user {BOB}; {TELLS} (chown root)"
        assert refusal(f"{directory}/{name}") == expected
    assert refusal(f"{directory}/twice").startswith(f"'{directory}/twice' has several hard links")


def test_an_acl_is_seen(place: Path) -> None:
    """Its mask stands in the group bits (acl(5)): here, user 12345 may write."""
    entries = [(0x01, 6, -1), (0x02, 6, BOB), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, bits, who in entries
    )
    try:
        os.setxattr(place / "etc/lognot.conf", "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    assert "'@/etc/lognot.conf' can be written by its group" in problems_of(place)[0]


def test_without_root_everybody_reads_what_he_wants(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "etc").chmod(0o777)
    os.chown(place / "etc/lognot.conf", BOB, BOB)
    monkeypatch.setattr(os, "geteuid", lambda: BOB)
    assert problems_of(place) == []


def test_relative_names_begin_in_the_working_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "etc")
    assert refusal("lognot.conf") == refusal("../etc/./lognot.conf") == refusal(".") == ""
    place.chmod(0o777)
    assert f"'{place}' can be written by others" in refusal("lognot.conf")


def test_dots_lead_up_from_where_a_link_leads(place: Path) -> None:
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/file").touch()
    (place / "link").symlink_to("deep/er")
    assert reach_of(f"{place}/link/../file") == Reach(f"{place}/deep/file")
    assert reach_of("/../..") == Reach("/")


def test_what_is_passed_open_is_the_choice_of_who_started_us(place: Path) -> None:
    os.chown(place / "etc/lognot.conf", BOB, BOB)
    with (place / "etc/lognot.conf").open() as file:
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            assert refusal(name) == ""
            sources, problems = read_sources(name)
            assert ([source.data for source in sources], problems) == ([b"[main]\n"], ())
    assert refusal("/dev/stdin") == ""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("absent", FileNotFoundError),
        ("sticky/absent", FileNotFoundError),
        ("absent/file", FileNotFoundError),
        ("etc/lognot.conf/file", NotADirectoryError),
        ("loop", OSError),
        ("x" * 300, OSError),
        ("x/" * 3000, OSError),
        ("etc\0", ValueError),
    ],
)
def test_what_is_not_there_is_an_error(place: Path, name: str, error: type[Exception]) -> None:
    (place / "loop").symlink_to("loop")
    sticky(place)
    with pytest.raises(error):
        refusal(f"{place}/{name}")


def test_as_many_links_as_the_kernel_follows(place: Path) -> None:
    (place / "0").touch()
    for number in range(MAX_SYMLINKS + 1):
        (place / f"{number + 1}").symlink_to(f"{number}")
    assert refusal(f"{place}/{MAX_SYMLINKS}") == ""
    (place / f"{MAX_SYMLINKS}").read_bytes()
    with pytest.raises(OSError, match="Too many levels"):
        refusal(f"{place}/{MAX_SYMLINKS + 1}")
    with pytest.raises(OSError, match="Too many levels"):
        (place / f"{MAX_SYMLINKS + 1}").read_bytes()


def test_how_far_a_path_reaches(place: Path) -> None:
    (place / "bobs/in").mkdir(parents=True)
    os.chown(place / "bobs", BOB, BOB)
    wrong = f"'{place}/bobs' belongs to user {BOB}; {TELLS} (chown root)"
    assert reach_of(f"{place}/etc/new") == Reach(f"{place}/etc", ("new",))
    assert reach_of(f"{place}/bobs") == Reach(f"{place}/bobs")
    assert reach_of(f"{place}/bobs/in/new") == Reach(f"{place}/bobs", ("in", "new"), wrong)


# --- what root writes to ---


def append(path: Path | str) -> None:
    fd = open_to_append(str(path), 0o640)
    os.write(fd, b"line\n")
    os.close(fd)


@pytest.fixture
def bobs(place: Path) -> Path:
    """A directory of bob's with one of root's in it, which bob can replace."""
    place.chmod(0o711)
    (place / "bob/logs").mkdir(parents=True)
    (place / "bob").chmod(0o755)
    os.chown(place / "bob", BOB, BOB)
    return place / "bob"


def test_a_file_is_made_and_appended_to(place: Path, bobs: Path) -> None:
    for path in (place / "etc/own.log", bobs / "own.log", bobs / "logs/own.log", sticky(place) / "own.log"):
        append(path)
        append(path)
        assert path.read_text() == "line\nline\n"
        assert path.stat().st_mode & 0o777 == 0o640 & ~0o022


def test_roots_own_links_and_pipes_are_its_choice(place: Path) -> None:
    (place / "data").mkdir()
    (place / "etc/own.log").symlink_to("../data/own.log")
    append(place / "etc/own.log")
    assert (place / "data/own.log").read_text() == "line\n"
    reader, writer = os.pipe()
    append(f"/dev/fd/{writer}")
    assert os.read(reader, 99) == b"line\n"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("by", [0, BOB])
def test_a_link_that_bob_may_have_put_there_is_not_followed(place: Path, bobs: Path, by: int) -> None:
    before = (place / "etc/lognot.conf").read_text()
    (bobs / "own.log").symlink_to(place / "etc/lognot.conf")
    (bobs / "new.log").symlink_to(place / "etc/lognot.d/new.conf")
    (bobs / "loop.log").symlink_to("loop.log")
    (bobs / "logs").rmdir()
    (bobs / "logs").symlink_to(place / "etc")
    for name in ("own.log", "new.log", "loop.log", "logs"):
        os.lchown(bobs / name, by, by)
    for name in ("own.log", "new.log", "loop.log", "logs/lognot.conf", "logs/new.conf", "logs/lognot.d/x"):
        with pytest.raises(OSError, match=f"leads over a symbolic link, though '{bobs}' belongs to user"):
            append(bobs / name)
    assert (place / "etc/lognot.conf").read_text() == before
    assert sorted(os.listdir(place / "etc") + os.listdir(place / "etc/lognot.d")) == [
        "a.conf",
        "b.conf",
        "lognot.conf",
        "lognot.d",
    ]


def test_what_bob_may_have_put_there_is_not_written_to(place: Path, bobs: Path) -> None:
    os.link(place / "etc/lognot.conf", bobs / "linked")
    os.mkfifo(bobs / "fifo")
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads it: not waited for
        append(bobs / "fifo")
    reader = os.open(bobs / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("linked", "fifo"):
        with pytest.raises(OSError, match="is not a regular file with one name"):
            append(bobs / name)
    os.close(reader)
    assert (place / "etc/lognot.conf").read_text() == "[main]\n"


def test_in_a_sticky_directory_a_log_is_roots_or_made_anew(place: Path) -> None:
    directory = sticky(place)
    (directory / "link").symlink_to(place / "etc/new")
    os.lchown(directory / "link", BOB, BOB)
    # The kernel may have refused it before us (proc(5), fs.protected_symlinks).
    with pytest.raises(OSError, match=r"leads over a symbolic link|Permission denied"):
        append(directory / "link")
    assert not (place / "etc/new").exists()
    (directory / "roots").symlink_to(place / "etc/new")
    append(directory / "roots")
    assert (place / "etc/new").read_text() == "line\n"


def test_without_root_any_link_is_followed(place: Path, bobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bobs / "own.log").symlink_to("logs/own.log")
    monkeypatch.setattr(os, "geteuid", lambda: BOB)
    append(bobs / "own.log")
    assert (bobs / "logs/own.log").read_text() == "line\n"


def test_no_descriptor_is_left(place: Path, bobs: Path) -> None:
    (bobs / "own.log").symlink_to(place / "etc/lognot.conf")
    os.link(place / "etc/lognot.conf", bobs / "linked")
    before = os.listdir("/proc/self/fd")
    for name in ("own.log", "linked", "absent/x/y", "logs/own.log"):
        with contextlib.suppress(OSError):
            append(bobs / name)
    assert os.listdir("/proc/self/fd") == before


# Where root puts files of its own.


def directory_of(path: Path) -> str:
    fd = open_directory_of(str(path))
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_a_directory_is_opened_over_links_of_root_alone(
    place: Path, bobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "run").symlink_to("etc")  # as /var/run
    (bobs / "run").symlink_to(place / "etc")
    assert directory_of(place / "run/x") == f"{place}/etc"
    assert directory_of(bobs / "x") == str(bobs)
    assert directory_of(bobs / "logs/x") == f"{bobs}/logs"
    assert directory_of(sticky(place) / "x") == f"{place}/sticky"
    assert directory_of(Path("/x")) == "/"
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=f"leads over a symbolic link, though '{bobs}' belongs to user"):
        directory_of(bobs / "run/x")
    with pytest.raises(FileNotFoundError):
        directory_of(bobs / "none/x")
    assert os.listdir("/proc/self/fd") == before
    monkeypatch.setattr(os, "geteuid", lambda: BOB)
    assert directory_of(bobs / "run/x") == f"{place}/etc"


@pytest.mark.parametrize("where", ["a", "a/b/c/", "link/a/b", "sticky/a", "sticky/a/b"])
def test_a_directory_is_made_where_nobody_else_decides(place: Path, where: str) -> None:
    sticky(place)
    (place / "link").symlink_to("etc")
    for _ in range(2):
        assert make_directory(f"{place}/{where}", 0o700) == ""
    assert (place / where).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where", ["a", "a/b", "run/a", "run/a/b", "logs/a", "dangling", "dangling/a"])
def test_nothing_is_made_where_bob_decides(place: Path, bobs: Path, where: str) -> None:
    (bobs / "run").symlink_to(place / "etc")
    (bobs / "dangling").symlink_to(place / "new")
    before = sorted(place.rglob("*"))
    try:
        assert f"'{bobs}' belongs to user {BOB}" in make_directory(str(bobs / where), 0o700)
    except FileNotFoundError:
        assert "dangling" in where
    assert sorted(place.rglob("*")) == before


def test_a_link_that_bob_has_put_in_the_way_in_a_sticky_directory(place: Path) -> None:
    (sticky(place) / "a").symlink_to(place / "etc")
    os.lchown(place / "sticky/a", BOB, BOB)
    for where in ("sticky/a", "sticky/a/b"):
        # The kernel may have refused it before us (proc(5), fs.protected_symlinks).
        with contextlib.suppress(PermissionError):
            assert f"'{place}/sticky/a' belongs to user {BOB}" in make_directory(f"{place}/{where}", 0o700)
    assert not (place / "etc/b").exists()
