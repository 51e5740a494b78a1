"""Undo notes: the resources that a container has on the host, removed in reverse order.

    ROOT/ID/undo    a JSON array per line: kind, boot id, data; appended before the thing is made

Every operation that makes something outside the container's directory notes it there first (plan/ops.py: `undo`). A
truncated line announces a resource that was not made yet. A later line of the same kind replaces the earlier one: it
knows more about the same resource. Resources of another boot ended with it.

`delete`, a failed `create`, and the next use of an id after a crash do the same: they walk the notes backwards, then
remove the directory. Each undo is harmless when there is nothing to undo, and when it is done twice.
"""

from __future__ import annotations

from time import monotonic

from rootless import log
from rootless.container.state.directory import UNDO as _FILE
from rootless.container.state.directory import unusable
from rootless.errors import RootlessError
from rootless.jsontext import parse, render
from rootless.lazy import lazy
from rootless.procfs import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless.container.state.directory import ContainerDir

    Data = dict[str, Any]

UNDO: dict[str, Callable[[ContainerDir, Data], None]] = {
    "cgroup": lazy("rootless.container.operations.cgroup_cleanup", "undo"),
    "monitor": lazy("rootless.container.operations.monitor", "undo"),
    "group": lazy("rootless.container.operations.group", "undo"),
    "image": lazy("rootless.container.operations.image", "undo"),
    "network": lazy("rootless.container.operations.network_cleanup", "undo"),
    "resctrl": lazy("rootless.container.operations.resctrl", "undo"),
    "overlay": lazy("rootless.container.operations.overlay", "undo"),
    "root mount": lazy("rootless.container.operations.root_mount", "undo"),
}
"""By the name that an operation declares."""


def note(entry: ContainerDir, kind: str, data: Data) -> None:
    """Note a resource before it is made; `kind` names its undo.

    Raises:
        RootlessError: `RL-STATE`: the note cannot be written.
    """
    entry.append(_FILE, line_of(kind, data))


def line_of(kind: str, data: Data) -> bytes:
    """Return the line of a note."""
    return render([kind, boot_id(), data], None).encode("utf-8", "surrogateescape") + b"\n"


def notes(entry: ContainerDir) -> dict[str, Data]:
    """Return the notes of this boot by kind, in the order in which the kinds were first noted.

    Raises:
        RootlessError: `RL-STATE`: they cannot be read.
    """
    found: dict[str, Data] = {}
    try:
        lines = entry.content(_FILE).splitlines()
    except FileNotFoundError:
        return found
    except OSError as error:
        raise unusable(f"{entry.path}/{_FILE}", error) from None
    for line in lines:
        try:
            written: Any = parse(line, entry.path)
            kind, boot, data = written
        except (RootlessError, ValueError, TypeError):
            continue  # truncated
        if boot == boot_id() and isinstance(kind, str) and kind in UNDO and isinstance(data, dict):
            found[kind] = data
    return found


def walk(entry: ContainerDir) -> None:
    """Undo the notes of a container, the last first.

    Raises:
        RootlessError: something stays; so do the notes.
    """
    for kind, data in reversed(notes(entry).items()):
        begin = monotonic()
        try:
            UNDO[kind](entry, data)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            log.warning(
                f"container {entry.container_id}: its {kind} may stay: {entry.path}/{_FILE} is damaged",
                fix="remove what is left by hand",
            )
            log.debug(f"undo {kind} {data}: {error!r}")
            continue
        if log.is_debug():
            log.debug(f"undo {kind} {data}: {(monotonic() - begin) * 1000:.2f} ms")


def clear(entry: ContainerDir) -> None:
    """Undo the notes and empty the directory: for the remains of a killed command.

    Raises:
        RootlessError: `RL-STATE`, `RL-CGROUP`: something stays, or the directory is not a container's.
    """
    names = entry.own_files()
    if _FILE in names:
        walk(entry)
    entry.clear(names)


def remove(entry: ContainerDir) -> None:
    """Undo the notes and remove the directory; the id is free again.

    Raises:
        RootlessError: as clear().
    """
    clear(entry)
    entry.remove()
