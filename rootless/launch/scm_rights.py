"""Descriptors sent to other programs over their unix sockets (SCM_RIGHTS, unix(7))."""

from __future__ import annotations

import _socket
import posix
from _struct import pack

from rootless import paths
from rootless.errors import RootlessError


def connect(path: str, patience: float | None = None) -> _socket.socket:
    """Connect to a stream socket whose path may be longer than the 108 bytes of a sockaddr_un.

    Args:
        path: of the socket.
        patience: the seconds after which a call on the connection fails; None for never.

    Raises:
        OSError: the socket does not exist, or no process listens.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    connection.settimeout(patience)
    directory = -1
    try:
        directory = posix.open(paths.parent(path) or ".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{directory}/{paths.name(path)}")
    except BaseException:
        connection.close()
        raise
    finally:
        if directory >= 0:
            posix.close(directory)
    return connection


def send(connection: _socket.socket, data: bytes, fd: int) -> None:
    """Send `data`, and a copy of a descriptor with its beginning."""
    sent = connection.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("@i", fd))])
    while sent < len(data):
        sent += connection.send(data[sent:])


class PidfdReceiver:
    """A connection to the listener of --pidfd-socket."""

    def __init__(self, path: str, where: str = "") -> None:
        """Connect, before anything else happens.

        Args:
            path: of the socket.
            where: the place in config.json that names it; empty for the flag.

        Raises:
            RootlessError: `RL-PIDFD-SOCKET`: no process listens.
        """
        self._path = path
        self._where = where
        try:
            self._connection = connect(path)
        except OSError as error:
            raise self._refused("connect", error) from None

    def send(self, pid: int, whose: bytes) -> None:
        """Send a pidfd of the unreaped child process `pid`, and close the connection.

        Args:
            pid: the process.
            whose: `standard` for a container's first process, `setns` for one of exec, as with runc.

        Raises:
            RootlessError: `RL-PIDFD-SOCKET`: the listener is gone.
        """
        process = posix.pidfd_open(pid)
        try:
            send(self._connection, whose, process)
        except OSError as error:
            raise self._refused("sendmsg", error) from None
        finally:
            posix.close(process)
            self._connection.close()

    def _refused(self, call: str, error: OSError) -> RootlessError:
        return RootlessError(
            f"pidfd receiver {self._path}" if self._where else f"--pidfd-socket {self._path}",
            cause=f"{call}: {(error.strerror or str(error)).lower()}",
            where=self._where,
            fix="start the program that listens there before you create the container",
            code="RL-PIDFD-SOCKET",
        )
