"""The end of a container whose state.json is damaged, or written by a newer release.

The rest of the file identifies the first process, and so the others; the beginning of a truncated file has its
identity.
"""

from __future__ import annotations

from rootless import jsontext, log
from rootless.container.operations.cgroup_cleanup import ends_processes
from rootless.container.operations.teardown import end
from rootless.container.operations.undo import notes
from rootless.container.state.directory import unusable
from rootless.container.state.state import OPTIONAL, REQUIRED, State, is_newer
from rootless.errors import RootlessError
from rootless.procfs import Process, boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.container.state.directory import ContainerDir

_STATE = "state.json"
_IDENTIFYING = ("pid", "startTime", "bootId")


def end_salvaged(entry: ContainerDir) -> None:
    """End the processes of a container, and warn that its poststop hooks do not run.

    Raises:
        RootlessError: `RL-STATE`: they may still run, and nothing identifies them.
    """
    try:
        text = entry.content(_STATE)
    except OSError as error:
        raise unusable(f"{entry.path}/{_STATE}", error) from None
    newer, known = _known(text)
    if all(name in known for name in _IDENTIFYING):
        end(_identified(known))
    elif not (_is_over(known) or _ends_with_cgroup(entry)):
        raise RootlessError(
            f"cannot end container {entry.container_id}",
            cause=f"{entry.path}/{_STATE} is damaged and does not identify the container's processes",
            fix=f"find and end them (ps -ef), then rm -r {entry.path}",
            code="RL-STATE",
        )
    why = "a newer release has written its state" if newer else "its state is damaged"
    log.warning(f"container {entry.container_id}: {why}: no poststop hook is run")


def _known(text: bytes) -> tuple[bool, dict[str, Any]]:
    """Return whether a newer release has written a state, and its readable properties."""
    try:
        state = jsontext.parse(text, _STATE)
    except RootlessError:
        state = None
    kinds = REQUIRED | OPTIONAL
    if not isinstance(state, dict):
        # an annotation from an image may have any of these names
        decoded = text.decode("utf-8", "replace").partition('"annotations":')[0]
        state = {name: _searched(decoded, name) for name in _IDENTIFYING}
    return is_newer(state), {name: value for name, value in state.items() if name in kinds and kinds[name](value)}


def _identified(known: dict[str, Any]) -> State:
    """Return a state with the properties that identify the container's processes."""
    state = State("")
    state.pid, state.start_time, state.boot_id = (known[name] for name in _IDENTIFYING)
    state.cgroup = known.get("cgroup", "")
    state.made = known.get("made", {})
    return state


def _searched(text: str, name: str) -> object:
    """Return the number or the string that follows a name, or None."""
    value = text.partition(f'"{name}":')[2].lstrip()
    if value.startswith('"'):
        return value[1:].partition('"')[0] if '"' in value[1:] else None
    digits = value[: len(value) - len(value.lstrip("0123456789"))]
    # a number at the very end may be truncated
    return int(digits) if digits.isascii() and 0 < len(digits) < min(20, len(value)) else None


def _is_over(known: dict[str, Any]) -> bool:
    """Whether the first process has certainly ended."""
    if known.get("bootId", boot_id()) != boot_id():
        return True
    process = Process.read(known["pid"]) if "pid" in known else None
    return "pid" in known and (process is None or process.start_time != known.get("startTime", process.start_time))


def _ends_with_cgroup(entry: ContainerDir) -> bool:
    """Whether all processes are in a cgroup of the container's own, whose undo ends them."""
    noted = notes(entry).get("cgroup")
    return bool(noted and ends_processes(noted))
