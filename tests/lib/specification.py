"""The properties of the runtime specification 1.3.0; each has a test that is marked with it.

The name of a property is its path in config.json, or the document and its requirement. Tests are marked with
`@pytest.mark.spec(PROPERTY, …)`; tests/lib/conformance.py makes the table in docs/conformance.md from their results.
"""

from __future__ import annotations

from itertools import product

RUNTIMES = ("runc", "crun", "rootless")
"""In the order of the table."""

VERSION = "1.3.0"


def _below(place: str, names: str) -> list[str]:
    return [f"{place}.{name}" for name in names.split()]


MOUNT_OPTIONS = _below(
    "mounts.options",
    """
    async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
    noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime
    relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro
    rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave
    strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap
    """,
)
NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
CAPABILITY_SETS = ("effective", "bounding", "inheritable", "permitted", "ambient")

DOCUMENTS = {
    "config.md": [
        "ociVersion",
        *_below("root", "path readonly"),
        "mounts",
        *_below("mounts", "destination source type options uidMappings gidMappings"),
        *MOUNT_OPTIONS,
        *_below("process", "terminal consoleSize cwd env args rlimits apparmorProfile selinuxLabel noNewPrivileges"),
        *_below("process.user", "uid gid umask additionalGids"),
        "process.user.umask: unspecified",
        *(f"process.capabilities.{name}" for name in CAPABILITY_SETS),
        "process.oomScoreAdj",
        *_below("process.scheduler", "policy nice priority flags runtime deadline period"),
        *_below("process.ioPriority", "class priority"),
        *_below("process.execCPUAffinity", "initial final"),
        "hostname",
        "domainname",
        *(f"hooks.{kind}" for kind in HOOKS),
        *_below("hooks[]", "path args env timeout"),
        "annotations",
        "extensibility",
        "vm",
        "windows",
        "solaris",
        "freebsd",
        "zos",
    ],
    "config-linux.md": [
        "default file systems",
        *(f"linux.namespaces.{kind}" for kind in NAMESPACES),
        "linux.namespaces[].path",
        "linux.namespaces: inherited",
        "linux.namespaces: duplicates",
        *_below("linux", "uidMappings gidMappings"),
        *_below("linux.timeOffsets", "boottime monotonic"),
        *(f"linux.devices[].type {kind}" for kind in "cubp"),
        *_below("linux.devices[]", "path fileMode uid gid"),
        "linux.devices: default devices",
        "linux.netDevices",
        "linux.netDevices.name",
        "linux.cgroupsPath",
        "cgroup ownership",
        "linux.resources.devices",
        *_below(
            "linux.resources.memory",
            "limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy checkBeforeUpdate",
        ),
        *_below("linux.resources.cpu", "shares quota burst period realtimeRuntime realtimePeriod cpus mems idle"),
        *_below("linux.resources.blockIO", "weight leafWeight weightDevice"),
        *(
            f"linux.resources.blockIO.throttle{way}{what}Device"
            for way, what in product(("Read", "Write"), ("Bps", "IOPS"))
        ),
        "linux.resources.hugepageLimits",
        *_below("linux.resources.network", "classID priorities"),
        "linux.resources.pids.limit",
        "linux.resources.rdma",
        "linux.resources.unified",
        *_below("linux.intelRdt", "closID l3CacheSchema memBwSchema schemata enableMonitoring"),
        *_below("linux.memoryPolicy", "mode nodes flags"),
        "linux.sysctl",
        *_below("linux.seccomp", "defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata"),
        *_below("linux.seccomp.syscalls[]", "names action errnoRet args"),
        *(f"linux.rootfsPropagation {value}" for value in ("shared", "slave", "private", "unbindable")),
        *_below("linux", "maskedPaths readonlyPaths mountLabel"),
        *_below("linux.personality", "domain flags"),
    ],
    "runtime.md": [
        *_below("state", "ociVersion id status pid bundle annotations"),
        "state: of a container that does not exist",
        "create: the program does not run",
        "create: an id that is in use",
        "create: config.json is read once",
        "start: runs the program",
        "start: a container that is not created",
        "kill: sends the signal",
        "kill: a container that is not there or has stopped",
        "delete: removes a stopped container",
        "delete: a container that has not stopped",
        "lifecycle: the order of the hooks",
        "lifecycle: a hook that fails before start stops the container",
        "lifecycle: a poststart hook that fails stops the container",
        "lifecycle: a poststop hook that fails is a warning",
    ],
    "features.md": [
        *_below("features", "ociVersionMin ociVersionMax hooks mountOptions annotations"),
        "features.potentiallyUnsafeConfigAnnotations",
        *_below(
            "features.linux",
            "namespaces capabilities cgroup seccomp apparmor selinux intelRdt memoryPolicy mountExtensions netDevices",
        ),
    ],
}

PROPERTIES = [name for names in DOCUMENTS.values() for name in names]
