"""The root file system and its mounts: config.md "Root", "Mounts"; config-linux.md from "Default Filesystems" on.

The kernel lets a user namespace mount sysfs only if it owns the network namespace, and likewise proc with the pid
namespace, mqueue with the ipc namespace and cgroup with the cgroup namespace. If the container does not own the
namespace, the host's file system is bind-mounted instead. If ownership is unknown (the namespace is joined, or the
caller is in a user namespace already), the Plan tries a new mount first.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.linux import READONLY
from rootless.paths import normal
from rootless.plan import ops
from rootless.plan.idmaps import id_number
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import (
    ANY_ATIME,
    PRIVATE,
    PROPAGATIONS,
    RESTRICTIONS,
    SHARED,
    SLAVE,
    MountOptions,
    words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rootless.plan.context import Context
    from rootless.plan.rootfs.image import overlay, refuse
    from rootless.procfs import IdMap
else:
    overlay = lazy("rootless.plan.rootfs.image", "overlay")
    refuse = lazy("rootless.plan.rootfs.image", "refuse")

_LONGEST_PARAMETER = 255
"""Bytes of a value that fsconfig(2) accepts."""

_OWNER = {"sysfs": ("network", "/sys"), "proc": ("pid", "/proc"), "mqueue": ("ipc", "/dev/mqueue")}
"""By file system: the namespace that it shows, and its mount point on the host."""

_CGROUP2_OPTIONS = (
    *("nsdelegate", "favordynmods", "nofavordynmods", "memory_localevents", "memory_recursiveprot"),
    *("memory_hugetlb_accounting", "pids_localevents"),
)
"""Mount options of cgroup v2 (cgroup-v2.rst, "Mounting"). Those of v1 name controllers and hierarchies."""

_NO_LINKS_TO = ("/proc", "/sys", "/dev")
"""Targets that must not be symlinks: an image in which one of them is a symlink gets an error (CVE-2023-27561)."""


def root(context: Context) -> list[Op]:
    """Return the operations that make the rootfs a mount, with the propagation that rootfsPropagation needs."""
    wanted = context.linux.get("rootfsPropagation") or ""
    bare = wanted if wanted in PROPAGATIONS else wanted[1:]
    propagation = SLAVE
    if bare in ("private", "unbindable"):
        propagation = PRIVATE
    elif bare == "shared" and not context.gains_capabilities:
        # mounts must propagate to the host: the host's peer groups are kept
        propagation = SHARED
    own = SLAVE if bare == "slave" else PRIVATE
    exact_modes = Op(ops.UMASK, 0)  # for files created in the image; the program's umask is set later
    is_image, covered = context.bundle.is_image, context.bundle.is_image or context.request.overlay
    if covered:
        refuse(context)
    if context.shares_mounts:
        # no mount of the host changes; mounts in the rootfs must not propagate to the directory that it covers
        return [
            exact_modes,
            Op(ops.ROOT, 0, context.bundle.rootfs, where="root.path"),
            Op(ops.ROOT_ATTRIBUTES, ops.RECURSIVE_PROPAGATION, own, 0, 0, 0, 0, where="root.path"),
        ]
    return [
        Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, propagation, where="linux.rootfsPropagation" if wanted else ""),
        exact_modes,
        *([Op(ops.AWAIT_IMAGE)] if is_image else ()),
        Op(ops.ROOT, own, context.bundle.rootfs, where="root.path"),
        *(overlay(context) if covered else ()),
    ]


def mounts(context: Context) -> list[Op]:
    """Return the operations for `mounts` of config.json, in that order, and for resolv.conf and hosts."""
    plan: list[Op] = []
    label = _label(context)
    listed = context.config.get("mounts") or ()
    for index, written in enumerate(listed):
        mount = _Mount(written, f"mounts[{index}]")
        if label:
            label(mount)
        if mount.options.set & READONLY and mount.type == "tmpfs" and not (mount.is_bind or mount.options.remount):
            _seal_later(context, mount, listed[index + 1 :])
        plan += _mount(context, mount)
    return plan + _network_files(context)


def _network_files(context: Context) -> list[Op]:
    """Return the operations that mount resolv.conf and hosts; it is no error if the image has no place for them."""
    if not context.network:
        return []
    from rootless.plan.network.mode import file_mounts

    plan = []
    for written in file_mounts(context):
        bound = _mount(context, _Mount(written, ""))
        bound[-1].on_error, bound[-1].alternatives = ops.ELSE, 0
        plan += bound
    return plan


def _seal_later(context: Context, mount: _Mount, others: Sequence[dict[str, Any]]) -> None:
    """Keep a read-only tmpfs writable until devices and the mount points of later mounts are in it."""
    inside = mount.target + "/"
    if mount.target == "/dev" or any(_inside(other["destination"]).startswith(inside) for other in others):
        mount.options.set &= ~READONLY
        context.sealing.append(Op(ops.REMOUNT, 0, 0, READONLY, 0, 0, 0, mount.target, [], where=mount.where))


def _label(context: Context) -> Callable[[_Mount], None] | None:
    """Return a function that adds linux.mountLabel to a mount; None without a label."""
    if not context.linux.get("mountLabel"):
        return None
    from rootless.plan.process import labels

    option = labels.mount_context(context)

    def add(mount: _Mount) -> None:
        if not mount.is_bind and not mount.options.remount:
            data = mount.options.data
            labels.add_context(option, mount.type, data, legacy=_needs_legacy(data))

    return add


def protect(context: Context) -> list[Op]:
    """Return the operations for readonlyPaths, maskedPaths, process.cwd and root.readonly."""
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
    plan += context.sealing
    if context.config["root"].get("readonly"):
        plan.append(Op(ops.ROOT_ATTRIBUTES, 0, 0, READONLY, 0, 0, 0, where="root.readonly"))
    return plan


def change_root(context: Context) -> list[Op]:
    """Return the operations that make the rootfs the root directory."""
    wanted = context.linux.get("rootfsPropagation") or ""
    if "mount" not in context.created:
        # pivot_root(2) would change the root of the other processes in this mount namespace
        plan = [Op(ops.CHROOT, 0)]
    else:
        plan = [*_hide_old_root(context), Op(ops.CHROOT, 1)] if context.request.no_pivot else [Op(ops.PIVOT)]
    propagation = PROPAGATIONS.get(wanted, 0) or PROPAGATIONS.get(wanted[1:], 0)
    # the root is private or slave already
    if propagation and propagation not in (PRIVATE, SLAVE):
        flags = 0 if wanted in PROPAGATIONS else ops.RECURSIVE_PROPAGATION
        plan.append(Op(ops.ROOT_ATTRIBUTES, flags, propagation, 0, 0, 0, 0, where="linux.rootfsPropagation"))
    return plan


def _hide_old_root(context: Context) -> list[Op]:
    """Return the operations that cover the host's proc and sysfs below a root that chroot(2) enters.

    As long as a whole one is mounted in the namespace, the kernel lets a user namespace in the container mount one with
    nothing masked (mount_too_revealing(), CVE-2019-19921's family).
    """
    points = context.facts.state_mounts(context.bundle.rootfs)
    return [Op(ops.HIDE_MOUNT, point, on_error=ops.SKIP_ABSENT) for point in points]


def take_along(context: Context, plan: list[Op]) -> None:
    """Insert the copies of the host's mounts into the Plan, at a point where the caller's access to files applies.

    Root copies them in its own mount namespace. An ordinary user may not, and copies them in the container's mount
    namespace, before the process changes to the container's ids.
    """
    kinds = [op.kind for op in plan]
    place = kinds.index(ops.SPAWN) + 1 if context.facts.privileged else kinds.index(ops.FORK)
    plan[place:place] = context.sources


def covers_dev(context: Context) -> bool:
    """Whether config.json bind-mounts /dev: then rootless adds no devices to it."""
    wanted = (_Mount(mount, "") for mount in context.config.get("mounts") or ())
    return any(mount.target == "/dev" and mount.is_bind for mount in wanted)


def _inside(path: str) -> str:
    """Return a normalized absolute path in the container; a relative path is relative to / (config.md)."""
    return normal("/" + path.lstrip("/"))


class _Mount:
    """An element of `mounts`: `type`, `source` as written, `target` in the container, `options`, its place `where`."""

    __slots__ = ("options", "source", "target", "type", "where", "written")

    def __init__(self, mount: dict[str, Any], where: str) -> None:
        self.type: str = mount.get("type") or ""
        self.source: str = mount.get("source") or ""
        self.target = _inside(mount["destination"])
        self.options = MountOptions(mount.get("options") or ())
        self.written = mount
        self.where = where

    @property
    def has_id_maps(self) -> bool:
        """Whether it is an ID-mapped mount."""
        return bool(self.options.idmap or self.written.get("uidMappings") or self.written.get("gidMappings"))

    @property
    def is_bind(self) -> bool:
        """Whether it is a bind mount."""
        return self.options.bind or self.type == "bind"


def _mount(context: Context, mount: _Mount) -> list[Op]:
    _refuse(mount)
    if mount.has_id_maps:
        return _mapped(context, mount)
    if mount.options.remount:
        return [Op(ops.REMOUNT, *_numbers(mount.options), mount.target, mount.options.data, where=mount.where)]
    if mount.is_bind:
        if context.maps and context.maps.service:
            mount.options.make_readonly()  # no file of the host may belong to IDs that others get later
        bound = _bind(context, mount)
        return _taken_along(context, mount, bound) if _out_of_reach(context, str(bound[0].string("source"))) else bound
    if mount.type in ("cgroup", "cgroup2"):
        return _cgroup(context, mount)
    if mount.type in _OWNER:
        return _kernel_state(context, mount)
    if mount.type == "devpts":
        _drop_unmapped_group(context, mount)
    return [_new(mount, mount.type)]


def _refuse(mount: _Mount) -> None:
    """Refuse an invalid mount."""
    if mount.target == "/":
        raise RootlessError(
            "cannot mount on /",
            cause="root.path is mounted there",
            where=f"{mount.where}.destination",
            fix="name a path below /",
            code="RL-MOUNT-ROOT",
        )
    cause = fix = ""
    if mount.is_bind and not mount.options.remount and not mount.source:
        cause = "a bind mount needs a source"
        fix = 'add "source" with a path of the host'
    elif not (mount.is_bind or mount.options.remount) and mount.type in ("", "none"):
        cause = "it has neither a type nor the option bind"
        fix = 'set "type" to "bind" or to the name of a file system'
    if cause:
        raise RootlessError(
            f"cannot mount on {mount.target}", cause=cause, where=mount.where, fix=fix, code="RL-CONFIG"
        )


def _mapped(context: Context, mount: _Mount) -> list[Op]:
    """Return the operations for an ID-mapped mount."""
    from rootless.plan.rootfs import idmapped

    options = mount.options
    idmapped.check(context, mount.written, options, mount.where)
    if not mount.is_bind:
        before, flags = idmapped.new(context, mount.written, options, mount.where)
        made = _new(mount, mount.type)
        return [*before, made.with_numbers(flags=made.number("flags") | flags)]
    made = _prepared(context, _bind(context, mount)[0])
    context.sources += idmapped.bind(context, mount.written, options, str(made.string("source")), mount.where)
    return [made]


def _out_of_reach(context: Context, source: str) -> bool:
    """Whether the container's root may be unable to access a source that the caller can access.

    A joined user namespace may have any ids, one that root creates may have fewer than the caller's, and one with IDs
    of systemd has none of the caller's. A source in the rootfs does not count: it is looked up in the container,
    because it may come from an earlier mount.
    """
    if "mount" not in context.created or source.startswith(context.bundle.rootfs.rstrip("/") + "/"):
        return False
    maps, facts = context.maps, context.facts
    if "user" in context.joined or (maps and maps.service):
        return True
    if not maps or not facts.privileged:
        return False
    return _count(maps.uids) < _count(facts.uid_map) or _count(maps.gids) < _count(facts.gid_map)


def _count(lines: Sequence[IdMap]) -> int:
    """Return the number of ids in a map."""
    return sum(count for _, _, count in lines)


def _taken_along(context: Context, mount: _Mount, bound: list[Op]) -> list[Op]:
    """Replace the operations of _bind() by copies that the caller makes (context.sources) and a BIND of the copy."""
    from rootless.plan.rootfs import idmapped

    source = str(bound[0].string("source"))
    prepared = _prepared(context, bound[0])
    tree = idmapped.copy(context, mount.options, source, mount.where)
    context.sources.append(tree)
    for other in bound[1:]:
        tree.on_error, tree.alternatives = ops.ELSE, 1
        second = Op(ops.TREE, *other.numbers, source, where=mount.where)
        flags, propagation = tree.number("flags") | ops.RECURSIVE, tree.number("propagation")
        context.sources.append(second.with_numbers(flags=flags, propagation=propagation))
    return [prepared]


def _prepared(context: Context, bound: Op) -> Op:
    """Make a BIND attach the next copy of the host's mounts, whose attributes were set when it was made."""
    bound.on_error = bound.alternatives = 0
    trees = [op for op in context.sources if op.kind is ops.TREE]
    number = len(trees) - sum(tree.alternatives for tree in trees)
    flags = bound.number("flags") | ops.PREPARED | number << ops.TREE_SHIFT
    return bound.with_numbers(flags=flags, set=0, clear=0, set_below=0, clear_below=0)


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
    if _needs_legacy(data):
        flags |= ops.LEGACY
        data = [",".join(data)]
    numbers = _numbers(mount.options, flags)
    return Op(ops.MOUNT, *numbers, kind, mount.source or kind, mount.target, data, where=mount.where)


def _needs_legacy(data: Sequence[str]) -> bool:
    """Whether an option is too long for fsconfig(2), so that mount(2) is needed."""
    return any(len(option.partition("=")[2].encode()) > _LONGEST_PARAMETER for option in data)


def _bind(context: Context, mount: _Mount) -> list[Op]:
    options = mount.options
    source = mount.source
    if not source.startswith("/"):
        source = normal(f"{context.bundle.directory}/{source}")
    if options.data:
        context.warn_ignored(
            mount.where, f"left out: a bind mount takes no file system options ({','.join(options.data)})"
        )
    if options.propagation == SHARED and context.gains_capabilities:
        context.warn_ignored(mount.where, "mounts made there do not propagate to the host from another user namespace")
    if source == "/sys" and options.recursive and options.set & ~options.set_below & READONLY:
        options.set_below |= READONLY
        context.adapted(mount.where, "mounts below /sys are read-only too, such as the host's cgroups (CVE-2023-25809)")
    if options.set and not context.in_user_namespace:
        # as in mount(8), the options of a bind mount replace all attributes of its source
        options.clear |= RESTRICTIONS & ~options.set
    flags = (ops.RECURSIVE if options.recursive else 0) | options.link_flags
    if mount.target in _NO_LINKS_TO:
        flags |= ops.PLAIN_TARGET
    first = Op(ops.BIND, *_numbers(options, flags), source, mount.target, where=mount.where)
    if not context.in_user_namespace:
        return [first]
    stays = context.facts.mount_flags(source) & ~options.set if options.set & RESTRICTIONS else 0
    if stays:
        context.adapted(mount.where, f"the source's {words(stays, 0)} cannot be removed in a user namespace")
    # A user namespace may not clear attributes of the host's mount (nosuid, ro, …), change its access time mode, or
    # uncover a directory below a mount (mount_namespaces(7)). The second attempt avoids all three.
    kept, kept_below = options.set & ~ANY_ATIME, options.set_below & ~ANY_ATIME
    flags = first.number("flags") | ops.RECURSIVE
    second = first.with_numbers(flags=flags, set=kept, clear=0, set_below=kept_below, clear_below=0)
    if second.numbers == first.numbers:
        return [first]
    first.on_error, first.alternatives = ops.ELSE, 1
    return [first, second]


def _kernel_state(context: Context, mount: _Mount) -> list[Op]:
    """Return the operations that mount a file system of _OWNER, or bind-mount the host's."""
    namespace, host_path = _OWNER[mount.type]
    fresh = _new(mount, mount.type)
    bound = _host_bind(host_path, mount, mount.options.set | mount.options.set_below)
    if mount.type == "mqueue":
        bound.on_error = ops.ELSE  # not every host mounts it
    if not context.may_mount(namespace):
        context.adapted(
            mount.where,
            f"the host's {host_path} is bind-mounted on {mount.target}: "
            f"the container shares the host's {namespace} namespace",
        )
        return [bound]
    if context.in_user_namespace:
        # the kernel refuses a new mount if parts of the caller's /proc or /sys are covered, as engines do
        fresh.on_error, fresh.alternatives = ops.ELSE, 1
        return [fresh, bound]
    return [fresh]


def _host_bind(host_path: str, mount: _Mount, attributes: int) -> Op:
    """Return the operation that bind-mounts a whole tree of the host, with `attributes` on every mount in it."""
    flags = ops.RECURSIVE | ops.PLAIN_TARGET
    if mount.options.recursive_propagation:
        flags |= ops.RECURSIVE_PROPAGATION
    # a user namespace cannot change the access time mode, and it means nothing for these file systems
    numbers = (flags, mount.options.propagation, 0, 0, attributes & ~ANY_ATIME, 0)
    return Op(ops.BIND, *numbers, host_path, mount.target, where=mount.where)


def _cgroup(context: Context, mount: _Mount) -> list[Op]:
    """Return the operations that mount cgroup v2, or the host's tree read-only with v1 or a shared cgroup namespace."""
    if context.facts.unified_cgroup and context.may_mount("cgroup"):
        data = mount.options.data
        left = [option for option in data if mount.type == "cgroup" and option not in _CGROUP2_OPTIONS]
        if left:
            mount.options.data = [option for option in data if option not in left]
            context.adapted(mount.where, f"left out: options of cgroup v1 ({','.join(left)})")
        fresh = _new(mount, "cgroup2")
        fresh.on_error, fresh.alternatives = ops.ELSE, 1
        return [fresh, _host_bind("/sys/fs/cgroup", mount, mount.options.set)]
    reason = (
        "it is not pure cgroup v2" if not context.facts.unified_cgroup else "the container shares its cgroup namespace"
    )
    context.adapted(mount.where, f"the host's /sys/fs/cgroup is bind-mounted read-only on {mount.target}: {reason}")
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
