"""config-linux.md "IntelRdt": each property set, and observed from inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import IGNORED, assert_refused, differs

WITHOUT_RESCTRL = (
    '"If no mounted resctrl pseudo-filesystem is available …, the runtime MUST generate an error": ' + IGNORED
)


RDT = {
    "closID": {"closID": "guaranteed"},
    "l3CacheSchema": {"l3CacheSchema": "L3:0=f"},
    "memBwSchema": {"memBwSchema": "MB:0=20"},
    "schemata": {"schemata": ["L3:0=f"]},
    "enableMonitoring": {"enableMonitoring": True},
}


@pytest.mark.skipif("resctrl" in Path("/proc/self/mounts").read_text(), reason="this host has resctrl")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.spec(f"linux.intelRdt.{name}", refused="no resctrl file system is mounted"),
                *([] if "Schema" in name else [differs("runc", WITHOUT_RESCTRL)]),
            ],
        )
        for name in RDT
    ],
)
def test_intel_rdt(either, name):
    config = config_with_maps(either.user)
    config["linux"]["intelRdt"] = RDT[name]
    assert_refused(either, config, "resctrl", "intelrdt", "intel rdt")


@pytest.mark.skipif("resctrl" in Path("/proc/self/mounts").read_text(), reason="this host has resctrl")
def test_shares_without_resctrl(box):
    config = base_config()
    config["linux"]["intelRdt"] = {"closID": "guaranteed"}
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: cannot give the container its share of the caches: no resctrl file system is mounted "
        "(config.json: linux.intelRdt); fix: run, as root: "
    )
