"""The resctrl group of a container: its processes join it; it is removed with the container if it was made for it."""

from __future__ import annotations

from rootless.container.operations.undo import note
from rootless.launch import join_resctrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.plan.ops import Op


def join(run: ContainerRun, op: Op) -> None:
    """Move the container's first process into its group; make the group if the Plan allows that.

    Raises:
        RootlessError: `RL-RESCTRL`: the group cannot be used.
    """
    group = op.value("group")
    directories = join_resctrl.made_for_it(group)
    if directories:
        note(run.entry, "resctrl", {"directories": directories})
    join_resctrl.enter(group, run.pid)


def add(run: ContainerRun, op: Op) -> None:
    """Move a further process into the group of the container's first one.

    Raises:
        RootlessError: `RL-RESCTRL`: the kernel refuses it.
    """
    join_resctrl.enter_existing(op.value("group"), run.pid)


def undo(_entry: ContainerDir, data: Data) -> None:
    """Remove the directories that were made for the container."""
    join_resctrl.leave(data["directories"])
