"""What an operation that failed means: its syscall and errno as one sentence with the place, the cause and the fix."""

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
    # of a call that several operations make, or of one of several calls of an operation
    "move_mount": {errno.ENOSPC: _MORE_MOUNTS},
    "mount": {errno.ENOSPC: _MORE_MOUNTS},
    "openat2": {
        errno.EAGAIN: "try again, without processes that rename directories of the bundle or mount over them meanwhile",
    },
    "copy a deep tree": {
        errno.ENAMETOOLONG: "leave tmpcopyup out: it copies directories up to 256 levels deep",
    },
    "mount_setattr(MOUNT_ATTR_IDMAP)": {
        errno.EPERM: "let root of the user namespace that mounted the file system run it, or " + _ID_MAP_FIX,
        errno.EINVAL: "use a file system whose ids this kernel maps (ext4, xfs, btrfs; tmpfs since 6.3; not NFS, "
        "FUSE only where its server allows it), or " + _ID_MAP_FIX,
    },
}

_MOUNTED_AT = {"/proc": "proc", "/sys": "sysfs"}
_OOM_SCORE = "process.oomScoreAdj"
_SAME_EFFECT = (ops.BECOME, ops.MOUNT, ops.DEVICE_NODE, ops.KEYRING)


def explained(op: Op | None, call: str, number: int, more: bytes) -> RootlessError:
    """Return the error for an operation that failed.

    Args:
        op: the operation, or None when it is about the Plan itself.
        call: the system call that failed.
        number: its errno.
        more: the kernel's own message about a file system, or the first bytes of a program that execve refused.
    """
    reason = os.strerror(number)
    if op is None:
        text = more.decode("utf-8", "replace")
        return RootlessError("the init program cannot go on", cause=f"{call}: {text or reason}", code="RL-INIT")
    if op.kind is ops.COMMAND:
        return exec_failure.not_found(op, number)
    if op.kind is ops.HOOK:
        from rootless.launch import run_hooks

        return run_hooks.failure(str(op.string("path")), op.where, call, number, more)
    if op.kind is ops.EXEC:
        return exec_failure.not_executed(op, number, more)
    said = more.decode("utf-8", "replace").strip()
    error = RootlessError(
        _as_runc(op, number) + sentence(op),
        cause=f"{call}: {reason}" + (f": {said}" if said else ""),
        where=op.where,
        fix=_fix(op, call, number),
        code="RL-" + op.kind.name.upper().replace("_", "-"),
    )
    error.number = number
    return error


def _as_runc(op: Op, number: int) -> str:
    """Return what precedes the sentence: the words of runc, where those are what people look for."""
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
    tables = (_CALL_FIXES.get(call, {}), WORDS[op.kind][1], EXHAUSTED)
    return next((table[number] for table in tables if number in table), "")


def _raise_namespaces(flags: int) -> str:
    """Return how to raise the limit of namespaces that is reached: of those asked for, the lowest, namespaces(7)."""
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
    """Log an operation that failed and whose alternative was taken; that one may have the same effect."""
    if op:
        what = WORDS[op.kind][2] or "left out"
        if op.kind is ops.BIND and not op.alternatives:
            what = "left out"
        elif op.where == _OOM_SCORE:
            what = "the caller's stays, which only root may lower"
        nothing_asked = op.kind is ops.GROUPS and not op.string("gids")
        tell = log.info if op.kind in _SAME_EFFECT or nothing_asked else log.warning
        tell(f"{sentence(op)}: {call}: {os.strerror(number)}: {what}", where=op.where)
