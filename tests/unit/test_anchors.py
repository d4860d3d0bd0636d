"""The older position beside the newest one: a minute old or more, and no more than two."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lognot.anchors import ANCHOR_AGE_S, Anchors
from lognot.ledger import MAX_OFFSET, Anchor, Position
from lognot.state import SavedLogs, SavedStream

FILE = (1, 2)


class World:
    """One file, saved now and then."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.anchors = Anchors(lambda: self.now_s)

    def save(self, position: Position) -> Anchor | None:
        """Give the anchor that is saved with it."""
        given_one = replace(position, anchor=Anchor(7, False, b"hostile anchor.."))  # is never saved
        saved = self.anchors.attach({"/log": (SavedStream(FILE, given_one),), "/none": ()})
        assert list(saved) == ["/log", "/none"]
        [stream] = saved["/log"]
        assert stream.identity == FILE
        assert replace(stream.position, anchor=None) == position
        return stream.position.anchor


def at(offset: int, generation: int = 0) -> Position:
    return Position(1, offset, generation, False, b"%016d" % offset if offset else b"")


def anchor(offset: int) -> Anchor:
    return Anchor(offset, False, b"%016d" % offset)


def test_it_is_one_to_two_minutes_old() -> None:
    world = World()
    begin_s = world.now_s
    for second in range(0, 1000, 5):
        world.now_s = begin_s + second
        found = world.save(at(second + 1))
        if second >= 120:
            assert found is not None
            age_s = second + 1 - found.offset
            assert ANCHOR_AGE_S <= age_s <= 2 * ANCHOR_AGE_S


def test_in_the_first_minute_it_is_the_oldest_place_known() -> None:
    world = World()
    assert world.save(at(100)) is None
    assert world.save(at(200)) == anchor(100)
    world.now_s += ANCHOR_AGE_S - 1
    assert world.save(at(300)) == anchor(100)


def test_of_a_quiet_file_it_is_where_it_was_quiet() -> None:
    world = World()
    world.save(at(100))
    world.now_s += 10 * ANCHOR_AGE_S
    assert world.save(at(100)) is None
    assert world.save(at(200)) == anchor(100)
    world.now_s += ANCHOR_AGE_S
    assert world.save(at(300)) == anchor(100)


def test_nothing_proves_the_beginning_of_a_file() -> None:
    world = World()
    world.save(at(0))
    assert world.save(at(100)) is None


def test_a_file_that_was_emptied_has_none() -> None:
    world = World()
    world.save(at(100))
    world.save(at(200))
    assert world.save(at(300, generation=1)) is None
    assert world.save(at(400, generation=1)) == anchor(300)


def test_a_place_that_was_lost_is_none() -> None:
    world = World()
    world.save(at(100))
    world.now_s += ANCHOR_AGE_S
    assert world.save(at(200)) == anchor(100)
    assert world.save(at(150)) == anchor(100)
    assert world.save(at(50)) is None


def test_it_outlives_a_restart() -> None:
    world = World()
    world.anchors.restore({"/log": (SavedStream(FILE, replace(at(200), anchor=anchor(100))),)})
    assert world.save(at(200)) == anchor(100)
    world.now_s += ANCHOR_AGE_S
    assert world.save(at(300)) == anchor(200)


def test_another_file_has_none() -> None:
    world = World()
    world.save(at(100))
    world.anchors.attach({"/log": (SavedStream((1, 3), at(50)),)})
    assert world.save(at(200)) is None


@given(st.lists(st.tuples(st.integers(0, MAX_OFFSET), st.integers(0, 2**32 - 1), st.booleans())))
def test_whatever_a_hostile_monitor_says(said: list[tuple[int, int, bool]]) -> None:
    """An anchor is a place that it has said before, of the same generation; and one file has one."""
    world = World()
    for number, (offset, generation, proved) in enumerate(said):
        world.now_s += 20
        position = at(offset, generation)
        found = world.save(position if proved else replace(position, digest=b""))
        assert len(world.anchors._files) == 1
        if found is not None:
            assert found.offset < offset
            assert (found.offset, generation, True) in said[:number]


def test_what_nobody_has_looked_at_keeps_its_anchor() -> None:
    """The end that was saved may be lost, and then this is where to go on."""
    now_s = [1000.0]
    anchors = Anchors(lambda: now_s[0])
    saved: SavedLogs = {"/log": (SavedStream(FILE, replace(at(200), anchor=anchor(100))),)}
    anchors.restore(saved)
    for _ in range(4):
        saved = anchors.attach(saved)
        now_s[0] += ANCHOR_AGE_S
    assert saved["/log"][0].position.anchor == anchor(100)
