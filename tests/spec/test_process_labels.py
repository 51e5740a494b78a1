"""config.md "Linux Process": apparmorProfile and selinuxLabel; config-linux.md mountLabel.

Only a host with the security module can show the effect of a label; these tests cover hosts without it.
tests/unit/test_plan_rare.py tests the Plan for a host that has it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import assert_refused, differs

LABEL = "system_u:system_r:container_t:s0:c1,c2"


def apparmor():
    parameter = Path("/sys/module/apparmor/parameters/enabled")
    return parameter.exists() and parameter.read_text().strip() == "Y"


SELINUX = Path("/sys/fs/selinux/enforce").exists()


def put(place, value):
    config = base_config()
    section, name = place.split(".")
    config[section][name] = value
    return config


@pytest.mark.skipif(apparmor(), reason="this host has AppArmor")
def test_a_profile_without_apparmor(box):
    done = box.run(put("process.apparmorProfile", "docker-default"), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "rootless: cannot run the program under the profile docker-default: this kernel has no AppArmor, or it is "
        "switched off (config.json: process.apparmorProfile); fix: remove it, or boot a kernel with AppArmor enabled\n"
    )


@pytest.mark.skipif(not apparmor(), reason="this host has no AppArmor")
def test_a_profile_that_is_not_loaded(box):
    done = box.run(put("process.apparmorProfile", "rootless-no-such-profile"), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "(config.json: process.apparmorProfile)" in done.stderr


def test_unconfined_profile(box):
    assert box.lines(put("process.apparmorProfile", "unconfined"), "echo ran") == ["ran"]


@pytest.mark.skipif(SELINUX, reason="this host has SELinux")
@pytest.mark.parametrize("place", ["process.selinuxLabel", "linux.mountLabel"])
def test_a_label_without_selinux(box, place):
    done = box.run(put(place, LABEL), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{LABEL}: this kernel has no SELinux, or it is switched off (config.json: {place}); fix: " in done.stderr


# --- The specification ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.path.exists("/sys/kernel/security/apparmor"), reason="this host has AppArmor")
def test_apparmor_profile(either):
    config = config_with_maps(either.user)
    config["process"]["apparmorProfile"] = "docker-default"
    assert_refused(either, config, "apparmor")


NO_SELINUX = "this kernel has no SELinux"


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this host has SELinux")
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("process.selinuxLabel", marks=pytest.mark.spec("process.selinuxLabel", refused=NO_SELINUX)),
        pytest.param(
            "linux.mountLabel",
            marks=[
                pytest.mark.spec("linux.mountLabel", refused=NO_SELINUX),
                differs("crun", '"sets the SELinux context for the mounts": where the kernel has none it is ignored'),
            ],
        ),
    ],
)
def test_selinux_label(either, place):
    config = config_with_maps(either.user)
    section, name = place.split(".")
    config[section][name] = "system_u:system_r:container_t:s0:c1,c2"
    # runc and crun name the operation that failed
    assert_refused(either, config, "selinux", "data: mode=0755,mode=755,size=65536k,context=", "keycreate")
