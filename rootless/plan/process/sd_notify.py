"""What a service manager wants to hear: sd_notify(3). Planned only where the caller has a NOTIFY_SOCKET.

The program gets a socket of the container's own, in a file system of the container's own: a directory of the host's
would be one that the container's root could fill. The process that starts the program reads it.
"""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import NODEV, NOEXEC, NOSUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_DIRECTORY = "/run/notify"
_NAME = "notify.sock"
SOCKET = f"{_DIRECTORY}/{_NAME}"


def note(context: Context) -> None:
    """Note where sd_listen_fds(3) says that there are none: the program is 1 in a pid namespace of its own only."""
    if any(entry.startswith("LISTEN_PID=") for entry in context.request.environment) and "pid" not in context.created:
        context.warn_ignored(
            "linux.namespaces", "LISTEN_PID is 1, which the program is not without a pid namespace of its own"
        )


def make_socket() -> list[Op]:
    """Return the operations that belong after the mounts."""
    return [
        Op(
            ops.MOUNT, 0, 0, NOSUID | NODEV | NOEXEC, 0, 0, 0, "tmpfs", "tmpfs", _DIRECTORY, ("mode=0755", "size=64k"),
        ),
        Op(ops.NOTIFY_SOCKET, _DIRECTORY, _NAME),
    ]  # fmt: skip
