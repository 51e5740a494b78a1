"""What the verbs do with a container that is there. Each takes the whole of what the caller asked."""

from __future__ import annotations

import posix

from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, allow, open_process, status
from rootless.container.state.teardown import abandon, destroy, end, readable
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from rootless.container.starting import Starting
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.container.state.store import StateRoot
    from rootless.options import Options
    from rootless.plan.ops import Op

_SIGKILL = 9


def start(options: Options) -> None:
    """Let the program of a created container run; return when it does."""
    import _socket

    from rootless.launch.protocol import EXECUTING, complain, init_killed, read_message

    with store.find(store.state_root(options.root), options.container) as entry:
        state = store.existing_state(entry)
        _allow_start(entry, state)
        starting = _starting(state) if state.hooks or state.listener or state.notify else None
        read = starting.reader.read if starting and starting.reader else read_message
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connection.connect(entry.socket_path())
        except ConnectionRefusedError:
            # a `start` that was killed got as far as this, or the container was killed a moment ago
            entry.drop_socket()
            allow("start", entry.container_id, status(entry, state))
        executing = False
        try:
            _send_start(connection)
            while message := read(connection.fileno()):
                kind, index, number, detail = message
                if kind == EXECUTING:
                    executing = True
                else:
                    complain(_operation_after_start(state, index), kind, number, detail)
            if not executing:
                raise init_killed()
            if starting:
                starting.run_poststart()
        except RootlessError as error:
            if error.code in ("RL-HOOK", "RL-SECCOMP-LISTENER"):
                end(state)
            if error.code == "RL-HOOK":
                abandon(entry)
            raise
        finally:
            entry.drop_socket()
    if starting and starting.reports:
        starting.reports.await_ready(state.pid)


def _send_start(connection: _socket.socket) -> None:
    """Ask for the start. When the container has just been killed, end of file says so."""
    try:
        connection.send(b"S")
    except (BrokenPipeError, ConnectionResetError):
        return


def _allow_start(entry: ContainerDir, state: State) -> None:
    allow("start", entry.container_id, status(entry, state))
    if not state.after_start.operations:
        from rootless.plan.compile import nothing_to_run

        raise nothing_to_run()


def _starting(state: State) -> Starting:
    from rootless.container.starting import Starting

    return Starting(state)


def kill(options: Options) -> None:
    """Send a signal to the first process of a container, or with --all to every process of it.

    Only in a pid namespace does the kernel end the others with the first: elsewhere SIGKILL goes to all, as with runc.
    """
    from rootless.container.state.processes import is_process_1, send, signal_all, signal_cgroup

    root = store.state_root(options.root)
    for container_id in _chosen(options, root):
        with store.find(root, container_id, lock=False) as entry:
            found = store.existing_state(entry)
            now = status(entry, found)
            process = open_process(found) if now != STOPPED else -1
            if process < 0:
                if not options.all:
                    allow("kill", container_id, STOPPED)
                if found.cgroup and now == STOPPED and found.is_of_this_boot():
                    signal_cgroup(found.cgroup, options.signal)
                continue
            try:
                allow("kill", container_id, now)
                if options.all or (options.signal == _SIGKILL and not is_process_1(found.pid)):
                    signal_all(found, process, options.signal)
                else:
                    send(process, options.signal)
            finally:
                posix.close(process)


def delete(options: Options) -> None:
    """Remove a container that is stopped; with --force, whatever it is doing."""
    root = store.state_root(options.root)
    for container_id in _chosen(options, root):
        if options.force:
            _delete_by_force(root, container_id)
            continue
        with store.find(root, container_id) as entry:
            found = store.existing_state(entry)
            allow("delete", container_id, status(entry, found))
            destroy(entry, found)


def _delete_by_force(root: StateRoot, container_id: str) -> None:
    try:
        # without the lock first: who holds it may be waiting for the very process that has to go
        with store.find(root, container_id, lock=False) as entry:
            found = readable(entry)
            if found:
                end(found)
        with store.find(root, container_id) as entry:
            destroy(entry, _end_by_force(entry))
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise


def _end_by_force(entry: ContainerDir) -> State | None:
    """End the processes of a container; return its state, or None where that is of no further use.

    Raises:
        RootlessError: `RL-STATE`: its state is damaged, and what is left of it does not tell which they are.
    """
    try:
        found = entry.read()
    except RootlessError:
        from rootless.container.state.salvage import end_salvaged

        end_salvaged(entry)
        return None
    if found:
        end(found)
    return found


def _operation_after_start(state: State, index: int) -> Op | None:
    """Return the operation that helpers/init names by its place in the Plan."""
    from rootless.plan.ops import from_data

    after = state.after_start
    place = index - after.first
    try:
        return from_data(after.operations[place]) if 0 <= place < len(after.operations) else None
    except (KeyError, TypeError, ValueError, StopIteration):  # edited by hand
        return None


def _chosen(options: Options, root: StateRoot) -> list[str]:
    """Return the ids that the caller means."""
    if not options.regex:
        return [options.container]
    import re

    try:
        pattern = re.compile(options.container)
    except re.error as error:
        raise RootlessError(
            f"--regex {options.container!r}", cause=str(error), fix="write a regular expression", code="RL-REGEX"
        ) from None
    return [container_id for container_id in store.ids(root) if pattern.search(container_id)]
