"""A bundle, a host and the caller's options become a Plan: the order of things, and nothing else.

The order is half of what makes a container safe: nothing is mounted before the propagation is cut, nothing of the image
is touched before it is the end of the world for path lookup, paths are masked while the host's /dev/null can still be
named, capabilities go after what needs them, and the seccomp filter is the last thing before the program.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan import devices, later, mounts, namespaces, ops, process
from rootless.plan.context import Context
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.load import Bundle
    from rootless.host.facts import Facts
    from rootless.plan.context import Note
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.options import Options
    from rootless.plan.seccomp import SeccompFilter

KERNEL_FLOOR = (5, 12)
"""The first kernel with mount_setattr(2)."""


class Plan:
    """Everything that was decided.

    Attributes:
        ops: the operations, in order.
        maps: id maps to write when helpers/init has made the user namespace, or None.
        filter: the seccomp filter whose compiled form belongs into the SECCOMP operation, or None.
        owner: the caller's login name.
        terminal: the container has a terminal, whose master side helpers/init sends.
        notes: what differs from config.json, for people.
    """

    __slots__ = ("filter", "maps", "notes", "ops", "owner", "terminal")

    def __init__(
        self,
        operations: Sequence[Op],
        maps: IdMaps | None = None,
        seccomp_filter: SeccompFilter | None = None,
        notes: Sequence[Note] = (),
        *,
        owner: str = "",
        terminal: bool = False,
    ) -> None:
        self.ops = list(operations)
        self.maps = maps
        self.filter = seccomp_filter
        self.notes = list(notes)
        self.owner = owner
        self.terminal = terminal

    def load_filter(self, program: bytes) -> None:
        """Put the compiled seccomp filter into its place."""
        for op in self.ops:
            if op.kind is ops.SECCOMP:
                op.strings = (program,)

    def after_start(self) -> dict[str, object]:
        """Return, as data, what `start` needs to explain a failure: the operations after WAIT_START, but their bulk."""
        first = next((index + 1 for index, op in enumerate(self.ops) if op.kind is ops.WAIT_START), len(self.ops))
        told = [op.as_data() for op in self.ops[first:]]
        for data in told:
            data.update({name: "" for name in ("filter", "env") if name in data})
        return {"first": first, "operations": told}


def compile_plan(bundle: Bundle, facts: Facts, options: Options) -> Plan:
    """Decide everything that can be decided before anything happens.

    Raises:
        RootlessError: what config.json asks for cannot be done here; the message has the place and the fix.
    """
    if facts.kernel < KERNEL_FLOOR:
        raise RootlessError(
            f"kernel {facts.kernel[0]}.{facts.kernel[1]} is too old",
            cause="rootless needs Linux 5.12 or newer (mount_setattr, openat2, close_range)",
            fix="boot a newer kernel",
            code="RL-KERNEL",
        )
    context = Context(bundle, facts, options)
    if not context.process:
        raise RootlessError(
            "there is nothing to run",
            cause="config.json has no process",
            where="process",
            fix='add "process" with "args" and "cwd"; `rootless spec` writes an example',
            code="RL-CONFIG",
        )
    later.refuse(context)
    namespaces.decide(context)
    later.note(context)
    process.choose_user(context)
    raised, lowered = process.rlimits(context)
    last, seccomp_filter = process.execute(context, lowered)
    plan = [
        *process.oom_score(context),
        *namespaces.enter(context),
        *namespaces.settle(context),
        *mounts.root(context),
        *mounts.mounts(context),
    ]
    if not mounts.covers_dev(context):
        plan += devices.devices(context)
    plan += [
        *devices.console(context),
        *process.sysctls(context),
        *mounts.protect(context),
        *mounts.change_root(context),
        *process.identity(context, raised),
        *process.find(context),
        Op(ops.READY),
        Op(ops.WAIT_START),
        *last,
    ]
    terminal = bool(context.process.get("terminal"))
    return Plan(plan, context.maps, seccomp_filter, context.notes, owner=facts.user, terminal=terminal)


def compile_host_command(args: Sequence[str], env: Sequence[str], maps: IdMaps) -> Plan:
    """Plan a program of the host as root of a new user namespace that has all the caller's ids."""
    return Plan([Op(ops.NEW_USER), Op(ops.BECOME, maps.uids[0][0], maps.gids[0][0]), Op(ops.EXEC, args, env)], maps)
