"""The undo of a container's cgroup, which is noted before it is made.

The note has `path`, the `parents` made for it, `certainty` (cgroup/group.py), and for a scope its `unit` and the
runtime directory of its user manager.
"""

from __future__ import annotations

import errno
from time import monotonic, sleep

from rootless.cgroup.group import KEPT, OWN, UNVERIFIED, empty, end_all, remove, remove_parents
from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.paths import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cgroup.systemd import stop_scope
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.launch.run_in_userns import own_maps, run_in_userns
else:
    stop_scope = lazy("rootless.cgroup.systemd", "stop_scope")
    own_maps = lazy("rootless.launch.run_in_userns", "own_maps")
    run_in_userns = lazy("rootless.launch.run_in_userns", "run_in_userns")

_SHORT = 0.5
_LOOK_AGAIN = 0.01
"""Seconds."""


def undo(_entry: ContainerDir, data: Data) -> None:
    """Remove the cgroup of a note, and kill every process in it.

    Raises:
        RootlessError: `RL-CGROUP`: it stays.
    """
    path, certainty, unit = data["path"], data["certainty"], data["unit"]
    try:
        # an unverified one is another container's, or systemd removes it with its process
        if unit and certainty == OWN:
            # through systemd, which would not notice the removal
            end_all(path)
            if not stop_scope(unit, data["userManager"]):
                _await_removal(path)
        if path:
            _remove(path, certainty)
            remove_parents(data["parents"])
    except OSError as error:
        raise RootlessError(
            f"cannot remove the cgroup {error.filename or ''}".rstrip(),
            cause=(error.strerror or str(error)).lower(),
            fix="end the processes in it (cgroup.procs lists them), then run rootless delete --force",
            code="RL-CGROUP",
        ) from None


def ends_processes(data: Data) -> bool:
    """Whether the undo of a note, which may be damaged, ends every process of the cgroup."""
    return data.get("certainty") in (OWN, KEPT) and bool(data.get("path"))


def _await_removal(path: str) -> None:
    """Wait until systemd removes the empty cgroup of a scope, when systemd does not answer requests."""
    deadline = monotonic() + _SHORT
    while exists(path) and monotonic() < deadline:
        sleep(_LOOK_AGAIN)


def _remove(path: str, certainty: str) -> None:
    try:
        if certainty == KEPT:
            empty(path)
        else:
            remove(path, empty_only=certainty == UNVERIFIED)
    except PermissionError:
        # the container owns its cgroup, and has made others below it
        _remove_as_root_of_a_namespace(path)
        if certainty != KEPT:
            remove(path)


def _remove_as_root_of_a_namespace(path: str) -> None:
    command = ("/usr/bin/find", path, "-mindepth", "1", "-depth", "-type", "d", "-delete")
    status = run_in_userns(command, own_maps()[0])
    if status:
        raise OSError(errno.EBUSY, f"find -delete ends with {status}", path)
