"""linux.resources as values for cgroup v2 files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.plan.cgroup.limits import cpu_weight, settings

MIB = 1 << 20

CASES = {
    # linux.resources: the written values
    "memory limit": ({"memory": {"limit": 64 * MIB}}, ["memory.max=67108864"]),
    "memory and as much swap": (
        {"memory": {"limit": MIB, "swap": 2 * MIB}},
        ["memory.swap.max=1048576", "memory.max=1048576"],
    ),
    "memory without swap": ({"memory": {"limit": MIB, "swap": MIB}}, ["memory.swap.max=0", "memory.max=1048576"]),
    "swap without end": ({"memory": {"limit": MIB, "swap": -1}}, ["memory.swap.max=max", "memory.max=1048576"]),
    "memory without end": ({"memory": {"limit": -1}}, ["memory.swap.max=max", "memory.max=max"]),
    "reservation": ({"memory": {"reservation": MIB}}, ["memory.low=1048576"]),
    "what Go writes for nothing": ({"memory": {"limit": 0, "disableOOMKiller": False}, "cpu": {"shares": 0}}, []),
    "what v2 does not have and nobody misses": (
        {"memory": {"kernel": -1, "kernelTCP": MIB, "swappiness": 60, "useHierarchy": True}},
        [],
    ),
    "shares": ({"cpu": {"shares": 1024}}, ["cpu.weight=100"]),
    "quota and period": ({"cpu": {"quota": 20000, "period": 50000}}, ["cpu.max=20000 50000"]),
    "quota alone": ({"cpu": {"quota": 20000}}, ["cpu.max=20000 100000"]),
    "period alone": ({"cpu": {"period": 50000}}, ["cpu.max=max 50000"]),
    "no quota": ({"cpu": {"quota": -1, "period": 50000}}, ["cpu.max=max 50000"]),
    "burst": ({"cpu": {"quota": 20000, "burst": 10000}}, ["cpu.max=20000 100000", "cpu.max.burst=10000"]),
    "idle": ({"cpu": {"idle": 1}}, ["cpu.idle=1"]),
    "idle, and so of the least weight": ({"cpu": {"idle": 1, "shares": 512}}, ["cpu.idle=1"]),
    "not idle": ({"cpu": {"idle": 0}}, ["cpu.idle=0"]),
    "cpuset": ({"cpu": {"cpus": "0-1,3", "mems": "0"}}, ["cpuset.cpus=0-1,3", "cpuset.mems=0"]),
    "pids": ({"pids": {"limit": 32}}, ["pids.max=32"]),
    "pids without end": ({"pids": {"limit": -1}}, ["pids.max=max"]),
    "pids of zero": ({"pids": {"limit": 0}}, ["pids.max=max"]),
    "io weight": ({"blockIO": {"weight": 500}}, ["io.bfq.weight=500 or io.weight=default 4950"]),
    "io weight of a device": (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 1000}]}},
        ["io.bfq.weight=8:16 1000 or io.weight=8:16 10000"],
    ),
    "io limits": (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
            }
        },
        ["io.max=8:0 rbps=600", "io.max=8:16 wiops=max"],
    ),
    "huge pages": (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
        ["hugetlb.2MB.rsvd.max=0 or hugetlb.2MB.max=0"],
    ),
    "rdma": (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 0}}},
        ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=rxe3 hca_object=0"],
    ),
    "unified": (
        {"unified": {"memory.high": "1M", "io.max": "8:0 rbps=1\n8:16 wiops=2"}, "memory": {"limit": MIB}},
        ["memory.max=1048576", "memory.high=1M", "io.max=8:0 rbps=1", "io.max=8:16 wiops=2"],
    ),
    "nothing": ({}, []),
    "device rules are no limits": ({"devices": [{"allow": False}]}, []),
}

REFUSED = {
    "memory.disableOOMKiller": {"memory": {"disableOOMKiller": True}},
    "memory.limit": {"memory": {"limit": -2}},
    "memory.swap": {"memory": {"limit": 2 * MIB, "swap": MIB}},
    "memory.swap without limit": {"memory": {"swap": MIB}},
    "memory.reservation": {"memory": {"reservation": -5}},
    "cpu.realtimeRuntime": {"cpu": {"realtimeRuntime": 950000}},
    "cpu.idle": {"cpu": {"idle": 2}},
    "cpu.burst": {"cpu": {"quota": 1000, "burst": 2000}},
    "blockIO.weight": {"blockIO": {"weight": 5}},
    "blockIO.weightDevice[0]": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1001}]}},
    "rdma.rxe3": {"rdma": {"rxe3": {}}},
    "network.classID": {"network": {"classID": 1}},
    "network.priorities": {"network": {"priorities": [{"name": "eth0", "priority": 1}]}},
    "unified.../escape": {"unified": {"../escape": "1"}},
}


def shown(setting):
    text = f"{setting.file}={setting.value}"
    return f"{text} or {shown(setting.otherwise)}" if setting.otherwise else text


@pytest.mark.parametrize("case", CASES)
def test_values_of_cgroup_files(case):
    resources, expected = CASES[case]
    assert [shown(setting) for setting in settings(resources)] == expected


@pytest.mark.parametrize("case", REFUSED)
def test_contradiction_is_refused_with_its_place(case):
    with pytest.raises(RootlessError) as refused:
        settings(REFUSED[case])
    assert refused.value.code == "RL-RESOURCES"
    assert refused.value.where == f"linux.resources.{case.partition(' ')[0]}"
    assert refused.value.fix


def test_every_setting_names_its_place_and_its_controller():
    resources, _ = CASES["unified"]
    found = [(setting.controller, setting.where) for setting in settings(resources, place="resources")]
    assert found == [
        ("memory", "resources.memory.limit"),
        ("memory", "resources.unified.memory.high"),
        ("io", "resources.unified.io.max"),
        ("io", "resources.unified.io.max"),
    ]


@pytest.mark.parametrize(("shares", "weight"), [(1, 1), (2, 1), (1024, 100), (262144, 10000), (1 << 60, 10000)])
def test_the_ends_and_the_defaults_of_shares_and_weight_meet(shares, weight):
    assert cpu_weight(shares) == weight


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_more_shares_are_no_less_weight(one, other):
    assert (cpu_weight(one) <= cpu_weight(other)) == (one <= other) or cpu_weight(one) == cpu_weight(other)
