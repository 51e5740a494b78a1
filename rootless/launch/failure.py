"""What an operation that failed means: its syscall and errno as one sentence with the place, the cause and the fix."""

from __future__ import annotations

import errno
import os

from rootless import log
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch import exec_failure
from rootless.linux import CLONE_FLAGS, NAMESPACE_FILES
from rootless.plan import ops
from rootless.plan.op_text import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.ops import Kind, Op

_ROOTFS_WRITABLE = "make the directory in the image beforehand, or make root.path writable for its owner"
_NO_LINK = "the image must have a directory there, not a link: it could lead anywhere"
_NOT_ITS_OWNER = "remove the setting: only root of the host may change it"
_MORE_MOUNTS = "raise the limit of mounts in a mount namespace, as root: sysctl -w fs.mount-max=200000"
_NO_TERMINALS = 'add a mount of type devpts on /dev/pts, or set "terminal" to false'

_FIXES: dict[Kind, dict[int, str]] = {
    ops.NEW_USER: {
        errno.ENOSPC: "raise the limit, as root: sysctl -w user.max_user_namespaces=15000",
        errno.EPERM: "allow user namespaces, as root: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), or "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); a chroot forbids them always",
        errno.EUSERS: "nest fewer user namespaces: 32 is the kernel's limit",
    },
    ops.FORK: {
        errno.EACCES: "begin where the processes of the container's cgroup began: the caller may not move any from its "
        "own cgroup into that one",
        errno.EBUSY: "the container has made cgroups below its own and enabled controllers for them: name one of them "
        "(exec --cgroup)",
        errno.ENODEV: "create the container again: its cgroup was removed",
        errno.ENOMEM: "free memory; or, if config.json joins a pid namespace, name one whose process 1 still runs",
    },
    ops.UNSHARE: {
        errno.EPERM: "if the host runs AppArmor, allow it, as root: "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        errno.EINVAL: "remove the namespace that this kernel does not have (time needs CONFIG_TIME_NS)",
    },
    ops.JOIN: {
        errno.ENOENT: "name a namespace that exists, such as /proc/PID/ns/net",
        errno.EINVAL: "name a file of this type of namespace",
        errno.EPERM: "join the user namespace that owns it too: add its path with type user",
        errno.EACCES: "join a namespace of a process of your own",
    },
    ops.ROOT: {
        errno.EACCES: "let the user who runs rootless search every directory on the way (chmod +x), or move the bundle",
        errno.EINVAL: "move the root file system out of the mount that forbids it to be bound",
    },
    ops.MOUNT: {
        errno.EPERM: "this file system cannot be mounted in a user namespace; bind a directory of the host instead",
        errno.ENODEV: "use a file system that this kernel has (see /proc/filesystems)",
        errno.EINVAL: "correct the options of this mount",
        errno.ENOTDIR: "name a destination that is a directory in the image",
        errno.ELOOP: _NO_LINK,
        errno.EACCES: _ROOTFS_WRITABLE,
        errno.EROFS: _ROOTFS_WRITABLE,
    },
    ops.BIND: {
        errno.ENOENT: "make the source, or name another",
        errno.EACCES: "let the user who runs rootless search every directory on the way to it (chmod +x), "
        "and write to the image where the target is missing",
        errno.EPERM: "leave out what takes an attribute (ro, nosuid, nodev, noexec) from the host's mount",
        errno.EINVAL: "write rbind instead of bind: what is mounted below cannot be left out in a user namespace",
        errno.ENOTDIR: "bind a directory on a directory, and a file on a file",
        errno.ELOOP: _NO_LINK,
        errno.EROFS: _ROOTFS_WRITABLE,
    },
    ops.DEVICE_BIND: {
        errno.ENOENT: "remove the device from config.json: this host does not have it",
        errno.ENODEV: "correct the type and the numbers: the host's device is another one",
        errno.ENOTDIR: "name a path that is no directory in the image",
        errno.EEXIST: "remove the file that the image has there, or name another path",
        errno.EACCES: _ROOTFS_WRITABLE,
        errno.EROFS: _ROOTFS_WRITABLE,
    },
    ops.CONSOLE: {
        errno.ENOENT: _NO_TERMINALS,
        errno.ENODEV: _NO_TERMINALS,
    },
    ops.PROC_WRITE: {
        errno.ENOENT: "remove the setting: this kernel does not have it",
        errno.EINVAL: "write a value that the kernel accepts",
        errno.EACCES: _NOT_ITS_OWNER,
        errno.EPERM: _NOT_ITS_OWNER,
        errno.EROFS: "remove the setting: /proc/sys is read-only for the caller",
        errno.EXDEV: "take away what is mounted over it in /proc",
    },
    ops.PIVOT: {
        errno.EINVAL: "use --no-pivot where the root of the host is a ramdisk",
    },
    ops.GROUPS: {
        errno.EPERM: "remove additionalGids: this user namespace may not set groups",
    },
    ops.CHDIR: {
        errno.EACCES: "choose a working directory that the user of the program may enter",
        errno.EXDEV: "choose a directory inside the container",
        errno.ENOTDIR: "name a directory of the image, or a new one",
    },
    ops.SECCOMP: {
        errno.EINVAL: "remove the seccomp flag that this kernel does not know",
        errno.EACCES: "set process.noNewPrivileges: without it the filter needs CAP_SYS_ADMIN",
    },
    ops.CAPABILITIES: {
        errno.EPERM: "list in effective only what is in permitted, and in inheritable only what is in bounding",
    },
    ops.AMBIENT: {
        errno.EPERM: "list in ambient only what is in permitted and inheritable",
    },
    ops.NO_KEYS: {
        errno.EACCES: "end containers, or raise the quota, as root: sysctl -w kernel.keys.maxkeys=2000",
        errno.EINVAL: "end containers, or raise the quota, as root: sysctl -w kernel.keys.maxkeys=2000",
    },
    ops.JOIN_PROCESS: {
        errno.EPERM: "enter the container as the user who made it; if it is only created, start it first",
        errno.ESRCH: "the container has just stopped",
    },
    ops.CPU_AFFINITY: {
        errno.EINVAL: "name CPUs that this machine has and that the cgroup may use",
    },
    ops.DEVICE_RULES: {
        errno.EPERM: "let root run it with CAP_SYS_ADMIN over the whole host, or remove the rules",
        errno.EINVAL: "use a kernel with CONFIG_CGROUP_BPF, or remove the rules",
        errno.ENOSYS: "use a kernel with CONFIG_BPF_SYSCALL, or remove the rules",
    },
    ops.SCHEDULER: {
        errno.EPERM: "choose SCHED_BATCH or SCHED_IDLE, or SCHED_OTHER with a nice that is not below the caller's own; "
        "for the others let root run it, or raise your limits (RLIMIT_RTPRIO, RLIMIT_NICE: ulimit -r, ulimit -e)",
        errno.EINVAL: "give a real-time policy a priority from 1 to 99 and the others none; SCHED_DEADLINE needs "
        "runtime <= deadline <= period, sched(7)",
        errno.EBUSY: "ask for less runtime: the CPUs have no more to promise",
    },
    ops.IO_PRIORITY: {
        errno.EPERM: "choose IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE: only root of the host may have IOPRIO_CLASS_RT",
    },
    ops.MEMORY_POLICY: {
        errno.EINVAL: "name nodes that this machine has and the caller may use (/sys/devices/system/node/has_memory, "
        "Mems_allowed in /proc/self/status), and flags that go together, set_mempolicy(2)",
        errno.ENOSYS: "remove memoryPolicy: this kernel is built without NUMA",
    },
    ops.PERSONALITY: {
        errno.EINVAL: "remove personality: this machine cannot run 32-bit programs",
    },
    ops.ID_MAP: {
        errno.EPERM: "use ids that the caller has itself (/proc/self/uid_map), each once",
        errno.EINVAL: "use ids that the caller has itself (/proc/self/uid_map), each once",
        errno.ENOSPC: "raise the limit, as root: sysctl -w user.max_user_namespaces=15000",
        errno.ENOENT: "name a user namespace that exists",
    },
    ops.TREE: {
        errno.ENOENT: "make the source, or name another",
        errno.EACCES: "let the user who runs rootless search every directory on the way to it (chmod +x)",
        errno.EINVAL: "write rbind instead of bind: what is mounted below cannot be left out in a user namespace",
        errno.E2BIG: "use at most 512 binds",
        errno.EPERM: "leave out what takes an attribute (ro, nosuid, nodev, noexec) from the host's mount",
    },
}

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

_SKIP_REASONS = {
    ops.BECOME: "it has no root, and what is set up belongs to the caller",
    ops.GROUPS: "the caller's groups are kept",
    ops.KEYRING: "one without a name is joined instead",
    ops.UNNAMED_KEYRING: "keyctl, add_key and request_key are refused to the container",
    ops.MOUNT: "the host's is bound instead",
    ops.BIND: "bound with all that the host's mount has",
    ops.DEVICE_NODE: "the host's device is bound instead",
    ops.CGROUP_OWNER: "it stays its maker's",
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
    tables = (_CALL_FIXES.get(call, {}), _FIXES.get(op.kind, {}), EXHAUSTED)
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
        what = _SKIP_REASONS.get(op.kind, "left out")
        if op.kind is ops.BIND and not op.alternatives:
            what = "left out"
        elif op.where == _OOM_SCORE:
            what = "the caller's stays, which only root may lower"
        nothing_asked = op.kind is ops.GROUPS and not op.string("gids")
        tell = log.info if op.kind in _SAME_EFFECT or nothing_asked else log.warning
        tell(f"{sentence(op)}: {call}: {os.strerror(number)}: {what}", where=op.where)
