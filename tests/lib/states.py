"""The content of a container's directory: undo notes, and state.json as somebody may have edited it."""

from __future__ import annotations

import json

VALUES = (None, True, -1, 0, 2**70, 1.5, "", "\0", "\ud800", "/", "no", [], [1], [2**40, 1], [None], {}, {"a": None})
"""Values that somebody may write at any place of state.json."""


def edited(state, path, value):
    """Return the state with another value at `path`, a sequence of properties and indices."""
    copy = json.loads(json.dumps(state))
    inside = copy
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return copy


def places(value, path=()):
    """Yield the paths of a value and of all values in it."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def full_state(state):
    """Return a state with every property that it may have."""
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
    """Return the valid undo notes in a container's directory: their data, by kind."""
    lines = (directory / "undo").read_text().splitlines()
    return {kind: noted for kind, _, noted in map(json.loads, lines)}
