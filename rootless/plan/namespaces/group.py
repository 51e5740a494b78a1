"""Groups: containers of one user on one node that share a user namespace and an ipc namespace, for `run --join`.

Processes of an MPI program exchange memory by process_vm_readv(2), which the kernel allows inside one user namespace
only, and by files in /dev/shm. They name each other by process ID, so that they need one pid namespace too: the
caller's. One that the group makes would end with its first process, and take all others along. Each container keeps
its own mounts: roots and overlays differ, and no rank sees half of another's.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.linux import CLONE_FLAGS, NAMESPACE_FILES
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.context import Context

KINDS = ("user", "ipc")
"""The types of namespaces that a group shares, where its containers have new ones."""


def share_processes(context: Context) -> None:
    """Leave out the new pid namespace: the members see each other among the caller's processes."""
    if "pid" in context.created:
        context.created.discard("pid")
        context.adapted(context.places["pid"], "no pid namespace is created: members of a group signal each other")


def share(context: Context) -> None:
    """Choose the namespaces that the members share.

    Raises:
        RootlessError: `RL-JOIN`: there is none to share.
    """
    context.shared = tuple(kind for kind in KINDS if kind in context.created)
    if "user" in context.joined or not context.shared:
        raise RootlessError(
            f"--join {context.request.join}",
            cause="the container joins a user namespace that exists"
            if "user" in context.joined
            else "the container has no user namespace and no ipc namespace of its own",
            fix="leave --join out: the namespaces of its containers are the same already",
            code="RL-JOIN",
        )


def enter(context: Context) -> list[Op]:
    """Return the launcher's operation that opens the namespaces of the group, or creates them."""
    maps = context.maps if "user" in context.shared else None
    return [Op(ops.ENTER_GROUP, context.request.join, list(context.shared), maps)]


def joined_by_all(context: Context) -> dict[str, Op]:
    """Return the operation that joins each shared namespace, by its type."""
    path = shared_path(context.request.join)
    return {kind: Op(ops.JOIN, CLONE_FLAGS[kind], path) for kind in context.shared}


def shared_path(key: str) -> str:
    """Return what stands for the path of a shared namespace until ENTER_GROUP has opened it."""
    return f"of group {key}"


def files(kinds: Sequence[str]) -> dict[str, str]:
    """Return the files below /proc/PID that show these namespaces, by their types."""
    return {kind: f"ns/{NAMESPACE_FILES[kind]}" for kind in kinds}
