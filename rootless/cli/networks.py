"""The verbs about networks: what they print."""

from __future__ import annotations

from rootless.cli.output import put
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.options import Options


def network(options: Options) -> int:
    """Carry out `rootless network`."""
    if options.action == "ls" and not options.container:
        _list(options)
        return 0
    if not options.container or options.action == "ls":
        raise RootlessError(
            f"network {options.action}",
            cause="it takes no name" if options.container else "it needs the name of a network",
            fix="rootless network --help",
            code="RL-USAGE",
        )
    _ACTIONS[options.action](options)
    return 0


def _create(options: Options) -> None:
    from rootless.container.network import registry

    put(registry.create(options) + "\n")


def _inspect(options: Options) -> None:
    from rootless.container.network import registry
    from rootless.jsontext import render

    put(render(registry.listed(options)[0], 2) + "\n")


def _remove(options: Options) -> None:
    from rootless.container.network import registry

    registry.remove(options)


_ACTIONS: dict[str, Callable[[Options], None]] = {"create": _create, "inspect": _inspect, "rm": _remove}


def _list(options: Options) -> None:
    from rootless.cli.lifecycle import columns
    from rootless.container.network import registry

    found = registry.listed(options)
    if options.quiet:
        put("".join(f"{each['name']}\n" for each in found))
    elif options.format == "json":
        from rootless.jsontext import render

        put(render(found, 2) + "\n")
    else:
        rows = [(str(each["name"]), str(each["subnet"]), " ".join(each["containers"])) for each in found]
        put(columns([("NAME", "SUBNET", "CONTAINERS"), *rows]))


def port(options: Options) -> int:
    """Carry out `rootless port`."""
    from rootless.container.verbs import state
    from rootless.plan.network.ports import from_data

    told = state(options).get("network")
    published = told.get("ports", ()) if isinstance(told, dict) else ()
    put("".join(f"{from_data(each)}\n" for each in published))
    return 0


VERBS = {"network": network, "port": port}
