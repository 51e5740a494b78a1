"""The Plan of `cp`: a process of the executor in a running container that sends files or receives some.

It joins as `exec` does, but it is not the container's: it keeps its capabilities over the container's user namespace,
has no program and no seccomp filter, and hides from the container's processes.
"""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.context import Context
from rootless.plan.exec_plan import join
from rootless.plan.namespaces import new_or_joined
from rootless.plan.ops import Op
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.bundle.load import Bundle
    from rootless.host.facts import Facts
    from rootless.host.running import Running
    from rootless.plan.request import Request


def compile_copy(bundle: Bundle, facts: Facts, request: Request, running: Running, copy: Op) -> Plan:
    """Plan a process that runs `copy`, a SEND_TREE or a RECEIVE_TREE, in a running container."""
    context = Context(bundle, facts, request)
    context.running = running
    context.joined = dict.fromkeys(running.namespaces, "")
    return Plan(
        [
            Op(ops.SPAWN),
            Op(ops.NON_DUMPABLE),
            join(context, running),
            Op(ops.FORK),
            *[op for op in new_or_joined.become(context) if op.kind is ops.BECOME],
            Op(ops.SESSION),
            Op(ops.CLOSE_FDS),
            Op(ops.CHDIR, 0, "/"),
            Op(ops.UMASK, 0),
            Op(ops.READY),
            Op(ops.WAIT_START),
            copy,
            Op(ops.READY),
        ]
    )
