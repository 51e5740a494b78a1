"""The verb `wait`: the exit status of containers that have ended or will end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootless.container.operations.monitor import await_status, open_exit
from rootless.container.state import store
from rootless.container.state.processes import has_ended
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.container.state.root import StateRoot
    from rootless.options import Options


def wait(options: Options) -> Iterator[int]:
    """Wait for containers in the order of the command line; yield the exit status of each, 128 + n after signal n.

    All are looked up before the first wait: one that is deleted meanwhile has its status all the same.

    Raises:
        RootlessError: `RL-NOT-FOUND`: a container does not exist. `RL-WAIT`: one has ended, and nobody noted its
            status.
    """
    root = state_root(options.root)
    opened = {}
    try:
        for container_id in dict.fromkeys((options.container, *options.args)):
            opened[container_id] = _open(root, container_id)
        for container_id in (options.container, *options.args):
            yield _await(container_id, *opened[container_id])
    finally:
        for fds in opened.values():
            for fd in fds:
                if fd >= 0:
                    os.close(fd)


def _open(root: StateRoot, container_id: str) -> tuple[int, int]:
    """Return a pidfd of the container's process and a descriptor of its exit status, each -1 if there is none."""
    with store.find(root, container_id, lock=False) as entry:
        state = store.existing_state(entry)
        return state.open_process(), open_exit(entry)


def _await(container_id: str, process: int, exit_fd: int) -> int:
    found = await_status(exit_fd) if exit_fd >= 0 else None
    if found:
        return found[0]
    if process >= 0:  # its parent is another program's, or was killed
        has_ended(process, None)
    raise RootlessError(
        f"container {container_id}",
        cause="it has ended, and its exit status is unknown: only its parent got it",
        fix="start containers with rootless run -d BUNDLE, whose exit status is kept",
        code="RL-WAIT",
    )
