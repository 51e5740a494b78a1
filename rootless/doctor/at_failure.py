"""The checks that explain a failed launch: what this host does not have, in the words and with the fix of `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless import paths
from rootless.doctor import id_checks, image_checks, namespace_checks
from rootless.doctor.directory_checks import searchable
from rootless.doctor.problem import Host
from rootless.errors import RootlessError
from rootless.host import facts as host_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootless.doctor.problem import Problem

_START = (namespace_checks.kernel, namespace_checks.executor)
_CHECKS: dict[str, tuple[Callable[[Host], Iterable[Problem]], ...]] = {
    "RL-INIT": _START,
    "RL-SYSTEM": _START,
    "RL-NEW-USER-NAMESPACE": (namespace_checks.user_namespaces,),
    "RL-UNSHARE": (namespace_checks.user_namespaces, namespace_checks.namespaces),
    "RL-PROPAGATION": (namespace_checks.mounts,),
    "RL-IDMAP": (id_checks.programs,),
    "RL-FUSE": (image_checks.fuse,),
    "RL-OVERLAY": (image_checks.overlay,),
}
"""By the error's code."""


def explain(error: RootlessError, command: str) -> None:
    """Add the evidence of the first problem that the checks find to the cause, and set its fix.

    Args:
        error: what has failed; without a problem of this host it stays as it is.
        command: the path of the installed `rootless`.
    """
    try:
        found = _found(error, command)
    except (OSError, RootlessError):
        return  # descriptors or processes have run out: the error says what failed
    if found:
        evidence, fix = found
        error.cause = evidence if error.cause in evidence else f"{error.cause}: {evidence}"
        error.fix = fix


def _found(error: RootlessError, command: str) -> tuple[str, str] | None:
    if error.path:
        closed = paths.unsearchable(error.path)
        if not closed:
            return None
        evidence, fix = searchable(closed)
        return evidence, str(fix)
    host = Host(host_facts.read(), command)
    for check in _CHECKS.get(error.code, ()):
        for problem in check(host):
            return problem.evidence, str(problem.fix)
    return None
