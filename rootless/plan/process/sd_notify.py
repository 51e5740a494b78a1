"""Notifications to a service manager: sd_notify(3). Planned only if the caller has NOTIFY_SOCKET.

The program gets a socket in a small tmpfs of the container: the container's root could fill a directory of the host.
The process that starts the program reads the socket and forwards the notifications.
"""

from __future__ import annotations

from rootless.linux import NODEV, NOEXEC, NOSUID
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_DIRECTORY = "/run/notify"
_NAME = "notify.sock"
SOCKET = f"{_DIRECTORY}/{_NAME}"


def note(context: Context) -> None:
    """Warn if sd_listen_fds(3) will not find the sockets: LISTEN_PID is 1, and the program has another pid."""
    if any(entry.startswith("LISTEN_PID=") for entry in context.request.environment) and "pid" not in context.created:
        context.warn_ignored(
            "linux.namespaces", "LISTEN_PID is 1, but the program has another pid without a pid namespace of its own"
        )


def make_socket() -> list[Op]:
    """Return the operations that create the socket, after the mounts."""
    return [
        Op(
            ops.MOUNT, 0, 0, NOSUID | NODEV | NOEXEC, 0, 0, 0, "tmpfs", "tmpfs", _DIRECTORY, ("mode=0755", "size=64k"),
        ),
        Op(ops.NOTIFY_SOCKET, _DIRECTORY, _NAME),
    ]  # fmt: skip
