"""Names of users and groups in the files of an image: passwd(5), group(5), podman-run(1) --user.

The files are hostile: they are short, and a line that is not one is skipped.
"""

from __future__ import annotations

from rootless.bundle.edit.values import is_digits
from rootless.bundle.schema import HIGHEST_ID
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[str], bytes]
    """Returns the content of a file of the image, by its absolute path, and nothing for a missing one."""

PASSWD, GROUP = "/etc/passwd", "/etc/group"
MOST_BYTES = 4 << 20
"""The longest passwd or group file that is read (CVE-2026-47262 was a group file without a bound)."""
_PASSWD_FIELDS, _GROUP_FIELDS = 7, 4


class Identity:
    """Who a program is: `uid`, `gid` and the supplementary groups `gids`, all of them ids in the container."""

    __slots__ = ("gid", "gids", "uid")

    def __init__(self, uid: int, gid: int, gids: list[int]) -> None:
        self.uid = uid
        self.gid = gid
        self.gids = gids


def identity(flag: str, text: str, read: Read) -> Identity:
    """Return the user ``NAME|UID[:GROUP|GID]``.

    Without a group it is the user's own, and the groups that list the user come with it. A number needs no entry; its
    group is then 0. It is never a name, by which an image could make it another user (CVE-2026-46680). Only the files
    that are needed are read.

    Raises:
        RootlessError: `RL-USER`: there is no such user or group, or no such number.
    """
    name, colon, group = text.partition(":")
    uid = number(name)
    if uid < 0 and _is_number(name):
        raise _unknown(flag, text, "user", name, PASSWD)
    users = _lines(read, PASSWD, _PASSWD_FIELDS) if name and not (uid >= 0 and group) else iter(())
    known = next((user for user in users if (number(user[2]) == uid if uid >= 0 else name == user[0])), None)
    if known and number(known[2]) >= 0 and number(known[3]) >= 0:
        uid, gid = number(known[2]), number(known[3])
    elif uid >= 0 or not name:
        uid, gid = max(uid, 0), 0
    else:
        raise _unknown(flag, text, "user", name, PASSWD)
    if colon and group:
        gid = group_id(flag, group, read, text)
        return Identity(uid, gid, [gid])
    gids = [gid]
    if known:
        members = [(number(line[2]), line[3].split(",")) for line in _lines(read, GROUP, _GROUP_FIELDS)]
        gids += [each for each, names in members if known[0] in names and each >= 0]
    return Identity(uid, gid, list(dict.fromkeys(gids)))


def group_id(flag: str, text: str, read: Read, value: str = "") -> int:
    """Return the id of the group ``NAME|GID``, which is the flag's value or a part of `value`.

    Raises:
        RootlessError: `RL-USER`: there is no such group.
    """
    gid = number(text)
    if gid >= 0:
        return gid
    lines = iter(()) if _is_number(text) else _lines(read, GROUP, _GROUP_FIELDS)
    found = next((number(line[2]) for line in lines if line[0] == text), -1)
    if found < 0:
        raise _unknown(flag, value or text, "group", text, GROUP)
    return found


def number(text: str) -> int:
    """Return the id that `text` holds in decimal digits; -1 for any other text."""
    return int(text) if is_digits(text) and int(text) <= HIGHEST_ID else -1


def _is_number(text: str) -> bool:
    """Whether `text` is a number of any length, and so never a name."""
    return text.isascii() and text.isdigit()


def _lines(read: Read, path: str, fields: int) -> Iterator[list[str]]:
    """Yield the fields of each line of a passwd or group file."""
    text = read(path)
    if len(text) > MOST_BYTES:
        raise RootlessError(
            f"cannot use {path} of the container",
            cause=f"it is longer than {MOST_BYTES >> 20} MiB",
            fix="give the ids as numbers, UID:GID",
            code="RL-USER",
        )
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        parts = line.strip().split(":")
        if len(parts) >= fields and parts[0]:
            yield parts


def _unknown(flag: str, value: str, kind: str, name: str, path: str) -> RootlessError:
    return RootlessError(
        f"{flag} {value}",
        cause=f"{name} is above the highest id, {HIGHEST_ID}" if _is_number(name) else f"{path} has no {kind} {name!r}",
        fix=f"name a {kind} of the container, or give its id as a number",
        code="RL-USER",
    )
