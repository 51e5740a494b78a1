"""The operations of a cached Plan: the front door does a `run`, `create` or `exec` with them, instead of planning it.

First come CALL, CONFIG and the operations that compare what planning has read with its present state, then those that
run the container or another process in it. helpers/front/gen_cached.py generates the front door's header from this
file; an entry is encoded as the executor's Plan is (encode.py), with a magic of its own.

In a template, a NUL and a letter are a hole: HOLE_…. A NUL at the end is itself.
"""

from __future__ import annotations

from rootless.plan.ops import Kind

MAGIC = b"RLCACH05"
LARGEST = 1 << 18
"""Bytes of an entry."""
ABSENT = -1
"""For an IDENTITY, STATUS or SYMLINK: the device and the mode of a file that is not there; for MOUNT_FLAGS."""

HOLE_PID = b"\0p"
HOLE_START_TIME = b"\0s"
HOLE_TIME = b"\0t"
HOLE_CGROUP = b"\0c"
"""Eight random hexadecimal digits, the end of the cgroup's name."""
HOLE_KEYRING = b"\0k"
"""Sixteen random hexadecimal digits, the end of the keyring's name."""
HOLE_NAMESPACE = b"\0A"
"""The number of the first namespace that IDENTIFY names; the next letters are those of the others."""
HOLE_SERVER = b"\0v"
HOLE_SERVER_START_TIME = b"\0w"
"""The process that serves the image."""

PUT_PLAIN, PUT_LOCKED, PUT_CONFIG = range(3)
"""How PUT puts a file: locked until the program has ended, whose exit status it gets; or with the text of CONFIG."""

CALL = Kind(1, "call", "", "arguments* place program boot")
"""Of `run` and `create` the place is the current directory, of `exec` the pid and start time of the first process."""
CONFIG = Kind(2, "config", "", "identifiers* text* variables* mounts*")
"""The text of config.json in three parts at most; before the second and the third are the elements of a list of JSON,
in any order. Identifiers of it and of CALL may be others now: then the entry gets those, wherever it has these. One
that is in neither is random. Without a text, config.json is like any other file that planning has read."""

CONFIG_FILE = Kind(3, "config_file", "", "path")
VARIABLE = Kind(4, "variable", "is_set", "name value=")
CONTENT = Kind(5, "content", "exists", "path content=")
IDENTITY = Kind(6, "identity", "device inode size modified changed owner_and_mode", "path")
STATUS = Kind(7, "status", "mode owner special", "path")
SYMLINK = Kind(8, "symlink_status", "mode owner special", "path")
ACCESS = Kind(9, "access", "mode allowed", "path")
LISTED = Kind(10, "listed", "listed", "path")
MOUNT_FLAGS = Kind(11, "mount_flags", "flags", "path")
CAPABILITIES = Kind(12, "capabilities", "effective bounding")
LIMITS = Kind(13, "limits", "", "hard=")
NICE = Kind(14, "nice", "value")
KERNEL = Kind(15, "kernel", "", "release machine")
IDS = Kind(16, "ids", "", "ids=")
NAMESPACES = Kind(17, "namespaces", "pid differing", "names*")
"""A bit for each name: whether a process is in another namespace of this type than the caller."""
APPENDED = Kind(18, "appended", "", "path")
"""A file that can be written to: the log. It is made, as Python makes it at first."""

SAY = Kind(19, "say", "", "text=")
CLAIM = Kind(20, "claim", "forbidden random", "root id")
"""A `random` id comes once."""
MAKE_CGROUP = Kind(21, "make_cgroup", "exactly", "path= note= made=")
SET = Kind(22, "set", "", "file value")
LISTEN = Kind(23, "listen")
SPAWN = Kind(24, "spawn", "secret found executed reserved", "program plan= directories*")
"""For `exec`, `found` and `executed` are the numbers of COMMAND and EXEC in the Plan, whose command is a hole.
Descriptors below `reserved` are for BEGIN_IMAGE."""
AWAIT = Kind(25, "await", "message pid")
MAP = Kind(26, "map", "", "file text")
BEGIN_MAP = Kind(27, "begin_map", "", "program arguments*")
AWAIT_MAPS = Kind(28, "await_maps")
PUT = Kind(29, "put", "mode special", "name content=")
"""A file in the container's directory."""
PART = Kind(30, "part", "", "text=")
"""One of the strings of the status record that comes with the next RECORD."""
RECORD = Kind(31, "record", "allowed", "state=")
SKIPPED = Kind(32, "skipped", "operation error", "detail=")
WRITE_PID = Kind(33, "write_pid", "", "directory path")
START = Kind(34, "start", "filtered")
ENTER = Kind(35, "enter", "", "cgroup")
CHECK = Kind(36, "check")
"""That the container still runs."""
LEAVE = Kind(37, "leave", "", "log lines=")
"""The container goes on, after `create` and with --detach."""
CONSOLE = Kind(38, "console")
"""A socket over which the executor sends the terminal."""
RELAY = Kind(39, "relay")
"""The terminal is received, and gets the size of the caller's: before the program can ask for it."""
NO_INPUT = Kind(40, "no_input")
"""Standard input becomes /dev/null."""
BEGIN_IMAGE = Kind(41, "begin_image", "device inode size modified changed owner_and_mode", "path begun= noted= plan=")
"""The server of an image is started: the file, the undo notes before and after that, the executor's Plan."""
AWAIT_IMAGE = Kind(42, "await_image")

KINDS = tuple([kind for kind in list(globals().values()) if isinstance(kind, Kind)])
