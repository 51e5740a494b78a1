"""The verb `stop`: the container's own signal first, SIGKILL for a container that is still alive later."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from rootless import log
from rootless.container.operations.teardown import end
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, allow, status
from rootless.container.state.processes import has_ended, send
from rootless.container.state.root import state_root
from rootless.signals import TERM, signal_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.container.state.root import StateRoot
    from rootless.container.state.state import State
    from rootless.options import Options

_STOP_SIGNAL = "org.opencontainers.image.stopSignal"
"""Annotation: the STOPSIGNAL of the image (image specification, "Annotations")."""


def stop(options: Options) -> Iterator[str]:
    """Stop containers, all at the same time; yield the id of each that has stopped, or had stopped before.

    Raises:
        RootlessError: `RL-NOT-FOUND`, `RL-STATUS`: a container does not exist or is being created; none is stopped.
    """
    root = state_root(options.root)
    opened: dict[str, tuple[State, int]] = {}
    try:
        for container_id in dict.fromkeys((options.container, *options.args)):
            opened[container_id] = _open(root, container_id)
        for state, process in opened.values():
            if process >= 0:
                _ask(state, process)
        deadline = monotonic() + options.time
        for container_id, (state, process) in opened.items():
            if process >= 0 and not has_ended(process, max(0, (deadline - monotonic()) * 1000)):
                log.info(f"container {container_id} has not ended after {options.time} s: it is killed")
                end(state)
            yield container_id
    finally:
        for _, process in opened.values():
            if process >= 0:
                os.close(process)


def _open(root: StateRoot, container_id: str) -> tuple[State, int]:
    """Return the state of a container and a pidfd of its first process, -1 if it has ended."""
    with store.find(root, container_id, lock=False) as entry:
        state = store.existing_state(entry)
        now = status(entry, state)
        if now == STOPPED:
            return state, -1
        allow("kill", container_id, now)
        return state, state.open_process()


def _ask(state: State, process: int) -> None:
    """Send the signal, and thaw a paused container, which could not obey."""
    send(process, stop_signal(state.annotations))
    if state.is_frozen():
        from rootless.cgroup.group import opened

        group = opened(state.cgroup)
        if group:
            with group:
                group.thaw()


def stop_signal(annotations: dict[str, str]) -> int:
    """Return the signal that ends the container's program in its own way."""
    asked = annotations.get(_STOP_SIGNAL, "")
    number = signal_number(asked) if asked else TERM
    if number <= 0:
        log.warning(f"annotation {_STOP_SIGNAL}: unknown signal {asked!r}: SIGTERM is sent")
        return TERM
    return number
