"""The operations of a cached Plan: the front door does a `run` or an `exec` with them, instead of planning it again.

First come CALL and the operations that compare what planning has read with its present state, then those that run the
container or, from ENTER on, another process in it. helpers/front/gen_cached.py generates the front door's header from
this file; an entry is encoded as the executor's Plan is (encode.py), with a magic of its own.

In a template, a NUL and a letter are a hole: HOLE_…. A NUL at the end is itself.
"""

from __future__ import annotations

from rootless.plan.ops import Kind

MAGIC = b"RLCACH02"
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

CALL = Kind(1, "call", "", "arguments* place program boot")
"""Of `run` the place is the current directory, of `exec` the pid and start time of the container's first process."""

VARIABLE = Kind(2, "variable", "is_set", "name value=")
CONTENT = Kind(3, "content", "exists", "path content=")
IDENTITY = Kind(4, "identity", "device inode size modified changed owner_and_mode", "path")
STATUS = Kind(5, "status", "mode owner special", "path")
SYMLINK = Kind(6, "symlink_status", "mode owner special", "path")
ACCESS = Kind(7, "access", "mode allowed", "path")
LISTED = Kind(8, "listed", "listed", "path")
MOUNT_FLAGS = Kind(9, "mount_flags", "flags", "path")
CAPABILITIES = Kind(10, "capabilities", "effective bounding")
LIMITS = Kind(11, "limits", "", "hard=")
NICE = Kind(12, "nice", "value")
KERNEL = Kind(13, "kernel", "", "release machine")
IDS = Kind(14, "ids", "", "ids=")
NAMESPACES = Kind(15, "namespaces", "pid differing", "names*")
"""A bit for each name: whether a process is in another namespace of this type than the caller."""

SAY = Kind(16, "say", "", "text=")
CLAIM = Kind(17, "claim", "forbidden", "root id")
MAKE_CGROUP = Kind(18, "make_cgroup", "exactly", "path= note= made=")
SET = Kind(19, "set", "", "file value")
SPAWN = Kind(20, "spawn", "secret found executed", "program plan= directories*")
"""For `exec`, `found` and `executed` are the numbers of COMMAND and EXEC in the Plan, whose command is a hole."""
AWAIT = Kind(21, "await", "message pid")
MAP = Kind(22, "map", "", "file text")
BEGIN_MAP = Kind(23, "begin_map", "", "program arguments*")
AWAIT_MAPS = Kind(24, "await_maps")
PUT = Kind(25, "put", "", "name content=")
PART = Kind(26, "part", "", "text=")
"""One of the strings of the status record that comes with the next RECORD."""
RECORD = Kind(27, "record", "allowed", "state=")
SKIPPED = Kind(28, "skipped", "operation error", "detail=")
START = Kind(29, "start", "filtered")
ENTER = Kind(30, "enter", "", "cgroup")
CHECK = Kind(31, "check")
"""That the container still runs."""

KINDS = tuple([kind for kind in list(globals().values()) if isinstance(kind, Kind)])
