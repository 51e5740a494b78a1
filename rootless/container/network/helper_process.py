"""The end of helpers and netns holders: pid and start time identify them, so that a reused pid is never signalled."""

from __future__ import annotations

import posix

from rootless.container.state.processes import has_ended, send
from rootless.procfs import is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 1000
"""Milliseconds in which a process ends that is killed or idle."""


def end(process: Sequence[int], *, wait: bool = True) -> None:
    """Kill a process and, with `wait`, return when it is gone: that takes 15 ms if it has a network interface."""
    _until_gone(process, 9, wait=wait)


def await_end(process: Sequence[int]) -> None:
    """Wait until a process that ends on its own is gone."""
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
                has_ended(opened, _PATIENCE)
    finally:
        posix.close(opened)
