"""What planning needs to know about this host and this process."""

from __future__ import annotations

import os
import resource

from rootless.host import subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.host.subids import Range

    IdMap = tuple[int, int, int]
    """First id inside, first id outside, how many: a line of /proc/PID/uid_map."""

CAP_SETGID = 6
CAP_SETUID = 7
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
_LIMITS = 16
"""How many resource limits Linux has, getrlimit(2)."""
ALL_IDS: IdMap = (0, 0, 4294967295)


class Facts:
    """One host, one caller.

    Attributes:
        uid, gid: effective ids of the caller.
        user: the caller's login name, or the uid in decimal where the system has no name for it.
        kernel: (major, minor) of the running kernel.
        machine: uname's machine, such as ``x86_64``.
        uid_map, gid_map: the ids of the caller's own user namespace.
        setgroups_denied: setgroups(2) is refused in the caller's own user namespace.
        capabilities: effective set, as a bit mask.
        bounding: bounding set, as a bit mask.
        last_capability: highest capability number that the kernel knows.
        subuids, subgids: subordinate ranges as (first, count); empty for a caller who needs none.
        free_range: first of 65536 subordinate ids that nobody has; what a user without any is to be given.
        id_programs: paths of newuidmap and newgidmap; empty where they are not installed.
        unified_cgroup: /sys/fs/cgroup is a pure cgroup v2 tree.
        hard_limits: hard resource limit by RLIMIT number; -1 is unlimited.
        oom_score_adj: the caller's own.
    """

    def __init__(self, **known: object) -> None:
        """Describe an ordinary user on an ordinary host; `known` replaces what is different."""
        self.uid = 1000
        self.gid = 1000
        self.user = "user"
        self.kernel = (6, 1)
        self.machine = "x86_64"
        self.uid_map: tuple[IdMap, ...] = (ALL_IDS,)
        self.gid_map: tuple[IdMap, ...] = (ALL_IDS,)
        self.setgroups_denied = False
        self.capabilities = 0
        self.bounding = (1 << 41) - 1
        self.last_capability = 40
        self.subuids: tuple[Range, ...] = ((100000, 65536),)
        self.subgids: tuple[Range, ...] = ((100000, 65536),)
        self.free_range = 100000
        self.id_programs: tuple[str, str] | tuple[()] = ("/usr/bin/newuidmap", "/usr/bin/newgidmap")
        self.unified_cgroup = True
        self.hard_limits: dict[int, int] = {}
        self.oom_score_adj = 0
        for name, value in known.items():
            if not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)

    @property
    def privileged(self) -> bool:
        """Whether the caller may make namespaces and mounts as it is: real root, or root of its user namespace."""
        return bool(self.capabilities >> CAP_SYS_ADMIN & 1)

    @property
    def nested(self) -> bool:
        """Whether the caller is in a user namespace already (rootless podman, rootlesskit, unshare -Ur)."""
        return self.uid_map != (ALL_IDS,)

    def may(self, capability: int) -> bool:
        """Whether the caller has `capability` over the whole host."""
        return not self.nested and bool(self.capabilities >> capability & 1)


def read() -> Facts:
    """Read every fact. Nothing is changed, nothing fails: what cannot be read is as if it were not there."""
    status = _fields("/proc/self/status")
    uname = os.uname()
    facts = Facts(
        uid=os.geteuid(),
        gid=os.getegid(),
        kernel=kernel_version(uname.release),
        machine=uname.machine,
        uid_map=_id_map("/proc/self/uid_map"),
        gid_map=_id_map("/proc/self/gid_map"),
        capabilities=int(status.get("CapEff", "0"), 16),
        bounding=int(status.get("CapBnd", "0"), 16),
        last_capability=int(_text("/proc/sys/kernel/cap_last_cap") or 40),
        unified_cgroup=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        hard_limits={number: resource.getrlimit(number)[1] for number in range(_LIMITS)},
        oom_score_adj=int(_text("/proc/self/oom_score_adj") or 0),
        subuids=(),
        subgids=(),
        id_programs=(),
    )
    facts.setgroups_denied = facts.nested and _text("/proc/self/setgroups") == "deny"
    facts.user = "root" if facts.uid == 0 else str(facts.uid)
    if not facts.privileged:
        facts.user = subids.login_name(facts.uid)
        facts.subuids, facts.subgids = subids.ranges(facts.user, facts.uid)
        facts.id_programs = subids.programs()
        if not (facts.subuids and facts.subgids):
            facts.free_range = subids.offer()
    return facts


def kernel_version(release: str) -> tuple[int, int]:
    """Return (major, minor) of a release such as ``6.1.0-18-amd64``."""
    major, _, rest = release.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return int(major), int(minor or 0)


def _text(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode().strip()
    except OSError:
        return ""


def _fields(path: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(path).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _id_map(path: str) -> tuple[IdMap, ...]:
    lines = [line.split() for line in _text(path).splitlines()]
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in lines) or (ALL_IDS,)
