"""What the planner's decisions come to."""

from __future__ import annotations

from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.plan.cgroup.manager import Cgroup
    from rootless.plan.cgroup.resctrl import Group
    from rootless.plan.context import Note
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.network.mode import Network
    from rootless.plan.network.net_devices import Interface
    from rootless.plan.ops import Op
    from rootless.plan.process.seccomp import SeccompFilter


class Plan:
    """Everything that was decided.

    Attributes:
        ops: the operations, in order.
        maps: id maps to write when helpers/init has made the user namespace, or None.
        filter: the seccomp filter whose compiled form belongs into the SECCOMP operation, or None.
        cgroup: the cgroup that is made for the container, or None.
        group: the resctrl group that the container goes into, or None.
        links: the network interfaces that move into it.
        network: the network that it is given, or None when that is not asked for.
        owner: the caller's login name.
        hooks: the hooks that run outside the container, by kind.
        listener: who gets the seccomp filter's notifications, as in SeccompFilter; empty when nobody does.
        notify: the program has a socket to report on, which comes to who starts it.
        terminal: the container has a terminal, whose master side helpers/init sends.
        notes: what differs from config.json, for people.
        covered: the root file system, where it is mounted in the caller's own mount namespace; else empty.
    """

    __slots__ = (
        "cgroup", "covered", "filter", "group", "hooks", "links", "listener", "maps", "network", "notes", "notify",
        "ops", "owner", "terminal",
    )  # fmt: skip

    def __init__(
        self,
        operations: Sequence[Op],
        maps: IdMaps | None = None,
        seccomp_filter: SeccompFilter | None = None,
        notes: Sequence[Note] = (),
        *,
        owner: str = "",
        terminal: bool = False,
        hooks: dict[str, list[dict[str, Any]]] | None = None,
        notify: bool = False,
        links: Sequence[Interface] = (),
        group: Group | None = None,
        cgroup: Cgroup | None = None,
        network: Network | None = None,
        covered: str = "",
    ) -> None:
        self.ops = list(operations)
        self.maps = maps
        self.filter = seccomp_filter
        self.notes = list(notes)
        self.owner = owner
        self.terminal = terminal
        self.hooks = hooks or {}
        self.notify = notify
        self.links = links
        self.group = group
        self.cgroup = cgroup
        self.network = network
        self.covered = covered
        self.listener = seccomp_filter.listener if seccomp_filter else {}

    @property
    def user(self) -> tuple[int, int]:
        """The ids of the program, inside."""
        return next((op.number("uid"), op.number("gid")) for op in self.ops if op.kind is ops.IDS)

    @property
    def keyring(self) -> str:
        """The name of the container's session keyring; empty where the caller's is kept."""
        return next((str(op.string("name")) for op in self.ops if op.kind is ops.KEYRING), "")

    @property
    def identifying(self) -> Sequence[str]:
        """The kinds of the namespaces of its own whose numbers tell whose a process is, where it needs that."""
        return next(([*op.string("kinds")] for op in self.ops if op.kind is ops.IDENTIFY), ())

    def load_filter(self, program: bytes) -> None:
        """Put the compiled seccomp filter into its place."""
        for op in self.ops:
            if op.kind is ops.SECCOMP:
                op.strings = (program,)

    def load_environment(self, entries: Sequence[str]) -> None:
        """Put the caller's environment into the hooks that inherit it; it is no business of those who read a Plan."""
        for op in self.ops:
            if op.kind is ops.HOOK and op.number("environment") == ops.CALLERS:
                path, args, _, about = op.strings
                op.strings = (path, args, entries, about)

    def after_start(self) -> tuple[int, list[dict[str, object]]]:
        """Return the place of the first operation after WAIT_START, and those after it as data, without their bulk."""
        first = next((index + 1 for index, op in enumerate(self.ops) if op.kind is ops.WAIT_START), len(self.ops))
        told = [op.as_data() for op in self.ops[first:]]
        for data in told:
            data.update({name: "" for name in ("filter", "env", "about") if name in data})
        return first, told
