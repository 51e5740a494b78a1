"""Which processes are a container's: those in its cgroup; where it has none of its own, namespaces tell."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal


_SIGKILL = 9


def members(state: dict[str, Any]) -> list[int]:
    """Return the ids on the host of the processes of the container that `state` is about, its first one included.

    Without a cgroup of its own they are those in the pid namespace that the first one began; where it began none (the
    host's, a pod's), those in its mount namespace. The caller's own namespaces tell nothing.
    """
    if "cgroup" in state:
        from rootless.cgroup.group import opened

        group = opened(state["cgroup"])
        if group:
            with group:
                return group.processes()
    first: int = state["pid"]
    kind, namespace = _told_by(first)
    return sorted({first} | _others(first, kind, namespace))


def signal_others(first: int, number: int) -> set[int]:
    """Signal every process in the container's namespace but its first one, and return their ids."""
    kind, namespace = _told_by(first)
    return {pid for pid in _others(first, kind, namespace) if _signal_member(pid, kind, namespace, number)}


def signal_cgroup(path: str, number: int) -> bool:
    """Signal every process in a cgroup and below; return whether there is such a cgroup."""
    from rootless.cgroup.group import opened

    group = opened(path)
    if not group:
        return False
    with group:
        if number == _SIGKILL:
            group.kill()
            return True
        processes = [(pid, process) for pid in group.processes() if (process := _open(pid)) >= 0]
        # whose number is still in the cgroup now, is of the cgroup: it has been opened before
        still = set(group.processes())
    for pid, process in processes:
        if pid in still:
            send(process, number)
        posix.close(process)
    return True


def _open(pid: int) -> int:
    try:
        return posix.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def send(process: int, number: int) -> None:
    """Signal the process behind a pidfd; that it is gone is no error."""
    try:
        _signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return


def is_process_1(pid: int) -> bool:
    """Whether the process is the first one of a pid namespace, whose end takes the namespace with it."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(line.startswith(b"NSpid:") and line.endswith(b"\t1") for line in lines)


def _told_by(first: int) -> tuple[str, int]:
    """Return the kind and the number of the namespace that tells the members, 0 where there is none."""
    kind = "pid" if is_process_1(first) else "mnt"
    namespace = _namespace(first, kind)
    return kind, 0 if namespace == _namespace(posix.getpid(), kind) else namespace


def _others(first: int, kind: str, namespace: int) -> set[int]:
    if not namespace:
        return set()
    found = {int(name) for name in posix.listdir("/proc") if name.isdecimal() and int(name) != first}
    return {pid for pid in found if _namespace(pid, kind) == namespace}


def _signal_member(pid: int, kind: str, namespace: int, number: int) -> bool:
    """Signal a process if it is still one of the namespace: by then the number may be somebody else's."""
    try:
        process = posix.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        is_member = _namespace(pid, kind) == namespace
        if is_member:
            send(process, number)
    except PermissionError:
        return False
    finally:
        posix.close(process)
    return is_member


def _namespace(pid: int, kind: str) -> int:
    try:
        return posix.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0
