"""The operations of a Plan.

Each kind is declared here alone. helpers/init/gen_ops.py generates the executor's header from this file, so that C and
Python share codes, operands and flags. In the executor a function of the same name runs the operation; gen_ops.py
writes the function of a kind that is a single system call. op_text.py has its words.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    Text = str | bytes | Sequence[str]

FAIL = 0
"""Report and stop."""
SKIP_ABSENT = 1
"""Ignore ENOENT and ENOTDIR: a missing path needs no work."""
ELSE = 2
"""After an error report a skip and continue with the alternatives that follow; after success skip those."""
IGNORE = 3
"""Continue after an error and report nothing: it is usual, and nothing depends on success. --debug shows it."""

ON_ERROR_NAMES = ("fail", "skip when absent", "otherwise", "ignore")

EXECUTOR = "executor"
LAUNCHER = "launcher"


class Kind:
    """A kind of operation.

    Attributes:
        code: its number in an encoded Plan; 0 for an operation of the launcher, which is never encoded.
        name: its name as data.
        numbers: the names of its integers, in the order in which they are written.
        strings: the names of its strings, and of all operands of an operation of the launcher.
        lists: which strings are lists of strings.
        raw: which strings are bytes.
        words: which strings are only for people: the executor's function does not get them.
        by: EXECUTOR or LAUNCHER.
        call: the system call that it is, in C with the operands by name; empty if its function is in helpers/init.
        retry: whether the executor may repeat it as the user of FILES_AS after EACCES, which comes before any change.
        undo: the name of the function that undoes an operation of the launcher; empty if nothing remains.
    """

    __slots__ = (
        "_declared", "by", "call", "code", "lists", "name", "numbers", "raw", "retry", "strings", "undo", "words",
    )  # fmt: skip
    numbers: tuple[str, ...]
    strings: tuple[str, ...]
    lists: tuple[str, ...]
    raw: tuple[str, ...]
    words: tuple[str, ...]

    def __init__(
        self,
        code: int,
        name: str,
        numbers: str = "",
        strings: str = "",
        *,
        by: str = EXECUTOR,
        call: str = "",
        retry: bool = False,
        undo: str = "",
    ) -> None:
        """Take the names of the operands: `name*` is a list, `name=` is bytes, `name-` is words."""
        self._declared = numbers, strings
        self.code = code
        self.name = name
        self.by = by
        self.call = call
        self.retry = retry
        self.undo = undo

    def __getattr__(self, name: str) -> tuple[str, ...]:
        """Set the names of the operands when they are first used: a command uses few of the kinds."""
        numbers, strings = self._declared
        words = strings.split()
        self.numbers = tuple(numbers.split())
        self.strings = tuple([word.rstrip("*=-") for word in words])
        self.lists = tuple([word[:-1] for word in words if word[-1] == "*"])
        self.raw = tuple([word[:-1] for word in words if word[-1] == "="])
        self.words = tuple([word[:-1] for word in words if word[-1] == "-"])
        return object.__getattribute__(self, name)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Return the text for a failing test."""
        return f"<{self.name}>"


def launcher(name: str, operands: str = "", *, undo: str = "") -> Kind:
    """Return a kind of operation that the launcher runs itself.

    Its operands are JSON values, or objects whose as_data() returns one.
    """
    return Kind(0, name, "", operands, by=LAUNCHER, undo=undo)


CHANGE = "flags propagation set clear set_below clear_below"
"""How a mount is changed: the numbers of several kinds, which the executor's functions get as one structure."""

JOIN = Kind(1, "join", "namespace", "path")
NEW_USER = Kind(2, "new_user_namespace", call="unshare(CLONE_NEWUSER)")
UNSHARE = Kind(3, "unshare", "namespaces", call="unshare(namespaces)")
BECOME = Kind(4, "become", "uid gid")
PROC_WRITE = Kind(5, "proc_write", "", "path value")
NON_DUMPABLE = Kind(6, "non_dumpable")
FORK = Kind(7, "fork")
SESSION = Kind(8, "session", call="setsid()")
KEYRING = Kind(9, "keyring", "", "name")
HOSTNAME = Kind(10, "hostname", "", "name", call="sethostname(name, strlen(name))")
DOMAINNAME = Kind(11, "domainname", "", "name", call="setdomainname(name, strlen(name))")
LINK_UP = Kind(12, "link_up", "", "name")
PROPAGATION = Kind(13, "propagation", "flags propagation")
ROOT = Kind(14, "root", "propagation", "path", retry=True)
MOUNT = Kind(15, "mount", CHANGE, "type source target options*", retry=True)
BIND = Kind(16, "bind", CHANGE, "source target", retry=True)
REMOUNT = Kind(17, "remount", CHANGE, "target options*", retry=True)
DEVICE_BIND = Kind(18, "device_bind", "type major minor exclusive", "source target", retry=True)
DEVICE_NODE = Kind(19, "device_node", "mode major minor uid gid", "target", retry=True)
SYMLINK = Kind(20, "symlink", "", "link target", retry=True)
CLOSE_FDS = Kind(21, "close_fds")
MASK = Kind(22, "mask", "", "target", retry=True)
READONLY_PATH = Kind(23, "readonly_path", "", "target", retry=True)
MKDIR = Kind(24, "mkdir", "", "target", retry=True)
ROOT_ATTRIBUTES = Kind(25, "root_attributes", CHANGE)
PIVOT = Kind(26, "pivot_root", retry=True)
CHROOT = Kind(27, "chroot", "move", retry=True)
RLIMIT = Kind(28, "rlimit", "resource soft hard", call="setrlimit(resource, (uint64_t[]){soft, hard})")
STDIO_OWNER = Kind(29, "stdio_owner", "uid")
BOUNDING = Kind(30, "bounding", "keep")
GROUPS = Kind(31, "groups", "", "gids- ids=", call="setgroups(ids.length / sizeof(gid_t), ids.at)")
IDS = Kind(32, "ids", "uid gid")
CAPABILITIES = Kind(33, "capabilities", "effective permitted inheritable")
AMBIENT = Kind(34, "ambient", "raise")
UMASK = Kind(35, "umask", "mask", call="umask(mask)")
CHDIR = Kind(36, "chdir", "early", "path")
HOME = Kind(37, "home", "uid", "file otherwise")
COMMAND = Kind(38, "command", "", "candidates* name-")
READY = Kind(39, "ready")
WAIT_START = Kind(40, "wait_start")
NO_NEW_PRIVS = Kind(41, "no_new_privs")
SECCOMP = Kind(42, "seccomp", "flags hook_flags", "filter=")
EXEC = Kind(43, "exec", "", "args* env*")
FILES_AS = Kind(44, "files_as", "uid gid")
YIELD = Kind(45, "yield")
HOOK_OUTPUT = Kind(46, "hook_output", "", "stdout stderr", retry=True)
HOOK = Kind(47, "hook", "timeout environment first bound", "path args* env* about*")
LISTENER = Kind(48, "listener")
JOIN_PROCESS = Kind(49, "join_process", "namespaces root_of")
CPU_AFFINITY = Kind(50, "cpu_affinity", "", "cpus- mask=", call="sched_setaffinity(0, mask.length, mask.at)")
TERMINAL = Kind(51, "terminal", "columns rows uid", retry=True)
SCHEDULER = Kind(52, "scheduler", "", "wanted- attributes=", call="sched_setattr(0, attributes.at, 0)")
IO_PRIORITY = Kind(53, "io_priority", "value", "wanted-", call="ioprio_set(IOPRIO_WHO_PROCESS, 0, value)")
MEMORY_POLICY = Kind(
    54,
    "memory_policy",
    "mode",
    "wanted- nodes=",
    call="set_mempolicy(mode, nodes.length ? nodes.at : NULL, nodes.length * 8)",
)
PERSONALITY = Kind(55, "personality", "domain", "wanted-", call="personality(domain)")
ID_MAP = Kind(56, "id_map", "new", "uids gids path")
TREE = Kind(57, "tree", CHANGE, "source")
NOTIFY_SOCKET = Kind(58, "notify_socket", "", "directory name", retry=True)
PASS_NOTIFY = Kind(59, "pass_notify")
CGROUP_OWNER = Kind(60, "cgroup_owner", "uid", "mount files*")
ADDRESS6 = Kind(61, "address6", "prefix", "link address gateway")
NETLINK = Kind(62, "netlink")
AWAIT_END = Kind(63, "await_end")
AWAIT_LINKS = Kind(64, "await_links", "", "prefix lock")
DEVICE_RULES = Kind(65, "device_rules", "", "program=")
PROC_OPEN = Kind(66, "proc_open", "", "path")
JOIN_EARLY = Kind(67, "join_early", "namespace", "path own")
IDENTIFY = Kind(68, "identify", "", "kinds*")
UNNAMED_KEYRING = Kind(69, "unnamed_keyring", call="keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)")
NO_KEYS = Kind(70, "no_keys", "", "filter=")
DUMPABLE = Kind(71, "dumpable")
PASS_NAMESPACES = Kind(72, "pass_namespaces")
MONITOR = Kind(73, "monitor", "lifetime log_size")
INIT = Kind(74, "init", "attended")
FUSE = Kind(75, "fuse", "attributes", "options*")
OVERLAY = Kind(76, "overlay", "attributes device inode tree", "upper- options*")
LANDLOCK = Kind(77, "landlock", "handled allowed", "paths*")
SEND_TREE = Kind(78, "send_tree", "deep alone", "path")
RECEIVE_TREE = Kind(79, "receive_tree", "", "path")
HIDE_MOUNT = Kind(80, "hide_mount", "", "path")
CHECK_AGENT = Kind(81, "check_agent")
READONLY_HOST = Kind(82, "readonly_host")
NO_SOCKETS = Kind(83, "no_sockets", "", "filter=")
ACCOUNT = Kind(84, "account", "", "path name id line")
PRETEND = Kind(85, "pretend", "flags", "filter=")
TEXT_FILE = Kind(86, "text_file", "", "directory name text")
REMOVE_TREE = Kind(87, "remove_tree", "", "name")

# --- Operations of the launcher, in the order in which they run ---

CONNECT_CONSOLE = launcher("connect_console", "path")
CLAIM = launcher("claim", "id")
NO_INPUT = launcher("no_input")
COMPILE_FILTER = launcher("compile_filter", "filter")
COMPILE_PRETENCE = launcher("compile_pretence", "filter")
CONNECT_PIDFD = launcher("connect_pidfd", "path")
CONNECT_AGENT = launcher("connect_agent", "path")
COVER = launcher("cover", "path", undo="root mount")
OPEN_UPPER = launcher("open_upper", "path", undo="overlay")
MAKE_CGROUP = launcher("make_cgroup", "cgroup", undo="cgroup")
ENTER_GROUP = launcher("enter_group", "key namespaces maps", undo="group")
RESERVE_PORTS = launcher("reserve_ports", "ports first_port network")
WRITE_NAMES = launcher("write_names", "resolv_conf hosts")
LISTEN = launcher("listen")
NOTE_REQUEST = launcher("note_request", "request")
SHOW_DIRECTORY = launcher("show_directory")
SPAWN = launcher("spawn")
NOTE_MONITOR = launcher("note_monitor", undo="monitor")
BEGIN_ID_MAPS = launcher("begin_id_maps", "maps")
AWAIT_ID_MAPS = launcher("await_id_maps")
ALLOCATE_IDS = launcher("allocate_ids", "maps")
RECORD = launcher("record", "about config")
NOTE_MEMBER = launcher("note_member", "key")
START_SCOPE = launcher("start_scope", "cgroup", undo="cgroup")
BEGIN_IMAGE = launcher("begin_image", "image", undo="image")
AWAIT_IMAGE = launcher("await_image")
BEGIN_NETWORK = launcher("begin_network", "network", undo="network")
MOVE_INTERFACES = launcher("move_interfaces", "interfaces")
JOIN_RESCTRL = launcher("join_resctrl", "group", undo="resctrl")
ADD_TO_RESCTRL = launcher("add_to_resctrl", "group")
ATTACH_DEVICE_RULES = launcher("attach_device_rules", "program=")
RUN_HOOK = launcher("run_hook", "kind hook status")
AWAIT_NETWORK = launcher("await_network")
CHECK_RUNNING = launcher("check_running")
SEND_PIDFD = launcher("send_pidfd", "whose")
RECORD_CREATED = launcher("record_created")
WRITE_PID_FILE = launcher("write_pid_file", "path")
FREEZE = launcher("freeze")
FORWARD_NOTIFICATIONS = launcher("forward_notifications", "path metadata status")
FORWARD_REPORTS = launcher("forward_reports")
DELETE = launcher("delete")

KINDS = tuple([kind for kind in list(globals().values()) if isinstance(kind, Kind)])
_BY_NAME = {kind.name: kind for kind in KINDS}

# The flags of MOUNT, BIND, TREE, REMOUNT, ROOT_ATTRIBUTES and PROPAGATION.
RECURSIVE = 1
"""BIND, TREE: with the mounts below."""
PLAIN_TARGET = 2
"""No symlink on the way to the target, so that /proc, /sys and /dev are in their own places."""
KEEP_MODE = 4
"""MOUNT: keep the mode of the covered directory, if there was one."""
COPY_UP = 8
"""MOUNT: copy the contents of the covered directory."""
LEGACY = 16
"""MOUNT: by mount(2), for option values over 255 bytes; `options` has one element, as mount(2) takes them."""
RECURSIVE_PROPAGATION = 32
MAPPED = 64
"""MOUNT, TREE: with the ID maps of the preceding ID_MAP."""
MAPPED_BELOW = 128
"""The same, for the mounts below too."""
PREPARED = 256
"""BIND: the source is a tree; from the bit TREE_SHIFT on, the flags have its number."""
SOURCE_LINK = 512
"""BIND, TREE: a source that is a symlink is not followed."""
TARGET_LINK = 1024
"""BIND: a target that is a symlink is not followed."""
COPY_LINK = 2048
"""BIND, TREE: a source that is a symlink is copied to the target."""

# The environment of HOOK: the list `env`, or the caller's environment, or the program's with HOME.
GIVEN = 0
CALLERS = 1
PROGRAMS = 2

TREE_SHIFT = 16
MOST_TREES = 512
"""How many TREE operations the executor has room for."""


class Op:
    """One step of a Plan.

    Attributes:
        kind: its kind.
        numbers: its integers, in the order of `kind.numbers`.
        strings: its strings, bytes or lists of strings, in the order of `kind.strings`; all operands of an operation of
            the launcher.
        where: the place in config.json that asks for it; empty for an operation of every container.
        on_error: FAIL, SKIP_ABSENT, ELSE or IGNORE.
        alternatives: with ELSE, how many of the following operations replace this one.
    """

    __slots__ = ("alternatives", "kind", "numbers", "on_error", "strings", "where")

    def __init__(
        self,
        kind: Kind,
        *arguments: object,
        where: str = "",
        on_error: int = FAIL,
        alternatives: int = 0,
    ) -> None:
        """Take the numbers of the kind, then its strings, in their order."""
        count = len(kind.numbers)
        self.kind = kind
        self.numbers: tuple[int, ...] = arguments[:count]  # type: ignore[assignment]
        self.strings: tuple[Text, ...] = arguments[count:]  # type: ignore[assignment]
        self.where = where
        self.on_error = on_error
        self.alternatives = alternatives
        if len(arguments) != count + len(kind.strings):
            message = f"{kind.name} takes {kind.numbers} and {kind.strings}"
            raise TypeError(message)

    def number(self, name: str) -> int:
        """Return the number called `name`."""
        return self.numbers[self.kind.numbers.index(name)]

    def string(self, name: str) -> Text:
        """Return the string called `name`."""
        return self.strings[self.kind.strings.index(name)]

    def value(self, name: str) -> Any:  # noqa: ANN401 - whatever the kind declares
        """Return the operand called `name` of an operation of the launcher."""
        return self.strings[self.kind.strings.index(name)]

    def operands(self) -> Iterator[tuple[str, Any]]:
        """Return all operands with their names."""
        return zip(self.kind.numbers + self.kind.strings, self.numbers + self.strings, strict=True)

    def with_numbers(self, **numbers: int) -> Op:
        """Return a copy with other values for the numbers of these names."""
        values = zip(self.kind.numbers, self.numbers, strict=True)
        changed = [numbers.pop(name, value) for name, value in values]
        if numbers:
            message = f"{self.kind.name} has no {' '.join(numbers)}"
            raise TypeError(message)
        return Op(
            self.kind,
            *changed,
            *self.strings,
            where=self.where,
            on_error=self.on_error,
            alternatives=self.alternatives,
        )

    def as_data(self) -> dict[str, object]:
        """Return the operation as JSON data."""
        data: dict[str, object] = {"op": self.kind.name}
        data.update(zip(self.kind.numbers, self.numbers, strict=True))
        for name, value in zip(self.kind.strings, self.strings, strict=True):
            data[name] = value.hex() if isinstance(value, bytes) else _data(value)
        if self.where:
            data["where"] = self.where
        if self.on_error:
            data["on_error"] = ON_ERROR_NAMES[self.on_error]
        if self.alternatives:
            data["alternatives"] = self.alternatives
        return data


def _data(value: object) -> object:
    return value.as_data() if hasattr(value, "as_data") else value


def from_data(data: dict[str, Any]) -> Op:
    """Return the operation that `Op.as_data` described; operands of the launcher's operations remain data."""
    kind = _BY_NAME[data["op"]]
    for name in kind.numbers + kind.strings if kind.code else ():
        if isinstance(data[name], int) != (name in kind.numbers):
            message = f"{name} of {kind.name} is {data[name]!r}"
            raise TypeError(message)
    strings = [bytes.fromhex(data[name]) if name in kind.raw else data[name] for name in kind.strings]
    return Op(
        kind,
        *[data[name] for name in kind.numbers],
        *strings,
        where=data.get("where", ""),
        on_error=ON_ERROR_NAMES.index(data.get("on_error", ON_ERROR_NAMES[FAIL])),
        alternatives=data.get("alternatives", 0),
    )
