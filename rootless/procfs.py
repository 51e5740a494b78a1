"""Processes as /proc shows them: one line of stat, the boot, and what tells a process from a later one.

Source: proc(5).
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Return a process and its start time, which tell it from a later one of the same number."""
    found = Process.read(pid)
    return [pid, found.start_time if found else 0]


def is_there(process: Sequence[int]) -> bool:
    """Whether a process that identity() told is still alive."""
    pid, start_time = process
    found = Process.read(pid)
    return bool(found and found.alive and found.start_time == start_time)


def boot_id() -> str:
    """Return what distinguishes this boot from others; a process id means nothing across them."""
    if not _this_boot:
        _this_boot.append(read("/proc/sys/kernel/random/boot_id").decode().strip())
    return _this_boot[0]


def read(path: str) -> bytes:
    """Return what is in a small file of /proc; a file object would cost as much again."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, _LONGEST_LINE)
    finally:
        posix.close(fd)
