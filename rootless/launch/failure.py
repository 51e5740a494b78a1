"""The error for an operation that failed: its sentence, system call, errno, place and fix."""

from __future__ import annotations

import errno
import os

from rootless import log
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch import exec_failure
from rootless.linux import CLONE_FLAGS, NAMESPACE_FILES
from rootless.plan import ops
from rootless.plan.op_text import WORDS, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.ops import Op

_MORE_MOUNTS = "raise the limit of mounts in a mount namespace, as root: sysctl -w fs.mount-max=200000"

_ID_MAP_FIX = "bind it without idmap, uidMappings and gidMappings"
_CALL_FIXES: dict[str, dict[int, str]] = {
    # a call that several operations make, or one of several calls of an operation
    "move_mount": {errno.ENOSPC: _MORE_MOUNTS},
    "mount": {
        errno.ENOSPC: _MORE_MOUNTS,
        errno.E2BIG: "shorten the options of this mount: mount(2) takes 4096 bytes",
    },
    "openat": {
        # of ptmx
        errno.ENOSPC: "close terminals, or raise their limit, as root: sysctl -w kernel.pty.max=8192",
    },
    "copy": {
        errno.EACCES: "make the directory readable for the user who runs rootless, or leave tmpcopyup out",
        errno.EPERM: "leave tmpcopyup out: a user namespace cannot copy device nodes",
        errno.EINVAL: "leave tmpcopyup out: a file has an owner that the container does not have",
        errno.ENOSPC: "raise size or nr_inodes of this tmpfs, or leave tmpcopyup out",
        errno.ESTALE: "try again, without processes that change the directory meanwhile",
    },
    "openat2": {
        errno.EAGAIN: "try again, without processes that rename or cover directories of the bundle meanwhile",
    },
    "copy a deep tree": {
        errno.ENAMETOOLONG: "leave tmpcopyup out: it copies directories up to 256 levels deep",
    },
    "mount_setattr(MOUNT_ATTR_IDMAP)": {
        errno.EPERM: "let root of the user namespace that mounted the file system run it, or " + _ID_MAP_FIX,
        errno.EINVAL: "use a file system whose IDs this kernel maps (ext4, xfs, btrfs; tmpfs since 6.3, "
        "FUSE if its server allows it, but not NFS), or " + _ID_MAP_FIX,
    },
}

_OF_THE_HOST = {ops.ROOT: "path", ops.BIND: "source", ops.TREE: "source"}
"""Operations on a file of the host, and the operand that names it."""
_MOUNTED_AT = {"/proc": "proc", "/sys": "sysfs"}
_OOM_SCORE = "process.oomScoreAdj"
_SAME_EFFECT = (ops.BECOME, ops.MOUNT, ops.DEVICE_NODE, ops.KEYRING)


def explained(op: Op | None, call: str, number: int, more: bytes) -> RootlessError:
    """Return the error for an operation that failed.

    Args:
        op: the operation, or None for an error about the Plan itself.
        call: the system call that failed.
        number: its errno.
        more: the kernel's own message about a file system, the first bytes of a program that execve refused, or an
            errno for each candidate of COMMAND.
    """
    reason = os.strerror(number)
    if op is None:
        text = more.decode("utf-8", "replace")
        return RootlessError("the executor cannot continue", cause=f"{call}: {text or reason}", code="RL-INIT")
    if op.kind is ops.COMMAND:
        return exec_failure.not_found(op, more)
    if op.kind is ops.HOOK:
        from rootless.launch import run_hooks

        return run_hooks.failure(str(op.string("path")), op.where, call, number, more)
    if op.kind is ops.EXEC:
        return exec_failure.not_executed(op, number, more)
    message = more.decode("utf-8", "replace").strip()
    error = RootlessError(
        _as_runc(op, number) + sentence(op),
        cause=f"{call}: {reason}" + (f": {message}" if message else ""),
        where=op.where,
        fix=_fix(op, call, number),
        code="RL-" + op.kind.name.upper().replace("_", "-"),
    )
    error.number = number
    if number == errno.EACCES and op.kind in _OF_THE_HOST:
        error.path = str(op.string(_OF_THE_HOST[op.kind]))
    return error


def _as_runc(op: Op, number: int) -> str:
    """Return runc's words, which precede the sentence where users and engines look for them."""
    if op.kind is ops.MEMORY_POLICY and number == errno.EINVAL:
        return "invalid memory policy: "
    if op.kind in (ops.MOUNT, ops.BIND) and number == errno.ELOOP:
        name = _MOUNTED_AT.get(str(op.string("target")))
        if name:
            return f'filesystem "{name}" must be mounted on ordinary directory: '
    return ""


def _fix(op: Op, call: str, number: int) -> str:
    if op.kind is ops.UNSHARE and number == errno.ENOSPC:
        return _raise_namespaces(op.number("namespaces"))
    if op.kind is ops.JOIN and number == errno.EPERM and op.number("namespace") == CLONE_FLAGS["user"]:
        return "name a user namespace that one of your own processes created"
    tables = (_CALL_FIXES.get(call, {}), WORDS[op.kind][1], EXHAUSTED)
    return next((table[number] for table in tables if number in table), "")


def _raise_namespaces(flags: int) -> str:
    """Return how to raise the lowest limit of the requested namespaces, namespaces(7)."""
    limits = {}
    for kind in (kind for kind, flag in CLONE_FLAGS.items() if flags & flag):
        name = f"max_{NAMESPACE_FILES[kind]}_namespaces"
        try:
            with open(f"/proc/sys/user/{name}", "rb") as file:
                limits[name] = int(file.read())
        except (OSError, ValueError):
            limits[name] = 0
    lowest = [f"user.{name}=15000" for name, limit in limits.items() if limit == min(limits.values())]
    return "raise the limit, as root: sysctl -w " + " or ".join(lowest)


def skipped(op: Op | None, call: str, number: int) -> None:
    """Log an operation that failed and was replaced by its alternative, which may have the same effect."""
    if op:
        effect = WORDS[op.kind][2] or "left out"
        if op.kind is ops.BIND and not op.alternatives:
            effect = "left out"
        elif op.where == _OOM_SCORE:
            effect = "the caller's value stays, which only root may lower"
        nothing_requested = op.kind is ops.GROUPS and not op.string("gids")
        write = log.info if op.kind in _SAME_EFFECT or nothing_requested else log.warning
        write(f"{sentence(op)}: {call}: {os.strerror(number)}: {effect}", where=op.where)
