"""Operations as sentences: what `explain` prints and errors begin with."""

from __future__ import annotations

from rootless.linux import CAPABILITIES, CLONE_FLAGS, RLIMITS
from rootless.plan import ops
from rootless.plan.rootfs.mount_options import PROPAGATIONS, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.plan.ops import Op, Text

_SENTENCES = {
    ops.JOIN: "join the {namespace} namespace {path}",
    ops.JOIN_EARLY: "join the {namespace} namespace {path} now if the caller may",
    ops.NEW_USER: "create a user namespace",
    ops.UNSHARE: "create namespaces: {namespaces}",
    ops.BECOME: "become {uid}:{gid} of the user namespace",
    ops.FILES_AS: "try as {uid}:{gid}, the caller, what is refused",
    ops.PROC_WRITE: "write {value} to /proc/{path}",
    ops.PROC_OPEN: "open /proc/{path} before it is out of reach",
    ops.NON_DUMPABLE: "hide from processes in the joined namespaces",
    ops.UNNAMED_KEYRING: "join a new session keyring without a name",
    ops.NO_KEYS: "refuse keyctl, add_key and request_key to the container",
    ops.IDENTIFY: "note which namespaces are the container's own: {kinds}",
    ops.DUMPABLE: "let the helper of the network find these namespaces",
    ops.FORK: "fork the container process",
    ops.SESSION: "begin a session",
    ops.KEYRING: "join the new session keyring {name}",
    ops.HOSTNAME: "set the host name to {name}",
    ops.DOMAINNAME: "set the domain name to {name}",
    ops.LINK_UP: "bring up the network interface {name}",
    ops.PROPAGATION: "cut mount propagation from the host: {propagation}",
    ops.ROOT: "use {path} as the root file system, {propagation}",
    ops.MOUNT: "mount {type} on {target}",
    ops.BIND: "bind {source} on {target}",
    ops.REMOUNT: "change the mount on {target}",
    ops.DEVICE_BIND: "bind the host's device {source} ({major}:{minor}) on {target}",
    ops.DEVICE_NODE: "make the device {target} ({major}:{minor})",
    ops.SYMLINK: "link {target} to {link}",
    ops.CONSOLE: "open a terminal and bind it on /dev/console",
    ops.MASK: "mask {target}",
    ops.READONLY_PATH: "make {target} read-only",
    ops.MKDIR: "make the directory {target} if it is missing",
    ops.ROOT_ATTRIBUTES: "change the mount of the root",
    ops.PIVOT: "change the root with pivot_root",
    ops.CHROOT: "change the root with chroot",
    ops.RLIMIT: "limit {resource} to {soft}, at most {hard}",
    ops.STDIO_OWNER: "give pipes on the standard streams to user {uid}",
    ops.BOUNDING: "bound capabilities to {keep}",
    ops.GROUPS: "set supplementary groups: {gids}",
    ops.IDS: "become user {uid}, group {gid}",
    ops.CAPABILITIES: "set capabilities: effective {effective}; permitted {permitted}; inheritable {inheritable}",
    ops.AMBIENT: "set ambient capabilities: {raise}",
    ops.UMASK: "set the umask to {mask}",
    ops.CHDIR: "change the directory to {path}{early}",
    ops.HOME: "set HOME from /etc/passwd of the image for user {uid}",
    ops.COMMAND: "find the program: {candidates}",
    ops.READY: "report that the container is created",
    ops.WAIT_START: "wait for the start",
    ops.NO_NEW_PRIVS: "give up gaining privileges by execve (no_new_privs)",
    ops.SECCOMP: "load the seccomp filter",
    ops.EXEC: "execute {args}",
    ops.SCHEDULER: "schedule the program by {wanted}",
    ops.IO_PRIORITY: "set the I/O priority to {wanted}",
    ops.MEMORY_POLICY: "set the memory policy to {wanted}",
    ops.PERSONALITY: "set the personality to {wanted}",
    ops.ID_MAP: "make ready the id map of a mount",
    ops.TREE: "take a copy of {source}",
    ops.JOIN_PROCESS: "join the container's namespaces: {namespaces}",
    ops.CPU_AFFINITY: "run on CPUs {cpus}",
    ops.TERMINAL: "open a terminal",
    ops.YIELD: "let the launcher take its turn",
    ops.HOOK_OUTPUT: "append what hooks write to {stdout} and {stderr}",
    ops.HOOK: "run the hook {path}",
    ops.NOTIFY_SOCKET: "make the socket {directory}/{name} that the program reports to",
    ops.PASS_NOTIFY: "pass on that socket",
    ops.CGROUP_OWNER: "give the container's cgroup to user {uid}",
    ops.DEVICE_RULES: "have the kernel ask an eBPF program about devices",
    ops.ADDRESS6: "give {link} the address {address}/{prefix}, routed by {gateway}",
    ops.NETLINK: "pass on a socket that speaks of the network namespace",
    ops.PASS_NAMESPACES: "pass on the user and network namespaces",
    ops.AWAIT_END: "wait for the end of the container",
    ops.AWAIT_LINKS: "wait until no link {prefix}… is left, and nobody has locked {lock}",
    ops.LISTENER: "make ready to pass on the seccomp filter's notifications",
}

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
"""Of a mount, those that say more than how it is done."""


def sentence(op: Op) -> str:
    """Return what the operation does, in words."""
    values = {name: _number(name, value) for name, value in zip(op.kind.numbers, op.numbers, strict=True)}
    for name, value in zip(op.kind.strings, op.strings, strict=True):
        values[name] = _words(op, value)
    return _SENTENCES[op.kind].format(**values)


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
    "mask": _octal,
    "mode": _octal,
    "early": lambda early: "" if early else ", if not yet there",
}
"""How a number is told, by its name; the others are told as numbers."""


def _words(op: Op, value: Text) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return " ".join(value.split()) or "none"
    return (" or " if op.kind is ops.COMMAND else " ").join(value)
