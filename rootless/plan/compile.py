"""Compile a bundle, a host and the caller's request into a Plan. This file decides the order of the operations.

The order is half of what makes a container safe: nothing is mounted before the propagation is cut, no path of the image
is used before lookups end at its root, paths are masked while the host's /dev/null can still be named, capabilities go
after the operations that need them, and the seccomp filter is the last thing before the program.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.linux import CLONE_NEWNS
from rootless.plan import launcher_part, ops, unsupported
from rootless.plan.context import Context
from rootless.plan.namespaces import new_or_joined
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from rootless.plan.process import identity
from rootless.plan.process.refused_calls import keyring
from rootless.plan.rootfs import devices, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.load import Bundle
    from rootless.host.facts import Facts
    from rootless.plan.cgroup.manager import Cgroup
    from rootless.plan.cgroup.manager import decide as decide_cgroup
    from rootless.plan.cgroup.resctrl import group as resctrl_group
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.network.net_devices import moved as moved_interfaces
    from rootless.plan.process.hooks import Hooks
    from rootless.plan.process.pretence import apt_settings
    from rootless.plan.process.sd_notify import make_socket
    from rootless.plan.process.sd_notify import note as note_service
    from rootless.plan.request import Request
else:
    decide_cgroup = lazy("rootless.plan.cgroup.manager", "decide")
    resctrl_group = lazy("rootless.plan.cgroup.resctrl", "group")
    moved_interfaces = lazy("rootless.plan.network.net_devices", "moved")
    Hooks = lazy("rootless.plan.process.hooks", "Hooks")
    apt_settings = lazy("rootless.plan.process.pretence", "apt_settings")
    make_socket = lazy("rootless.plan.process.sd_notify", "make_socket")
    note_service = lazy("rootless.plan.process.sd_notify", "note")

KERNEL_FLOOR = (5, 12)
"""The first kernel with mount_setattr(2)."""
_NO_PROCESS = {"cwd": "/"}
"""The process of a container whose start will be refused: root of the container, without capabilities."""


def compile_plan(bundle: Bundle, facts: Facts, request: Request) -> Plan:
    """Decide everything that can be decided before anything happens.

    Raises:
        RootlessError: this host or caller cannot run config.json; the message has the place and the fix.
    """
    if facts.kernel < KERNEL_FLOOR:
        raise RootlessError(
            f"kernel {facts.kernel[0]}.{facts.kernel[1]} is too old",
            cause="rootless needs Linux 5.12 or newer (mount_setattr, openat2, close_range)",
            fix="boot a newer kernel",
            code="RL-KERNEL",
        )
    context = Context(bundle, facts, request)
    if not context.process:
        if request.verb != "create":
            raise nothing_to_run()
        context.process = dict(_NO_PROCESS)
    unsupported.refuse(context)
    new_or_joined.decide(context)
    identity.choose_user(context)
    cgroup = _cgroup(context)
    unsupported.note(context, has_unit=bool(cgroup and cgroup.unit))
    raised, limits = identity.rlimits(context)
    if request.environment:
        note_service(context)
    last, seccomp_filter = identity.execute(context, limits) if "args" in context.process else ([], None)
    hooks = Hooks(context) if any((context.config.get("hooks") or {}).values()) else None
    runtime_hooks = launcher_part.runtime_hooks(cgroup, hooks)
    interfaces = moved_interfaces(context) if context.linux.get("netDevices") else ()
    group = resctrl_group(context) if context.linux.get("intelRdt") is not None else None
    plan = [
        *launcher_part.before_executor(context, cgroup, seccomp_filter),
        *(hooks.first if hooks else ()),
        *identity.oom_score(context),
        *raised,
        *new_or_joined.enter(context),
        *launcher_part.with_process(context, cgroup, interfaces, group),
        *new_or_joined.setup_inside(context),
        *keyring(context),
        *new_or_joined.host_names(context),
        *mounts.root(context),
        *mounts.mounts(context),
        *(apt_settings() if context.pretence else ()),
    ]
    if context.sources:
        mounts.take_along(context, plan)
    if not mounts.covers_dev(context):
        plan += devices.devices(context)
    plan += [
        *devices.console(context),
        *(make_socket() if request.notify else ()),
        *runtime_hooks,
        *(hooks.mounted if hooks else ()),
        *identity.sysctls(context),
        *mounts.protect(context),
        *mounts.change_root(context),
        *identity.identity(context, seccomp_filter),
        *(identity.find(context) if last else ()),
        Op(ops.READY),
        *launcher_part.when_ready(context, cgroup, runtime_hooks),
        Op(ops.WAIT_START),
        *launcher_part.when_started(seccomp_filter, "creating"),
        *([Op(ops.PASS_NOTIFY)] if request.notify and last else ()),
        *(hooks.bind(last) if hooks and last else ()),
        *last,
        *launcher_part.afterwards(context, cgroup, hooks),
    ]
    return Plan(plan, context.notes)


def nothing_to_run() -> RootlessError:
    """Return the error for a configuration without a process: config.md, "REQUIRED when start is called"."""
    return RootlessError(
        "there is nothing to run",
        cause="config.json has no process",
        where="process",
        fix='add "process" with "args" and "cwd"; `rootless spec` writes an example',
        code="RL-CONFIG",
    )


def _cgroup(context: Context) -> Cgroup | None:
    """Return the cgroup to make, if config.json or the caller asks for one or the caller has a delegated cgroup."""
    linux, request = context.linux, context.request
    if not (linux.get("resources") or linux.get("cgroupsPath") or request.systemd_cgroup or request.cgroup_manager):
        own = context.facts.cgroups
        if not own or not own.base:
            return None
    return decide_cgroup(context)


def compile_host_command(args: Sequence[str], env: Sequence[str], maps: IdMaps, *, own_mounts: bool = False) -> Plan:
    """Plan a program of the host as root of a new user namespace with all the caller's IDs.

    With `own_mounts` it has a mount namespace too, in which it may mount; mounts of the host still arrive there.
    """
    mounts_too = [Op(ops.UNSHARE, CLONE_NEWNS)] if own_mounts else []
    return Plan([*_as_root(maps), *mounts_too, Op(ops.EXEC, args, env)])


def compile_removal(name: str, maps: IdMaps) -> Plan:
    """Plan the removal of a tree in the current directory by root of such a namespace."""
    return Plan([*_as_root(maps), Op(ops.REMOVE_TREE, name), Op(ops.READY)])


def _as_root(maps: IdMaps) -> list[Op]:
    become = Op(ops.BECOME, maps.uids[0][0], maps.gids[0][0])
    return [Op(ops.SPAWN), *new_or_joined.new_user(maps), become]


def compile_root_command(args: Sequence[str], env: Sequence[str], rootfs: str) -> Plan:
    """Plan a program of the host in a mount namespace of its own, where `rootfs` is a mount.

    The program waits for its start.
    """
    from rootless.plan.rootfs.mount_options import PRIVATE

    return Plan(
        [
            Op(ops.SPAWN),
            Op(ops.UNSHARE, CLONE_NEWNS),
            Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, PRIVATE),
            Op(ops.ROOT, PRIVATE, rootfs),
            Op(ops.UMASK, 0o022),
            Op(ops.READY),
            Op(ops.WAIT_START),
            Op(ops.EXEC, args, env),
        ]
    )
