"""Bytes as any peer may send them: a message that encodes to the same bytes again, or a ProtocolError."""

from __future__ import annotations

from lognot import messages as m
from lognot.errors import ProtocolError

DIRECTIONS = (
    m.MONITOR_TO_SUPERVISOR,
    m.EXECUTOR_TO_SUPERVISOR,
    m.LAUNCHER_TO_SUPERVISOR,
    m.MONITOR_TO_EXECUTOR,
    m.EXECUTOR_TO_MONITOR,
    m.EXECUTOR_TO_LAUNCHER,
    m.SUPERVISOR_TO_MONITOR,
    m.SUPERVISOR_TO_EXECUTOR,
    m.SUPERVISOR_TO_LAUNCHER,
    m.LAUNCHER_TO_EXECUTOR,
)

EXAMPLES = (
    m.ItemFired(1, m.Kind.UPBOUND, 6, b"key", b"a line"),
    m.Note(m.Notice.MATCH_FAILED, 1, 2, b"text"),
    m.LookAgain(1),
    m.ActionFinished(1, 100, 0x100, 5, False),
    m.ActionOutput(1, 100, b"said"),
    m.RunAction(1, m.Kind.UPBOUND, 2, 3, 4, b"a line", ((0, 6), (-1, -1))),
    m.ActionTaken(1, m.Kind.SIZE, 2, 3),
    m.CheckConfig(b"x" * 32),
    m.Configure((1, 2), (1, 1), (1, 1)),
    m.LogLooked(1, 2, ((3, b"var"), (4, b"log"))),
    m.LogOpened(1, 2, 3, 4, m.Start.COMMITTED, 5, 6),
)
SEEDS = [
    bytes((number,)) + m.encode(example)
    for number, allowed in enumerate(DIRECTIONS)
    for example in EXAMPLES
    if type(example) in allowed
]


def check(data: bytes) -> None:
    """The first byte says who speaks."""
    if not data:
        return
    try:
        message = m.decode(data[1:], DIRECTIONS[data[0] % len(DIRECTIONS)])
    except ProtocolError:
        return
    assert m.encode(message) == data[1:], message
