"""The event loop, as far as no role shows it."""

from __future__ import annotations

from lognot import messages as m
from lognot.channel import MAX_MESSAGE_BYTES, Channel, socket_pair
from lognot.loop import Loop


def test_it_says_when_all_that_waited_has_gone_out() -> None:
    one, other = socket_pair()
    ours = Channel(one, frozenset())
    peer = Channel(other, m.MONITOR_TO_EXECUTOR, MAX_MESSAGE_BYTES)
    loop = Loop()
    flushed: list[bool] = []
    loop.attach(ours, lambda message, fd: None, lambda error: None, lambda: flushed.append(True))
    loop.turn(wait=False)
    assert flushed == [], "nothing has waited"
    number = 0
    while not ours.pending_bytes:
        loop.send(ours, m.RunAction(1, m.Kind.UPBOUND, 1, number, 1, b"x" * 200_000, ()))
        number += 1
    loop.turn(wait=False)
    assert flushed == []
    arrived = 0
    while arrived < number:
        arrived += len(peer.receive())
        loop.turn(wait=False)
    assert flushed == [True]
    loop.detach(ours)
    peer.close()
