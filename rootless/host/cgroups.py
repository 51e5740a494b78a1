"""The caller's own cgroup, and which part of the cgroup v2 hierarchy is left to the caller.

cgroup-v2.rst, "Delegation": a cgroup is delegated by making its directory, cgroup.procs and cgroup.subtree_control
writable for somebody.
"""

from __future__ import annotations

import posix

from rootless import paths
from rootless.files import text_of
from rootless.host.facts import ALL_IDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.facts import IdMap

PURE = "/sys/fs/cgroup"
HYBRID = "/sys/fs/cgroup/unified"
LEAF = "rootless.caller"
"""The cgroup into which processes are moved that would keep controllers from being enabled."""
_UNITS = (".scope", ".service", ".slice")


class Cgroups:
    """What there is for a caller.

    Attributes:
        mount: where the hierarchy is mounted; empty where it is not.
        own: the directory of the caller's own cgroup; empty where it cannot be told.
        base: the directory below which cgroups of containers can be made; empty where nothing is delegated.
        reach: the highest directory above `base` that is the caller's as well; processes can be moved within it.
        managed: `base` is a unit of the user's systemd, which may not have left it to its processes (Delegate=yes).
        controllers: those that there are in `base`.
        enabled: those that cgroups below `base` have already.
        obstacle: why there is no `base`, in words.
        fix: what can be done about that.
    """

    def __init__(self, **known: object) -> None:
        """Describe a host where nothing is delegated; `known` replaces what is different."""
        self.mount = PURE
        self.own = ""
        self.base = ""
        self.reach = ""
        self.managed = False
        self.controllers: frozenset[str] = frozenset()
        self.enabled: frozenset[str] = frozenset()
        self.obstacle = "your cgroup is not delegated to you"
        self.fix = ""
        for name, value in known.items():
            if not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)

    def path(self, directory: str) -> str:
        """Return a directory of the hierarchy as a path from its root, as /proc/PID/cgroup has it."""
        return directory.removeprefix(self.mount) or "/"


def read() -> Cgroups:
    """Look at what there is. Nothing is changed, nothing fails."""
    mount = _mount()
    found = Cgroups(mount=mount)
    if not mount:
        found.obstacle = "cgroup v2 is not mounted on /sys/fs/cgroup"
        return found
    found.own = directory_of("self")
    if not found.own:
        found.obstacle = "your cgroup lies outside what /sys/fs/cgroup shows"
        return found
    if not _is_writable(found.own):
        found.obstacle, found.fix = _why_not(found.own, found.path(found.own), pure=mount == PURE)
        return found
    if str(posix.getpid()) not in text_of(f"{found.own}/cgroup.procs").splitlines():
        found.obstacle = "/sys/fs/cgroup shows other cgroups than your cgroup namespace"
        return found
    base = paths.parent(found.own) if paths.name(found.own) == LEAF else found.own
    found.base = found.reach = base
    while len(found.reach) > len(mount) and _is_writable(paths.parent(found.reach)):
        found.reach = paths.parent(found.reach)
    found.managed = found.reach != base and base.endswith(_UNITS)
    found.controllers = frozenset(text_of(f"{base}/cgroup.controllers").split())
    found.enabled = frozenset(text_of(f"{base}/cgroup.subtree_control").split())
    return found


def directory_of(process: int | str) -> str:
    """Return the directory of a process's cgroup, by its id or ``self``; nothing where it cannot be told."""
    lines = text_of(f"/proc/{process}/cgroup").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    mount = _mount()
    return mount + path.rstrip("/") if mount and path and "/../" not in f"{path}/" else ""


def _mount() -> str:
    return next((place for place in (PURE, HYBRID) if paths.exists(f"{place}/cgroup.controllers")), "")


def user_manager(uid: int, uid_map: tuple[IdMap, ...]) -> str:
    """Return the runtime directory of the user whose systemd manager makes units for this caller, or nothing.

    The environment is not asked: after su or in a batch job it is silent, or about somebody else. In a user namespace
    the manager is that of the user outside, whose directory is named by the number that it has there. Root of the
    host has the manager of the host, whose sockets lie below /run as a user's lie there.

    Args:
        uid: the caller's.
        uid_map: of the caller's user namespace.
    """
    outside = next((out + uid - first for first, out, count in uid_map if first <= uid < first + count), -1)
    is_root = outside == 0 and uid_map == (ALL_IDS,)
    if outside == 0 and not is_root:
        outside = _user_of_own_cgroup()  # a namespace in a namespace
    directory = "/run" if is_root else f"/run/user/{outside}"
    try:
        owner = posix.stat(directory).st_uid
    except OSError:
        return ""
    sockets = ("systemd/private", "bus")
    is_there = owner == uid and any(paths.exists(f"{directory}/{name}") for name in sockets)
    return directory if is_there and paths.exists(f"{directory}/systemd") else ""


def _user_of_own_cgroup() -> int:
    """Return the user whose slice the caller is in, as the host has the number; -1 where it cannot be told."""
    for name in text_of("/proc/self/cgroup").replace("\n", "/").split("/"):
        number = name.removeprefix("user-").removesuffix(".slice")
        if name == f"user-{number}.slice" and number.isdecimal():
            return int(number)
    return -1


def _is_writable(directory: str) -> bool:
    return all(posix.access(directory + file, posix.W_OK) for file in ("", "/cgroup.procs", "/cgroup.subtree_control"))


def _why_not(own: str, path: str, *, pure: bool) -> tuple[str, str]:
    """Return why the caller's cgroup is not delegated to it, and what to do."""
    try:
        if posix.statvfs(own).f_flag & posix.ST_RDONLY:
            return "/sys/fs/cgroup is mounted read-only", "mount it for writing, with a cgroup namespace of your own"
        owner = posix.stat(own).st_uid
    except OSError as error:
        return f"{own} cannot be seen: {(error.strerror or '').lower()}", ""
    whose = f"your cgroup {path} belongs to {'root' if owner == 0 else f'user {owner}'}"
    if not pure:
        return (
            f"this host has its controllers in cgroup v1, and {whose}",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    return f"{whose}: it is not delegated to you", "systemd-run --user --scope -p Delegate=yes rootless …"
