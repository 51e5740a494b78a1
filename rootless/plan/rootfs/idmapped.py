"""ID-mapped mounts: config.md "Linux mount options" and "POSIX-platform Mounts"; mount_setattr(2).

An ID-mapped mount changes owners by a map: a file that is stored with the owner `containerID` has the owner `hostID`.
The kernel takes the map from a user namespace that exists for this purpose, and requires CAP_SYS_ADMIN over the user
namespace that owns the file system. So a privileged caller maps a directory of the host before it enters any namespace,
and a new file system, which the container owns, is mapped in the container. Imported only if config.json has such a
mount.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.linux import CAP_SYS_ADMIN
from rootless.plan import ops
from rootless.plan.idmaps import mappings, split
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import SHARED, SLAVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.plan.context import Context
    from rootless.plan.rootfs.mount_options import MountOptions
    from rootless.procfs import IdMap

    Maps = tuple[Sequence[IdMap], Sequence[IdMap]]
    """ID map lines for uids and for gids."""


_UNMAPPABLE = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts")
"""File systems that do not support ID-mapped mounts."""


def check(context: Context, mount: dict[str, Any], options: MountOptions, where: str) -> None:
    """Refuse a mount that cannot be ID-mapped.

    Raises:
        RootlessError: `RL-CONFIG`.
    """
    cause = fix = ""
    place = where
    kind = mount.get("type") or ""
    custom = next((each for each in mount.get("options") or () if each.startswith(("idmap=", "ridmap="))), "")
    if custom:
        cause = f"{custom} is an option of another runtime"
        place, fix = f"{where}.options", "write idmap, and the mappings in uidMappings and gidMappings of the mount"
    elif bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
        cause, fix = "only one of uidMappings and gidMappings is set", "set both, or neither"
    elif options.remount:
        cause, fix = "an existing mount cannot be mapped", "map it when it is created"
    elif not options.bind and kind in _UNMAPPABLE:
        cause, fix = f"the kernel cannot map a mount of type {kind}", "leave the mapping out"
    elif not (mount.get("uidMappings") or context.maps or "user" in context.joined):
        cause = "it has no mappings, and the container has no user namespace to take them from"
        fix = "add uidMappings and gidMappings to the mount"
    if cause:
        raise RootlessError(
            f"cannot map the ids of the mount on {mount['destination']}",
            cause=cause,
            where=place,
            fix=fix,
            code="RL-CONFIG",
        )


def bind(context: Context, mount: dict[str, Any], options: MountOptions, source: str, where: str) -> list[Op]:
    """Return the operations that copy and map a mount tree of the host; later a BIND with PREPARED attaches the copy.

    They run in the caller's namespaces.

    Raises:
        RootlessError: `RL-IDMAP-MOUNT`: the caller has no CAP_SYS_ADMIN.
    """
    if not context.facts.has(CAP_SYS_ADMIN):
        raise RootlessError(
            f"cannot map the ids of the mount on {mount['destination']}",
            cause="the kernel lets only root of the host map ids of the host's file systems",
            where=where,
            fix="leave out idmap, uidMappings and gidMappings (the container's root is you, and its other ids are your "
            "subordinate ids: `rootless unshare chown` gives them files), or let root run it",
            code="RL-IDMAP-MOUNT",
        )
    maps: Maps = mappings(mount)
    path = ""
    if maps[0]:
        maps = _cut(maps, context.facts.uid_map, context.facts.gid_map)
    elif "user" in context.joined:
        path = context.joined["user"]
    elif context.maps:
        maps = context.maps.uids, context.maps.gids
    mapping = _id_map(maps, path, where, new=False)
    return [mapping, copy(context, options, source, where, _mapping_flag(options))]


def copy(context: Context, options: MountOptions, source: str, where: str, flags: int = 0) -> Op:
    """Return the operation that copies a mount tree of the host in the caller's namespaces, for BIND with PREPARED."""
    flags |= (ops.RECURSIVE if options.recursive else 0) | options.link_flags
    propagation = 0
    if options.propagation != SHARED or context.gains_capabilities:
        # mounts made in the container must not propagate to the host
        flags |= ops.RECURSIVE_PROPAGATION
        propagation = SLAVE
    numbers = (flags, propagation, options.set, options.clear, options.set_below, options.clear_below)
    return Op(ops.TREE, *numbers, source, where=where)


def new(context: Context, mount: dict[str, Any], options: MountOptions, where: str) -> tuple[list[Op], int]:
    """Return the operations before the MOUNT of a new file system, and the flag that makes MOUNT map it.

    Raises:
        RootlessError: `RL-IDMAP-MOUNT`, `RL-IDMAP-UNMAPPED`: the map cannot be expressed in ids of the container.
    """
    maps: Maps = mappings(mount)
    if maps[0] and "user" in context.joined:
        raise RootlessError(
            f"cannot map the ids of the mount on {mount['destination']}",
            cause="the container joins a user namespace, whose ids are unknown",
            where=where,
            fix="leave the mapping out: the file system is new, and belongs to the container",
            code="RL-IDMAP-MOUNT",
        )
    if not maps[0]:
        # the container's user namespace owns it: files are stored with ids of the container
        context.adapted(where, "the mount is not mapped: the file system is new and uses the container's ids")
        return [], 0
    above: Maps = (context.facts.uid_map, context.facts.gid_map)
    if context.maps:
        # the map's user namespace is a child of the container's, so its map ends in ids of the container
        own = _ids_of(context)
        maps = (
            _translated(maps[0], own[0], f"{where}.uidMappings"),
            _translated(maps[1], own[1], f"{where}.gidMappings"),
        )
        # the parent map is the container's map, seen from inside
        above = context.maps.uids, context.maps.gids
    return [_id_map(_cut(maps, *above), "", where, new=bool(context.maps))], _mapping_flag(options)


def _mapping_flag(options: MountOptions) -> int:
    return ops.MAPPED_BELOW if options.idmap_below else ops.MAPPED


def _cut(maps: Maps, uids: Sequence[IdMap], gids: Sequence[IdMap]) -> Maps:
    return split(maps[0], uids), split(maps[1], gids)


def _ids_of(context: Context) -> Maps:
    """Return the container's ID maps as config.json states them, even if rootless has chosen others."""
    uids, gids = mappings(context.linux)
    if uids and gids:
        return uids, gids
    assert context.maps
    return context.maps.uids, context.maps.gids


def _translated(lines: Sequence[IdMap], own: Sequence[IdMap], where: str) -> list[IdMap]:
    """Return map lines with the ids of the host translated to ids of the container by the map `own`."""
    found: list[IdMap] = []
    for stored, outside, count in lines:
        done = 0
        while done < count:
            start = outside + done
            piece = next(
                (
                    (inside + start - first, min(count - done, first + size - start))
                    for inside, first, size in own
                    if first <= start < first + size
                ),
                None,
            )
            if piece is None:
                raise RootlessError(
                    "cannot map the ids of a mount",
                    cause=f"the host's id {start} is not mapped into the container",
                    where=where,
                    fix="use host ids that linux.uidMappings and gidMappings give the container",
                    code="RL-IDMAP-UNMAPPED",
                )
            found.append((stored + done, *piece))
            done += piece[1]
    return found


def _id_map(maps: Maps, path: str, where: str, *, new: bool) -> Op:
    uids, gids = (_text(lines) for lines in maps)
    return Op(ops.ID_MAP, int(new), uids, gids, path, where=where)


def _text(lines: Sequence[IdMap]) -> str:
    return "".join([f"{inside} {outside} {count}\n" for inside, outside, count in lines])
