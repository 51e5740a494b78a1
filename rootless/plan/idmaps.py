"""Which ids of the host a new user namespace has: user_namespaces(7), newuidmap(1), config-linux.md "User namespace mappings"."""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rootless.host.facts import Facts, IdMap
    from rootless.host.subids import Range

CAP_SETGID = 6
CAP_SETUID = 7


class IdMaps:
    """The maps of one new user namespace.

    Attributes:
        uids, gids: lines of uid_map and gid_map.
        source: where they come from, for people.
        deny_setgroups: the kernel wants setgroups(2) given up before the gid map is written (CVE-2014-8989).
        uid_program, gid_program: the set-user-ID program that writes the map; empty where we may write it ourselves.
    """

    __slots__ = ("deny_setgroups", "gid_program", "gids", "source", "uid_program", "uids")

    def __init__(self, uids: Sequence[IdMap], gids: Sequence[IdMap], source: str, facts: Facts) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)
        self.source = source
        programs = facts.id_programs or ("", "")
        # one's own id, once, needs no help: user_namespaces(7), "Defining user and group ID mappings"
        own_uid = _is_only(self.uids, facts.uid) or bool(facts.capabilities >> CAP_SETUID & 1)
        own_gid = _is_only(self.gids, facts.gid) or bool(facts.capabilities >> CAP_SETGID & 1)
        self.uid_program = "" if own_uid else programs[0]
        self.gid_program = "" if own_gid else programs[1]
        self.deny_setgroups = own_gid and not facts.capabilities >> CAP_SETGID & 1
        if not facts.id_programs and not (own_uid and own_gid):
            raise RootlessError(
                "cannot map the ids that config.json asks for",
                cause="newuidmap and newgidmap are not installed, and only one's own id can be mapped without them",
                where="linux.uidMappings",
                fix="install them (Debian: apt install uidmap; Fedora: dnf install shadow-utils), or --userns single",
                code="RL-IDMAP-PROGRAMS",
            )


def has(lines: Iterable[IdMap], number: int) -> bool:
    """Whether `number`, an id inside, is mapped."""
    return any(inside <= number < inside + count for inside, _, count in lines)


def id_maps(linux: dict[str, Any], process: dict[str, Any], facts: Facts, mode: str) -> tuple[IdMaps, str, str]:
    """Return the maps of the new user namespace, and what a person should know: an adaptation, a shortcoming.

    Args:
        linux: the section of config.json.
        process: the section of config.json; its user decides which id the single one is.
        facts: the host and the caller.
        mode: what the caller asked with --userns: ``keep-id``, ``root``, ``single`` or nothing.
    """
    uids, gids = _written(linux, "uidMappings"), _written(linux, "gidMappings")
    if mode == "" and uids and gids:
        if facts.privileged or (_may_map(uids, facts.uid, facts.subuids) and _may_map(gids, facts.gid, facts.subgids)):
            return IdMaps(uids, gids, "config.json", facts), "", ""
        maps, _, shortcoming = _own_maps(process, facts, mode)
        return (
            maps,
            "linux.uidMappings and gidMappings name ids that are not yours: your own are mapped instead",
            shortcoming,
        )
    return _own_maps(process, facts, mode)


def _own_maps(process: dict[str, Any], facts: Facts, mode: str) -> tuple[IdMaps, str, str]:
    if facts.privileged:
        # nothing is given to root in subuid(5): it maps what it has itself, onto the same numbers
        uids = tuple((inside, inside, count) for inside, _, count in facts.uid_map)
        gids = tuple((inside, inside, count) for inside, _, count in facts.gid_map)
        return IdMaps(uids, gids, "all ids of the caller", facts), "the caller's own ids are mapped onto themselves", ""
    if mode != "single" and facts.subuids and facts.subgids and facts.id_programs:
        keep = mode == "keep-id"
        uids = _filled(facts.uid, facts.subuids, facts.uid if keep else 0)
        gids = _filled(facts.gid, facts.subgids, facts.gid if keep else 0)
        counts = f"{sum(count for _, _, count in uids)} uids and {sum(count for _, _, count in gids)} gids"
        return IdMaps(uids, gids, f"your own id and your subordinate ids, {counts}", facts), "", ""
    user = process.get("user") or {}
    shortcoming = ""
    inside_uid, inside_gid = (facts.uid, facts.gid) if mode == "keep-id" else (0, 0)
    if not mode:
        inside_uid, inside_gid = user.get("uid") or 0, user.get("gid") or 0
    if mode != "single":
        shortcoming = f"only your own id exists in the container: {_why_single(facts)}"
    source = "your own id only"
    return IdMaps(((inside_uid, facts.uid, 1),), ((inside_gid, facts.gid, 1),), source, facts), "", shortcoming


def _why_single(facts: Facts) -> str:
    if not facts.id_programs:
        return "newuidmap and newgidmap are not installed; fix: apt install uidmap (Fedora: dnf install shadow-utils)"
    missing = "/etc/subuid" if not facts.subuids else "/etc/subgid"
    return (
        f"{missing} has no range for {facts.user}; fix, as root: "
        f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {facts.user}"
    )


def _filled(own: int, ranges: Sequence[Range], place: int) -> tuple[IdMap, ...]:
    """Map `own` to `place` and the subordinate ranges, in order, to all other ids from 0 on."""
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


def _written(linux: dict[str, Any], key: str) -> tuple[IdMap, ...]:
    return tuple((line["containerID"], line["hostID"], line["size"]) for line in linux.get(key) or ())


def _may_map(lines: Sequence[IdMap], own: int, ranges: Sequence[Range]) -> bool:
    """Whether newuidmap(1) would accept every line: the own id alone, or part of one granted range."""
    return all(
        (outside == own and count == 1)
        or any(first <= outside and outside + count <= first + size for first, size in ranges)
        for _, outside, count in lines
    )


def _is_only(lines: Sequence[IdMap], own: int) -> bool:
    return len(lines) == 1 and lines[0][1:] == (own, 1)
