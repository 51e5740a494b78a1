"""The life of a container: which verb may meet it in which state, and how the state is found (runtime.md "Lifecycle").

            ┌──────────┐  READY   ┌─────────┐  start   ┌─────────┐  exit   ┌─────────┐  delete
    create ─▶ creating ├─────────▶│ created ├─────────▶│ running ├────────▶│ stopped ├────────▶
            └──────────┘          └─────────┘          └─────────┘         └─────────┘

Only creating and created are written down. That the process is gone, or has become the program, is seen in /proc each
time: nobody has to be there to note it. A created or running container whose cgroup is frozen is
paused, until `resume`.
"""

from __future__ import annotations

from rootless import log
from rootless.errors import RootlessError
from rootless.procfs import Process, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"

ALLOWED = {
    # verb: the states in which it may meet a container
    "start": (CREATED,),
    "kill": (CREATED, RUNNING, PAUSED),
    "delete": (STOPPED,),
    "exec": (CREATED, RUNNING),
    "checkpoint": (RUNNING, PAUSED),
    "pause": (CREATED, RUNNING),
    "resume": (PAUSED,),
    "update": (CREATED, RUNNING, PAUSED),
    "events": (CREATED, RUNNING, PAUSED),
}

_REFUSALS = {
    # The causes are those that engines look for.
    ("start", CREATING): ("cannot start a container that is not created yet", "wait for create to end"),
    ("start", RUNNING): ("cannot start an already running container", ""),
    ("start", STOPPED): ("cannot start a container that has stopped", "delete it and create it again"),
    ("start", PAUSED): ("cannot start a container that is paused", "resume it first"),
    ("kill", CREATING): ("container not running: it is being created", "wait for create to end, or delete --force"),
    ("kill", STOPPED): ("container not running", ""),
    ("exec", CREATING): ("container not running: it is being created", "wait for create to end"),
    ("exec", PAUSED): ("cannot exec in a paused container", "resume it first, or use --ignore-paused"),
    ("exec", STOPPED): ("cannot exec in a stopped container: container not running", ""),
    ("delete", CREATING): ("that is not stopped: creating", "wait for create to end, or delete --force"),
    ("delete", CREATED): ("that is not stopped: created", "kill it first, or delete --force"),
    ("delete", RUNNING): ("that is not stopped: running", "kill it first, or delete --force"),
    ("delete", PAUSED): ("that is not stopped: paused", "kill it first, or delete --force"),
    ("checkpoint", CREATING): ("container not running: it is being created", "wait for create to end, then start it"),
    ("checkpoint", CREATED): ("container not running: it waits for its start", "start it"),
    ("checkpoint", STOPPED): ("container not running", ""),
    ("pause", PAUSED): ("container not running or created: paused", ""),
    ("resume", CREATED): ("container not paused", ""),
    ("resume", RUNNING): ("container not paused", ""),
}
_NOT_RUNNING = {
    CREATING: ("container not running: it is being created", "wait for create to end"),
    STOPPED: ("container not running", ""),
}
"""For every other verb."""

_WAITING_NAME = "rootless:init"
"""What helpers/init calls itself until it executes the program."""


def allow(verb: str, container_id: str, status: str) -> None:
    """Refuse a verb that does not fit the state of the container.

    Raises:
        RootlessError: `RL-STATUS`, in the words that engines match on.
    """
    if status in ALLOWED[verb]:
        return
    cause, fix = _REFUSALS.get((verb, status)) or _NOT_RUNNING[status]
    if verb == "delete":
        what, cause = f"cannot delete container {container_id} {cause}", ""
    else:
        what = f"container {container_id}"
    raise RootlessError(what, cause=cause, fix=fix, code="RL-STATUS")


def status(entry: ContainerDir, state: State) -> str:
    """Return the state of a container now."""
    now = _status(entry, state)
    if log.is_debug():
        log.debug(f"read {entry.path}/state.json: {now}, pid {state.pid}")
    return now


def _status(entry: ContainerDir, state: State) -> str:
    process = first_process(state)
    if process is None or not process.alive:
        return STOPPED
    if state.status == CREATING:
        return CREATING
    if state.cgroup and _is_frozen(state.cgroup):
        return PAUSED
    if process.name == _WAITING_NAME and entry.has_socket():
        return CREATED
    return RUNNING


def _is_frozen(cgroup: str) -> bool:
    """Whether a cgroup is frozen; false if that cannot be read."""
    try:
        return read(f"{cgroup}/cgroup.freeze").startswith(b"1")
    except OSError:
        return False


def first_process(state: State) -> Process | None:
    """Return the container's process, or None when there is none, or the number is somebody else's."""
    process = Process.read(state.pid)
    if process is None or process.start_time != state.start_time or not state.is_of_this_boot():
        return None
    return process
