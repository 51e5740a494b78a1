"""The namespaces and ID maps of a running container, from /proc, for a process that enters it."""

from __future__ import annotations

import posix

from rootless.errors import RootlessError
from rootless.linux import NAMESPACE_FILES
from rootless.paths import noted
from rootless.procfs import denies_setgroups, id_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rootless.procfs import IdMap


NAMESPACES = "namespaces"
"""Note of a pid, and the names of namespaces with whether they differ from those of the caller (paths.noted)."""


class Running:
    """A running container.

    Attributes:
        pid: the pid of its first process.
        namespaces: the types of its namespaces that differ from the caller's.
        uid_map, gid_map: the ID maps of its user namespace.
        setgroups_denied: setgroups(2) is denied in its user namespace.
    """

    def __init__(
        self,
        pid: int,
        namespaces: Collection[str],
        uid_map: tuple[IdMap, ...] = (),
        gid_map: tuple[IdMap, ...] = (),
        *,
        setgroups_denied: bool = False,
    ) -> None:
        self.pid = pid
        self.namespaces = frozenset(namespaces)
        self.uid_map = uid_map
        self.gid_map = gid_map
        self.setgroups_denied = setgroups_denied


def read(pid: int) -> Running:
    """Return the container whose first process is `pid`. The caller must check by pidfd afterwards that it still runs.

    Raises:
        RootlessError: `RL-NAMESPACES`: permission denied (ptrace(2), "Ptrace access mode checking").
    """
    differs = {kind: _differs(pid, name) for kind, name in NAMESPACE_FILES.items()}
    noted(NAMESPACES, pid, {NAMESPACE_FILES[kind]: other for kind, other in differs.items()})
    return Running(
        pid,
        [kind for kind, other in differs.items() if other],
        *id_maps(pid),
        setgroups_denied=denies_setgroups(pid),
    )


def _differs(pid: int, name: str) -> bool:
    try:
        own, other = posix.stat(f"/proc/self/ns/{name}"), posix.stat(f"/proc/{pid}/ns/{name}")
    except FileNotFoundError:
        return False  # the kernel has no such namespace, or the process has ended
    except PermissionError:
        raise RootlessError(
            "cannot enter the container",
            cause=f"permission denied: /proc/{pid}/ns/{name}",
            fix="enter it as the user who created it; if it is not started yet, run: rootless start",
            code="RL-NAMESPACES",
        ) from None
    return (own.st_dev, own.st_ino) != (other.st_dev, other.st_ino)
