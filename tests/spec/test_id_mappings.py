"""config-linux.md "User namespace mappings": each property set, and observed from inside."""

from __future__ import annotations

import pytest

from tests.lib.boxes import Box, config_with_maps, own_mappings
from tests.lib.bundles import base_config
from tests.lib.namespaces import maps


@pytest.mark.spec("linux.namespaces.user", "linux.uidMappings", "linux.gidMappings")
def test_the_maps_of_config_json(either):
    config = config_with_maps(either.user)
    first = own_mappings(either.user)["uidMappings"][1]["hostID"]
    uids = [(0, first + 5, 10), (10, either.user.uid, 1), (100, first + 50, 1000)]
    if either.oracle:  # runc 1.1.15 requires that root in the container is its caller
        uids = [(0, either.user.uid, 1), (1, first + 5, 10), (100, first + 50, 1000)]
    gids = [(0, either.user.gid, 1), (5, first, 3)]
    for key, lines in (("uidMappings", uids), ("gidMappings", gids)):
        config["linux"][key] = [{"containerID": a, "hostID": b, "size": size} for a, b, size in lines]
    either.rootfs.chmod(0o777)
    config["process"]["capabilities"] = {name: ["CAP_DAC_OVERRIDE"] for name in ("bounding", "effective", "permitted")}
    lines = either.lines(config, "cat /proc/self/uid_map; stat -c %u /bin/busybox; cat /proc/self/gid_map")
    assert maps(lines[:3]) == uids
    assert lines[3] == str(next(inside for inside, host, _ in uids if host == either.user.uid))
    assert maps(lines[4:]) == gids


def test_maps_of_foreign_ids_are_refused(box):
    """A bundle from another user's `spec --rootless`: the caller's ids are mapped instead, and the log reports that."""
    config = base_config()
    config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 1, "size": 1}]
    log = box.user.tmp / "log"
    lines = box.lines(config, "cat /proc/self/uid_map", global_flags=["--log", log])
    wanted = [tuple(line.values()) for line in own_mappings(box.user)["uidMappings"]]
    assert maps(lines) == wanted
    first, more = own_mappings(box.user)["uidMappings"]
    ends = f"1-{more['size']} is {more['hostID']}-{more['hostID'] + more['size'] - 1}"
    said = (
        f"name IDs that are not yours: your own are mapped instead: uids 0 is {first['hostID']}, {ends} (not 0 is 1); "
    )
    assert said in log.read_text()
    assert said in box.user.run([*box.command, "explain", box.path], check=True).stdout


def test_the_added_user_namespace_has_all_of_the_users_ids(box):
    lines = box.lines(base_config(), "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups")
    mappings = own_mappings(box.user)
    assert maps(lines[:-1]) == [tuple(line.values()) for key in mappings for line in mappings[key]]
    assert lines[-1] == "allow"


def test_the_added_user_namespace_of_a_single_id(single_user, rootless_command):
    box = Box(single_user, [rootless_command])
    lines = box.lines(base_config(), "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups")
    assert maps(lines[:2]) == [(0, single_user.uid, 1), (0, single_user.gid, 1)]
    assert lines[2] == "deny"
