"""The terminal of a container: its master side goes to the caller's socket, or is relayed by a foreground `run`."""

from __future__ import annotations

from sys import byteorder

from rootless import files
from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.launch.scm_rights import connect as connect_socket
    from rootless.plan.plan import Plan
else:
    connect_socket = lazy("rootless.launch.scm_rights", "connect")

_DESCRIPTOR_SIZE = 4
_SPACE = 64


def connect(path: str) -> int:
    """Return a socket connected to --console-socket.

    Raises:
        RootlessError: `RL-CONSOLE`: no program listens on it.
    """
    try:
        return connect_socket(path).detach()
    except OSError as error:
        raise RootlessError(
            "terminal",
            cause=f"connect {path}: {(error.strerror or str(error)).lower()}",
            where="process.terminal",
            fix="start the program that listens there before you create the container",
            code="RL-CONSOLE",
        ) from None


class Console:
    """The terminal of one `run`.

    Attributes:
        passed: the descriptor that the executor sends the master side over, or -1.
        master: the master side, if this process relays it, or -1.
    """

    def __init__(self, passed: int = -1, receiving: int = -1) -> None:
        self.passed = passed
        self.master = -1
        self._receiving = receiving

    @classmethod
    def for_run(cls, plan: Plan) -> Console:
        """Prepare to relay the terminal, if the container has one and no socket gets it."""
        if not plan.has_terminal or plan.first(ops.CONNECT_CONSOLE):
            return cls()
        import _socket

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        return cls(theirs.detach(), ours.detach())

    def receive(self) -> None:
        """Receive the master side, if this process relays it."""
        self._close_passed()
        if self._receiving < 0:
            return
        import _socket

        receiving, self._receiving = self._receiving, -1
        channel = _socket.socket(fileno=receiving)
        _, control, _, _ = channel.recvmsg(_SPACE, _SPACE, _socket.MSG_CMSG_CLOEXEC)
        channel.close()
        if control:
            self.master = int.from_bytes(control[0][2][:_DESCRIPTOR_SIZE], byteorder)

    def close(self) -> None:
        """Close the open descriptors."""
        self._close_passed()
        files.close_fds(self, "master", "_receiving")

    def _close_passed(self) -> None:
        files.close_fds(self, "passed")
