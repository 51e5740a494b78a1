"""The root file system and the mounts in it: config.md "Root", "Mounts"; config-linux.md from "Default Filesystems" on.

What a user namespace may not mount is decided here, before anything runs: sysfs belongs to the network namespace, proc
to the pid namespace, mqueue to the ipc namespace, cgroup to the cgroup namespace. Where the container does not own that
one, the host's is bound instead; where nobody can know (it was joined, or the caller is in a user namespace already), a
new one is tried first.
"""

from __future__ import annotations

from os.path import normpath

from rootless.errors import RootlessError
from rootless.plan import ops
from rootless.plan.idmaps import id_number
from rootless.plan.mount_options import (
    ANY_ATIME,
    PRIVATE,
    PROPAGATIONS,
    READONLY,
    SHARED,
    SLAVE,
    MountOptions,
)
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
    bare = wanted if wanted in PROPAGATIONS else wanted[1:]
    propagation = SLAVE
    if bare in ("private", "unbindable"):
        propagation = PRIVATE
    elif bare == "shared" and not context.gains_capabilities:
        # it is for mounts that reach the host: the host's peer groups are kept
        propagation = SHARED
    return [
        Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, propagation, where="linux.rootfsPropagation" if wanted else ""),
        Op(ops.ROOT, SLAVE if bare == "slave" else PRIVATE, context.bundle.rootfs, where="root.path"),
    ]


def mounts(context: Context) -> list[Op]:
    """Return the operations for `mounts` of config.json, in its order."""
    plan: list[Op] = []
    for index, mount in enumerate(context.config.get("mounts") or ()):
        plan += _mount(context, _Mount(mount, f"mounts[{index}]"))
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
    if "mount" in context.joined:
        # pivot_root(2) moves the root of every process in the namespace, and this one has others in it
        plan = [Op(ops.CHROOT, 0)]
    else:
        plan = [Op(ops.CHROOT, 1) if context.options.no_pivot else Op(ops.PIVOT)]
    propagation = PROPAGATIONS.get(wanted, 0) or PROPAGATIONS.get(wanted[1:], 0)
    # private and slave are what the root is already
    if propagation and propagation not in (PRIVATE, SLAVE):
        flags = 0 if wanted in PROPAGATIONS else ops.RECURSIVE_PROPAGATION
        plan.append(Op(ops.ROOT_ATTRIBUTES, flags, propagation, 0, 0, 0, 0, where="linux.rootfsPropagation"))
    return plan


def covers_dev(context: Context) -> bool:
    """Whether /dev of the container is a directory of the caller's: then its contents are the caller's business."""
    wanted = (_Mount(mount, "") for mount in context.config.get("mounts") or ())
    return any(mount.target == "/dev" and mount.is_bind for mount in wanted)


def _inside(path: str) -> str:
    """Return a path of the container as an absolute one; a relative destination counts from its root (config.md)."""
    return normpath("/" + path.lstrip("/"))


class _Mount:
    """One element of `mounts`: `type`, `source` as written, `target` in the container, `options`, its place `where`."""

    __slots__ = ("has_id_maps", "options", "source", "target", "type", "where")

    def __init__(self, mount: dict[str, Any], where: str) -> None:
        self.type: str = mount.get("type") or ""
        self.source: str = mount.get("source") or ""
        self.target = _inside(mount["destination"])
        self.options = MountOptions(mount.get("options") or ())
        self.has_id_maps = bool(self.options.idmap or mount.get("uidMappings") or mount.get("gidMappings"))
        self.where = where

    @property
    def is_bind(self) -> bool:
        """Whether it shows a directory or a file that is there already."""
        return self.options.bind or self.type == "bind"


def _mount(context: Context, mount: _Mount) -> list[Op]:
    _refuse(mount)
    if mount.options.remount:
        return [Op(ops.REMOUNT, *_numbers(mount.options), mount.target, mount.options.data, where=mount.where)]
    if mount.is_bind:
        return _bind(context, mount)
    if mount.type in ("cgroup", "cgroup2"):
        return _cgroup(context, mount)
    if mount.type in _OWNER:
        return _kernel_state(context, mount)
    if mount.type == "devpts":
        _drop_unmapped_group(context, mount)
    return [_new(mount, mount.type)]


def _refuse(mount: _Mount) -> None:
    """Refuse what cannot be mounted."""
    if mount.target == "/":
        raise RootlessError(
            "cannot mount on /",
            cause="the root is root.path",
            where=f"{mount.where}.destination",
            fix="name a directory below /",
            code="RL-MOUNT-ROOT",
        )
    cause = fix = ""
    code = "RL-CONFIG"
    if mount.has_id_maps:
        code = "RL-NOT-YET"
        cause = "id-mapped mounts are not supported yet"
        fix = "remove uidMappings, gidMappings and the idmap option of this mount"
    elif mount.is_bind and not mount.options.remount and not mount.source:
        cause = "there is no source"
        fix = 'add "source" with a path of the host'
    elif not (mount.is_bind or mount.options.remount) and mount.type in ("", "none"):
        cause = "it has neither a type nor the option bind"
        fix = 'write "type": "bind", or the name of a file system'
    if cause:
        raise RootlessError(f"cannot mount on {mount.target}", cause=cause, where=mount.where, fix=fix, code=code)


def _numbers(options: MountOptions, flags: int = 0) -> tuple[int, ...]:
    if options.recursive_propagation:
        flags |= ops.RECURSIVE_PROPAGATION
    return flags, options.propagation, options.set, options.clear, options.set_below, options.clear_below


def _new(mount: _Mount, kind: str) -> Op:
    """Return the operation that mounts a file system of type `kind`."""
    data = mount.options.data
    flags = 0
    if mount.target in _NO_LINKS_TO:
        flags |= ops.PLAIN_TARGET
    if kind == "tmpfs":
        if not any(option.startswith("mode=") for option in data):
            flags |= ops.KEEP_MODE
        if mount.options.copy_up:
            flags |= ops.COPY_UP
    if any(len(option.partition("=")[2].encode()) > _LONGEST_PARAMETER for option in data):
        flags |= ops.LEGACY
    numbers = _numbers(mount.options, flags)
    return Op(ops.MOUNT, *numbers, kind, mount.source or kind, mount.target, data, where=mount.where)


def _bind(context: Context, mount: _Mount) -> list[Op]:
    options = mount.options
    source = mount.source
    if not source.startswith("/"):
        source = normpath(f"{context.bundle.directory}/{source}")
    if options.data:
        context.unmet(mount.where, f"left out: a bind has no options of a file system ({','.join(options.data)})")
    if options.propagation == SHARED and context.gains_capabilities:
        context.unmet(mount.where, "mounts made there do not reach the host: they are made in another user namespace")
    flags = ops.RECURSIVE if options.recursive else 0
    if mount.target in _NO_LINKS_TO:
        flags |= ops.PLAIN_TARGET
    first = Op(ops.BIND, *_numbers(options, flags), source, mount.target, where=mount.where)
    if not context.in_user_namespace:
        return [first]
    # A user namespace may not take away what the host's mount has (nosuid, ro, …), nor change how access times are
    # kept, nor show what a mount there covers (mount_namespaces(7)): then without the one, and with all that is below.
    flags, propagation, *_ = first.numbers
    kept, kept_below = options.set & ~ANY_ATIME, options.set_below & ~ANY_ATIME
    second = Op(
        ops.BIND,
        *(flags | ops.RECURSIVE, propagation, kept, 0, kept_below, 0),
        source,
        mount.target,
        where=mount.where,
    )
    if second.numbers == first.numbers:
        return [first]
    first.on_error, first.alternatives = ops.ELSE, 1
    return [first, second]


def _kernel_state(context: Context, mount: _Mount) -> list[Op]:
    """Mount what shows a namespace, such as sysfs, or bind the host's."""
    namespace, host_path = _OWNER[mount.type]
    fresh = _new(mount, mount.type)
    bound = _host_bind(host_path, mount, mount.options.set | mount.options.set_below)
    if mount.type == "mqueue":
        bound.on_error = ops.ELSE  # not every host has it mounted
    if not context.may_mount(namespace):
        context.adapted(
            mount.where,
            f"{host_path} of the host is bound on {mount.target}: "
            f"the container shares the host's {namespace} namespace",
        )
        return [bound]
    if context.in_user_namespace:
        # an engine may have covered parts of its own /proc or /sys; the kernel then refuses a fresh one
        fresh.on_error, fresh.alternatives = ops.ELSE, 1
        return [fresh, bound]
    return [fresh]


def _host_bind(host_path: str, mount: _Mount, attributes: int) -> Op:
    """Return the operation that binds a whole tree of the host, with the attributes on every mount in it."""
    flags = ops.RECURSIVE | ops.PLAIN_TARGET
    if mount.options.recursive_propagation:
        flags |= ops.RECURSIVE_PROPAGATION
    # how access times are kept is the host's matter, and means nothing for these file systems
    numbers = (flags, mount.options.propagation, 0, 0, attributes & ~ANY_ATIME, 0)
    return Op(ops.BIND, *numbers, host_path, mount.target, where=mount.where)


def _cgroup(context: Context, mount: _Mount) -> list[Op]:
    """Mount cgroup v2; where the host has v1 or the cgroup namespace is shared, the host's tree is shown, read-only."""
    if context.facts.unified_cgroup and context.may_mount("cgroup"):
        mount.options.data.clear()  # options of v1, such as the controllers' names
        fresh = _new(mount, "cgroup2")
        fresh.on_error, fresh.alternatives = ops.ELSE, 1
        return [fresh, _host_bind("/sys/fs/cgroup", mount, mount.options.set)]
    reason = (
        "it is not pure cgroup v2" if not context.facts.unified_cgroup else "the container shares its cgroup namespace"
    )
    context.adapted(mount.where, f"/sys/fs/cgroup of the host is bound read-only on {mount.target}: {reason}")
    return [_host_bind("/sys/fs/cgroup", mount, mount.options.set | READONLY)]


def _drop_unmapped_group(context: Context, mount: _Mount) -> None:
    kept = []
    for option in mount.options.data:
        name, _, value = option.partition("=")
        gid = id_number(value) if name == "gid" else -1
        if gid >= 0 and not context.has_gid(gid):
            context.adapted(mount.where, f"{option} is left out: the container has no such group id")
        else:
            kept.append(option)
    mount.options.data = kept
