"""The verbs that work through the container's cgroup."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options


def pause(options: Options) -> int:
    """Carry out `rootless pause`."""
    from rootless.container import cgroups

    cgroups.pause(options)
    return 0


def resume(options: Options) -> int:
    """Carry out `rootless resume`."""
    from rootless.container import cgroups

    cgroups.resume(options)
    return 0


def update(options: Options) -> int:
    """Carry out `rootless update`."""
    from rootless.container import cgroups

    cgroups.update(options)
    return 0


def events(options: Options) -> int:
    """Carry out `rootless events`."""
    from rootless.cli.output import put
    from rootless.container.events import events as all_events
    from rootless.jsontext import render

    for event in all_events(options):
        put(render(event, None) + "\n")
    return 0


def top(options: Options) -> int:
    """Carry out `rootless top`."""
    from rootless.cli.live_top import top as show

    return show(options)


VERBS = {"top": top, "pause": pause, "resume": resume, "update": update, "events": events}
