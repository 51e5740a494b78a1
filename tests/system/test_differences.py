"""runc, crun and rootless write the same settings for the same config.json, except for the differences listed here.

Each creates a container for each case, in a systemd scope and in a cgroup of the caller. Then every file of the cgroup
that holds a setting, and every property of the scope, is compared.
"""

from __future__ import annotations

import json

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import make_bundle
from tests.lib.cgroup2 import cgroup2
from tests.system.differences import (
    COMPARE,
    IN_SCOPES,
    KEPT,
    MANAGERS,
    REFUSED,
    TAKEN,
    Difference,
    compare_in,
    unlisted_and_unseen,
)
from tests.system.limits import DISK, MIB

__all__ = ["cgroup2"]

THROTTLES = {
    "throttleReadBpsDevice": MIB, "throttleWriteBpsDevice": 2 * MIB, "throttleReadIOPSDevice": 70,
    "throttleWriteIOPSDevice": 50,
}  # fmt: skip

LIMITS = {
    "nothing": {},
    "most": {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB, "checkBeforeUpdate": True},
        "cpu": {"shares": 512, "quota": 33333, "period": 50000},
        "pids": {"limit": 20},
        "blockIO": {name: [DISK | {"rate": rate}] for name, rate in THROTTLES.items()},
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        ],
    },
    "no limit": {
        "memory": {"limit": -1, "reservation": -1},
        "cpu": {"shares": 262144, "quota": -1, "period": 50000},
        "pids": {"limit": -1},
    },
    "no swap": {
        "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
        "cpu": {"shares": 2, "quota": 20000, "burst": 1000},
        "pids": {"limit": 0},
    },
    "swap of zero": {"memory": {"limit": 64 * MIB, "swap": 0}, "cpu": {"shares": 0, "period": 20000}},
    "swap without end": {"memory": {"limit": 64 * MIB, "swap": -1}, "cpu": {"idle": 0}},
    "idle": {"cpu": {"idle": 1, "shares": 512}},
    "unified": {
        "unified": {
            "cgroup.max.depth": "3", "cpu.max": "20000 50000", "cpu.weight": "77", "io.max": "98:0 rbps=1048576",
            "memory.high": str(60 * MIB), "memory.min": str(4 * MIB), "memory.oom.group": "1", "pids.max": "30",
        }
    },
    "unified wins": {
        "pids": {"limit": 20},
        "memory": {"limit": 64 * MIB},
        "unified": {"pids.max": "30", "memory.max": str(80 * MIB)},
    },
}  # fmt: skip
ODD = {
    # refused by at least one runtime, always with every cgroup manager
    "swap without limit": {"memory": {"swap": 64 * MIB}},
    "swappiness": {"memory": {"swappiness": 60}},
    "useHierarchy": {"memory": {"useHierarchy": True}},
    "kernel": {"memory": {"kernel": 60 * MIB}},
    "disableOOMKiller": {"memory": {"disableOOMKiller": True}},
    "realtime": {"cpu": {"realtimeRuntime": 1000}},
    "leafWeight": {"blockIO": {"leafWeight": 200}},
    "rate of zero": {"blockIO": {"throttleReadBpsDevice": [DISK | {"rate": 0}]}},
    "classID": {"network": {"classID": 1048577}},
    "priorities": {"network": {"priorities": [{"name": "lo", "priority": 5}]}},
    "unified unknown": {"unified": {"nonsense.max": "1"}},
    "unified refused": {"unified": {"pids.max": "many"}},
}

WITHOUT_CONTROLLERS = {
    # settings on a host with its controllers in cgroup v1: files that every cgroup has, and perhaps hugetlb
    "nothing": {},
    "unified": {"unified": {"cgroup.max.depth": "3", "cgroup.max.descendants": "5"}},
    "huge pages": {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
}


DEFAULT = "systemd's default"
WEIGHT = (
    'cgroup-v2.rst, cpu.weight: "The default is "100"", which is 1024 shares in cgroup v1: what asks for the default '
    "gets the default. Later versions of both convert likewise"
)
SHARE = 'config-linux.md, idle: "cgroups are configured with minimum weight, 0: default behavior, 1: SCHED_IDLE"'
BURST = 'config-linux.md, burst: "the maximum amount of accumulated time"'
PERIOD = 'cgroup-v2.rst, cpu.max: "The default is "max 100000"": said, so that an update can change it back'
NO_SWAP = 'config-linux.md, memory.swap: "sets limit of memory+Swap usage": without swap that of swap itself is 0'
UNSET = 'config-linux.md, memory.swap: "sets limit of memory+Swap usage": 0 is what Go has for none'
TASKS = (
    'config-linux.md, pids.limit: "the maximum number of tasks in the cgroup": 0 is what Go has for none; runc leaves '
    "what systemd has as its default"
)
REFUSE = 'config-linux.md: "If the conversion is not possible the runtime MUST generate an error."'
RESERVED = (
    'config-linux.md, hugepageLimits: "By default if supported by the kernel, … HugeTLB controller reservation '
    'accounting … Otherwise … fallback to the page fault accounting"'
)
WARN = "nothing is limited less for it: a warning names it, --require-limits refuses it. "

DIFFERENCES = [
    *IN_SCOPES,
    Difference("crun", "IOAccounting", "no", "yes",
               'systemd.resource-control(5): "Turn on Block I/O accounting for this unit", which events --stats tells'),
    # the CPU
    Difference("runc crun", "cpu.weight", "20", "59", WEIGHT),
    Difference("runc crun", "CPUWeight", "20", "59", WEIGHT),
    Difference("runc", "cpu.idle", "0", "1", SHARE),
    Difference("runc", "cpu.weight", "20", "1", SHARE),
    Difference("runc crun", "CPUWeight", "20", "idle", SHARE),
    Difference("runc", "cpu.max.burst", "0", "1000", BURST),
    Difference("runc", "CPUQuotaPeriodUSec", "infinity", "100ms", PERIOD),
    Difference("crun", "CPUQuotaPeriodUSec", "infinity", "20ms", KEPT),
    Difference("crun", "CPUQuotaPerSecUSec", "11y 8month 1w 1d 19h 54min 41.480000s", "infinity",
               'cgroup-v2.rst, cpu.max: ""max" for $MAX indicates no limit", as systemd has "infinity"'),
    # memory and processes
    Difference("runc", "MemorySwapMax", "infinity", "0", NO_SWAP),
    Difference("crun", "MemorySwapMax", "67108864", "0", NO_SWAP),
    Difference("crun", "MemorySwapMax", "100663296", "33554432",
               'cgroup-v2.rst, memory.swap.max: "Swap usage hard limit", which is the sum less the memory'),
    Difference("crun", "memory.swap.max", "0", "max", UNSET),
    Difference("crun", "MemorySwapMax", "0", "infinity", UNSET),
    Difference("runc crun", "pids.max", DEFAULT, "max", TASKS),
    Difference("runc crun", "TasksMax", DEFAULT, "infinity", TASKS),
    # what systemd receives
    Difference("runc crun", "IOReadBandwidthMax", "", "/dev/block/98:0 1048576", KEPT),
    Difference("runc crun", "IOWriteBandwidthMax", "", "/dev/block/98:0 2097152", KEPT),
    Difference("runc crun", "IOReadIOPSMax", "", "/dev/block/98:0 70", KEPT),
    Difference("runc crun", "IOWriteIOPSMax", "", "/dev/block/98:0 50", KEPT),
    Difference("runc crun", "OOMPolicy", "continue", "kill", KEPT),
    Difference("crun", "CPUQuotaPerSecUSec", "infinity", "200ms", KEPT),
    Difference("crun", "CPUQuotaPeriodUSec", "infinity", "100ms", KEPT),
    Difference("crun", "CPUQuotaPerSecUSec", "infinity", "400ms", KEPT),
    Difference("crun", "CPUQuotaPeriodUSec", "infinity", "50ms", KEPT),
    Difference("crun", "MemoryMax", "67108864", "83886080", KEPT),
    Difference("crun", "TasksMax", "20", "30", KEPT),
    # what cgroup v2 does not have
    Difference("runc", REFUSED, TAKEN, REFUSED, REFUSE, "disableOOMKiller"),
    Difference("runc", REFUSED, TAKEN, REFUSED, REFUSE, "realtime"),
    Difference("runc", REFUSED, TAKEN, REFUSED, REFUSE, "classID"),
    Difference("runc", REFUSED, TAKEN, REFUSED, REFUSE, "priorities"),
    Difference("crun", REFUSED, REFUSED, TAKEN,
               WARN + 'config-linux.md: it is of those that "do not specify memory limits"', "swappiness"),
    Difference("crun", REFUSED, REFUSED, TAKEN,
               WARN + 'cgroup-v2.rst: memory.max tracks "kernel data structures" with the rest', "kernel"),
    Difference("crun", REFUSED, REFUSED, TAKEN,
               'config-linux.md: "child cgroups will share the memory limits": they always do', "useHierarchy"),
    Difference("crun", REFUSED, REFUSED, TAKEN,
               WARN + "cgroup-v2.rst, No Internal Process Constraint: tasks never compete with child cgroups",
               "leafWeight"),
    Difference("runc crun", REFUSED, REFUSED, TAKEN,
               "cgroup v1 lifts a limit with a rate of 0 (blk-throttle.c), and cgroup v2 with max", "rate of zero"),
]  # fmt: skip

HUGE_PAGES = [
    Difference("runc crun", "hugetlb.2MB.max", str(4 * MIB), "9223372036854771712", RESERVED),
    Difference("crun", "hugetlb.2MB.rsvd.max", "9223372036854771712", str(4 * MIB), RESERVED),
]


def test_the_differences_are_exactly_those_in_the_list(machine):
    results = compare_in(machine, LIMITS, MANAGERS)
    results["cgroupfs"] |= compare_in(machine, ODD, ["cgroupfs"])["cgroupfs"]
    unlisted, unseen = unlisted_and_unseen(results, DIFFERENCES)
    assert not unlisted
    assert not unseen


def test_the_differences_without_controllers_are_those_in_the_list(user, cgroup2, need, rootless_command):
    cases, listed = dict(WITHOUT_CONTROLLERS), HUGE_PAGES
    if "hugetlb" in (cgroup2.top / "cgroup.controllers").read_text():
        (cgroup2.top / "cgroup.subtree_control").write_text("+hugetlb")
    else:
        del cases["huge pages"]
        listed = []
    config = config_with_maps(user, "sleep", "600")
    config["root"]["path"] = str(make_bundle(user, config) / "rootfs")
    runtimes = {"runc": need("runc"), "crun": need("crun"), "rootless": rootless_command}
    task = {"config": config, "runtimes": runtimes, "managers": ["cgroupfs"], "cases": cases}
    (user.tmp / "compare.json").write_text(json.dumps(task))
    words = [*cgroup2.prefix(), "/usr/bin/python3", COMPARE, user.tmp / "compare.json"]
    results = json.loads(user.run(words, check=True, **cgroup2.options).stdout)
    unlisted, unseen = unlisted_and_unseen(results, listed)
    assert not unlisted
    assert not unseen
