"""Containers on disk: one directory each, named by the id; entry.py has what is in it.

A lock on the directory is held by whoever changes it. A directory without state.json that nobody holds is what a killed
`create` left: the next use of the id clears it away.
"""

from __future__ import annotations

import errno
import fcntl
import posix
import stat

from rootless import files, paths
from rootless.container.entry import Entry, unusable
from rootless.errors import RootlessError

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")
LONGEST_ID = 255
"""A file name has no more bytes."""


def state_root(asked: str) -> str:
    """Return the directory that holds the containers of this user.

    XDG_RUNTIME_DIR is not there on batch nodes, after su, or belongs to somebody else: it is used only when it is the
    caller's own, and there is a way without it.
    """
    if asked:
        return paths.absolute(asked)
    uid = posix.geteuid()
    if uid == 0 and _owned("/run", 0) and posix.access("/run", posix.W_OK) and not paths.variable("XDG_RUNTIME_DIR"):
        return "/run/rootless"
    for directory in (paths.variable("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        if directory.startswith("/") and _owned(directory, uid):
            return f"{directory}/rootless"
    fallback = f"/tmp/rootless-{uid}"  # noqa: S108 - used only when it is the user's own, and no link to elsewhere
    try:
        if posix.lstat(fallback).st_uid != uid:
            raise _foreign(fallback)
    except FileNotFoundError:
        pass  # whoever makes a container makes it, and looks again
    return fallback


def is_id(text: str) -> bool:
    """Whether `text` can be the name of a directory and of a cgroup."""
    return 0 < len(text) <= LONGEST_ID and text not in (".", "..") and _ID_CHARACTERS.issuperset(text)


def check_id(container_id: str) -> None:
    """Refuse what cannot be the name of a directory and of a cgroup."""
    if not is_id(container_id[:LONGEST_ID]):
        raise RootlessError(
            f"container id {container_id!r}",
            cause="invalid id format",
            fix="use letters, digits and _ + - . only",
            code="RL-ID",
        )
    if len(container_id) > LONGEST_ID:
        raise RootlessError(
            "container id", cause=f"longer than {LONGEST_ID} characters", fix="shorten it", code="RL-ID"
        )


def claim(root: str, container_id: str) -> Entry:
    """Take an id that nobody has, atomically.

    Raises:
        RootlessError: `RL-EXISTS`, or the directory cannot be made or is somebody else's.
    """
    check_id(container_id)
    _make_root(root)
    path = f"{root}/{container_id}"
    entry = None
    made: bool | None = False
    try:
        while entry is None:
            made, before = None, made  # a signal may come before it is known
            made = _make(path) or before
            # Whoever has the lock on what lies at the path has the id; who made the directory does not matter.
            entry = _open(root, container_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = entry.read() is not None
        if not taken:
            entry.clear()
    except BlockingIOError:
        raise _taken(container_id) from None
    except BaseException:
        if made is not False:
            _withdraw(path, sure=bool(made))
        if entry:
            entry.close()
        raise
    if taken:
        entry.close()
        raise _taken(container_id)
    return entry


def find(root: str, container_id: str, *, lock: bool = True) -> Entry:
    """Open the directory of a container, waiting for whoever changes it.

    Raises:
        RootlessError: `RL-NOT-FOUND`: there is none.
    """
    check_id(container_id)
    entry = _open(root, container_id, fcntl.LOCK_EX if lock else 0)
    if entry is None:
        raise RootlessError(
            f"container {container_id}",
            cause="container does not exist",
            fix="`rootless list` shows yours; another --root has others",
            code="RL-NOT-FOUND",
        )
    return entry


def ids(root: str) -> list[str]:
    """Return the ids in `root`, sorted; none where there is no such directory."""
    try:
        names = posix.listdir(root)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unusable(root, error) from None
    return sorted(name for name in names if _ID_CHARACTERS.issuperset(name))


def _make(path: str) -> bool:
    """Make the directory of a container; return whether it was not there."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        if _is_no_directory(path):
            raise unusable(path, NotADirectoryError(errno.ENOTDIR, posix.strerror(errno.ENOTDIR))) from None
        return False
    except OSError as error:
        raise unusable(paths.parent(path), error) from None
    return True


def _withdraw(path: str, *, sure: bool) -> None:
    """Remove a directory that was just made and is of no use; if that is not sure, only where nobody has its lock."""
    fd = -1
    try:
        if not sure:
            fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        posix.rmdir(path)  # of whoever uses it, it is not empty
    except OSError:
        return
    finally:
        if fd >= 0:
            posix.close(fd)


def _is_no_directory(path: str) -> bool:
    try:
        return not stat.S_ISDIR(posix.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _make_root(root: str) -> None:
    try:
        files.make_private(root)
        owner, link_owner = posix.stat(root).st_uid, posix.lstat(root).st_uid
    except OSError as error:
        raise unusable(root, error) from None
    uid = posix.geteuid()
    if uid != 0 and (owner != uid or link_owner not in (uid, 0)):
        raise _foreign(root)


def _open(root: str, container_id: str, lock: int) -> Entry | None:
    """Open and lock; None when it is not there, or was removed while waiting for the lock.

    Raises:
        BlockingIOError: LOCK_NB was asked, and somebody has the lock.
    """
    path = f"{root}/{container_id}"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(path, error) from None
    if lock:
        try:
            fcntl.flock(fd, lock)
        except BlockingIOError:
            posix.close(fd)
            raise
        except OSError as error:
            posix.close(fd)
            raise unusable(path, error) from None
        if posix.fstat(fd).st_nlink == 0:
            posix.close(fd)
            return None
    return Entry(root, container_id, fd)


def _owned(directory: str, uid: int) -> bool:
    try:
        status = posix.stat(directory)
    except OSError:
        return False
    return status.st_uid == uid and stat.S_ISDIR(status.st_mode)


def _taken(container_id: str) -> RootlessError:
    return RootlessError(
        f"container {container_id}",
        cause="container with given ID already exists",
        fix=f"choose another id, or remove it: rootless delete --force {container_id}",
        code="RL-EXISTS",
    )


def _foreign(root: str) -> RootlessError:
    return RootlessError(
        f"cannot keep state in {root}",
        cause="it belongs to another user",
        fix="give a directory of your own with --root, or set XDG_RUNTIME_DIR",
        code="RL-STATE",
    )
