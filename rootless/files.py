"""Files that a reader finds whole or not at all, and small files of the host's."""

from __future__ import annotations

import errno
import posix
import stat

from rootless import paths
from rootless.errors import EXHAUSTED

_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR)
"""What open(2) says where a file system does not have O_TMPFILE: NFS, for one."""


def text_of(path: str) -> str:
    """Return what is in a file of the host without the blanks around it; nothing where there is none to read.

    Raises:
        OSError: it may be there, but descriptors or memory have run out, or the disk is broken.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode("utf-8", "replace").strip()
    except OSError as error:
        if error.errno in EXHAUSTED or error.errno == errno.EIO:
            raise
        return ""


def let_go(owner: object, *names: str) -> None:
    """Close the descriptors that these attributes hold, each -1 first: none is closed twice, whatever comes between."""
    for name in names:
        fd = getattr(owner, name)
        setattr(owner, name, -1)
        if fd >= 0:
            posix.close(fd)


def put(path: str, content: bytes, mode: int) -> None:
    """Make or replace a file.

    It gets its name when all is written: whoever is killed meanwhile leaves nothing, where the file system has files
    without a name.

    Raises:
        OSError: nothing was left behind.
    """
    try:
        fd = posix.open(paths.parent(path) or ".", posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
        _put_by_rename(path, content, mode)
        return
    try:
        _write_all(fd, content)
        _link(fd, path)
    finally:
        posix.close(fd)


def make_private(directory: str) -> None:
    """Make a directory for the caller alone, and those above it that are missing; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    parent = paths.parent(directory)
    if parent and not paths.exists(parent):
        make_private(parent)
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(posix.stat(directory).st_mode):
            raise


def unlink(path: str) -> None:
    """Remove a file, if nobody else did."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return


def _link(fd: int, path: str) -> None:
    while True:
        try:
            # naming src_dir_fd makes this linkat(2), the only one that follows /proc/self/fd
            posix.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            unlink(path)
        else:
            return


def _put_by_rename(path: str, content: bytes, mode: int) -> None:
    temporary = paths.join(paths.parent(path), f".{paths.name(path)}.{posix.getpid()}")
    fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, mode)
    try:
        try:
            _write_all(fd, content)
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except BaseException:
        unlink(temporary)
        raise


def _write_all(fd: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += posix.write(fd, content[written:])
