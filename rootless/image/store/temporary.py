"""Files of a store that are still being written.

There are no locks, and no files without names: a store may lie on NFS. A file has a temporary name until it is whole,
which names the process that writes it. What a process left that no longer exists is continued by the next one that
needs it, or removed by `rootless image prune`.
"""

from __future__ import annotations

import posix
import stat
import time

from rootless import procfs
from rootless.files import unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_OLD = 24 * 3600
"""Seconds after which an unchanged file of another machine has no writer: a transfer that stalls ends sooner."""
_PREFIX = "."
_DOTS = 5


class Temporary:
    """A file of a directory under a temporary name, open for reading and writing. Closing it removes it.

    Attributes:
        fd: its descriptor.
        name: its present name.
    """

    __slots__ = ("_directory", "fd", "name")

    def __init__(self, directory: int, subject: str, *, resume: bool = False) -> None:
        """Create one.

        Args:
            directory: a descriptor, which stays open as long as this.
            subject: what it will become; a word without a dot.
            resume: whether to continue what a dead process left under the same subject; it may have any content.

        Raises:
            OSError: it cannot be created.
        """
        self._directory = directory
        self.name = f"{_PREFIX}{subject}.{_own_identity()}"
        self.fd = -1
        if resume and any(self._claim(name) for name in posix.listdir(directory) if _is_continued(name, subject)):
            flags = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        else:
            flags = posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
        self.fd = posix.open(self.name, flags, 0o644, dir_fd=directory)
        if not stat.S_ISREG(posix.fstat(self.fd).st_mode):
            posix.close(self.fd)
            raise FileExistsError(self.name)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it, unless it was published or kept."""
        self.close()

    def _claim(self, name: str) -> bool:
        """Give a file the name of this one; only one process succeeds."""
        try:
            posix.rename(name, self.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except FileNotFoundError:
            return False
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data` at the present position.

        Raises:
            OSError: it cannot be written; a disk is full.
        """
        view = memoryview(data)
        while view:
            view = view[posix.write(self.fd, view) :]

    def publish(self, name: str, directory: int | None = None) -> None:
        """Give it its final name, which may exist; its content survives a crash of the machine.

        Raises:
            OSError: it cannot be written, or renamed.
        """
        posix.fsync(self.fd)
        target = self._directory if directory is None else directory
        posix.rename(self.name, name, src_dir_fd=self._directory, dst_dir_fd=target)
        self.keep()

    def keep(self) -> None:
        """Close it and leave it under its temporary name, so that it can be continued."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            posix.close(fd)

    def leave(self) -> None:
        """Close it, unless it was published, and leave it under a name of no process, so that any can continue it."""
        if self.fd >= 0:
            subject, boot, namespace, *_ = self.name.removeprefix(_PREFIX).split(".")
            name = f"{_PREFIX}{subject}.{boot}.{namespace}.0.0"
            posix.rename(self.name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self.keep()

    def close(self) -> None:
        """Remove it, unless it was published or kept."""
        if self.fd >= 0:
            self.keep()
            unlink(self.name, self._directory)


def left_behind(directory: int) -> list[str]:
    """Return the names of the temporary files whose process no longer exists, or that are a day old.

    Args:
        directory: a descriptor.
    """
    return [name for name in posix.listdir(directory) if _is_temporary(name) and _is_left(name, directory)]


def others(directory: int, subject: str) -> list[tuple[int, int, str]]:
    """Return what other processes of this machine are writing under a subject: start time, bytes, name; sorted.

    Args:
        directory: a descriptor.
        subject: as for Temporary.
    """
    found = []
    for name in posix.listdir(directory):
        if not _is_temporary(name) or name.split(".")[1] != subject:
            continue
        boot, namespace, pid, start_time = name.split(".")[2:]
        own_boot, own_namespace, own_pid, _ = _own_identity().split(".")
        if (boot, namespace) != (own_boot, own_namespace) or pid == own_pid or _has_ended(name):
            continue
        try:
            size = posix.stat(name, dir_fd=directory, follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
        found.append((int(start_time), size, name))
    return sorted(found)


def has_writers(directory: int) -> bool:
    """Whether a process may be writing a file in a directory, on this machine or another one."""
    return any(_is_temporary(name) and not _is_left(name, directory) for name in posix.listdir(directory))


def _is_temporary(name: str) -> bool:
    return name.startswith(_PREFIX) and name.count(".") == _DOTS


def _is_left(name: str, directory: int) -> bool:
    try:
        changed = posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return False
    return _has_ended(name) or changed < time.time() - _OLD


def _is_continued(name: str, subject: str) -> bool:
    """Whether a file can be continued: one of another machine might still be written."""
    return _is_temporary(name) and name.split(".")[1] == subject and _has_ended(name)


def _has_ended(name: str) -> bool:
    """Whether the process that a name names has ended; those of other machines and other pid namespaces are unknown."""
    boot, namespace, pid, start_time = name.split(".")[2:]
    if [boot, namespace] != _own_identity().split(".")[:2] or not (pid + start_time).isdigit():
        return False
    return not procfs.is_there((int(pid), int(start_time)))


def _own_identity() -> str:
    """Return boot, pid namespace, process ID and start time of this process."""
    pid, start_time = procfs.identity(posix.getpid())
    namespace = posix.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"{procfs.boot_id().replace('-', '')}.{namespace}.{pid}.{start_time}"
