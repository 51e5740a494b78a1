"""The verb `events`: the resources that a container uses, at intervals, and out-of-memory kills."""

from __future__ import annotations

import posix
import select
import time

from rootless import log
from rootless.cgroup.stats import stats
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, allow, status
from rootless.container.state.own_cgroup import group_of
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rootless.cgroup.group import Group
    from rootless.options import Options

_USUAL_INTERVAL = 5.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def events(options: Options) -> Iterator[dict[str, Any]]:
    """Yield events until the container ends; with --stats, one event with the present usage.

    Raises:
        RootlessError: there is no such container, it does not run, or it has no cgroup of its own.
    """
    interval = seconds(options.interval) if options.interval else _USUAL_INTERVAL
    with store.find(state_root(options.root), options.container, lock=False) as entry:
        state = store.existing_state(entry)
        allow("events", entry.container_id, status(entry, state))
        process = state.open_process()
        if process < 0:
            allow("events", entry.container_id, STOPPED)
    try:
        with group_of(state, f"events of container {options.container}") as group:
            if log.is_debug():
                log.debug("read the usage once" if options.stats else f"read the usage every {interval:g} s")
            if options.stats:
                yield _event("stats", options.container, stats(group))
            else:
                yield from _watch(group, process, options.container, interval)
    finally:
        posix.close(process)


def _watch(group: Group, process: int, container: str, interval: float) -> Iterator[dict[str, Any]]:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    try:
        memory = posix.open("memory.events", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=group.fd)
        poll.register(memory, select.POLLPRI)
    except OSError:
        memory = -1
    killed = group.fields("memory.events").get("oom_kill", 0)
    due = time.monotonic() + interval
    try:
        while True:
            ready = [fd for fd, _ in poll.poll(max(0, due - time.monotonic()) * 1000)]
            if memory in ready:
                now = _killed(memory)
                for _ in range(killed, now):
                    yield _event("oom", container)
                killed = max(killed, now)
            if process in ready:
                return
            if not ready:
                yield _event("stats", container, stats(group))
                due = time.monotonic() + interval
    finally:
        if memory >= 0:
            posix.close(memory)


def _killed(memory: int) -> int:
    """Return the number of out-of-memory kills in the cgroup; after the read, poll(2) waits for the next."""
    try:
        posix.lseek(memory, 0, 0)
        lines = posix.read(memory, 4096).decode().splitlines()
    except OSError:
        return 0  # the cgroup has gone
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _event(kind: str, container: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    event: dict[str, Any] = {"type": kind, "id": container}
    return event | {"data": data} if data else event


def seconds(text: str) -> float:
    """Return a time such as ``500ms``, ``5s``, ``1m30s``, as Go's time.ParseDuration, in seconds.

    Raises:
        RootlessError: it is not a time, or not a positive one.
    """
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = next((unit for unit in _UNITS if rest[digits:].startswith(unit)), "")
        try:
            total += float(rest[:digits]) * _UNITS[unit]
        except (ValueError, KeyError):
            total = 0
            break
        rest = rest[digits + len(unit) :]
    if total <= 0:
        raise RootlessError(
            f"--interval {text}",
            cause="it is not a time",
            fix="write a number with its unit: 500ms, 5s, 1m",
            code="RL-INTERVAL",
        )
    return total
