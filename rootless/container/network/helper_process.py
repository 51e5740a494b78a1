"""Processes that serve a network: known by number and start time, so that none of somebody else's is taken for one."""

from __future__ import annotations

import posix
import select

from rootless.container.state.processes import send
from rootless.procfs import is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 1000
"""Milliseconds in which what is told to end, or has nothing to do any more, ends."""


def end(process: Sequence[int], *, wait: bool = True) -> None:
    """Kill one and, unless nobody wants what it has, wait until it is gone: with a link that takes 15 ms."""
    _until_gone(process, 9, wait=wait)


def await_end(process: Sequence[int]) -> None:
    """Wait until one that has nothing to do any more is gone."""
    _until_gone(process, 0, wait=True)


def _until_gone(process: Sequence[int], number: int, *, wait: bool) -> None:
    try:
        opened = posix.pidfd_open(process[0])
    except OSError:
        return
    try:
        if is_there(process):
            if number:
                send(opened, number)
            if wait:
                poll = select.poll()
                poll.register(opened, select.POLLIN)
                poll.poll(_PATIENCE)
    finally:
        posix.close(opened)
