"""`top`: a table of what this user's containers use, which people watch; or once, for programs."""

from __future__ import annotations

import signal
import sys
import time

from rootless.signals import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.table import Table

    from rootless.container.observe.top import Usage
    from rootless.options import Options

_HEAD = ("ID", "STATUS", "PIDS", "CPU %", "MEMORY", "LIMIT", "READ", "WRITTEN")
_LEFT = 2
"""Columns of words; the others are numbers."""
_UNITS = "BKMGTP"
_STEP = 1024
_TEN = 10
_SHORT = 0.25
"""Seconds between the two looks that a single answer takes."""
_USUAL = 2.0


def top(options: Options) -> None:
    """Show the usage of containers until Ctrl-C, or print it once."""
    from rootless.container.observe.events import seconds
    from rootless.container.observe.top import Watch

    watch = Watch(options)
    interval = seconds(options.interval) if options.interval else 0.0
    found = watch.look()
    if options.once or options.json or not sys.stdout.isatty():
        time.sleep(interval or _SHORT)
        _put(watch.look(), as_json=options.json)
        return
    from rich.live import Live

    with Live(_table(found), auto_refresh=False, screen=True) as live:
        try:
            while True:
                time.sleep(interval or _USUAL)
                live.update(_table(watch.look()), refresh=True)
        except Interrupted as interrupted:
            if interrupted.number != signal.SIGINT:
                raise
            return


def _put(found: list[Usage], *, as_json: bool) -> None:
    from rootless.cli.output import put

    if as_json:
        from rootless.jsontext import render

        put(render([usage.as_data() for usage in found], indent=2) + "\n")
        return
    rows = [_HEAD, *(_row(usage) for usage in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = [
            text.ljust(width) if column < _LEFT else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        put("  ".join(cells).rstrip() + "\n")


def _table(found: list[Usage]) -> Table:
    from rich.table import Table

    table = Table(box=None, title="rootless top; Ctrl-C ends it")
    for column, name in enumerate(_HEAD):
        table.add_column(name, justify="left" if column < _LEFT else "right")
    for usage in found:
        table.add_row(*_row(usage))
    return table


def _row(usage: Usage) -> tuple[str, ...]:
    return (
        usage.container,
        usage.status,
        _or_dash(usage.processes),
        _or_dash(usage.share),
        _size(usage.memory),
        _size(usage.memory_limit) if usage.memory_limit else "-",
        "-" if usage.read is None else _size(usage.read),
        "-" if usage.written is None else _size(usage.written),
    )


def _or_dash(number: float | None) -> str:
    return "-" if number is None else str(number)


def _size(number: float) -> str:
    """Return a number of bytes in at most five characters: ``0B``, ``9.5M``, ``512M``."""
    unit = 0
    while number >= _STEP and unit < len(_UNITS) - 1:
        number /= _STEP
        unit += 1
    return f"{number:.1f}{_UNITS[unit]}" if unit and number < _TEN else f"{number:.0f}{_UNITS[unit]}"
