"""Paths and environment variables without `os`: its import takes 3 ms, a quarter of what Python's own start takes.

The functions do what those of `os.path` do, for the paths of Linux as text; undecodable bytes are surrogates in it.
"""

from __future__ import annotations

import _stat as stat
import posix


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
    return normal(join(posix.getcwd(), path))


def resolved(path: str) -> str:
    """Return the target of the symlinks in `path`, as os.path.realpath; a missing path is only made absolute."""
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
        posix.stat(path)
    except (OSError, ValueError):
        return False
    return True


def lexists(path: str) -> bool:
    """Whether `path` exists, as os.path.lexists: a symlink does, wherever it leads."""
    try:
        posix.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def is_file(path: str) -> bool:
    """Whether `path` names a regular file, following symlinks."""
    try:
        return stat.S_ISREG(posix.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def variable(of: str) -> str:
    """Return an environment variable, empty where it is not set."""
    return posix.environ.get(of.encode(), b"").decode("utf-8", "surrogateescape")


def environment() -> list[str]:
    """Return all of them, as NAME=value."""
    return [b"=".join(entry).decode("utf-8", "surrogateescape") for entry in posix.environ.items()]
