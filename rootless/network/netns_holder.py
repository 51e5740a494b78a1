"""Netns holders: executor processes that stay in the namespaces of a network while it is in use.

A helper holds a network interface in its namespace, and so the namespace: the kernel never tells it that the container
has ended. Instead it watches a pipe of the netns holder, which ends with the container's first process, whether or not
`rootless` still runs. A holder takes 0.1 MB.
"""

from __future__ import annotations

from rootless import files
from rootless.launch.protocol import NAMESPACES, NETLINK, Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.ops import Op


class Namespaces:
    """Descriptors of namespaces, sent by a process inside, whose /proc directory is closed to others.

    Attributes:
        user, network: the descriptors, or -1; open until close().
    """

    def __init__(self, user: int = -1, network: int = -1) -> None:
        self.user = user
        self.network = network

    def close(self) -> None:
        """Close them."""
        files.close_fds(self, "user", "network")


class NetnsHolder:
    """One netns holder, ready.

    Attributes:
        pid: its process, by which slirp4netns finds the namespaces.
        namespaces: those that it is in, where they were given or its operations pass them on.
        end: a descriptor that hangs up when it ends.
        netlink: a netlink socket of its network namespace, or -1.
    """

    def __init__(
        self, operations: list[Op], *, process: int = -1, namespaces: Namespaces | None = None, lock: int = -1
    ) -> None:
        """Start it and return when it is in the namespaces.

        Args:
            operations: as plan/network/holder_plan.py has them.
            process: a pidfd of the process whose end it awaits.
            namespaces: those that it joins, the caller's to close; its own descriptors have the same numbers.
            lock: a file that it locks, by a descriptor of the same number.

        Raises:
            RootlessError: an operation failed; it is gone.
        """
        self._given = bool(namespaces)
        first, second = (namespaces.user, namespaces.network) if namespaces else (lock, -1)
        self._run = Run(Plan(operations), Descriptors(process=process, console=first, cgroup=second))
        self._run.until_or_kill(ops.WAIT_START)
        assert self._run.executor
        self.pid = self._run.executor.first
        self.end = self._run.executor.report
        passed = self._run.passed
        self.netlink = passed.pop(NETLINK)[0] if NETLINK in passed else -1
        self.namespaces = namespaces or Namespaces(*passed.pop(NAMESPACES, ()))

    def go_on(self) -> None:
        """Let it do what comes after its first READY, and return when that is done."""
        self._run.until_or_kill(ops.AWAIT_END if self._run.plan.first(ops.AWAIT_END) else ops.AWAIT_LINKS)

    def hide(self) -> None:
        """Let one whose last message was READY go on, and return when it hides."""
        assert self._run.executor
        self._run.executor.answer_last(b"S")

    def close(self) -> None:
        """Leave it alone: it ends with the process or the interfaces that it waits for."""
        self._run.close()
        if not self._given:
            self.namespaces.close()
        files.close_fds(self, "netlink")

    def kill(self) -> None:
        """End it, and so the helper."""
        self.close()
        self._run.kill()
