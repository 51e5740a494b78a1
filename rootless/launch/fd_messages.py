"""Messages of the executor, some of which carry descriptors."""

from __future__ import annotations

import _socket
import posix
from _struct import unpack
from errno import EMFILE

from rootless.errors import refused
from rootless.launch.protocol import HEAD_SIZE, LISTENER, message_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.launch.protocol import Message

_SPACE = 64
_DESCRIPTOR_SIZE = 4


class Received:
    """Reads messages and hands their descriptors to the function that takes that kind of message."""

    def __init__(self, takers: dict[int, Callable[..., None]]) -> None:
        """Take functions by kind of message; each owns the descriptors that it receives."""
        self._takers = takers

    def read(self, fd: int) -> Message | None:
        """Return the next message from a socket, as read_message() does.

        Of those whose descriptors a function takes, it is LISTENER alone: what else it says is of interest.
        """
        channel = _socket.socket(
            fileno=posix.dup(fd)
        )  # a copy of its own, so that an interruption closes nothing twice
        try:
            while True:
                head, control, flags, _ = channel.recvmsg(HEAD_SIZE, _SPACE, _socket.MSG_CMSG_CLOEXEC)
                message = message_of(head, fd)
                taker = self._takers.get(message[0]) if message and control else None
                if taker is None:
                    return message
                data = control[0][2]
                descriptors = unpack(f"@{len(data) // _DESCRIPTOR_SIZE}i", data)
                if flags & _socket.MSG_CTRUNC:
                    for descriptor in descriptors:
                        posix.close(descriptor)
                    raise refused(OSError(EMFILE, posix.strerror(EMFILE)))
                taker(*descriptors)
                if message and message[0] == LISTENER:
                    return message
        except (ConnectionResetError, BrokenPipeError):
            return None
        finally:
            channel.close()
