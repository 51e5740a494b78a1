"""What the verbs do with a container that is there. Each takes the whole of what the caller asked."""

from __future__ import annotations

import os
import select

from rootless.container import store
from rootless.container.lifecycle import RUNNING, STOPPED, Process, allow, open_process, shown, status
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rootless.container.store import Entry
    from rootless.plan.options import Options

_SIGKILL = 9


def start(options: Options) -> None:
    """Let the program of a created container run; return when it does."""
    import _socket

    from rootless.launch.protocol import complain, read_message

    with store.find(store.state_root(options.root), options.container) as entry:
        state = _state(entry)
        allow("start", entry.container_id, status(entry, state))
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connection.connect(entry.socket_path())
        except ConnectionRefusedError:
            # a `start` that was killed got as far as this
            entry.drop_socket()
            allow("start", entry.container_id, RUNNING)
        plan = None
        try:
            while message := read_message(connection.fileno()):
                plan = plan or _plan_again(options, state)
                complain(plan, *message)
        finally:
            entry.drop_socket()


def state(options: Options) -> dict[str, object]:
    """Return the state of a container, as runtime.md has it."""
    with store.find(store.state_root(options.root), options.container, lock=False) as entry:
        found = _state(entry)
        return shown(found, status(entry, found))


def list_containers(options: Options) -> list[dict[str, object]]:
    """Return the states of all containers of the root."""
    root = store.state_root(options.root)
    states = []
    for container_id in store.ids(root):
        try:
            with store.find(root, container_id, lock=False) as entry:
                found = entry.read()
                if found:
                    states.append(shown(found, status(entry, found)))
        except RootlessError:
            continue  # it went away between the two looks, or is somebody's broken file: the others are still listed
    return states


def kill(options: Options) -> None:
    """Send a signal to the first process of a container, or with --all to every process of it."""
    root = store.state_root(options.root)
    for container_id in _chosen(options, root):
        with store.find(root, container_id, lock=False) as entry:
            found = _state(entry)
            now = status(entry, found)
            if now == STOPPED and options.all:
                _signal_others(found, options.signal)
                continue
            allow("kill", container_id, now)
            if options.all:
                _signal_others(found, options.signal)
            _signal_first(container_id, found, options.signal)


def delete(options: Options) -> None:
    """Remove a container that is stopped; with --force, whatever it is doing."""
    root = store.state_root(options.root)
    for container_id in _chosen(options, root):
        if options.force:
            _delete_by_force(root, container_id)
            continue
        with store.find(root, container_id) as entry:
            found = _state(entry)
            allow("delete", container_id, status(entry, found))
            entry.remove()


def _delete_by_force(root: str, container_id: str) -> None:
    try:
        # without the lock first: who holds it may be waiting for the very process that has to go
        with store.find(root, container_id, lock=False) as entry:
            found = entry.read()
            if found:
                _end(found)
        with store.find(root, container_id) as entry:
            found = entry.read()
            if found:
                _end(found)
            entry.remove()
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise


def _end(state: dict[str, Any]) -> None:
    """Kill every process of the container and wait until the first one is gone."""
    if "pid" not in _own_namespaces(state):
        _signal_others(state, _SIGKILL)
    process = open_process(state)
    if process < 0:
        return
    try:
        _send(process, _SIGKILL)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll()
    finally:
        os.close(process)


def _state(entry: Entry) -> dict[str, Any]:
    found = entry.read()
    if found is None:
        raise RootlessError(
            f"container {entry.container_id}",
            cause="container does not exist: it is being created, or its create was killed",
            fix=f"rootless delete --force {entry.container_id}",
            code="RL-NOT-FOUND",
        )
    return found


def _plan_again(options: Options, state: dict[str, Any]) -> Any:
    """Compile the Plan of a created container once more, to name the operation that failed after its start."""
    from rootless.container.create import plan_for

    options.bundle = state["bundle"]
    try:
        return plan_for(options)[1]
    except RootlessError:
        return None  # the bundle was changed meanwhile: the error names the system call only


def _chosen(options: Options, root: str) -> list[str]:
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
    return [container_id for container_id in store.ids(root) if pattern.fullmatch(container_id)]


def _signal_first(container_id: str, state: dict[str, Any], number: int) -> None:
    process = open_process(state)
    if process < 0:
        allow("kill", container_id, STOPPED)
    try:
        _send(process, number)
    finally:
        os.close(process)


def _send(process: int, number: int) -> None:
    import _signal

    try:
        _signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return


def _signal_others(state: dict[str, Any], number: int) -> None:
    """Signal every process of the container but the first: those of its pid namespace, or its descendants."""
    for pid in _others(state):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _others(state: dict[str, Any]) -> Iterator[int]:
    first = state["pid"]
    own = _own_namespaces(state)
    if "pid" in own:
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) != first and _namespace(int(name), "pid") == own["pid"]:
                yield int(name)
        return
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        process = Process.read(int(name)) if name.isdecimal() else None
        if process:
            children.setdefault(process.parent, []).append(process.pid)
    generation = children.get(first, [])
    while generation:
        yield from generation
        generation = [pid for parent in generation for pid in children.get(parent, [])]


def _own_namespaces(state: dict[str, Any]) -> dict[str, int]:
    """Return the pid namespace of the container's process if it is not ours; empty otherwise."""
    theirs = _namespace(state["pid"], "pid")
    return {"pid": theirs} if theirs and theirs != _namespace(os.getpid(), "pid") else {}


def _namespace(pid: int, kind: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0
