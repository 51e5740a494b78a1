"""config-linux.md "Rootfs Mount Propagation": each property set, and observed from inside."""

from __future__ import annotations

import pytest

from tests.lib.boxes import MOUNTINFO, config_with_maps, mount_table
from tests.lib.bundles import base_config
from tests.lib.oracles import differs

ROOT = '"sets the rootfs\'s mount propagation"'


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        pytest.param("private", [], marks=pytest.mark.spec("linux.rootfsPropagation private")),
        pytest.param("slave", [], marks=pytest.mark.spec("linux.rootfsPropagation slave")),
        pytest.param(
            "shared",
            ["shared"],
            marks=[
                pytest.mark.spec("linux.rootfsPropagation shared"),
                differs("runc", f"{ROOT}: it stays private"),
            ],
        ),
        pytest.param(
            "unbindable",
            ["unbindable"],
            marks=[
                pytest.mark.spec("linux.rootfsPropagation unbindable"),
                differs("runc", f"{ROOT}: it fails"),
            ],
        ),
    ],
)
def test_root_propagation(either, value, wanted):
    config = config_with_maps(either.user)
    config["linux"]["rootfsPropagation"] = value
    table = mount_table(either.lines(config, "cat /proc/self/mountinfo"))
    assert [field.split(":")[0] for field in table["/"][1]] == wanted


ROOT_PROPAGATION = {
    "": [],
    "private": [],
    "rprivate": [],
    "slave": [],
    "rslave": [],
    "shared": ["shared"],
    "rshared": ["shared"],
    "unbindable": ["unbindable"],
    "runbindable": ["unbindable"],
}


@pytest.mark.parametrize("propagation", ROOT_PROPAGATION)
def test_rootfs_propagation(either, propagation):
    if either.oracle and ROOT_PROPAGATION[propagation]:
        pytest.skip("runc 1.1.15 leaves the root private, or fails")
    config = config_with_maps(either.user)
    config["linux"]["rootfsPropagation"] = propagation
    table = mount_table(either.lines(config, MOUNTINFO))
    assert [field.split(":")[0] for field in table["/"][1]] == ROOT_PROPAGATION[propagation]


def test_recursive_propagation_of_the_root_reaches_every_mount(box):
    config = base_config()
    config["linux"]["rootfsPropagation"] = "rshared"
    table = mount_table(box.lines(config, MOUNTINFO))
    assert {point: fields[0].split(":")[0] for point, (_, fields, *_) in table.items()} == dict.fromkeys(
        table, "shared"
    )
