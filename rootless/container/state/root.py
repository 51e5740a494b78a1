"""The directory that holds the containers of a user.

It lies in the user's runtime directory. Batch nodes, su and cron jobs do not set one: then it lies in /tmp, where other
users can make a directory of the same name first.
"""

from __future__ import annotations

import _stat as stat
import posix

from rootless import files, log, paths, xdg
from rootless.container.state.directory import unusable
from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.procfs import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.untrusted import closed, followed, not_the_callers
else:
    closed = lazy("rootless.container.state.untrusted", "closed")
    followed = lazy("rootless.container.state.untrusted", "followed")
    not_the_callers = lazy("rootless.container.state.untrusted", "not_the_callers")

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


class StateRoot:
    """The directory that holds the containers of one user; a command opens it once.

    Other users may be able to make a directory of the same name beside it, or to replace it, at any time.

    Attributes:
        path: the path, for messages and for programs that need one.
        fd: its descriptor, or -1 while it does not exist.
    """

    __slots__ = ("fd", "path")
    forbidden = stat.S_IWGRP | stat.S_IWOTH
    """Permissions that must not be set: other users could write to it."""

    def __init__(self, path: str) -> None:
        """Open it, if it exists.

        Raises:
            RootlessError: `RL-STATE`: another user can write to it, or it cannot be opened.
        """
        self.path = path
        self.fd = -1
        try:
            self._open()
        except FileNotFoundError:
            if log.is_debug():
                log.debug(f"the state directory {path} does not exist")
            return
        except PermissionError as error:
            raise closed(path, error) from None
        except OSError as error:
            raise unusable(path, error) from None
        if log.is_debug():
            log.debug(f"opened the state directory {self.path}")

    def make(self) -> None:
        """Make it, if it does not exist.

        Raises:
            RootlessError: `RL-STATE`: it cannot be made, or another user can write to it.
        """
        if self.fd < 0:
            try:
                files.make_private(self.path)
                self._open()
            except OSError as error:
                raise unusable(self.path, error) from None

    def _open(self) -> None:
        try:
            fd = posix.open(self.path, _DIRECTORY)
        except NotADirectoryError:
            self.path = followed(self.path)
            fd = posix.open(self.path, _DIRECTORY)
        found = posix.fstat(fd)
        if found.st_uid == posix.geteuid() and not found.st_mode & self.forbidden:
            self.fd = fd
            return
        posix.close(fd)
        raise not_the_callers(self.path, found)


def state_root(asked: str) -> StateRoot:
    """Return the directory that holds the containers of this user.

    XDG_RUNTIME_DIR is unset on batch nodes, and may be another user's after su: it is used only if the caller owns it.

    Raises:
        RootlessError: `RL-STATE`: another user can write to it, or it cannot be opened.
    """
    if asked:
        return StateRoot(paths.absolute(asked))
    uid = posix.geteuid()
    given = xdg.runtime()
    if given and owned(given, uid):
        return StateRoot(f"{given}/rootless")
    if uid == 0 and owned("/run", 0) and posix.access("/run", posix.W_OK):
        return StateRoot("/run/rootless")
    if owned(f"/run/user/{uid}", uid):
        return StateRoot(f"/run/user/{uid}/rootless")
    return _fallback(uid)


class _InTmp(StateRoot):
    """The state directory in /tmp, or another if another user takes its name first."""

    __slots__ = ("otherwise",)
    forbidden = stat.S_IRWXG | stat.S_IRWXO
    """rootless makes it without any: a directory that another user has moved here may have some."""
    otherwise: StateRoot | None

    def make(self) -> None:
        """Make it, or the other, if it does not exist."""
        try:
            super().make()
        except RootlessError:
            if not self.otherwise:
                raise
            self.otherwise.make()
            self.path, self.fd = self.otherwise.path, self.otherwise.fd


def _fallback(uid: int) -> StateRoot:
    """Return the directory of a user without a runtime directory: in /tmp, which is sticky, or below the home.

    An existing one is used before another is made, so that all commands of a user find the same.

    Raises:
        RootlessError: `RL-STATE`: the one in /tmp is another user's, and the user has no home.
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
    """Return the directory below the user's home: one for each node and boot, since nodes may share a home."""
    for above in above_boots(uid):
        try:
            return StateRoot(f"{above}/{node_name()}.{boot_id()}")
        except RootlessError:
            continue
    return None


def above_boots(uid: int) -> list[str]:
    """Return the directories below the user's homes in which that of each node and boot would lie."""
    homes = dict.fromkeys(home for home in xdg.homes(uid) if home.startswith("/") and owned(home, uid))
    return [f"{xdg.state(home)}/rootless" for home in homes]


def node_name() -> str:
    """Return the name of this node, for a name of a directory."""
    return posix.uname().nodename.replace("/", "_")


def owned(directory: str, uid: int) -> bool:
    """Whether this user owns a directory, and not everybody can write to it."""
    try:
        status = paths.status(directory)
    except OSError:
        return False
    return status.st_uid == uid and stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWOTH
