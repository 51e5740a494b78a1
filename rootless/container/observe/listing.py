"""The verbs `state`, `list` and `ps`."""

from __future__ import annotations

from rootless import log
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.procfs import is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.network_cleanup import serving_processes
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.options import Options
else:
    serving_processes = lazy("rootless.container.operations.network_cleanup", "serving_processes")


def state(options: Options) -> dict[str, object]:
    """Return the state of a container (runtime.md, "State")."""
    with store.find(state_root(options.root), options.container, lock=False) as entry:
        found = store.existing_state(entry)
        return report(entry, found)


def list_containers(options: Options) -> list[dict[str, object]]:
    """Return the states of all containers of the root."""
    root = state_root(options.root)
    states = []
    for container_id in store.ids(root):
        try:
            with store.find(root, container_id, lock=False) as entry:
                found = entry.read()
                if found:
                    states.append(report(entry, found))
        except RootlessError as error:
            if (
                error.code != "RL-NOT-FOUND"
            ):  # else it was removed since ids(); a broken container does not hide the others
                log.warning(f"{error.what}: {error.cause}", fix=error.fix)
    return states


def report(entry: ContainerDir, found: State) -> dict[str, object]:
    """Return the state of a container as callers see it."""
    now, is_served = status(entry, found), True
    if found.network and found.network.addresses and now != STOPPED:
        serving = serving_processes(entry)
        is_served = not serving or is_there(serving[0])
    return found.report(now, is_served=is_served)


def processes(options: Options) -> list[int]:
    """Return the ids on the host of a container's processes; empty if it has stopped."""
    from rootless.container.state.processes import members

    with store.find(state_root(options.root), options.container, lock=False) as entry:
        state = store.existing_state(entry)
        found = members(state)
        if log.is_debug():
            source = f"cgroup {state.cgroup}" if state.cgroup else "the container's namespaces"
            log.debug(f"{len(found)} processes found by {source}")
        # checked last: if the first process is still alive, its id was not reused meanwhile
        return [] if status(entry, state) == STOPPED else found
