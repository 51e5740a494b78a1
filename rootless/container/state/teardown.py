"""The end of a container: its processes go, then its directory, and then its poststop hooks run.

These are the steps 12 and 13 of runtime.md, "Lifecycle".
"""

from __future__ import annotations

import posix
import select

from rootless.container.state.lifecycle import STOPPED, open_process
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State

_SIGKILL = 9


def readable(entry: ContainerDir) -> State | None:
    """Return the state on disk, or None where that is of no use."""
    try:
        return entry.read()
    except RootlessError:
        return None


def end(state: State) -> None:
    """Kill every process of the container and wait until the first one is gone.

    Raises:
        RootlessError: `RL-KILL`: some are still there.
    """
    from rootless.container.state.processes import is_process_1, kill_all, send

    process = open_process(state)
    if process < 0:
        return
    try:
        if is_process_1(state.pid):
            send(process, _SIGKILL)
        else:
            kill_all(state, process)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll()
    finally:
        posix.close(process)


def destroy(entry: ContainerDir, state: State | None) -> None:
    """Remove what is left of a container that has no process any more; `state` is what readable() said before.

    Raises:
        RootlessError: `RL-STATE`: the directory cannot be removed. A hook that fails is a warning.
    """
    _end_network(entry, state)
    entry.remove()
    _poststop(state)


def abandon(entry: ContainerDir) -> None:
    """Do the same after a failure; the caller gets the error of that failure."""
    state = readable(entry)
    _end_network(entry, state)
    entry.abandon()
    _poststop(state)


def _end_network(entry: ContainerDir, state: State | None) -> None:
    if state and state.network:
        from rootless.container.network import attach

        attach.end(entry.root, state)


def _poststop(state: State | None) -> None:
    if state and state.hooks.get("poststop"):
        from rootless.launch.run_hooks import run_whatever_happens

        run_whatever_happens("poststop", state.hooks["poststop"], state.document(STOPPED))
