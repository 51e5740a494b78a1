"""What a process that enters a running container needs to know about it: its namespaces and its ids, from /proc."""

from __future__ import annotations

import posix

from rootless.errors import RootlessError
from rootless.linux import NAMESPACE_FILES
from rootless.procfs import denies_setgroups, id_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rootless.procfs import IdMap


class Running:
    """One running container.

    Attributes:
        pid: its first process.
        namespaces: the types of those of its namespaces that are not the caller's own.
        uid_map, gid_map: the ids of its user namespace.
        setgroups_denied: setgroups(2) is refused in it.
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
    """Read about the container whose first process is `pid`; the caller then checks by its pidfd that it still runs.

    Raises:
        RootlessError: `RL-NAMESPACES`: the caller may not look, ptrace(2) "Ptrace access mode checking".
    """
    return Running(
        pid,
        [kind for kind, name in NAMESPACE_FILES.items() if _differs(pid, name)],
        *id_maps(pid),
        setgroups_denied=denies_setgroups(pid),
    )


def _differs(pid: int, name: str) -> bool:
    try:
        own, other = posix.stat(f"/proc/self/ns/{name}"), posix.stat(f"/proc/{pid}/ns/{name}")
    except FileNotFoundError:
        return False  # this kernel has no such namespaces, or the process is gone
    except PermissionError:
        raise RootlessError(
            "cannot enter the container",
            cause=f"permission denied to its namespaces (/proc/{pid}/ns/{name})",
            fix="enter it as the user who made it; if it is only created, start it first",
            code="RL-NAMESPACES",
        ) from None
    return (own.st_dev, own.st_ino) != (other.st_dev, other.st_ino)
