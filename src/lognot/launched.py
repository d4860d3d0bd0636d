"""An executor that another service runs for us: connect to its launcher, and say whose it is to be.

The connection is to the executor itself, as that to a forked one. Its launcher has the other end too: it says
what process it is, and how that has ended. Closing our end makes it end. Supervisor only.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from lognot.channel import Channel, ChannelClosed, limit_descriptors
from lognot.messages import (
    EXECUTOR_TO_SUPERVISOR,
    LAUNCHER_TO_SUPERVISOR,
    UNKNOWN_STATUS,
    LaunchExecutor,
)
from lognot.users import Account

_ACCEPTS = EXECUTOR_TO_SUPERVISOR | LAUNCHER_TO_SUPERVISOR


@dataclass(slots=True)
class Launched:
    """A role that runs as the child of a launcher; its end is that of the channel."""

    channel: Channel
    pid: int = 0  # 0: not said yet
    wait_status: int = UNKNOWN_STATUS

    def reap(self) -> int:
        """Give what its launcher says of its end."""
        return self.wait_status


def connect_executor(path: str, account: Account) -> Launched:
    """Connect to a launcher's socket, for the executor of an account.

    Raises:
        OSError: nobody listens at `path` (unix(7)); the reason names it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)  # a queue of connections that is full is an error, too
        limit_descriptors(sock, _ACCEPTS)
        sock.connect(path)
        channel = Channel(sock, _ACCEPTS)
        with contextlib.suppress(ChannelClosed):  # said again by the loop
            channel.send(LaunchExecutor(account.uid, account.gid))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: '{path}'") from error
    return Launched(channel)
