"""config.md "Root": each property set, and observed from inside."""

from __future__ import annotations

import os
import stat

import pytest

from tests.lib.boxes import MOUNTINFO, add_mount, config_with_maps, mount_table
from tests.lib.bundles import base_config, own


@pytest.mark.spec("root.readonly")
@pytest.mark.parametrize("readonly", [False, True])
def test_root_readonly(either, readonly):
    config = config_with_maps(either.user)
    config["root"]["readonly"] = readonly
    lines = either.lines(config, "touch /new 2>&1; touch /dev/new && echo written", MOUNTINFO)
    if readonly:
        assert lines.pop(0) == "touch: /new: Read-only file system"
    assert lines.pop(0) == "written"
    assert mount_table(lines)["/"][0] == {"ro" if readonly else "rw", "relatime"}
    assert (either.rootfs / "new").exists() != readonly


@pytest.mark.spec("root.path")
def test_root_path_absolute_or_relative(either):
    moved = either.rootfs.rename(either.user.tmp / "elsewhere")
    for path in (str(moved), "../elsewhere"):
        config = config_with_maps(either.user)
        config["root"]["path"] = path
        assert either.lines(config, "echo /bin/busybox") == ["/bin/busybox"]


def test_read_only_root_is_reported(box):
    box.rootfs.chmod(0o555)
    own(box.user, box.rootfs)
    config = base_config()
    add_mount(config, "/new", "tmpfs")
    assert box.run(config, "true").returncode == 0, "the container's root may write to its own files"
    stranger = box.user.tmp / "stranger"
    if os.geteuid() == 0:
        box.rootfs.rename(stranger)
        os.chown(stranger, 0, 0)
        (stranger / "new").rmdir()
        stranger.chmod(0o755)
        config["root"]["path"] = str(stranger)
        done = box.run(config, "true")
        assert done.returncode == 1
        assert "mount tmpfs on /new: mkdir: Permission denied (config.json: mounts[4]); fix: " in done.stderr
        assert stat.S_IMODE(stranger.stat().st_mode) == 0o755
