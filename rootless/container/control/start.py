"""The verb `start`: the rest of the Plan of a created container."""

from __future__ import annotations

import _socket
import posix
import sys

from rootless.container.operations.container_run import ContainerRun
from rootless.container.state import store
from rootless.container.state.directory import ContainerDir
from rootless.container.state.lifecycle import allow, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.launch.protocol import Descriptors
from rootless.lazy import lazy
from rootless.plan import ops
from rootless.plan.ops import from_data
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.teardown import abandon, end
    from rootless.container.state.state import State
    from rootless.options import Options
    from rootless.plan.compile import nothing_to_run
else:
    abandon = lazy("rootless.container.operations.teardown", "abandon")
    end = lazy("rootless.container.operations.teardown", "end")
    nothing_to_run = lazy("rootless.plan.compile", "nothing_to_run")


def start(options: Options) -> None:
    """Let the program of a created container run; return when it does."""
    root = state_root(options.root)
    directory, connection, goes_on = _started()
    with (
        ContainerDir(root, options.container, directory) if directory else store.find(root, options.container) as entry
    ):
        state = store.existing_state(entry)
        if not connection:
            allow("start", entry.container_id, status(entry, state))
        run = ContainerRun(_rest_of_plan(entry, state), root, Descriptors())
        run.entry, run.state, run.pid = entry, state, state.pid
        try:
            run.resume(connection or _connect(entry, state), state.after_start.first, goes_on=bool(goes_on))
            run.until()
        except RootlessError as error:
            if error.code in ("RL-HOOK", "RL-SECCOMP-LISTENER"):
                end(state)
            if error.code == "RL-HOOK":
                abandon(entry)
            raise
        finally:
            entry.drop_socket()
    if run.reports:
        run.reports.await_ready(state.pid)


def _started() -> tuple[int, int, int]:
    """Return what the front door hands over if the executor reports more than the usual; else zeros.

    These are the descriptors of the container's directory, which is locked, and of the connection to its start socket,
    and whether the executor has been let go on.
    """
    directory, connection, goes_on = map(int, str(sys._xoptions.get("started", "0,0,0")).split(","))  # noqa: SLF001 - documented
    for fd in (directory, connection):
        if fd:
            posix.set_inheritable(fd, False)  # noqa: FBT003 - the signature of the standard library
    return directory, connection, goes_on


def _rest_of_plan(entry: ContainerDir, state: State) -> Plan:
    """Return the operations from the start on, which state.json holds.

    Raises:
        RootlessError: `RL-CONFIG`: the container has no program. `RL-STATE`: the file was edited.
    """
    try:
        plan = Plan([from_data(each) for each in state.after_start.operations])
    except (KeyError, TypeError, ValueError):
        raise RootlessError(
            f"cannot use {entry.path}/state.json",
            cause="afterStart does not hold operations of this release",
            fix=f"rootless delete --force {entry.container_id}",
            code="RL-STATE",
        ) from None
    if not plan.first(ops.EXEC):
        raise nothing_to_run()
    return plan


def _connect(entry: ContainerDir, state: State) -> int:
    """Connect to the start socket, which lets the executor go on; return the descriptor."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(entry.socket_path())
    except ConnectionRefusedError:
        # another `start` was killed at this point, or the container was killed a moment ago
        entry.drop_socket()
        allow("start", entry.container_id, status(entry, state))
    return connection.detach()
