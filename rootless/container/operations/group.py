"""A container and the group whose namespaces it shares (`run --join`); state/group.py has the group's record."""

from __future__ import annotations

import posix

from rootless import log
from rootless.container.operations.undo import note
from rootless.container.state.group import Group, leave
from rootless.errors import RootlessError
from rootless.launch.make_namespaces import make_namespaces
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.namespaces.group import shared_path
from rootless.procfs import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.plan.ops import Op


def enter(run: ContainerRun, op: Op) -> None:
    """Open the namespaces of the group, or create them for its first container; the executor joins them.

    Raises:
        RootlessError: `RL-JOIN`: the group's containers have other namespaces, or its record cannot be used.
    """
    key, kinds, maps = op.value("key"), op.value("namespaces"), op.value("maps")
    note(run.entry, "group", {"key": key})
    with Group.opened(run.root, key) as shared:
        run.group = shared.enter(run.entry.container_id, kinds, maps, make_namespaces)
    for each in run.plan.ops:
        if each.kind in (ops.JOIN, ops.JOIN_EARLY) and each.string("path") == shared_path(key):
            kind = next(kind for kind in kinds if CLONE_FLAGS[kind] == each.number("namespace"))
            # the executor opens them through this process: its own descriptors are those that the container keeps
            each.strings = (f"/proc/{posix.getpid()}/fd/{run.group[kind]}", *each.strings[1:])


def note_member(run: ContainerRun, op: Op) -> None:
    """Write down the container's process, through which others enter the group when this process has ended.

    Raises:
        RootlessError: `RL-JOIN`: the record cannot be written.
    """
    with Group.opened(run.root, op.value("key")) as shared:
        shared.note_process(run.entry.container_id, identity(run.pid))


def undo(entry: ContainerDir, data: Data) -> None:
    """Forget a member that has ended; the last one's end removes the record."""
    try:
        leave(entry.root, data["key"], entry.container_id)
    except RootlessError as error:  # the next container of the group, or `clean`, forgets it
        log.warning(f"{error.what}: {error.cause}", fix=error.fix)
