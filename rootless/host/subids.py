"""The caller's subordinate ids: subuid(5), subgid(5), getsubids(1), newuidmap(1), newgidmap(1)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Range = tuple[int, int]
    """First id, how many."""

_PROGRAM_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin")


def login_name(uid: int) -> str:
    """Return the name of `uid`, or the number in decimal where no name service knows it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def programs() -> tuple[str, str] | tuple[()]:
    """Return the paths of newuidmap and newgidmap, or nothing when one is missing."""
    uid_program, gid_program = find_program("newuidmap"), find_program("newgidmap")
    return (uid_program, gid_program) if uid_program and gid_program else ()


def find_program(name: str) -> str:
    """Return the path of a host program: the usual places first, then PATH; empty where it is not."""
    for directory in (*_PROGRAM_DIRECTORIES, *os.environ.get("PATH", "").split(":")):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    return ""


def ranges(user: str, uid: int) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Return all subordinate ranges of a user: of uids, of gids.

    The files are asked, as newuidmap does; getsubids only where nsswitch.conf says that another source knows them.
    """
    if _name_service_has_subids() and (program := find_program("getsubids")):
        return _ask(program, user), _ask(program, "-g", user)
    return _file_ranges("/etc/subuid", user, uid), _file_ranges("/etc/subgid", user, uid)


def parse(text: str, user: str, uid: int) -> tuple[Range, ...]:
    """Return the ranges of a user in the text of a subuid(5) file; lines that make no sense are passed over."""
    found = []
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if owner in (user, str(uid)) and first.isdecimal() and count.isdecimal() and int(count) > 0:
            found.append((int(first), int(count)))
    return tuple(found)


def _file_ranges(path: str, user: str, uid: int) -> tuple[Range, ...]:
    try:
        with open(path, "rb", buffering=0) as file:
            return parse(file.read().decode("utf-8", "replace"), user, uid)
    except OSError:
        return ()


def _name_service_has_subids() -> bool:
    try:
        with open("/etc/nsswitch.conf", "rb", buffering=0) as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return False
    sources = [line.partition(":")[2].split() for line in text.splitlines() if line.startswith("subid:")]
    return any(source != "files" for line in sources for source in line)


def _ask(program: str, *arguments: str) -> tuple[Range, ...]:
    """Run getsubids(1): a line for each range, ``0: name first count``."""
    import subprocess

    answer = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    found = []
    for line in answer.stdout.splitlines():
        rest, _, count = line.rpartition(" ")
        first = rest.rpartition(" ")[2]
        if first.isdecimal() and count.isdecimal():
            found.append((int(first), int(count)))
    return tuple(found)
