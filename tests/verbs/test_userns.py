"""Owners of files inside and on the host, and the modes of `--userns`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rootless.host import subids
from tests.lib.boxes import (
    Box,
    add_mount,
    config_with_maps,
    own_mappings,
    subordinate,
)
from tests.lib.bundles import base_config, own

# --- Files have the right owners --------------------------------------------------------------------------------------


def volume(user):
    directory = user.tmp / "volume"
    directory.mkdir()
    (directory / "mine").write_text("mine")
    own(user, directory)
    directory.chmod(0o777)
    return directory


def test_owners_in_a_volume(either):
    shared = volume(either.user)
    config = config_with_maps(either.user)
    config["process"]["capabilities"] = {
        name: ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"] for name in ("bounding", "effective", "permitted")
    }
    add_mount(config, "/data", "bind", shared, "bind")
    lines = either.lines(
        config,
        "cd /data; stat -c %u:%g mine; touch by-root given; chown 33:34 given; su -s /bin/sh www-data -c 'touch by-33'",
        "stat -c '%n %u:%g' by-root given by-33",
    )
    assert lines == ["0:0", "by-root 0:0", "given 33:34", "by-33 33:33"]
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in shared.iterdir()}
    user = either.user
    assert owners == {
        "mine": (user.uid, user.gid),
        "by-root": (user.uid, user.gid),
        "given": (subordinate(user, 33), subordinate(user, 34)),
        "by-33": (subordinate(user, 33), subordinate(user, 33)),
    }


def test_files_of_unmapped_users_belong_to_nobody(either, require_root):
    shared = volume(either.user)
    (shared / "strange").write_text("secret")
    (shared / "strange").chmod(0o600)
    os.chown(shared / "strange", 0, 0)
    config = config_with_maps(either.user)
    add_mount(config, "/data", "bind", shared, "bind")
    lines = either.lines(config, "cd /data; stat -c %u:%g strange; cat strange 2>&1; chown 0 strange 2>&1; true")
    assert lines == [
        "65534:65534",
        "cat: can't open 'strange': Permission denied",
        "chown: strange: Operation not permitted",
    ]


def test_keep_id(box):
    """The user has the same uid inside and outside, and owns the files that it writes."""
    shared = volume(box.user)
    config = base_config()
    add_mount(config, "/data", "bind", shared, "bind")
    done = box.run(
        config,
        "id -u; id -g; cat /proc/self/uid_map; touch /data/new; stat -c %u:%g /data/mine",
        flags=["--userns", "keep-id"],
    )
    assert done.returncode == 0, done.stderr
    uid, gid = box.user.uid, box.user.gid
    lines = done.stdout.splitlines()
    assert lines[:2] == [str(uid), str(gid)]
    maps = [tuple(map(int, line.split())) for line in lines[2:-1]]
    first, count = (own_mappings(box.user)["uidMappings"][1][key] for key in ("hostID", "size"))
    assert maps == [(0, first, uid), (uid, uid, 1), (uid + 1, first + uid, count - uid)]
    assert lines[-1] == f"{uid}:{gid}"
    assert ((shared / "new").stat().st_uid, (shared / "new").stat().st_gid) == (uid, gid)


def test_keep_id_with_directories_of_an_unmapped_group(box, require_root):
    """Directories of a project on a cluster: the user may enter them, but the container's root is another user."""
    shared = volume(box.user)
    project = 100
    for path in (box.user.tmp, box.path, box.rootfs, shared):
        os.chown(path, box.user.uid, project)
        path.chmod(0o2700)
    config = base_config()
    config["process"]["cwd"] = "/new/work"
    add_mount(config, "/data", "bind", shared, "rbind")
    add_mount(config, "/other/place", "tmpfs")
    for flags in ([], ["--userns", "keep-id"]):
        done = box.run(config, "pwd; cat /data/mine; touch /data/new /other/place/new", flags=flags, cwd="/")
        assert (done.returncode, done.stdout) == (0, "/new/work\nmine"), done.stderr
        assert (shared / "new").stat().st_uid == box.user.uid
        (shared / "new").unlink()


def test_keep_id_respects_a_requested_user(box):
    config = base_config()
    config["process"]["user"] = {"uid": 33, "gid": 34}
    assert box.lines(config, "id -u; id -g", flags=["--userns=keep-id"]) == ["33", "34"]


def test_userns_root(box):
    """Root inside is the user outside, whatever maps the bundle has."""
    shared = volume(box.user)
    config = config_with_maps(box.user)
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = config["linux"][key][:1]
    add_mount(config, "/data", "bind", shared, "bind")
    script = "id -u; cat /proc/self/uid_map; touch /data/new; chown 33 /data/new"
    lines = box.lines(config, script, flags=["--userns=root"])
    first, count = (own_mappings(box.user)["uidMappings"][1][key] for key in ("hostID", "size"))
    assert [line.split() for line in lines] == [["0"], ["0", str(box.user.uid), "1"], ["1", str(first), str(count)]]
    assert (shared / "new").stat().st_uid == subordinate(box.user, 33)


def test_userns_single(box):
    shared = volume(box.user)
    config = base_config()
    add_mount(config, "/data", "bind", shared, "bind")
    script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; touch /data/new; chown 33 /data/new 2>&1"
    done = box.run(config, script, flags=["--userns=single", "--fake-chown=false"])
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["0"],
        ["0", str(box.user.uid), "1"],
        ["deny"],
        ["chown:", "/data/new:", "Invalid", "argument"],
    ]
    assert (shared / "new").stat().st_uid == box.user.uid


def test_single_id_becomes_the_programs_user(single_user, rootless_command):
    """The only mapped id becomes the program's."""
    box = Box(single_user, [rootless_command])
    shared = volume(single_user)
    config = base_config()
    config["process"]["user"] = {"uid": 33, "gid": 34}
    add_mount(config, "/data", "bind", shared, "bind")
    done = box.run(config, "id -u; id -g; touch /data/new; stat -c %u:%g /data/mine", check=True)
    assert done.stdout.split() == ["33", "34", "33:34"]
    assert (shared / "new").stat().st_uid == single_user.uid
    (offer,) = re.findall(rf"usermod --add-subuids (\d+)-\d+ --add-subgids (?:\d+-\d+) {single_user.name}", done.stderr)
    taken = subids.used_ranges(Path("/etc/subuid").read_text(), Path("/etc/subgid").read_text())
    assert all(first + count <= int(offer) or first >= int(offer) + 65536 for first, count in taken)
