"""The Plan of the process that creates the namespaces of a group (rootless/launch/make_namespaces.py)."""

from __future__ import annotations

from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.namespaces.new_or_joined import new_user
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.idmaps import IdMaps


def maker(maps: IdMaps | None, kinds: Sequence[str]) -> list[Op]:
    """Return the operations of a process that creates the namespaces of a group, whose launcher opens them."""
    flags = sum(CLONE_FLAGS[kind] for kind in kinds if kind != "user")
    return [
        Op(ops.SPAWN),
        *(new_user(maps) if maps else ()),
        *([Op(ops.UNSHARE, flags)] if flags else ()),
        Op(ops.READY),
        Op(ops.WAIT_START),
    ]
