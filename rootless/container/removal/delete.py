"""The verb `delete`."""

from __future__ import annotations

import sys

from rootless import log, paths
from rootless.container.operations.teardown import destroy, end, readable, remove_ended
from rootless.container.state import store
from rootless.container.state.lifecycle import allow, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.salvage import end_salvaged
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.options import Options
else:
    end_salvaged = lazy("rootless.container.operations.salvage", "end_salvaged")


def delete(options: Options) -> None:
    """Remove a stopped container; with --force, a container in any state."""
    root = state_root(options.root)
    for container_id in store.chosen(root, options.container, regex=options.regex):
        if options.force:
            _delete_by_force(root, container_id)
            continue
        with store.find(root, container_id) as entry:
            found = store.existing_state(entry)
            allow("delete", container_id, status(entry, found))
            destroy(entry, found)


def remove_after_run(options: Options) -> int:
    """Remove the container of a foreground `run` that has not waited itself; return the exit status of its program.

    rootless/container/terminal/attend.py has the command. As in `run`, a failure is a warning.
    """
    try:
        remove_ended(state_root(options.root), options.container)
    except RootlessError as error:
        if not paths.is_file(options.root):  # then the container has gone
            log.warning(f"{error.what}: {error.cause}", fix=error.fix)
    return int(sys._xoptions["ended"])  # noqa: SLF001 - documented so


def _delete_by_force(root: StateRoot, container_id: str) -> None:
    try:
        # without the lock first: its holder may be waiting for a process that has to end
        with store.find(root, container_id, lock=False) as entry:
            found = readable(entry)
            if found:
                end(found)
        with store.find(root, container_id) as entry:
            destroy(entry, _end_by_force(entry))
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise


def _end_by_force(entry: ContainerDir) -> State | None:
    """End the processes of a container; return its state, or None where that is of no further use.

    Raises:
        RootlessError: `RL-STATE`: its state is damaged, and the rest of the file does not identify them.
    """
    try:
        found = entry.read()
    except RootlessError:
        end_salvaged(entry)
        return None
    if found:
        end(found)
    return found
