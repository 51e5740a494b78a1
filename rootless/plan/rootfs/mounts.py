"""The root file system and the mounts in it: config.md "Root", "Mounts"; config-linux.md from "Default Filesystems" on.

What a user namespace may not mount is decided here, before anything runs: sysfs belongs to the network namespace, proc
to the pid namespace, mqueue to the ipc namespace, cgroup to the cgroup namespace. Where the container does not own that
one, the host's is bound instead; where nobody can know (it was joined, or the caller is in a user namespace already), a
new one is tried first.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.paths import normal
from rootless.plan import ops
from rootless.plan.idmaps import id_number
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import (
    ANY_ATIME,
    PRIVATE,
    PROPAGATIONS,
    READONLY,
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
    from rootless.procfs import IdMap

_LONGEST_PARAMETER = 255
"""Of a value that fsconfig(2) takes."""

_OWNER = {"sysfs": ("network", "/sys"), "proc": ("pid", "/proc"), "mqueue": ("ipc", "/dev/mqueue")}
"""The namespace that a file system shows, and where the host has it mounted."""

_CGROUP2_OPTIONS = (
    *("nsdelegate", "favordynmods", "nofavordynmods", "memory_localevents", "memory_recursiveprot"),
    *("memory_hugetlb_accounting", "pids_localevents"),
)
"""cgroup(7), Documentation/admin-guide/cgroup-v2.rst; those of v1 are names of controllers and of hierarchies."""

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
    own = SLAVE if bare == "slave" else PRIVATE
    exact_modes = Op(ops.UMASK, 0)  # of what is made in the image; the program's own umask is set later
    if context.shares_mounts:
        # no mount of the host is changed; what is mounted in the root must not reach what the root covers
        return [
            exact_modes,
            Op(ops.ROOT, 0, context.bundle.rootfs, where="root.path"),
            Op(ops.ROOT_ATTRIBUTES, ops.RECURSIVE_PROPAGATION, own, 0, 0, 0, 0, where="root.path"),
        ]
    return [
        Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, propagation, where="linux.rootfsPropagation" if wanted else ""),
        exact_modes,
        Op(ops.ROOT, own, context.bundle.rootfs, where="root.path"),
    ]


def mounts(context: Context) -> list[Op]:
    """Return the operations for `mounts` of config.json, in its order."""
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
    """Return the operations for the files by which names are found; an image without room for them keeps its own."""
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
    """Have a read-only tmpfs writable until what comes into it is there: devices, places for the mounts after it."""
    inside = mount.target + "/"
    if mount.target == "/dev" or any(_inside(other["destination"]).startswith(inside) for other in others):
        mount.options.set &= ~READONLY
        context.sealing.append(Op(ops.REMOUNT, 0, 0, READONLY, 0, 0, 0, mount.target, [], where=mount.where))


def _label(context: Context) -> Callable[[_Mount], None] | None:
    """Return what adds linux.mountLabel to a mount."""
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
    plan += context.sealing
    if context.config["root"].get("readonly"):
        plan.append(Op(ops.ROOT_ATTRIBUTES, 0, 0, READONLY, 0, 0, 0, where="root.readonly"))
    return plan


def change_root(context: Context) -> list[Op]:
    """Return the operations that make the rootfs the root."""
    wanted = context.linux.get("rootfsPropagation") or ""
    if "mount" not in context.created:
        # pivot_root(2) moves the root of every process in the namespace, and this one has others in it
        plan = [Op(ops.CHROOT, 0)]
    else:
        plan = [Op(ops.CHROOT, 1) if context.request.no_pivot else Op(ops.PIVOT)]
    propagation = PROPAGATIONS.get(wanted, 0) or PROPAGATIONS.get(wanted[1:], 0)
    # private and slave are what the root is already
    if propagation and propagation not in (PRIVATE, SLAVE):
        flags = 0 if wanted in PROPAGATIONS else ops.RECURSIVE_PROPAGATION
        plan.append(Op(ops.ROOT_ATTRIBUTES, flags, propagation, 0, 0, 0, 0, where="linux.rootfsPropagation"))
    return plan


def take_along(context: Context, plan: list[Op]) -> None:
    """Put the copies of the host's mounts into the Plan, where they are made with the caller's own access to files.

    Root copies them from its own mount namespace. An ordinary user may not do that and copies them from the container's
    own mount namespace, before the process takes on the container's ids.
    """
    kinds = [op.kind for op in plan]
    place = kinds.index(ops.SPAWN) + 1 if context.facts.privileged else kinds.index(ops.FORK)
    plan[place:place] = context.sources


def covers_dev(context: Context) -> bool:
    """Whether /dev of the container is a directory of the caller's: then its contents are the caller's business."""
    wanted = (_Mount(mount, "") for mount in context.config.get("mounts") or ())
    return any(mount.target == "/dev" and mount.is_bind for mount in wanted)


def _inside(path: str) -> str:
    """Return a path of the container as an absolute one; a relative destination counts from its root (config.md)."""
    return normal("/" + path.lstrip("/"))


class _Mount:
    """One element of `mounts`: `type`, `source` as written, `target` in the container, `options`, its place `where`."""

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
        """Whether it shows other owners than its source has."""
        return bool(self.options.idmap or self.written.get("uidMappings") or self.written.get("gidMappings"))

    @property
    def is_bind(self) -> bool:
        """Whether it shows a directory or a file that is there already."""
        return self.options.bind or self.type == "bind"


def _mount(context: Context, mount: _Mount) -> list[Op]:
    _refuse(mount)
    if mount.has_id_maps:
        return _mapped(context, mount)
    if mount.options.remount:
        return [Op(ops.REMOUNT, *_numbers(mount.options), mount.target, mount.options.data, where=mount.where)]
    if mount.is_bind:
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
    if mount.is_bind and not mount.options.remount and not mount.source:
        cause = "there is no source"
        fix = 'add "source" with a path of the host'
    elif not (mount.is_bind or mount.options.remount) and mount.type in ("", "none"):
        cause = "it has neither a type nor the option bind"
        fix = 'write "type": "bind", or the name of a file system'
    if cause:
        raise RootlessError(
            f"cannot mount on {mount.target}", cause=cause, where=mount.where, fix=fix, code="RL-CONFIG"
        )


def _mapped(context: Context, mount: _Mount) -> list[Op]:
    """Return the operations for a mount with ids mapped."""
    from rootless.plan.rootfs import idmapped

    options = mount.options
    idmapped.check(context, mount.written, options, mount.where)
    if not mount.is_bind:
        before, flags = idmapped.new(context, mount.written, options, mount.where)
        made = _new(mount, mount.type)
        return [*before, made.with_numbers(flags=made.number("flags") | flags)]
    made = _bind(context, mount)[0]
    context.sources += idmapped.bind(context, mount.written, options, str(made.string("source")), mount.where)
    return [_prepared(made)]


def _out_of_reach(context: Context, source: str) -> bool:
    """Whether the container's root may have no access to a source that its caller may bind.

    A joined user namespace may have any ids; a new one that root makes may have fewer than its caller. What lies in the
    rootfs is looked up there, where a mount before this one may have put it.
    """
    if "mount" not in context.created or source.startswith(context.bundle.rootfs.rstrip("/") + "/"):
        return False
    if "user" in context.joined:
        return True
    maps, facts = context.maps, context.facts
    if not maps or not facts.privileged:
        return False
    return _count(maps.uids) < _count(facts.uid_map) or _count(maps.gids) < _count(facts.gid_map)


def _count(lines: Sequence[IdMap]) -> int:
    """Return how many ids the lines of a map give."""
    return sum(count for _, _, count in lines)


def _taken_along(context: Context, mount: _Mount, bound: list[Op]) -> list[Op]:
    """Return the BIND of what the caller takes along into the container's namespaces, in place of those of _bind()."""
    from rootless.plan.rootfs import idmapped

    source = str(bound[0].string("source"))
    tree = idmapped.copy(context, mount.options, source, mount.where)
    context.sources.append(tree)
    for other in bound[1:]:
        tree.on_error, tree.alternatives = ops.ELSE, 1
        second = Op(ops.TREE, *other.numbers, source, where=mount.where)
        flags, propagation = tree.number("flags") | ops.RECURSIVE, tree.number("propagation")
        context.sources.append(second.with_numbers(flags=flags, propagation=propagation))
    return [_prepared(bound[0])]


def _prepared(bound: Op) -> Op:
    """Have a BIND take the next copy of the host's mounts; what they allow has been decided with the host's rights."""
    bound.on_error = bound.alternatives = 0
    flags = bound.number("flags") | ops.PREPARED
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
    numbers = _numbers(mount.options, flags)
    return Op(ops.MOUNT, *numbers, kind, mount.source or kind, mount.target, data, where=mount.where)


def _needs_legacy(data: Sequence[str]) -> bool:
    """Whether there is an option that only mount(2) takes."""
    return any(len(option.partition("=")[2].encode()) > _LONGEST_PARAMETER for option in data)


def _bind(context: Context, mount: _Mount) -> list[Op]:
    options = mount.options
    source = mount.source
    if not source.startswith("/"):
        source = normal(f"{context.bundle.directory}/{source}")
    if options.data:
        context.warn_ignored(
            mount.where, f"left out: a bind has no options of a file system ({','.join(options.data)})"
        )
    if options.propagation == SHARED and context.gains_capabilities:
        context.warn_ignored(
            mount.where, "mounts made there do not reach the host: they are made in another user namespace"
        )
    if source == "/sys" and options.recursive and options.set & ~options.set_below & READONLY:
        options.set_below |= READONLY
        context.adapted(mount.where, "what is mounted below /sys is read-only too: the host's cgroups (CVE-2023-25809)")
    if options.set and not context.in_user_namespace:
        # as in mount(8): the options of a bind replace all attributes of its source
        options.clear |= RESTRICTIONS & ~options.set
    flags = (ops.RECURSIVE if options.recursive else 0) | options.link_flags
    if mount.target in _NO_LINKS_TO:
        flags |= ops.PLAIN_TARGET
    first = Op(ops.BIND, *_numbers(options, flags), source, mount.target, where=mount.where)
    if not context.in_user_namespace:
        return [first]
    stays = context.facts.mount_flags(source) & ~options.set if options.set & RESTRICTIONS else 0
    if stays:
        context.adapted(mount.where, f"the source's {words(stays, 0)} cannot be taken away in a user namespace")
    # A user namespace may not take away what the host's mount has (nosuid, ro, …), nor change how access times are
    # kept, nor show what a mount there covers (mount_namespaces(7)): then without the one, and with all that is below.
    kept, kept_below = options.set & ~ANY_ATIME, options.set_below & ~ANY_ATIME
    flags = first.number("flags") | ops.RECURSIVE
    second = first.with_numbers(flags=flags, set=kept, clear=0, set_below=kept_below, clear_below=0)
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
        data = mount.options.data
        left = [option for option in data if mount.type == "cgroup" and option not in _CGROUP2_OPTIONS]
        if left:
            mount.options.data = [option for option in data if option not in left]
            context.adapted(mount.where, f"left out: cgroup v2 does not have options of v1 ({','.join(left)})")
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
