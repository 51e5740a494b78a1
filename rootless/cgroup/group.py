"""A cgroup as a directory: its files, the freezer, the end of what is in it, and its own (cgroup-v2.rst)."""

from __future__ import annotations

import errno
import posix
import select
import time

from rootless import files, log, paths
from rootless.errors import EXHAUSTED, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    Note = Callable[[str, list[str], str], None]
    """Gets a directory, those above it that are made for it, and whose it is: OWN, UNVERIFIED or KEPT."""

OWN = "own"
UNVERIFIED = "perhaps"
"""It may be another container's: that is still to be checked."""
KEPT = "kept"
"""It was there before the container, and stays."""

PATIENCE = 10.0
"""Seconds for the kernel to freeze or kill processes, such as those that wait for a disk."""
_CHUNK = 1 << 16
_TOKEN = 4
"""Bytes."""
_SIGKILL = 9
_NOT_YOURS = "let the user who created the container do it"
_ORDER_FIXES = {errno.ENOENT: "use Linux 5.2 or newer", errno.EACCES: _NOT_YOURS, errno.EPERM: _NOT_YOURS}
"""Of writing an order, such as to freeze, into a file of a cgroup."""
_LOOK_AGAIN = 0.01
"""Seconds between two looks, where the kernel sends no event."""


class Group:
    """A cgroup that is there, used through a descriptor until close().

    Attributes:
        path: its directory.
        fd: the descriptor of it.
    """

    __slots__ = ("fd", "path")

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            OSError: it is not there, or out of reach.
        """
        self.path = path
        self.fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def close(self) -> None:
        """Close it."""
        files.close_fds(self, "fd")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def read(self, file: str) -> str:
        """Return the content of a file; empty where there is no such file, or the cgroup is gone."""
        try:
            fd = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return ""
        try:
            return _whole(fd)
        except OSError:
            return ""
        finally:
            posix.close(fd)

    def files(self) -> list[str]:
        """Return the names of its files, and of the cgroups below it."""
        try:
            return sorted(posix.listdir(self.fd))
        except OSError:
            return []

    def fields(self, file: str) -> dict[str, int]:
        """Return a file of lines with a name and a number each."""
        pairs = (line.split() for line in self.read(file).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}  # noqa: PLR2004

    def write(self, file: str, value: str) -> None:
        """Give a file a new value, at once.

        Raises:
            OSError: there is no such file, or the kernel refuses the value.
        """
        if log.is_debug():
            log.debug(f"write {value} to {self.path}/{file}")
        fd = posix.open(file, posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=self.fd)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)

    @property
    def is_populated(self) -> bool:
        """Whether there is any process in it or below."""
        return self.fields("cgroup.events").get("populated") == 1

    def processes(self) -> list[int]:
        """Return the ids of the processes in it and in all that is below."""
        texts = [self.read("cgroup.procs")]
        for directory, name in _below(self.fd):
            try:
                fd = posix.open(f"{name}/cgroup.procs", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
            except OSError:
                continue  # it has gone
            try:
                texts.append(_whole(fd))
            except OSError:
                continue
            finally:
                posix.close(fd)
        return sorted({int(line) for text in texts for line in text.split()} - {0})

    def freeze(self) -> None:
        """Freeze its processes, and return when they are frozen.

        Raises:
            RootlessError: `RL-CGROUP`: they do not; then they go on.
        """
        self._order("cgroup.freeze", "1", "pause")
        if not self.wait("frozen", 1):
            self._order("cgroup.freeze", "0", "pause")
            raise RootlessError(
                "cannot pause the container",
                cause=f"after {PATIENCE:.0f} s not all of its processes are frozen; the container is resumed",
                fix="look for processes in state D (ps -o pid,stat,wchan): they wait for a device",
                code="RL-CGROUP",
            )

    def thaw(self) -> None:
        """Let its processes go on, and return when they do.

        Raises:
            RootlessError: `RL-CGROUP`: a cgroup above it is frozen too.
        """
        self._order("cgroup.freeze", "0", "resume")
        if not self.wait("frozen", 0):
            raise RootlessError(
                "cannot resume the container",
                cause=f"a cgroup above {self.path} is frozen",
                fix="write 0 into cgroup.freeze there, or thaw its unit: systemctl thaw UNIT",
                code="RL-CGROUP",
            )

    def kill(self) -> None:
        """Send SIGKILL to every process in it and below; that there is none is no error."""
        try:
            self.write("cgroup.kill", "1")
        except OSError:
            # before Linux 5.14
            deadline = time.monotonic() + PATIENCE
            while (found := self.processes()) and time.monotonic() < deadline:
                for pid in found:
                    _kill(pid)
                self.wait("populated", 0, _LOOK_AGAIN)

    def wait(self, event: str, value: int, patience: float = PATIENCE) -> bool:
        """Wait until `event` of cgroup.events, `frozen` or `populated`, has `value`; return whether it came to that."""
        deadline = time.monotonic() + patience
        try:
            fd = posix.open("cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return True  # it has gone, and all that was in it
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            while f"{event} {value}" not in _whole(fd).splitlines():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(left * 1000)
                posix.lseek(fd, 0, 0)
        except OSError:
            return True
        finally:
            posix.close(fd)
        return True

    def remove(self) -> None:
        """End what is in it, and remove it with all that is below.

        Raises:
            OSError: something stays.
        """
        if _rmdir(self.path):
            return
        self.empty()
        deadline = time.monotonic() + PATIENCE
        while not _rmdir(self.path):
            # its last process is not quite out of it
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "it is busy", self.path)
            time.sleep(_LOOK_AGAIN)
            self.empty()

    def empty(self) -> None:
        """End what is in it, and remove what is below, as far as that is not busy.

        Raises:
            OSError: it may not be removed.
        """
        self.kill()
        self.wait("populated", 0)
        for directory, name in _below(self.fd, deepest_first=True):
            _rmdir(name, dir_fd=directory)

    def _order(self, file: str, value: str, verb: str) -> None:
        try:
            self.write(file, value)
        except OSError as error:
            raise RootlessError(
                f"cannot {verb} the container",
                cause=f"write {self.path}/{file}: {(error.strerror or '').lower()}",
                fix=(EXHAUSTED | _ORDER_FIXES).get(error.errno or 0, ""),
                code="RL-CGROUP",
            ) from None


def opened(path: str) -> Group | None:
    """Open a cgroup, or return None when it is not there any more."""
    try:
        return Group(path)
    except OSError:
        return None


def is_frozen(path: str) -> bool:
    """Whether the cgroup at `path` is frozen by its own cgroup.freeze; not where that cannot be read."""
    return files.text_of(f"{path}/cgroup.freeze") == "1"


def end_all(path: str) -> None:
    """End every process in the cgroup at `path` and below, if there is one, and wait for that."""
    group = opened(path)
    if group:
        with group:
            if group.is_populated:
                group.kill()
                group.wait("populated", 0)


def remove(path: str, *, empty_only: bool = False) -> None:
    """Remove a cgroup and what it holds, if there is one.

    Raises:
        OSError: it stays.
    """
    if empty_only:
        _rmdir(path)
        return
    try:
        group = Group(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with group:
        group.remove()


def empty(path: str) -> None:
    """End what is in a cgroup and remove what is below, but not itself.

    Raises:
        OSError: something stays.
    """
    group = opened(path)
    if not group:
        return
    with group:
        deadline = time.monotonic() + PATIENCE
        group.empty()
        while _directories(group.fd):
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "it is busy", path)
            time.sleep(_LOOK_AGAIN)
            group.empty()


def make_anew(base: str, name: str, note: Note) -> str:
    """Make a cgroup below `base` under a name of its own that begins with `name`; return its directory.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        path = f"{base}/{name}.{int.from_bytes(posix.urandom(_TOKEN), 'little'):08x}"
        note(path, [], OWN)
        try:
            posix.mkdir(path, 0o755)
        except FileExistsError:
            continue
        return path


def missing_parents(path: str, base: str) -> list[str]:
    """Return the directories that are missing between `base`, which is there, and `path`, innermost first."""
    missing = []
    parent = paths.parent(path)
    while len(parent) > len(base) and not paths.exists(parent):
        missing.append(parent)
        parent = paths.parent(parent)
    return missing


def make_parents(missing: Sequence[str]) -> None:
    """Make what missing_parents() returned.

    Raises:
        OSError: one cannot be made.
    """
    for parent in reversed(missing):
        try:
            posix.mkdir(parent, 0o755)
        except FileExistsError:
            continue


def remove_parents(made: Sequence[str]) -> None:
    """Remove those that are empty."""
    for parent in made:
        try:
            posix.rmdir(parent)
        except OSError:
            continue


def _whole(fd: int) -> str:
    text = b""
    while piece := posix.read(fd, _CHUNK):
        text += piece
    return text.decode()


def _below(top: int, *, deepest_first: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the cgroups below one, each as a descriptor of what it is in, good until the next, and its name.

    A container nests them as deep as it likes: there is one descriptor at a time, and no path grows with the depth.
    """
    fd = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=top)
    way: list[str] = []
    pending = [_directories(fd)]
    try:
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                if not deepest_first:
                    yield fd, name
                entered = _enter(fd, name)
                if entered >= 0:
                    posix.close(fd)
                    fd = entered
                    way.append(name)
                    pending.append(_directories(fd))
                elif deepest_first:
                    yield fd, name
                continue
            pending.pop()
            if way:
                above = _enter(fd, "..")
                if above < 0:
                    return  # it has gone, with all that it was in
                posix.close(fd)
                fd = above
                name = way.pop()
                if deepest_first:
                    yield fd, name
    finally:
        posix.close(fd)


def _enter(directory: int, name: str) -> int:
    try:
        return posix.open(name, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return -1


def _directories(fd: int) -> list[str]:
    try:
        with posix.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return []


def _rmdir(path: str, dir_fd: int | None = None) -> bool:
    """Remove a directory; return whether it has gone."""
    try:
        posix.rmdir(path, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _kill(pid: int) -> None:
    try:
        posix.kill(pid, _SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
