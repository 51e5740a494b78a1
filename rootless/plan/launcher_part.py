"""The launcher's operations of a container's Plan, before, between and after those of the executor."""

from __future__ import annotations

from rootless.errors import RootlessError, place
from rootless.lazy import lazy
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.process.seccomp import LISTENER_PLACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.plan.cgroup.manager import Cgroup
    from rootless.plan.cgroup.resctrl import Group
    from rootless.plan.context import Context
    from rootless.plan.namespaces.group import enter as enter_group
    from rootless.plan.network.net_devices import Interface
    from rootless.plan.process.hooks import Hooks
    from rootless.plan.process.seccomp import SeccompFilter
    from rootless.plan.rootfs.image import image_of
else:
    enter_group = lazy("rootless.plan.namespaces.group", "enter")
    image_of = lazy("rootless.plan.rootfs.image", "image_of")

_PIDFD_RECEIVER = "run.oci.pidfd_receiver"
"""Annotation: a socket path, like that of --pidfd-socket (crun)."""


def before_executor(context: Context, cgroup: Cgroup | None, seccomp_filter: SeccompFilter | None) -> list[Op]:
    """Return the operations before SPAWN: connections, the container's directory, its cgroup, its network files.

    Raises:
        RootlessError: `RL-CONSOLE`: there is a terminal and no receiver for it, or the reverse.
    """
    request, network = context.request, context.network
    plan = console(context)
    plan.append(Op(ops.CLAIM, request.container))
    if request.asked:
        plan.append(Op(ops.NOTE_REQUEST, request.asked))
    if request.no_input:
        plan.append(Op(ops.NO_INPUT))
    plan += connections(context, seccomp_filter)
    if context.shares_mounts:
        plan.append(Op(ops.COVER, context.bundle.rootfs, where="root.path"))
    if request.overlay not in ("", "memory"):
        plan.append(Op(ops.OPEN_UPPER, request.overlay))
    if cgroup and not cgroup.unit:
        plan.append(Op(ops.MAKE_CGROUP, cgroup))
    if network and network.ports:
        shared = network.shared.name if network.shared else ""
        plan.append(Op(ops.RESERVE_PORTS, network.ports, network.host.first_port, shared))
    if network and network.has_own_files:
        helper = network.helpers[0] if network.helpers else None
        plan.append(Op(ops.WRITE_NAMES, *network.files(network.mode, helper)))
    plan += enter_group(context) if context.shared else []
    if request.verb == "create":
        plan.append(Op(ops.LISTEN))
    if not request.monitored:
        return [*plan, Op(ops.SPAWN), *listener(seccomp_filter)]
    monitor = Op(ops.MONITOR, request.timeout, request.log_size)
    return [*plan, Op(ops.SHOW_DIRECTORY), Op(ops.SPAWN), Op(ops.NOTE_MONITOR), monitor, *listener(seccomp_filter)]


def connections(context: Context, seccomp_filter: SeccompFilter | None) -> list[Op]:
    """Return the operations that compile the seccomp filters and connect to the agent and the pidfd receiver."""
    plan = []
    if seccomp_filter:
        plan.append(Op(ops.COMPILE_FILTER, seccomp_filter, where="linux.seccomp"))
        if seccomp_filter.listener:
            plan.append(Op(ops.CONNECT_AGENT, seccomp_filter.listener["path"], where=LISTENER_PLACE))
    if context.pretence:
        plan.append(Op(ops.COMPILE_PRETENCE, context.pretence))
    path, where = _pidfd_socket(context)
    if path:
        plan.append(Op(ops.CONNECT_PIDFD, path, where=where))
    return plan


def listener(seccomp_filter: SeccompFilter | None) -> list[Op]:
    """Return the operation that has a process wait for the filter's notifications, outside of the container.

    It starts as the caller: not in the container's cgroup, and before what SCHED_DEADLINE schedules, which cannot start
    another one.
    """
    if not (seccomp_filter and seccomp_filter.listener):
        return []
    return [Op(ops.LISTENER, where=LISTENER_PLACE)]


def with_process(
    context: Context, cgroup: Cgroup | None, interfaces: Sequence[Interface], group: Group | None
) -> list[Op]:
    """Return the operations after FORK: the record of the process, its scope, network, interfaces and resctrl group."""
    plan = [Op(ops.RECORD, _about(context), context.bundle.text.decode("utf-8", "surrogateescape"))]
    if context.shared:
        plan.append(Op(ops.NOTE_MEMBER, context.request.join))
    if cgroup and cgroup.unit:
        plan.append(Op(ops.START_SCOPE, cgroup))
    if context.bundle.is_image:
        plan.append(Op(ops.BEGIN_IMAGE, image_of(context), where="root.path"))
    if context.network:
        plan.append(Op(ops.BEGIN_NETWORK, context.network))
    if interfaces:
        plan.append(Op(ops.MOVE_INTERFACES, list(interfaces), where="linux.netDevices"))
    if group:
        plan.append(Op(ops.JOIN_RESCTRL, group, where="linux.intelRdt"))
    return plan


def runtime_hooks(cgroup: Cgroup | None, hooks: Hooks | None) -> list[Op]:
    """Return the hooks that run after the mounts; the device rules come first, so that a hook can allow more."""
    run = [*_run(hooks, "prestart", "creating"), *_run(hooks, "createRuntime", "creating")]
    return [*_device_rules(cgroup), *run] if run else []


def when_ready(context: Context, cgroup: Cgroup | None, hooked: Sequence[Op]) -> list[Op]:
    """Return the operations that complete a created container; `hooked` is what runtime_hooks() returned."""
    request = context.request
    plan = [] if hooked else _device_rules(cgroup)
    if context.network and context.network.is_served:
        plan.append(Op(ops.AWAIT_NETWORK))
    path, where = _pidfd_socket(context)
    if path:
        plan.append(Op(ops.SEND_PIDFD, "standard", where=where))
    plan.append(Op(ops.RECORD_CREATED))
    if request.pid_file:
        plan.append(Op(ops.WRITE_PID_FILE, request.pid_file))
    if cgroup and cgroup.frozen and request.verb == "create":
        plan.append(Op(ops.FREEZE))
    return plan


def when_started(seccomp_filter: SeccompFilter | None, status: str) -> list[Op]:
    """Return the operations between the start and the report that the program has started."""
    if not (seccomp_filter and seccomp_filter.listener):
        return []
    listener = seccomp_filter.listener
    return [
        Op(ops.FORWARD_NOTIFICATIONS, listener["path"], listener["metadata"], status, where=LISTENER_PLACE),
        Op(ops.CHECK_AGENT, where=LISTENER_PLACE),
    ]


def afterwards(context: Context, cgroup: Cgroup | None, hooks: Hooks | None) -> list[Op]:
    """Return the operations after the start of the program, and, from DELETE on, after its end."""
    plan = [Op(ops.FORWARD_REPORTS)] if context.request.notify else []
    plan += _run(hooks, "poststart", "running")
    if cgroup and cgroup.frozen and context.request.verb != "create":
        plan.append(Op(ops.FREEZE))
    plan.append(Op(ops.DELETE))
    plan += _run(hooks, "poststop", "stopped")
    return plan


def console(context: Context) -> list[Op]:
    """Return the connection to the socket that receives the terminal, unless a foreground command relays it.

    Raises:
        RootlessError: `RL-CONSOLE`: there is a terminal and no socket, or a socket and no terminal.
    """
    request, has_terminal = context.request, bool(context.process.get("terminal"))
    if request.console_socket and not has_terminal:
        raise _wrong_console(
            "cannot use console socket if the container has no terminal",
            'set "terminal": true, or leave out --console-socket',
        )
    if request.console_socket:
        return [Op(ops.CONNECT_CONSOLE, request.console_socket, where="process.terminal")]
    if has_terminal and (request.verb == "create" or request.detach):
        raise _wrong_console(
            "cannot allocate tty if the caller will detach without setting console socket", "add --console-socket PATH"
        )
    return []


def _wrong_console(cause: str, fix: str) -> RootlessError:
    return RootlessError("terminal", cause=cause, where="process.terminal", fix=fix, code="RL-CONSOLE")


def _about(context: Context) -> dict[str, Any]:
    """Return the part of state.json beyond the process, as JSON data."""
    bundle, network = context.bundle, context.network
    about: dict[str, Any] = {
        "bundle": bundle.directory,
        "rootfs": bundle.rootfs,
        "annotations": context.config.get("annotations") or {},
        "owner": context.facts.user,
        "keyring": not context.request.no_new_keyring,
    }
    if context.pretence:
        about["fakeChown"] = True
    if network:
        about["network"] = network.state()
    return about


def _run(hooks: Hooks | None, kind: str, status: str) -> list[Op]:
    return [
        Op(ops.RUN_HOOK, kind, hook, status, where=f"hooks.{kind}[{index}]")
        for index, hook in enumerate(hooks.outside.get(kind, ()) if hooks else ())
    ]


def _device_rules(cgroup: Cgroup | None) -> list[Op]:
    if not (cgroup and cgroup.device_rules):
        return []
    return [Op(ops.ATTACH_DEVICE_RULES, cgroup.device_rules, where="linux.resources.devices")]


def _pidfd_socket(context: Context) -> tuple[str, str]:
    """Return the socket that receives a pidfd of the process, and the place in config.json that names it."""
    request = context.request
    if request.pidfd_socket or request.verb == "exec":
        return request.pidfd_socket, ""
    path = (context.config.get("annotations") or {}).get(_PIDFD_RECEIVER, "")
    return path, place("annotations", _PIDFD_RECEIVER)
