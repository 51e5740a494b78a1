"""Groups of containers that share namespaces (`run --join`): their members, and how another process enters one.

    ROOT/@groups/KEY/state.json     the namespaces' numbers, the ID maps, and the members

The members hold the namespaces: there is no process whose death would harm the others, and none to end. While a
container is being made, its launcher has descriptors of the namespaces; from then on its first process is in them.
A further member opens them through either, whichever is alive. The lock of the directory makes it certain that two
containers that come first create one group, and that none enters a group that is being removed.
"""

from __future__ import annotations

import fcntl
import posix
from _struct import Struct
from time import monotonic, sleep

from rootless import files
from rootless.container.state.shared_directory import SharedDirectory
from rootless.errors import EXHAUSTED, RootlessError
from rootless.linux import CLONE_FLAGS
from rootless.plan.namespaces import group as plan
from rootless.procfs import Process, identity, is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from rootless.container.state.root import StateRoot
    from rootless.plan.idmaps import IdMaps

    Make = Callable[[IdMaps | None, Sequence[str]], dict[str, int]]
    """Creates namespaces of these types, the user namespace with these maps, and returns descriptors."""

_PATIENCE, _MOMENT = 5, 0.01
"""Seconds."""
_READ = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
_NS_GET_NSTYPE = 0xB703
_NS_GET_OWNER_UID = 0xB704
"""ioctl_nsfs(2)."""
_UID = Struct("=I")


class Group(SharedDirectory):
    """A group; its name is the key that its containers give to --join.

    Attributes:
        state: `namespaces`, their numbers by type; `uids` and `gids`, the ID maps; `members` by the container's id,
            each with its `launcher` and `process` as [process, start time] and its `fds` by type.
    """

    SORT = "@groups"

    def __init__(self, root: StateRoot, key: str, *, create: bool) -> None:
        """Open and lock it; see SharedDirectory.opened()."""
        super().__init__(root, key, create=create)
        try:
            self.state: dict[str, Any] = self._read() or {"namespaces": {}, "uids": [], "gids": [], "members": {}}
        except BaseException:
            self.close()
            raise

    def _read(self) -> dict[str, Any] | None:
        """Return the record of this boot; None if there is none, or it is damaged: then nobody finds the members."""
        try:
            found = self.read()
            return {
                "namespaces": {
                    kind: int(found["namespaces"][kind]) for kind in plan.KINDS if kind in found["namespaces"]
                },
                "uids": list(found["uids"]),
                "gids": list(found["gids"]),
                "members": {each: _member(member) for each, member in found["members"].items()},
            }
        except (LookupError, TypeError, ValueError, AttributeError):
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
            RootlessError: `RL-JOIN`: the group has others or other ID maps, or hides them; or one cannot be created.
        """
        own = {
            "uids": [list(line) for line in maps.uids] if maps else [],
            "gids": [list(line) for line in maps.gids] if maps else [],
        }
        found = self._shared()
        if found is None:
            found = make(maps, kinds)
            numbers = {kind: posix.fstat(fd).st_ino for kind, fd in found.items()}
            self.state = {"namespaces": numbers, "members": {}} | own
        elif found.keys() != {*kinds} or any(self.state[name] != own[name] for name in own):
            _close(found)
            raise RootlessError(
                f"--join {self.name}",
                cause="the containers of this group have other IDs or namespaces: " + ", ".join(self.members),
                fix="give the same --userns and the same namespaces to all of them, or choose another key",
                code="RL-JOIN",
            )
        self.members[container_id] = {"launcher": identity(posix.getpid()), "fds": found, "process": []}
        self.put(self.state)
        return found

    def _shared(self) -> dict[str, int] | None:
        """Return descriptors of the namespaces by type; None if no member is alive.

        The launcher of a member may have ended while its process is about to execute the program, and is not dumpable,
        ptrace(2): then it shows its namespaces in a moment.

        Raises:
            RootlessError: `RL-JOIN`: no member shows them.
        """
        deadline = monotonic() + _PATIENCE
        while members := self.living():
            self.state["members"] = members
            for member in members.values():
                if found := self._opened(member):
                    return found
            if monotonic() > deadline:
                raise RootlessError(
                    f"--join {self.name}",
                    cause="no container of this group shows its namespaces: " + ", ".join(members),
                    fix="delete them, or choose another key",
                    code="RL-JOIN",
                )
            sleep(_MOMENT)
        return None

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
        self.put(self.state)

    @staticmethod
    def unusable(name: str, error: OSError) -> RootlessError:
        """Return the error for a group whose directory cannot be used: `RL-JOIN`."""
        return RootlessError(
            f"--join {name}",
            cause=(error.strerror or str(error)).lower() + (f": {error.filename}" if error.filename else ""),
            fix=EXHAUSTED.get(error.errno or 0)
            or "name a directory that only you can write to with --root, or remove the file",
            code="RL-JOIN",
        )


def leave(root: StateRoot, key: str, container_id: str) -> None:
    """Forget a member that has ended, and others that have; remove a group without members.

    Raises:
        RootlessError: `RL-JOIN`: its directory cannot be used.
    """
    group = Group.to_leave(root, key)
    if not group:
        return
    with group:
        group.members.pop(container_id, None)
        group.state["members"] = group.living()
        if group.members:
            group.put(group.state)
        else:
            group.remove()


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
