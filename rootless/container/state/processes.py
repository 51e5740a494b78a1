"""The processes of a container, and how all of them end.

Its cgroup identifies them. For a container without a cgroup, namespaces do: only those that were made for it, which its
state notes. A joined namespace is another container's, or the host's.
"""

from __future__ import annotations

import posix
import select
from time import monotonic

from rootless import procfs
from rootless.errors import RootlessError
from rootless.procfs import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Self

    from rootless.container.state.state import State
else:
    import _signal

_SIGKILL = 9
_SIGSTOP = 19
_NOBODY = -1
_KINDS = ("mnt", "uts", "ipc", "net")
"""Of the namespaces that a state notes, those that identify processes: files below /proc/PID/ns."""
_PATIENCE = 10.0
"""Seconds, for processes that begin others faster than they end."""


def members(state: State) -> list[int]:
    """Return the ids on the host of a container's processes, the first one included."""
    if state.cgroup:
        from rootless.cgroup.group import opened

        group = opened(state.cgroup)
        if group:
            with group:
                return group.processes()
    with _Family(state) as family:
        return sorted(family.look().keys() | {state.pid})


def signal_all(state: State, process: int, number: int) -> None:
    """Signal every process of a container whose first one is alive, and behind the pidfd `process`.

    Raises:
        RootlessError: `RL-KILL`: SIGKILL does not end them.
    """
    if number == _SIGKILL and not is_process_1(state.pid):
        kill_all(state, process)
        return
    if state.cgroup and signal_cgroup(state.cgroup, number) and _is_in_cgroup(state):
        return
    if number != _SIGKILL:  # which the kernel sends to the others when process 1 ends, pid_namespaces(7)
        with _Family(state) as family:
            for pid, start_time in family.others().items():
                _signal_process(pid, start_time, number)
    send(process, number)


def _is_in_cgroup(state: State) -> bool:
    """Whether the first process is where it was made: an administrator or systemd may have moved it."""
    from rootless.cgroup.group import opened

    group = opened(state.cgroup)
    if not group:
        return False
    with group:
        return state.pid in group.processes()


def kill_all(state: State, process: int) -> None:
    """Send SIGKILL to every process of a container, and to the processes that they start meanwhile.

    Args:
        state: the container's; it has no pid namespace of its own.
        process: a pidfd of its first process, which is alive.

    Raises:
        RootlessError: `RL-KILL`: they start others faster than they end.
    """
    with _Family(state) as family:
        # a stopped process starts no other, and stays the parent of its children until look() has found them
        send(process, _SIGSTOP)
        family.signal_until_none(_SIGSTOP)
        if state.cgroup:
            signal_cgroup(state.cgroup, _SIGKILL)
        ended = family.signal_until_none(_SIGKILL)
        send(process, _SIGKILL)
        if not (ended and family.signal_until_none(_SIGKILL)):
            raise RootlessError(
                "cannot end the container",
                cause=f"for {_PATIENCE:.0f} s its processes have started others faster than they end",
                fix="run the command again; create the container with a pid namespace",
                code="RL-KILL",
            )


def signal_cgroup(path: str, number: int) -> bool:
    """Signal every process in a cgroup and below; return whether the cgroup exists."""
    from rootless.cgroup.group import opened

    group = opened(path)
    if not group:
        return False
    with group:
        if number == _SIGKILL:
            group.kill()
            return True
        processes = [(pid, process) for pid in group.processes() if (process := _open(pid)) >= 0]
        # a pid that is still in the cgroup was not reused: its pidfd was opened before this read
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
    """Signal the process of a pidfd; a process that has ended is no error."""
    try:
        _signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return


def is_process_1(pid: int) -> bool:
    """Whether the process is process 1 of a pid namespace: its end kills the others."""
    return procfs.status(pid).get("NSpid", "").split()[-1:] == ["1"]


def has_ended(process: int, patience: float | None = 0) -> bool:
    """Whether the process of a pidfd has ended, or ends within these milliseconds; None waits as long as it takes."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(patience))


class _Family:
    """The processes of a container without a cgroup: namespaces and descent identify them.

    They are those in the namespaces that were made for it, those in the session of its first process, which began with
    it, and the descendants of all these. The caller and its ancestors never count.
    """

    def __init__(self, state: State) -> None:
        """Hold the namespaces that identify them open: until close(), no other namespace gets one of their numbers."""
        self._first: int = state.pid
        self._start_time: int = state.start_time
        self._lineage = _lineage()
        self._held: list[int] = []
        self._namespaces = self._identifying(state)

    def _identifying(self, state: State) -> dict[str, int]:
        """Return the namespaces that contain all of these processes and no others: numbers by kind."""
        if is_process_1(self._first):
            identifying = {"pid": _namespace(self._first, "pid")}
        else:
            numbers = state.made  # empty in the states of older releases
            # containers of a pod, for example, share the others
            kinds = ("mnt",) if "mnt" in numbers else _KINDS
            identifying = {kind: numbers[kind] for kind in kinds if kind in numbers}
        for kind, number in identifying.items():
            # a namespace that the first process has left may have ended, and its number was reused
            if not self._hold(kind, number) or any(_namespace(pid, kind) == number for pid in self._lineage):
                return {}
        return identifying

    def _hold(self, kind: str, number: int) -> bool:
        """Keep a namespace of the first process open; return whether it has that number."""
        try:
            fd = posix.open(f"/proc/{self._first}/ns/{kind}", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return False
        self._held.append(fd)
        return posix.fstat(fd).st_ino == number

    def look(self) -> dict[int, int]:
        """Return the start time of each process that is alive now, by its id."""
        there = {
            int(name): found for name in posix.listdir("/proc") if name.isdecimal() and (found := _read(int(name)))
        }
        first = there.get(self._first)
        if first is None or first.start_time != self._start_time:
            self._first = _NOBODY  # its number may be reused, as that of a session too
        members = {
            pid
            for pid, process in there.items()
            if self._first in (pid, process.session) or (self._namespaces and self._is_inside(pid))
        }
        fresh = members
        while fresh:
            fresh = {pid for pid, process in there.items() if process.parent in fresh and pid not in members}
            members |= fresh
        return {pid: there[pid].start_time for pid in members - self._lineage if there[pid].alive}

    def _is_inside(self, pid: int) -> bool:
        return all(_namespace(pid, kind) == number for kind, number in self._namespaces.items())

    def others(self) -> dict[int, int]:
        """Return the same without the first process."""
        found = self.look()
        found.pop(self._first, None)
        return found

    def signal_until_none(self, number: int) -> bool:
        """Signal each but the first once; return whether look() finds no other before the deadline."""
        signalled: set[tuple[int, int]] = set()
        deadline = monotonic() + _PATIENCE
        while fresh := self.others().items() - signalled:
            for pid, start_time in fresh:
                _signal_process(pid, start_time, number)
            signalled |= fresh
            if monotonic() > deadline:
                return False
        return True

    def close(self) -> None:
        """Close the namespaces."""
        while self._held:
            posix.close(self._held.pop())

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the namespaces."""
        self.close()


def _lineage() -> set[int]:
    """Return the caller, its ancestors and process 1."""
    found = {1}
    pid = posix.getpid()
    while pid not in found and (process := _read(pid)):
        found.add(pid)
        pid = process.parent
    return found


def _read(pid: int) -> Process | None:
    try:
        return Process.read(pid)
    except OSError:
        return None


def _signal_process(pid: int, start_time: int, number: int) -> None:
    """Signal a process that look() has found, unless its pid was reused, or the caller may not signal it."""
    process = _open(pid)
    if process < 0:
        return
    try:
        found = _read(pid)
        if found and found.start_time == start_time:
            send(process, number)
    except PermissionError:
        return
    finally:
        posix.close(process)


def _namespace(pid: int, kind: str) -> int:
    try:
        return posix.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0
