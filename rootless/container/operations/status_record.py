"""The status record of a created container, which the front door (helpers/front) follows without Python.

    ROOT/ID/status    a header of fixed size, then strings: helpers/front/front.h

It belongs to one state.json, and is void when that has been replaced or changed. A verb for which there is more to do
than in the ordinary case is not allowed in it, and Python carries that verb out.
"""

from __future__ import annotations

import posix
from _struct import Struct

from rootless.container.operations.undo import notes
from rootless.container.state.directory import UNDO
from rootless.container.state.lifecycle import CREATED, PAUSED, RUNNING, STOPPED
from rootless.jsontext import render
from rootless.plan import ops
from rootless.plan.plan import HANDS_OVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.plan.plan import Plan

_MAGIC = b"RLSTAT1\0"
_HEADER = Struct("=8s4Q40s12I")
"""Magic; number, size and mtime (ns) of state.json; start time; boot id; pid; what is allowed; size of the undo notes;
the lengths of the strings."""
_STATE, _START, _DELETE = 1, 2, 4
OWN = "own"
"""OWN of rootless/cgroup/group.py, which a container without a cgroup does not load."""
_LARGEST = (1 << 16) - 1
"""Bytes that the front door reads."""
_STATUSES = (CREATED, RUNNING, PAUSED, STOPPED)
_WITH_MORE = (*HANDS_OVER, ops.PASS_NOTIFY)
"""Operations of the executor that need the launcher."""


def status_record(entry: ContainerDir, state: State, plan: Plan, identity: tuple[int, int, int]) -> bytes:
    """Return the record of a container that has been created; empty if it is too large.

    Args:
        entry: its directory.
        state: its state.
        plan: its Plan.
        identity: number, size and mtime (ns) of its state.json.
    """
    undo = notes(entry)
    size = posix.stat(UNDO, dir_fd=entry.fd).st_size if undo else 0
    parents = undo.get("cgroup", {}).get("parents", ())
    record = encode(state, identity, allowed_verbs(state, plan, undo), size, parents)
    return record if len(record) <= _LARGEST else b""


def allowed_verbs(state: State, plan: Plan, undo: dict[str, Any]) -> int:
    """Return the bits of the verbs for which a container is an ordinary one; `undo` has its undo notes."""
    cgroup = undo.get("cgroup", {})
    allowed = 0
    if not (state.network and state.network.addresses):  # whose helper may have ended
        allowed |= _STATE
    if _starts_alone(plan):
        allowed |= _START
    if not state.after_delete and (not undo or (undo.keys() == {"cgroup"} and _is_own(cgroup, state.cgroup))):
        allowed |= _DELETE
    return allowed


def encode(state: State, identity: tuple[int, int, int], allowed: int, undo: int, parents: Sequence[str]) -> bytes:
    """Return the bytes of a record; `undo` is the size of the notes, `parents` are directories above the cgroup."""
    strings = record_strings(state, parents)
    numbers = (state.pid, allowed, undo, *map(len, strings))
    return _HEADER.pack(_MAGIC, *identity, state.start_time, state.boot_id.encode(), *numbers) + b"".join(strings)


def record_strings(state: State, parents: Sequence[str]) -> list[bytes]:
    """Return the strings of a record."""
    return [state.id.encode() + b"\0", _path(state.cgroup), b"".join(map(_path, parents)), *_answers(state)]


def _starts_alone(plan: Plan) -> bool:
    """Whether `start` has nothing to do but to let the executor go on."""
    kinds = [op.kind for op in plan.started()]
    return ops.EXEC in kinds and all(kind.by == ops.EXECUTOR and kind not in _WITH_MORE for kind in kinds)


def _is_own(cgroup: dict[str, object], path: str) -> bool:
    """Whether a note is about a cgroup at `path` that was made for the container, and not by systemd."""
    return (cgroup["path"], cgroup["certainty"], cgroup["unit"]) == (path, OWN, "")


def _answers(state: State) -> list[bytes]:
    """Return the output of `state` in parts: the beginning, the pid and the status for each status, the rest."""
    text = render(state.report(CREATED), indent=2) + "\n"
    before, middle, after = text.partition(f'"pid": {state.pid},\n  "status": "{CREATED}"')
    assert middle
    answers = [f'"pid": {0 if each == STOPPED else state.pid},\n  "status": "{each}"' for each in _STATUSES]
    return [part.encode() for part in (before, *answers, after)]


def _path(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape") + b"\0"
