"""Create namespaces that no process is in: descriptors hold them."""

from __future__ import annotations

import posix

from rootless.launch.protocol import Descriptors
from rootless.launch.run_plan import Run
from rootless.plan import ops
from rootless.plan.namespaces.group import files
from rootless.plan.namespaces.group_maker import maker
from rootless.plan.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.idmaps import IdMaps


def make_namespaces(maps: IdMaps | None, kinds: Sequence[str]) -> dict[str, int]:
    """Return descriptors of new namespaces by their types; the user namespace owns the others.

    Args:
        maps: the ID maps of the new user namespace; None if `kinds` has none.
        kinds: their types.

    Raises:
        RootlessError: one cannot be created.
    """
    run = Run(Plan(maker(maps, kinds)), Descriptors())
    run.until_or_kill(ops.WAIT_START)
    made: dict[str, int] = {}
    try:
        assert run.executor
        for kind, name in files(kinds).items():
            made[kind] = posix.open(f"/proc/{run.executor.first}/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
    except BaseException:
        for fd in made.values():
            posix.close(fd)
        raise
    finally:
        run.kill()
    return made
