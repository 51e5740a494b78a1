"""Id-mapped mounts: config.md "Linux mount options" and "POSIX-platform Mounts"; mount_setattr(2).

A mount shows an owner by a map of its own: what is stored as `containerID` belongs to `hostID`. The kernel takes that
map from a user namespace made for it, and changes a mount only for who has CAP_SYS_ADMIN over the user namespace that
owns the file system. So a directory of the host is mapped by a caller with rights, before any namespace is entered; a
new file system is the container's own, and mapped there. Imported for a config.json with such a mount.
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
    """Lines for uids, lines for gids."""


_UNMAPPABLE = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts")
"""File systems of the kernel's own that it maps for nobody."""


def check(context: Context, mount: dict[str, Any], options: MountOptions, where: str) -> None:
    """Refuse what nobody can map."""
    cause = fix = ""
    place = where
    kind = mount.get("type") or ""
    custom = next((each for each in mount.get("options") or () if each.startswith(("idmap=", "ridmap="))), "")
    if custom:
        cause = f"{custom} is another runtime's own option"
        place, fix = f"{where}.options", "write idmap, and the mappings in uidMappings and gidMappings of the mount"
    elif bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
        cause, fix = "uidMappings and gidMappings belong together, and one is missing", "write both, or none"
    elif options.remount:
        cause, fix = "a mount that is there already cannot be mapped", "map it where it is made"
    elif not options.bind and kind in _UNMAPPABLE:
        cause, fix = f"the kernel maps no mount of type {kind}", "leave the mapping out"
    elif not (mount.get("uidMappings") or context.maps or "user" in context.joined):
        cause = "it has no mappings of its own, and the container has no user namespace to take them from"
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
    """Return the operations that make a mapped copy of a tree of the host; later a BIND with PREPARED attaches it.

    They are for a caller who may do it, in the caller's own namespaces.
    """
    if not context.facts.has(CAP_SYS_ADMIN):
        raise RootlessError(
            f"cannot map the ids of the mount on {mount['destination']}",
            cause="the kernel lets only root of the host map ids of the host's file systems",
            where=where,
            fix="leave out idmap, uidMappings and gidMappings (the container's root is you, and its other ids are your "
            "subordinate ids: `unshare --map-root-user --map-auto chown` gives them files), or let root run it",
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
    """Return the operation that copies a tree of the host, in the caller's own namespaces, for a BIND with PREPARED."""
    flags |= (ops.RECURSIVE if options.recursive else 0) | options.link_flags
    propagation = 0
    if options.propagation != SHARED or context.gains_capabilities:
        # what is mounted in the container must not reach the host
        flags |= ops.RECURSIVE_PROPAGATION
        propagation = SLAVE
    numbers = (flags, propagation, options.set, options.clear, options.set_below, options.clear_below)
    return Op(ops.TREE, *numbers, source, where=where)


def new(context: Context, mount: dict[str, Any], options: MountOptions, where: str) -> tuple[list[Op], int]:
    """Return what goes before the MOUNT of a new file system, and the flags that make it a mapped one."""
    maps: Maps = mappings(mount)
    if maps[0] and "user" in context.joined:
        raise RootlessError(
            f"cannot map the ids of the mount on {mount['destination']}",
            cause="the container joins a user namespace, whose own ids are not known here",
            where=where,
            fix="leave the mapping out: the file system is new, and belongs to the container",
            code="RL-IDMAP-MOUNT",
        )
    if not maps[0]:
        # It belongs to the container's user namespace: what is stored as an id of the container's is that id there.
        context.adapted(where, "the mount has no map: the file system is new, and has the ids of the container")
        return [], 0
    above: Maps = (context.facts.uid_map, context.facts.gid_map)
    if context.maps:
        # the namespace of the map is made in the container's, and its lines end in ids of that
        own = _ids_of(context)
        maps = (
            _translated(maps[0], own[0], f"{where}.uidMappings"),
            _translated(maps[1], own[1], f"{where}.gidMappings"),
        )
        # what is above is the container's own map, seen from inside
        above = context.maps.uids, context.maps.gids
    return [_id_map(_cut(maps, *above), "", where, new=bool(context.maps))], _mapping_flag(options)


def _mapping_flag(options: MountOptions) -> int:
    return ops.MAPPED_BELOW if options.idmap_below else ops.MAPPED


def _cut(maps: Maps, uids: Sequence[IdMap], gids: Sequence[IdMap]) -> Maps:
    return split(maps[0], uids), split(maps[1], gids)


def _ids_of(context: Context) -> Maps:
    """Return what the author of config.json took for the ids of the container, even where others are mapped."""
    uids, gids = mappings(context.linux)
    if uids and gids:
        return uids, gids
    assert context.maps
    return context.maps.uids, context.maps.gids


def _translated(lines: Sequence[IdMap], own: Sequence[IdMap], where: str) -> list[IdMap]:
    """Return map lines whose right side, ids of the host, is written in ids of the container."""
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
                    cause=f"{start} of the host is no id of the container",
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
