"""resctrl groups of containers: config-linux.md "IntelRdt", Documentation/filesystems/resctrl.rst.

Imported for a container that has one.
"""

from __future__ import annotations

import os

from rootless import log
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.cgroup.resctrl import Group

_WHERE = "linux.intelRdt"


def made_for_it(group: Group) -> list[str]:
    """Return the directories that exist for the container alone and are removed with it, innermost first."""
    directories = [group.monitor] if group.monitor else []
    if group.own and not os.path.isdir(group.path):
        directories.append(group.path)
    return directories


def enter(group: Group, pid: int) -> None:
    """Put the process `pid`, and so its future children, into its group; create the group if that is allowed.

    Raises:
        RootlessError: `RL-RESCTRL`: the group is missing or differs from config.json, or the kernel refuses.
    """
    try:
        if not os.path.isdir(group.path):
            if group.must_exist:
                raise _refused(
                    f"there is no resctrl group {group.path}",
                    "create the group, or write its schemata",
                    "closID",
                )
            os.mkdir(group.path)
        elif group.compared:
            _compare(group)
        for line in group.schemata:
            _write(f"{group.path}/schemata", line)
        _write(f"{group.path}/tasks", str(pid))
        if group.monitor:
            os.mkdir(group.monitor)
            _write(f"{group.monitor}/tasks", str(pid))
    except OSError as error:
        status = _last_status(group.path) if error.errno not in (None, 1, 13, 30) else ""
        cause = f"{error.filename}: {error.strerror}" + (f": {status}" if status else "")
        fix = (
            f"let root make the group and give you its files, and name it in linux.intelRdt.closID ({error.filename})"
            if error.errno in (1, 13, 30)
            else "write shares that this CPU supports (see the directory info of resctrl)"
        )
        raise _refused(cause, fix) from None


def enter_existing(group: Group, pid: int) -> None:
    """Put a further process of the container into the group of the first one.

    Raises:
        RootlessError: `RL-RESCTRL`: the kernel refuses.
    """
    try:
        _write(f"{group.path}/tasks", str(pid))
        if group.monitor:
            _write(f"{group.monitor}/tasks", str(pid))
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}"
        raise _refused(cause, f"let root give you this file ({error.filename})") from None


def leave(directories: list[str]) -> None:
    """Remove the directories of a container whose processes are gone."""
    for directory in directories:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning(f"{directory} stays: {error.strerror}", fix=f"remove it, as root: rmdir {directory}")


def _compare(group: Group) -> None:
    with open(f"{group.path}/schemata", encoding="utf-8") as file:
        existing = _shares(file.read().splitlines())
    for line in group.schemata[: group.compared]:
        for resource, shares in _shares([line]).items():
            if not shares.items() <= existing.get(resource, {}).items():
                raise _refused(
                    f"the group {group.path} exists and has other shares than {line!r}",
                    "name another class in closID, or remove the shares to join this one unchanged",
                )


def _shares(lines: list[str]) -> dict[str, dict[str, str]]:
    """Return the share of each domain of each resource in lines such as ``L3:0=7f0;1=1f``, in any spelling."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        resource, _, shares = line.partition(":")
        pairs = (share.partition("=")[::2] for share in shares.split(";") if share.strip())
        found[resource.strip()] = {domain.strip(): value.strip().lower().lstrip("0") or "0" for domain, value in pairs}
    return found


def _write(path: str, line: str) -> None:
    """Write one line in one write(2), as resctrl requires; OSError names the file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        error.filename = path
        raise


def _last_status(path: str) -> str:
    """Return resctrl's own reason for its last refusal."""
    root = path
    while len(root) > 1:
        try:
            with open(f"{root}/info/last_cmd_status", encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            root = os.path.dirname(root)
    return ""


def _refused(cause: str, fix: str, property_: str = "") -> RootlessError:
    return RootlessError(
        "cannot give the container its share of the caches",
        cause=cause,
        where=f"{_WHERE}.{property_}" if property_ else _WHERE,
        fix=fix,
        code="RL-RESCTRL",
    )
