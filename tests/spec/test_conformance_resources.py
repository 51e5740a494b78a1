"""config-linux.md "Control groups", where an ordinary user has been given no controller: no limit is ignored silently.

What the limits do is for a machine with systemd and delegated controllers to show (tests/system).
"""

from __future__ import annotations

import pytest

from tests.lib.bundles import base_config

NOT_DELEGATED = "no controller of cgroup v2 is delegated to an ordinary user"
DEVICE = {"major": 8, "minor": 0}
RESOURCES = {
    "memory": {
        "limit": 2**30,
        "reservation": 2**29,
        "swap": 2**31,
        "kernel": 2**28,
        "kernelTCP": 2**20,
        "swappiness": 60,
        "disableOOMKiller": True,
        "useHierarchy": True,
        "checkBeforeUpdate": True,
    },
    "cpu": {
        "shares": 512,
        "quota": 10000,
        "burst": 5000,
        "period": 100000,
        "realtimeRuntime": 1000,
        "realtimePeriod": 100000,
        "cpus": "0",
        "mems": "0",
        "idle": 1,
    },
    "blockIO": {
        "weight": 100,
        "leafWeight": 100,
        "weightDevice": [DEVICE | {"weight": 500}],
        "throttleReadBpsDevice": [DEVICE | {"rate": 600}],
        "throttleWriteBpsDevice": [DEVICE | {"rate": 600}],
        "throttleReadIOPSDevice": [DEVICE | {"rate": 600}],
        "throttleWriteIOPSDevice": [DEVICE | {"rate": 600}],
    },
    "network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 500}]},
    "pids": {"limit": 100},
}
WHOLE = {
    "hugepageLimits": [{"pageSize": "2MB", "limit": 2**21}],
    "rdma": {"mlx5_1": {"hcaHandles": 3}},
    "unified": {"memory.high": "1000000"},
}
CASES = {
    f"{section}.{name}": {section: {name: value}} for section in RESOURCES for name, value in RESOURCES[section].items()
}
CASES |= {section: {section: value} for section, value in WHOLE.items()}


WITH = {
    "memory.useHierarchy": ("limit", 2**30),
    "memory.checkBeforeUpdate": ("limit", 2**30),
    "cpu.period": ("quota", 10000),
}
"""What says something only of another property, which is named then."""


GONE = "cgroup v2 has nothing of the kind"
UNTESTED = dict.fromkeys(
    (
        *(f"memory.{name}" for name in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller", "useHierarchy")),
        *(f"cpu.{name}" for name in ("realtimeRuntime", "realtimePeriod")),
        "blockIO.leafWeight",
        *(f"network.{name}" for name in RESOURCES["network"]),
    ),
    GONE,
) | {"memory.checkBeforeUpdate": "it is about updates, which the tests of those look at for rootless alone"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.spec(f"linux.resources.{name}", untested=UNTESTED.get(name, NOT_DELEGATED))
        )
        for name in CASES
    ],
)
def test_a_limit_that_cannot_be_enforced_is_named(box, name):
    config = base_config()
    config["linux"]["resources"] = CASES[name]
    section, _, _ = name.partition(".")
    other, value = WITH.get(name, ("", None))
    if other:
        config["linux"]["resources"] = {section: CASES[name][section] | {other: value}}
    done = box.run(config, "echo ran")
    assert done.stdout == "ran\n"
    assert (f"{section}.{other}" if other else name) in done.stderr
    assert "(config.json: linux.resources" in done.stderr


@pytest.mark.spec(
    "linux.resources.devices", untested="it takes an eBPF program, which root of the host alone may attach"
)
def test_rules_for_devices(box):
    """An ordinary user's container can make none, and has no other than those that it was given."""
    config = base_config()
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    config["process"]["capabilities"] = {name: ["CAP_MKNOD"] for name in ("bounding", "effective", "permitted")}
    lines = box.lines(config, "mknod /data/null c 1 3 2>&1 || true; echo x > /dev/null && echo written")
    assert lines == ["mknod: /data/null: Operation not permitted", "written"]
