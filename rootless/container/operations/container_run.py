"""A container's Plan being run: what its launcher operations share."""

from __future__ import annotations

from rootless.container.operations.table import HANDLERS
from rootless.launch.run_plan import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cgroup.group import Group
    from rootless.container.network.attach import Attachment
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.container.state.store import StateRoot
    from rootless.container.terminal.service import Reports
    from rootless.launch.scm_rights import PidfdReceiver
    from rootless.launch.spawn import Descriptors
    from rootless.plan.network.ports import Port
    from rootless.plan.plan import Plan


class ContainerRun(Run):
    """A container that is being made or started, or a further process of it.

    Attributes:
        root: the state directory.
        entry: the container's directory, once CLAIM is done: `is_claimed`.
        state: what state.json holds, once RECORD is done: `is_recorded`.
        cgroup: its cgroup, where it is open.
        network: its network, from BEGIN_NETWORK on.
        ports: the published ports, once RESERVE_PORTS has found free ones.
        pidfd_receiver: the program that gets a pidfd, where there is one.
        reports: what the program reports to a service manager, where there is one.
    """

    entry: ContainerDir
    state: State

    def __init__(self, plan: Plan, root: StateRoot, descriptors: Descriptors) -> None:
        """Prepare: `descriptors` are those that are known before the Plan is run."""
        super().__init__(plan, descriptors, HANDLERS)
        self.root = root
        self.is_claimed = False
        self.is_recorded = False
        self.pidfd_receiver: PidfdReceiver | None = None
        self.cgroup: Group | None = None
        self.network: Attachment | None = None
        self.ports: list[Port] = []
        self.reports: Reports | None = None

    def kill(self) -> None:
        """End what was begun: the executor, and the processes that serve the network."""
        super().kill()
        if self.network:
            self.network.abort()
            self.network = None
