"""The verbs that make, run and remove containers: what they print, and the status they end with."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.options import Options

COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
COLUMN_WIDTH = 12
COLUMN_GAP = 3


def create(options: Options) -> int:
    """Carry out `rootless create`."""
    from rootless.container.create import create as create_container

    create_container(options)
    return 0


def run(options: Options) -> int:
    """Carry out `rootless run`; the status is the container's."""
    from rootless.container.run import run as run_container

    return run_container(options)


def execute(options: Options) -> int:
    """Carry out `rootless exec`; the status is the command's."""
    from rootless.container.exec import execute as execute_command

    return execute_command(options)


def start(options: Options) -> int:
    """Carry out `rootless start`."""
    from rootless.container import verbs

    verbs.start(options)
    return 0


def state(options: Options) -> int:
    """Carry out `rootless state`."""
    from rootless.cli.output import put
    from rootless.container import verbs
    from rootless.jsontext import render

    put(render(verbs.state(options), indent=2) + "\n")
    return 0


def kill(options: Options) -> int:
    """Carry out `rootless kill`."""
    from rootless.container import verbs

    verbs.kill(options)
    return 0


def delete(options: Options) -> int:
    """Carry out `rootless delete`."""
    from rootless.container import verbs

    verbs.delete(options)
    return 0


def list_containers(options: Options) -> int:
    """Carry out `rootless list`."""
    from rootless.cli.output import STDOUT, put
    from rootless.container import verbs

    states = verbs.list_containers(options)
    if options.quiet:
        put("".join(f"{each['id']}\n" for each in states))
    elif options.format == "json" and states:
        from rootless.jsontext import render

        put(render(states, indent=2 if posix.isatty(STDOUT) else None) + "\n")
    elif options.format == "json":
        from rootless.cli.compat import empty_list

        put(empty_list())
    else:
        put(table(states))
    return 0


def ps(options: Options) -> int:
    """Carry out `rootless ps`."""
    from rootless.cli.output import put
    from rootless.container import verbs

    found = verbs.processes(options)
    if options.format == "json":
        from rootless.jsontext import render

        put(render(found, None) + "\n")
    else:
        from rootless.container.ps import table as process_table

        put(process_table(found, options.args))
    return 0


VERBS = {
    "create": create,
    "run": run,
    "exec": execute,
    "start": start,
    "state": state,
    "kill": kill,
    "delete": delete,
    "list": list_containers,
    "ps": ps,
}


def table(states: Sequence[dict[str, object]]) -> str:
    """Return the states as the table that `runc list` prints, with one more column where there is a network of ours."""
    networks = [each.get("network") for each in states]
    rows = [COLUMNS + ("NETWORK",) * any(networks)]
    for each, network in zip(states, networks, strict=True):
        row = tuple(str(each[name]) for name in ("id", "pid", "status", "bundle", "created", "owner"))
        rows.append(row + (_network(network),) * any(networks))
    return columns(rows)


def _network(told: object) -> str:
    if not isinstance(told, dict):
        return ""
    return " ".join((told["mode"], *([told["of"]] if "of" in told else ()), *told.get("addresses", ())))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table whose columns are as wide as what is in them."""
    widths = [max(COLUMN_WIDTH, *(len(row[column]) + COLUMN_GAP for row in rows)) for column in range(len(rows[0]) - 1)]
    return "".join(
        "".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )
