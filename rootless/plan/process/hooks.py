"""Hooks: config.md "POSIX-platform Hooks", runtime.md "Lifecycle". Planned only where config.json has any.

prestart, createRuntime, poststart and poststop run outside the container, where rootless/launch/run_hooks.py runs them;
createContainer and startContainer inside its namespaces, where only helpers/init is.
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
"""Annotations: files that hooks append to, as in crun. A relative path counts from the bundle."""


class Hooks:
    """What hooks add to a Plan.

    Attributes:
        first: operations that it begins with.
        mounted: those that belong after the mounts, while the paths are still the host's.
        started: those that belong after the start, before the program.
        outside: the hooks of OUTSIDE, by kind; a kind without any is not there.
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
    """Return the operations for hooks that run inside.

    What the program of a hook finds on its standard input ends in the process id as the container sees it. With an
    empty `directory` it stays in that of the program.
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
    # after the pivot it is the image that says what the program of a hook is
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
