"""Labels of security modules that this host may have, groups that are kept, and bundles for somebody else.

What the kernel makes of a label only a host with that module can tell; here is what happens without it. What is planned
for one with it is in tests/unit/test_plan_rare.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib.boxes import make_volume, status_of
from tests.lib.bundles import base_config

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
        "switched off (config.json: process.apparmorProfile); fix: remove it, or boot a kernel with AppArmor\n"
    )


@pytest.mark.skipif(not apparmor(), reason="this host has no AppArmor")
def test_a_profile_that_is_not_loaded(box):
    done = box.run(put("process.apparmorProfile", "rootless-no-such-profile"), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "(config.json: process.apparmorProfile)" in done.stderr


def test_the_profile_that_is_none(box):
    assert box.lines(put("process.apparmorProfile", "unconfined"), "echo ran") == ["ran"]


@pytest.mark.skipif(SELINUX, reason="this host has SELinux")
@pytest.mark.parametrize("place", ["process.selinuxLabel", "linux.mountLabel"])
def test_a_label_without_selinux(box, place):
    done = box.run(put(place, LABEL), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{LABEL}: this kernel has no SELinux, or it is switched off (config.json: {place}); fix: " in done.stderr


# --- run.oci.keep_original_groups -------------------------------------------------------------------------------------

GROUPS = [4242, 4243]
STATUS = "cat /proc/self/status"


@pytest.mark.parametrize(("asked", "value"), [(None, "1"), ([33], ""), ([33], "1")])
def test_the_callers_groups_are_kept_where_the_annotation_says_so(box, require_root, asked, value):
    """Whatever it says but 0, as with crun. A directory of a group that the container lacks stays open to members."""
    shared = make_volume(box.user, "shared", file="text")
    os.chown(shared, 0, GROUPS[0])
    shared.chmod(0o750)
    config = base_config()
    config["mounts"].append({"destination": "/data", "type": "none", "source": str(shared), "options": ["bind"]})
    if asked:
        config["process"]["user"]["additionalGids"] = asked
    lines = box.lines(config, STATUS, "cat /data/file || true", extra_groups=GROUPS)
    assert status_of(lines, "Groups") == " ".join(map(str, asked or []))
    assert "text" not in lines
    config["annotations"] = {"run.oci.keep_original_groups": "0"}
    assert status_of(box.lines(config, STATUS, extra_groups=GROUPS), "Groups") == " ".join(map(str, asked or []))
    config["annotations"] = {"run.oci.keep_original_groups": value}
    lines = box.lines(config, STATUS, "cat /data/file", extra_groups=GROUPS)
    assert status_of(lines, "Groups") == "65534 65534"
    assert lines[-1] == "text"


# --- For somebody else ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "content", "platform"),
    [
        ("vm", {"kernel": {"path": "/boot/vmlinuz"}}, "in a virtual machine"),
        ("windows", {"layerFolders": ["C:\\layers"]}, "on Windows"),
        ("solaris", {"milestone": "svc:/milestone/container:default"}, "on Solaris"),
    ],
)
def test_a_bundle_for_another_platform(box, section, content, platform):
    done = box.run(base_config() | {section: content}, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"rootless: this bundle is for a container that runs {platform}: rootless makes containers of the Linux kernel "
        f"that it runs on (config.json: {section}); fix: remove {section} from config.json"
    )


def test_an_annotation_that_would_make_another_container(box):
    config = base_config() | {"annotations": {"run.oci.handler": "krun", "somebody.else": "anything"}}
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert '(config.json: annotations["run.oci.handler"]); fix: remove it' in done.stderr


# --- Shares of caches -------------------------------------------------------------------------------------------------


@pytest.mark.skipif("resctrl" in Path("/proc/self/mounts").read_text(), reason="this host has resctrl")
def test_shares_without_resctrl(box):
    done = box.run(put("linux.intelRdt", {"closID": "guaranteed"}), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: cannot give the container its share of the caches: no resctrl file system is mounted "
        "(config.json: linux.intelRdt); fix: mount it, as root: "
    )
