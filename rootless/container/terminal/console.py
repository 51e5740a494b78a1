"""The terminal of a container: its master side goes to the caller's socket, or is relayed by a foreground `run`."""

from __future__ import annotations

from sys import byteorder

from rootless import files
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.plan import Plan
    from rootless.plan.request import Request

_DESCRIPTOR_SIZE = 4
_SPACE = 64


def connect(path: str, plan: Plan) -> int:
    """Return a socket connected to --console-socket, or -1 when the container has no terminal.

    Raises:
        RootlessError: `RL-CONSOLE`: there is a terminal and no socket, or a socket and no terminal, or nobody listens.
    """
    if not path:
        if plan.terminal:
            raise _refused(
                "cannot allocate tty if the caller will detach without setting console socket", "--console-socket PATH"
            )
        return -1
    if not plan.terminal:
        raise _refused(
            "cannot use console socket if the container has no terminal", 'set "terminal": true, or leave it out'
        )
    from rootless.launch import scm_rights

    try:
        connection = scm_rights.connect(path)
    except OSError as error:
        raise _refused(
            f"connect {path}: {(error.strerror or str(error)).lower()}", "listen on it before the container is made"
        ) from None
    return connection.detach()


class Console:
    """The terminal of one `run`.

    Attributes:
        passed: the descriptor that helpers/init sends the master side over, or -1.
        master: the master side, when this process relays it, or -1.
    """

    def __init__(self, passed: int = -1, receiving: int = -1) -> None:
        self.passed = passed
        self.master = -1
        self._receiving = receiving

    @classmethod
    def for_run(cls, request: Request, plan: Plan) -> Console:
        """Prepare what the request and the Plan ask for."""
        if request.console_socket or (request.detach and plan.terminal):
            return cls(connect(request.console_socket, plan))
        if not plan.terminal:
            return cls()
        import _socket

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        return cls(theirs.detach(), ours.detach())

    def receive(self) -> None:
        """Take the master side, if it comes to us."""
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
        """Close what is open."""
        self._close_passed()
        files.close_fds(self, "master", "_receiving")

    def _close_passed(self) -> None:
        files.close_fds(self, "passed")


def _refused(cause: str, fix: str) -> RootlessError:
    return RootlessError("terminal", cause=cause, where="process.terminal", fix=fix, code="RL-CONSOLE")
