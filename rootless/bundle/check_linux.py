"""The `linux` object of config.json: the specification's config-linux.md as a table."""

from __future__ import annotations

from rootless.bundle.schema import (
    ABSOLUTE_PATH,
    HIGHEST_ID,
    ID,
    INT64,
    NAME,
    STRING,
    STRING_MAP,
    STRINGS,
    UINT16,
    UINT32,
    UINT64,
    Invalid,
    array,
    boolean,
    distinct,
    integer,
    mapping,
    one_of,
    record,
    require,
    string,
    strings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_MAPPINGS = 340
"""The maximum number of lines in uid_map or gid_map (user_namespaces(7))."""

MOST_INTERFACE_BYTES = 15
"""The maximum length of an interface name, without the NUL (IFNAMSIZ)."""


# -- Rules that a table cannot express ---------------------------------------------------------------------------------


def _as_the_kernel_maps(maps: list[dict[str, Any]]) -> None:
    """Refuse maps that the kernel refuses with EINVAL (user_namespaces(7))."""
    if len(maps) > MOST_MAPPINGS:
        cause = f"found {len(maps)} mappings, expected at most {MOST_MAPPINGS}, the maximum of the kernel"
        raise Invalid(cause, "merge adjacent mappings")
    for side in ("containerID", "hostID"):
        end_before = index_before = 0
        for start, size, index in sorted((each[side], each["size"], index) for index, each in enumerate(maps)):
            if start < end_before:
                first, second = sorted((index_before, index))
                cause = f"found ids that element {first} also maps, expected each id at most once"
                raise Invalid(cause, "make the ranges disjoint", [side, second])
            end_before, index_before = start + size, index
            if end_before > HIGHEST_ID + 1:
                cause = f"found {size}, which includes ids up to {end_before - 1}, expected none above {HIGHEST_ID}"
                raise Invalid(cause, "lower it", ["size", index])


def _numbered_unless_fifo(device: dict[str, Any]) -> None:
    if device["type"] != "p":
        require(device, "major", DEVICE_MAJOR)
        require(device, "minor", DEVICE_MINOR)


def _is_interface_name(name: str) -> bool:
    """Whether the kernel accepts a name (dev_valid_name() in net/core/dev.c)."""
    return (
        0 < len(name.encode()) <= MOST_INTERFACE_BYTES
        and name not in (".", "..")
        and not any(c in "/:" or c.isspace() for c in name)
    )


def _is_page_size(text: str) -> bool:
    digits = text[:-2]
    return text[-2:] in ("KB", "MB", "GB") and digits.isascii() and digits.isdigit() and digits[0] != "0"


# -- Namespaces, id mappings, devices ----------------------------------------------------------------------------------

NAMESPACES = array(
    record(
        required={
            "type": one_of("pid network mount ipc uts user cgroup time"),
        },
        optional={
            # Go programs such as runc write an empty string for an absent path.
            "path": string("an absolute path", fix="start it with /", accepts=lambda text: text[:1] in ("/", "")),
        },
    ),
    also=distinct("type"),
)

ID_MAPPINGS = array(
    record(
        required={
            "containerID": ID,
            "hostID": ID,
            "size": integer(1, HIGHEST_ID + 1),
        },
    ),
    also=_as_the_kernel_maps,
)

TIME_OFFSETS = mapping(
    keys=one_of("boottime monotonic"),
    values=record(
        optional={
            "secs": INT64,
            "nanosecs": integer(0, 10**9 - 1),
        },
    ),
)

# The schema says int64; the kernel truncates a larger number, which would name another device (makedev(3)).
DEVICE_MAJOR = integer(0, 2**12 - 1)
DEVICE_MINOR = integer(0, 2**20 - 1)

DEVICES = array(
    record(
        required={
            "type": one_of("c b u p"),
            "path": ABSOLUTE_PATH,
        },
        optional={
            "major": DEVICE_MAJOR,
            "minor": DEVICE_MINOR,
            # The schema's maximum is 0777, but docker also writes the file type bits, as in stat(2).
            "fileMode": UINT32,
            "uid": ID,
            "gid": ID,
        },
        also=_numbered_unless_fifo,
    ),
)

INTERFACE_NAME = string(
    f"an interface name of 1 to {MOST_INTERFACE_BYTES} bytes without slash, colon or white space",
    fix="write a name such as eth0",
    accepts=_is_interface_name,
)

# -- Control groups ----------------------------------------------------------------------------------------------------

ALLOWED_DEVICES = array(
    record(
        required={
            "allow": boolean,
        },
        optional={
            "type": one_of("a b c", or_empty=True),
            "major": INT64,
            "minor": INT64,
            "access": string("letters out of r, w and m", fix="write rwm", accepts=lambda text: not text.strip("rwm")),
        },
    ),
)

MEMORY = record(
    optional={
        "limit": INT64,
        "reservation": INT64,
        "swap": INT64,
        "kernel": INT64,
        "kernelTCP": INT64,
        "swappiness": UINT64,
        "disableOOMKiller": boolean,
        "useHierarchy": boolean,
        "checkBeforeUpdate": boolean,
    },
)

CPU = record(
    optional={
        "shares": UINT64,
        "quota": INT64,
        "burst": UINT64,
        "period": UINT64,
        "realtimeRuntime": INT64,
        "realtimePeriod": UINT64,
        "cpus": STRING,
        "mems": STRING,
        "idle": INT64,
    },
)

BLOCK_IO_WEIGHTS = array(
    record(
        required={"major": INT64, "minor": INT64},
        optional={"weight": UINT16, "leafWeight": UINT16},
    ),
)

BLOCK_IO_RATES = array(
    record(
        required={"major": INT64, "minor": INT64},
        optional={"rate": UINT64},
    ),
)

BLOCK_IO = record(
    optional={
        "weight": UINT16,
        "leafWeight": UINT16,
        "weightDevice": BLOCK_IO_WEIGHTS,
        "throttleReadBpsDevice": BLOCK_IO_RATES,
        "throttleWriteBpsDevice": BLOCK_IO_RATES,
        "throttleReadIOPSDevice": BLOCK_IO_RATES,
        "throttleWriteIOPSDevice": BLOCK_IO_RATES,
    },
)

HUGE_PAGE_LIMITS = array(
    record(
        required={
            "pageSize": string("a page size such as 2MB", fix="write it in KB, MB or GB", accepts=_is_page_size),
            "limit": UINT64,
        },
    ),
)

UNIFIED = mapping(
    keys=string(
        "the name of a cgroup v2 file such as memory.high",
        fix="write the name without a directory",
        accepts=lambda text: "/" not in text and text not in ("", ".", ".."),
    ),
    values=STRING,
)

RESOURCES = record(
    optional={
        "devices": ALLOWED_DEVICES,
        "memory": MEMORY,
        "cpu": CPU,
        "blockIO": BLOCK_IO,
        "hugepageLimits": HUGE_PAGE_LIMITS,
        "network": record(
            optional={
                "classID": UINT32,
                "priorities": array(record(required={"name": STRING, "priority": UINT32})),
            },
        ),
        "pids": record(required={"limit": INT64}),
        "rdma": mapping(keys=NAME, values=record(optional={"hcaHandles": UINT32, "hcaObjects": UINT32})),
        "unified": UNIFIED,
    },
)

# -- Seccomp -----------------------------------------------------------------------------------------------------------

SECCOMP_ACTION = one_of(
    "SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD SCMP_ACT_TRAP SCMP_ACT_ERRNO SCMP_ACT_TRACE "
    "SCMP_ACT_ALLOW SCMP_ACT_LOG SCMP_ACT_NOTIFY",
)

SECCOMP_ARCHITECTURES = (
    "SCMP_ARCH_X86 SCMP_ARCH_X86_64 SCMP_ARCH_X32 SCMP_ARCH_ARM SCMP_ARCH_AARCH64 SCMP_ARCH_LOONGARCH64 "
    "SCMP_ARCH_M68K SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 "
    "SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PPC SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE SCMP_ARCH_S390 SCMP_ARCH_S390X "
    "SCMP_ARCH_SH SCMP_ARCH_SHEB SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_RISCV64"
)

SECCOMP_FLAG = one_of(
    "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW "
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)

SECCOMP_OPERATOR = one_of(
    "SCMP_CMP_NE SCMP_CMP_LT SCMP_CMP_LE SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_MASKED_EQ",
)

ERRNO = integer(0, 4095)  # the kernel reduces a larger value to MAX_ERRNO (seccomp(2))

SECCOMP_RULES = array(
    record(
        required={
            "names": strings(filled=True),
            "action": SECCOMP_ACTION,
        },
        optional={
            "errnoRet": ERRNO,
            "args": array(
                record(
                    required={
                        "index": integer(0, 5),
                        "value": UINT64,
                        "op": SECCOMP_OPERATOR,
                    },
                    optional={
                        "valueTwo": UINT64,
                    },
                ),
            ),
        },
    ),
)

SECCOMP = record(
    required={
        "defaultAction": SECCOMP_ACTION,
    },
    optional={
        "defaultErrnoRet": ERRNO,
        "architectures": array(one_of(SECCOMP_ARCHITECTURES)),
        "flags": array(SECCOMP_FLAG),
        "listenerPath": STRING,
        "listenerMetadata": STRING,
        "syscalls": SECCOMP_RULES,
    },
)

# -- The whole ---------------------------------------------------------------------------------------------------------

INTEL_RDT_OPTIONS = {
    "closID": STRING,
    "schemata": STRINGS,
    "l3CacheSchema": STRING,
    "memBwSchema": string(
        "one line that starts with MB:",
        fix="start it with MB:",
        accepts=lambda text: text.startswith("MB:") and "\n" not in text,
    ),
    "enableMonitoring": boolean,
}

MEMORY_POLICY_MODES = (
    "MPOL_DEFAULT MPOL_BIND MPOL_INTERLEAVE MPOL_WEIGHTED_INTERLEAVE MPOL_PREFERRED MPOL_PREFERRED_MANY MPOL_LOCAL"
)

MEMORY_POLICY_FLAGS = "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES"

MEMORY_POLICY = record(
    required={
        "mode": one_of(MEMORY_POLICY_MODES),
    },
    optional={
        "nodes": STRING,
        "flags": array(one_of(MEMORY_POLICY_FLAGS)),
    },
)

# The schema lists the first four; runc also accepts the recursive forms, and engines write them.
ROOTFS_PROPAGATION = one_of(
    "private shared slave unbindable rprivate rshared rslave runbindable",
    or_empty=True,
)

LINUX = record(
    optional={
        "namespaces": NAMESPACES,
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "timeOffsets": TIME_OFFSETS,
        "devices": DEVICES,
        "netDevices": mapping(keys=INTERFACE_NAME, values=record(optional={"name": INTERFACE_NAME})),
        "cgroupsPath": STRING,
        "resources": RESOURCES,
        "intelRdt": record(optional=INTEL_RDT_OPTIONS),
        "memoryPolicy": MEMORY_POLICY,
        "sysctl": STRING_MAP,
        "seccomp": SECCOMP,
        "rootfsPropagation": ROOTFS_PROPAGATION,
        "maskedPaths": array(ABSOLUTE_PATH),
        "readonlyPaths": array(ABSOLUTE_PATH),
        "mountLabel": STRING,
        "personality": record(
            required={"domain": one_of("LINUX LINUX32")},
            optional={"flags": STRINGS},
        ),
    },
)
