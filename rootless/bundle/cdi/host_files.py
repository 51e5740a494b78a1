"""Files of this host that CDI specs name: device nodes, and what is missing."""

from __future__ import annotations

import _stat as stat
import posix

from rootless import paths
from rootless.bundle.cdi.rules import is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.bundle.cdi.specs import Spec
    from rootless.bundle.edit.values import Config

_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
_IN_IMAGE = "startContainer"
"""The kind of hooks whose programs are in the image."""


class Stale(Exception):  # noqa: N818 - it never leaves cdi/
    """A spec describes a device node that is not there or is another one; the text is the cause."""


def linux_device(node: Config) -> Config:
    """Return the element of linux.devices for an element of `deviceNodes`; what that leaves out is the host's.

    Raises:
        Stale: the host has no such node.
    """
    path = node.get("hostPath") or node["path"]
    device = {"path": paths.normal(node["path"]), "type": node.get("type") or ""}
    if device["type"] != "p":
        try:
            status = posix.stat(path)
        except OSError as error:
            raise Stale(_cause(path, error)) from None
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "")
        if not kind:
            raise Stale(f"{path} is not a device")
        if device["type"] not in ("", kind, "u" if kind == "c" else kind):
            raise Stale(f"{path} is of type {kind}, not {device['type']}")
        device["type"] = device["type"] or kind
        if kind != "p":
            numbers = (posix.major(status.st_rdev), posix.minor(status.st_rdev))
            given = (node.get("major") or 0, node.get("minor") or 0)
            if given[0] and given != numbers:
                raise Stale(f"{path} is device {numbers[0]}:{numbers[1]}, not {given[0]}:{given[1]}")
            device["major"], device["minor"] = numbers
    return device | {name: node[name] for name in ("fileMode", "uid", "gid") if node.get(name) is not None}


def missing(spec: Spec, name: str) -> Iterator[tuple[str, str]]:
    """Yield what the edits of a device name and this host does not have: its place in the spec, and the cause.

    Args:
        spec: the spec.
        name: the device; empty for the edits that all devices of the spec share.
    """
    edits = spec.devices[name] if name else spec.edits
    for kind, causes in _ELEMENTS.items():
        for index, element in enumerate(edits.get(kind) or ()):
            if cause := causes(element):
                yield f"{spec.place(name)}.{kind}[{index}]", cause


def _of_node(node: Config) -> str:
    try:
        linux_device(node)
    except Stale as stale:
        return str(stale)
    return ""


def _of_mount(mount: Config) -> str:
    if not is_bind(mount):
        return ""
    try:
        posix.stat(mount["hostPath"])
    except OSError as error:
        return _cause(mount["hostPath"], error)
    return ""


def _of_hook(hook: Config) -> str:
    if hook["hookName"] == _IN_IMAGE:
        return ""
    try:
        status = posix.stat(hook["path"])
    except OSError as error:
        return _cause(hook["path"], error)
    is_program = stat.S_ISREG(status.st_mode) and posix.access(hook["path"], posix.X_OK)
    return "" if is_program else f"{hook['path']} is not a program that you may execute"


def _of_interface(device: Config) -> str:
    name = device["hostInterfaceName"]
    return "" if paths.lexists(f"/sys/class/net/{name}") else f"there is no network interface {name}"


_ELEMENTS = {"deviceNodes": _of_node, "mounts": _of_mount, "hooks": _of_hook, "netDevices": _of_interface}


def _cause(path: str, error: OSError) -> str:
    return f"{path} does not exist" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}".lower()
