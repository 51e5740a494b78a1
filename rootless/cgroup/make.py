"""A container's cgroup is made as a directory, its controllers are enabled, and its limits are written."""

from __future__ import annotations

import errno
import posix

from rootless import paths
from rootless.cgroup.group import KEPT, OWN, UNVERIFIED, Group, make_anew, make_parents, missing_parents, opened
from rootless.errors import EXHAUSTED, RootlessError
from rootless.host.delegation import LEAF
from rootless.linux import CGROUP_HYBRID_MOUNT, CGROUP_MOUNT
from rootless.plan.cgroup.manager import Unenforced, check_unified, is_unlimited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.cgroup.group import Note
    from rootless.plan.cgroup.limits import Setting
    from rootless.plan.cgroup.manager import Cgroup

_ROUNDS = 10
COUNTED = {"cpu", "io", "memory", "pids"}
"""Controllers that are enabled with those that are needed: they count what `events` tells."""
_LACKING = {
    errno.ENOENT: ("this kernel has no {file}", "leave it out, or boot a kernel that has it"),
    errno.EOPNOTSUPP: ("this kernel does not support {file}", "leave it out, or boot a kernel that has it"),
    errno.EACCES: ("{file} is not yours to write", "have root give it to you: cgroups(7), Cgroup delegation"),
    errno.EROFS: ("{file} is mounted read-only", "mount the cgroups for writing: mount -o remount,rw /sys/fs/cgroup"),
}
"""Why a file of a controller that is there cannot be written, whatever the value, and what can be done."""

_REASONS = {
    errno.EINVAL: ("the kernel does not take this value", "write one that cgroup-v2.rst allows for this file"),
    errno.ERANGE: ("the value is out of the range that the kernel takes", "write one that cgroup-v2.rst allows"),
    errno.ENODEV: ("there is no such device", "name a block device of this machine (lsblk), not a partition"),
    errno.ENXIO: ("there is no such device", "name a block device of this machine (lsblk), not a partition"),
    errno.EBUSY: ("the cgroup is in use in a way that forbids it", "change it while the container is stopped"),
    errno.ENOSPC: (
        "the parent cgroup has no more of it",
        "ask for less, or for CPUs that no other cgroup has exclusively",
    ),
    errno.EPERM: ("only root of the host may set it", "leave it out"),
}


def make(wanted: Cgroup, note: Note) -> tuple[Group, Unenforced]:
    """Make the directory, with every limit in force.

    Args:
        wanted: what the planner decided.
        note: called before each step, so that a later command can clean up after a kill.

    Returns:
        The cgroup, and the limits that are not enforced.

    Raises:
        RootlessError: it cannot be made, or a limit makes no sense to the kernel.
    """
    unenforced = Unenforced()
    try:
        path = _make_exactly(wanted, note) if wanted.path else make_anew(wanted.base, wanted.name, note)
    except OSError as error:
        raise unmade(error) from None
    missing: dict[str, tuple[str, str]] = {}
    controllers = wanted.controllers | (COUNTED if wanted.controllers else set()) | wanted.spare
    if controllers:
        movable = "" if wanted.managed else wanted.base
        missing = enable(controllers, wanted.top, paths.parent(path), movable)
    group = Group(path)
    try:
        write(group, wanted.settings, missing, unenforced)
    except BaseException:
        group.close()
        raise
    return group, unenforced


def _make_exactly(wanted: Cgroup, note: Note) -> str:
    """Make it at cgroupsPath; an existing cgroup without processes is used, and stays."""
    path = wanted.path
    missing = missing_parents(path, wanted.base)
    kept = paths.exists(path)
    if not kept:  # nothing is to be done about one that may be another container's
        note(path, missing, UNVERIFIED)
    for _ in range(_ROUNDS):
        try:
            make_parents(missing or missing_parents(path, wanted.base))
            kept = True
            posix.mkdir(path, 0o755)
            kept = False
        except FileExistsError:
            try:
                with Group(path) as group:
                    if group.is_populated:
                        raise _taken(path, len(group.processes())) from None
            except FileNotFoundError:
                continue  # it has just gone
            break
        except FileNotFoundError:
            continue  # another rootless has just removed a parent of it, with its container
        else:
            break
    note(path, missing, KEPT if kept else OWN)
    return path


def enable(controllers: Iterable[str], top: str, bottom: str, movable: str) -> dict[str, tuple[str, str]]:
    """Hand controllers on, from the children of `top` to those of `bottom`.

    Args:
        controllers: their names.
        top: the directory where to begin.
        bottom: the last one, `top` itself or below it.
        movable: the directory whose processes, when they are in the way, may be moved into a cgroup of their own.

    Returns:
        Those that cannot be had, each with the reason and the fix.
    """
    missing: dict[str, tuple[str, str]] = {}
    places = [top]
    for name in bottom.removeprefix(top).strip("/").split("/"):
        if name:
            places.append(f"{places[-1]}/{name}")
    for place in places:
        wanted = sorted(set(controllers) - missing.keys())
        group = opened(place)
        if not wanted or not group:
            break
        with group:
            there, enabled = group.read("cgroup.controllers").split(), group.read("cgroup.subtree_control").split()
            missing |= {name: _why_missing(name, place) for name in wanted if name not in there}
            lacking = [name for name in wanted if name in there and name not in enabled]
            if lacking:
                missing |= _enable_here(group, lacking, movable=place == movable)
    return missing


def _enable_here(group: Group, lacking: list[str], *, movable: bool) -> dict[str, tuple[str, str]]:
    is_root = not group.read("cgroup.type")
    refused: dict[str, tuple[str, str]] = {}
    for _ in range(_ROUNDS):
        # the kernel would let some controllers be enabled all the same, and make a tree of threads of it, where no
        # process can be (cgroup-v2.rst, "Threads")
        if not is_root and group.read("cgroup.procs"):
            obstacle = _make_room(group) if movable else _in_the_way(group, "must stay there")
            if obstacle[0]:
                return dict.fromkeys(lacking, obstacle)
        refused.clear()
        for name in lacking:
            try:
                group.write("cgroup.subtree_control", f"+{name}")
            except OSError as error:
                refused[name] = f"{group.path}/cgroup.subtree_control: {(error.strerror or '').lower()}", ""
        if not refused or is_root or not group.read("cgroup.procs"):
            break
    return refused


def _make_room(group: Group) -> tuple[str, str]:
    """Move the processes of a cgroup into one below it; return what forbids that, or nothing.

    A cgroup that shares something out has no processes itself (cgroup-v2.rst, "No Internal Process Constraint").
    """
    found = [int(line) for line in group.read("cgroup.procs").split()]
    own = posix.geteuid()
    if not all(pid and _owner(pid) in (own, -1) for pid in found):
        return _in_the_way(group, "are not all yours")
    try:
        posix.mkdir(LEAF, 0o755, dir_fd=group.fd)
    except FileExistsError:
        pass
    except OSError as error:
        return f"{group.path}/{LEAF}: {(error.strerror or '').lower()}", ""
    for pid in found:
        try:
            group.write(f"{LEAF}/cgroup.procs", str(pid))
        except ProcessLookupError:
            continue
        except OSError as error:
            return f"{group.path}/{LEAF}/cgroup.procs: {(error.strerror or '').lower()}", ""
    return "", ""


def _in_the_way(group: Group, why: str) -> tuple[str, str]:
    return (
        f"the processes in {group.path} {why}, and so no controller can be enabled below it",
        "begin in a cgroup of its own: systemd-run --user --scope -p Delegate=yes rootless …",
    )


def missing_in(group: Group, settings: Iterable[Setting], *, ours: bool) -> dict[str, tuple[str, str]]:
    """Return the controllers that settings need and a cgroup does not have, each with the reason and the fix.

    Args:
        group: the cgroup.
        settings: what is to be written there.
        ours: systemd has made it for us, with all that it may hand on.
    """
    needed = {setting.controller for setting in settings} - {""}
    lacked = needed.difference(group.read("cgroup.controllers").split()) if needed else ()
    return {name: _why_missing(name, group.path, ours=ours) for name in lacked}


def _why_missing(controller: str, path: str, *, ours: bool = False) -> tuple[str, str]:
    from rootless.host.controllers import why_missing

    mount = CGROUP_HYBRID_MOUNT if f"{path}/".startswith(f"{CGROUP_HYBRID_MOUNT}/") else CGROUP_MOUNT
    return why_missing(controller, mount, path, ours=ours)


def _owner(pid: int) -> int:
    try:
        return posix.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def write(
    group: Group, settings: Iterable[Setting], missing: dict[str, tuple[str, str]], unenforced: Unenforced
) -> None:
    """Write limits.

    Args:
        group: where.
        settings: what, in this order; what the kernel refuses at first is tried again at the end: some values only go
            together with others.
        missing: controllers that cannot be had, with the reason and the fix.
        unenforced: gets what is not enforced.

    Raises:
        RootlessError: a value makes no sense to the kernel.
    """
    again = []
    for setting in settings:
        if setting.controller in missing:
            _leave_out(setting, *missing[setting.controller], unenforced)
        elif not _write_one(group, setting, unenforced):
            again.append(setting)
    for setting in again:
        _write_one(group, setting, unenforced, last=True)


def _write_one(group: Group, setting: Setting, unenforced: Unenforced, *, last: bool = False) -> bool:
    try:
        group.write(setting.file, setting.value)
    except OSError as error:
        if error.errno in _LACKING:
            if setting.otherwise:
                return _write_one(group, setting.otherwise, unenforced, last=last)
            # systemd may have written the same
            if error.errno != errno.EROFS or not set(setting.value.split()).issubset(group.read(setting.file).split()):
                reason, fix = _LACKING[error.errno]
                _leave_out(setting, reason.format(file=setting.file), fix, unenforced)
            return True
        if not last:
            return False
        raise refused(setting, error, group.path) from None
    return True


def _leave_out(setting: Setting, reason: str, fix: str, unenforced: Unenforced) -> None:
    if not is_unlimited(setting):
        check_unified(setting, reason, fix)
        unenforced.add(setting.where, reason, fix)


def refused(setting: Setting, error: OSError, path: str) -> RootlessError:
    """Return the error for a value that the kernel refuses."""
    number = error.errno or 0
    reason, fix = _REASONS.get(number, ((error.strerror or "").lower(), EXHAUSTED.get(number, "")))
    return RootlessError(
        f"cannot limit resources: write {setting.value!r} to {setting.file}",
        cause=f"{reason} ({path}: {error.strerror})",
        where=setting.where,
        fix=fix,
        code="RL-RESOURCES",
    )


def _taken(path: str, count: int) -> RootlessError:
    return RootlessError(
        f"cannot use the cgroup {path}",
        cause=f"container's cgroup is not empty: {count} process(es) found: it is another container's",
        where="linux.cgroupsPath",
        fix="name another cgroup, or end the processes in its cgroup.procs",
        code="RL-CGROUP",
    )


def unmade(error: OSError) -> RootlessError:
    """Return the error for a cgroup that cannot be made."""
    number = error.errno or 0
    fixes = {
        errno.EAGAIN: "raise cgroup.max.descendants or cgroup.max.depth of a cgroup above it",
        errno.EACCES: "name one below your own cgroup (/proc/self/cgroup)",
    }
    return RootlessError(
        f"cannot make the cgroup {error.filename or ''}".rstrip(),
        cause=f"mkdir: {(error.strerror or '').lower()}",
        where="linux.cgroupsPath",
        fix=fixes.get(number) or EXHAUSTED.get(number, "leave out cgroupsPath, or name another place"),
        code="RL-CGROUP",
    )
