"""The caller's subordinate ids: subuid(5), subgid(5), getsubids(1), newuidmap(1), newgidmap(1)."""

from __future__ import annotations

import posix

from rootless import paths
from rootless.files import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Range = tuple[int, int]
    """First id, count."""

RANGE = 65536
"""The usual number of subordinate ids of a user."""
FIRST_SUBORDINATE = 100000
"""The first id that useradd(8) allocates by default (SUB_UID_MIN in login.defs(5))."""

_ID_DIGITS = 10
"""Of the highest id, 4294967294."""
_PROGRAM_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin")


def login_name(uid: int) -> str:
    """Return the login name of `uid`, or the uid in decimal if it has none."""
    for line in text_of("/etc/passwd").splitlines():
        name, _, number, *_ = (line + "::").split(":")
        if number == str(uid):
            return name
    import pwd

    paths.noted(paths.UNKNOWN, "name service")
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def is_local(user: str) -> bool:
    """Whether a user is in /etc/passwd, and not only in a directory service."""
    return any(line.startswith(user + ":") for line in text_of("/etc/passwd").splitlines())


def programs() -> tuple[str, str] | tuple[()]:
    """Return the paths of newuidmap and newgidmap; empty unless both are installed."""
    uid_program, gid_program = find_program("newuidmap"), find_program("newgidmap")
    return (uid_program, gid_program) if uid_program and gid_program else ()


def find_program(name: str) -> str:
    """Return the path of a program of the host, from the usual directories or PATH; empty if it is not installed."""
    return _find(name, _PROGRAM_DIRECTORIES) or _find(name, paths.variable("PATH").split(":"))


def _find(name: str, directories: Iterable[str]) -> str:
    for directory in directories:
        path = f"{directory}/{name}"
        if directory.startswith("/") and paths.allows(path, posix.X_OK):
            return path
    return ""


def ranges(user: str, uid: int) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Return the subordinate ranges of a user: uids and gids.

    Like newuidmap, it reads /etc/subuid and /etc/subgid. It runs getsubids(1) if nsswitch.conf names another source.
    """
    if has_name_service() and (program := find_program("getsubids")):
        return _ask(program, user), _ask(program, "-g", user)
    return parse(text_of("/etc/subuid"), user, uid), parse(text_of("/etc/subgid"), user, uid)


def parse(text: str, user: str, uid: int) -> tuple[Range, ...]:
    """Return the ranges of a user in the text of a subuid(5) file; malformed lines are ignored."""
    owners = (user, str(uid))
    own = [line for line in text.splitlines() if line.strip().partition(":")[0] in owners]
    return tuple([(first, count) for _, first, count in entries("\n".join(own))])


def entries(text: str) -> list[tuple[str, int, int]]:
    """Return owner, first id and count of each line in the text of a subuid(5) file; malformed lines are ignored."""
    found = []
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if is_id(first) and is_id(count) and int(count) > 0:
            found.append((owner, int(first), int(count)))
    return found


def is_id(text: str) -> bool:
    """Whether `text` is the decimal number of an id or a count of ids."""
    return text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS


def offer() -> int:
    """Return the first of RANGE consecutive ids that are free in both /etc/subuid and /etc/subgid."""
    return free_range(used_ranges(text_of("/etc/subuid"), text_of("/etc/subgid")))


def has_name_service() -> bool:
    """Whether nsswitch.conf(5) names another source of subordinate ids than the files."""
    lines = [line for line in text_of("/etc/nsswitch.conf").splitlines() if line.startswith("subid:")]
    return any(source != "files" for line in lines for source in line.partition(":")[2].split())


def _ask(program: str, *arguments: str) -> tuple[Range, ...]:
    """Return the ranges that getsubids(1) prints, one per line: ``0: name first count``."""
    import subprocess

    paths.noted(paths.UNKNOWN, program)
    answer = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    found = []
    for line in answer.stdout.splitlines():
        rest, _, count = line.rpartition(" ")
        first = rest.rpartition(" ")[2]
        if is_id(first) and is_id(count):
            found.append((int(first), int(count)))
    return tuple(found)


def used_ranges(*texts: str) -> list[tuple[int, int]]:
    """Return (first, count) of every line in the texts of subuid(5) files, for all owners."""
    return [(first, count) for text in texts for _, first, count in entries(text)]


def free_range(used: Iterable[tuple[int, int]]) -> int:
    """Return the first id of the lowest free range of RANGE ids, from FIRST_SUBORDINATE on."""
    first = FIRST_SUBORDINATE
    for start, count in sorted(used):
        if start < first + RANGE:
            first = max(first, start + count)
    return first
