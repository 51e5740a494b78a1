"""The seccomp agent, which answers the notifications of a filter: config-linux.md "Seccomp", seccomp_unotify(2).

The agent listens at linux.seccomp.listenerPath. The launcher connects before the container has a process, so that
`create` fails without an agent. Before the program starts, the agent receives the notification descriptor and the state
of the container's process; until then the process keeps the connection. The state is that of the moment of the
connection, as in runc and crun.
"""

from __future__ import annotations

import _socket
import posix

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
        RootlessError: `RL-SECCOMP-LISTENER`: no agent listens.
    """
    try:
        return connect(path).detach()
    except OSError as error:
        raise _refused("connect", path, error) from None


class Listener:
    """The message to the agent."""

    def __init__(self, path: str, metadata: str, state: Mapping[str, object], pid: int) -> None:
        """Take the content of the message.

        Args:
            path: of the agent's socket.
            metadata: linux.seccomp.listenerMetadata.
            state: the state of the container (runtime.md).
            pid: the process with the filter.
        """
        self._path = path
        self._metadata = metadata
        self._state = state
        self._pid = pid

    def pass_on(self, notifications: int, agent: int) -> None:
        """Send the notification descriptor and the state over the connection, and close both.

        Raises:
            RootlessError: `RL-SECCOMP-LISTENER`: the agent is gone. The program may wait for an answer.
        """
        message = {
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": self._pid,
            "metadata": self._metadata,
            "state": self._state,
        }
        connection = _socket.socket(fileno=agent)
        try:
            send(connection, render(message, None).encode(), notifications)
        except OSError as error:
            raise _refused("sendmsg", self._path, error) from None
        finally:
            posix.close(notifications)
            connection.close()  # exactly one state goes over it


def _refused(call: str, path: str, error: OSError) -> RootlessError:
    return RootlessError(
        "failed to connect with seccomp agent specified in the seccomp profile",
        cause=f"{call} {path}: {(error.strerror or str(error)).lower()}",
        where="linux.seccomp.listenerPath",
        fix="start the program that answers the notifications, or correct the path",
        code="RL-SECCOMP-LISTENER",
    )
