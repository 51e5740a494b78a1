"""The launcher's operations: which function carries each out (undo.py: which function undoes it)."""

from __future__ import annotations

from rootless.container.operations import record
from rootless.launch import run_plan
from rootless.lazy import lazy
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.launch.run_plan import Handler
    from rootless.plan.ops import Kind

HANDLERS: dict[Kind, Handler] = {
    **run_plan.HANDLERS,
    ops.CONNECT_CONSOLE: record.connect_console,
    ops.CLAIM: record.claim,
    ops.COMPILE_FILTER: record.compile_filter,
    ops.CONNECT_PIDFD: record.connect_pidfd,
    ops.CONNECT_AGENT: record.connect_agent,
    ops.COVER: lazy("rootless.container.operations.root_mount", "cover"),
    ops.MAKE_CGROUP: lazy("rootless.container.operations.cgroup", "make"),
    ops.RESERVE_PORTS: lazy("rootless.container.network.attach", "reserve_ports"),
    ops.WRITE_NAMES: lazy("rootless.container.network.attach", "write_names"),
    ops.LISTEN: record.listen,
    ops.RECORD: record.record,
    ops.START_SCOPE: lazy("rootless.container.operations.cgroup", "start_scope"),
    ops.BEGIN_NETWORK: lazy("rootless.container.network.attach", "begin"),
    ops.MOVE_INTERFACES: lazy("rootless.container.operations.interfaces", "move_in"),
    ops.JOIN_RESCTRL: lazy("rootless.container.operations.resctrl", "join"),
    ops.ADD_TO_RESCTRL: lazy("rootless.container.operations.resctrl", "add"),
    ops.ATTACH_DEVICE_RULES: lazy("rootless.container.operations.cgroup", "attach_device_rules"),
    ops.RUN_HOOK: record.run_hook,
    ops.AWAIT_NETWORK: lazy("rootless.container.network.attach", "wait"),
    ops.CHECK_RUNNING: record.check_running,
    ops.SEND_PIDFD: record.send_pidfd,
    ops.RECORD_CREATED: record.record_created,
    ops.WRITE_PID_FILE: record.write_pid_file,
    ops.FREEZE: lazy("rootless.container.operations.cgroup", "freeze"),
    ops.FORWARD_NOTIFICATIONS: record.forward_notifications,
    ops.FORWARD_REPORTS: record.forward_reports,
}
