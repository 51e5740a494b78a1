"""Programs of the host that read an untrusted image, squashfuse_ll and unsquashfs: confined, then executed.

They parse what a stranger made, as the caller. One that is taken over can read its libraries and the image, write to no
file, change none, reach no network, socket or other process, and have only so much memory.

Source: landlock(7), seccomp(2), mount_setattr(2).
"""

from __future__ import annotations

from rootless.linux import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, RLIMITS
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.process.refused_calls import without_sockets
from rootless.plan.rootfs.image import FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.rootfs.image import Image

_EVERY_ACCESS = (1 << 13) - 1
"""LANDLOCK_ACCESS_FS_… of the first ABI (Linux 5.13)."""
_READ = 1 << 0 | 1 << 2
"""LANDLOCK_ACCESS_FS_EXECUTE and _READ_FILE."""
_LIBRARIES = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store")
_MOST_MEMORY = 1 << 30
"""Bytes of the data of squashfuse_ll."""
UNSQUASHFS_FILE = 3
"""The descriptor of unsquashfs for the image."""
_MOST_OF_UNSQUASHFS = 4 << 30
"""Bytes of its data: it keeps the names of all files, and has queues of up to 1 GB."""
_LIMITS_OF_UNSQUASHFS = (("FSIZE", 0), ("CPU", 4 * 3600))
"""It writes to a pipe only; a damaged image may have loops."""
_READ_ANY_FILE = 1 << 2
"""CAP_DAC_READ_SEARCH: root of the host may run an image that belongs to a user."""


def serve(image: Image, offset: int, machine: str) -> list[Op]:
    """Return the operations of the server on a machine of this architecture: it is confined, then executed."""
    confined = confine([image.program, f"/proc/self/fd/{FILE}"], machine, _MOST_MEMORY, private=image.private)
    return [*confined, Op(ops.EXEC, image.command(offset), [])]


def unsquash(command: list[str], machine: str, *, namespaces: bool, private: bool) -> list[Op]:
    """Return the operations of unsquashfs, whose image is the descriptor UNSQUASHFS_FILE.

    Args:
        command: its command line; the first word is its path.
        machine: the architecture.
        namespaces: whether it gets its own; some hosts forbid it.
        private: see confine().
    """
    readable = [command[0], f"/proc/self/fd/{UNSQUASHFS_FILE}"]
    if namespaces:
        confined = confine(readable, machine, _MOST_OF_UNSQUASHFS, private=private)
    else:
        confined = [Op(ops.SPAWN), *restrict(readable, machine, _MOST_OF_UNSQUASHFS)]
    limits = [Op(ops.RLIMIT, RLIMITS.index(name), most, most) for name, most in _LIMITS_OF_UNSQUASHFS]
    return [*confined, *limits, Op(ops.EXEC, command, [])]


def confine(readable: list[str], machine: str, memory: int, *, private: bool) -> list[Op]:
    """Return the operations before EXEC for a program that reads an untrusted file.

    It can read its libraries and what is named, write to no file, and reach no network, socket or other process.

    Args:
        readable: the program and the file.
        machine: the architecture.
        memory: bytes of its own data: a crafted image can ask for tables of any size.
        private: give it a user namespace, in which it has no capability; else the caller is root.
    """
    own = [Op(ops.NEW_USER)] if private else [Op(ops.BOUNDING, _READ_ANY_FILE)]
    return [
        Op(ops.SPAWN),
        *own,
        Op(ops.UNSHARE, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET),
        Op(ops.READONLY_HOST),  # Landlock knows nothing of chmod(2) and others
        *restrict(readable, machine, memory),
        Op(ops.FORK),
    ]


def restrict(readable: list[str], machine: str, memory: int) -> list[Op]:
    """Return those that need no namespace, and leave a process as it was started."""
    return [
        Op(ops.SESSION),  # Ctrl-C at the terminal of the container is not for it
        Op(ops.RLIMIT, RLIMITS.index("CORE"), 0, 0),
        Op(ops.RLIMIT, RLIMITS.index("DATA"), memory, memory),
        Op(ops.NO_NEW_PRIVS),
        Op(ops.LANDLOCK, _EVERY_ACCESS, _READ, [*_LIBRARIES, *readable], on_error=ops.ELSE),
        Op(ops.NO_SOCKETS, without_sockets(machine), on_error=ops.ELSE),
    ]
