"""Devices of this host that flags of `run` name by their paths."""

from __future__ import annotations

import os
import posix
import stat

from rootless import paths
from rootless.bundle.edit.security import device_words
from rootless.bundle.edit.values import misused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.bundle.edit.values import Config

_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


def numbers_of(flag: str) -> Callable[[str, str], tuple[int, int]]:
    """Return a function from a value of `flag` and the path in it to major and minor number of the device there."""

    def numbers(text: str, path: str) -> tuple[int, int]:
        status = _status(flag, text, path)
        if not stat.S_ISBLK(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            raise misused(flag, text, f"{path} is not a device", "name the node of a disk, such as /dev/sda")
        return posix.major(status.st_rdev), posix.minor(status.st_rdev)

    return numbers


def devices(text: str) -> list[tuple[Config, str, str]]:
    """Return elements of linux.devices with their permissions for a value of --device; for a directory all in it.

    The last of each three is the path of the device on the host.

    Raises:
        RootlessError: `RL-USAGE`: there is no device.
    """
    source, destination, access = device_words(text)
    status = _status("--device", text, source)
    if not stat.S_ISDIR(status.st_mode):
        if stat.S_IFMT(status.st_mode) not in _KINDS:
            raise misused("--device", text, f"{source} is not a device", "name a device node, or a directory of them")
        return [(_device(destination, status), access, source)]
    found = []
    paths.noted(paths.UNKNOWN, source)
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            path = os.path.join(directory, name)
            inside = os.path.join(destination, os.path.relpath(path, source))
            node = os.lstat(path)
            if stat.S_IFMT(node.st_mode) in _KINDS:
                found.append((_device(inside, node), access, path))
    if not found:
        raise misused("--device", text, f"no device is in {source}", "name a device node, or a directory of them")
    return found


def _device(path: str, status: os.stat_result) -> Config:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    numbers = {"major": posix.major(status.st_rdev), "minor": posix.minor(status.st_rdev)}
    return {"path": paths.normal(path), "type": kind, **numbers, "fileMode": stat.S_IMODE(status.st_mode)}


def _status(flag: str, text: str, path: str) -> os.stat_result:
    try:
        return paths.status(path)
    except OSError as error:
        raise misused(flag, text, f"{path}: {(error.strerror or '').lower()}", "name a device of this host") from None
