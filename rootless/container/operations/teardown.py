"""The end of a container: its processes end, its resources on the host are removed, and its poststop hooks run.

These are the steps 12 and 13 of runtime.md, "Lifecycle".
"""

from __future__ import annotations

import posix

from rootless import files, log
from rootless.container.operations import undo
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, status
from rootless.errors import RootlessError, refused
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.cgroup import blame_memory
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.processes import has_ended, is_process_1, kill_all, send
    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.launch.run_hooks import run_hook
    from rootless.plan.ops import from_data
else:
    blame_memory = lazy("rootless.container.operations.cgroup", "blame_memory")
    has_ended = lazy("rootless.container.state.processes", "has_ended")
    is_process_1 = lazy("rootless.container.state.processes", "is_process_1")
    kill_all = lazy("rootless.container.state.processes", "kill_all")
    send = lazy("rootless.container.state.processes", "send")
    run_hook = lazy("rootless.launch.run_hooks", "run_hook")
    from_data = lazy("rootless.plan.ops", "from_data")

_SIGKILL = 9


def readable(entry: ContainerDir) -> State | None:
    """Return the state on disk, or None if it does not exist or cannot be used."""
    try:
        return entry.read()
    except RootlessError:
        return None


def end(state: State) -> None:
    """Kill every process of the container and wait until the first one has ended.

    Raises:
        RootlessError: `RL-KILL`: some are still alive.
    """
    process = state.open_process()
    if process < 0:
        return
    try:
        if is_process_1(state.pid):
            send(process, _SIGKILL)
        else:
            kill_all(state, process)
        has_ended(process, None)
    finally:
        posix.close(process)


def end_quietly(state: State) -> None:
    """Kill the processes of a container after another failure; report nothing."""
    try:
        end(state)
    except (RootlessError, OSError):
        return


def destroy(entry: ContainerDir, state: State | None) -> None:
    """Remove the remains of a container without processes; `state` comes from readable().

    Raises:
        RootlessError: `RL-STATE`, `RL-CGROUP`: something stays. A hook that fails is a warning.
    """
    undo.remove(entry)
    _run_poststop(state)


def abandon(entry: ContainerDir) -> None:
    """Remove the remains of a container after another failure; an error becomes a warning."""
    state = readable(entry)
    try:
        undo.remove(entry)
    except RootlessError as error:
        log.warning(f"{error.what}: {error.cause}", fix=error.fix)
    _run_poststop(state)


def give_up(run: ContainerRun, error: BaseException) -> None:
    """End and remove a container that cannot be made or started; `error` is the reason."""
    files.close_fds(run.descriptors, "start")  # descriptors may have run out, and the next steps need one
    if run.cgroup and isinstance(error, RootlessError) and error.code == "RL-INIT":
        blame_memory(run, error)
    if run.is_recorded:
        end_quietly(run.state)
    run.kill()
    if run.is_claimed:
        abandon(run.entry)
        run.entry.close()


def remove_ended(root: StateRoot, container_id: str) -> None:
    """Remove a foreground container that has ended, unless another command did; a failure is a warning."""
    try:
        with store.find(root, container_id) as entry:
            found = entry.read()
            if found is None or status(entry, found) == STOPPED:
                destroy(entry, found)
    except (RootlessError, OSError) as error:
        problem = error if isinstance(error, RootlessError) else refused(error)
        if problem.code != "RL-NOT-FOUND":
            log.warning(f"{problem.what}: {problem.cause}", fix=f"rootless delete --force {container_id}")


def _run_poststop(state: State | None) -> None:
    for op in map(from_data, state.after_delete if state else ()):
        assert state
        try:
            run_hook(op.value("hook"), op.where, state.document(STOPPED), state.bundle, state.annotations)
        except RootlessError as error:
            log.warning(f"{error.what}: {error.cause}", where=error.where, fix=error.fix)
