"""Containers on disk: one directory each, named by the id; directory.py describes its files.

All paths start at a descriptor of the state directory (root.py). A command that changes a container locks its
directory. An unlocked directory without state.json is the remains of a killed `create`: the next use of the id clears
it.
"""

from __future__ import annotations

import _stat as stat
import errno
import fcntl
import posix

from rootless.container.state.directory import ContainerDir, unusable
from rootless.errors import RootlessError
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.container.state.untrusted import not_the_callers
else:
    not_the_callers = lazy("rootless.container.state.untrusted", "not_the_callers")

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")
LONGEST_ID = 255
"""The longest file name, in bytes."""
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def is_id(text: str) -> bool:
    """Whether `text` can be the name of a directory and of a cgroup."""
    return 0 < len(text) <= LONGEST_ID and text not in (".", "..") and _ID_CHARACTERS.issuperset(text)


def check_id(container_id: str) -> None:
    """Refuse an id that cannot be the name of a directory and of a cgroup."""
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


def claim(root: StateRoot, container_id: str, clear: Callable[[ContainerDir], None]) -> ContainerDir:
    """Take a free id atomically; `clear` removes the remains of a killed command from its directory.

    Raises:
        RootlessError: `RL-EXISTS`: the id is taken; `RL-STATE`: the directory cannot be made, or is another user's.
    """
    check_id(container_id)
    root.make()
    entry = None
    made: bool | None = False
    try:
        while entry is None:
            made, before = None, made  # a signal may interrupt before the result is stored
            made = _make(root, container_id) or before
            # The process with the lock on the directory at the path has the id; its creator does not matter.
            entry = _open(root, container_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = entry.read() is not None
        if not taken:
            clear(entry)
    except BlockingIOError:
        raise _taken(container_id) from None
    except BaseException:
        if made is not False:
            _withdraw(root, container_id, sure=bool(made))
        if entry:
            entry.close()
        raise
    if taken:
        entry.close()
        raise _taken(container_id)
    return entry


def find(root: StateRoot, container_id: str, *, lock: bool = True) -> ContainerDir:
    """Open the directory of a container; wait while another process changes it.

    Raises:
        RootlessError: `RL-NOT-FOUND`: it does not exist.
    """
    check_id(container_id)
    entry = _open(root, container_id, fcntl.LOCK_EX if lock else 0) if root.fd >= 0 else None
    if entry is None:
        raise RootlessError(
            f"container {container_id}",
            cause="container does not exist",
            fix="run rootless list to see yours, or name another directory with --root",
            code="RL-NOT-FOUND",
        )
    return entry


def unused(root: StateRoot, container_id: str) -> ContainerDir | None:
    """Open and lock the directory of a container that no command works on; None for another one.

    Raises:
        RootlessError: `RL-STATE`: another user can write to it.
    """
    try:
        return _open(root, container_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def ids(root: StateRoot) -> list[str]:
    """Return the ids in `root`, sorted; empty if the directory does not exist."""
    if root.fd < 0:
        return []
    try:
        names = posix.listdir(root.fd)
    except OSError as error:
        raise unusable(root.path, error) from None
    return sorted(name for name in names if _ID_CHARACTERS.issuperset(name))


def chosen(root: StateRoot, word: str, *, regex: bool) -> list[str]:
    """Return the ids for a word of the command line: the word itself, or those that it matches as a regular expression.

    Raises:
        RootlessError: `RL-REGEX`: it is not a regular expression.
    """
    if not regex:
        return [word]
    import re

    try:
        pattern = re.compile(word)
    except re.error as error:
        raise RootlessError(
            f"--regex {word!r}", cause=str(error), fix="write a regular expression", code="RL-REGEX"
        ) from None
    return [container_id for container_id in ids(root) if pattern.search(container_id)]


def _make(root: StateRoot, container_id: str) -> bool:
    """Make the directory of a container; return false if it existed."""
    try:
        posix.mkdir(container_id, 0o700, dir_fd=root.fd)
    except FileExistsError:
        if _is_no_directory(root, container_id):
            path = f"{root.path}/{container_id}"
            raise unusable(path, NotADirectoryError(errno.ENOTDIR, posix.strerror(errno.ENOTDIR))) from None
        return False
    except OSError as error:
        raise unusable(root.path, error) from None
    return True


def _withdraw(root: StateRoot, container_id: str, *, sure: bool) -> None:
    """Remove a directory that was just made; if that is not `sure`, only an unlocked one."""
    fd = -1
    try:
        if not sure:
            fd = posix.open(container_id, _DIRECTORY, dir_fd=root.fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        posix.rmdir(container_id, dir_fd=root.fd)  # a directory in use is not empty
    except OSError:
        return
    finally:
        if fd >= 0:
            posix.close(fd)


def _is_no_directory(root: StateRoot, container_id: str) -> bool:
    try:
        return not stat.S_ISDIR(posix.stat(container_id, dir_fd=root.fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _open(root: StateRoot, container_id: str, lock: int) -> ContainerDir | None:
    """Open and lock; return None if it does not exist, or was removed or renamed before it was locked.

    Raises:
        BlockingIOError: with LOCK_NB, another process has the lock.
        RootlessError: `RL-STATE`: another user can write to it, as in /home, where it would be that user's home.
    """
    try:
        fd = posix.open(container_id, _DIRECTORY, dir_fd=root.fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(f"{root.path}/{container_id}", error) from None
    opened = posix.fstat(fd)
    if opened.st_uid != posix.geteuid() or opened.st_mode & root.forbidden:
        posix.close(fd)
        raise not_the_callers(f"{root.path}/{container_id}", opened)
    if lock:
        try:
            fcntl.flock(fd, lock)
        except BlockingIOError:
            posix.close(fd)
            raise
        except OSError as error:
            posix.close(fd)
            raise unusable(f"{root.path}/{container_id}", error) from None
        if not _is_at(root, container_id, fd):
            posix.close(fd)
            return None
    return ContainerDir(root, container_id, fd)


def _is_at(root: StateRoot, container_id: str, fd: int) -> bool:
    """Whether an open directory still has its name."""
    opened = posix.fstat(fd)
    try:
        there = posix.stat(container_id, dir_fd=root.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (opened.st_ino, opened.st_dev)


def _taken(container_id: str) -> RootlessError:
    return RootlessError(
        f"container {container_id}",
        cause="container with given ID already exists",
        fix=f"choose another id, or remove it: rootless delete --force {container_id}",
        code="RL-EXISTS",
    )


def existing_state(entry: ContainerDir) -> State:
    """Return the state of a container.

    Raises:
        RootlessError: `RL-NOT-FOUND`: it is being created, or its create was killed.
    """
    found = entry.read()
    if found is None:
        raise RootlessError(
            f"container {entry.container_id}",
            cause="container does not exist: it is being created, or its create was killed",
            fix=f"rootless delete --force {entry.container_id}",
            code="RL-NOT-FOUND",
        )
    return found
