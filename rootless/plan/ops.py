"""The operations of a Plan.

Each kind is declared once: its code (helpers/init/plan.h has the same), the names of its numbers and of its strings in
the order in which they are written. What an operation does is the function of its name in helpers/init.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Text = str | bytes | Sequence[str]

FAIL = 0
"""Report and stop."""
SKIP_ABSENT = 1
"""What is not there needs no work: ENOENT and ENOTDIR are no failure."""
ELSE = 2
"""Report as skipped and go on with the alternatives that follow; without an error leave those out."""

ON_ERROR_NAMES = ("fail", "skip when absent", "otherwise")


class Kind:
    """A kind of operation: `numbers` and `strings` are the names of its arguments."""

    __slots__ = ("code", "name", "numbers", "strings")

    def __init__(self, code: int, name: str, numbers: str = "", strings: str = "") -> None:
        self.code = code
        self.name = name
        self.numbers = tuple(numbers.split())
        self.strings = tuple(strings.split())

    def __repr__(self) -> str:
        """Return what a failing test shows."""
        return f"<{self.name}>"


_MOUNT_NUMBERS = "flags propagation set clear set_below clear_below"

JOIN = Kind(1, "join", "namespace", "path")
NEW_USER = Kind(2, "new_user_namespace")
UNSHARE = Kind(3, "unshare", "namespaces")
BECOME = Kind(4, "become", "uid gid")
PROC_WRITE = Kind(5, "proc_write", "", "path value")
NON_DUMPABLE = Kind(6, "non_dumpable")
FORK = Kind(7, "fork")
SESSION = Kind(8, "session")
KEYRING = Kind(9, "keyring", "", "name")
HOSTNAME = Kind(10, "hostname", "", "name")
DOMAINNAME = Kind(11, "domainname", "", "name")
LINK_UP = Kind(12, "link_up", "", "name")
PROPAGATION = Kind(13, "propagation", "flags propagation")
ROOT = Kind(14, "root", "propagation", "path")
MOUNT = Kind(15, "mount", _MOUNT_NUMBERS, "type source target options")
BIND = Kind(16, "bind", _MOUNT_NUMBERS, "source target")
REMOUNT = Kind(17, "remount", _MOUNT_NUMBERS, "target options")
DEVICE_BIND = Kind(18, "device_bind", "type major minor exclusive", "source target")
DEVICE_NODE = Kind(19, "device_node", "mode major minor uid gid", "target")
SYMLINK = Kind(20, "symlink", "", "link target")
CONSOLE = Kind(21, "console", "columns rows uid")
MASK = Kind(22, "mask", "", "target")
READONLY_PATH = Kind(23, "readonly_path", "", "target")
MKDIR = Kind(24, "mkdir", "", "target")
ROOT_ATTRIBUTES = Kind(25, "root_attributes", _MOUNT_NUMBERS)
PIVOT = Kind(26, "pivot_root")
CHROOT = Kind(27, "chroot", "move")
RLIMIT = Kind(28, "rlimit", "resource soft hard")
STDIO_OWNER = Kind(29, "stdio_owner", "uid")
BOUNDING = Kind(30, "bounding", "keep")
GROUPS = Kind(31, "groups", "", "gids")
IDS = Kind(32, "ids", "uid gid")
CAPABILITIES = Kind(33, "capabilities", "effective permitted inheritable")
AMBIENT = Kind(34, "ambient", "raise")
UMASK = Kind(35, "umask", "mask")
CHDIR = Kind(36, "chdir", "early", "path")
HOME = Kind(37, "home", "uid")
COMMAND = Kind(38, "command", "", "candidates name")
READY = Kind(39, "ready")
WAIT_START = Kind(40, "wait_start")
NO_NEW_PRIVS = Kind(41, "no_new_privs")
SECCOMP = Kind(42, "seccomp", "flags", "filter")
EXEC = Kind(43, "exec", "", "args env")
FILES_AS = Kind(44, "files_as", "uid gid")
RUNTIME_HOOKS = Kind(45, "runtime_hooks")
HOOK_OUTPUT = Kind(46, "hook_output", "", "stdout stderr")
HOOK = Kind(47, "hook", "timeout confined environment", "path args env about")
LISTENER = Kind(48, "listener")
JOIN_PROCESS = Kind(49, "join_process", "namespaces root_of")
CPU_AFFINITY = Kind(50, "cpu_affinity", "", "cpus mask")
TERMINAL = Kind(51, "terminal", "columns rows uid")
SCHEDULER = Kind(52, "scheduler", "", "wanted attributes")
IO_PRIORITY = Kind(53, "io_priority", "value", "wanted")
MEMORY_POLICY = Kind(54, "memory_policy", "mode", "wanted nodes")
PERSONALITY = Kind(55, "personality", "domain", "wanted")
ID_MAP = Kind(56, "id_map", "new", "uids gids path")
TREE = Kind(57, "tree", _MOUNT_NUMBERS, "source")
NOTIFY_SOCKET = Kind(58, "notify_socket", "", "directory name")
PASS_NOTIFY = Kind(59, "pass_notify")
CGROUP_OWNER = Kind(60, "cgroup_owner", "uid", "mount")
ADDRESS6 = Kind(61, "address6", "prefix", "link address gateway")
NETLINK = Kind(62, "netlink")
AWAIT_END = Kind(63, "await_end")
AWAIT_LINKS = Kind(64, "await_links", "", "prefix lock")
DEVICE_RULES = Kind(65, "device_rules", "", "program")
PROC_OPEN = Kind(66, "proc_open", "", "path")
JOIN_EARLY = Kind(67, "join_early", "namespace", "path")
IDENTIFY = Kind(68, "identify", "", "kinds")
UNNAMED_KEYRING = Kind(69, "unnamed_keyring")
NO_KEYS = Kind(70, "no_keys", "", "filter")
DUMPABLE = Kind(71, "dumpable")
PASS_NAMESPACES = Kind(72, "pass_namespaces")

KINDS = tuple(kind for kind in list(globals().values()) if isinstance(kind, Kind))

# The flags of MOUNT, BIND, TREE, REMOUNT, ROOT_ATTRIBUTES and PROPAGATION; helpers/init/init.h has the same.
RECURSIVE = 1
PLAIN_TARGET = 2
KEEP_MODE = 4
COPY_UP = 8
LEGACY = 16
RECURSIVE_PROPAGATION = 32
TARGET_IS_SOURCE = 64
MAPPED = 128
MAPPED_BELOW = 256
PREPARED = 512
SOURCE_LINK = 1024
TARGET_LINK = 2048
COPY_LINK = 4096

# The environment of HOOK: the list `env`; the caller's, which becomes that list; the program's, with HOME.
GIVEN = 0
CALLERS = 1
PROGRAMS = 2


class Op:
    """One step of a Plan.

    Attributes:
        kind: what to do.
        numbers: its integers, in the order of `kind.numbers`.
        strings: its strings, bytes or lists of strings, in the order of `kind.strings`.
        where: the place in config.json that asked for it; empty for what every container gets.
        on_error: FAIL, SKIP_ABSENT or ELSE.
        alternatives: with ELSE, how many of the following operations stand in for this one.
    """

    __slots__ = ("alternatives", "kind", "numbers", "on_error", "strings", "where")

    def __init__(
        self,
        kind: Kind,
        *arguments: int | Text,
        where: str = "",
        on_error: int = FAIL,
        alternatives: int = 0,
    ) -> None:
        """Take the numbers of the kind first, then its strings, in their order."""
        count = len(kind.numbers)
        self.kind = kind
        self.numbers = tuple([value for value in arguments[:count] if isinstance(value, int)])
        self.strings: tuple[Text, ...] = tuple([value for value in arguments[count:] if not isinstance(value, int)])
        self.where = where
        self.on_error = on_error
        self.alternatives = alternatives
        if len(self.numbers) != count or len(self.strings) != len(kind.strings):
            message = f"{kind.name} takes {kind.numbers} and {kind.strings}"
            raise TypeError(message)

    def number(self, name: str) -> int:
        """Return the number called `name`."""
        return self.numbers[self.kind.numbers.index(name)]

    def string(self, name: str) -> Text:
        """Return the string called `name`."""
        return self.strings[self.kind.strings.index(name)]

    def as_data(self) -> dict[str, object]:
        """Return the operation as JSON data."""
        data: dict[str, object] = {"op": self.kind.name}
        data.update(zip(self.kind.numbers, self.numbers, strict=True))
        for name, value in zip(self.kind.strings, self.strings, strict=True):
            data[name] = value.hex() if isinstance(value, bytes) else value
        if self.where:
            data["where"] = self.where
        if self.on_error:
            data["on_error"] = ON_ERROR_NAMES[self.on_error]
        if self.alternatives:
            data["alternatives"] = self.alternatives
        return data


def from_data(data: dict[str, Any]) -> Op:
    """Return the operation that `Op.as_data` told, but for what to do on failure; bytes come back as their digits."""
    kind = next(kind for kind in KINDS if kind.name == data["op"])
    arguments = [data[name] for name in (*kind.numbers, *kind.strings)]
    return Op(kind, *arguments, where=data.get("where", ""))
