"""The caller's subordinate ids: subuid(5), subgid(5), getsubids(1), newuidmap(1), newgidmap(1)."""

from __future__ import annotations

import posix

from rootless.files import text_of
from rootless.paths import variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Range = tuple[int, int]
    """First id, how many."""

RANGE = 65536
"""How many ids one user is given as a rule."""
FIRST_SUBORDINATE = 100000
"""Where useradd(8) begins by default (SUB_UID_MIN of login.defs(5))."""

_PROGRAM_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin")


def login_name(uid: int) -> str:
    """Return the name of `uid`, or the number in decimal where no name service knows it."""
    for line in text_of("/etc/passwd").splitlines():
        name, _, number, *_ = (line + "::").split(":")
        if number == str(uid):
            return name
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
    for directory in (*_PROGRAM_DIRECTORIES, *variable("PATH").split(":")):
        path = f"{directory}/{name}"
        if directory.startswith("/") and posix.access(path, posix.X_OK):
            return path
    return ""


def ranges(user: str, uid: int) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Return all subordinate ranges of a user: of uids, of gids.

    The files are asked, as newuidmap does; getsubids only where nsswitch.conf says that another source knows them.
    """
    if _name_service_has_subids() and (program := find_program("getsubids")):
        return _ask(program, user), _ask(program, "-g", user)
    return parse(text_of("/etc/subuid"), user, uid), parse(text_of("/etc/subgid"), user, uid)


def parse(text: str, user: str, uid: int) -> tuple[Range, ...]:
    """Return the ranges of a user in the text of a subuid(5) file; lines that make no sense are passed over."""
    found = []
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if owner in (user, str(uid)) and first.isdecimal() and count.isdecimal() and int(count) > 0:
            found.append((int(first), int(count)))
    return tuple(found)


def offer() -> int:
    """Return the first of RANGE ids that nobody has in /etc/subuid or /etc/subgid."""
    return free_range(used_ranges(text_of("/etc/subuid"), text_of("/etc/subgid")))


def _name_service_has_subids() -> bool:
    lines = [line for line in text_of("/etc/nsswitch.conf").splitlines() if line.startswith("subid:")]
    return any(source != "files" for line in lines for source in line.partition(":")[2].split())


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


def used_ranges(*texts: str) -> list[tuple[int, int]]:
    """Return (first, count) of every line of subuid(5) files, for any owner."""
    found = []
    for line in "\n".join(texts).splitlines():
        first, _, count = line.strip().partition(":")[2].partition(":")
        if first.isdecimal() and count.isdecimal():
            found.append((int(first), int(count)))
    return found


def free_range(used: Iterable[tuple[int, int]]) -> int:
    """Return the first id of the lowest free range of RANGE ids."""
    first = FIRST_SUBORDINATE
    for start, count in sorted(used):
        if start < first + RANGE:
            first = max(first, start + count)
    return first
