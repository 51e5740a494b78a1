"""The operations of a cached Plan: the front door runs a container with them, instead of planning it again.

First come CALL and the operations that compare what planning has read with its present state, then those that run the
container. helpers/front/gen_cached.py generates the front door's header from this file; an entry is encoded as the
executor's Plan is (encode.py), with a magic of its own.

In a template, a NUL and a letter are a hole: HOLE_…. A NUL at the end is itself.
"""

from __future__ import annotations

from rootless.plan.ops import Kind

MAGIC = b"RLCACH01"
LARGEST = 1 << 18
"""Bytes of an entry."""
NUMBERS, STRINGS = 6, 4
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

CALL = Kind(1, "call", "", "arguments* directory program boot")

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

SAY = Kind(15, "say", "", "text=")
CLAIM = Kind(16, "claim", "forbidden", "root id")
MAKE_CGROUP = Kind(17, "make_cgroup", "exactly", "path= note= made=")
SET = Kind(18, "set", "", "file value")
SPAWN = Kind(19, "spawn", "secret", "program plan=")
AWAIT = Kind(20, "await", "message pid")
MAP = Kind(21, "map", "", "file text")
BEGIN_MAP = Kind(22, "begin_map", "", "program arguments*")
AWAIT_MAPS = Kind(23, "await_maps")
PUT = Kind(24, "put", "", "name content=")
PART = Kind(25, "part", "", "text=")
"""One of the strings of the status record that comes with the next RECORD."""
RECORD = Kind(26, "record", "allowed", "state=")
SKIPPED = Kind(27, "skipped", "operation error", "detail=")
START = Kind(28, "start", "filtered")

KINDS = tuple([kind for kind in list(globals().values()) if isinstance(kind, Kind)])
