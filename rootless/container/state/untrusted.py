"""Directories that other users may have made, or may write to: symlinks to them, and the errors."""

from __future__ import annotations

import _stat as stat
import errno
import posix

from rootless import paths
from rootless.container.state.directory import unusable
from rootless.errors import RootlessError


def followed(path: str) -> str:
    """Return the target of a symlink that the caller or root has made.

    Raises:
        FileExistsError: it is not a symlink.
        RootlessError: `RL-STATE`: another user has made it.
    """
    fd = posix.open(path, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    try:
        status = posix.fstat(fd)
        if not stat.S_ISLNK(status.st_mode):
            raise FileExistsError(errno.EEXIST, posix.strerror(errno.EEXIST), path)
        if status.st_uid not in (posix.geteuid(), 0):
            raise not_the_callers(path, status)
        return paths.resolved(paths.join(paths.parent(path), posix.readlink("", dir_fd=fd)))
    finally:
        posix.close(fd)


def closed(path: str, error: PermissionError) -> RootlessError:
    """Return the error for a directory that the caller may not open: it, or one above it, is another user's."""
    try:
        status = posix.stat(path)
    except OSError:
        return unusable(path, error)
    return unusable(path, error) if status.st_uid == posix.geteuid() else not_the_callers(path, status)


def not_the_callers(path: str, status: posix.stat_result) -> RootlessError:
    """Return the error for a directory to which others could add a state.json, whose hooks would run."""
    if status.st_uid == posix.geteuid():
        return RootlessError(
            f"cannot keep state in {path}",
            cause="other users may write to it",
            fix=f"chmod go-w {path}, or give a directory of your own with --root",
            code="RL-STATE",
        )
    return RootlessError(
        f"cannot keep state in {path}",
        cause="it belongs to another user",
        fix="give a directory of your own with --root, or set XDG_RUNTIME_DIR, or run as its owner: "
        f"sudo -u '#{status.st_uid}' rootless …",
        code="RL-STATE",
    )
