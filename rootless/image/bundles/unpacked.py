"""An image as a directory, for a host that cannot serve it by FUSE: unpacked once, and covered by an overlay each time.

STORE/unpacked/KEY/rootfs    KEY names the file by its device, inode, size and time of change
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
    from collections.abc import Container

_DIRECTORY = "unpacked"
_TEMPORARY = ".tmp-"
_DAY = 86400  # seconds; nobody unpacks an image for so long


def unpacked(path: str, store: str, *, has_device: bool) -> str:
    """Return the directory of an image, which is unpacked if it is not there yet.

    Args:
        path: of the image's file.
        store: as `--store` has it; empty for the default.
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
        return rootfs
    cause = f"{PROGRAM} is not installed" if has_device else f"{DEVICE} cannot be opened"
    fix = f"install the package {PACKAGE}" if has_device else "run `rootless doctor`"
    log.warning(f"{path} is unpacked into {target}: {cause}", fix=fix)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    try:
        with bundle_directory(target) as work:
            os.mkdir(os.path.join(work, "rootfs"))
            with SquashfsTar(image) as archive:
                unpack(archive.path, os.path.join(work, "rootfs"), name=path)
    except RootlessError:
        if not os.path.isdir(rootfs):  # else another process has unpacked it meanwhile
            raise
    return rootfs


def prune_unpacked(store: str, used: Container[str]) -> list[str]:
    """Remove the directories that no container uses, and those that a killed process has left; return which.

    Args:
        store: as `--store` has it.
        used: the root file systems of containers.
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
        if not is_young and os.path.join(directory, "rootfs") not in used:
            remove(directory)
            removed.append(directory)
    return removed
