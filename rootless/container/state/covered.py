"""The mounts of a container that shares the mount namespace of its caller, root of the host; a note of them.

They lie on one mount, its root, which covers the directory of the root file system and is unmounted with the container.

boot id, id of the mount that is covered, device and inode of the directory, its path: one a line. The owner of a
directory on the way may have the path lead elsewhere by then: the root is known by the directory that it shows.
"""

from __future__ import annotations

import posix

from rootless.procfs import boot_id

_DETACH = 2
"""MNT_DETACH, umount2(2): with all mounts below, even if they are in use."""
_NOTE_LINES = 4


def note(directory: str) -> str:
    """Return what uncover() needs to know, before there is a mount on the directory.

    Raises:
        OSError: it is not there.
    """
    fd = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        return "\n".join((boot_id(), _mount_id(fd), _identity(fd), directory))
    finally:
        posix.close(fd)


def uncover(text: str) -> None:
    """Unmount what a container has mounted; what is mounted there by somebody else stays.

    Raises:
        OSError: it stays.
    """
    lines = text.split("\n", _NOTE_LINES - 1)
    if len(lines) < _NOTE_LINES or lines[0] != boot_id():
        return
    _, covered, identity, directory = lines
    try:
        fd = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        # in another mount namespace the numbers are others
        if _identity(fd) == identity and _parents().get(_mount_id(fd)) == covered:
            _unmount(f"/proc/self/fd/{fd}")
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
