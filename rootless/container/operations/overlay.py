"""The directory that keeps what a container changes in its root: `--overlay DIR`.

The kernel leaves it undefined what two overlays make of one directory. The launcher locks it as long as it runs; the
note of a container, the directory's device and inode, says that the container uses it for as long as it has processes.
"""

from __future__ import annotations

import fcntl
import posix

from rootless import files
from rootless.container.operations.undo import note, notes
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, status
from rootless.errors import RootlessError
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.operations.undo import Data
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.root import StateRoot
    from rootless.plan.ops import Op


def open_upper(run: ContainerRun, op: Op) -> None:
    """Make the directory, for the caller alone; have the executor use this one and no other.

    Raises:
        RootlessError: `RL-OVERLAY`: it cannot be made, belongs to another user, or is in use.
    """
    path = op.value("path")
    try:
        files.make_private(path)
        fd = files.open_own(path)
        run.locks.append(fd)
        found = posix.fstat(fd)
        identity = [found.st_dev, found.st_ino]
        is_free = _lock(fd)  # first: a launcher that has just ended has left a note
        user = _user_of(run.root, identity)
        if user:
            raise _refused(
                path, f"container {user} uses it", f"rootless delete --force {user}, or name another directory"
            )
        if not is_free:
            raise _refused(path, "another container uses it", "end that container, or name another directory")
    except OSError as error:
        fix = "name a directory of your own that others cannot write to, or a new one"
        raise _refused(path, (error.strerror or "").lower(), fix) from None
    note(run.entry, "overlay", {"identity": identity})
    for index, each in enumerate(run.plan.ops):
        if each.kind is ops.OVERLAY:
            run.plan.ops[index] = each.with_numbers(device=identity[0], inode=identity[1])


def undo(_entry: ContainerDir, _data: Data) -> None:
    """Leave the directory as it is: it is there to stay, and free without the note."""


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _user_of(root: StateRoot, identity: list[int]) -> str:
    """Return the container that uses a directory; empty if none does."""
    for container_id in store.ids(root):
        try:
            with store.find(root, container_id, lock=False) as entry:
                noted = notes(entry).get("overlay", {})
                state = entry.read() if noted.get("identity") == identity else None
                if state and status(entry, state) != STOPPED:
                    return container_id
        except RootlessError:
            continue
    return ""


def _refused(path: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"--overlay {path}", cause=cause, fix=fix, code="RL-OVERLAY")
