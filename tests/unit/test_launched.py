"""The supervisor's end of a connection to an executor that a launcher runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lognot import messages as m
from lognot.launched import connect_executor
from lognot.users import current_account
from unit.descriptors import kernel_can_refuse_descriptors, nothing_leaks


def test_the_launcher_is_told_whose_executor_it_is_to_be(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    me = current_account()
    with nothing_leaks(), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        launched = connect_executor(path, me)
        with listener.accept()[0] as sock:
            assert sock.recv(1000) == b"\0" + m.encode(m.LaunchExecutor(me.uid, me.gid))
        launched.channel.close()


@pytest.mark.skipif(not kernel_can_refuse_descriptors(), reason="needs Linux 6.16")
def test_only_the_executor_takes_descriptors(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with nothing_leaks(), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        launched = connect_executor(path, current_account())
        with listener.accept()[0] as sock:
            with pytest.raises(PermissionError):
                socket.send_fds(sock, [b"\0" + m.encode(m.Pong())], [0])
            launched.channel.send(m.Configure((), (), ()), 0)
            sock.recv(1000)
            _, fds, _, _ = socket.recv_fds(sock, 1000, 1)
            for fd in fds:
                os.close(fd)
            assert fds
        launched.channel.close()


def test_where_nobody_listens_the_path_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with nothing_leaks(), pytest.raises(OSError, match=path):
        connect_executor(path, current_account())
