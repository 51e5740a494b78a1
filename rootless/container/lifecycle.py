"""The life of a container: which verb may meet it in which state, and how the state is told (runtime.md "Lifecycle").

            ┌──────────┐  READY   ┌─────────┐  start   ┌─────────┐  exit   ┌─────────┐  delete
    create ─▶ creating ├─────────▶│ created ├─────────▶│ running ├────────▶│ stopped ├────────▶
            └──────────┘          └─────────┘          └─────────┘         └─────────┘

Only creating and created are written down. That the process is gone, or has become the program, is seen in /proc each
time: nobody has to be there to note it.
"""

from __future__ import annotations

import os

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.container.store import Entry

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
STOPPED = "stopped"

ALLOWED = {
    # verb: the states in which it may meet a container
    "start": (CREATED,),
    "kill": (CREATED, RUNNING),
    "delete": (STOPPED,),
}

_REFUSALS = {
    # The causes are those that engines look for.
    ("start", CREATING): ("cannot start a container that is not created yet", "wait for create to end"),
    ("start", RUNNING): ("cannot start an already running container", ""),
    ("start", STOPPED): ("cannot start a container that has stopped", "delete it and create it again"),
    ("kill", CREATING): ("container not running: it is being created", "wait for create to end, or delete --force"),
    ("kill", STOPPED): ("container not running", ""),
    ("delete", CREATING): ("that is not stopped: creating", "wait for create to end, or delete --force"),
    ("delete", CREATED): ("that is not stopped: created", "kill it first, or delete --force"),
    ("delete", RUNNING): ("that is not stopped: running", "kill it first, or delete --force"),
}

_WAITING_NAME = "rootless:init"
"""What helpers/init calls itself until it executes the program."""


def allow(verb: str, container_id: str, status: str) -> None:
    """Refuse a verb that does not fit the state of the container.

    Raises:
        RootlessError: `RL-STATUS`, in the words that engines match on.
    """
    if status in ALLOWED[verb]:
        return
    cause, fix = _REFUSALS[verb, status]
    if verb == "delete":
        what, cause = f"cannot delete container {container_id} {cause}", ""
    else:
        what = f"container {container_id}"
    raise RootlessError(what, cause=cause, fix=fix, code="RL-STATUS")


def status(entry: Entry, state: dict[str, Any]) -> str:
    """Return the state of a container now."""
    process = _first_process(state)
    if process is None or not process.alive:
        return STOPPED
    if state["status"] == CREATING:
        return CREATING
    if process.name == _WAITING_NAME and entry.has_socket():
        return CREATED
    return RUNNING


class Process:
    """One line of /proc/PID/stat: `name`, `start_time` in clock ticks since boot, `parent`, whether it is `alive`."""

    __slots__ = ("alive", "name", "parent", "pid", "start_time")

    def __init__(self, pid: int, text: str) -> None:
        name_end = text.rindex(")")
        fields = text[name_end + 2 :].split()
        self.pid = pid
        self.name = text[text.index("(") + 1 : name_end]
        self.alive = fields[0] not in ("Z", "X")
        self.parent = int(fields[1])
        self.start_time = int(fields[19])

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """Return the process `pid`, or None when there is none."""
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                return cls(pid, file.read().decode("utf-8", "replace"))
        except (FileNotFoundError, ProcessLookupError):
            return None


def _first_process(state: dict[str, Any]) -> Process | None:
    """Return the container's process, or None when there is none, or the number is somebody else's."""
    process = Process.read(state["pid"])
    if process is None or process.start_time != state["startTime"] or state["bootId"] != boot_id():
        return None
    return process


def boot_id() -> str:
    """Return what distinguishes this boot from others; a process id means nothing across them."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read().decode().strip()


def open_process(state: dict[str, Any]) -> int:
    """Return a pidfd of the container's process, or -1 when it is gone: the number may be somebody else's by now."""
    try:
        fd = os.pidfd_open(state["pid"])
    except ProcessLookupError:
        return -1
    if _first_process(state) is None:
        os.close(fd)
        return -1
    return fd


def shown(state: dict[str, Any], now: str) -> dict[str, object]:
    """Return the state as runtime.md and the callers of runc want it; `now` is what status() said."""
    told = {name: state[name] for name in ("ociVersion", "id", "pid", "status", "bundle", "rootfs", "created")}
    told["status"] = now
    told["pid"] = 0 if now == STOPPED else state["pid"]
    if state["annotations"]:
        told["annotations"] = state["annotations"]
    told["owner"] = state["owner"]
    return told
