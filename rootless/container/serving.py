"""Processes that serve a network: known by number and start time, so that none of somebody else's is taken for one."""

from __future__ import annotations

import posix
import select

from rootless.container.lifecycle import Process
from rootless.container.members import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 1000
"""Milliseconds in which what is told to end, or has nothing to do any more, ends."""


def alive(process: Sequence[int]) -> bool:
    """Whether a process, as lifecycle.identity() tells it, is there."""
    pid, start_time = process
    found = Process.read(pid)
    return bool(found and found.alive and found.start_time == start_time)


def end(process: Sequence[int]) -> None:
    """Kill one and wait until it is gone."""
    _until_gone(process, 9)


def await_end(process: Sequence[int]) -> None:
    """Wait until one that has nothing to do any more is gone."""
    _until_gone(process, 0)


def _until_gone(process: Sequence[int], number: int) -> None:
    try:
        opened = posix.pidfd_open(process[0])
    except OSError:
        return
    try:
        if alive(process):
            if number:
                send(opened, number)
            poll = select.poll()
            poll.register(opened, select.POLLIN)
            poll.poll(_PATIENCE)
    finally:
        posix.close(opened)
