"""The ID maps of a new user namespace.

user_namespaces(7), newuidmap(1), config-linux.md "User namespace mappings".
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.linux import CAP_SETGID, CAP_SETUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rootless.host.facts import Facts
    from rootless.host.subids import Range
    from rootless.procfs import IdMap

_ID_DIGITS = 10

SINGLE = "your own id only"
"""The origin of maps of a single ID that config.json does not ask for."""

UNKNOWN = 1 << 32
"""The ID of the host for one that systemd chooses when the container starts; no ID is as large."""

_MOST_RANGES = 337
"""With the caller's own ID, which takes one line and splits another, at most 340 lines (user_namespaces(7))."""


class IdMaps:
    """The maps of one new user namespace.

    Attributes:
        uids, gids: lines of uid_map and gid_map.
        source: the origin of the maps, for people.
        deny_setgroups: whether setgroups(2) must be denied before the gid map is written (CVE-2014-8989).
        uid_program, gid_program: the set-user-ID program that writes the map; empty if rootless itself may.
        service: the socket of systemd, which chooses the IDs and writes both maps; empty without it.
    """

    __slots__ = ("deny_setgroups", "gid_program", "gids", "service", "source", "uid_program", "uids")

    def __init__(
        self, uids: Sequence[IdMap], gids: Sequence[IdMap], source: str, facts: Facts, service: str = ""
    ) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)
        self.source = source
        self.service = service
        self.uid_program = self.gid_program = ""
        self.deny_setgroups = False
        if not service:
            self._choose_programs(facts)

    def _choose_programs(self, facts: Facts) -> None:
        programs = facts.id_programs or ("", "")
        # mapping one's own ID once needs no help: user_namespaces(7), "Defining user and group ID mappings"
        own_uid = _is_only(self.uids, facts.uid) or facts.has(CAP_SETUID)
        own_gid = _is_only(self.gids, facts.gid) or facts.has(CAP_SETGID)
        self.uid_program = "" if own_uid else programs[0]
        self.gid_program = "" if own_gid else programs[1]
        self.deny_setgroups = own_gid and not facts.has(CAP_SETGID)
        if not facts.id_programs and not (own_uid and own_gid):
            raise RootlessError(
                "cannot map the IDs that config.json asks for",
                cause="newuidmap and newgidmap are not installed, and without them a user can map only their own ID",
                where="linux.uidMappings",
                fix="install uidmap (Debian, Ubuntu) or shadow-utils (Fedora), or use --userns single",
                code="RL-IDMAP-PROGRAMS",
            )

    def __str__(self) -> str:
        """Return the origin of the maps."""
        return self.source or "the caller's own ID"

    def details(self) -> list[str]:
        """Return further lines for `explain`: every range, and the program that writes it."""
        lines = []
        for name, ranges, program in (("uid", self.uids, self.uid_program), ("gid", self.gids, self.gid_program)):
            lines.append(f"{name} map, written by {program or self.service or 'rootless itself'}:")
            lines += [f"  {name} {_line_text(line)} of the host" for line in ranges]
        return lines + (["setgroups(2) is denied in it"] if self.deny_setgroups else [])


def has(lines: Iterable[IdMap], number: int) -> bool:
    """Whether `number`, an ID inside, is mapped."""
    return any(inside <= number < inside + count for inside, _, count in lines)


def inside(lines: Iterable[IdMap], number: int) -> int:
    """Return the ID inside for `number`, an ID outside; -1 if it is not mapped."""
    return next((first + number - start for first, start, count in lines if start <= number < start + count), -1)


def id_number(text: str) -> int:
    """Return the ID that `text` holds as decimal digits; -1 for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS else -1


def mappings(section: dict[str, Any]) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """Return uidMappings and gidMappings of a section of config.json as lines of uid_map and gid_map."""
    uids, gids = (
        tuple([(line["containerID"], line["hostID"], line["size"]) for line in section.get(name) or ()])
        for name in ("uidMappings", "gidMappings")
    )
    return uids, gids


def id_maps(
    linux: dict[str, Any], process: dict[str, Any], facts: Facts, mode: str, kept: tuple[int, int] = (-1, -1)
) -> tuple[IdMaps, str, str]:
    """Return the maps of the new user namespace, an adaptation and a shortcoming; the last two may be empty.

    Args:
        linux: the section of config.json.
        process: the section of config.json; its user is the one that a single ID becomes.
        facts: the host and the caller.
        mode: --userns: ``keep-id``, ``root``, ``single`` or nothing.
        kept: the uid and gid that keep-id maps the caller's own to; -1 for the same number.
    """
    uids, gids = mappings(linux)
    adapted = ""
    if mode and (uids or gids):
        adapted = f"--userns {mode} replaces linux.uidMappings and gidMappings"
    elif uids or gids:
        if not uids or not gids:
            adapted = (
                "linux.uidMappings and gidMappings belong together, and one is missing: your own IDs are mapped instead"
            )
        elif facts.privileged or (
            _may_map(uids, facts.uid, facts.subuids, facts.uid_map)
            and _may_map(gids, facts.gid, facts.subgids, facts.gid_map)
        ):
            return IdMaps(split(uids, facts.uid_map), split(gids, facts.gid_map), "config.json", facts), "", ""
        else:
            adapted = "linux.uidMappings and gidMappings name IDs that are not yours: your own are mapped instead"
    maps, own_adapted, shortcoming = _own_maps(process, facts, mode, kept_ids(facts, kept))
    if adapted:
        adapted += f": uids {_text(maps.uids)} (not {_text(uids)}); gids {_text(maps.gids)} (not {_text(gids)})"
    return maps, adapted or own_adapted, shortcoming


def _text(lines: Iterable[IdMap]) -> str:
    """Return a map for people: ``0 is 1000, 1-65536 is 100000-165535``."""
    return ", ".join([_line_text(line) for line in lines]) or "any"


def _line_text(line: IdMap) -> str:
    first, outside, count = line
    last = count - 1
    if outside == UNKNOWN:
        return f"{first}-{first + last} is a free range"
    return f"{first}-{first + last} is {outside}-{outside + last}" if last else f"{first} is {outside}"


def split(lines: Iterable[IdMap], held: Sequence[IdMap]) -> tuple[IdMap, ...]:
    """Return `lines` split at the boundaries between lines of `held`.

    The kernel refuses a line that spans two lines of the parent user namespace (user_namespaces(7)), such as 0 to 65535
    where 0 is the user and the rest are subordinate IDs.
    """
    found: list[IdMap] = []
    for first, outside, count in lines:
        end = outside + count
        edges = {edge for start, _, size in held for edge in (start, start + size) if outside < edge < end}
        low = outside
        for edge in (*sorted(edges), end):
            found.append((first + low - outside, low, edge - low))
            low = edge
    return tuple(found)


def usable(ranges: Sequence[Range], own: int, held: Sequence[IdMap]) -> tuple[Range, ...]:
    """Return the parts of subordinate ranges that can be mapped beside one's own ID, each ID once.

    subuid(5) may list a range twice (by name and by number), or, in a container, a range that does not exist there.

    Args:
        ranges: the granted ranges.
        own: the ID that is mapped already.
        held: the map of the caller's own user namespace.
    """
    found: list[Range] = []
    taken = [(own, own + 1)]
    for first, count in ranges:
        for inside, _, size in held:
            start, end = max(first, inside), min(first + count, inside + size)
            found += [(low, high - low) for low, high in _without(start, end, taken)]
            taken.append((start, max(start, end)))
    return tuple(found[:_MOST_RANGES])


def _without(start: int, end: int, taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pieces of [start, end) outside every range of `taken`."""
    pieces = [(start, end)] if start < end else []
    for low, high in taken:
        if low < high:
            sides = [side for first, last in pieces for side in ((first, min(last, low)), (max(first, high), last))]
            pieces = [(first, last) for first, last in sides if first < last]
    return pieces


def kept_ids(facts: Facts, kept: tuple[int, int]) -> tuple[int, int]:
    """Return the uid and gid that keep-id maps the caller's own to."""
    return (kept[0] if kept[0] >= 0 else facts.uid, kept[1] if kept[1] >= 0 else facts.gid)


def _own_maps(process: dict[str, Any], facts: Facts, mode: str, kept: tuple[int, int]) -> tuple[IdMaps, str, str]:
    """Return maps of all the caller's IDs, an adaptation, and a shortcoming."""
    if mode == "single":
        return _single_map(process, facts, mode, kept), "", ""
    if facts.privileged and facts.has(CAP_SETUID) and facts.has(CAP_SETGID):
        # root needs no entry in subuid(5): it maps its own IDs onto themselves
        uids = tuple((inside, inside, count) for inside, _, count in facts.uid_map)
        gids = tuple((inside, inside, count) for inside, _, count in facts.gid_map)
        return IdMaps(uids, gids, "all ids of the caller", facts), "the caller's own ids are mapped onto themselves", ""
    subuids = usable(facts.subuids, facts.uid, facts.uid_map)
    subgids = usable(facts.subgids, facts.gid, facts.gid_map)
    if not (subuids and subgids and facts.id_programs):
        shortcoming = f"only your own id exists in the container: {_why_single(facts)}"
        return _single_map(process, facts, mode, kept), "", shortcoming
    keep = mode == "keep-id"
    uids = _filled(facts.uid, subuids, kept[0] if keep else 0)
    gids = _filled(facts.gid, subgids, kept[1] if keep else 0)
    counts = f"{sum(count for _, _, count in uids)} uids and {sum(count for _, _, count in gids)} gids"
    return IdMaps(uids, gids, f"your own id and your subordinate ids, {counts}", facts), "", ""


def _single_map(process: dict[str, Any], facts: Facts, mode: str, kept: tuple[int, int]) -> IdMaps:
    """Return maps of the caller's own ids: onto themselves, root, or the user of config.json."""
    user = process.get("user") or {}
    inside = {"keep-id": kept, "": (user.get("uid") or 0, user.get("gid") or 0)}
    uid, gid = inside.get(mode, (0, 0))
    return IdMaps(((uid, facts.uid, 1),), ((gid, facts.gid, 1),), SINGLE, facts)


def _why_single(facts: Facts) -> str:
    if not facts.id_programs:
        return "newuidmap and newgidmap are not installed; fix: apt install uidmap (Fedora: dnf install shadow-utils)"
    if facts.subuids and facts.subgids:
        return f"the user namespace that {facts.user} is in does not have the ids of /etc/subuid and /etc/subgid"
    missing = "/etc/subuid" if not facts.subuids else "/etc/subgid"
    fix = f"fix, as root: {grant_command(facts.user, facts.free_range, is_local=facts.local_user)}"
    if facts.subid_service:
        missing = "the source that nsswitch.conf names for subid"
        fix = "fix: have the administrator add one there (FreeIPA: ipa subid-generate)"
    instead = "; or run an image with --userns systemd" if facts.id_service else ""
    return f"{missing} has no range for {facts.user}; {fix}{instead}"


def grant_command(
    user: str, first: int, *, is_local: bool, kinds: Iterable[str] = ("uids", "gids"), sudo: str = ""
) -> str:
    """Return root's command that gives a user 65536 subordinate IDs.

    usermod(8) knows local users only. printf(1) is not echo, which obeys backslashes: a user of a domain has one in the
    name.

    Args:
        user: the login name.
        first: the first of the IDs.
        is_local: the user is in /etc/passwd.
        kinds: of IDs.
        sudo: precedes the word that only root may run.
    """
    if is_local:
        flags = " ".join([f"--add-sub{kind} {first}-{first + 65535}" for kind in kinds])
        return f"{sudo}usermod {flags} {user}"
    line = f"{user}:{first}:65536".replace("'", "'\\''")
    files = " ".join([f"/etc/sub{kind[:-1]}" for kind in kinds])
    return f"printf '%s\\n' '{line}' | {sudo}tee -a {files}"


def _filled(own: int, ranges: Sequence[Range], place: int) -> tuple[IdMap, ...]:
    """Map `own` to `place`, and the subordinate ranges in order to all other IDs from 0 on."""
    lines: list[IdMap] = []
    inside = 0
    own_line: IdMap = (place, own, 1)
    for first, count in ranges:
        start, left = first, count
        while left:
            if inside == place:
                lines.append(own_line)
                inside += 1
            size = min(left, place - inside) if inside < place else left
            lines.append((inside, start, size))
            inside, start, left = inside + size, start + size, left - size
    if own_line not in lines:
        lines.append(own_line)
    return tuple(lines)


def _may_map(lines: Sequence[IdMap], own: int, ranges: Sequence[Range], held: Sequence[IdMap]) -> bool:
    """Whether newuidmap(1) accepts every line: the own ID alone, or part of a granted range that exists here."""

    def within(first: int, count: int, whole: int, size: int) -> bool:
        return whole <= first and first + count <= whole + size

    return all(
        ((outside == own and count == 1) or any(within(outside, count, first, size) for first, size in ranges))
        and any(within(outside, count, inside, size) for inside, _, size in held)
        for _, outside, count in lines
    )


def _is_only(lines: Sequence[IdMap], own: int) -> bool:
    return len(lines) == 1 and lines[0][1:] == (own, 1)
