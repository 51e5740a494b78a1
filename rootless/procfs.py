"""Processes as /proc shows them: identity, status, ids, limits, cgroup. No other file knows these formats.

Source: proc(5).
"""

from __future__ import annotations

import posix

from rootless.files import derived_text, text_of
from rootless.paths import UNKNOWN, noted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    IdMap = tuple[int, int, int]
    """First id inside, first id outside, count: a line of /proc/PID/uid_map."""

ALL_IDS: IdMap = (0, 0, 4294967295)
"""The only line of the maps of the initial user namespace."""

CAPABILITIES = "capabilities"
"""Note of this process's effective and bounding set (paths.noted)."""
LIMITS = "limits"
"""Note of this process's hard limits by their numbers."""
_LONGEST_LINE = 4096
_this_boot: list[str] = []


class Process:
    """One line of /proc/PID/stat: `name`, `start_time` in clock ticks, `parent`, `session`, whether it is `alive`."""

    __slots__ = ("alive", "name", "parent", "pid", "session", "start_time")

    def __init__(self, pid: int, text: str) -> None:
        name_end = text.rindex(")")
        fields = text[name_end + 2 :].split()
        self.pid = pid
        self.name = text[text.index("(") + 1 : name_end]
        self.alive = fields[0] not in ("Z", "X")
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.start_time = int(fields[19])

    @classmethod
    def read(cls, pid: int) -> Process | None:
        """Return the process `pid`, or None when there is none."""
        try:
            return cls(pid, read(f"/proc/{pid}/stat").decode("utf-8", "replace"))
        except (FileNotFoundError, ProcessLookupError):
            return None


def identity(pid: int) -> list[int]:
    """Return a process ID and a start time, which distinguish the process from a later one with the same ID."""
    found = Process.read(pid)
    return [pid, found.start_time if found else 0]


def is_there(process: Sequence[int]) -> bool:
    """Whether the process of an identity() is still alive."""
    pid, start_time = process
    found = Process.read(pid)
    return bool(found and found.alive and found.start_time == start_time)


def boot_id() -> str:
    """Return what distinguishes this boot from others; a process id means nothing across them."""
    if not _this_boot:
        _this_boot.append(_read("/proc/sys/kernel/random/boot_id").decode().strip())
    return _this_boot[0]


def read(path: str) -> bytes:
    """Return what is in a small file of /proc; a file object would cost as much again."""
    noted(UNKNOWN, path)
    return _read(path)


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, _LONGEST_LINE)
    finally:
        posix.close(fd)


def status(pid: int | str) -> dict[str, str]:
    """Return the lines of /proc/PID/status by their names; nothing when the process is gone."""
    noted(UNKNOWN, "status")
    return _status(pid)


def _status(pid: int | str) -> dict[str, str]:
    pairs = (line.partition(":") for line in derived_text(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def own_capabilities() -> tuple[int, int]:
    """Return the effective set and the bounding set of this process, as bit masks."""
    found = _status("self")
    sets = int(found.get("CapEff", "0"), 16), int(found.get("CapBnd", "0"), 16)
    noted(CAPABILITIES, *sets)
    return sets


def id_maps(pid: int | str) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """Return the uid map and the gid map of a process's user namespace; every id where they cannot be read."""
    return _id_map(f"/proc/{pid}/uid_map"), _id_map(f"/proc/{pid}/gid_map")


def _id_map(path: str) -> tuple[IdMap, ...]:
    lines = [line.split() for line in text_of(path).splitlines()]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in lines) or (ALL_IDS,)


def denies_setgroups(pid: int | str) -> bool:
    """Whether setgroups(2) is refused in a process's user namespace, user_namespaces(7)."""
    return text_of(f"/proc/{pid}/setgroups") == "deny"


def hard_limits(pid: int | str) -> dict[int, int]:
    """Return hard resource limits by their number, -1 for unlimited; /proc/PID/limits has them in this order.

    Its columns have fixed places. The module `resource` would have to be loaded from a file of its own.
    """
    words = [line[47:67].strip() for line in derived_text(f"/proc/{pid}/limits").splitlines()[1:]]
    limits = {number: -1 if word == "unlimited" else int(word) for number, word in enumerate(words)}
    noted(LIMITS if pid == "self" else UNKNOWN, limits)
    return limits


# --- cgroups(7), "/proc files" ----------------------------------------------------------------------------------------


def cgroups(pid: int | str) -> list[tuple[str, str]]:
    """Return (controllers separated by commas, path) of each line of /proc/PID/cgroup; cgroup v2 has no controllers."""
    lines = (line.split(":", 2) for line in text_of(f"/proc/{pid}/cgroup").splitlines())
    return [(fields[1], fields[2]) for fields in lines if len(fields) == 3]  # noqa: PLR2004 - number, controllers, path


def cgroup(pid: int | str) -> str:
    """Return the path of a process in cgroup v2, as its reader's cgroup namespace has it; nothing when it is gone."""
    return next((path for controllers, path in cgroups(pid) if not controllers), "")


def is_shown(path: str) -> bool:
    """Whether a path of cgroup() lies below the root of the reader's cgroup namespace, where mounts can show it."""
    return path.startswith("/") and "/../" not in f"{path}/"
