"""Groups of containers that share namespaces (`run --join`): their members, and how another process enters one.

    ROOT/@groups/KEY/state.json     the namespaces' numbers, the ID maps, and the members

The members hold the namespaces: there is no process whose death would harm the others, and none to end. While a
container is being made, its launcher has descriptors of the namespaces; from then on its first process is in them.
A further member opens them through either, whichever is alive. A lock on the directory makes it certain that two
containers that come first create one group, and that none enters a group that is being removed.
"""

from __future__ import annotations

import fcntl
import posix
from _struct import Struct

from rootless import files, jsontext
from rootless.container.state.directory import NOT_AGED
from rootless.errors import EXHAUSTED, RootlessError
from rootless.linux import CLONE_FLAGS
from rootless.plan.namespaces import group as plan
from rootless.procfs import Process, boot_id, identity, is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Self

    from rootless.container.state.root import StateRoot
    from rootless.plan.idmaps import IdMaps

    Make = Callable[[IdMaps | None, Sequence[str]], dict[str, int]]
    """Creates namespaces of these types, the user namespace with these maps, and returns descriptors."""

_GROUPS = "@groups"
"""A directory beside the containers; no container can have that name."""
_STATE = "state.json"
_READ = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
_NS_GET_NSTYPE = 0xB703
_NS_GET_OWNER_UID = 0xB704
"""ioctl_nsfs(2)."""
_UID = Struct("=I")
_held: dict[str, int] = {}
"""Locks of directories, by path. An interrupted command may leave its own open, and would wait for itself."""


class Group:
    """A group: its directory, open and locked until close().

    Attributes:
        key: what its containers give to --join.
        path: the directory, for messages and for _held.
        fd: its descriptor.
        state: `bootId`; `namespaces`, their numbers by type; `uids` and `gids`, the ID maps; `members` by the
            container's id, each with its `launcher` and `process` as [process, start time] and its `fds` by type.
    """

    def __init__(self, root: StateRoot, key: str) -> None:
        """Open and lock it, waiting for other processes that change it.

        Raises:
            OSError: the directory cannot be made or opened, or is another user's.
        """
        self.key = key
        self.path = f"{root.path}/{_GROUPS}/{key}"
        self._root = root
        self._above = -1
        _release(self.path)
        try:
            while not self._lock():  # another process is removing a directory
                self.close()
        except BaseException:
            self.close()
            raise
        self.state: dict[str, Any] = self._read() or {"namespaces": {}, "uids": [], "gids": [], "members": {}}

    def _lock(self) -> bool:
        """Make, open and lock the directory; return whether it is still there."""
        try:
            _make(_GROUPS, self._root.fd)
            self._above = files.open_own(_GROUPS, self._root.fd)
            _make(self.key, self._above)
            self.fd = _held[self.path] = files.open_own(self.key, self._above)
        except FileNotFoundError:
            return False
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return posix.fstat(self.fd).st_nlink > 0

    def _read(self) -> dict[str, Any] | None:
        """Return the record of this boot; None if there is none, or it is damaged: then nobody finds the members."""
        try:
            found: Any = jsontext.parse(files.content(_STATE, self.fd), self.path)
            if found["bootId"] != boot_id():
                return None
            return {
                "namespaces": {
                    kind: int(found["namespaces"][kind]) for kind in plan.KINDS if kind in found["namespaces"]
                },
                "uids": list(found["uids"]),
                "gids": list(found["gids"]),
                "members": {each: _member(member) for each, member in found["members"].items()},
            }
        except (FileNotFoundError, RootlessError, LookupError, TypeError, ValueError, AttributeError):
            return None

    @property
    def members(self) -> dict[str, Any]:
        """The containers in it, by their ids."""
        members: dict[str, Any] = self.state["members"]
        return members

    def living(self) -> dict[str, Any]:
        """Return the members of which a process is alive: the launcher, or the container's first one."""
        return {each: member for each, member in self.members.items() if any(map(is_there, _processes(member)))}

    def enter(self, container_id: str, kinds: Sequence[str], maps: IdMaps | None, make: Make) -> dict[str, int]:
        """Make a container a member; return descriptors of the shared namespaces by type, which this process keeps.

        Raises:
            RootlessError: `RL-JOIN`: the group has other namespaces or ID maps; or one cannot be created.
        """
        own = {
            "uids": [list(line) for line in maps.uids] if maps else [],
            "gids": [list(line) for line in maps.gids] if maps else [],
        }
        self.state["members"] = self.living()
        found = next(filter(None, map(self._opened, self.members.values())), None)
        if found is None:
            found = make(maps, kinds)
            numbers = {kind: posix.fstat(fd).st_ino for kind, fd in found.items()}
            self.state = {"namespaces": numbers, "members": {}} | own
        elif found.keys() != {*kinds} or any(self.state[name] != own[name] for name in own):
            _close(found)
            raise RootlessError(
                f"--join {self.key}",
                cause="the containers of this group have other IDs or namespaces: " + ", ".join(self.members),
                fix="give the same --userns and the same namespaces to all of them, or choose another key",
                code="RL-JOIN",
            )
        self.members[container_id] = {"launcher": identity(posix.getpid()), "fds": found, "process": []}
        self.write()
        return found

    def _opened(self, member: Mapping[str, Any]) -> dict[str, int] | None:
        """Return descriptors of the namespaces that a member's process or launcher has; None if neither has them."""
        numbers = self.state["namespaces"]
        by_launcher = {kind: f"fd/{member['fds'].get(kind, -1)}" for kind in numbers}
        for process, names in ((member["process"], plan.files(numbers)), (member["launcher"], by_launcher)):
            if process and (found := _open_through(process, names, numbers)):
                return found
        return None

    def note_process(self, container_id: str, process: Sequence[int]) -> None:
        """Write down the first process of a member."""
        self.members[container_id]["process"] = list(process)
        self.write()

    def write(self) -> None:
        """Write the state."""
        self.state["bootId"] = boot_id()
        files.put(_STATE, jsontext.render(self.state, None).encode(), NOT_AGED | 0o600, dir_fd=self.fd)

    def remove(self) -> None:
        """Remove the directory of a group without members; the kernel has removed their namespaces."""
        for name in posix.listdir(self.fd):
            posix.unlink(name, dir_fd=self.fd)
        posix.rmdir(self.key, dir_fd=self._above)
        try:
            posix.rmdir(_GROUPS, dir_fd=self._root.fd)
        except OSError:  # there are other groups
            return

    def close(self) -> None:
        """Unlock it."""
        _release(self.path)
        files.close_fds(self, "_above")

    def __enter__(self) -> Self:
        """Return itself: it is locked already."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Unlock it; an OSError becomes the error for a group that cannot be used."""
        self.close()
        if isinstance(error, OSError):
            raise _unusable(self.key, error) from None


def opened(root: StateRoot, key: str) -> Group:
    """Return a group, locked.

    Raises:
        RootlessError: `RL-JOIN`: its directory cannot be used.
    """
    try:
        return Group(root, key)
    except OSError as error:
        raise _unusable(key, error) from None


def leave(root: StateRoot, key: str, container_id: str) -> None:
    """Forget a member that has ended, and others that have; remove a group without members.

    Raises:
        RootlessError: `RL-JOIN`: its directory cannot be used.
    """
    if key not in names(root):
        return
    with opened(root, key) as group:
        group.members.pop(container_id, None)
        group.state["members"] = group.living()
        if group.members:
            group.write()
        else:
            group.remove()


def names(root: StateRoot) -> list[str]:
    """Return the keys of the groups that may be in use, sorted."""
    if root.fd < 0:
        return []
    try:
        directory = files.open_own(_GROUPS, root.fd)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(_GROUPS, error) from None
    try:
        return sorted(posix.listdir(directory))
    finally:
        posix.close(directory)


def _member(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says of a member.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is damaged.
    """
    pid, start_time = map(int, data["launcher"])
    process = [int(number) for number in data["process"]]
    if process:
        process = [process[0], process[1]]
    return {
        "launcher": [pid, start_time],
        "fds": {kind: int(fd) for kind, fd in data["fds"].items()},
        "process": process,
    }


def _processes(member: Mapping[str, Any]) -> list[Sequence[int]]:
    return [member[name] for name in ("process", "launcher") if member[name]]


def _open_through(process: Sequence[int], names: Mapping[str, str], numbers: Mapping[str, int]) -> dict[str, int]:
    """Return descriptors of the namespaces that a process of the caller's shows below /proc/PID; none if it does not.

    They are opened below one directory of /proc, which never becomes that of another process with the same ID. A member
    may have entered other namespaces since, and its launcher may have reused the number: only the group's own count.
    """
    pid, start_time = process
    found: dict[str, int] = {}
    try:
        directory = posix.open(f"/proc/{pid}", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return found
    try:
        if Process(pid, files.content("stat", directory).decode("utf-8", "replace")).start_time != start_time:
            return found
        for kind, name in names.items():
            found[kind] = posix.open(name, _READ, dir_fd=directory)
            if not _is_own(found[kind], kind, numbers[kind]):
                _close(found)
                break
    except OSError:  # it has ended
        _close(found)
    finally:
        posix.close(directory)
    return found


def _is_own(fd: int, kind: str, number: int) -> bool:
    """Whether a descriptor is that of a namespace of this type and number; a user namespace has to be the caller's."""
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) != CLONE_FLAGS[kind] or posix.fstat(fd).st_ino != number:
            return False
        return kind != "user" or _UID.unpack(fcntl.ioctl(fd, _NS_GET_OWNER_UID, _UID.pack(0))) == (posix.geteuid(),)
    except OSError:  # it is of something else
        return False


def _close(descriptors: dict[str, int]) -> None:
    while descriptors:
        posix.close(descriptors.popitem()[1])


def _release(path: str) -> None:
    fd = _held.pop(path, -1)
    if fd >= 0:
        posix.close(fd)


def _make(directory: str, above: int) -> None:
    try:
        posix.mkdir(directory, 0o700, dir_fd=above)
    except FileExistsError:
        return


def _unusable(key: str, error: OSError) -> RootlessError:
    return RootlessError(
        f"--join {key}",
        cause=(error.strerror or str(error)).lower() + (f": {error.filename}" if error.filename else ""),
        fix=EXHAUSTED.get(error.errno or 0)
        or "name a directory that only you can write to with --root, or remove the file",
        code="RL-JOIN",
    )
