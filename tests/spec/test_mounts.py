"""config.md "Mounts": types, sources and destinations, each set and observed from inside."""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.boxes import (
    MOUNTINFO,
    add_mount,
    as_real_root,
    config_with_maps,
    make_volume,
    mount_table,
)
from tests.lib.bundles import base_config, own

# --- Types ------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("mounts.type", "default file systems")
def test_every_kind_of_file_system(either):
    config = config_with_maps(either.user)
    add_mount(config, "/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k")
    add_mount(config, "/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    add_mount(config, "/data/ramfs", "ramfs", "ramfs", "mode=0700")
    volume = make_volume(either.user, file="text")
    add_mount(config, "/data/none", "none", volume, "rbind")
    add_mount(config, "/data/bind", "bind", volume, "bind")
    lines = either.lines(
        config,
        "touch /dev/mqueue/queue && cat /dev/mqueue/queue | cut -d ' ' -f 1",
        "cat /data/none/file /data/bind/file; echo; stat -c %a /dev/shm /data/ramfs",
        "echo /proc/[0-9]*; ls /sys/class/net; ls /dev/pts",
        MOUNTINFO,
    )
    count = lines.index("texttext")
    assert lines[0].startswith("QSIZE:0")
    assert lines[count : count + 3] == ["texttext", "1777", "700"]
    # no process of the host, no interface but the loopback, no terminal but the multiplexer
    assert lines[count + 3 : count + 6] == ["/proc/1", "lo", "ptmx"]
    table = mount_table(lines[count + 6 :])
    kinds = {point: table[point][2:4] for point in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")}
    assert kinds == {
        "/proc": ("proc", "proc"),
        "/sys": ("sysfs", "sysfs"),
        "/dev": ("tmpfs", "tmpfs"),
        "/dev/pts": ("devpts", "devpts"),
        "/dev/shm": ("tmpfs", "shm"),
        "/dev/mqueue": ("mqueue", "mqueue"),
    }
    assert table["/data/ramfs"][2] == "ramfs"


@pytest.mark.parametrize("count", [1, 40])
def test_overlay(either, count):
    """Forty layers make an option that is too long for fsconfig(2)."""
    lower = [make_volume(either.user, f"lower{number}", **{f"file{number}": "x"}) for number in range(count)]
    upper, work = make_volume(either.user, "upper"), make_volume(either.user, "work")
    config = config_with_maps(either.user)
    options = [f"lowerdir={':'.join(map(str, lower))}", f"upperdir={upper}", f"workdir={work}", "userxattr"]
    add_mount(config, "/data", "overlay", "overlay", *options, "nodev")
    lines = either.lines(config, "ls /data | wc -l; rm /data/file0; echo new > /data/file; ls /data | wc -l", MOUNTINFO)
    assert lines[:2] == [str(count), str(count)]
    assert mount_table(lines[2:])["/data"][0] == {"rw", "relatime", "nodev"}
    assert (upper / "file").read_text() == "new\n"
    assert (lower[0] / "file0").exists()


def test_overlay_as_the_root_of_layers(box):
    """An overlay of an engine: a mount later covers the directory of the bundle's root file system."""
    lower = make_volume(box.user, "lower", file="text")
    config = base_config()
    add_mount(config, "/data", "overlay", "overlay", f"lowerdir={lower}:{box.rootfs}/etc", "userxattr")
    assert box.lines(config, "cat /data/file; echo; ls /data; touch /data/new 2>&1 || true") == [
        "text",
        "file",
        "group",
        "passwd",
        "touch: /data/new: Read-only file system",
    ]


def test_a_file_on_a_file(either):
    volume = make_volume(either.user, file="from the host\n")
    config = config_with_maps(either.user)
    add_mount(config, "/etc/passwd", "bind", volume / "file", "bind", "ro")
    add_mount(config, "/etc/new/resolv.conf", "bind", volume / "file", "rbind", "rprivate")
    script = ("cat /etc/passwd /etc/new/resolv.conf; echo more >> /etc/new/resolv.conf", "touch /etc/passwd || echo ro")
    assert either.lines(config, *script) == ["from the host", "from the host", "ro"]
    assert (volume / "file").read_text() == "from the host\nmore\n"


def test_a_socket_and_a_fifo_can_be_bound(either):
    volume = make_volume(either.user)
    os.mkfifo(volume / "fifo")
    own(either.user, volume)
    config = config_with_maps(either.user)
    add_mount(config, "/run/fifo", "bind", volume / "fifo", "bind")
    assert either.lines(config, "stat -c %F /run/fifo") == ["fifo"]


@pytest.mark.spec("mounts.source")
def test_a_source_relative_to_the_bundle(either):
    (either.path / "volume").mkdir()
    (either.path / "volume/file").write_text("text\n")
    config = config_with_maps(either.user)
    add_mount(config, "/data", "bind", "volume", "bind")
    assert either.lines(config, "cat /data/file") == ["text"]


@pytest.mark.spec("mounts")
def test_mounts_are_made_in_order(either):
    config = config_with_maps(either.user)
    for name in ("one", "two"):
        add_mount(config, "/data", "bind", make_volume(either.user, name, **{name: name}), "bind")
        add_mount(config, f"/data/{name}", "bind", either.user.tmp / name / name, "bind", "ro")
    table = either.lines(config, "ls /data; cut -d ' ' -f 5 /proc/self/mountinfo | grep /data")
    assert table == ["two", "/data", "/data/one", "/data", "/data/two"]


# --- Destinations -----------------------------------------------------------------------------------------------------


@pytest.mark.spec("mounts.destination")
@pytest.mark.parametrize(
    ("destination", "place"),
    [
        ("/data/new/deep", "/data/new/deep"),
        ("/data/with blank", "/data/with blank"),
        ("/data/with\\backslash", "/data/with\\backslash"),
        ("/data//twice/../up/.", "/data/up"),
        ("/absolute", "/data/target"),
        ("/relative/new", "/data/target/new"),
        ("/climbing", "/data/target"),
        ("/dangling/below", "/data/nowhere/below"),
    ],
)
def test_destinations(either, destination, place):
    """Missing directories are created; symlinks of the image resolve in the image."""
    (either.rootfs / "data/target").mkdir()
    (either.rootfs / "absolute").symlink_to("/data/target")
    (either.rootfs / "relative").symlink_to("data/target")
    (either.rootfs / "climbing").symlink_to("../../../../../../data/target")
    (either.rootfs / "dangling").symlink_to("/data/nowhere")
    own(either.user, either.rootfs)
    config = config_with_maps(either.user)
    add_mount(config, destination, "tmpfs", "marker", "size=1m")
    table = mount_table(either.lines(config, MOUNTINFO))
    assert [point for point, mount in table.items() if mount[3] == "marker"] == [place]


@pytest.mark.spec("mounts.destination")
def test_a_relative_destination(either):
    """Allowed since 1.2.0; it is relative to the root."""
    config = config_with_maps(either.user)
    add_mount(config, "data/relative", "tmpfs", "marker")
    table = mount_table(either.lines(config, MOUNTINFO))
    assert table["/data/relative"][3] == "marker"


def test_target_of_a_dangling_symlink_is_created_inside(either):
    """In many images /etc/resolv.conf is a dangling symlink."""
    (either.rootfs / "etc/resolv.conf").symlink_to("/run/stub/resolv.conf")
    volume = make_volume(either.user, file="nameserver\n")
    config = config_with_maps(either.user)
    add_mount(config, "/etc/resolv.conf", "bind", volume / "file", "bind")
    assert either.lines(config, "cat /etc/resolv.conf /run/stub/resolv.conf") == ["nameserver"] * 2
    assert not os.path.lexists("/run/stub")


# --- tmpfs ------------------------------------------------------------------------------------------------------------


def test_tmpfs_has_the_mode_of_the_covered_directory(either):
    for name, mode in (("plain", 0o755), ("private", 0o700), ("sticky", 0o1777)):
        (either.rootfs / "data" / name).mkdir()
        (either.rootfs / "data" / name).chmod(mode)
    own(either.user, either.rootfs)
    config = config_with_maps(either.user)
    for name in ("plain", "private", "sticky", "missing"):
        add_mount(config, f"/data/{name}", "tmpfs", "tmpfs")
    add_mount(config, "/data/given", "tmpfs", "tmpfs", "mode=0750")
    lines = either.lines(config, "cd /data; stat -c '%n %a' plain private sticky missing given")
    assert lines == ["plain 755", "private 700", "sticky 1777", "missing 1777", "given 750"]


@pytest.mark.spec("mounts.options")
def test_the_size_and_the_owner_of_a_tmpfs(either):
    config = config_with_maps(either.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", "size=64k", "uid=33", "gid=34", "mode=1770")
    lines = either.lines(config, "stat -c '%u:%g %a' /data; dd if=/dev/zero of=/data/f bs=1k count=65 2>&1 | head -1")
    assert lines == ["33:34 1770", "dd: error writing '/data/f': No space left on device"]


# --- What is refused --------------------------------------------------------------------------------------------------


def mount(destination="/data", kind="tmpfs", source="tmpfs", *options, **more):
    return {"destination": destination, "type": kind, "source": source, "options": list(options)} | more


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            mount("/"),
            "rootless: cannot mount on /: root.path is mounted there (config.json: mounts[4].destination); fix: ",
        ),
        (mount("../.."), "rootless: cannot mount on /: "),
        (mount("/data", "none", "/etc"), "it has neither a type nor the option bind (config.json: mounts[4]); fix: "),
        (
            mount("/data", "bind", "", "bind"),
            "cannot mount on /data: a bind mount needs a source (config.json: mounts[4]); fix: ",
        ),
        (
            mount("/data", "bind", "/nowhere", "bind"),
            "bind /nowhere on /data: open_tree: No such file or directory (config.json: mounts[4])",
        ),
        (
            mount("/data", "bind", "/nowhere", "rbind"),
            "bind /nowhere on /data: open_tree: No such file or directory (config.json: mounts[4])",
        ),
        (mount("/data", "nofs"), "mount nofs on /data: fsopen: No such device (config.json: mounts[4]); fix: "),
        (mount("/data", "ext4", "/dev/null"), "mount ext4 on /data: "),
        (
            mount("/data", "tmpfs", "tmpfs", "nonsense=1"),
            "mount tmpfs on /data: fsconfig: Invalid argument: tmpfs: Unknown parameter 'nonsense' (config",
        ),
        (
            mount("/data", "tmpfs", "tmpfs", "size=many"),
            "mount tmpfs on /data: fsconfig: Invalid argument: tmpfs: Bad value for 'size' (config.json: mounts[4])",
        ),
        (mount("/etc/passwd", "tmpfs"), "mount tmpfs on /etc/passwd: "),
        (
            mount("/etc", "bind", "/etc/passwd", "bind"),
            "bind /etc/passwd on /etc: move_mount: Not a directory (config.json: mounts[4]); fix: ",
        ),
        (
            mount("/nothing", "bind", "", "remount", "ro"),
            "change the mount on /nothing: openat2: No such file or directory (config.json: mounts[4])",
        ),
    ],
)
def test_impossible_mount_is_named_with_its_reason(box, asked, words):
    config = base_config()
    config["mounts"].append(asked)
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


# --- Symlinks ---------------------------------------------------------------------------------------------------------


def linked(box):
    """Return a directory of the host with a file and symlinks, and give the image a symlink as a target."""
    volume = make_volume(box.user, file="text\n")
    for name, text in (("link", "file"), ("dangling", "/nowhere")):
        (volume / name).symlink_to(text)
        os.lchown(volume / name, box.user.uid, box.user.gid)
    (box.rootfs / "data/target").symlink_to("/data/other")
    os.lchown(box.rootfs / "data/target", box.user.uid, box.user.gid)
    (box.rootfs / "data/other").write_text("other\n")
    os.chown(box.rootfs / "data/other", box.user.uid, box.user.gid)
    return volume


@pytest.mark.parametrize(("name", "said"), [("link", "file"), ("dangling", "/nowhere")])
def test_copy_symlink_creates_the_symlink_in_the_container(box, name, said):
    volume = linked(box)
    config = base_config()
    add_mount(config, "/data/new", "bind", volume / name, "rbind", "copy-symlink")
    assert box.lines(config, "readlink /data/new; grep -c ' /data/new ' /proc/self/mountinfo || true") == [said, "0"]
    assert box.lines(config, "readlink /data/new") == [said], "the target exists already"


def test_copy_symlink_of_another_file_is_a_bind_mount(box):
    volume = linked(box)
    config = base_config()
    add_mount(config, "/data/new", "bind", volume / "file", "rbind", "copy-symlink")
    assert box.lines(config, "cat /data/new") == ["text"]


def test_copy_symlink_replaces_nothing_of_the_image(box):
    volume = linked(box)
    config = base_config()
    add_mount(config, "/data/target", "bind", volume / "link", "rbind", "copy-symlink")
    done = box.run(config, "true")
    assert done.returncode == 1
    assert "symlink: File exists (config.json: mounts[" in done.stderr


def test_src_nofollow_binds_the_symlink_itself(box):
    volume = linked(box)
    config = base_config()
    add_mount(config, "/data/new", "bind", volume / "dangling", "bind", "src-nofollow")
    assert box.lines(config, "readlink /data/new") == ["/nowhere"]


def test_dest_nofollow_mounts_over_the_symlink_itself(box):
    volume = linked(box)
    config = base_config()
    add_mount(config, "/data/target", "bind", volume / "file", "bind", "dest-nofollow")
    assert box.lines(config, "cat /data/target /data/other") == ["text", "other"]
    config["mounts"][-1]["options"] = ["bind"]
    assert box.lines(config, "cat /data/target /data/other") == ["text", "text"], "otherwise it is followed"


def test_source_in_an_earlier_mount_works_in_a_user_namespace_of_root(box, require_root):
    """A path on the host below the rootfs leads to files of an earlier mount."""
    volume = make_volume(box.user, file="text\n")
    as_real_root(box)
    config = base_config("cat", "/data/file")
    config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    add_mount(config, "/first", "bind", volume, "rbind")
    add_mount(config, "/data", "bind", box.rootfs / "first", "rbind")
    assert box.lines(config) == ["text"]


@pytest.mark.spec("mounts.source", "mounts.type")
def test_a_bind_mount(either):
    """ "A mount is a bind mount if it has either bind or rbind in the options": the type is a dummy."""
    volume = make_volume(either.user, file="text\n")
    config = config_with_maps(either.user)
    mount = {"destination": "/data", "source": str(volume), "options": ["bind"]}
    config["mounts"].append(mount)
    config["mounts"].append(json.loads(json.dumps(mount | {"destination": "/tmp", "type": "none"})))
    assert either.lines(config, "cat /data/file /tmp/file") == ["text", "text"]
