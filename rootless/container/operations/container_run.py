"""A container's Plan being run: what its launcher operations share."""

from __future__ import annotations

from rootless.launch import run_plan
from rootless.lazy import lazy
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cgroup.group import Group
    from rootless.container.operations.network import Attachment
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.container.terminal.service import Reports
    from rootless.image.squashfs.server import ImageServer
    from rootless.launch.protocol import Descriptors
    from rootless.launch.run_plan import Handler
    from rootless.launch.scm_rights import PidfdReceiver
    from rootless.plan.network.ports import Port
    from rootless.plan.ops import Kind
    from rootless.plan.plan import Plan


HANDLERS: dict[Kind, Handler] = {
    **run_plan.HANDLERS,
    ops.CONNECT_CONSOLE: lazy("rootless.container.operations.record", "connect_console"),
    ops.CLAIM: lazy("rootless.container.operations.record", "claim"),
    ops.NO_INPUT: lazy("rootless.container.operations.record", "no_input"),
    ops.COMPILE_FILTER: lazy("rootless.container.operations.record", "compile_filter"),
    ops.COMPILE_PRETENCE: lazy("rootless.container.operations.record", "compile_pretence"),
    ops.CONNECT_PIDFD: lazy("rootless.container.operations.record", "connect_pidfd"),
    ops.CONNECT_AGENT: lazy("rootless.container.operations.record", "connect_agent"),
    ops.COVER: lazy("rootless.container.operations.root_mount", "cover"),
    ops.MAKE_CGROUP: lazy("rootless.container.operations.cgroup", "make"),
    ops.ENTER_GROUP: lazy("rootless.container.operations.group", "enter"),
    ops.NOTE_MEMBER: lazy("rootless.container.operations.group", "note_member"),
    ops.RESERVE_PORTS: lazy("rootless.container.operations.network", "reserve_ports"),
    ops.WRITE_NAMES: lazy("rootless.container.operations.network", "write_names"),
    ops.NOTE_REQUEST: lazy("rootless.container.operations.record", "note_request"),
    ops.SHOW_DIRECTORY: lazy("rootless.container.operations.record", "show_directory"),
    ops.NOTE_MONITOR: lazy("rootless.container.operations.monitor", "note"),
    ops.LISTEN: lazy("rootless.container.operations.record", "listen"),
    ops.RECORD: lazy("rootless.container.operations.record", "record"),
    ops.START_SCOPE: lazy("rootless.container.operations.cgroup", "start_scope"),
    ops.OPEN_UPPER: lazy("rootless.container.operations.overlay", "open_upper"),
    ops.BEGIN_IMAGE: lazy("rootless.container.operations.image", "begin"),
    ops.AWAIT_IMAGE: lazy("rootless.container.operations.image", "wait"),
    ops.BEGIN_NETWORK: lazy("rootless.container.operations.network", "begin"),
    ops.MOVE_INTERFACES: lazy("rootless.container.operations.interfaces", "move_in"),
    ops.JOIN_RESCTRL: lazy("rootless.container.operations.resctrl", "join"),
    ops.ADD_TO_RESCTRL: lazy("rootless.container.operations.resctrl", "add"),
    ops.ATTACH_DEVICE_RULES: lazy("rootless.container.operations.cgroup", "attach_device_rules"),
    ops.RUN_HOOK: lazy("rootless.container.operations.record", "run_hook"),
    ops.AWAIT_NETWORK: lazy("rootless.container.operations.network", "wait"),
    ops.CHECK_RUNNING: lazy("rootless.container.operations.record", "check_running"),
    ops.SEND_PIDFD: lazy("rootless.container.operations.record", "send_pidfd"),
    ops.RECORD_CREATED: lazy("rootless.container.operations.record", "record_created"),
    ops.WRITE_PID_FILE: lazy("rootless.container.operations.record", "write_pid_file"),
    ops.FREEZE: lazy("rootless.container.operations.cgroup", "freeze"),
    ops.FORWARD_NOTIFICATIONS: lazy("rootless.container.operations.record", "forward_notifications"),
    ops.FORWARD_REPORTS: lazy("rootless.container.operations.record", "forward_reports"),
}
"""Which function carries out each operation of the launcher; undo.py has their undos."""


class ContainerRun(run_plan.Run):
    """A container that is being made or started, or a further process of it.

    Attributes:
        root: the state directory.
        entry: the container's directory, once CLAIM is done: `is_claimed`.
        state: what state.json holds, once RECORD is done: `is_recorded`.
        cgroup: its cgroup, if it is open.
        image: the server of its image, from BEGIN_IMAGE on.
        network: its network, from BEGIN_NETWORK on.
        group: descriptors of the namespaces that the containers of its group share, by type; open while this process
            lives, because other members open them through it.
        locks: descriptors of locked files; they too stay open while this process lives.
        ports: the published ports, once RESERVE_PORTS has found free ones.
        pidfd_receiver: the program that gets a pidfd, or None.
        exit_fd: the file for the exit status if this process notes it, or -1.
        reports: the program's reports to the caller's service manager, or None.
    """

    entry: ContainerDir
    state: State

    def __init__(self, plan: Plan, root: StateRoot, descriptors: Descriptors) -> None:
        """Prepare; `descriptors` has those that are known before the Plan runs."""
        super().__init__(plan, descriptors, HANDLERS)
        self.root = root
        self.is_claimed = False
        self.is_recorded = False
        self.pidfd_receiver: PidfdReceiver | None = None
        self.cgroup: Group | None = None
        self.image: ImageServer | None = None
        self.network: Attachment | None = None
        self.group: dict[str, int] = {}
        self.locks: list[int] = []
        self.ports: list[Port] = []
        self.exit_fd = -1
        self.reports: Reports | None = None

    def kill(self) -> None:
        """End the executor, and the processes that serve the image and the network."""
        super().kill()
        if self.image:
            self.image.kill()
            self.image = None
        if self.network:
            self.network.abort()
            self.network = None
