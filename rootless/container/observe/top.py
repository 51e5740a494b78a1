"""The resources that each container of the user uses: for `top`."""

from __future__ import annotations

import time

from rootless import log
from rootless.cgroup.group import opened
from rootless.cgroup.stats import stats
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, status
from rootless.container.state.processes import members
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.container.state.directory import ContainerDir
    from rootless.options import Options

_NANOSECONDS = 1_000_000_000
_NO_LIMIT = 1 << 63


class Usage:
    """The usage of one container at one moment.

    Attributes:
        container: its id.
        status: its state.
        processes: their number; None if it has stopped.
        cpu: CPU time, in seconds.
        memory: bytes.
        memory_limit: bytes; 0 for none.
        read, written: bytes from and to block devices; None if no cgroup counts them.
        share: of one CPU since the last look, in percent; None at first.
    """

    def __init__(self, container: str, now: str) -> None:
        self.container = container
        self.status = now
        self.processes: int | None = None
        self.cpu = 0.0
        self.memory = 0
        self.memory_limit = 0
        self.read: int | None = None
        self.written: int | None = None
        self.share: float | None = None

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        names = {
            "id": "container", "status": "status", "processes": "processes", "cpuPercent": "share", "cpuSeconds": "cpu",
            "memory": "memory", "memoryLimit": "memory_limit", "read": "read", "written": "written",
        }  # fmt: skip
        return {key: getattr(self, name) for key, name in names.items()}


class Watch:
    """Looks at every container repeatedly."""

    def __init__(self, options: Options) -> None:
        self._root = state_root(options.root)
        self._chosen = options.args
        self._before: dict[str, tuple[float, float]] = {}

    def look(self) -> list[Usage]:
        """Return the usage of each container now, and its share of the CPU since the last look."""
        found = []
        for container in store.ids(self._root):
            if self._chosen and container not in self._chosen:
                continue
            try:
                with store.find(self._root, container, lock=False) as entry:
                    usage = _usage(entry)
            except RootlessError:
                continue  # it was removed, or its state is damaged: the others are shown
            if usage:
                now = time.monotonic()
                if container in self._before:
                    then, cpu = self._before[container]
                    usage.share = max(0.0, round(100 * (usage.cpu - cpu) / (now - then), 1))
                self._before[container] = now, usage.cpu
                found.append(usage)
        return found


def _usage(entry: ContainerDir) -> Usage | None:
    state = entry.read()
    if state is None:
        return None
    usage = Usage(entry.container_id, status(entry, state))
    if usage.status == STOPPED:
        return usage
    group = opened(state.cgroup) if state.cgroup else None
    pids = members(state)
    usage.processes = len(pids)
    if log.is_debug():
        log.debug(f"usage of {entry.container_id} from {group.path if group else 'its processes: it has no cgroup'}")
    if not group:
        _add_processes(usage, pids)
        return usage
    with group:
        known = stats(group)
        usage.cpu = known["cpu"]["usage"]["total"] / _NANOSECONDS
        if group.read("memory.current"):
            usage.memory = known["memory"]["usage"]["usage"]
            limit = known["memory"]["usage"]["limit"]
            usage.memory_limit = limit if limit < _NO_LIMIT else 0
        else:
            _add_processes(usage, pids, cpu=False)
        if group.read("io.stat"):
            transferred = known["blkio"].get("ioServiceBytesRecursive", ())
            usage.read = sum(each["value"] for each in transferred if each["op"] == "Read")
            usage.written = sum(each["value"] for each in transferred if each["op"] == "Write")
    return usage


def _add_processes(usage: Usage, pids: list[int], *, cpu: bool = True) -> None:
    """Add up the usage of the processes if no cgroup counts it; shared memory counts for each."""
    import psutil

    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                memory, times = process.memory_info(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        usage.memory += memory.rss
        if cpu:
            usage.cpu += times.user + times.system
