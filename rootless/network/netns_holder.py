"""A keeper: helpers/init in the namespaces of a network, as long as that is needed.

The helper that serves a network holds a link in its namespace, and by that the namespace; nothing in the kernel tells
it that nobody is left there. It is told by the end of the keeper, whose end of a pipe it watches. The keeper ends with
the container's first process, whatever has become of `rootless` by then; it takes 0.1 MB.
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
    """Descriptors of namespaces, which come from a process that is in them and that nobody else may look into.

    Attributes:
        user, network: the descriptors, or -1; open until close().
    """

    def __init__(self) -> None:
        self.user = self.network = -1

    def takers(self) -> dict[int, Callable[..., None]]:
        """Return what takes them out of messages, for Received."""
        return {NAMESPACES: self._take}

    def _take(self, user: int, network: int) -> None:
        self.user, self.network = user, network

    def close(self) -> None:
        """Close them."""
        files.close_fds(self, "user", "network")


class NetnsHolder:
    """One keeper, ready.

    Attributes:
        pid: its process, by which slirp4netns finds the namespaces.
        namespaces: those that it is in, where they were given or its operations pass them on.
        end: a descriptor that hangs up when it ends.
        netlink: a socket that speaks of its network namespace, or -1.
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
        """Start it and return when it is in the namespaces.

        Args:
            operations: as plan/network/holder_plan.py has them.
            process: a pidfd of the process whose end it awaits.
            maps: those of a user namespace that it makes.
            namespaces: those that it joins, the caller's to close; its own descriptors have the same numbers.
            lock: a file that it locks, by a descriptor of the same number.

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
        """Let it do what comes after its first READY, and return when that is done."""
        self._launch.go_on(self._reader)

    def hide(self) -> None:
        """Let one whose last message was READY go on, and return when it hides."""
        self._launch.answer_last(b"S")

    def close(self) -> None:
        """Leave it to itself."""
        self._launch.close()
        if not self._given:
            self.namespaces.close()
        files.close_fds(self, "netlink")

    def kill(self) -> None:
        """End it, and so the helper."""
        self.close()
        self._launch.kill()
