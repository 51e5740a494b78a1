"""Why a controller is missing in a cgroup, for a limit that needs it (cgroup-v2.rst, "Controllers")."""

from __future__ import annotations

import posix

from rootless import paths, procfs
from rootless.files import text_of
from rootless.linux import CGROUP_HYBRID_MOUNT, SYSTEMD_BOOTED

_OF_V1 = {"io": "blkio"}
"""What cgroup v1 calls them, where that is something else."""
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
"""The unit of a user's systemd is this and a number."""
_USER = "--user "


def why_missing(controller: str, mount: str, directory: str, *, ours: bool = False) -> tuple[str, str]:
    """Return why a cgroup does not have a controller, in words, and what can be done about that.

    Args:
        controller: its name.
        mount: where the hierarchy is mounted; empty where it is not.
        directory: the cgroup's, below it.
        ours: systemd has made it for us, with all controllers that it may hand on.
    """
    if found := why_nowhere(controller, mount):
        return found
    above, below = _end_of(controller, mount, directory)
    if not above:
        return (
            f"{mount} shows no cgroup with the controller {controller}",
            "have it handed on to the container, or the cgroup namespace, that you are in",
        )
    unit = _unit_that_lacks_it(below, directory)
    if unit and mount == CGROUP_HYBRID_MOUNT:
        return "systemd hands no controller of cgroup v2 on where there is cgroup v1 too", pure_v2()
    path, last = above.removeprefix(mount) or "/", paths.name(above)
    of_user = "/user@" in path
    if unit and not of_user and not (ours and not unit.startswith(_MANAGER)):
        edited = "user@.service" if unit.startswith(_MANAGER) else unit
        how = f"as root: systemctl edit {edited} with Delegate={controller}, systemctl restart {unit}"
        return f"the controller {controller} is not delegated to {unit}", how
    how = f"echo +{controller} >{above}/cgroup.subtree_control"
    if ours:
        how = f"take {controller} out of DisableControllers= of {last} (systemctl {_USER * of_user}cat {last})"
    elif unit:
        how = "systemd-run --user --scope -p Delegate=yes rootless …"
    elif not posix.access(f"{above}/cgroup.subtree_control", posix.W_OK):
        how = f"as root: {how}"
    return f"the controller {controller} ends at {path}, which does not hand it on", how


def why_nowhere(controller: str, mount: str) -> tuple[str, str] | None:
    """Return why no cgroup of the hierarchy has a controller, and what helps; None when one may have it."""
    if _OF_V1.get(controller, controller) in _in_v1():
        return "this host has the controllers for that in cgroup v1", pure_v2()
    # only the root has no type; a cgroup namespace shows another one as the root
    if not mount or paths.exists(f"{mount}/cgroup.type") or controller in _controllers(mount):
        return None
    for word in text_of("/proc/cmdline").split():
        names = word.removeprefix(_SWITCH).split(",") if word.startswith(_SWITCH) else ()
        if controller in names or _OF_V1.get(controller) in names:
            reason = f"the controller {controller} is switched off on the kernel's command line"
            return reason, f"boot without {word}"
    option = _OPTIONS.get(controller)
    return f"this kernel has no controller {controller}", f"boot one with {option}" if option else "leave it out"


def has_v1() -> bool:
    """Whether this host has controllers in cgroup v1."""
    return bool(_in_v1())


def pure_v2() -> str:
    """Return what makes a host one with cgroup v2 only."""
    return f"boot with {'systemd.unified_cgroup_hierarchy=1' if paths.exists(SYSTEMD_BOOTED) else 'cgroup_no_v1=all'}"


def _in_v1() -> set[str]:
    """Return the controllers that cgroup v1 has, in its own words (cgroups(7), /proc/PID/cgroup)."""
    lists = (names.split(",") for names, _ in procfs.cgroups("self"))
    return {name for names in lists for name in names if name and not name.startswith("name=")}


def _controllers(directory: str) -> list[str]:
    return text_of(f"{directory}/cgroup.controllers").split()


def _end_of(controller: str, mount: str, directory: str) -> tuple[str, str]:
    """Return the last cgroup on the way down that has the controller, and the first without; each may be empty."""
    above, place = "", mount
    for name in ("", *directory.removeprefix(mount).strip("/").split("/")):
        place = f"{place}/{name}" if name else place
        if controller not in _controllers(place):
            return above, place
        above = place
    return above, ""


def _unit_that_lacks_it(below: str, directory: str) -> str:
    """Return the unit of systemd that would have to be given what is missing from `below` on, or nothing."""
    if not paths.exists(SYSTEMD_BOOTED):
        return ""
    first = len(below.split("/")) - 1
    return next((name for name in directory.split("/")[first:] if name.endswith(_UNITS)), "")
