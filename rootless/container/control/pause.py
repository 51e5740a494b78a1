"""The verbs `pause` and `resume`: the freezer of a container's cgroup."""

from __future__ import annotations

from rootless.container.state.own_cgroup import cgroup_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options


def pause(options: Options) -> None:
    """Freeze all processes of a container."""
    with cgroup_for(options, "pause")[0] as group:
        group.freeze()


def resume(options: Options) -> None:
    """Let the processes of a paused container continue."""
    with cgroup_for(options, "resume")[0] as group:
        group.thaw()
