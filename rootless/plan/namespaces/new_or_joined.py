"""Namespaces: config-linux.md "Namespaces", namespaces(7).

A bundle for root has no user namespace. For an unprivileged caller the planner adds one, and the rest follows.
"""

from __future__ import annotations

from _struct import Struct

from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.linux import CLONE_FLAGS, NAMESPACE_FILES
from rootless.plan import ops
from rootless.plan.idmaps import has, id_maps, inside
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.plan.context import Context
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.namespaces.group import joined_by_all, share, share_processes
    from rootless.plan.network.mode import choose as choose_network
    from rootless.plan.network.mode import settle as settle_network
    from rootless.plan.rootfs.image import connect as connect_image
else:
    joined_by_all = lazy("rootless.plan.namespaces.group", "joined_by_all")
    share = lazy("rootless.plan.namespaces.group", "share")
    share_processes = lazy("rootless.plan.namespaces.group", "share_processes")
    choose_network = lazy("rootless.plan.network.mode", "choose")
    settle_network = lazy("rootless.plan.network.mode", "settle")
    connect_image = lazy("rootless.plan.rootfs.image", "connect")

_TIME_OFFSETS = "self/timens_offsets"
_LATER = ("mount", "cgroup")
"""Joined by the container process, after its paths are resolved and its cgroup is set."""

_IDENTIFYING = ("mount", "uts", "ipc", "network")
"""Namespaces that show which container a process belongs to."""

_INSTRUCTION = Struct("=HBBI")
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 122
"""SECCOMP_RET_ERRNO with EDQUOT."""
_X32 = 0x40000000
_ARCHITECTURES = {
    # machine: its architectures as seccomp(2) knows them: AUDIT_ARCH_…, the numbers of add_key(2) and socket(2) on it,
    # and that of socketcall(2), which is another one of them where it does not exist
    "x86_64": ((0xC000003E, 248, 41, 41), (0x40000003, 286, 359, 102)),
    "aarch64": ((0xC00000B7, 217, 198, 198), (0x40000028, 309, 281, 102)),
    "riscv64": ((0xC00000F3, 217, 198, 198),),
    "ppc64le": ((0xC0000015, 269, 326, 102),),
    "s390x": ((0x80000016, 278, 359, 102), (0x00000016, 278, 359, 102)),
}
_IO_URING_SETUP = 425
"""io_uring_setup(2), on every architecture: it makes sockets as well."""


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
    if "user" in context.created:
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
    """Return the operations that create a user namespace; two programs of the host write its ID maps side by side."""
    return [Op(ops.NEW_USER, where=where), Op(ops.BEGIN_ID_MAPS, maps, where=where), Op(ops.AWAIT_ID_MAPS)]


def setup_inside(context: Context) -> list[Op]:
    """Return the first operations of the container process: further namespaces, keyring and host name."""
    config = context.config
    plan = [*become(context), Op(ops.SESSION)]
    plan += [_join(context, kind) for kind in _LATER if kind in context.joined]
    if "cgroup" in context.created:
        plan += context.in_own_cgroup
        plan.append(Op(ops.UNSHARE, CLONE_FLAGS["cgroup"], where=context.places["cgroup"]))
    plan += keyring(context)
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


def keyring(context: Context) -> list[Op]:
    """Return the operations for a session keyring, which `exec` joins by its name.

    The container never keeps the caller's keyring with its keys, such as Kerberos tickets. If the user's quota of 200
    keys is used up, which one container can do, the system calls for keys fail instead.
    """
    request = context.request
    if request.no_new_keyring:
        return []
    # a new user namespace has no other keyring; elsewhere another container may have created one of this name, unless
    # the name is secret
    name = "" if "user" in context.created and "user" not in context.shared else request.keyring
    return [
        Op(ops.KEYRING, name or f"_ses.{request.container}", on_error=ops.ELSE, alternatives=2),
        # the kernel lets a process without a session keyring exceed its quota for this one
        Op(ops.UNNAMED_KEYRING, on_error=ops.ELSE, alternatives=1),
        Op(ops.NO_KEYS, without_keys(context.facts.machine)),
    ]


def without_keys(machine: str) -> bytes:
    """Return a seccomp filter that makes the system calls for keys fail, as if the quota were used up."""
    # add_key, request_key and keyctl come one after the other
    return _refusing([(each, (key, key + 1, key + 2)) for each, key, _, _ in _ARCHITECTURES.get(machine, ())])


def without_sockets(machine: str) -> bytes:
    """Return a seccomp filter that makes the system calls fail that make a socket."""
    architectures = _ARCHITECTURES.get(machine, ())
    return _refusing([(each, (socket, call, _IO_URING_SETUP)) for each, _, socket, call in architectures])


def _refusing(refused: Sequence[tuple[int, Sequence[int]]]) -> bytes:
    """Return a seccomp filter that makes some system calls fail on each architecture, and all of other ones."""
    if not refused:
        return b""  # the kernel refuses an empty filter
    program = [(0x20, 0, 0, 4)]  # load the architecture
    for architecture, numbers in refused:
        last = len(numbers)
        program += [
            (0x15, 0, last + 4, architecture),  # is it this one?
            (0x20, 0, 0, 0),  # load the number
            (0x54, 0, 0, ~_X32 & 0xFFFFFFFF),
            *[(0x15, last - index, 0, number) for index, number in enumerate(numbers)],
            (0x06, 0, 0, _ALLOW),
            (0x06, 0, 0, _REFUSE),
        ]
    program.append((0x06, 0, 0, _REFUSE))
    return b"".join([_INSTRUCTION.pack(*each) for each in program])


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
