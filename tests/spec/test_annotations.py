"""config.md "Annotations" and "Extensibility"."""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.boxes import config_with_maps, make_volume, status_of
from tests.lib.bundles import base_config


@pytest.mark.spec("annotations", "state.annotations")
def test_annotations(either):
    config = config_with_maps(either.user)
    config["annotations"] = {"com.example.key": "value", "empty": "", "org.example/ä": "€"}
    either.create(config)
    state = json.loads(either.user.run([*either.command, "state", "held"], check=True).stdout)
    assert state["annotations"] == config["annotations"]


@pytest.mark.spec("extensibility")
def test_unknown_properties_are_ignored(either):
    """ "Runtimes that are reading or processing this configuration file MUST NOT generate an error" (config.md)."""
    config = config_with_maps(either.user)
    unknown = {"deep": [{"er": None}], "number": 1}
    config |= {
        "com.example.unknown": unknown,
        "windows": {"layerFolders": []},
        "solaris": {"milestone": ""},
        "zos": {},
    }
    config["process"] |= {"unknown": unknown, "commandLine": "cmd.exe"}
    config["process"]["user"] |= {"username": "somebody", "unknown": 1}
    config["root"]["unknown"] = unknown
    config["mounts"][0]["unknown"] = unknown
    config["linux"] |= {"unknown": unknown}
    config["linux"]["namespaces"][0]["unknown"] = unknown
    config["process"]["capabilities"]["unknown"] = ["CAP_KILL"]
    assert either.lines(config, "echo ran") == ["ran"]


GROUPS = [4242, 4243]


STATUS = "cat /proc/self/status"


@pytest.mark.parametrize(("asked", "value"), [(None, "1"), ([33], ""), ([33], "1")])
def test_annotation_keeps_the_callers_groups(box, require_root, asked, value):
    """Any value except 0, as in crun: members of a group that is not mapped keep access to its directories."""
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


def test_annotation_that_changes_the_container_is_refused(box):
    config = base_config() | {"annotations": {"run.oci.handler": "krun", "somebody.else": "anything"}}
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert '(config.json: annotations["run.oci.handler"]); fix: remove the annotation' in done.stderr
