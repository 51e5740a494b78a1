"""The Plan of `exec`: a further process in a running container.

The executor joins the namespaces of the container's first process by its pidfd. Before that it hides from processes of
the container (CVE-2016-9962), and it closes descriptors of the host before the image decides where paths lead
(CVE-2024-21626). The rest is as for the first process, planned by the same functions.
"""

from __future__ import annotations

from rootless.lazy import lazy
from rootless.linux import CLONE_FLAGS
from rootless.plan import launcher_part, ops, unsupported
from rootless.plan.context import Context
from rootless.plan.namespaces import new_or_joined
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from rootless.plan.process import identity
from rootless.plan.process.refused_calls import keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.bundle.load import Bundle
    from rootless.host.facts import Facts
    from rootless.host.running import Running
    from rootless.plan.cgroup.resctrl import group
    from rootless.plan.process.scheduling import cpu_mask
    from rootless.plan.request import Request
else:
    group = lazy("rootless.plan.cgroup.resctrl", "group")
    cpu_mask = lazy("rootless.plan.process.scheduling", "cpu_mask")


def compile_exec(bundle: Bundle, facts: Facts, request: Request, running: Running) -> Plan:
    """Decide everything that can be decided before anything happens.

    Args:
        bundle: the container's bundle, with the process to run instead of its own.
        facts: the host and the caller.
        request: the caller's request.
        running: the running container.

    Raises:
        RootlessError: the process cannot be run there; `where` is its place in config.json.
    """
    context = Context(bundle, facts, request)
    context.running = running
    context.joined = dict.fromkeys(running.namespaces, "")
    unsupported.refuse(context)
    identity.choose_user(context)
    raised, limits = identity.rlimits(context)
    last, seccomp_filter = identity.execute(context, limits)
    plan = [
        *launcher_part.console(context),
        *launcher_part.connections(context, seccomp_filter),
        Op(ops.SPAWN),
        *launcher_part.listener(seccomp_filter),
        *_affinity(context, "initial"),
        *identity.oom_score(context),
        *raised,
        Op(ops.NON_DUMPABLE),
        join(context, running),
        Op(ops.FORK),
        *_resctrl(context),
        *_affinity(context, "final"),
        *new_or_joined.become(context),
        Op(ops.SESSION),
        *keyring(context),
        *_terminal(context),
        *identity.identity(context, seccomp_filter),
        *identity.find(context),
        Op(ops.READY),
        Op(ops.CHECK_RUNNING),
        *([Op(ops.SEND_PIDFD, "setns")] if request.pidfd_socket else ()),
        *([Op(ops.WRITE_PID_FILE, request.pid_file)] if request.pid_file else ()),
        Op(ops.WAIT_START),
        *launcher_part.when_started(seccomp_filter, "running"),
        *last,
    ]
    return Plan(plan, context.notes)


def join(context: Context, running: Running) -> Op:
    """Return the operation that joins the namespaces of a running container."""
    flags = sum(CLONE_FLAGS[kind] for kind in running.namespaces)
    # only in a shared mount namespace does the container have a root of its own; elsewhere the container may have
    # changed its root since, and that root is of no interest
    listed = [each for each in context.linux.get("namespaces") or () if each["type"] == "mount"]
    shared = any(each.get("path") for each in listed) if listed else "mount" not in running.namespaces
    return Op(ops.JOIN_PROCESS, flags, running.pid if shared else 0)


def _resctrl(context: Context) -> list[Op]:
    if context.linux.get("intelRdt") is None:
        return []
    return [Op(ops.ADD_TO_RESCTRL, group(context), where="linux.intelRdt")]


def _terminal(context: Context) -> list[Op]:
    if not context.process.get("terminal"):
        return []
    size = context.process.get("consoleSize") or {}
    return [Op(ops.TERMINAL, size.get("width") or 0, size.get("height") or 0, context.uid, where="process.terminal")]


def _affinity(context: Context, moment: str) -> list[Op]:
    """Return the operation for process.execCPUAffinity: `initial` before the container's cgroup, `final` in it."""
    cpus = (context.process.get("execCPUAffinity") or {}).get(moment)
    if not cpus:
        return []
    where = f"process.execCPUAffinity.{moment}"
    return [Op(ops.CPU_AFFINITY, cpus, cpu_mask(cpus, where), where=where)]
