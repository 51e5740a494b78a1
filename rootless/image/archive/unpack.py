"""A root filesystem archive, unpacked as root of a user namespace with all of the caller's IDs."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager

from rootless import log
from rootless.errors import RootlessError
from rootless.host.subids import find_program
from rootless.image.archive.decompress import Source, decompressed
from rootless.image.archive.rewrite import ALL_IDS, Contents, Ids, extract_command, rewrite
from rootless.image.archive.tar_write import SinkError
from rootless.launch.run_in_userns import own_maps, run_in_userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from rootless.plan.idmaps import IdMaps

# Messages of tar go to the file $0, apart from those of rootless.
_SHELL = 'unset TAR_OPTIONS; export LC_ALL=C; exec "$@" 2>"$0"'

_BUFFER = 1 << 18

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end a process and are handled, so that nothing is left behind."""


def unpack(path: str, rootfs: str, *, name: str = "") -> Contents:
    """Unpack the archive `path` into `rootfs`, as root of a user namespace with all of the caller's ids.

    Messages call it `name`.
    """
    maps, shortcoming = own_maps()
    ids = _ids(maps)
    single = any(sum(count for _, count in ranges) == 1 for ranges in (ids.uids, ids.gids))
    tar = extract_command(program_of_host("tar"), rootfs, keep_owners=not single)
    with tempfile.NamedTemporaryFile("r", errors="replace") as complaints, Source(path) as source:
        source.name = name or source.name
        pump = _Pump(source, ALL_IDS if single else ids)
        try:
            with _progress_bar(source), _signals_stop(source):
                status = run_in_userns(tar_words(complaints.name, tar), maps, stdin=pump.read_end)
            if status == 0:
                pump.wait()
        finally:
            pump.stop()
        contents = pump.result()
        if contents is None or status:
            complaint = complaints.read().partition("\n")[0] or f"it ended with status {status}"
            raise RootlessError(f"unpack {source.name}", cause=complaint, code="RL-UNPACK")
    _tell(contents)
    if single and contents.owners != {0}:
        log.warning(f"every file is now owned by root of the container: {shortcoming or 'no other id exists here'}")
    return contents


def tar_words(complaints: str, words: Sequence[str]) -> list[str]:
    """Return the command `words` of tar with its messages, in English, in the file `complaints`."""
    return ["/bin/sh", "-c", _SHELL, complaints, *words]


def _ids(maps: IdMaps) -> Ids:
    return Ids(*([(inside, count) for inside, _, count in lines] for lines in (maps.uids, maps.gids)))


def program_of_host(name: str) -> str:
    """Return the path of a program.

    Raises:
        RootlessError: `RL-HOST`: it is not installed.
    """
    path = find_program(name)
    if not path:
        raise RootlessError(
            f"run {name}", cause="it is not installed on this host", fix=f"install {name}", code="RL-HOST"
        )
    return path


def _tell(contents: Contents) -> None:
    devices = contents.devices
    if devices:
        what = (
            f"{devices[0]} and {len(devices) - 1} more device nodes" if devices[1:] else f"the device node {devices[0]}"
        )
        log.warning(f"left out {what}: every container gets its own /dev")
    if contents.xattrs:
        log.warning(f"left out extended attributes that only host root may set: {', '.join(sorted(contents.xattrs))}")


@contextmanager
def _signals_stop(source: Source) -> Iterator[None]:
    """Let a signal cut `source` short, so that what reads it has ended before anything is removed; then leave."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received:
            exit_by_signal(number, frame)
        received.append(number)
        source.stop()

    handlers = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        exit_by_signal(received[0], None)


class _Pump:
    """A thread that checks an archive and writes what may be unpacked to a pipe."""

    def __init__(self, source: Source, ids: Ids) -> None:
        self._source = source
        self._ids = ids
        self._archive = decompressed(source)
        self._contents: Contents | None = None
        self._error: BaseException | None = None
        self._stopping = False
        self.read_end, self._write_end = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the archive is read to its end, after the reader has had all of it."""
        self._thread.join()

    def stop(self) -> None:
        """End the thread: it reads no more, and its reader is gone."""
        self._stopping = True
        os.close(self.read_end)
        self._source.stop()
        self._thread.join()
        self._archive.close()

    def result(self) -> Contents | None:
        """Return the contents of the archive, or None if the reader went away before the end.

        Raises:
            RootlessError: the archive was refused.
        """
        if self._error:
            raise self._error
        return self._contents

    def _run(self) -> None:
        try:
            with os.fdopen(self._write_end, "wb", _BUFFER) as sink:
                try:
                    self._contents = rewrite(self._archive, sink, name=self._source.name, ids=self._ids)
                except SinkError:
                    pass  # the reader knows why it has gone
                except BaseException as error:  # noqa: BLE001 - raised in the other thread
                    if not self._stopping:
                        self._error = error
        except BrokenPipeError:
            pass  # the reader had all that it needed


@contextmanager
def _progress_bar(source: Source) -> Iterator[None]:
    """Show a progress bar of `source` on a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"unpacking {os.path.basename(source.name)}", total=source.size)
        source.progress = lambda count: progress.advance(task, count)
        yield


def exit_by_signal(number: int, _frame: FrameType | None) -> None:
    """Leave with the status of a process that a signal ended; a handler of signals."""
    sys.exit(128 + number)
