"""Progress of downloads on a terminal: a bar for each blob. Elsewhere nothing is shown."""

from __future__ import annotations

import sys
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bar = Callable[[int], object]
    """Called with the number of bytes of each piece; a negative one if some of it begins again."""

_DIGEST = slice(7, 19)
"""Twelve hexadecimal digits, as engines shorten digests."""


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Callable[[str, int], Bar]]:
    """Give a function that adds a bar for a digest and a number of bytes, and returns how to advance it."""
    if quiet or not sys.stderr.isatty():
        yield lambda _digest, _size: lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def add(digest: str, size: int) -> Bar:
            task = progress.add_task(digest[_DIGEST], total=size)
            return lambda count: progress.advance(task, count)

        yield add
