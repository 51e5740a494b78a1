"""Hooks: config.md "POSIX-platform Hooks", runtime.md "Lifecycle". Imported only if config.json has hooks.

The launcher runs prestart, createRuntime, poststart and poststop on the host (rootless/launch/run_hooks.py). The
executor runs createContainer and startContainer in the container's namespaces.
"""

from __future__ import annotations

from rootless import OCI_VERSION
from rootless.jsontext import render
from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.plan.context import Context

OUTSIDE = ("prestart", "createRuntime", "poststart", "poststop")
STDOUT = "run.oci.hooks.stdout"
STDERR = "run.oci.hooks.stderr"
"""Annotations of crun: files to which the output of hooks is appended. A relative path is relative to the bundle."""


class Hooks:
    """The operations that hooks add to a Plan.

    Attributes:
        first: operations at the beginning of the Plan.
        mounted: createContainer hooks: after the mounts, before pivot_root(2).
        started: startContainer hooks: after `start`, before the program.
        outside: the hooks of OUTSIDE, by kind; only kinds that have hooks.
    """

    __slots__ = ("first", "mounted", "outside", "started")

    def __init__(self, context: Context) -> None:
        hooks: dict[str, list[dict[str, Any]]] = context.config["hooks"]
        self.outside = {kind: hooks[kind] for kind in OUTSIDE if hooks.get(kind)}
        self.mounted = _inside(context, "createContainer", "creating", context.bundle.directory)
        self.started = _inside(context, "startContainer", "created", "")
        self.first = []
        output = [_output(context, name) for name in (STDOUT, STDERR)]
        if any(output) and any(op.kind is ops.HOOK for op in (*self.mounted, *self.started)):
            self.first.append(Op(ops.HOOK_OUTPUT, *output, where="annotations"))


def _inside(context: Context, kind: str, status: str, directory: str) -> list[Op]:
    """Return the operations for the hooks that the executor runs.

    The executor completes the state on a hook's standard input with the pid as seen in the container. The hook runs in
    `directory`; empty means the program's working directory.
    """
    state = {
        "ociVersion": OCI_VERSION,
        "id": context.request.container,
        "status": status,
        "bundle": context.bundle.directory,
    }
    annotations = context.config.get("annotations")
    if annotations:
        state["annotations"] = annotations
    about = [directory, render(state, None)[:-1] + ',"pid":']
    # after pivot_root the hook's path resolves in the image, which is not trusted
    confined = int(kind == "startContainer")
    inherited = ops.PROGRAMS if confined else ops.CALLERS
    return [
        Op(
            ops.HOOK,
            hook.get("timeout") or 0,
            confined,
            inherited if hook.get("env") is None else ops.GIVEN,
            hook["path"],
            hook.get("args") or [hook["path"]],
            hook.get("env") or (),
            about,
            where=f"hooks.{kind}[{index}]",
        )
        for index, hook in enumerate(context.config["hooks"].get(kind) or ())
    ]


def _output(context: Context, name: str) -> str:
    path: str = (context.config.get("annotations") or {}).get(name) or ""
    return path if not path or path.startswith("/") else f"{context.bundle.directory}/{path}"
