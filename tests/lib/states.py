"""What a container's directory holds: undo notes, and what a hand may have written into a state.json."""

from __future__ import annotations

import json

VALUES = (None, True, -1, 0, 2**70, 1.5, "", "\0", "\ud800", "/", "no", [], [1], [2**40, 1], [None], {}, {"a": None})
"""What a hand may write at any place."""


def edited(state, path, value):
    """Return the state with another value at a place; `path` names properties and indices."""
    copy = json.loads(json.dumps(state))
    inside = copy
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return copy


def places(value, path=()):
    """Yield the places of a value and of what is in it."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def full_state(state):
    """Return the state with all that a container may have."""
    hook = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}
    port = {"protocol": "tcp", "hostIP": "", "hostPort": 8080, "containerPort": 80}
    return state | {
        "keyringName": "_ses.c1",
        "made": {"mnt": 1},
        "annotations": {"run.oci.hooks.stdout": "/dev/null"},
        "afterDelete": [{"op": "run_hook", "kind": "poststop", "hook": hook, "status": "stopped", "where": ""}],
        "network": {
            "mode": "shared",
            "reason": "",
            "of": "nobody",
            "files": True,
            "addresses": ["10.89.0.2"],
            "ports": [port],
        },
        "cgroup": "/sys/fs/cgroup/nonexistent",
        "unit": "x.scope",
        "userManager": "/run/user/0",
    }


def undo_notes(directory):
    """Return the undo notes in a container's directory: the data that hold, by kind."""
    lines = (directory / "undo").read_text().splitlines()
    return {kind: noted for kind, _, noted in map(json.loads, lines)}
