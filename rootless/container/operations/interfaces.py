"""Network interfaces of the host that move into a container: linux.netDevices."""

from __future__ import annotations

from rootless.network import move_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.plan.ops import Op


def move_in(run: ContainerRun, op: Op) -> None:
    """Move interfaces into the network namespace of the container's first process.

    The kernel destroys them with the namespace, or gives physical ones back: there is nothing to undo.

    Raises:
        RootlessError: `RL-NET-DEVICE`: one cannot be moved.
    """
    move_devices.move(op.value("interfaces"), run.pid)
