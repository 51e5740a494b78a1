"""Netns holders: executor processes that stay in the namespaces of a network while it is in use.

A helper holds a network interface in its namespace, and so the namespace: the kernel never tells it that the container
has ended. Instead it watches a pipe of the netns holder, which ends with the container's first process, whether or not
`rootless` still runs. A holder takes 0.1 MB.
"""

from __future__ import annotations

from rootless import files
from rootless.launch.fd_messages import Received
from rootless.launch.protocol import NAMESPACES, NETLINK, Launch
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.plan.idmaps import IdMaps
    from rootless.plan.ops import Op


class Namespaces:
    """Descriptors of namespaces, sent by a process inside, whose /proc directory is closed to others.

    Attributes:
        user, network: the descriptors, or -1; open until close().
    """

    def __init__(self) -> None:
        self.user = self.network = -1

    def takers(self) -> dict[int, Callable[..., None]]:
        """Return the handlers of messages with these descriptors, for Received."""
        return {NAMESPACES: self._take}

    def _take(self, user: int, network: int) -> None:
        self.user, self.network = user, network

    def close(self) -> None:
        """Close them."""
        files.close_fds(self, "user", "network")


class NetnsHolder:
    """One netns holder, ready.

    Attributes:
        pid: its process, by which slirp4netns finds the namespaces.
        namespaces: its own, where they were given or its operations pass them on.
        end: a descriptor that hangs up when it ends.
        netlink: a netlink socket of its network namespace, or -1.
    """

    def __init__(
        self,
        operations: list[Op],
        *,
        process: int = -1,
        maps: IdMaps | None = None,
        namespaces: Namespaces | None = None,
        lock: int = -1,
    ) -> None:
        """Start it, and return when it is in the namespaces.

        Args:
            operations: one of the Plans of plan/network/holder_plan.py.
            process: a pidfd of the process whose end it awaits.
            maps: those of a user namespace that it makes.
            namespaces: those that it joins; the caller closes them. Its own descriptors have the same numbers.
            lock: a file that it locks; its own descriptor has the same number.

        Raises:
            RootlessError: an operation failed; it is gone.
        """
        self.netlink = -1
        self._given = bool(namespaces)
        self.namespaces = namespaces or Namespaces()
        plan = Plan(operations, maps)
        first, second = (namespaces.user, namespaces.network) if namespaces else (lock, -1)
        self._launch = Launch(plan, process=process, console=first, cgroup=second, descriptors=True)
        self._reader = Received({NETLINK: self._take} | self.namespaces.takers())
        self._launch.until_ready(reader=self._reader)
        self.pid = self._launch.first
        self.end = self._launch.report

    def _take(self, fd: int) -> None:
        self.netlink = fd

    def go_on(self) -> None:
        """Let it run the operations after its first READY, and return when they are done."""
        self._launch.go_on(self._reader)

    def hide(self) -> None:
        """Let a holder whose last message was READY go on, and return when it is not dumpable."""
        self._launch.answer_last(b"S")

    def close(self) -> None:
        """Detach from it: it stays until its container ends."""
        self._launch.close()
        if not self._given:
            self.namespaces.close()
        files.close_fds(self, "netlink")

    def kill(self) -> None:
        """Kill it, and so the helper."""
        self.close()
        self._launch.kill()
