"""config.md "Linux mount options": tmpcopyup."""

from __future__ import annotations

import os

import pytest

from tests.lib.boxes import MOUNTINFO, add_mount, config_with_maps, mount_table, subordinate
from tests.lib.bundles import base_config, own


def test_tmpcopyup(either):
    source = either.rootfs / "data"
    (source / "deep/deeper").mkdir(parents=True)
    (source / "deep/deeper/file").write_text("text\n")
    (source / "link").symlink_to("deep/../nowhere")
    (source / "setuid").write_text("")
    (source / "big").write_bytes(bytes(300_000))
    if not either.oracle:  # runc 1.1.15 leaves it out and then fails to chown it
        os.mkfifo(source / "fifo")
    own(either.user, source)
    (source / "setuid").chmod(0o4755)
    (source / "deep").chmod(0o711)
    config = config_with_maps(either.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", "tmpcopyup", "ro")
    lines = either.lines(
        config,
        "cat /data/deep/deeper/file; readlink /data/link",
        "cd /data; for name in *; do stat -c '%n %A %s' $name | sed 's/ 4096\\| 60//'; done",
        MOUNTINFO,
    )
    wanted = ["text", "deep/../nowhere", "big -rw-r--r-- 300000", "deep drwx--x--x", "fifo prw-r--r-- 0"]
    wanted += ["link lrwxrwxrwx 15", "setuid -rwsr-xr-x 0"]
    if either.oracle:
        wanted.remove("fifo prw-r--r-- 0")
    assert lines[: len(wanted)] == wanted
    table = mount_table(lines[len(wanted) :])
    assert table["/data"][2] == "tmpfs"
    assert "ro" in table["/data"][0]


def test_tmpcopyup_leaves_the_image_alone(box):
    (box.rootfs / "data/file").write_text("text")
    own(box.user, box.rootfs)
    done = box.run(prepared := base_config(), "chown 33 /data/file")
    assert done.returncode == 0, done.stderr
    add_mount(prepared, "/data", "tmpfs", "tmpfs", "tmpcopyup", "mode=0711")
    lines = box.lines(prepared, "stat -c '%u %a' /data/file /data; rm /data/file; touch /data/new")
    assert lines == ["33 644", "0 711"]
    assert [path.name for path in (box.rootfs / "data").iterdir()] == ["file"]
    assert (box.rootfs / "data/file").stat().st_uid == subordinate(box.user, 33)


@pytest.mark.spec("mounts.options.tmpcopyup")
def test_tmpcopyup_shows_the_files_of_the_image(every):
    config = config_with_maps(every.user)
    add_mount(config, "/etc", "tmpfs", "tmpfs", "tmpcopyup")
    lines = every.lines(config, "cut -d : -f 1 /etc/group; rm /etc/group; stat -f -c %T /etc")
    assert lines == ["root", "www-data", "user", "tmpfs"]
    assert (every.rootfs / "etc/group").exists()
