"""Namespaces: config-linux.md "Namespaces", namespaces(7).

A bundle for root has no user namespace. For an unprivileged caller the planner adds one, and the rest follows.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.linux import CLONE_FLAGS, NAMESPACE_FILES
from rootless.plan import ops
from rootless.plan.idmaps import has, id_maps, inside
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.plan.context import Context
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.namespaces.group import joined_by_all, share, share_processes
    from rootless.plan.namespaces.systemd_ids import choose as choose_systemd
    from rootless.plan.network.mode import choose as choose_network
    from rootless.plan.network.mode import settle as settle_network
    from rootless.plan.rootfs.image import connect as connect_image
else:
    joined_by_all = lazy("rootless.plan.namespaces.group", "joined_by_all")
    share = lazy("rootless.plan.namespaces.group", "share")
    share_processes = lazy("rootless.plan.namespaces.group", "share_processes")
    choose_systemd = lazy("rootless.plan.namespaces.systemd_ids", "choose")
    choose_network = lazy("rootless.plan.network.mode", "choose")
    settle_network = lazy("rootless.plan.network.mode", "settle")
    connect_image = lazy("rootless.plan.rootfs.image", "connect")

_TIME_OFFSETS = "self/timens_offsets"
_LATER = ("mount", "cgroup")
"""Joined by the container process, after its paths are resolved and its cgroup is set."""

_IDENTIFYING = ("mount", "uts", "ipc", "network")
"""Namespaces that show which container a process belongs to."""


def decide(context: Context) -> None:
    """Read the namespaces of config.json, add those that an ordinary user needs, and choose the ID maps."""
    linux, facts, mode = context.linux, context.facts, context.request.userns
    _read(context)
    if context.request.network:
        choose_network(context)
    if "user" not in context.joined and (mode or not facts.privileged) and "user" not in context.created:
        context.created.add("user")
        reason = f"--userns {mode}" if mode else "you are not root"
        context.adapted("linux.namespaces", f"a user namespace is added: {reason}")
    if context.shares_mounts and (context.gains_capabilities or not facts.privileged):
        context.created.add("mount")
        context.warn_ignored(
            "linux.namespaces", "a mount namespace is added: only root of the host may mount in the caller's"
        )
    if "user" in context.created and mode == "systemd":
        choose_systemd(context)
    elif "user" in context.created:
        context.maps, adapted, shortcoming = id_maps(linux, context.process, facts, mode, context.request.kept_ids)
        if adapted:
            context.adapted("linux.uidMappings", adapted)
        if shortcoming:
            context.warn_ignored("", shortcoming)
    if context.request.join:
        share(context)
    if context.network:
        settle_network(context, context.network)


def _read(context: Context) -> None:
    """Read the namespaces of config.json."""
    for index, namespace in enumerate(context.linux.get("namespaces") or ()):
        kind = namespace["type"]
        context.places[kind] = f"linux.namespaces[{index}]"
        if namespace.get("path"):
            context.joined[kind] = namespace["path"]
        else:
            context.created.add(kind)
    if context.request.join:
        share_processes(context)


def enter(context: Context) -> list[Op]:
    """Return the operations of the first stage, from the host's namespaces to the fork."""
    joins: dict[str, Op] = {
        kind: _join(context, kind)
        for kind in ("user", "ipc", "uts", "network", "pid", "time")
        if kind in context.joined
    }
    if context.shared:
        joins |= joined_by_all(context)
    own = new_user(context.maps, context.places.get("user", "")) if context.maps and "user" not in joins else []
    # joining a namespace needs rights over its owning user namespace: the caller's rights, if any, or those that a
    # joined user namespace gives
    user = joins.pop("user", None)
    others = list(joins.values())
    early = [
        Op(ops.JOIN_EARLY, *op.numbers, *op.strings, f"self/ns/{NAMESPACE_FILES[kind]}", where=op.where)
        for kind, op in joins.items()
    ]
    if user:
        plan = [*_hide(context), *early, user, *others]
    elif context.facts.privileged:
        plan = [*_hide(context), *others, *own]
    else:
        # it joins nothing early, it only compares namespaces: it can hide after its maps are written
        plan = [*early, *own, *_hide(context), *others]

    image = connect_image(context) if context.bundle.is_image else []
    if image and image[0].kind is ops.ID_MAP:  # its process would be the first of the pid namespace
        plan += image
        image = []
    new = context.created.difference(context.shared)
    created = sum(CLONE_FLAGS[kind] for kind in new if kind not in ("user", "cgroup"))
    if created:
        plan.append(Op(ops.UNSHARE, created, where="linux.namespaces"))
    files = [NAMESPACE_FILES[kind] for kind in _IDENTIFYING if kind in new]
    if files and "pid" not in context.created:  # with one, the kernel knows which processes are the container's
        plan.append(Op(ops.IDENTIFY, files, on_error=ops.SKIP_ABSENT))
    plan += _time_offsets(context)
    if context.network and context.network.is_served:
        plan.append(Op(ops.PASS_NAMESPACES, where=context.places["network"]))
    plan += image
    plan.append(Op(ops.FORK))
    return plan


def new_user(maps: IdMaps, where: str = "") -> list[Op]:
    """Return the operations that create a user namespace.

    Two programs of the host write its ID maps side by side, or systemd writes them.
    """
    if maps.service:
        return [Op(ops.NEW_USER, where=where), Op(ops.ALLOCATE_IDS, maps, where=where)]
    return [Op(ops.NEW_USER, where=where), Op(ops.BEGIN_ID_MAPS, maps, where=where), Op(ops.AWAIT_ID_MAPS)]


def setup_inside(context: Context) -> list[Op]:
    """Return the first operations of the container process: its IDs, session and further namespaces."""
    plan = [*become(context), Op(ops.SESSION)]
    plan += [_join(context, kind) for kind in _LATER if kind in context.joined]
    if "cgroup" in context.created:
        plan += context.in_own_cgroup
        plan.append(Op(ops.UNSHARE, CLONE_FLAGS["cgroup"], where=context.places["cgroup"]))
    return plan


def host_names(context: Context) -> list[Op]:
    """Return the operations for the host name, the domain name and the loopback."""
    config = context.config
    plan: list[Op] = []
    for key, kind in (("hostname", ops.HOSTNAME), ("domainname", ops.DOMAINNAME)):
        if config.get(key):
            if "uts" not in context.created and "uts" not in context.joined:
                raise RootlessError(
                    f"cannot set the {key}",
                    cause="the container shares the host's uts namespace",
                    where=key,
                    fix=f'add {{"type": "uts"}} to linux.namespaces, or remove {key}',
                    code="RL-UTS-SHARED",
                )
            plan.append(Op(kind, config[key], where=key))
    if "network" in context.created:
        plan.append(Op(ops.LINK_UP, "lo", where=context.places["network"]))
    return plan


def _hide(context: Context) -> list[Op]:
    """Return the operations that hide this process before it joins a namespace (CVE-2016-9962)."""
    if not (context.joined or context.shared):
        return []
    first = next((context.places[kind] for kind in context.joined), "")
    opened = [Op(ops.PROC_OPEN, _TIME_OFFSETS, where="linux.timeOffsets")] if _offsets(context) else []
    return [*opened, Op(ops.NON_DUMPABLE, where=first)]


def _join(context: Context, kind: str) -> Op:
    return Op(ops.JOIN, CLONE_FLAGS[kind], context.joined[kind], where=f"{context.places[kind]}.path")


def become(context: Context) -> list[Op]:
    """Return the operations that become root of the user namespace, or its first ID."""
    if context.maps or (context.running and "user" in context.joined):
        uids, gids = context.uid_map, context.gid_map
        uid = 0 if has(uids, 0) else uids[0][0]
        gid = 0 if has(gids, 0) else gids[0][0]
        plan = [Op(ops.BECOME, uid, gid)]
        # root of the container cannot enter the caller's directories whose group is not mapped (keep-id)
        own_uid, own_gid = inside(uids, context.facts.uid), inside(gids, context.facts.gid)
        if own_uid not in (-1, uid) and own_gid >= 0:
            plan.append(Op(ops.FILES_AS, own_uid, own_gid))
        return plan
    # its IDs are unknown; without a root the caller sets everything up
    return [Op(ops.BECOME, 0, 0, on_error=ops.ELSE)] if "user" in context.joined else []


def _time_offsets(context: Context) -> list[Op]:
    offsets = _offsets(context)
    if not offsets:
        return []
    if "time" not in context.created:
        raise RootlessError(
            "cannot set the clocks' offsets",
            cause="only a new time namespace has offsets, and the container has none",
            where="linux.timeOffsets",
            fix='add {"type": "time"} to linux.namespaces, or remove timeOffsets',
            code="RL-TIME-SHARED",
        )
    lines = [f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n" for clock, offset in offsets.items()]
    return [Op(ops.PROC_WRITE, _TIME_OFFSETS, "".join(lines), where="linux.timeOffsets")]


def _offsets(context: Context) -> dict[str, Any]:
    return context.linux.get("timeOffsets") or {}
