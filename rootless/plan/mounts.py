"""The root file system and the mounts in it: config.md "Root" and "Mounts", config-linux.md from "Default Filesystems" on.

What a user namespace may not mount is decided here, before anything runs: sysfs belongs to the network namespace, proc to
the pid namespace, mqueue to the ipc namespace, cgroup to the cgroup namespace. Where the container does not own that one,
the host's is bound instead.
"""

from __future__ import annotations

from os.path import normpath

from rootless.errors import RootlessError
from rootless.plan import ops
from rootless.plan.mount_options import ATIME, PRIVATE, PROPAGATIONS, READONLY, SHARED, SLAVE, MountOptions
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.plan.context import Context

_LONGEST_PARAMETER = 255
"""Of a value that fsconfig(2) takes."""

_OWNER = {"sysfs": ("network", "/sys"), "proc": ("pid", "/proc"), "mqueue": ("ipc", "/dev/mqueue")}
"""The namespace that a file system shows, and where the host has it mounted."""

_NO_LINKS_TO = ("/proc", "/sys", "/dev")
"""Targets that must be what they say: an image that makes one of them a link gets an error (CVE-2023-27561)."""


def root(context: Context) -> list[Op]:
    """Return the operations that make the rootfs a mount of its own."""
    wanted = context.linux.get("rootfsPropagation") or ""
    # a shared root is for mounts that reach the host: the host's peer groups are kept then
    shared = wanted.removeprefix("r") == "shared" and not context.in_user_namespace
    if wanted.removeprefix("r") == "shared" and not shared:
        context.unmet("linux.rootfsPropagation", "mounts made in a user namespace never reach the host")
    propagation = SHARED if shared else SLAVE
    return [
        Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, propagation, where="linux.rootfsPropagation" if wanted else ""),
        Op(ops.ROOT, context.bundle.rootfs, where="root.path"),
    ]


def mounts(context: Context) -> list[Op]:
    """Return the operations for `mounts` of config.json, in its order."""
    plan: list[Op] = []
    for index, mount in enumerate(context.config.get("mounts") or ()):
        plan += _mount(context, mount, f"mounts[{index}]")
    return plan


def protect(context: Context) -> list[Op]:
    """Return the operations that hide and protect paths, and make the root read-only."""
    linux = context.linux
    plan = [
        Op(ops.READONLY_PATH, _inside(path), where=f"linux.readonlyPaths[{index}]", on_error=ops.SKIP_ABSENT)
        for index, path in enumerate(linux.get("readonlyPaths") or ())
    ]
    plan += [
        Op(ops.MASK, _inside(path), where=f"linux.maskedPaths[{index}]", on_error=ops.SKIP_ABSENT)
        for index, path in enumerate(linux.get("maskedPaths") or ())
    ]
    cwd = context.process.get("cwd")
    if cwd and cwd != "/":
        plan.append(Op(ops.MKDIR, _inside(cwd), where="process.cwd"))
    if context.config["root"].get("readonly"):
        plan.append(Op(ops.ROOT_ATTRIBUTES, 0, 0, READONLY, 0, 0, 0, where="root.readonly"))
    return plan


def change_root(context: Context) -> list[Op]:
    """Return the operations that make the rootfs the root."""
    wanted = context.linux.get("rootfsPropagation") or ""
    plan = [Op(ops.CHROOT if context.options.no_pivot else ops.PIVOT)]
    propagation = PROPAGATIONS.get(wanted, 0) or PROPAGATIONS.get(wanted[1:], 0)
    # private is what the root is already, and slave of nothing is the same
    if propagation and propagation not in (PRIVATE, SLAVE):
        flags = 0 if wanted in PROPAGATIONS else ops.RECURSIVE_PROPAGATION
        plan.append(Op(ops.ROOT_ATTRIBUTES, flags, propagation, 0, 0, 0, 0, where="linux.rootfsPropagation"))
    return plan


def covers_dev(context: Context) -> bool:
    """Whether /dev of the container is a directory of the caller's: then its contents are the caller's business."""
    return any(
        _inside(mount["destination"]) == "/dev"
        and (MountOptions(mount.get("options") or ()).bind or mount.get("type") == "bind")
        for mount in context.config.get("mounts") or ()
    )


def _inside(path: str) -> str:
    """Return a path of the container as an absolute one; a relative destination counts from its root (config.md)."""
    return normpath("/" + path.lstrip("/"))


def _mount(context: Context, mount: dict[str, Any], where: str) -> list[Op]:
    target = _inside(mount["destination"])
    options = MountOptions(mount.get("options") or ())
    kind = mount.get("type") or ""
    if target == "/":
        raise RootlessError(
            "cannot mount on /",
            cause="the root is root.path",
            where=f"{where}.destination",
            fix="name a directory below /",
            code="RL-MOUNT-ROOT",
        )
    if options.idmap or mount.get("uidMappings") or mount.get("gidMappings"):
        raise RootlessError(
            f"cannot mount on {target}",
            cause="id-mapped mounts are not supported yet",
            where=where,
            fix="remove uidMappings, gidMappings and the idmap option of this mount",
            code="RL-NOT-YET",
        )
    if options.remount:
        return [Op(ops.REMOUNT, *_numbers(options), target, options.data, where=where)]
    if options.bind or kind == "bind":
        return _bind(context, _source(context, mount, where), target, options, where)
    if kind in ("cgroup", "cgroup2"):
        return _cgroup(context, target, options, where)
    if kind in _OWNER:
        return _kernel_state(context, kind, mount, target, options, where)
    if kind in ("", "none"):
        raise RootlessError(
            f"cannot mount on {target}",
            cause="it has neither a type nor the option bind",
            where=where,
            fix='write "type": "bind", or the name of a file system',
            code="RL-CONFIG",
        )
    data = options.data
    if kind == "devpts":
        data = _without_unmapped_group(context, data, where)
    return [_new(kind, mount.get("source") or kind, target, options, data, where)]


def _numbers(options: MountOptions, flags: int = 0) -> tuple[int, ...]:
    if options.recursive_propagation:
        flags |= ops.RECURSIVE_PROPAGATION
    return flags, options.propagation, options.set, options.clear, options.set_below, options.clear_below


def _new(kind: str, source: str, target: str, options: MountOptions, data: list[str], where: str) -> Op:
    flags = 0
    if target in _NO_LINKS_TO:
        flags |= ops.PLAIN_TARGET
    if kind == "tmpfs":
        if not any(option.startswith("mode=") for option in data):
            flags |= ops.KEEP_MODE
        if options.copy_up:
            flags |= ops.COPY_UP
    if any(len(option.partition("=")[2]) > _LONGEST_PARAMETER for option in data):
        flags |= ops.LEGACY
    return Op(ops.MOUNT, *_numbers(options, flags), kind, source, target, data, where=where)


def _bind(context: Context, source: str, target: str, options: MountOptions, where: str) -> list[Op]:
    flags = ops.RECURSIVE if options.recursive else 0
    if target in _NO_LINKS_TO:
        flags |= ops.PLAIN_TARGET
    first = Op(ops.BIND, *_numbers(options, flags), source, target, where=where)
    if not context.in_user_namespace or not (options.clear or options.clear_below or not options.recursive):
        return [first]
    # a user namespace may not take away what the host's mount has (nosuid, ro, …), nor show what a mount there covers
    # (mount_namespaces(7)): then without the one, and with all that is below
    second = Op(
        ops.BIND,
        flags | ops.RECURSIVE | first.numbers[0],
        options.propagation,
        options.set,
        ATIME if options.set & ATIME else 0,
        options.set_below,
        0,
        source,
        target,
        where=where,
    )
    if second.numbers == first.numbers:
        return [first]
    first.on_error, first.alternatives = ops.ELSE, 1
    return [first, second]


def _source(context: Context, mount: dict[str, Any], where: str) -> str:
    source: str = mount.get("source") or ""
    if not source:
        raise RootlessError(
            f"cannot bind on {mount['destination']}",
            cause="there is no source",
            where=where,
            fix='add "source" with a path of the host',
            code="RL-CONFIG",
        )
    return source if source.startswith("/") else normpath(f"{context.bundle.directory}/{source}")


def _kernel_state(
    context: Context, kind: str, mount: dict[str, Any], target: str, options: MountOptions, where: str
) -> list[Op]:
    namespace, host_path = _OWNER[kind]
    fresh = _new(kind, mount.get("source") or kind, target, options, options.data, where)
    bound = _host_bind(host_path, target, options, where)
    if not context.may_mount(namespace):
        context.adapted(
            where,
            f"{host_path} of the host is bound on {target}: the container shares the host's {namespace} namespace",
        )
        return [bound]
    if context.in_user_namespace:
        # an engine may have covered parts of its own /proc or /sys; the kernel then refuses a fresh one
        fresh.on_error, fresh.alternatives = ops.ELSE, 1
        return [fresh, bound]
    return [fresh]


def _host_bind(host_path: str, target: str, options: MountOptions, where: str) -> Op:
    numbers = (ops.RECURSIVE | ops.PLAIN_TARGET, options.propagation, 0, 0, options.set | options.set_below, 0)
    return Op(ops.BIND, *numbers, host_path, target, where=where)


def _cgroup(context: Context, target: str, options: MountOptions, where: str) -> list[Op]:
    """Mount cgroup v2; where the host has v1 or the cgroup namespace is shared, the host's tree is shown, read-only."""
    if context.facts.unified_cgroup and context.may_mount("cgroup"):
        fresh = _new("cgroup2", "cgroup", target, options, [], where)
        fresh.on_error, fresh.alternatives = ops.ELSE, 1
        return [fresh, _host_bind("/sys/fs/cgroup", target, options, where)]
    shown = MountOptions(("ro",))
    shown.set |= options.set
    reason = (
        "it is not pure cgroup v2" if not context.facts.unified_cgroup else "the container shares its cgroup namespace"
    )
    context.adapted(where, f"/sys/fs/cgroup of the host is bound read-only on {target}: {reason}")
    return [_host_bind("/sys/fs/cgroup", target, shown, where)]


def _without_unmapped_group(context: Context, data: list[str], where: str) -> list[str]:
    kept = []
    for option in data:
        name, _, value = option.partition("=")
        if name == "gid" and value.isdecimal() and not context.has_gid(int(value)):
            context.adapted(where, f"{option} is left out: the container has no such group id")
        else:
            kept.append(option)
    return kept
