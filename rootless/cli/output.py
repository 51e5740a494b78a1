"""Results on standard output, and the verbs whose result is printed: as JSON, as a table, or as text."""

from __future__ import annotations

import posix
import sys

from rootless.errors import RootlessError
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.jsontext import render
    from rootless.options import Options
else:
    render = lazy("rootless.jsontext", "render")

STDOUT = 1
EXIT_SIGPIPE = 128 + 13
_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_COLUMN_WIDTH = 12
_COLUMN_GAP = 3


def put(text: str) -> None:
    """Write `text` to standard output, all of it, the bytes of undecodable paths as they were.

    Raises:
        RootlessError: it cannot be written (disk full).
        SystemExit: its reader has gone; the status is that of a program ended by SIGPIPE.
    """
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    try:
        while data:
            data = data[posix.write(STDOUT, data) :]
    except BrokenPipeError:
        sys.exit(EXIT_SIGPIPE)
    except OSError as error:
        raise RootlessError("write standard output", cause=error.strerror or str(error), code="RL-OUTPUT") from None


def state(options: Options) -> None:
    """Print the state of a container."""
    from rootless.container import listing

    put(render(listing.state(options), indent=2) + "\n")


def list_containers(options: Options) -> None:
    """Print a table of all containers, their ids, or their states as JSON."""
    from rootless.container import listing

    states = listing.list_containers(options)
    if options.quiet:
        put("".join(f"{each['id']}\n" for each in states))
    elif options.format == "json" and states:
        put(render(states, indent=2 if posix.isatty(STDOUT) else None) + "\n")
    elif options.format == "json":
        from rootless.cli.compat import empty_list

        put(empty_list())
    else:
        put(table(states))


def ps(options: Options) -> None:
    """Print the processes of a container, as the ps program describes them or as a list of ids."""
    from rootless.container import listing

    found = listing.processes(options)
    if options.format == "json":
        put(render(found, None) + "\n")
    else:
        from rootless.container.ps import table as process_table

        put(process_table(found, options.args))


def events(options: Options) -> None:
    """Print the events of a container, a line of JSON each, as they happen."""
    from rootless.container.events import events as all_events

    for event in all_events(options):
        put(render(event, None) + "\n")


def explain(options: Options) -> None:
    """Print what run would do."""
    from rootless.container.explain import explain as describe

    put(describe(options).rstrip("\n") + "\n")


def features(options: Options) -> None:
    """Print the features document."""
    from rootless.container.features import features as known

    put(render(known(options), indent=2) + "\n")


def doctor(options: Options) -> int:
    """Print what is missing on this host; the status is 1 when no container can run here."""
    del options  # it has none
    import os

    from rootless.doctor.host_checks import report

    command = os.path.realpath(sys.argv[0])
    text, status = report(command if os.path.basename(command) == "rootless" else "")
    put(text)
    return status


def new(options: Options) -> None:
    """Create a bundle, and print how to run it."""
    from shlex import quote

    from rootless.image.new import new as create

    contents = create(options)
    put(f"{options.directory}: {contents}\nrun it with: rootless run {quote(options.directory)}\n")


def network(options: Options) -> None:
    """Create, list, print or remove networks.

    Raises:
        RootlessError: `RL-USAGE`: the action needs a name, or takes none.
    """
    lists = options.action == "ls"
    if lists is bool(options.container):
        raise RootlessError(
            f"network {options.action}",
            cause="it takes no name" if lists else "it needs the name of a network",
            fix="rootless network --help",
            code="RL-USAGE",
        )
    _NETWORK_ACTIONS[options.action](options)


def _create_network(options: Options) -> None:
    from rootless.container.network import registry

    put(registry.create(options) + "\n")


def _inspect_network(options: Options) -> None:
    from rootless.container.network import registry

    put(render(registry.listed(options)[0], 2) + "\n")


def _list_networks(options: Options) -> None:
    from rootless.container.network import registry

    found = registry.listed(options)
    if options.quiet:
        put("".join(f"{each['name']}\n" for each in found))
    elif options.format == "json":
        put(render(found, 2) + "\n")
    else:
        rows = [(str(each["name"]), str(each["subnet"]), " ".join(each["containers"])) for each in found]
        put(columns([("NAME", "SUBNET", "CONTAINERS"), *rows]))


_NETWORK_ACTIONS: dict[str, Callable[[Options], None]] = {
    "create": _create_network,
    "inspect": _inspect_network,
    "ls": _list_networks,
    "rm": lazy("rootless.container.network.registry", "remove"),
}


def port(options: Options) -> None:
    """Print the published ports of a container, a line each."""
    from rootless.container import listing
    from rootless.plan.network.ports import from_data

    its_network = listing.state(options).get("network")
    published = its_network.get("ports", ()) if isinstance(its_network, dict) else ()
    put("".join(f"{from_data(each)}\n" for each in published))


def table(states: Sequence[dict[str, object]]) -> str:
    """Return the states as the table that `runc list` prints, with a column NETWORK if a container has one of ours."""
    networks = [each.get("network") for each in states]
    rows = [_COLUMNS + ("NETWORK",) * any(networks)]
    for each, its_network in zip(states, networks, strict=True):
        row = tuple(str(each[name]) for name in ("id", "pid", "status", "bundle", "created", "owner"))
        rows.append(row + (_network_cell(its_network),) * any(networks))
    return columns(rows)


def _network_cell(data: object) -> str:
    if not isinstance(data, dict):
        return ""
    return " ".join((data["mode"], *([data["of"]] if "of" in data else ()), *data.get("addresses", ())))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table whose columns are as wide as their longest cell."""
    widths = [
        max(_COLUMN_WIDTH, *(len(row[column]) + _COLUMN_GAP for row in rows)) for column in range(len(rows[0]) - 1)
    ]
    return "".join(
        "".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )
