"""Devices: config-linux.md "Devices", "Default Devices"; "Dev symbolic links" in runtime-linux.md.

In a user namespace nobody may call mknod(2), so the host's device node is bind-mounted instead.
"""

from __future__ import annotations

import _stat as stat

from rootless.paths import normal
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.plan.context import Context

_DEFAULT = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
}
"""Major and minor number of each default device, by path."""
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
}
_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_DEFAULT_MODE = 0o666


def devices(context: Context) -> list[Op]:
    """Return the operations for linux.devices, the default devices and the symlinks in /dev."""
    own = {*_LINKS, *(["/dev/console"] if context.process.get("terminal") else [])}
    listed = {}
    for index, device in enumerate(context.linux.get("devices") or ()):
        path = normal("/" + device["path"].lstrip("/"))
        if path in own:
            # podman and ctr list all devices of the host; the host's /dev/ptmx would open terminals of the host
            context.adapted(f"linux.devices[{index}]", f"left out: {path} is the container's own")
        else:
            listed[path] = (device, f"linux.devices[{index}]")
    plan: list[Op] = []
    for path, (major, minor) in _DEFAULT.items():
        if path not in listed:
            plan += _device(context, {"path": path, "type": "c", "major": major, "minor": minor}, "")
    for device, where in listed.values():
        plan += _device(context, device, where)
    plan += [Op(ops.SYMLINK, target, link) for link, target in _LINKS.items()]
    return plan


def console(context: Context) -> list[Op]:
    """Return the operations that create the container's terminal; empty without one."""
    if not context.process.get("terminal"):
        return []
    size = context.process.get("consoleSize") or {}
    where = "process.terminal"
    return [
        Op(ops.TERMINAL, size.get("width") or 0, size.get("height") or 0, context.uid, where=where),
        Op(ops.BIND, ops.PLAIN_TARGET, 0, 0, 0, 0, 0, "/proc/self/fd/0", "/dev/console", where=where),
    ]


def _device(context: Context, device: dict[str, Any], where: str) -> list[Op]:
    path = device["path"]
    kind = _TYPES[device["type"]]
    major, minor = device.get("major") or 0, device.get("minor") or 0
    mode = device.get("fileMode")
    permissions = _DEFAULT_MODE if mode is None else mode & 0o7777
    node = Op(
        ops.DEVICE_NODE,
        kind | permissions,
        major,
        minor,
        device.get("uid") or 0,
        device.get("gid") or 0,
        path,
        where=where,
    )
    if kind == stat.S_IFIFO:
        return [node]
    source = path
    if path not in _DEFAULT:
        source = context.facts.device_path(context.request.device_sources.get(path, path), kind, major, minor)
    # "if a file already exists at path that does not match the requested device, the runtime MUST generate an error"
    exclusive = int(path not in _DEFAULT)
    bound = Op(ops.DEVICE_BIND, kind, major, minor, exclusive, source, path, where=where)
    if not context.in_user_namespace:
        node.on_error, node.alternatives = ops.ELSE, 1
        return [node, bound]
    if where:
        context.adapted(
            where,
            f"the host's {source} is bind-mounted, with its owner and mode: a user namespace does not permit mknod",
        )
    return [bound]
