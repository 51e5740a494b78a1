"""Who answers the notifications of a seccomp filter: config-linux.md "Seccomp", seccomp_unotify(2).

It listens at linux.seccomp.listenerPath, and gets the descriptor that notifications are read from, together with the
state of the container's process, before the program begins.
"""

from __future__ import annotations

import os

from rootless import OCI_VERSION
from rootless.bundle.jsontext import render
from rootless.errors import RootlessError
from rootless.launch.hooks import container_state
from rootless.launch.protocol import LISTENER
from rootless.launch.received import Received
from rootless.launch.sockets import connect, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.launch.protocol import Message


class Listener:
    """The connection to it."""

    def __init__(self, wanted: dict[str, str], state: dict[str, Any], *, pid: int = 0, status: str = "created") -> None:
        """Connect, while nothing has begun yet.

        Args:
            wanted: `path` of the socket, and `metadata`.
            state: what state.json holds.
            pid: the process that has the filter, unless it is the container's first one.
            status: of the container.

        Raises:
            RootlessError: `RL-SECCOMP-LISTENER`: nobody listens.
        """
        self._path = wanted["path"]
        self._metadata = wanted["metadata"]
        self._state = state
        self._pid = pid or state["pid"]
        self._status = status
        try:
            self._connection = connect(self._path)
        except OSError as error:
            raise self._refused("connect", error) from None

    def read(self, fd: int) -> Message | None:
        """Return the next message of helpers/init, as read_message() does; a LISTENER is passed on.

        Raises:
            RootlessError: `RL-SECCOMP-LISTENER`: nobody took it. The program may wait for an answer.
        """
        return Received({LISTENER: self.pass_on}).read(fd)

    def pass_on(self, notifications: int) -> None:
        """Send the descriptor that notifications are read from, with the state, and close both.

        Raises:
            RootlessError: as read().
        """
        told = {
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": self._pid,
            "metadata": self._metadata,
            "state": container_state(self._state, self._status),
        }
        try:
            send(self._connection, render(told, None).encode(), notifications)
        except OSError as error:
            raise self._refused("sendmsg", error) from None
        finally:
            os.close(notifications)
            self.close()

    def close(self) -> None:
        """Close the connection: exactly one state goes over it."""
        self._connection.close()

    def _refused(self, call: str, error: OSError) -> RootlessError:
        return RootlessError(
            f"seccomp filter: {call} {self._path}",
            cause=(error.strerror or str(error)).lower(),
            where="linux.seccomp.listenerPath",
            fix="start the program that answers the notifications, or correct the path",
            code="RL-SECCOMP-LISTENER",
        )
