"""A keeper: helpers/init in the namespaces of a network, as long as that is needed.

The helper that serves a network holds a link in its namespace, and by that the namespace; nothing in the kernel tells
it that nobody is left there. It is told by the end of the keeper, whose end of a pipe it watches. The keeper ends with
the container's first process, whatever has become of `rootless` by then; it takes 0.1 MB.
"""

from __future__ import annotations

from rootless import files
from rootless.launch.protocol import NETLINK, Launch
from rootless.launch.received import Received
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.ops import Op


class Keeper:
    """One keeper, ready.

    Attributes:
        pid: its process, by which helpers find the namespaces.
        end: a descriptor that hangs up when it ends.
        netlink: a socket that speaks of its network namespace, or -1.
    """

    def __init__(self, operations: list[Op], *, process: int = -1, maps: IdMaps | None = None) -> None:
        """Start it and return when it is in the namespaces.

        Args:
            operations: as plan/network.py has them.
            process: a pidfd of the process whose end it awaits.
            maps: those of a user namespace that it makes.

        Raises:
            RootlessError: an operation failed; it is gone.
        """
        self.netlink = -1
        plan = Plan(operations, maps)
        self._launch = Launch(plan, process=process, descriptors=True)
        self._reader = Received({NETLINK: self._take})
        self._launch.until_ready(reader=self._reader)
        self.pid = self._launch.first
        self.end = self._launch.report

    def _take(self, fd: int) -> None:
        self.netlink = fd

    def go_on(self) -> None:
        """Let it do what comes after its first READY, and return when that is done."""
        self._launch.go_on(self._reader)

    def close(self) -> None:
        """Leave it to itself."""
        self._launch.close()
        files.let_go(self, "netlink")

    def kill(self) -> None:
        """End it, and so the helper."""
        self.close()
        self._launch.kill()
