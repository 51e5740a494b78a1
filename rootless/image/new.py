"""The body of `rootless new`: a whole bundle, from this host or from a root filesystem archive, or nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress

from rootless import log
from rootless.errors import RootlessError
from rootless.host import facts as host_facts
from rootless.host.subids import find_program
from rootless.image.archive import ALL_IDS, Contents, Ids, extract_command, rewrite
from rootless.image.decompress import Source, decompressed
from rootless.image.from_host import make_rootfs
from rootless.image.spec import capability_sets, default_config, write_config
from rootless.image.tar_write import SinkError
from rootless.launch.run_in_userns import own_maps, run_in_userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

    from rootless.options import Options
    from rootless.plan.idmaps import IdMaps

# For root of a container that installs packages, changes owners and runs services; podman's default.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

# Messages of tar go to the file $0, apart from those of rootless.
_SHELL = 'unset TAR_OPTIONS; export LC_ALL=C; exec "$@" 2>"$0"'

_BUFFER = 1 << 18

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def new(options: Options) -> str:
    """Make the bundle `options.directory` and return what is in it, for people.

    Args:
        options: `directory`; `from_file`, an archive or ``-``; `args`, the command, a shell if empty.

    Raises:
        RootlessError: nothing was made.
    """
    with _bundle_directory(options.directory) as work:
        rootfs = os.path.join(work, "rootfs")
        os.mkdir(rootfs)
        if log.is_debug():
            log.debug(f"make {rootfs} from {options.from_file or 'programs of this host'}")
        if options.from_file:
            contents = _unpack(options.from_file, rootfs)
            if not options.args and not contents.has_file("/bin/sh"):
                log.warning(
                    f"{options.from_file} has no /bin/sh, which the new bundle runs",
                    fix=f"name the command in process.args of {os.path.join(options.directory, 'config.json')}",
                )
            what, size = f"{contents.entries} entries", contents.size
        else:
            made = make_rootfs(rootfs)
            what, size = f"{made.programs} programs", made.size
        if log.is_debug():
            log.debug(f"{what}; process.args is {' '.join(options.args or ['sh'])}")
        write_config(os.path.join(work, "config.json"), bundle_config(list(options.args)))
    return f"{what}, {size / 1e6:.1f} MB"


def bundle_config(command: list[str]) -> dict[str, Any]:
    """Return the configuration of a new bundle: `command`, or a shell at a terminal.

    It has a network of its own, a file system that can be written, the limits of the caller, and root as powerful as
    other engines have it.
    """
    config: dict[str, Any] = default_config(rootless=False, cgroup2=host_facts.read().unified_cgroup)
    process, linux = config["process"], config["linux"]
    process["terminal"] = not command
    process["args"] = command or ["sh"]
    process["capabilities"] = capability_sets(_CAPABILITIES)
    process["noNewPrivileges"] = False  # su and sudo work
    del process["rlimits"]
    config["root"]["readonly"] = False
    del linux["resources"]
    return config


@contextmanager
def _bundle_directory(directory: str) -> Iterator[str]:
    """Give a directory to make the bundle in: `directory` itself if it exists and is empty, else one beside it.

    At the end it is, or becomes, `directory`; after any error, and most signals, nothing of it is left.
    """
    final = os.path.abspath(directory)
    exists = _is_empty_directory(directory)
    what = f"make {directory}"
    parent, name = os.path.split(final)
    try:
        work = final if exists else tempfile.mkdtemp(prefix=name + ".tmp-", dir=parent)
        # A set-user-ID program of the root filesystem would run as its owner, you, for everybody who gets at it.
        os.chmod(work, 0o700)
    except OSError as error:
        fix = f"mkdir -p {shlex.quote(parent)}" if isinstance(error, FileNotFoundError) else ""
        raise RootlessError(what, cause=str(error.strerror), fix=fix, code="RL-NEW") from error
    handlers = {number: signal.signal(number, _exit) for number in _SIGNALS}
    try:
        yield work
        if not exists:
            os.rename(work, final)
    except BaseException as error:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _remove(work, keep=exists)
        if isinstance(error, OSError):
            raise RootlessError(what, cause=str(error.strerror), code="RL-NEW") from error
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _is_empty_directory(path: str) -> bool:
    """Return whether `path` is an empty directory, False when there is nothing.

    Raises:
        RootlessError: it is something else, or cannot be looked into.
    """
    try:
        if not os.listdir(path):
            return True
        cause = "it exists and is not empty"
    except FileNotFoundError:
        if not os.path.islink(path):
            return False
        cause = "it is a symlink to nothing"
    except OSError as error:
        cause = str(error.strerror)
    raise RootlessError(f"make {path}", cause=cause, fix="name a directory that does not exist yet", code="RL-EXISTS")


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _remove(work: str, *, keep: bool) -> None:
    """Remove what is in `work`, and itself unless `keep`; files of subordinate ids need their user namespace."""
    paths = [os.path.join(work, name) for name in os.listdir(work)]
    for path in paths:
        with suppress(RecursionError):  # before Python 3.13, of a deep tree: rm is asked below
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)
    left = [path for path in paths if os.path.lexists(path)]
    if left and run_in_userns([_program("rm"), "-rf", "--", *left], own_maps()[0]):
        log.warning(f"could not remove all of {work}")
    elif not keep:
        os.rmdir(work)


def _unpack(path: str, rootfs: str) -> Contents:
    """Unpack the archive `path` into `rootfs`, as root of a user namespace with all of the caller's ids."""
    maps, shortcoming = own_maps()
    ids = _ids(maps)
    single = any(sum(count for _, count in ranges) == 1 for ranges in (ids.uids, ids.gids))
    tar = extract_command(_program("tar"), rootfs, keep_owners=not single)
    with tempfile.NamedTemporaryFile("r", errors="replace") as complaints, Source(path) as source:
        pump = _Pump(source, ALL_IDS if single else ids)
        try:
            with _progress_bar(source), _signals_stop(source):
                status = run_in_userns(["/bin/sh", "-c", _SHELL, complaints.name, *tar], maps, stdin=pump.read_end)
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


def _ids(maps: IdMaps) -> Ids:
    return Ids(*([(inside, count) for inside, _, count in lines] for lines in (maps.uids, maps.gids)))


def _program(name: str) -> str:
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
            _exit(number, frame)
        received.append(number)
        source.stop()

    handlers = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        _exit(received[0], None)


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
