"""The caller's cgroup, and the part of the cgroup v2 hierarchy that is delegated to the caller.

A cgroup is delegated to a user who may write to its directory, cgroup.procs and cgroup.subtree_control (cgroup-v2.rst,
"Delegation").
"""

from __future__ import annotations

import posix

from rootless import paths, procfs
from rootless.files import lists_caller, text_of
from rootless.lazy import lazy
from rootless.linux import CGROUP_HYBRID_MOUNT, CGROUP_MOUNT, SYSTEMD_BOOTED
from rootless.procfs import ALL_IDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.controllers import has_v1, pure_v2, why_missing, why_nowhere
    from rootless.procfs import IdMap
else:
    has_v1 = lazy("rootless.host.controllers", "has_v1")
    pure_v2 = lazy("rootless.host.controllers", "pure_v2")
    why_missing = lazy("rootless.host.controllers", "why_missing")
    why_nowhere = lazy("rootless.host.controllers", "why_nowhere")

LEAF = "rootless.caller"
"""The cgroup to which processes move that would prevent controllers from being enabled (no internal processes)."""
_SLICE = ".slice"
_UNITS = (".scope", ".service", _SLICE)
_REMOUNT_FIX = f"run, in a new cgroup namespace (unshare --cgroup): mount -t cgroup2 cgroup2 {CGROUP_MOUNT}"


class Cgroups:
    """The cgroups that a caller can use.

    Attributes:
        mount: the mount point of cgroup v2; empty if it is not mounted.
        own: the directory of the caller's cgroup; empty if it is unknown.
        base: the directory below which cgroups for containers can be created; empty if nothing is delegated.
        reach: the highest ancestor of `base`, or `base`, that is delegated too; processes can be moved within it.
        top: the highest directory from `base` up to `reach` that systemd does not manage: controllers can be enabled
            from there down.
        managed: the processes in `base` must stay there. It is a unit of the user's systemd manager, perhaps without
            Delegate=yes, or they are in a cgroup below it that belongs to somebody else.
        controllers: the controllers of `top`.
        enabled: the controllers that are enabled for cgroups below `base`.
        obstacle: why there is no `base`, in words.
        fix: the fix for that; empty if only delegation is missing.
        systemd: systemd is process 1 of this host. It is known only if there is no `base`.
        why_missing: a function of a controller's name; it returns why `own` does not have it, in words, and the fix.
        why_nowhere: the same if no cgroup of this host can have it; otherwise it returns None.
        delegated_files: a function that returns the names of a cgroup's files that belong to its owner (cgroups(7)).
    """

    def __init__(self, **known: object) -> None:
        """Describe a host where nothing is delegated, with the attributes `known` instead of the defaults."""
        self.mount = CGROUP_MOUNT
        self.own = ""
        self.base = ""
        self.reach = ""
        self.top = ""
        self.managed = False
        self.controllers: frozenset[str] = frozenset()
        self.enabled: frozenset[str] = frozenset()
        self.obstacle = "your cgroup is not delegated to you"
        self.fix = ""
        self.systemd = False
        self.delegated_files = _usual_files
        self.why_missing = self._why_missing
        self.why_nowhere = self._why_nowhere
        for name, value in known.items():
            if not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)

    def path(self, directory: str) -> str:
        """Return the path of a cgroup's directory as in /proc/PID/cgroup."""
        return directory.removeprefix(self.mount) or "/"

    def _why_missing(self, controller: str) -> tuple[str, str]:
        return why_missing(controller, self.mount, self.top or self.own)

    def _why_nowhere(self, controller: str) -> tuple[str, str] | None:
        return why_nowhere(controller, self.mount)


def _usual_files() -> list[str]:
    return ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]


def _delegated_files() -> list[str]:
    return text_of("/sys/kernel/cgroup/delegate").split() or _usual_files()


def read() -> Cgroups:
    """Return the caller's cgroups. It changes nothing and does not fail: unreadable files count as missing."""
    mount = _mount()
    found = Cgroups(mount=mount, delegated_files=_delegated_files)
    if not mount:
        found.obstacle, found.fix = _why_no_mount()
        return found
    found.own = directory_of("self")
    if not found.own:
        found.obstacle = f"your cgroup is not visible below {mount}"
        found.fix = _REMOUNT_FIX
        return found
    nearest = found.own
    while not _is_writable(nearest):
        nearest = paths.parent(nearest)
        if len(nearest) < len(mount):
            found.obstacle, found.fix = _why_not(found.own, found.path(found.own), mount)
            found.systemd = paths.exists(SYSTEMD_BOOTED)
            return found
    if not lists_caller(f"{found.own}/cgroup.procs"):
        found.obstacle = f"{mount} does not show your cgroup namespace"
        found.fix = _REMOUNT_FIX
        return found
    base = paths.parent(nearest) if paths.name(nearest) == LEAF else nearest
    found.base = found.reach = found.top = base
    while len(found.reach) > len(mount) and _is_writable(paths.parent(found.reach)):
        above = paths.parent(found.reach)
        if found.top == found.reach and not found.top.endswith(_UNITS) and not above.endswith(_SLICE):
            found.top = above
        found.reach = above
    found.managed = nearest != found.own or (found.reach != base and base.endswith(_UNITS))
    found.controllers = frozenset(text_of(f"{found.top}/cgroup.controllers").split())
    found.enabled = frozenset(text_of(f"{base}/cgroup.subtree_control").split())
    return found


def directory_of(process: int | str) -> str:
    """Return the directory of a process's cgroup, by pid or ``self``; empty if it is unknown."""
    path = procfs.cgroup(process)
    mount = _mount()
    return mount + path.rstrip("/") if mount and procfs.is_shown(path) else ""


def _mount() -> str:
    return next(
        (place for place in (CGROUP_MOUNT, CGROUP_HYBRID_MOUNT) if paths.exists(f"{place}/cgroup.controllers")), ""
    )


def user_manager(uid: int, uid_map: tuple[IdMap, ...]) -> str:
    """Return the runtime directory of the user whose systemd manager serves the caller; empty without one.

    XDG_RUNTIME_DIR is not used: after su or in a batch job it is unset, or that of another user. In a user namespace
    the manager is that of the user outside, whose directory has the outer uid as its name. Root of the host uses the
    system manager, whose sockets are below /run.

    Args:
        uid: the caller's uid.
        uid_map: the map of the caller's user namespace.
    """
    outside = next((out + uid - first for first, out, count in uid_map if first <= uid < first + count), -1)
    is_root = outside == 0 and uid_map == (ALL_IDS,)
    if outside == 0 and not is_root:
        outside = _user_of_own_cgroup()  # in nested namespaces the map does not show the uid on the host
    directory = "/run" if is_root else f"/run/user/{outside}"
    try:
        owner = paths.status(directory).st_uid
    except OSError:
        return ""
    is_there = owner == uid and paths.exists(f"{directory}/systemd")
    return directory if is_there and any(_answers(f"{directory}/{name}") for name in ("systemd/private", "bus")) else ""


def _answers(path: str) -> bool:
    """Whether a process listens at a socket: a dead manager's sockets stay behind."""
    import _socket

    paths.noted(paths.UNKNOWN, path)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        connection.connect(path)
    except BlockingIOError:
        return True  # its backlog is full
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _user_of_own_cgroup() -> int:
    """Return the uid in the name of the user slice that the caller is in, a uid of the host; -1 if unknown."""
    for _, path in procfs.cgroups("self"):
        for name in path.split("/"):
            number = name.removeprefix("user-").removesuffix(".slice")
            if name == f"user-{number}.slice" and number.isdecimal():
                return int(number)
    return -1


def _is_writable(directory: str) -> bool:
    return all(paths.allows(directory + file, posix.W_OK) for file in ("", "/cgroup.procs", "/cgroup.subtree_control"))


def _why_no_mount() -> tuple[str, str]:
    """Return why cgroup v2 is not mounted, and the fix."""
    if has_v1():
        return f"this host has cgroup v1, and v2 is not mounted on {CGROUP_MOUNT}", pure_v2()
    return f"cgroup v2 is not mounted on {CGROUP_MOUNT}", f"run, as root: mount -t cgroup2 cgroup2 {CGROUP_MOUNT}"


def _why_not(own: str, path: str, mount: str) -> tuple[str, str]:
    """Return why the caller's cgroup is not writable, and the fix unless delegation is enough."""
    try:
        if paths.mount_flags(own) & posix.ST_RDONLY:
            return f"{mount} is mounted read-only", f"run, as root: mount -o remount,rw {mount}"
        owner = paths.status(own).st_uid
    except OSError as error:
        return f"cannot look at {own}: {(error.strerror or '').lower()}", ""
    return f"your cgroup {path} belongs to {'root' if owner == 0 else f'user {owner}'}: it is not delegated to you", ""
