"""What the verbs do with a container that is there. Each takes the whole of what the caller asked."""

from __future__ import annotations

import os
import select

from rootless.container import store
from rootless.container.lifecycle import RUNNING, STOPPED, allow, open_process, shown, status
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from rootless.container.store import Entry
    from rootless.plan.ops import Op
    from rootless.plan.options import Options
else:
    import _signal

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
        try:
            while message := read_message(connection.fileno()):
                kind, index, number, detail = message
                complain(_operation_after_start(state, index), kind, number, detail)
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
            process = open_process(found) if now != STOPPED else -1
            if process < 0:
                if not options.all:
                    allow("kill", container_id, STOPPED)
                continue
            try:
                allow("kill", container_id, now)
                if options.all:
                    _signal_others(found["pid"], options.signal)
                _send(process, options.signal)
            finally:
                os.close(process)


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
            found = _readable(entry)
            if found:
                _end(found)
        with store.find(root, container_id) as entry:
            found = _readable(entry)
            if found:
                _end(found)
            entry.remove()
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise


def _readable(entry: Entry) -> dict[str, Any] | None:
    """Return the state on disk, or None where that is of no use."""
    try:
        return entry.read()
    except RootlessError:
        return None


def _end(state: dict[str, Any]) -> None:
    """Kill every process of the container and wait until the first one is gone."""
    process = open_process(state)
    if process < 0:
        return
    first = state["pid"]
    try:
        if not _is_process_1(first):  # whose end takes its pid namespace with it
            killed: set[int] = set()
            while fresh := _signal_others(first, _SIGKILL) - killed:
                killed |= fresh
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


def _operation_after_start(state: dict[str, Any], index: int) -> Op | None:
    """Return the operation that helpers/init names by its place in the Plan."""
    from rootless.plan.ops import from_data

    after = state["afterStart"]
    place = index - after["first"]
    return from_data(after["operations"][place]) if 0 <= place < len(after["operations"]) else None


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


def _send(process: int, number: int) -> None:
    try:
        _signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return


def _signal_others(first: int, number: int) -> set[int]:
    """Signal every process of the container whose first process is `first`, except for that, and return their ids.

    They are those in the pid namespace that `first` began; where it began none (the host's, a pod's), those in its
    mount namespace. The caller's own namespaces tell nothing.
    """
    kind = "pid" if _is_process_1(first) else "mnt"
    namespace = _namespace(first, kind)
    if namespace in (0, _namespace(os.getpid(), kind)):
        return set()
    found = {int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != first}
    return {pid for pid in found if _namespace(pid, kind) == namespace and _signal_member(pid, kind, namespace, number)}


def _signal_member(pid: int, kind: str, namespace: int, number: int) -> bool:
    """Signal a process if it is still one of the namespace: by then the number may be somebody else's."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        is_member = _namespace(pid, kind) == namespace
        if is_member:
            _send(process, number)
    except PermissionError:
        return False
    finally:
        os.close(process)
    return is_member


def _is_process_1(pid: int) -> bool:
    """Whether the process is the first one of a pid namespace."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(line.startswith(b"NSpid:") and line.endswith(b"\t1") for line in lines)


def _namespace(pid: int, kind: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0
