"""Directories of the user: the XDG Base Directory Specification.

Importing platformdirs takes 23 ms; a test compares the two. Root ignores variables that lead to a directory of another
user, which sudo may keep.
"""

from __future__ import annotations

import posix

from rootless import paths


def runtime() -> str:
    """Return $XDG_RUNTIME_DIR; empty where it is not set. The specification ignores relative paths."""
    return _absolute("XDG_RUNTIME_DIR")


def config() -> str:
    """Return $XDG_CONFIG_HOME or its default; empty where the user has no home."""
    return _below_home("XDG_CONFIG_HOME", ".config")


def data() -> str:
    """Return $XDG_DATA_HOME or its default; empty where the user has no home."""
    return _below_home("XDG_DATA_HOME", ".local/share")


def state(home: str) -> str:
    """Return the default of $XDG_STATE_HOME below a home."""
    return f"{home}/.local/state"


def homes(uid: int) -> tuple[str, str]:
    """Return the home of the account, then $HOME, which su and sudo may keep from another user; each may be empty."""
    import pwd

    paths.noted(paths.UNKNOWN, "name service")
    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        home = ""
    return home, paths.variable("HOME")


def _below_home(variable: str, default: str) -> str:
    given = _absolute(variable)
    if given and _is_callers(given):
        return given
    home = paths.variable("HOME")
    if not _is_callers(home):
        import pwd

        paths.noted(paths.UNKNOWN, "name service")
        home = pwd.getpwuid(0).pw_dir
    return f"{home}/{default}" if home.startswith("/") else ""


def _absolute(name: str) -> str:
    path = paths.variable(name)
    return path if path.startswith("/") else ""


def _is_callers(directory: str) -> bool:
    """Whether a directory is the caller's, for root; an ordinary user has no rights that a wrong one could abuse."""
    if posix.geteuid() != 0:
        return True
    try:
        return paths.status(directory).st_uid == 0
    except FileNotFoundError:  # it will belong to the owner of the directory above
        parent = paths.parent(directory)
        return parent.startswith("/") and _is_callers(parent)
    except OSError:
        return False
