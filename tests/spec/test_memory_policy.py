"""config-linux.md "Memory policy": each property set, and observed from inside."""

from __future__ import annotations

import os

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import IGNORED, differs

POLICY_OF_MEMORY = '"sets the NUMA memory policy for the container": ' + IGNORED


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="this kernel is built without NUMA")
@differs("runc", POLICY_OF_MEMORY)
@differs("crun", POLICY_OF_MEMORY)
@pytest.mark.spec(*(f"linux.memoryPolicy.{name}" for name in ("mode", "nodes", "flags")))
def test_memory_policy_of_the_program(either):
    config = config_with_maps(either.user)
    config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    lines = either.lines(config, "cat /proc/self/numa_maps")
    assert {line.split()[1] for line in lines} == {"bind=static:0"}


def with_policy(**policy):
    config = base_config()
    config["linux"]["memoryPolicy"] = policy
    return config


@pytest.mark.usefixtures("numa")
@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0-0", "flags": ["MPOL_F_STATIC_NODES"]}, "interleave=static:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "bind=relative:0"),
    ],
)
def test_memory_policy(box, policy, shown):
    lines = box.lines(with_policy(**policy), "cat /proc/self/numa_maps")
    assert {line.split()[1] for line in lines} == {shown}


@pytest.mark.usefixtures("numa")
def test_missing_memory_node_is_refused(box):
    done = box.run(with_policy(mode="MPOL_BIND", nodes="1000"), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: invalid memory policy: set the memory policy to MPOL_BIND, nodes 1000: "
        "set_mempolicy: Invalid argument "
        "(config.json: linux.memoryPolicy); fix: name nodes that this machine has"
    )


@pytest.fixture
def numa():
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("this kernel is built without NUMA")
