"""Paths and environment variables without `os`: its import takes 3 ms, a quarter of what Python's own start takes.

The functions do what those of `os.path` do, for the paths of Linux as text; undecodable bytes are surrogates in it.

They note what they read between note_reads() and taken_reads(), and so does all other code that planning uses: a Plan
may be used again only while everything that it was computed from is unchanged (container/cached_plan.py).
"""

from __future__ import annotations

import _stat as stat
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_reads: list[list[tuple[object, ...]]] = []
"""At most one list: of what was read since note_reads(), each as a kind of cached_plan.py and its operands."""
UNKNOWN = "unknown"
"""Note of a read that cannot be repeated to compare the results: the Plan is used once."""
STATUS = "status"
"""Note of a path and the result of stat(2), None without one."""
SYMLINK = "symlink"
"""The same of lstat(2)."""
VARIABLE = "variable"
"""Note of a variable and its value, None if it is not set."""
MOUNT_FLAGS = "mount flags"
"""Note of a path and the result of mount_flags(), None without one."""
ACCESS = "access"
"""Note of a path, a mode of access(2), and whether it is allowed."""
RANDOM = "random"
"""Note of digits of which a further run of the same Plan gets others."""

_RESTRICTIONS = posix.ST_RDONLY | posix.ST_NOSUID | posix.ST_NODEV | posix.ST_NOEXEC


def note_reads() -> None:
    """Begin to note what is read."""
    _reads[:] = [[]]


def taken_reads() -> list[tuple[object, ...]]:
    """Return the notes since note_reads(), and note nothing from now on."""
    taken = _reads.pop() if _reads else []
    _reads.clear()
    return taken


def noted(*read: object) -> None:
    """Note a read, if reads are noted."""
    if _reads:
        _reads[0].append(read)


def notes_reads() -> bool:
    """Whether reads are noted."""
    return bool(_reads)


def status(path: str) -> posix.stat_result:
    """Return the result of stat(2).

    Raises:
        OSError: as stat(2); a note of it is the same for each reason.
    """
    return _noted_status(STATUS, path, posix.stat)


def symlink_status(path: str) -> posix.stat_result:
    """Return the result of lstat(2).

    Raises:
        OSError: as status().
    """
    return _noted_status(SYMLINK, path, posix.lstat)


def _noted_status(kind: str, path: str, read: Callable[[str], posix.stat_result]) -> posix.stat_result:
    try:
        found = read(path)
    except (OSError, ValueError):
        noted(kind, path, None)
        raise
    noted(kind, path, found)
    return found


def mount_flags(path: str) -> int:
    """Return ST_RDONLY, ST_NOSUID, ST_NODEV and ST_NOEXEC of the mount that has `path` (statvfs(3)).

    Raises:
        OSError: as statvfs(3).
    """
    try:
        flags = posix.statvfs(path).f_flag & _RESTRICTIONS
    except OSError:
        noted(MOUNT_FLAGS, path, None)
        raise
    noted(MOUNT_FLAGS, path, flags)
    return flags


def allows(path: str, mode: int) -> bool:
    """Whether access(2) allows the modes X_OK, W_OK or R_OK."""
    allowed = posix.access(path, mode)
    noted(ACCESS, path, mode, allowed)
    return allowed


def name(path: str) -> str:
    """Return what follows the last slash, as os.path.basename."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """Return what precedes the last component, without slashes at its end, as os.path.dirname."""
    head, slash, _ = path.rpartition("/")
    return head.rstrip("/") or head + slash


def join(directory: str, path: str) -> str:
    """Return `path` as seen from `directory`: an absolute one is itself."""
    if path.startswith("/") or not directory:
        return path
    return directory + path if directory.endswith("/") else f"{directory}/{path}"


def normal(path: str) -> str:
    """Return `path` without empty, `.` and `..` components, as os.path.normpath: nothing is looked up."""
    # POSIX leaves the meaning of exactly two slashes to the system
    root = "//" if path.startswith("//") and not path.startswith("///") else "/" if path.startswith("/") else ""
    kept: list[str] = []
    for component in path.split("/"):
        if component in ("", "."):
            continue
        if component != ".." or (not root and not kept) or (kept and kept[-1] == ".."):
            kept.append(component)
        elif kept:
            kept.pop()
    return root + "/".join(kept) or "."


def absolute(path: str) -> str:
    """Return the normal path from the root, as os.path.abspath."""
    return normal(path if path.startswith("/") else join(posix.getcwd(), path))  # which may have been removed


def resolved(path: str) -> str:
    """Return the target of the symlinks in `path`, as os.path.realpath; a missing path is only made absolute."""
    if _reads and crosses_symlink(path):
        noted(UNKNOWN, path)
    try:
        fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    except OSError:
        return absolute(path)
    try:
        return posix.readlink(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)


def exists(path: str) -> bool:
    """Whether `path` exists, following symlinks."""
    try:
        status(path)
    except (OSError, ValueError):
        return False
    return True


def lexists(path: str) -> bool:
    """Whether `path` exists, as os.path.lexists: a symlink does, wherever it leads."""
    try:
        symlink_status(path)
    except (OSError, ValueError):
        return False
    return True


def crosses_symlink(path: str, below: str = "") -> bool:
    """Whether a component of `path` is a symlink; those of the directory `below`, with which it begins, count not."""
    ends = [place for place, character in enumerate(path) if character == "/" and place > len(below)]
    for end in (*ends, len(path)):
        try:
            if stat.S_ISLNK(symlink_status(path[:end]).st_mode):
                return True
        except (OSError, ValueError):
            return False
    return False


def unsearchable(path: str) -> str:
    """Return the first directory on the way to an absolute path that the caller may not search; empty without one."""
    way = ""
    for component in path.split("/")[:-1]:
        way += component + "/"
        if lexists(way) and not allows(way, posix.X_OK):
            return way.rstrip("/") or "/"
    return ""


def is_file(path: str) -> bool:
    """Whether `path` names a regular file, following symlinks."""
    try:
        return stat.S_ISREG(status(path).st_mode)
    except (OSError, ValueError):
        return False


def variable(of: str) -> str:
    """Return an environment variable, empty where it is not set."""
    return set_variable(of) or ""


def set_variable(of: str) -> str | None:
    """Return an environment variable, None where it is not set."""
    value = posix.environ.get(of.encode("utf-8", "surrogateescape"))
    noted(VARIABLE, of, value)
    return None if value is None else value.decode("utf-8", "surrogateescape")


def environment() -> list[str]:
    """Return all of them, as NAME=value."""
    noted(UNKNOWN, "environ")
    return [b"=".join(entry).decode("utf-8", "surrogateescape") for entry in posix.environ.items()]
