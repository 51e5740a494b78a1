"""What is made for a container on the host, outside its own process: cgroup, network, links, cache shares."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.confine import Confinement
    from rootless.container.network.attach import Attachment
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.errors import RootlessError
    from rootless.plan.plan import Plan


class Outside:
    """All of that for one container.

    Attributes:
        cgroup: a descriptor of the cgroup that its first process is cloned into, or -1.
        reader: what reads messages of helpers/init where some come with a descriptor, or None.
    """

    def __init__(self, plan: Plan, entry: ContainerDir, state: State) -> None:
        """Make what is made before there is a process, and note in the container's state what it is.

        Raises:
            RootlessError: something cannot be made.
        """
        self._plan = plan
        self._entry = entry
        self._state = state
        if plan.covered:
            from rootless.container.state import covered

            entry.note_covered(covered.note(plan.covered))
        self._confinement = self._confine() if plan.cgroup else None
        self._network = self._attach() if plan.network else None
        self.cgroup = self._confinement.fd if self._confinement else -1
        self.reader = self._network.reader if self._network else None

    def _confine(self) -> Confinement | None:
        from rootless.container.confine import Confinement

        return Confinement(self._plan.cgroup, self._entry, self._state) if self._plan.cgroup else None

    def _attach(self) -> Attachment | None:
        from rootless.container.network.attach import Attachment

        return Attachment(self._plan.network, self._entry, self._state) if self._plan.network else None

    def enter(self, pid: int) -> None:
        """Make what is made around the container's first process, or begin to.

        Raises:
            RootlessError: something cannot be made.
        """
        plan = self._plan
        if self._confinement:
            self._confinement.enter(pid, self._state)
        if self._network:
            self._network.begin(pid)
        if plan.links:
            from rootless.network import move_devices

            move_devices.move(plan.links, pid)
        if plan.group:
            from rootless.launch import join_resctrl

            self._entry.note_resctrl(join_resctrl.made_for_it(plan.group))
            join_resctrl.enter(plan.group, pid)

    def before_hooks(self) -> None:
        """Do what comes after the mounts and before the hooks.

        Raises:
            RootlessError: it is refused.
        """
        if self._confinement:
            self._confinement.rule_devices()

    def finish(self) -> None:
        """Wait until what was begun is there.

        Raises:
            RootlessError: it does not come.
        """
        if self._confinement:
            self._confinement.rule_devices()
            self._confinement.close()
        if self._network:
            self._network.finish()

    def blame(self, error: RootlessError) -> None:
        """Let the error for a container that was killed while it was made tell what may be the reason."""
        if self._confinement:
            self._confinement.blame(error)

    def abort(self) -> None:
        """End what would not end with the container's process."""
        if self._network:
            self._network.abort()
