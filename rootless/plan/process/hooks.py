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
    from collections.abc import Sequence
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
        started: startContainer hooks: after `start`, before the program; bind() completes them.
        outside: the hooks of OUTSIDE, by kind; only kinds that have hooks.
    """

    __slots__ = ("first", "mounted", "outside", "started")

    def __init__(self, context: Context) -> None:
        hooks: dict[str, list[dict[str, Any]]] = context.config["hooks"]
        self.outside = {kind: hooks[kind] for kind in OUTSIDE if hooks.get(kind)}
        self.mounted = _inside(context, "createContainer", "creating", context.bundle.directory, ops.CALLERS)
        self.started = _inside(context, "startContainer", "created", "", ops.PROGRAMS)
        self.first = []
        output = [_output(context, name) for name in (STDOUT, STDERR)]
        if any(output) and (self.mounted or self.started):
            self.first.append(Op(ops.HOOK_OUTPUT, *output, where="annotations"))
        if self.mounted:
            self.mounted.insert(0, Op(ops.UMASK, 0o022))  # it is 0 for what is made in the image

    def bind(self, last: Sequence[Op]) -> list[Op]:
        """Return `started`, for a program whose last operations are `last`.

        After pivot_root the hook's path resolves in the image, which is not trusted: the hook runs under the limits and
        the filter of the program. The executor itself is not limited yet, so processes that a hook leaves must not
        reach it by ptrace or /proc.
        """
        if not self.started:
            return []
        behind = range(len(self.started) - 1, -1, -1)
        bound = sum(op.kind in (ops.RLIMIT, ops.NO_NEW_PRIVS, ops.PRETEND, ops.SECCOMP) for op in last)
        hooks = zip(self.started, behind, strict=True)
        return [Op(ops.NON_DUMPABLE), *[hook.with_numbers(first=first, bound=bound) for hook, first in hooks]]


def _inside(context: Context, kind: str, status: str, directory: str, inherited: int) -> list[Op]:
    """Return the operations for the hooks that the executor runs.

    The executor completes the state on a hook's standard input with the pid as seen in the container. The hook runs in
    `directory`; empty means the program's working directory. A hook without an environment has the `inherited` one.
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
    return [
        Op(
            ops.HOOK,
            hook.get("timeout") or 0,
            inherited if hook.get("env") is None else ops.GIVEN,
            0,
            0,
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
