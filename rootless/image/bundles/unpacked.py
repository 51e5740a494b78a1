"""An image as a directory, for a host that cannot serve it by FUSE: unpacked once, and covered by an overlay each time.

STORE/unpacked/KEY/rootfs    KEY names the file by its device, inode, size and time of change
STORE/unpacked/KEY/roots     the state directories of the containers that use it, a line for each with its machine
"""

from __future__ import annotations

import os
import time

from rootless import log
from rootless.errors import RootlessError
from rootless.image.archive.unpack import unpack
from rootless.image.bundles.new import bundle_directory, remove
from rootless.image.squashfs.image_file import open_image
from rootless.image.squashfs.squashfs_tar import SquashfsTar
from rootless.image.store.store import open_store
from rootless.plan.rootfs.image import DEVICE, PACKAGE, PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTORY = "unpacked"
_TEMPORARY = ".tmp-"
_DAY = 86400  # seconds; nobody unpacks an image for so long
_ROOTS = "roots"
_MONTH = 30 * _DAY
"""After so many seconds without a new container, one of another machine counts as ended: nobody here can ask."""


def unpacked(path: str, store: str, root: str, *, has_device: bool) -> str:
    """Return the directory of an image, which is unpacked if it is not there yet.

    Args:
        path: of the image's file.
        store: as `--store` has it; empty for the default.
        root: the state directory of the container that uses it.
        has_device: whether the caller may open /dev/fuse: the fix of the warning.

    Raises:
        RootlessError: `RL-STORE`, `RL-IMAGE`, `RL-UNPACK`: it cannot be unpacked.
    """
    image = open_image(path)
    own = open_store(store, create=True)
    assert own
    with own:
        parent = os.path.join(own.path, _DIRECTORY)
    # what is unpacked is the file that the key names: another user may exchange what `path` names at any time
    target = os.path.join(parent, "-".join(map(str, image.identity)))
    rootfs = os.path.join(target, "rootfs")
    if os.path.isdir(rootfs):
        _note_root(target, root)
        return rootfs
    cause = f"{PROGRAM} is not installed" if has_device else f"{DEVICE} cannot be opened"
    fix = f"install the package {PACKAGE}" if has_device else "run `rootless doctor`"
    log.warning(f"{path} is unpacked into {target}: {cause}", fix=fix)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    try:
        with bundle_directory(target) as work:
            os.mkdir(os.path.join(work, "rootfs"))
            _note_root(work, root)
            with SquashfsTar(image) as archive:
                unpack(archive.path, os.path.join(work, "rootfs"), name=path)
    except RootlessError:
        if not os.path.isdir(rootfs):  # else another process has unpacked it meanwhile
            raise
        _note_root(target, root)
    return rootfs


def _note_root(target: str, root: str) -> None:
    line = f"{os.uname().nodename}\t{root}\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(os.path.join(target, _ROOTS), flags, 0o600), "r+", errors="surrogateescape") as file:
        if line not in file:
            file.write(line)
        os.utime(file.fileno())


def _roots(directory: str) -> tuple[set[str], bool]:
    """Return the state directories that are noted for this machine, and whether another machine may use it."""
    try:
        with open(os.path.join(directory, _ROOTS), errors="surrogateescape") as file:
            lines = [line.rstrip("\n").partition("\t") for line in file]
            is_old = os.fstat(file.fileno()).st_mtime < time.time() - _MONTH
    except FileNotFoundError:
        return set(), False
    here = os.uname().nodename
    return {root for node, _, root in lines if node == here}, not is_old and any(node != here for node, _, _ in lines)


def prune_unpacked(store: str, root: str, uses: Callable[[str, str], bool]) -> list[str]:
    """Remove the directories that no container uses, and those that a killed process has left; return which.

    Args:
        store: as `--store` has it.
        root: the caller's state directory.
        uses: tells whether a container of a state directory has a root file system.
    """
    own = open_store(store, create=False)
    if not own:
        return []
    with own:
        parent = os.path.join(own.path, _DIRECTORY)
    removed = []
    for name in os.listdir(parent) if os.path.isdir(parent) else ():
        directory = os.path.join(parent, name)
        is_young = _TEMPORARY in name and os.lstat(directory).st_mtime > time.time() - _DAY
        roots, elsewhere = _roots(directory)
        rootfs = os.path.join(directory, "rootfs")
        if not is_young and not elsewhere and not any(uses(each, rootfs) for each in {root, *roots}):
            remove(directory)
            removed.append(directory)
    return removed
