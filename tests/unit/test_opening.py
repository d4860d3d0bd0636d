"""Opening a log as root: what the config names, and nothing that somebody else would like to be read."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from lognot.errors import OpenRefusedError
from lognot.opening import MAX_SYMLINKS, born, has_writer, open_log

BOB, ALICE = 12345, 12346

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of several users")


def open_descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach, and only its owner can write to."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


def directory(path: Path, mode: int = 0o755, owner: int | None = None) -> Path:
    path.mkdir()
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, owner)
    return path


def log(path: Path, owner: int | None = None, text: str = "a line\n") -> Path:
    path.write_text(text)
    if owner is not None:
        os.chown(path, owner, owner)
    return path


def symlink(path: Path, target: str | Path, owner: int | None = None) -> Path:
    path.symlink_to(target)
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)
    return path


def ignore(directory_fd: int, name: bytes) -> None:
    """Look at nothing on the way."""


def leads_to(path: Path | str, expected: Path, visit: Callable[[int, bytes], None] = ignore) -> bool:
    """Open, and say whether it is the very file that was expected."""
    fd = open_log(str(path), visit)
    try:
        assert not os.get_inheritable(fd)
        return os.path.samestat(os.fstat(fd), os.stat(expected))
    finally:
        os.close(fd)


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


# Where only we can write, a path is followed as open(2) would.


def test_a_plain_file(place: Path) -> None:
    assert leads_to(log(place / "log"), place / "log")


def test_what_is_opened_can_only_be_read(place: Path) -> None:
    fd = open_log(str(log(place / "log")), ignore)
    try:
        assert os.read(fd, 100) == b"a line\n"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "target", ["real/log", "./real//log", "real/../real/log", "real/sub/../log", "../{}/real/log", "ABSOLUTE"]
)
def test_a_symlink(place: Path, target: str) -> None:
    directory(directory(place / "real") / "sub")
    log(place / "real/log")
    symlink(place / "link", str(place / "real/log") if target == "ABSOLUTE" else target.format(place.name))
    assert leads_to(place / "link", place / "real/log")


def test_dots_go_where_the_kernel_goes(place: Path) -> None:
    """Behind a symlink, `..` is the parent of where it led."""
    directory(directory(place / "real") / "sub")
    log(place / "real/log", text="real")
    log(place / "log", text="another")
    symlink(place / "link", "real/sub")
    assert leads_to(f"{place}/link/../log", place / "real/log")
    assert leads_to(f"{place}/real/sub/./..//../log", place / "log")
    assert leads_to("/.." + str(place / "log"), place / "log")


def test_a_chain_of_symlinks_as_long_as_the_kernel_allows(place: Path) -> None:
    log(place / "0")
    for number in range(1, MAX_SYMLINKS + 2):
        symlink(place / str(number), str(number - 1))
    assert leads_to(place / str(MAX_SYMLINKS), place / "0")
    (place / str(MAX_SYMLINKS)).read_text()  # so does the kernel
    with pytest.raises(OSError) as caught:
        open_log(str(place / str(MAX_SYMLINKS + 1)), ignore)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b/x", "b": "a"}])
def test_a_loop_of_symlinks(place: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        symlink(place / name, target)
    with pytest.raises(OSError) as caught:
        open_log(str(place / "a"), ignore)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("path", ["missing", "missing/log", "a/b/missing/log", "dangling", "to nowhere/log"])
def test_what_is_not_there_yet(place: Path, path: str) -> None:
    directory(directory(place / "a") / "b")
    symlink(place / "dangling", "nothing")
    symlink(place / "to nowhere", "/nonexistent/directory")
    with pytest.raises(FileNotFoundError):
        open_log(str(place / path), ignore)


def test_a_file_in_place_of_a_directory(place: Path) -> None:
    log(place / "file")
    with pytest.raises(NotADirectoryError):
        open_log(str(place / "file/log"), ignore)


def test_a_fifo_is_refused_without_waiting_for_its_writer(place: Path) -> None:
    os.mkfifo(place / "log")
    with pytest.raises(OpenRefusedError, match="is a FIFO; expected a regular file"):
        open_log(str(place / "log"), ignore)


def test_a_socket_is_refused(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "log"))
        with pytest.raises(OpenRefusedError, match="is a socket"):
            open_log(str(place / "log"), ignore)


def test_a_device_is_refused(place: Path) -> None:
    with pytest.raises(OpenRefusedError, match="is a device"):
        open_log(str(symlink(place / "log", "/dev/null")), ignore)


@pytest.mark.parametrize("path", ["", "/", "/..", "{}", "{}/.", "{}/link", "{}/real/.."])
def test_a_directory_is_refused(place: Path, path: str) -> None:
    directory(place / "real")
    symlink(place / "link", "real")
    with pytest.raises(OpenRefusedError, match="is a directory"):
        open_log(path.format(place) or "/", ignore)


def test_hard_links_among_ourselves(place: Path) -> None:
    os.link(log(place / "log"), place / "another")
    assert leads_to(place / "another", place / "log")


# Where others can write, they choose what a name leads to.

OTHERS = [(0o755, BOB), (0o1755, BOB), (0o777, 0), (0o775, 0), (0o1777, 0), (0o1777, BOB)]


@needs_root
@pytest.mark.parametrize(("mode", "owner"), OTHERS)
def test_a_plain_file_where_others_can_write(place: Path, mode: int, owner: int) -> None:
    shared = directory(place / "shared", mode, owner)
    assert leads_to(log(shared / "bob's", BOB), shared / "bob's")
    assert leads_to(log(shared / "root's", 0), shared / "root's")


@needs_root
@pytest.mark.parametrize(("mode", "owner"), OTHERS)
def test_another_users_symlink_to_a_secret_is_refused(place: Path, mode: int, owner: int) -> None:
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    shared = directory(place / "shared", mode, owner)
    symlink(shared / "log", secret, BOB)
    with pytest.raises(OpenRefusedError):
        open_log(str(shared / "log"), ignore)


@needs_root
@pytest.mark.parametrize(("mode", "owner"), OTHERS)
def test_another_users_symlink_to_a_file_of_his_own(place: Path, mode: int, owner: int) -> None:
    own = log(directory(place / "own", 0o755, BOB) / "log", BOB)
    shared = directory(place / "shared", mode, owner)
    symlink(shared / "log", own, BOB)
    assert leads_to(shared / "log", own)


@needs_root
def test_another_users_symlink_to_a_third_ones_file_is_refused(place: Path) -> None:
    secret = log(directory(place / "alice", 0o700, ALICE) / "log", ALICE)
    symlink(directory(place / "bob", owner=BOB) / "log", secret, BOB)
    with pytest.raises(OpenRefusedError, match="not this user's"):
        open_log(str(place / "bob/log"), ignore)


@needs_root
def test_another_users_symlink_over_ours_to_a_secret_is_refused(place: Path) -> None:
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    symlink(place / "ours", secret)
    symlink(directory(place / "bob", owner=BOB) / "log", place / "ours", BOB)
    with pytest.raises(OpenRefusedError):
        open_log(str(place / "bob/log"), ignore)


@needs_root
def test_our_symlink_over_another_users_to_a_secret_is_refused(place: Path) -> None:
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    symlink(directory(place / "bob", owner=BOB) / "log", secret, BOB)
    symlink(place / "log", place / "bob/log")
    with pytest.raises(OpenRefusedError):
        open_log(str(place / "log"), ignore)


@needs_root
def test_symlinks_of_two_other_users_are_refused(place: Path) -> None:
    symlink(directory(place / "alice", owner=ALICE) / "log", log(place / "log", BOB), ALICE)
    symlink(directory(place / "bob", owner=BOB) / "log", place / "alice/log", BOB)
    with pytest.raises(OpenRefusedError):
        open_log(str(place / "bob/log"), ignore)


@needs_root
def test_a_directory_that_another_user_makes_a_symlink_is_refused(place: Path) -> None:
    log(directory(place / "private", 0o700) / "log", 0)
    symlink(directory(place / "bob", owner=BOB) / "logs", place / "private", BOB)
    with pytest.raises(OpenRefusedError):
        open_log(str(place / "bob/logs/log"), ignore)


@needs_root
def test_a_secret_reached_with_dots_is_refused(place: Path) -> None:
    log(directory(place / "private", 0o700) / "log", 0)
    symlink(directory(place / "bob", owner=BOB) / "log", "../private/log", BOB)
    with pytest.raises(OpenRefusedError):
        open_log(str(place / "bob/log"), ignore)


@needs_root
def test_roots_symlink_in_a_sticky_directory(place: Path) -> None:
    """As in /tmp: nobody else can put it there, rename it or replace it."""
    target = log(place / "log", 0)
    shared = directory(place / "shared", 0o1777)
    symlink(shared / "log", target, 0)
    assert leads_to(shared / "log", target)


@needs_root
def test_roots_symlink_that_another_user_could_have_put_there_is_refused(place: Path) -> None:
    """He can move one that stands elsewhere; in a sticky directory of his own, too."""
    target = log(place / "log", 0)
    for name, mode, owner in (("open", 0o777, 0), ("bob's", 0o755, BOB), ("bob's sticky", 0o1777, BOB)):
        symlink(directory(place / name, mode, owner) / "log", target, 0)
        with pytest.raises(OpenRefusedError, match="a symbolic link in a directory that others can write to"):
            open_log(str(place / name / "log"), ignore)


@needs_root
def test_roots_symlink_with_a_second_name_in_a_sticky_directory_is_refused(place: Path) -> None:
    """Where fs.protected_hardlinks is off, anybody can give a symlink of root's another name there."""
    symlink(place / "link", log(place / "log", 0), 0)
    shared = directory(place / "shared", 0o1777)
    os.link(place / "link", shared / "log", follow_symlinks=False)
    with pytest.raises(OpenRefusedError):
        open_log(str(shared / "log"), ignore)


@needs_root
@pytest.mark.parametrize(("mode", "owner"), OTHERS)
def test_a_hard_link_to_a_secret_is_refused(place: Path, mode: int, owner: int) -> None:
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    os.link(secret, directory(place / "shared", mode, owner) / "log")
    with pytest.raises(OpenRefusedError, match="several hard links"):
        open_log(str(place / "shared/log"), ignore)


@needs_root
def test_hard_links_of_a_user_in_a_directory_of_his_own(place: Path) -> None:
    own = directory(place / "bob", owner=BOB)
    os.link(log(own / "log", BOB), own / "another")
    assert leads_to(own / "another", own / "log")


@needs_root
@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_hard_links_to_a_users_file_where_a_third_one_can_write_are_refused(place: Path, mode: int) -> None:
    secret = log(directory(place / "private", 0o700, BOB) / "secret", BOB)
    os.link(secret, directory(place / "bob", mode, BOB) / "log")
    with pytest.raises(OpenRefusedError, match="several hard links"):
        open_log(str(place / "bob/log"), ignore)


@needs_root
def test_swapped_after_the_directory_was_looked_at(place: Path) -> None:
    """The directory that was checked is the one that is used, wherever its name leads by now."""
    log(directory(place / "private", 0o700) / "log", 0, "secret\n")
    bob = directory(place / "bob", owner=BOB)
    log(directory(bob / "logs", owner=BOB) / "log", BOB)

    def swap(directory_fd: int, name: bytes) -> None:
        if name == b"log":
            (bob / "logs").rename(bob / "moved")
            symlink(bob / "logs", place / "private", BOB)

    assert leads_to(bob / "logs/log", bob / "moved/log", swap)


@needs_root
@pytest.mark.parametrize("trick", ["symlink", "hard link", "fifo"])
def test_swapped_just_before_it_is_looked_up(place: Path, trick: str) -> None:
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    bob = directory(place / "bob", owner=BOB)
    log(bob / "log", BOB)

    def swap(directory_fd: int, name: bytes) -> None:
        if name == b"log":
            (bob / "log").unlink()
            if trick == "symlink":
                symlink(bob / "log", secret, BOB)
            elif trick == "hard link":
                os.link(secret, bob / "log")
            else:
                os.mkfifo(bob / "log")

    with pytest.raises(OpenRefusedError):
        open_log(str(bob / "log"), swap)


@needs_root
@pytest.mark.parametrize("trick", ["hard link", "symlink"])
def test_swapped_all_the_time(place: Path, trick: str) -> None:
    """Also when the hard link is gone again by the time that the links are counted."""
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    bob = directory(place / "bob", owner=BOB)
    log(bob / "log", BOB)
    (bob / "log").rename(bob / "honest")
    attacker = os.fork()
    if attacker == 0:
        try:
            while True:
                os.rename(bob / "honest", bob / "log")
                os.rename(bob / "log", bob / "honest")
                if trick == "hard link":
                    os.link(secret, bob / "log")
                else:
                    os.symlink(secret, bob / "log")
                    os.chown(bob / "log", BOB, BOB, follow_symlinks=False)
                os.unlink(bob / "log")
        finally:
            os._exit(1)
    opened = refused = 0
    deadline = time.monotonic() + 20
    try:
        while opened < 200 or refused < 200:
            assert os.waitpid(attacker, os.WNOHANG) == (0, 0)
            assert time.monotonic() < deadline, (opened, refused)
            try:
                fd = open_log(str(bob / "log"), ignore)
                owner = os.fstat(fd).st_uid
                os.close(fd)
                assert owner == BOB
                opened += 1
            except OpenRefusedError:
                refused += 1
            except FileNotFoundError:  # between two renames
                continue
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)


@needs_root
def test_a_rotation_just_when_it_is_looked_up(place: Path) -> None:
    """Where others can write, the name is looked up again: here it leads to the new file."""
    bob = directory(place / "bob", owner=BOB)
    log(bob / "log", 0, "old\n")
    real_fstat = os.fstat

    def rotate(fd: int) -> os.stat_result:
        status = real_fstat(fd)
        if os.readlink(f"/proc/self/fd/{fd}") == str(bob / "log") and not (bob / "log.1").exists():
            (bob / "log").rename(bob / "log.1")
            log(bob / "log", 0, "new\n")
        return status

    with patch.object(os, "fstat", rotate):
        assert leads_to(bob / "log", bob / "log")
    assert (bob / "log.1").exists()


@needs_root
def test_a_name_like_that_of_a_deleted_file(place: Path) -> None:
    bob = directory(place / "bob", owner=BOB)
    assert leads_to(log(bob / "log (deleted)", 0), bob / "log (deleted)")


@needs_root
def test_without_root_there_is_nothing_to_gain_by_a_trick(place: Path) -> None:
    shared = directory(place / "shared", 0o777)
    symlink(shared / "log", log(place / "log", 0), ALICE)
    os.link(place / "log", shared / "hard")
    with as_user(BOB):
        assert leads_to(shared / "log", place / "log")
        assert leads_to(shared / "hard", place / "log")
        os.mkfifo(shared / "fifo")
        with pytest.raises(OpenRefusedError):
            open_log(str(shared / "fifo"), ignore)


@needs_root
def test_without_root_what_may_not_be_read_is_an_error(place: Path) -> None:
    log(place / "log", 0).chmod(0o600)
    log(directory(place / "private", 0o700) / "log", 0)
    with as_user(BOB):
        for path in (place / "log", place / "private/log"):
            with pytest.raises(PermissionError):
                open_log(str(path), ignore)


# Files that the kernel makes up.


@needs_root
@pytest.mark.parametrize("name", ["environ", "maps", "mem", "stat", "root/etc/shadow", "fd/3"])
def test_a_users_symlink_into_proc_is_refused(place: Path, name: str) -> None:
    """Also of a process of his own: it can execute a setuid program between our look and our open."""
    secret = log(directory(place / "private", 0o700) / "secret", 0)
    bob = directory(place / "bob", owner=BOB)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(secret, os.O_RDONLY), 3)
        os.setgid(BOB)
        os.setuid(BOB)
        os.execv("/bin/sleep", ["sleep", "60"])
    try:
        deadline = time.monotonic() + 20
        while os.stat(f"/proc/{child}").st_uid != BOB or not Path(f"/proc/{child}/fd/3").is_symlink():
            assert time.monotonic() < deadline
        symlink(bob / "log", f"/proc/{child}/{name}", BOB)
        with pytest.raises(OpenRefusedError):
            open_log(str(bob / "log"), ignore)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("path", ["/proc/version", "/proc/self/environ", "/sys/kernel/notes"])
def test_what_the_kernel_makes_up_is_refused_for_everybody(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    with pytest.raises(OpenRefusedError, match=r"is on a file system of type (proc|sysfs)"):
        open_log(path, ignore)


@needs_root
def test_a_symlink_on_fuse_is_refused(place: Path) -> None:
    """Whoever mounted it says there whose it is: here it claims to be root's, in a directory of root's."""
    symlink(place / "link", log(place / "log"))
    with patch("lognot.opening._file_system", return_value=0x65735546):
        assert leads_to(place / "log", place / "log")
        with pytest.raises(OpenRefusedError, match="FUSE"):
            open_log(str(place / "link"), ignore)


def test_a_link_to_a_name_that_no_directory_has(place: Path) -> None:
    told: list[bytes] = []
    symlink(place / "log", "x" * 256 + "/log")
    with pytest.raises(OSError) as caught:
        open_log(str(place / "log"), lambda directory_fd, name: told.append(name))
    assert caught.value.errno == errno.ENAMETOOLONG
    assert told[-1] == b"log"  # what was told has room in a message


# What is told on the way.


def test_every_lookup_is_told_before_it_is_made(place: Path) -> None:
    real = directory(directory(place / "a") / "real")
    symlink(place / "a/link", "real/../real/log")
    told: list[tuple[str, str]] = []

    def visit(directory_fd: int, name: bytes) -> None:
        where = os.readlink(f"/proc/self/fd/{directory_fd}")
        told.append((where, os.fsdecode(name)))
        if (where, name) == (str(real), b"log"):
            log(real / "log")  # still in time

    assert leads_to(place / "a/link", real / "log", visit)
    names = str(place).split("/")[1:]
    parents = [("/" + "/".join(names[:number]), name) for number, name in enumerate(names)]
    a = str(place / "a")
    assert told == [
        *parents,
        (str(place), "a"),
        (a, "link"),
        (a, "real"),
        (str(real), ".."),
        (a, "real"),
        (str(real), "log"),
    ]


def test_the_way_is_told_as_far_as_it_goes(place: Path) -> None:
    told: list[bytes] = []
    with pytest.raises(FileNotFoundError):
        open_log(str(place / "missing/log"), lambda directory_fd, name: told.append(name))
    assert told[-1] == b"missing"


def test_an_error_of_the_one_who_is_told_ends_the_walk(place: Path) -> None:
    def visit(directory_fd: int, name: bytes) -> None:
        raise OSError(errno.ENOSPC, "no watch left")

    with pytest.raises(OSError, match="no watch left"):
        open_log(str(log(place / "log")), visit)


# Who writes to it still.


@pytest.fixture
def no_sigio() -> Iterator[None]:
    """As the supervisor does: a writer that comes while we hold the lease would have us sent one."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.usefixtures("no_sigio")
def test_a_writer_is_seen_until_it_closes(place: Path) -> None:
    reader = open_log(str(log(place / "log")), ignore)
    second = os.open(place / "log", os.O_RDONLY)
    try:
        assert has_writer(reader) is False
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
            writer = os.open(place / "log", flags)
            assert has_writer(reader) is True
            os.close(writer)
            assert has_writer(reader) is False
        (place / "log").unlink()
        assert has_writer(reader) is False
    finally:
        os.close(reader)
        os.close(second)


@pytest.mark.usefixtures("no_sigio")
def test_a_writer_in_another_process_is_seen(place: Path) -> None:
    reader = open_log(str(log(place / "log")), ignore)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            try:
                os.open(place / "log", os.O_WRONLY)
                theirs.send(b"open")
                theirs.recv(1)
            finally:
                os._exit(0)
        try:
            ours.settimeout(20)
            assert ours.recv(4) == b"open"
            assert has_writer(reader) is True
            ours.send(b"x")
            os.waitpid(pid, 0)
            assert has_writer(reader) is False
        finally:
            os.close(reader)


@needs_root
@pytest.mark.usefixtures("no_sigio")
def test_nobody_says_so_of_another_users_file(place: Path) -> None:
    reader = open_log(str(log(place / "log", ALICE)), ignore)
    try:
        with as_user(BOB):
            assert has_writer(reader) is None
        assert has_writer(reader) is False
    finally:
        os.close(reader)


def test_when_a_file_was_made(tmp_path: Path) -> None:
    """It keeps that whatever becomes of it; another one has another moment."""
    path = tmp_path / "log"
    moments = []
    for _ in range(2):
        with path.open("w") as file:
            moments.append(born(file.fileno()))
            file.write("line\n")
            path.rename(tmp_path / "log.1")
            os.utime(file.fileno(), (1, 1))
            assert born(file.fileno()) == moments[-1]
    if moments[0]:  # the file system says
        assert moments[0] != moments[1]
