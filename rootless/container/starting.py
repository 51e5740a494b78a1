"""What is to happen around the beginning of a program, beyond its beginning: for containers that ask for any of it."""

from __future__ import annotations

from rootless.container.state.lifecycle import CREATING, RUNNING
from rootless.launch.fd_messages import Received
from rootless.launch.protocol import LISTENER, NOTIFY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.container.state.state import State
    from rootless.container.terminal.service import Reports


class Starting:
    """One start.

    Attributes:
        reader: what reads messages of helpers/init where some come with a descriptor, which it passes on; or None.
        reports: what the program reports to the service manager, or None.
    """

    def __init__(self, state: State) -> None:
        """Prepare; `state` is the container's."""
        self.reports: Reports | None = None
        self._state = state
        takers: dict[int, Callable[..., None]] = {}
        if state.listener:
            from rootless.launch.seccomp_listener import Listener

            takers[LISTENER] = Listener(state.listener, state.document(CREATING)).pass_on
        if state.notify:
            from rootless.container.terminal.service import Reports

            self.reports = Reports()
            takers[NOTIFY] = self.reports.take
        self.reader = Received(takers) if takers else None

    def run_poststart(self) -> None:
        """Run the hooks that come after the beginning.

        Raises:
            RootlessError: `RL-HOOK`: one failed, and the container must go.
        """
        wanted = self._state.hooks.get("poststart")
        if wanted:
            from rootless.launch import run_hooks

            run_hooks.run("poststart", wanted, self._state.document(RUNNING))
