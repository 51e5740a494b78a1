"""State directories that are not where they usually are: for a user without a runtime directory, behind a symlink.

Without one, on batch nodes, after su or in cron jobs, everybody can have made the directory in /tmp before.
"""

from __future__ import annotations

import errno
import posix
import stat

from rootless import paths, xdg
from rootless.container.state.directory import unusable
from rootless.container.state.store import StateRoot, owned
from rootless.errors import RootlessError


class _InTmp(StateRoot):
    """The one in /tmp, or another where somebody else takes that name first."""

    __slots__ = ("otherwise",)
    forbidden = stat.S_IRWXG | stat.S_IRWXO
    """It is made without any: a directory of the user's that somebody has moved here may have them."""
    otherwise: StateRoot | None

    def make(self) -> None:
        """Make it, or the other, if it is not there."""
        try:
            super().make()
        except RootlessError:
            if not self.otherwise:
                raise
            self.otherwise.make()
            self.path, self.fd = self.otherwise.path, self.otherwise.fd


def fallback(uid: int) -> StateRoot:
    """Return the directory of a user without a runtime directory: in /tmp, which is sticky, or else below the home.

    One that is there is used before another is made, so that every command of a user finds the same.

    Raises:
        RootlessError: `RL-STATE`: that in /tmp is another user's, and there is no home.
    """
    try:
        found = _InTmp(f"/tmp/rootless-{uid}")  # noqa: S108 - used only when it is the user's own
    except RootlessError:
        below_home = _below_home(uid)
        if not below_home:
            raise
        return below_home
    if found.fd < 0:
        found.otherwise = _below_home(uid)
        if found.otherwise and found.otherwise.fd >= 0:
            return found.otherwise
    return found


def _below_home(uid: int) -> StateRoot | None:
    """Return the directory below the user's home, which several nodes may share: each has its own, for each boot."""
    from rootless.procfs import boot_id

    node = posix.uname().nodename.replace("/", "_")
    for home in xdg.homes(uid):
        if home.startswith("/") and owned(home, uid):
            try:
                return StateRoot(f"{xdg.state(home)}/rootless/{node}.{boot_id()}")
            except RootlessError:
                continue
    return None


def followed(path: str) -> str:
    """Return what a symlink that the caller or root has made leads to.

    Raises:
        FileExistsError: it is no symlink.
        RootlessError: `RL-STATE`: somebody else has made it.
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
    """Return the error for a directory that may not be opened: it is another user's, or one above it is closed."""
    try:
        status = posix.stat(path)
    except OSError:
        return unusable(path, error)
    return unusable(path, error) if status.st_uid == posix.geteuid() else not_the_callers(path, status)


def not_the_callers(path: str, status: posix.stat_result) -> RootlessError:
    """Return the error for a directory, or a symlink to one, into which others can put state: its hooks would run."""
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
