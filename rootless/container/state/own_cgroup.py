"""A container's own cgroup, for the verbs `pause`, `resume`, `update` and `events`."""

from __future__ import annotations

from rootless import log
from rootless.cgroup.group import Group
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATED, RUNNING, allow, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.state import State
    from rootless.options import Options


def cgroup_for(options: Options, verb: str) -> tuple[Group, State]:
    """Return the cgroup and the state of a container whose status allows `verb`.

    Raises:
        RootlessError: `RL-STATUS`: it does not; `RL-CGROUP`: it has no cgroup of its own.
    """
    with store.find(state_root(options.root), options.container) as entry:
        state = store.existing_state(entry)
        now = status(entry, state)
        if now in (CREATED, RUNNING) and not state.cgroup:
            group_of(state, f"{verb} container {entry.container_id}")  # raises the reason
        allow(verb, entry.container_id, now)
        return group_of(state, f"{verb} container {entry.container_id}"), state


def group_of(state: State, what: str) -> Group:
    """Return the cgroup of a container; `what` begins the error if it has none.

    Raises:
        RootlessError: `RL-CGROUP`: it has no cgroup of its own.
    """
    if not state.cgroup:
        from rootless.host import delegation

        there = delegation.read()
        raise RootlessError(
            what,
            cause="it has no cgroup of its own" + ("" if there.base else f": {there.obstacle}"),
            fix=there.fix or "create it again where a cgroup is delegated to you",
            code="RL-CGROUP",
        )
    try:
        group = Group(state.cgroup)
    except OSError as error:
        raise RootlessError(
            what,
            cause=f"its cgroup {state.cgroup}: {(error.strerror or '').lower()}",
            fix="check that /sys/fs/cgroup is the same here as where it was created",
            code="RL-CGROUP",
        ) from None
    if log.is_debug():
        controllers = group.read("cgroup.controllers").strip() or "no controllers"
        log.debug(f"cgroup {group.path} has {controllers}")
    return group
