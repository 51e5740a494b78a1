"""Who answers the notifications of a seccomp filter: config-linux.md "Seccomp", seccomp_unotify(2).

It listens at linux.seccomp.listenerPath, and is connected before there is a process, so that `create` fails without it.
It gets the descriptor that notifications are read from, together with the state of the container's process, before the
program begins; until then the process keeps the connection. The state is that of the moment of the connection, as with
runc and crun.
"""

from __future__ import annotations

import _socket
import os

from rootless import OCI_VERSION
from rootless.errors import RootlessError
from rootless.jsontext import render
from rootless.launch.scm_rights import connect, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def connect_to(path: str) -> int:
    """Return a descriptor of a connection to the socket `path`.

    Raises:
        RootlessError: `RL-SECCOMP-LISTENER`: nobody listens.
    """
    try:
        return connect(path).detach()
    except OSError as error:
        raise _refused("connect", path, error) from None


class Listener:
    """What it gets."""

    def __init__(self, path: str, metadata: str, state: Mapping[str, object], pid: int) -> None:
        """Prepare.

        Args:
            path: of the socket.
            metadata: what linux.seccomp.listenerMetadata says.
            state: the container's, as runtime.md has it.
            pid: the process that has the filter.
        """
        self._path = path
        self._metadata = metadata
        self._state = state
        self._pid = pid

    def pass_on(self, notifications: int, agent: int) -> None:
        """Send the descriptor that notifications are read from, with the state, over the connection, and close both.

        Raises:
            RootlessError: `RL-SECCOMP-LISTENER`: nobody took it. The program may wait for an answer.
        """
        told = {
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": self._pid,
            "metadata": self._metadata,
            "state": self._state,
        }
        connection = _socket.socket(fileno=agent)
        try:
            send(connection, render(told, None).encode(), notifications)
        except OSError as error:
            raise _refused("sendmsg", self._path, error) from None
        finally:
            os.close(notifications)
            connection.close()  # exactly one state goes over it


def _refused(call: str, path: str, error: OSError) -> RootlessError:
    return RootlessError(
        "failed to connect with seccomp agent specified in the seccomp profile",
        cause=f"{call} {path}: {(error.strerror or str(error)).lower()}",
        where="linux.seccomp.listenerPath",
        fix="start the program that answers the notifications, or correct the path",
        code="RL-SECCOMP-LISTENER",
    )
