"""Configurations that real programs wrote, one with every property, and the callers for whom they are planned."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, settings

from rootless.host.facts import Facts

DATA = Path(__file__).with_name("data")
CONFIGS = DATA / "configs"
"""Its README.md names their sources."""
PODMAN_SECCOMP = json.loads((DATA / "podman_seccomp.json").read_text())
"""linux.seccomp as podman writes it."""


EVERY_CAPABILITY = (1 << 41) - 1


HARD_LIMITS = {6: 63000, 7: 524288}  # RLIMIT_NPROC and RLIMIT_NOFILE as distributions set them


CALLERS = {
    "an ordinary user": Facts(hard_limits=HARD_LIMITS),
    "a user without subordinate ids": Facts(hard_limits=HARD_LIMITS, subuids=(), subgids=()),
    "root of rootless podman's user namespace": Facts(
        uid=0,
        gid=0,
        user="root",
        uid_map=((0, 1000, 1), (1, 100000, 65536)),
        gid_map=((0, 1000, 1), (1, 100000, 65536)),
        capabilities=EVERY_CAPABILITY,
        subuids=(),
        subgids=(),
        id_programs=(),
        hard_limits=HARD_LIMITS,
    ),
    "real root": Facts(
        uid=0,
        gid=0,
        user="root",
        capabilities=EVERY_CAPABILITY,
        subuids=(),
        subgids=(),
        id_programs=(),
        hard_limits=HARD_LIMITS,
    ),
}


def configurations():
    """Return the configurations by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))}
    for config in found.values():
        if isinstance(config["linux"].get("seccomp"), str):
            config["linux"]["seccomp"] = json.loads((DATA / config["linux"]["seccomp"]).read_text())
    found["docker-without-hooks"] = {key: value for key, value in found["docker"].items() if key != "hooks"}
    return found


CONFIGURATIONS = configurations()


HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


CAPABILITY_SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")


COMPLETE = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec"]},
        {
            "destination": "data",
            "type": "bind",
            "source": "/srv",
            "options": ["rbind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        },
    ],
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 1, "umask": 18, "additionalGids": [5, 6], "username": "someone"},
        "args": ["sh", "-c", "true"],
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {name: ["CAP_KILL", "CAP_OF_TOMORROW"] for name in CAPABILITY_SETS},
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
        ],
        "noNewPrivileges": True,
        "apparmorProfile": "a profile",
        "selinuxLabel": "a:label",
        "oomScoreAdj": 100,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": 0,
            "priority": 0,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 10,
            "deadline": 20,
            "period": 30,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-3, 7", "final": "1"},
    },
    "hostname": "box",
    "domainname": "example",
    "hooks": {name: [{"path": "/bin/hook", "args": ["hook", "it"], "env": ["A=b"], "timeout": 5}] for name in HOOKS},
    "annotations": {"org.example.key": "value", "empty": ""},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/a"}, {"type": "user"}],
        "uidMappings": [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65536},
        ],
        "gidMappings": [{"containerID": 0, "hostID": 0, "size": 4294967295}],
        "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 999999999}, "boottime": {"secs": 1}},
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 8630, "uid": 0, "gid": 0},
            {"path": "/dev/pipe", "type": "p"},
        ],
        "netDevices": {"eth0": {"name": "eth1"}, "eth2": {}},
        "cgroupsPath": "user.slice:prefix:name",
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": -1}],
            "memory": {
                "limit": 1,
                "reservation": 1,
                "swap": -1,
                "kernel": -1,
                "kernelTCP": -1,
                "swappiness": 60,
                "disableOOMKiller": False,
                "useHierarchy": False,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 1024,
                "quota": -1,
                "burst": 0,
                "period": 100000,
                "realtimeRuntime": 1,
                "realtimePeriod": 1,
                "cpus": "0-3",
                "mems": "0",
                "idle": 1,
            },
            "blockIO": {
                "weight": 10,
                "leafWeight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 600}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854772000}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "pids": {"limit": -1},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"memory.high": "1"},
        },
        "intelRdt": {
            "closID": "group",
            "schemata": ["L3:0=1"],
            "l3CacheSchema": "L3:0=1",
            "memBwSchema": "MB:0=20",
            "enableMonitoring": True,
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "sysctl": {"net.core.somaxconn": "256"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/listener",
            "listenerMetadata": "anything",
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 2**64 - 1, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                },
            ],
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "a:label",
        "personality": {"domain": "LINUX32", "flags": []},
    },
}


QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
