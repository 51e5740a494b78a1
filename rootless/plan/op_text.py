"""The words of operations: the sentence of each for `explain` and errors, and the fix for each errno."""

from __future__ import annotations

import errno

from rootless.linux import CAPABILITIES, CLONE_FLAGS, RLIMITS
from rootless.plan import ops
from rootless.plan.rootfs.mount_options import PROPAGATIONS, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.plan.ops import Kind, Op

_ROOTFS_WRITABLE = "make the directory in the image beforehand, or make root.path writable for its owner"
_OTHER_FILE = "remove the file that the image has there, or name another path"
_NO_LINK = "replace the symlink in the image with a directory: a symlink could lead anywhere"
_LOOSENED = "remove the options that undo ro, nosuid, nodev or noexec of the host's mount (rw, suid, dev, exec)"
_NOT_ITS_OWNER = "remove the setting: only root of the host may change it"
_CP_PATH = "name a path that exists in the container"
_NO_TERMINALS = 'add a mount of type devpts on /dev/pts, or set "terminal" to false'

WORDS: dict[Kind, tuple[str, dict[int, str], str]] = {
    ops.JOIN: (
        "join the {namespace} namespace {path}",
        {
            errno.ENOENT: "name a namespace that exists, such as /proc/PID/ns/net",
            errno.EINVAL: "name a namespace of this type, other than the caller's own",
            errno.EPERM: "join the user namespace that owns it too: add its path with type user",
            errno.EACCES: "join a namespace of one of your own processes",
        },
        "",
    ),
    ops.JOIN_EARLY: ("join the {namespace} namespace {path} now if the caller may", {}, ""),
    ops.NEW_USER: (
        "create a user namespace",
        {
            errno.ENOSPC: (
                "raise the limit, as root: sysctl -w user.max_user_namespaces=15000, or run rootless in an outer user "
                "namespace: the kernel nests 32"
            ),
            errno.EPERM: (
                "allow user namespaces, as root: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), or "
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or leave "
                "the chroot: a process in a chroot cannot create one"
            ),
        },
        "",
    ),
    ops.UNSHARE: (
        "create namespaces: {namespaces}",
        {
            errno.EPERM: "allow user namespaces under AppArmor, as root: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            errno.EINVAL: "remove the namespace that this kernel does not support (time needs CONFIG_TIME_NS)",
        },
        "",
    ),
    ops.BECOME: (
        "become {uid}:{gid} of the user namespace",
        {},
        "the namespace has no root, so the caller owns what is set up",
    ),
    ops.FILES_AS: ("retry denied operations as {uid}:{gid}, the caller", {}, ""),
    ops.PROC_WRITE: (
        "write {value} to /proc/{path}",
        {
            errno.ENOENT: "remove the setting: this kernel does not have it",
            errno.EINVAL: "use a value that the kernel accepts",
            errno.EACCES: _NOT_ITS_OWNER,
            errno.EPERM: _NOT_ITS_OWNER,
            errno.EROFS: "remove the setting: /proc/sys is read-only for the caller",
            errno.EXDEV: "unmount the file system that covers it in /proc",
        },
        "",
    ),
    ops.PROC_OPEN: ("open /proc/{path} while it can be reached", {}, ""),
    ops.NON_DUMPABLE: ("hide from processes in the joined namespaces", {}, ""),
    ops.UNNAMED_KEYRING: (
        "join a new session keyring without a name",
        {},
        "the container cannot use keyctl, add_key and request_key",
    ),
    ops.NO_KEYS: (
        "forbid keyctl, add_key and request_key in the container",
        {
            errno.EACCES: "end containers, or raise the quota, as root: sysctl -w kernel.keys.maxkeys=2000",
            errno.EINVAL: "end containers, or raise the quota, as root: sysctl -w kernel.keys.maxkeys=2000",
        },
        "",
    ),
    ops.IDENTIFY: ("record the container's own namespaces: {kinds}", {}, ""),
    ops.DUMPABLE: ("let the network helper find these namespaces", {}, ""),
    ops.FORK: (
        "fork the container process",
        {
            errno.EACCES: "run rootless from the session that started the container: "
            "you may not move processes between these cgroups",
            errno.EBUSY: "name a cgroup below the container's (exec --cgroup): "
            "the container has enabled controllers for its own",
            errno.ENODEV: "start the container again: its cgroup has just been removed",
            errno.ENOMEM: "free memory; or, if config.json joins a pid namespace, name one whose process 1 still runs",
        },
        "",
    ),
    ops.SESSION: ("start a new session", {}, ""),
    ops.KEYRING: ("join the new session keyring {name}", {}, "an unnamed one is joined instead"),
    ops.HOSTNAME: ("set the host name to {name}", {}, ""),
    ops.DOMAINNAME: ("set the domain name to {name}", {}, ""),
    ops.LINK_UP: ("bring up the network interface {name}", {}, ""),
    ops.PROPAGATION: ("cut mount propagation from the host: {propagation}", {}, ""),
    ops.ROOT: (
        "use {path} as the root file system, {propagation}",
        {
            errno.EACCES: "let the user who runs rootless search every directory on the way (chmod +x), "
            "or move the bundle",
            errno.EINVAL: "move the root file system to a mount that may be bound (not unbindable)",
        },
        "",
    ),
    ops.MOUNT: (
        "mount {type} on {target}",
        {
            errno.EPERM: "bind a directory of the host instead: this file system cannot be mounted in a user namespace",
            errno.ENODEV: "use a file system that this kernel has (see /proc/filesystems)",
            errno.EINVAL: "correct the options of this mount",
            errno.ENOTDIR: "name a destination that is a directory in the image",
            errno.ELOOP: _NO_LINK,
            errno.EACCES: _ROOTFS_WRITABLE,
            errno.EROFS: _ROOTFS_WRITABLE,
        },
        "the host's mount is bound instead",
    ),
    ops.BIND: (
        "bind {source} on {target}",
        {
            errno.ENOENT: "create the source, or name another",
            errno.EACCES: (
                "let the user who runs rootless search every directory on the way to it (chmod +x), "
                "and write to the image where the target is missing"
            ),
            errno.EPERM: _LOOSENED,
            errno.EINVAL: "write rbind instead of bind: in a user namespace the mounts below come along",
            errno.ENOTDIR: "bind a directory on a directory, and a file on a file",
            errno.EEXIST: _OTHER_FILE,
            errno.ELOOP: _NO_LINK,
            errno.EROFS: _ROOTFS_WRITABLE,
        },
        "bound with the options of the host's mount, and recursively",
    ),
    ops.REMOUNT: ("change the mount on {target}", {}, ""),
    ops.DEVICE_BIND: (
        "bind the host's device {source} ({major}:{minor}) on {target}",
        {
            errno.ENOENT: "remove the device from config.json: this host does not have it",
            errno.ENODEV: "correct the type and the numbers: the host's file is another device",
            errno.ENOTDIR: "name a path that is not a directory in the image",
            errno.EEXIST: _OTHER_FILE,
            errno.EACCES: _ROOTFS_WRITABLE,
            errno.EROFS: _ROOTFS_WRITABLE,
        },
        "",
    ),
    ops.DEVICE_NODE: (
        "make the device {target} ({major}:{minor})",
        {errno.EEXIST: _OTHER_FILE, errno.EACCES: _ROOTFS_WRITABLE, errno.EROFS: _ROOTFS_WRITABLE},
        "the host's device is bound instead",
    ),
    ops.SYMLINK: (
        "create the symlink {target} to {link}",
        {errno.EACCES: _ROOTFS_WRITABLE, errno.EROFS: _ROOTFS_WRITABLE},
        "",
    ),
    ops.MASK: (
        "mask {target}",
        {errno.ENODEV: "replace /dev/null of the host, as root: rm -f /dev/null && mknod -m 666 /dev/null c 1 3"},
        "",
    ),
    ops.READONLY_PATH: ("make {target} read-only", {}, ""),
    ops.MKDIR: (
        "make the directory {target} if it is missing",
        {errno.EACCES: _ROOTFS_WRITABLE, errno.EROFS: _ROOTFS_WRITABLE},
        "",
    ),
    ops.ROOT_ATTRIBUTES: ("change the root mount", {}, ""),
    ops.PIVOT: (
        "change the root with pivot_root",
        {errno.EINVAL: "use --no-pivot where the root of the host is a ramdisk"},
        "",
    ),
    ops.HIDE_MOUNT: ("cover {path}, which shows state of the host's kernel", {}, ""),
    ops.CHROOT: ("change the root with chroot", {}, ""),
    ops.RLIMIT: ("limit {resource} to {soft}, at most {hard}", {}, ""),
    ops.STDIO_OWNER: ("give pipes on the standard streams to user {uid}", {}, ""),
    ops.CLOSE_FDS: ("close all descriptors of the host", {}, ""),
    ops.BOUNDING: ("limit the bounding set to {keep}", {}, ""),
    ops.GROUPS: (
        "set supplementary groups: {gids}",
        {
            errno.EPERM: "remove additionalGids: this user namespace may not set groups",
        },
        "the caller's groups are kept",
    ),
    ops.IDS: (
        "become user {uid}, group {gid}",
        {errno.EINVAL: "choose IDs that the user namespace has (/proc/PID/uid_map and gid_map)"},
        "",
    ),
    ops.CAPABILITIES: (
        "set capabilities: effective {effective}; permitted {permitted}; inheritable {inheritable}",
        {},
        "",
    ),
    ops.AMBIENT: (
        "set ambient capabilities: {raise}",
        {},
        "",
    ),
    ops.UMASK: ("set the umask to {mask}", {}, ""),
    ops.CHDIR: (
        "change the directory to {path}{early}",
        {
            errno.ENOENT: "choose a directory that exists in the container",
            errno.EACCES: "choose a working directory that the user of the program may enter",
            errno.EXDEV: "choose a directory inside the container",
            errno.ENOTDIR: "name a directory of the image, or a new one",
        },
        "",
    ),
    ops.HOME: ("set HOME from {file} of the image for user {uid}", {}, ""),
    ops.COMMAND: ("find the program: {candidates}", {}, ""),
    ops.READY: ("report that the container is created", {}, ""),
    ops.WAIT_START: ("wait for the start", {}, ""),
    ops.NO_NEW_PRIVS: ("forbid gaining privileges by execve (no_new_privs)", {}, ""),
    ops.SECCOMP: (
        "load the seccomp filter",
        {
            errno.EINVAL: "remove the seccomp flag that this kernel does not know",
            errno.EACCES: "set process.noNewPrivileges: without it the filter needs CAP_SYS_ADMIN",
        },
        "",
    ),
    ops.EXEC: ("execute {args}", {}, ""),
    ops.SCHEDULER: (
        "schedule the program by {wanted}",
        {
            errno.EPERM: (
                "choose SCHED_BATCH or SCHED_IDLE, or SCHED_OTHER with a nice value not below the caller's own, or "
                "raise your limits (RLIMIT_RTPRIO, RLIMIT_NICE: ulimit -r, ulimit -e), or let root run it"
            ),
            errno.EINVAL: (
                "give a real-time policy a priority from 1 to 99, another policy none, and SCHED_DEADLINE "
                "runtime <= deadline <= period, sched(7)"
            ),
            errno.EBUSY: "ask for less runtime: other programs have reserved the CPUs",
        },
        "",
    ),
    ops.IO_PRIORITY: (
        "set the I/O priority to {wanted}",
        {errno.EPERM: "choose IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE: only root of the host may have IOPRIO_CLASS_RT"},
        "",
    ),
    ops.MEMORY_POLICY: (
        "set the memory policy to {wanted}",
        {
            errno.EINVAL: (
                "name nodes that this machine has and the caller may use (/sys/devices/system/node/has_memory, "
                "Mems_allowed in /proc/self/status), and flags that go together, set_mempolicy(2)"
            ),
            errno.ENOSYS: "remove memoryPolicy: this kernel is built without NUMA",
        },
        "",
    ),
    ops.PERSONALITY: (
        "set the personality to {wanted}",
        {errno.EINVAL: "remove personality: this machine cannot run 32-bit programs"},
        "",
    ),
    ops.ID_MAP: (
        "prepare the ID map of a mount",
        {
            errno.EPERM: "map each ID once, and only IDs that the caller has (/proc/self/uid_map)",
            errno.EINVAL: "map each ID once, and only IDs that the caller has (/proc/self/uid_map)",
            errno.ENOSPC: "raise the limit, as root: sysctl -w user.max_user_namespaces=15000",
            errno.ENOENT: "name a user namespace that exists",
        },
        "",
    ),
    ops.TREE: (
        "copy the mounts at {source}",
        {
            errno.ENOENT: "create the source, or name another",
            errno.EACCES: "let the user who runs rootless search every directory on the way to it (chmod +x)",
            errno.EINVAL: "write rbind instead of bind: in a user namespace the mounts below come along",
            errno.E2BIG: f"use at most {ops.MOST_TREES} binds",
            errno.EPERM: _LOOSENED,
        },
        "",
    ),
    ops.JOIN_PROCESS: (
        "join the container's namespaces: {namespaces}",
        {
            errno.EPERM: "enter the container as the user who created it, and start it first if it is only created",
            errno.ESRCH: "start the container again: it has just stopped",
        },
        "",
    ),
    ops.CPU_AFFINITY: (
        "run on CPUs {cpus}",
        {errno.EINVAL: "name CPUs that this machine has and that the cgroup may use"},
        "",
    ),
    ops.TERMINAL: ("open a terminal", {errno.ENOENT: _NO_TERMINALS, errno.ENODEV: _NO_TERMINALS}, ""),
    ops.YIELD: ("wait for the launcher's turn", {}, ""),
    ops.HOOK_OUTPUT: ("append the output of hooks to {stdout} and {stderr}", {}, ""),
    ops.HOOK: ("run the hook {path}", {}, ""),
    ops.NOTIFY_SOCKET: ("make the socket {directory}/{name} that the program reports to", {}, ""),
    ops.PASS_NOTIFY: ("send that socket to the launcher", {}, ""),
    ops.CGROUP_OWNER: (
        "give the container's cgroup to user {uid}: its directory and {files}",
        {},
        "its owner is unchanged",
    ),
    ops.DEVICE_RULES: (
        "attach an eBPF program that decides about devices",
        {
            errno.EPERM: "let root run it with CAP_SYS_ADMIN over the whole host, or remove the rules",
            errno.EINVAL: "use a kernel with CONFIG_CGROUP_BPF, or remove the rules",
            errno.ENOSYS: "use a kernel with CONFIG_BPF_SYSCALL, or remove the rules",
        },
        "",
    ),
    ops.ADDRESS6: ("give {link} the address {address}/{prefix}, routed by {gateway}", {}, ""),
    ops.NETLINK: ("send a netlink socket of the network namespace to the launcher", {}, ""),
    ops.PASS_NAMESPACES: ("send the user and network namespaces to the launcher", {}, ""),
    ops.MONITOR: ("keep the output and the exit status: start the monitor{lifetime}{log_size}", {}, ""),
    ops.INIT: ("stay as the process that reaps orphans and forwards signals to the program{attended}", {}, ""),
    ops.FUSE: (
        "mount a FUSE file system for the image and send its connection to the launcher",
        {
            errno.ENOENT: "load the module, as root: modprobe fuse",
            errno.ENODEV: "load the module, as root: modprobe fuse",
            errno.EACCES: "allow access to it, as root: chmod 666 /dev/fuse",
            errno.EPERM: "run `rootless doctor`: it checks whether this host lets users mount FUSE",
        },
        "",
    ),
    ops.OVERLAY: (
        "cover the root with an overlay: changes go to {upper}",
        {
            errno.EPERM: "use a kernel of 5.11 or later that lets users mount overlayfs",
            errno.ENODEV: "load the module, as root: modprobe overlay",
            errno.EINVAL: "name a directory of a local file system for --overlay, not of NFS or FUSE",
            errno.ESTALE: "run the command again: another directory took the place of the one that was checked",
            errno.EBUSY: "end the container that uses this overlay directory, or name another",
        },
        "",
    ),
    ops.LANDLOCK: ("forbid access to files except below {paths}", {}, "the kernel has no Landlock"),
    ops.READONLY_HOST: ("make all mounts of the host read-only for this process", {}, ""),
    ops.ACCOUNT: (
        "add {line} to {path} of the image, unless {name} or {id} is there",
        {},
        "the caller has no name in the container",
    ),
    ops.PRETEND: (
        "let changes of owner and of user only seem to succeed",
        {errno.EACCES: "set process.noNewPrivileges: without it the filter needs CAP_SYS_ADMIN"},
        "changes of owner and of user fail in the container",
    ),
    ops.TEXT_FILE: ("mount a file as {directory}/{name}, if there is {directory}: {text}", {}, ""),
    ops.NO_SOCKETS: ("forbid to make sockets", {}, "the kernel has no seccomp filter for it"),
    ops.SEND_TREE: (
        "send {path} of the container {deep}{alone}",
        {
            errno.ENOENT: _CP_PATH,
            errno.ENOTDIR: _CP_PATH,
            errno.EINVAL: "run rootless save with the bundle instead: a mount of the host lies below its root.path",
        },
        "",
    ),
    ops.RECEIVE_TREE: (
        "write files into {path} of the container",
        {
            errno.ENOENT: _CP_PATH,
            errno.ENOTDIR: _CP_PATH,
            errno.EEXIST: "remove the directory that has the name of the file, or name another target",
            errno.ELOOP: "name a target that no symlink of the container leads away from",
            errno.EROFS: "name a directory that the container may write to",
            errno.ENOSPC: "free disk space, or enlarge the tmpfs in the container",
        },
        "extended attributes are left out",
    ),
    ops.REMOVE_TREE: (
        "remove {name} and everything below it",
        {
            errno.EBUSY: "unmount it first",
            errno.EXDEV: "unmount what is mounted there first: nothing in it was removed",
            errno.EACCES: "ask the administrator to remove it: it belongs to none of your IDs",
            errno.EPERM: "ask the administrator to remove it: it belongs to none of your IDs, or is immutable (lsattr)",
            errno.EROFS: "name a tree on a file system that you can write to",
        },
        "",
    ),
    ops.AWAIT_END: ("wait until the container ends", {}, ""),
    ops.AWAIT_LINKS: ("wait until no interface {prefix}… is left and no process has locked {lock}", {}, ""),
    ops.CHECK_AGENT: (
        "check that the seccomp agent is still connected",
        {errno.EPIPE: "start the program that answers the notifications, and create the container again"},
        "",
    ),
    ops.LISTENER: ("prepare to hand over the seccomp filter's notifications", {}, ""),
    ops.CONNECT_CONSOLE: ("connect to {path}, which gets the terminal", {}, ""),
    ops.CLAIM: ("claim the directory of container {id}", {}, ""),
    ops.NO_INPUT: ("give the program /dev/null as its standard input: there is no --interactive", {}, ""),
    ops.COMPILE_FILTER: ("compile the seccomp filter: {filter}", {}, ""),
    ops.COMPILE_PRETENCE: ("compile the seccomp filter of --fake-chown: {filter}", {}, ""),
    ops.CONNECT_PIDFD: ("connect to {path}, which gets a pidfd", {}, ""),
    ops.CONNECT_AGENT: ("connect to {path}, which answers the seccomp filter's notifications", {}, ""),
    ops.COVER: ("note the mount that the root file system will cover at {path}", {}, ""),
    ops.MAKE_CGROUP: ("{cgroup}", {}, ""),
    ops.ENTER_GROUP: ("open namespaces of group {key}, or create them for its first member: {namespaces}", {}, ""),
    ops.RESERVE_PORTS: ("find free ports on the host: {ports}", {}, ""),
    ops.WRITE_NAMES: ("write resolv.conf and hosts", {}, ""),
    ops.LISTEN: ("listen on the start socket", {}, ""),
    ops.NOTE_REQUEST: ("write request.json, which restart and inspect read", {}, ""),
    ops.SHOW_DIRECTORY: ("open the container's directory for the monitor", {}, ""),
    ops.SPAWN: ("start the executor", {}, ""),
    ops.NOTE_MONITOR: ("note the process of the monitor", {}, ""),
    ops.BEGIN_ID_MAPS: ("begin to write the ID maps: {maps}", {}, ""),
    ops.AWAIT_ID_MAPS: ("wait until the ID maps are written", {}, ""),
    ops.ALLOCATE_IDS: ("ask systemd to write the ID maps: {maps}", {}, ""),
    ops.RECORD: ("write config.json and state.json: creating", {}, ""),
    ops.NOTE_MEMBER: ("note the process as a member of group {key}", {}, ""),
    ops.START_SCOPE: ("{cgroup}", {}, ""),
    ops.OPEN_UPPER: ("make the directory {path} for the overlay, and check that it is the caller's", {}, ""),
    ops.BEGIN_IMAGE: ("begin to serve the image {image}", {}, ""),
    ops.AWAIT_IMAGE: ("wait until the image is served", {}, ""),
    ops.BEGIN_NETWORK: ("begin to connect the network, {network}", {}, ""),
    ops.MOVE_INTERFACES: ("move network interfaces into the container: {interfaces}", {}, ""),
    ops.JOIN_RESCTRL: ("{group}", {}, ""),
    ops.ADD_TO_RESCTRL: ("add the process to the resctrl group of the container", {}, ""),
    ops.ATTACH_DEVICE_RULES: ("attach the device rules to the cgroup", {}, ""),
    ops.RUN_HOOK: ("run the {kind} hook {hook}", {}, ""),
    ops.AWAIT_NETWORK: ("wait until the network is usable", {}, ""),
    ops.CHECK_RUNNING: ("check that the container is still running", {}, ""),
    ops.SEND_PIDFD: ("send a pidfd of the process", {}, ""),
    ops.RECORD_CREATED: ("write state.json: created", {}, ""),
    ops.WRITE_PID_FILE: ("write the process ID to {path}", {}, ""),
    ops.FREEZE: ("pause the container", {}, ""),
    ops.FORWARD_NOTIFICATIONS: ("forward the seccomp filter's notifications to {path}", {}, ""),
    ops.FORWARD_REPORTS: ("forward the program's sd_notify reports to the service manager", {}, ""),
    ops.DELETE: (
        "on delete: undo these operations by their notes, the last one first, and remove the directory",
        {},
        "",
    ),
}
"""By kind: the sentence, the fix for each errno that users meet, and the effect of a skip."""

_FLAGS = {
    ops.RECURSIVE: "recursive",
    ops.COPY_UP: "tmpcopyup",
    ops.MAPPED: "ids mapped",
    ops.MAPPED_BELOW: "ids mapped with everything below",
    ops.PREPARED: "the copy",
    ops.SOURCE_LINK: "src-nofollow",
    ops.TARGET_LINK: "dest-nofollow",
    ops.COPY_LINK: "copy-symlink",
}
"""The flags of a mount that matter to a reader."""


def sentence(op: Op) -> str:
    """Return the operation as one sentence."""
    values = {name: _number(name, value) for name, value in zip(op.kind.numbers, op.numbers, strict=True)}
    for name, value in zip(op.kind.strings, op.strings, strict=True):
        values[name] = _words(op, value)
    return WORDS[op.kind][0].format(**values)


def further_lines(op: Op) -> list[str]:
    """Return the lines that the operands of an operation add to its sentence."""
    return [line for _, value in op.operands() if hasattr(value, "details") for line in value.details()]


def details(op: Op) -> str:
    """Return the options of a mount, in words; empty for other operations."""
    if "set" not in op.kind.numbers:
        return ""
    flags = op.number("flags")
    parts = [word for flag, word in _FLAGS.items() if flags & flag]
    parts.append(words(op.number("set"), op.number("clear")))
    below = words(op.number("set_below"), op.number("clear_below"))
    parts += ["with everything below: " + below] if below else []
    propagation = _propagation(op.number("propagation"))
    parts += [("r" if flags & ops.RECURSIVE_PROPAGATION else "") + propagation] if propagation else []
    if "options" in op.kind.strings:
        parts += [str(option) for option in op.string("options")]
    return ", ".join(part for part in parts if part)


def capabilities(mask: int) -> str:
    """Return the names of a capability mask: ``none``, ``all 41``, or the names."""
    names = [name for number, name in enumerate(CAPABILITIES) if mask >> number & 1]
    if len(names) == len(CAPABILITIES):
        return f"all {len(names)}"
    return " ".join(names) or "none"


def _number(name: str, value: int) -> str:
    return _IN_WORDS.get(name, str)(value)


def _namespaces(flags: int) -> str:
    return ", ".join(kind for kind, flag in CLONE_FLAGS.items() if flags & flag)


def _propagation(value: int) -> str:
    return next((word for word, flag in PROPAGATIONS.items() if flag == value), "")


def _limit(value: int) -> str:
    return "unlimited" if value == -1 else str(value % (1 << 64))


def _octal(value: int) -> str:
    return f"{value:04o}"


_IN_WORDS: dict[str, Callable[[int], str]] = {
    "namespace": _namespaces,
    "namespaces": _namespaces,
    "propagation": _propagation,
    "resource": lambda number: "RLIMIT_" + RLIMITS[number],
    "soft": _limit,
    "hard": _limit,
    "effective": capabilities,
    "permitted": capabilities,
    "inheritable": capabilities,
    "keep": capabilities,
    "raise": capabilities,
    "mask": lambda mask: _octal(mask) + ("" if mask else ", which removes no permissions"),
    "mode": _octal,
    "attended": lambda yes: ", and ends if rootless is killed" if yes else "",
    "lifetime": lambda seconds: f", which ends the container after {seconds} s" if seconds else "",
    "log_size": lambda size: f", whose log has at most {size} bytes" if size else "",
    "deep": lambda deep: "with everything below" if deep else "",
    "alone": lambda alone: ", without what is mounted there" if alone else "",
    "early": lambda early: "" if early else ", if not yet there",
}
"""The text of a number, by its name; other numbers are printed as such."""


def _words(op: Op, value: object) -> str:
    """Return an operand as words; an object of a launcher operation has its own __str__."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return " ".join(value.split()) or "none"
    if isinstance(value, dict):  # a hook of config.json
        return str(value.get("path", ""))
    if isinstance(value, list | tuple):
        return (" or " if op.kind is ops.COMMAND else " ").join(map(str, value))
    return str(value)
