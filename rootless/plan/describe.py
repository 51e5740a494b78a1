"""Operations as sentences: what `explain` prints and errors begin with."""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.mount_options import PRIVATE, PROPAGATIONS, words
from rootless.plan.namespaces import FLAGS
from rootless.plan.process import CAPABILITIES, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.ops import Op

_SENTENCES = {
    ops.JOIN: "join the {namespace} namespace {path}",
    ops.NEW_USER: "create a user namespace",
    ops.UNSHARE: "create namespaces: {namespaces}",
    ops.BECOME: "become {uid}:{gid} of the user namespace",
    ops.PROC_WRITE: "write {value} to /proc/{path}",
    ops.NON_DUMPABLE: "hide from processes in the joined namespaces",
    ops.FORK: "fork the container process",
    ops.SESSION: "begin a session",
    ops.KEYRING: "join the new session keyring {name}",
    ops.HOSTNAME: "set the host name to {name}",
    ops.DOMAINNAME: "set the domain name to {name}",
    ops.LINK_UP: "bring up the network interface {name}",
    ops.PROPAGATION: "cut mount propagation from the host: {propagation}",
    ops.ROOT: "use {path} as the root file system",
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
    ops.CHDIR: "change the directory to {path}",
    ops.HOME: "set HOME from /etc/passwd of the image for user {uid}",
    ops.COMMAND: "find the program: {candidates}",
    ops.READY: "report that the container is created",
    ops.WAIT_START: "wait for the start",
    ops.NO_NEW_PRIVS: "give up gaining privileges by execve (no_new_privs)",
    ops.SECCOMP: "load the seccomp filter",
    ops.EXEC: "execute {args}",
}

_OCTAL = ("mask", "mode")
_CAPABILITY_SETS = ("effective", "permitted", "inheritable", "keep", "raise")


def sentence(op: Op) -> str:
    """Return what the operation does, in words."""
    values = {name: _number(name, value) for name, value in zip(op.kind.numbers, op.numbers, strict=True)}
    for name, value in zip(op.kind.strings, op.strings, strict=True):
        values[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else _joined(op, value)
    return _SENTENCES[op.kind].format(**values)


def details(op: Op) -> str:
    """Return the options of a mount, in words; empty for other operations."""
    if "set" not in op.kind.numbers:
        return ""
    parts = ["recursive"] if op.number("flags") & ops.RECURSIVE else []
    parts += [words(op.number("set"))]
    parts += ["not " + words(op.number("clear"))] if words(op.number("clear")) else []
    parts += ["everything below: " + words(op.number("set_below"))] if op.number("set_below") else []
    parts += [_number("propagation", op.number("propagation"))] if op.number("propagation") else []
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
    if name in ("namespace", "namespaces"):
        return ", ".join(kind for kind, flag in FLAGS.items() if value & flag)
    if name == "propagation":
        return next((word for word, flag in PROPAGATIONS.items() if flag == value), "" if value else str(PRIVATE))
    if name in _CAPABILITY_SETS:
        return capabilities(value)
    if name == "resource":
        return "RLIMIT_" + RLIMITS[value]
    if name in ("soft", "hard") and value < 0:
        return "unlimited"
    return f"{value:04o}" if name in _OCTAL else str(value)


def _joined(op: Op, value: object) -> str:
    if isinstance(value, str):
        return " ".join(value.split()) or "none"
    separator = " or " if op.kind is ops.COMMAND else " "
    return separator.join(str(item) for item in value)  # type: ignore[attr-defined]
