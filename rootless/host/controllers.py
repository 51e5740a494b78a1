"""Find out why a cgroup does not have a controller that a limit needs: cgroup-v2.rst, "Controllers"."""

from __future__ import annotations

import posix

from rootless import paths, procfs
from rootless.files import text_of
from rootless.linux import CGROUP_HYBRID_MOUNT, SYSTEMD_BOOTED

_OF_V1 = {"io": "blkio"}
"""Controllers with another name in cgroup v1."""
_OPTIONS = {
    "cpu": "CONFIG_CGROUP_SCHED",
    "cpuset": "CONFIG_CPUSETS",
    "hugetlb": "CONFIG_CGROUP_HUGETLB",
    "io": "CONFIG_BLK_CGROUP",
    "memory": "CONFIG_MEMCG",
    "misc": "CONFIG_CGROUP_MISC",
    "pids": "CONFIG_CGROUP_PIDS",
    "rdma": "CONFIG_CGROUP_RDMA",
}
_SWITCH = "cgroup_disable="
_UNITS = (".scope", ".service")
_MANAGER = "user@"
"""The unit of a user's systemd manager is this, the uid and .service."""
_USER = "--user "


def why_missing(controller: str, mount: str, directory: str, *, ours: bool = False) -> tuple[str, str]:
    """Return why a cgroup does not have a controller, in words, and the fix.

    Args:
        controller: its name.
        mount: the mount point of cgroup v2; empty if it is not mounted.
        directory: the directory of the cgroup, below the mount point.
        ours: systemd has created the cgroup for rootless, with all controllers that it may enable.
    """
    if found := why_nowhere(controller, mount):
        return found
    above, below = _end_of(controller, mount, directory)
    if not above:
        return (
            f"no cgroup below {mount} has the controller {controller}",
            "enable it outside the container or cgroup namespace that you are in",
        )
    unit = _unit_without(below, directory)
    if unit and mount == CGROUP_HYBRID_MOUNT:
        return "systemd delegates no controllers of cgroup v2 on a host that also has cgroup v1", pure_v2()
    path, last = above.removeprefix(mount) or "/", paths.name(above)
    of_user = "/user@" in path
    if unit and not of_user and not (ours and not unit.startswith(_MANAGER)):
        edited = "user@.service" if unit.startswith(_MANAGER) else unit
        how = f"run, as root: systemctl edit {edited} with Delegate={controller}, systemctl restart {unit}"
        return f"the controller {controller} is not delegated to {unit}", how
    command = f"echo +{controller} >{above}/cgroup.subtree_control"
    how = f"run: {command}"
    if ours:
        how = f"remove {controller} from DisableControllers= of {last} (systemctl {_USER * of_user}cat {last})"
    elif unit:
        how = "run: systemd-run --user --scope -p Delegate=yes rootless …"
    elif not paths.allows(f"{above}/cgroup.subtree_control", posix.W_OK):
        how = f"run, as root: {command}"
    return f"the controller {controller} is not enabled below {path}", how


def why_nowhere(controller: str, mount: str) -> tuple[str, str] | None:
    """Return why no cgroup of this host has a controller, and the fix; None if some cgroup may have it."""
    if _OF_V1.get(controller, controller) in _in_v1():
        return "this host has the controllers for that in cgroup v1", pure_v2()
    # every cgroup but the root has cgroup.type: the apparent root of a cgroup namespace has it
    if not mount or paths.exists(f"{mount}/cgroup.type") or controller in _controllers(mount):
        return None
    for word in text_of("/proc/cmdline").split():
        names = word.removeprefix(_SWITCH).split(",") if word.startswith(_SWITCH) else ()
        if controller in names or _OF_V1.get(controller) in names:
            reason = f"the controller {controller} is disabled on the kernel's command line"
            return reason, f"boot without {word}"
    option = _OPTIONS.get(controller)
    return f"this kernel has no controller {controller}", f"boot a kernel with {option}" if option else "leave it out"


def has_v1() -> bool:
    """Whether this host has controllers in cgroup v1 hierarchies."""
    return bool(_in_v1())


def pure_v2() -> str:
    """Return the fix that switches a host to cgroup v2 only."""
    return f"boot with {'systemd.unified_cgroup_hierarchy=1' if paths.exists(SYSTEMD_BOOTED) else 'cgroup_no_v1=all'}"


def _in_v1() -> set[str]:
    """Return cgroup v1's names of the controllers in v1 hierarchies (cgroups(7), /proc/PID/cgroup)."""
    lists = (names.split(",") for names, _ in procfs.cgroups("self"))
    return {name for names in lists for name in names if name and not name.startswith("name=")}


def _controllers(directory: str) -> list[str]:
    return text_of(f"{directory}/cgroup.controllers").split()


def _end_of(controller: str, mount: str, directory: str) -> tuple[str, str]:
    """Return the lowest ancestor that has the controller and the highest that has not; each may be empty."""
    above, place = "", mount
    for name in ("", *directory.removeprefix(mount).strip("/").split("/")):
        place = f"{place}/{name}" if name else place
        if controller not in _controllers(place):
            return above, place
        above = place
    return above, ""


def _unit_without(below: str, directory: str) -> str:
    """Return the systemd unit, at or below `below`, that would need the controller; empty without one."""
    if not paths.exists(SYSTEMD_BOOTED):
        return ""
    first = len(below.split("/")) - 1
    return next((name for name in directory.split("/")[first:] if name.endswith(_UNITS)), "")
