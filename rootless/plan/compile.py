"""A bundle, a host and the caller's request become a Plan: the order of things, and nothing else.

The order is half of what makes a container safe: nothing is mounted before the propagation is cut, nothing of the image
is touched before it is the end of the world for path lookup, paths are masked while the host's /dev/null can still be
named, capabilities go after what needs them, and the seccomp filter is the last thing before the program.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.linux import CLONE_NEWNS
from rootless.plan import namespaces, ops, unsupported
from rootless.plan.context import Context
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from rootless.plan.process import identity
from rootless.plan.rootfs import devices, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.load import Bundle
    from rootless.host.facts import Facts
    from rootless.plan.cgroup.manager import Cgroup
    from rootless.plan.cgroup.resctrl import Group
    from rootless.plan.idmaps import IdMaps
    from rootless.plan.network.net_devices import Interface
    from rootless.plan.process.hooks import Hooks
    from rootless.plan.request import Request

KERNEL_FLOOR = (5, 12)
"""The first kernel with mount_setattr(2)."""
_NO_PROCESS = {"cwd": "/"}
"""What waits for a start that will be refused: root of the container, without capabilities."""


def compile_plan(bundle: Bundle, facts: Facts, request: Request) -> Plan:
    """Decide everything that can be decided before anything happens.

    Raises:
        RootlessError: what config.json asks for cannot be done here; the message has the place and the fix.
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
    namespaces.decide(context)
    identity.choose_user(context)
    cgroup = _cgroup(context)
    unsupported.note(context, has_unit=bool(cgroup and cgroup.unit))
    raised, limits = identity.rlimits(context)
    if request.environment:
        _note_service(context)
    last, seccomp_filter = identity.execute(context, limits) if "args" in context.process else ([], None)
    hooks = _hooks(context)
    plan = [
        *(hooks.first if hooks else ()),
        *identity.oom_score(context),
        *raised,
        *namespaces.enter(context),
        *namespaces.settle(context),
        *mounts.root(context),
        *mounts.mounts(context),
    ]
    if context.sources:
        mounts.take_along(context, plan)
    if not mounts.covers_dev(context):
        plan += devices.devices(context)
    plan += [
        *devices.console(context),
        *(_service_socket() if request.notify else ()),
        *(hooks.mounted if hooks else ()),
        *identity.sysctls(context),
        *mounts.protect(context),
        *mounts.change_root(context),
        *identity.identity(context),
        *(identity.find(context) if last else ()),
        # it keeps the connection to the agent
        *([Op(ops.NON_DUMPABLE)] if seccomp_filter and seccomp_filter.listener else ()),
        Op(ops.READY),
        Op(ops.WAIT_START),
        *([Op(ops.PASS_NOTIFY)] if request.notify and last else ()),
        *(hooks.started if hooks and last else ()),
        *last,
    ]
    terminal = bool(context.process.get("terminal"))
    return Plan(
        plan,
        context.maps,
        seccomp_filter,
        context.notes,
        owner=facts.user,
        terminal=terminal,
        hooks=hooks.outside if hooks else None,
        notify=request.notify,
        links=_links(context),
        group=_group(context),
        cgroup=cgroup,
        network=context.network,
        covered=context.bundle.rootfs if context.shares_mounts else "",
    )


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
    """Return the cgroup that is to be made: one that config.json or the caller asks for, or that costs nothing."""
    linux, request = context.linux, context.request
    if not (linux.get("resources") or linux.get("cgroupsPath") or request.systemd_cgroup or request.cgroup_manager):
        there = context.facts.cgroups
        if not there or not there.base:
            return None
    from rootless.plan.cgroup import manager

    return manager.decide(context)


def _hooks(context: Context) -> Hooks | None:
    if not any((context.config.get("hooks") or {}).values()):
        return None
    from rootless.plan.process.hooks import Hooks

    return Hooks(context)


def _links(context: Context) -> Sequence[Interface]:
    if not context.linux.get("netDevices"):
        return ()
    from rootless.plan.network.net_devices import moved

    return moved(context)


def _group(context: Context) -> Group | None:
    if context.linux.get("intelRdt") is None:
        return None
    from rootless.plan.cgroup.resctrl import group

    return group(context)


def _note_service(context: Context) -> None:
    from rootless.plan.process import sd_notify

    sd_notify.note(context)


def _service_socket() -> list[Op]:
    from rootless.plan.process import sd_notify

    return sd_notify.make_socket()


def compile_host_command(args: Sequence[str], env: Sequence[str], maps: IdMaps) -> Plan:
    """Plan a program of the host as root of a new user namespace that has all the caller's ids."""
    return Plan(
        [Op(ops.NEW_USER), Op(ops.YIELD), Op(ops.BECOME, maps.uids[0][0], maps.gids[0][0]), Op(ops.EXEC, args, env)],
        maps,
    )


def compile_root_command(args: Sequence[str], env: Sequence[str], rootfs: str) -> Plan:
    """Plan a program of the host where `rootfs` is a mount of its own, in a mount namespace that ends with it.

    It waits for its start.
    """
    from rootless.plan.rootfs.mount_options import PRIVATE

    return Plan(
        [
            Op(ops.UNSHARE, CLONE_NEWNS),
            Op(ops.PROPAGATION, ops.RECURSIVE_PROPAGATION, PRIVATE),
            Op(ops.ROOT, PRIVATE, rootfs),
            Op(ops.UMASK, 0o022),
            Op(ops.READY),
            Op(ops.WAIT_START),
            Op(ops.EXEC, args, env),
        ]
    )
