"""The monitor of a detached container (helpers/init/monitor.c): its identity, its end, the exit status that it notes.

The file `exit` is locked from before the container's process exists until the monitor has written the status, or has
been killed. The lock makes waiting for the status one system call; no process has to be asked.
"""

from __future__ import annotations

import fcntl
import posix
from time import monotonic, sleep

from rootless.container.network import helper_process
from rootless.container.operations.undo import note as note_undo
from rootless.container.state.directory import EXIT
from rootless.procfs import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.plan.ops import Op

_SHORT = 1.0
_LOOK_AGAIN = 0.005
"""Seconds."""
_LONGEST = 64
"""Bytes of the file: a status and a time."""


def note(run: ContainerRun, _op: Op) -> None:
    """Note the monitor, which ends with the container or with the last process that holds its output open."""
    assert run.executor
    note_undo(run.entry, "monitor", {"process": identity(run.executor.first)})


def undo(entry: ContainerDir, data: Data) -> None:
    """End the monitor of a container that has ended, when it has written the status."""
    fd = open_exit(entry)
    if fd >= 0:
        deadline = monotonic() + _SHORT  # somebody may have stopped it
        while not is_free(fd) and monotonic() < deadline:
            sleep(_LOOK_AGAIN)
        posix.close(fd)
    helper_process.end(data["process"])


def is_free(fd: int) -> bool:
    """Whether the status is noted, or will never be."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_exit(entry: ContainerDir) -> int:
    """Return a descriptor of the file for the exit status, which the caller closes; -1 if nobody notes it."""
    try:
        return posix.open(EXIT, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=entry.fd)
    except FileNotFoundError:
        return -1


def await_status(fd: int) -> tuple[int, str] | None:
    """Wait until a status is noted; return it and the time of the end, or None if its writer was killed before."""
    fcntl.flock(fd, fcntl.LOCK_SH)
    return noted_status(fd)


def noted_status(fd: int) -> tuple[int, str] | None:
    """Return the status that is noted now and the time of the end, or None."""
    words = posix.pread(fd, _LONGEST, 0).decode("ascii", "replace").split()
    if len(words) == 2 and words[0].isdecimal():  # noqa: PLR2004 - a status and a time
        return int(words[0]), words[1]
    return None
