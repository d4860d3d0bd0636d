"""Where files went, told from the kernel's events, against a directory that is simply renamed in."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from lognot.moves import MAX_FILES, MAX_MOVING, Moves

HERE, ELSEWHERE, UNSEEN = 1, 2, 3  # directories; the last one has no watch
NAMES = ("log", "log.1", "log.2", "other")


class Directory:
    """Names and what is there, with the events that come of each change."""

    def __init__(self) -> None:
        self.moves = Moves()
        self.files: dict[tuple[int, bytes], int] = {}
        self.left: set[int] = set()  # files that have left the log's name
        self._numbers = count()
        self._cookies = count(1)

    def create(self, name: bytes) -> None:
        self.files.setdefault((HERE, name), next(self._numbers))

    def rename(self, directory: int, name: bytes, new_directory: int, new: bytes) -> None:
        old, to = (directory, name), (new_directory, new)
        if old not in self.files or old == to:
            return
        file, cookie = self.files.pop(old), next(self._cookies)
        self.files[to] = file
        if directory != UNSEEN:
            self.moves.moved_from(old, cookie, [7] if old == (HERE, b"log") else [])
        if new_directory != UNSEEN:
            self.moves.moved_to(to, cookie)
        if old == (HERE, b"log"):
            self.left.add(file)
        if new_directory != HERE:
            self.left.discard(file)

    def delete(self, directory: int, name: bytes) -> None:
        if self.files.pop((directory, name), None) is not None and directory != UNSEEN:
            self.moves.gone((directory, name))

    def followed(self) -> list[tuple[int, bytes]]:
        """The places of the files that left the log's name, one for each time that they did."""
        return [file.place for file in self.moves.of_log(7) if file.place is not None]


places = st.tuples(st.sampled_from([HERE, HERE, ELSEWHERE, UNSEEN]), st.sampled_from(NAMES))
changes = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(NAMES)),
        st.tuples(st.just("rename"), places, places),
        st.tuples(st.just("delete"), places),
    ),
    max_size=60,
)


@given(changes)
def test_each_file_is_followed_to_where_it_is(steps: list[tuple[str, *tuple[object, ...]]]) -> None:
    directory = Directory()
    for step in steps:
        match step:
            case ("create", str(name)):
                directory.create(name.encode())
            case ("rename", (int(number), str(name)), (int(new_number), str(new))):
                directory.rename(number, name.encode(), new_number, new.encode())
            case ("delete", (int(number), str(name))):
                directory.delete(number, name.encode())
    wanted = {place for place, file in directory.files.items() if file in directory.left}
    assert set(directory.followed()) == wanted
    for file in directory.moves.of_log(7):
        directory.moves.forget(file)
    assert directory.moves.logs() == []
    assert directory.moves._at == {}


def test_the_oldest_comes_first() -> None:
    directory = Directory()
    for number in (3, 1, 2):
        directory.create(b"log")
        directory.rename(HERE, b"log", HERE, b"log.%d" % number)
    assert directory.followed() == [(HERE, b"log.3"), (HERE, b"log.1"), (HERE, b"log.2")]


def test_one_name_of_two_logs() -> None:
    moves = Moves()
    moves.moved_from((1, b"log"), 5, [7, 8])
    moves.moved_to((1, b"log.1"), 5)
    assert [file.place for log_id in (7, 8) for file in moves.of_log(log_id)] == [(1, b"log.1")] * 2
    moves.forget(moves.of_log(7)[0])
    moves.moved_from((1, b"log.1"), 6, [])
    moves.moved_to((1, b"log.2"), 6)
    assert moves.of_log(7) == []
    assert [file.place for file in moves.of_log(8)] == [(1, b"log.2")]


def test_a_file_that_comes_back_and_leaves_again_is_one() -> None:
    """Else whoever moves one to and fro makes each event cost more than the one before."""
    moves = Moves()
    for number in range(100):
        moves.moved_from((1, b"log"), 2 * number, [7])
        moves.moved_to((1, b"log.1"), 2 * number)
        moves.moved_from((1, b"log.1"), 2 * number + 1, [])
        moves.moved_to((1, b"log"), 2 * number + 1)
    assert len(moves.of_log(7)) == 1


def test_there_is_an_end_to_what_is_kept() -> None:
    moves = Moves()
    for number in range(MAX_FILES):
        assert moves.moved_from((1, b"log"), number, [7]) == []
        moves.moved_to((1, b"%d" % number), number)
    assert moves.moved_from((1, b"log"), MAX_FILES, [7]) == [7]
    moves.moved_to((1, b"new"), MAX_FILES)
    assert [file.place for file in moves.of_log(7)][:1] == [(1, b"1")]
    assert len(moves.of_log(7)) == len(moves._at) == MAX_FILES
    for number in range(MAX_FILES):  # they never arrive
        moves.moved_from((1, b"other"), 2 * MAX_FILES + number, [8])
    assert len(moves._moving) == len(moves.of_log(8)) == MAX_MOVING
