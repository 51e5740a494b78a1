"""config-linux.md "Masked Paths" and "Readonly Paths": each property set, and observed from inside."""

from __future__ import annotations

import pytest

from tests.lib.boxes import MOUNTINFO, add_mount, config_with_maps, mount_table
from tests.lib.bundles import base_config, own


def prepare_paths(box):
    for name in ("directory/below", "file"):
        path = box.rootfs / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("secret\n")
    (box.rootfs / "data/link").symlink_to("/data/file")
    own(box.user, box.rootfs)


@pytest.mark.spec("linux.maskedPaths")
def test_masked_paths(either):
    prepare_paths(either)
    config = config_with_maps(either.user)
    config["linux"]["maskedPaths"] = [
        "/data/file",
        "/data/directory",
        "/data/missing",
        "/data/missing/below",
        *([] if either.oracle else ["/data/file/below"]),  # runc 1.1.15 fails there
        "/proc/version",
        "/proc/fs",
        "/proc/nonsense",
    ]
    lines = either.lines(
        config,
        "cat /data/file; ls -A /data/directory; ls -A /proc/fs; cat /proc/version",
        "touch /data/directory/new 2>&1; stat -c '%F %t:%T' /data/file; ls /data; echo x > /data/file; cat /data/file",
        MOUNTINFO,
    )
    assert lines[:5] == [
        "touch: /data/directory/new: Read-only file system",
        "character special file 1:3",
        "directory",
        "file",
        "link",
    ]
    table = mount_table(lines[5:])
    assert table["/data/directory"][2] == "tmpfs"
    assert "ro" in table["/data/directory"][0]
    assert "/data/missing" not in table
    assert (either.rootfs / "data/directory/below").read_text() == "secret\n"
    assert (either.rootfs / "data/file").read_text() == "secret\n"
    assert not (either.rootfs / "data/missing").exists()


def test_symlink_does_not_reveal_a_masked_path(box):
    """The symlink is followed in the container; runc 1.1.15 refuses it."""
    prepare_paths(box)
    config = base_config()
    config["linux"]["maskedPaths"] = ["/data/link"]
    assert box.lines(config, "cat /data/file /data/link; echo end") == ["end"]


@pytest.mark.spec("linux.readonlyPaths")
def test_readonly_paths(either):
    prepare_paths(either)
    config = config_with_maps(either.user)
    add_mount(config, "/data/directory/mount", "tmpfs")
    config["linux"]["readonlyPaths"] = ["/data/file", "/data/directory", "/data/missing", "/proc/sys", "/proc/nonsense"]
    lines = either.lines(
        config,
        "exec 2>&1; echo x > /data/file; cat /data/file; touch /data/directory/new; touch /data/directory/mount/new",
        "echo x > /proc/sys/kernel/msgmax; touch /data/new; ls /data",
        MOUNTINFO,
    )
    assert lines[:3] == [
        "sh: can't create /data/file: Read-only file system",
        "secret",
        "touch: /data/directory/new: Read-only file system",
    ]
    if not either.oracle:  # runc 1.1.15 does not change mounts below the path
        assert lines.pop(3) == "touch: /data/directory/mount/new: Read-only file system"
    assert lines[3:8] == [
        "sh: can't create /proc/sys/kernel/msgmax: Read-only file system",
        "directory",
        "file",
        "link",
        "new",
    ]
    table = mount_table(lines[8:])
    assert all("ro" in table[point][0] for point in ("/data/file", "/data/directory", "/proc/sys"))


def test_a_path_that_is_masked_below_a_read_only_one(either):
    config = config_with_maps(either.user)
    prepare_paths(either)
    config["linux"]["readonlyPaths"] = ["/data"]
    config["linux"]["maskedPaths"] = ["/data/file", "/data/directory"]
    assert either.lines(config, "cat /data/file; ls -A /data/directory; touch /data/x 2>&1; true") == [
        "touch: /data/x: Read-only file system"
    ]


def test_masked_paths_stay_masked_in_a_namespace_below(either):
    """No process in the container can unmount the masks or mount a /proc without them."""
    prepare_paths(either)
    config = config_with_maps(either.user)
    config["linux"]["maskedPaths"] = ["/data/directory", "/proc/version"]
    # user_namespaces(7): mapping root to root needs CAP_SETFCAP
    config["process"]["capabilities"] = {name: ["CAP_SETFCAP"] for name in ("bounding", "effective", "permitted")}
    script = (
        "below() { busybox unshare --user --map-root-user --mount --pid --fork \"$@\" 2>&1 | sed 's/.*: //'; }",
        "below umount /proc/version; below umount /data/directory",
        "below sh -c 'mount -t proc proc /tmp'",
    )
    assert either.lines(config, *script) == [
        "Invalid argument",
        "Invalid argument",
        "permission denied (are you root?)",
    ]
