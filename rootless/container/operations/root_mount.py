"""The mounts of a container that shares the mount namespace of its caller, root of the host.

They lie on one mount, its root, which covers the directory of the root file system and is unmounted with the container.
The note has `covered`, the id of the mount that is covered; `identity`, device and inode of the directory; and `path`.
The owner of a parent directory may redirect the path meanwhile: the directory that the root shows identifies it.
"""

from __future__ import annotations

import posix

from rootless.container.operations.undo import note
from rootless.container.state.directory import irremovable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.plan.ops import Op

_DETACH = 2
"""MNT_DETACH, umount2(2): with all that is mounted below, even where it is in use."""


def cover(run: ContainerRun, op: Op) -> None:
    """Note the directory that the executor will mount the root on.

    Raises:
        OSError: it does not exist.
    """
    path = op.value("path")
    fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        note(run.entry, "root mount", {"covered": _mount_id(fd), "identity": _identity(fd), "path": path})
    finally:
        posix.close(fd)


def undo(entry: ContainerDir, data: Data) -> None:
    """Unmount the container's root; another mount on the same directory stays.

    Raises:
        RootlessError: `RL-STATE`: it stays.
    """
    try:
        fd = posix.open(data["path"], posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise irremovable(entry.path, error) from None
    try:
        # another mount namespace has other numbers
        if _identity(fd) == data["identity"] and _parents().get(_mount_id(fd)) == data["covered"]:
            _unmount(f"/proc/self/fd/{fd}")
    except OSError as error:
        raise irremovable(entry.path, error) from None
    finally:
        posix.close(fd)


def _identity(fd: int) -> str:
    found = posix.fstat(fd)
    return f"{found.st_dev} {found.st_ino}"


def _mount_id(fd: int) -> str:
    """Return the id of the mount that a descriptor is in, as proc(5) writes it."""
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
        return next(line.split()[1].decode() for line in file.read().splitlines() if line.startswith(b"mnt_id:"))


def _parents() -> dict[str, str]:
    """Return the mounts of this mount namespace: the id of the one that each is mounted on, by its own."""
    with open("/proc/self/mountinfo", "rb") as file:
        pairs = [line.split(b" ", 2)[:2] for line in file]
    return {own.decode(): parent.decode() for own, parent in pairs}


def _unmount(path: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(path.encode(), _DETACH):
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number), path)
