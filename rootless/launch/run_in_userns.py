"""Run a program of the host in a user namespace that has all of the caller's IDs."""

from __future__ import annotations

import os

from rootless.host import facts as host_facts
from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops
from rootless.plan.compile import compile_host_command
from rootless.plan.idmaps import id_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.idmaps import IdMaps


def own_maps() -> tuple[IdMaps, str]:
    """Return all IDs that the caller may map, and the reason if it is only one."""
    maps, _, shortcoming = id_maps({}, {}, host_facts.read(), "")
    return maps, shortcoming


def run_in_userns(args: Sequence[str], maps: IdMaps, *, stdin: int = 0) -> int:
    """Run a program (its first argument is a path) as root of a new user namespace, on the host's file systems.

    Args:
        args: the command.
        maps: from own_maps().
        stdin: descriptor to use as its standard input.

    Returns:
        Its exit status, or 128 plus the number of the signal that ended it.

    Raises:
        RootlessError: the program could not be started.
    """
    env = [f"{name}={value}" for name, value in os.environ.items()]
    saved = os.dup(0)
    os.dup2(stdin, 0, inheritable=True)
    try:
        run = Run(compile_host_command(args, env, maps), Descriptors())
        run.until_or_kill(ops.NEW_USER)
    finally:
        os.dup2(saved, 0, inheritable=True)
        os.close(saved)
    run.until_or_kill()
    assert run.executor
    try:
        status = os.waitstatus_to_exitcode(run.executor.wait_first())
    except BaseException:
        run.kill()
        raise
    run.close()
    return status if status >= 0 else 128 - status
