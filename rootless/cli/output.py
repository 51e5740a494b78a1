"""Results on standard output, and the verbs whose result is printed: as JSON, as a table, or as text."""

from __future__ import annotations

import posix
import sys

from rootless import log
from rootless.errors import EXIT_SIGPIPE, RootlessError
from rootless.lazy import lazy
from rootless.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.cli.compat import empty_list, installed_command
    from rootless.container.control.restart import again as options_again
    from rootless.container.control.restart import keep_log, take_down
    from rootless.container.control.stop import stop as stop_containers
    from rootless.container.control.wait import wait as exit_statuses
    from rootless.container.create import plan_for
    from rootless.container.explain import explain as explanation
    from rootless.container.features import features as feature_document
    from rootless.container.network.registry import create as create_network
    from rootless.container.network.registry import listed as listed_networks
    from rootless.container.network.registry import remove as remove_network
    from rootless.container.network.reload import reload as reload_networks
    from rootless.container.observe.events import events as all_events
    from rootless.container.observe.inspect import inspect as inspect_containers
    from rootless.container.observe.listing import list_containers as all_states
    from rootless.container.observe.listing import processes
    from rootless.container.observe.listing import state as container_state
    from rootless.container.observe.logs import records as log_records
    from rootless.container.observe.ps import table as process_table
    from rootless.container.removal.clean import clean as cleaned
    from rootless.container.run import run as run_again
    from rootless.doctor.report import Report as HostReport
    from rootless.image.bundles.new import new as create_bundle
    from rootless.jsontext import render
else:
    container_state = lazy("rootless.container.observe.listing", "state")
    all_states = lazy("rootless.container.observe.listing", "list_containers")
    processes = lazy("rootless.container.observe.listing", "processes")
    process_table = lazy("rootless.container.observe.ps", "table")
    all_events = lazy("rootless.container.observe.events", "events")
    explanation = lazy("rootless.container.explain", "explain")
    cleaned = lazy("rootless.container.removal.clean", "clean")
    inspect_containers = lazy("rootless.container.observe.inspect", "inspect")
    stop_containers = lazy("rootless.container.control.stop", "stop")
    plan_for = lazy("rootless.container.create", "plan_for")
    options_again = lazy("rootless.container.control.restart", "again")
    take_down = lazy("rootless.container.control.restart", "take_down")
    keep_log = lazy("rootless.container.control.restart", "keep_log")
    run_again = lazy("rootless.container.run", "run")
    exit_statuses = lazy("rootless.container.control.wait", "wait")
    log_records = lazy("rootless.container.observe.logs", "records")
    feature_document = lazy("rootless.container.features", "features")
    HostReport = lazy("rootless.doctor.report", "Report")
    installed_command = lazy("rootless.cli.compat", "installed_command")
    create_bundle = lazy("rootless.image.bundles.new", "new")
    create_network = lazy("rootless.container.network.registry", "create")
    listed_networks = lazy("rootless.container.network.registry", "listed")
    remove_network = lazy("rootless.container.network.registry", "remove")
    reload_networks = lazy("rootless.container.network.reload", "reload")
    empty_list = lazy("rootless.cli.compat", "empty_list")
    render = lazy("rootless.jsontext", "render")

STDOUT = 1
_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_COLUMN_WIDTH = 12
_COLUMN_GAP = 3


def put(text: str) -> None:
    """Write `text` to standard output, all of it, the bytes of undecodable paths as they were.

    Raises:
        RootlessError: it cannot be written (disk full).
        SystemExit: its reader has gone; the status is that of a program ended by SIGPIPE.
    """
    _write(text.encode("utf-8", "surrogateescape"), STDOUT)


def _write(text: bytes, stream: int) -> None:
    data = memoryview(text)
    try:
        while data:
            data = data[posix.write(stream, data) :]
    except BrokenPipeError:
        sys.exit(EXIT_SIGPIPE)
    except OSError as error:
        raise RootlessError("write standard output", cause=error.strerror or str(error), code="RL-OUTPUT") from None


def state(options: Options) -> None:
    """Print the state of a container."""
    put(render(container_state(options), indent=2) + "\n")


def list_containers(options: Options) -> None:
    """Print a table of all containers, their ids, or their states as JSON."""
    states = all_states(options)
    if options.quiet:
        put("".join(f"{each['id']}\n" for each in states))
    elif options.format == "json" and states:
        put(render(states, indent=2 if posix.isatty(STDOUT) else None) + "\n")
    elif options.format == "json":
        put(empty_list())
    else:
        put(table(states))


def ps(options: Options) -> None:
    """Print the processes of a container, as the ps program describes them or as a list of ids."""
    found = processes(options)
    if options.format == "json":
        put(render(found, None) + "\n")
    else:
        put(process_table(found, options.args))


def events(options: Options) -> None:
    """Print the events of a container, a line of JSON each, as they happen."""
    for event in all_events(options):
        put(render(event, None) + "\n")


def explain(options: Options) -> None:
    """Print what run would do."""
    put(explanation(options).rstrip("\n") + "\n")


def clean(options: Options) -> None:
    """Remove what killed commands have left, and print what it was."""
    for line in cleaned(options):
        put(f"{line}\n")


def inspect(options: Options) -> None:
    """Print what is known of containers."""
    put(render(inspect_containers(options), 2) + "\n")


def stop(options: Options) -> None:
    """Stop containers, and print the ids of those that have stopped."""
    for container_id in stop_containers(options):
        put(f"{container_id}\n")


def restart(options: Options) -> None:
    """Stop containers and run them again, detached; each prints its id."""
    for container_id in (options.container, *options.args):
        asked = options_again(options, container_id)
        again = Options(**asked)
        plan_for(again)  # a container that could not run again stays as it is
        only = Options(root=asked["root"], container=container_id, time=options.time)
        tuple(stop_containers(only))
        log_before = take_down(only, container_id)
        run_again(again)
        keep_log(only, container_id, log_before)


def wait(options: Options) -> None:
    """Wait for the end of containers, and print their exit statuses."""
    for status in exit_statuses(options):
        put(f"{status}\n")


def logs(options: Options) -> None:
    """Print the output of a container, each stream on its own."""
    at_line_start = [True, True, True]
    shown = [posix.isatty(stream) for stream in range(3)]
    for time, stream, full, text in log_records(options):
        stamp = time + b" " if options.timestamps and at_line_start[stream] else b""
        at_line_start[stream] = full
        _write(stamp + (_harmless(text) if shown[stream] else text) + b"\n" * full, stream)


def _harmless(text: bytes) -> bytes:
    """Return output for a terminal: colours stay, and other control characters are shown, not obeyed."""
    import re

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[1] else found[0].encode("unicode_escape").decode()

    control = r"(\x1b\[[0-9;]*[mK])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\udc80-\udc9f]"
    return re.sub(control, shown, text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def features(options: Options) -> None:
    """Print the features document."""
    put(render(feature_document(options), indent=2) + "\n")


def doctor(options: Options) -> int:
    """Print what works and what is missing on this host; the status is 1 when no container can run here.

    Raises:
        RootlessError: `RL-USAGE`: two formats are asked for.
    """
    if options.json and options.fix_script:
        cause = "one prints JSON, the other a script"
        raise RootlessError("--json and --fix-script", cause=cause, fix="give one of them", code="RL-USAGE")
    found = HostReport(installed_command())
    put(render(found.as_json(), 2) + "\n" if options.json else found.script() if options.fix_script else found.text())
    return found.status


def new(options: Options) -> None:
    """Create a bundle, and print how to run it."""
    from shlex import quote

    contents = create_bundle(options)
    put(f"{options.directory}: {contents}\nrun it with: rootless run {quote(options.directory)}\n")


def network(options: Options) -> None:
    """Create, list, print or remove networks.

    Raises:
        RootlessError: `RL-USAGE`: the action needs a name, or takes none.
    """
    is_of_all = options.action in ("ls", "reload")
    if is_of_all is bool(options.container):
        raise RootlessError(
            f"network {options.action}",
            cause="it takes no name" if is_of_all else "it needs the name of a network",
            fix="run rootless network --help",
            code="RL-USAGE",
        )
    _NETWORK_ACTIONS[options.action](options)


def _create_network(options: Options) -> None:
    put(create_network(options) + "\n")


def _inspect_network(options: Options) -> None:
    put(render(listed_networks(options)[0], 2) + "\n")


def _list_networks(options: Options) -> None:
    found = listed_networks(options)
    if options.quiet:
        put("".join(f"{each['name']}\n" for each in found))
    elif options.format == "json":
        put(render(found, 2) + "\n")
    else:
        rows = [(str(each["name"]), str(each["subnet"]), " ".join(each["containers"])) for each in found]
        put(columns([("NAME", "SUBNET", "CONTAINERS"), *rows]))


def _reload_networks(options: Options) -> None:
    for change in reload_networks(options):
        put(f"{change}\n")


_NETWORK_ACTIONS: dict[str, Callable[[Options], None]] = {
    "create": _create_network,
    "inspect": _inspect_network,
    "ls": _list_networks,
    "reload": _reload_networks,
    "rm": remove_network,
}


def port(options: Options) -> None:
    """Print the published ports of a container, a line each."""
    from rootless.plan.network.ports import from_data

    its_network = container_state(options).get("network")
    published = its_network.get("ports", ()) if isinstance(its_network, dict) else ()
    if log.is_debug():
        mode = its_network["mode"] if isinstance(its_network, dict) else "not made by rootless"
        log.debug(f"network of {options.container}: {mode}, {len(published)} published ports")
    put("".join(f"{from_data(each)}\n" for each in published))


def table(states: Sequence[dict[str, object]]) -> str:
    """Return the states as the table that `runc list` prints, with a column NETWORK if one of them has a network."""
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
