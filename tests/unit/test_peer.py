"""Whether the process at the other end has ended, or has only hung up."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lognot.channel import socket_pair
from lognot.peer import Peer, peer_ids
from unit.descriptors import nothing_leaks


def test_whoever_made_the_pair_is_the_peer() -> None:
    with nothing_leaks():
        ours, theirs = socket_pair()
        with ours:
            assert peer_ids(ours) == (os.getpid(), os.geteuid(), os.getegid())
            peer = Peer(ours)
            theirs.close()
            assert not peer.has_ended(0.01), "it has only hung up"
            peer.close()


def test_a_peer_that_ends_is_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            peer.connect(path)
            peer.recv(1)
            os._exit(0)
        connection, _ = listener.accept()
        with connection:
            peer = Peer(connection)
            late = Peer(connection)
            assert not peer.has_ended()
            connection.send(b"x")
            assert peer.has_ended(20)
            os.waitpid(pid, 0)
            assert peer.has_ended()
            gone = Peer(connection)  # its number means nobody by now
            assert gone.has_ended()
            for one in (peer, late, gone):
                one.close()
