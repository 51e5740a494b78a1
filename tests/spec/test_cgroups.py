"""config-linux.md "Control groups": cgroupsPath, ownership, unified, and limits where no controller is delegated.

Limits that a delegated controller enforces are tested on machines with systemd (tests/system).
"""

from __future__ import annotations

import pytest

from tests.lib.boxes import ALL, add_mount, config_with_maps, make_box
from tests.lib.bundles import base_config
from tests.lib.cgroup2 import cgroup2

__all__ = ["cgroup2"]

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
"""Properties that only qualify another one, which the warning names instead."""


GONE = "cgroup v2 has no such limit"
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
def test_device_rules_of_an_ordinary_user(box):
    """An ordinary user's container cannot create devices and has only those that it was given."""
    config = base_config()
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    config["process"]["capabilities"] = {name: ["CAP_MKNOD"] for name in ("bounding", "effective", "permitted")}
    lines = box.lines(config, "mknod /data/null c 1 3 2>&1 || true; echo x > /dev/null && echo written")
    assert lines == ["mknod: /data/null: Operation not permitted", "written"]


WITHOUT_EFFECT = {
    "memory": {"limit": 2**30},
    "cpu": {"shares": 512},
    "pids": {"limit": 100},
    "blockIO": {"weight": 100},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
    "network": {"classID": 1},
    "rdma": {"mlx5_1": {"hcaHandles": 3}},
    "unified": {"memory.high": "1000000"},
}


def test_every_limit_that_is_not_enforced_is_named(box):
    config = base_config()
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}], **WITHOUT_EFFECT}
    done = box.run(config, "echo ran", check=True)
    assert done.stdout == "ran\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("rootless: warning: limits that are not enforced: ")
    assert "(config.json: linux.resources)" in line
    for section, asked in WITHOUT_EFFECT.items():
        for name in asked if isinstance(asked, dict) else ["[0]"]:
            assert f"{section}{name}" in line or f"{section}.{name}" in line


def test_missing_cgroup_is_logged(box):
    config = base_config()
    config["linux"]["cgroupsPath"] = "user.slice:libpod:some"
    log = box.user.tmp / "log"
    assert box.lines(config, "echo ran", global_flags=["--log", log]) == ["ran"]
    assert 'where="linux.cgroupsPath"' in log.read_text()


STAYS = '"Runtimes SHOULD change the cgroup ownership …": for an ordinary user it stays the caller\'s'


@pytest.fixture(params=ALL)
def viewed(request, user, rootless_command, need, cgroup2):
    """A box whose runtime is called in a View."""
    box = make_box(user, request.param, rootless_command, need)
    if request.param == "crun":
        box.command.remove("--cgroup-manager=disabled")
        box.command.append("--cgroup-manager=cgroupfs")
    box.command[:0] = cgroup2.prefix()
    box.options = cgroup2.options
    yield box
    box.close()


def config_in(view, box):
    """Return a config with a cgroup below that of the view."""
    config = config_with_maps(box.user)
    config["linux"]["cgroupsPath"] = f"{view.path}/deep/box"
    config["linux"]["namespaces"].append({"type": "cgroup"})
    return config


@pytest.mark.spec("linux.cgroupsPath")
def test_the_path(viewed, cgroup2):
    """ "The runtime MUST take the path to be relative to the cgroups mount point"."""
    config = config_in(cgroup2, viewed)
    del config["linux"]["namespaces"][-1]
    lines = viewed.lines(config, "grep ^0:: /proc/self/cgroup")
    assert lines == [f"0::{cgroup2.path}/deep/box"]


@pytest.mark.spec("linux.resources.unified")
def test_unified(viewed, cgroup2):
    """ "Configuration unknown to the runtime MUST still be written to the relevant file"."""
    config = config_in(cgroup2, viewed)
    config["linux"]["resources"] = {"unified": {"cgroup.max.descendants": "7"}}
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    assert viewed.lines(config, "cat /sys/fs/cgroup/cgroup.max.descendants") == ["7"]


@pytest.mark.spec("cgroup ownership")
@pytest.mark.parametrize(
    "option", [pytest.param("rw", marks=[pytest.mark.differs(name, STAYS) for name in ("runc", "crun")]), "ro"]
)
def test_the_owner(viewed, cgroup2, option):
    """ "… if and only if the cgroup filesystem is to be mounted read/write"."""
    config = config_in(cgroup2, viewed)
    config["process"]["user"] = {"uid": 33, "gid": 33}
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", option)
    lines = viewed.lines(config, "cd /sys/fs/cgroup; stat -c %u . cgroup.procs cgroup.subtree_control cgroup.max.depth")
    given = "33" if option == "rw" else "0"
    assert lines == [given, given, given, "0"]
