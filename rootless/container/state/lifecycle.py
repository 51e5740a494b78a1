"""The lifecycle of a container: every transition, and every refusal (runtime.md, "Lifecycle").

             create           ready            start, executed          exited             delete
    (absent) ──────▶ creating ─────▶ created ─────────────────▶ running ──────▶ stopped ──────▶ (absent)
                                       │ ▲                      ▲ │
                          pause, frozen│ │resume          resume│ │pause, frozen
                                       ▼ │                      │ ▼
                                       └─┴────── paused ────────┴─┘

Only creating and created are written to state.json, by advance(). status() sees the events of the kernel in /proc and
in the cgroup each time: no process has to stay to note them. A paused container that waits for its start is created
again after `resume`, another one is running.
"""

from __future__ import annotations

from rootless import log
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State

ABSENT = ""
CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"

READY = "ready"
"""The executor has made the container, and waits for `start`; or criu has restored the processes."""
EXECUTED = "executed"
"""The first process has become the container's program."""
FROZEN = "frozen"
"""The cgroup is frozen."""
EXITED = "exited"
"""The first process has gone."""

TRANSITIONS = {
    # (event, state): the next state. The events are the verbs, and the events of the kernel above.
    ("create", ABSENT): CREATING,
    (READY, CREATING): CREATED,
    ("start", CREATED): RUNNING,
    ("kill", CREATED): CREATED,
    ("kill", RUNNING): RUNNING,
    ("kill", PAUSED): PAUSED,
    ("exec", CREATED): CREATED,
    ("exec", RUNNING): RUNNING,
    ("checkpoint", RUNNING): RUNNING,
    ("checkpoint", PAUSED): PAUSED,
    ("pause", CREATED): PAUSED,
    ("pause", RUNNING): PAUSED,
    ("resume", PAUSED): RUNNING,
    ("update", CREATED): CREATED,
    ("update", RUNNING): RUNNING,
    ("update", PAUSED): PAUSED,
    ("events", CREATED): CREATED,
    ("events", RUNNING): RUNNING,
    ("events", PAUSED): PAUSED,
    ("delete", STOPPED): ABSENT,
    (EXECUTED, CREATED): RUNNING,
    (FROZEN, CREATED): PAUSED,
    (FROZEN, RUNNING): PAUSED,
    (EXITED, CREATING): STOPPED,
    (EXITED, CREATED): STOPPED,
    (EXITED, RUNNING): STOPPED,
    (EXITED, PAUSED): STOPPED,
}
"""`kill` and `checkpoint` change nothing themselves: EXITED follows where they end the process."""

REFUSALS = {
    # (verb, state): the cause, in the words that engines look for, and the fix
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
    ("pause", CREATING): ("container not running: it is being created", "wait for create to end"),
    ("pause", STOPPED): ("container not running", ""),
    ("resume", CREATING): ("container not running: it is being created", "wait for create to end"),
    ("resume", STOPPED): ("container not running", ""),
    ("update", CREATING): ("container not running: it is being created", "wait for create to end"),
    ("update", STOPPED): ("container not running", ""),
    ("events", CREATING): ("container not running: it is being created", "wait for create to end"),
    ("events", STOPPED): ("container not running", ""),
}

_WAITING_NAME = "rootless:init"
"""The name of the executor until it executes the program."""


def advance(state: State, event: str) -> None:
    """Note an event in a state; the caller writes it."""
    state.status = TRANSITIONS[event, state.status]


def allow(verb: str, container_id: str, status: str) -> None:
    """Refuse a verb that does not fit the state of the container.

    Raises:
        RootlessError: `RL-STATUS`, in the words that engines match on.
    """
    if (verb, status) in TRANSITIONS:
        return
    cause, fix = REFUSALS[verb, status]
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
    written = CREATING if state.status == CREATING else CREATED
    process = state.process()
    if process is None or not process.alive:
        return TRANSITIONS[EXITED, written]
    if written == CREATING:
        return written
    if state.is_frozen():
        return TRANSITIONS[FROZEN, written]
    if process.name == _WAITING_NAME and entry.has_socket():
        return written
    return TRANSITIONS[EXECUTED, written]
