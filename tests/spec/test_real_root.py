"""Real root as the caller, such as dockerd or containerd: no user namespace is added, no fallback is needed.

The tests of propagation run in a new mount namespace, which represents the host.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import Box, add_mount, mount_table, set_namespaces, status_of
from tests.lib.bundles import base_config
from tests.lib.namespaces import FILES, LINKS, inside, maps, own

ADMIN = {name: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"] for name in ("bounding", "effective", "permitted")}

pytestmark = pytest.mark.usefixtures("require_root")


@pytest.fixture
def box(user, rootless_command):
    command = [rootless_command, "--root", user.tmp / "state"]
    as_root = {"user": 0, "group": 0, "env": {"HOME": str(user.tmp), "XDG_RUNTIME_DIR": ""}}
    box = Box(user, command, options=as_root)
    subprocess.run(["chown", "-R", "0:0", box.path], check=True)
    yield box
    box.close()


def on_a_host(box, before, after="true"):
    """Run `box` between two scripts in a new mount namespace, whose mounts propagate like a real host's."""
    script = f'mount --make-rshared /; {before}\n"$@"\nstatus=$?; {after}\nexit $status'
    box.command[:0] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def test_no_user_namespace_is_added(box):
    seen = box.lines(base_config(), LINKS, "cat /proc/self/uid_map")
    namespaces = inside(seen[:-1])
    assert {kind for kind in FILES if namespaces[kind] == own(kind)} == {"user", "cgroup", "time"}
    assert maps(seen[-1:]) == [(0, 0, 4294967295)]


def test_unrequested_namespaces_are_shared(box):
    config = base_config()
    set_namespaces(config, "mount")
    namespaces = inside(box.lines(config, LINKS))
    assert {kind for kind in FILES if namespaces[kind] != own(kind)} == {"mount"}


@pytest.fixture
def shared_bundle(box):
    """The bundle, on a shared mount of the host."""
    subprocess.run(["mount", "--bind", box.path, box.path], check=True)
    subprocess.run(["mount", "--make-shared", box.path], check=True)
    yield box.path
    subprocess.run(["umount", box.path], check=True)


def sharing_mounts(*script):
    """Return a config without a mount namespace."""
    config = base_config("sh", "-c", "\n".join(script))
    set_namespaces(config, "pid", "network", "ipc", "uts")
    return config


@pytest.mark.usefixtures("shared_bundle")
def test_without_a_mount_namespace_the_callers_is_inherited(box):
    """config-linux.md: "MUST inherit". All mounts of the container end with it, and nothing else changes."""
    before = Path("/proc/self/mountinfo").read_text()
    config = sharing_mounts()
    add_mount(config, "/data")
    config["root"]["readonly"] = True
    (box.rootfs / "data/covered").write_text("")
    lines = box.lines(config, "readlink /proc/self/ns/mnt", "ls -d /etc/passwd /data/*; touch /data/x; touch /x; pwd")
    assert lines == [os.readlink("/proc/self/ns/mnt"), "/etc/passwd", "/"]
    assert [path.name for path in (box.rootfs / "data").iterdir()] == ["covered"]
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.usefixtures("shared_bundle")
def test_mounts_in_an_inherited_namespace_are_the_containers_own_root(box):
    before = Path("/proc/self/mountinfo").read_text()
    box.create(sharing_mounts("sleep 600"), "sleep 600")
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert points.count(f"{box.rootfs}/proc") == 1, "they are visible, and not twice"
    words = [*box.command, "exec", "held", "cat", "/etc/passwd"]
    assert "www-data:x:33:33::/var/www" in box.user.run(words, check=True, **box.options).stdout
    box.user.run([*box.command, "delete", "--force", "held"], check=True, **box.options)
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_create_that_fails_leaves_no_mounts_in_an_inherited_namespace(box):
    before = Path("/proc/self/mountinfo").read_text()
    config = sharing_mounts()
    config["process"]["args"] = ["/nope"]
    assert box.run(config).returncode == 1
    assert Path("/proc/self/mountinfo").read_text() == before


def test_foreign_mount_over_the_root_stays(box):
    box.create(sharing_mounts("sleep 600"), "sleep 600")
    mount = ["mount", "-t", "tmpfs", "other", box.rootfs]
    subprocess.run(mount, check=True)
    try:
        box.user.run([*box.command, "delete", "--force", "held"], check=True, **box.options)
        assert f" {box.rootfs} " in subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
    finally:
        for _ in range(2):
            subprocess.run(["umount", "--lazy", box.rootfs], check=True)


def test_mount_of_a_renamed_bundle_stays(box):
    """The owner of the bundle's parent directory may rename the bundle while the container runs."""
    box.create(sharing_mounts("sleep 600"), "sleep 600")
    other = box.user.tmp / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "other", other], check=True)
    moved = box.path.rename(box.user.tmp / "moved")
    try:
        box.path.mkdir()
        box.rootfs.symlink_to(other)
        box.user.run([*box.command, "delete", "--force", "held"], check=True, **box.options)
        assert f" {other} " in subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run(["umount", "--lazy", moved / "rootfs"], check=True)
        subprocess.run(["umount", "--lazy", other], check=True)


def test_the_mounts_of_the_host_are_never_changed(box):
    before = Path("/proc/self/mountinfo").read_text()
    config = base_config()
    set_namespaces(config, "pid", "mount")
    assert box.lines(config, "echo ran") == ["ran"]
    assert Path("/proc/self/mountinfo").read_text() == before


def test_nothing_of_the_host_is_visible(box):
    table = mount_table(box.lines(base_config(), "cat /proc/self/mountinfo"))
    assert set(table) <= {"/", "/proc", "/dev", "/dev/pts", "/sys", "/proc/kcore", "/sys/firmware", "/proc/sys"}
    assert table["/sys"][2] == "sysfs"


def test_devices_are_made(box):
    config = base_config()
    config["linux"]["devices"] = [
        {"path": "/dev/mine/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 33, "gid": 34},
        {"path": "/dev/zero", "type": "u", "major": 1, "minor": 5, "fileMode": 0o444},
        {"path": "/dev/block", "type": "b", "major": 7, "minor": 100},
        {"path": "/dev/fifo", "type": "p", "fileMode": 0o622, "uid": 5},
    ]
    lines = box.lines(
        config,
        "cd /dev; stat -c '%n %F %t:%T %a %u:%g' mine/full zero block fifo null tty",
        "cat /proc/self/mountinfo",
        umask=0o077,
    )
    assert lines[:6] == [
        "mine/full character special file 1:7 640 33:34",
        "zero character special file 1:5 444 0:0",
        "block block special file 7:64 666 0:0",
        "fifo fifo 0:0 622 5:0",
        "null character special file 1:3 666 0:0",
        "tty character special file 5:0 666 0:0",
    ]
    assert not [point for point in mount_table(lines[6:]) if point.startswith("/dev/") and point != "/dev/pts"]


def test_groups_and_ids_are_the_hosts(box):
    config = base_config()
    config["process"]["user"] = {"uid": 123456, "gid": 234567, "additionalGids": [345678, 5]}
    lines = box.lines(config, "touch /tmp/file; cat /proc/self/status")
    assert status_of(lines, "Groups").split() == ["5", "345678"]
    made = (box.rootfs / "tmp/file").stat()
    assert (made.st_uid, made.st_gid) == (123456, 234567)


def test_a_capability_that_root_does_not_have_is_a_warning(box):
    config = base_config()
    wanted = ["CAP_KILL", "CAP_SYS_TIME"]
    config["process"]["capabilities"] = {"bounding": wanted, "permitted": wanted, "effective": wanted}
    box.command[:0] = ["setpriv", "--bounding-set", "-sys_time"]
    done = box.run(config, "cat /proc/self/status", check=True)
    assert status_of(done.stdout.splitlines(), "CapBnd", "CapEff") == (f"{1 << 5:016x}",) * 2
    for name in ("bounding", "permitted", "effective"):
        assert f"(config.json: process.capabilities.{name}[1])" in done.stderr


# --- User namespaces --------------------------------------------------------------------------------------------------

MAPS = [(0, 300000, 1000), (1000, 400000, 1), (5000, 500000, 10)]


def with_maps(uids, gids):
    config = base_config()
    config["linux"]["namespaces"].append({"type": "user"})
    for key, lines in (("uidMappings", uids), ("gidMappings", gids)):
        config["linux"][key] = [{"containerID": a, "hostID": b, "size": size} for a, b, size in lines]
    return config


def test_the_user_namespace_of_config_json(box):
    os.chown(box.rootfs / "tmp", 300000, 300000)
    config = with_maps(MAPS, MAPS[:1])
    config["process"]["user"] = {"uid": 1000, "gid": 7}
    lines = box.lines(config, "cat /proc/self/uid_map; touch /tmp/file /bin/file 2>&1; cat /proc/self/gid_map")
    assert maps(lines[:3]) == MAPS
    assert lines[3] == "touch: /bin/file: Permission denied"
    assert maps(lines[4:]) == MAPS[:1]
    made = (box.rootfs / "tmp/file").stat()
    assert (made.st_uid, made.st_gid) == (400000, 300007)


def test_devices_are_bound_in_the_user_namespace_of_config_json(box):
    config = with_maps(MAPS, MAPS)
    config["linux"]["devices"] = [{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600}]
    lines = box.lines(config, "stat -c '%t:%T %a %u' /dev/full; cat /proc/self/mountinfo")
    assert lines[0] == "1:7 666 65534"
    assert "/dev/full" in mount_table(lines[1:])


@pytest.mark.parametrize(
    ("mode", "wanted"), [("root", (0, 0, 4294967295)), ("keep-id", (0, 0, 4294967295)), ("single", (0, 0, 1))]
)
def test_userns_by_root(box, mode, wanted):
    lines = box.lines(
        base_config(), "readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u", flags=["--userns", mode]
    )
    assert lines[0] != own("user")
    assert maps(lines[1:2]) == [wanted]
    assert lines[2] == "0"


# --- Propagation ------------------------------------------------------------------------------------------------------

VOLUME = "mount -t tmpfs -o mode=755 volume /mnt; mkdir /mnt/sub"


@pytest.mark.parametrize(
    ("root", "option", "reaches"),
    [
        ("rshared", "rshared", True),
        ("shared", "shared", True),
        ("rshared", "rprivate", False),
        ("rshared", "rslave", False),
        ("", "rshared", False),
        ("rslave", "rshared", False),
        ("private", "rshared", False),
    ],
)
def test_mounts_made_inside_reach_the_host(box, root, option, reaches):
    """They do if both the root and the mount are shared."""
    config = base_config()
    config["process"]["capabilities"] = ADMIN
    config["linux"]["rootfsPropagation"] = root
    add_mount(config, "/data", "bind", "/mnt", "rbind", option)
    on_a_host(box, VOLUME, "ls /mnt/sub")
    lines = box.lines(config, "mount -t tmpfs inner /data/sub && touch /data/sub/file && ls /data/sub")
    assert lines == ["file", "file"] if reaches else lines == ["file"]


def mount_later(box, place):
    """Mount something on `place` on the host while the container, which prints ready, waits for done."""
    ready, done = box.rootfs / "tmp/ready", box.rootfs / "tmp/done"
    script = f"(while [ ! -e {ready} ]; do :; done; mount -t tmpfs later {place}; touch {place}/file; touch {done}) &"
    on_a_host(box, f"{VOLUME}; {script}", "wait")
    return "touch /tmp/ready; while [ ! -e /tmp/done ]; do :; done"


@pytest.mark.parametrize(
    ("root", "option", "arrives"),
    [
        ("rslave", "rslave", True),
        ("", "rslave", True),
        ("rshared", "rshared", True),
        ("", "rprivate", False),
        ("rslave", "rprivate", False),
        ("private", "rslave", False),
    ],
)
def test_mounts_made_on_the_host_arrive_inside(box, root, option, arrives):
    config = base_config()
    config["linux"]["rootfsPropagation"] = root
    add_mount(config, "/data", "bind", "/mnt", "rbind", option)
    assert box.lines(config, mount_later(box, "/mnt/sub"), "ls /data/sub") == (["file"] if arrives else [])


@pytest.mark.parametrize(
    ("root", "arrives"),
    [("slave", True), ("rslave", True), ("private", False), ("", False), ("shared", False), ("unbindable", False)],
)
def test_mounts_made_on_the_root_by_the_host(box, root, arrives):
    """ "slave: the rootfs mount receives propagation events from the host" (config-linux.md); other modes do not."""
    config = base_config()
    config["linux"]["rootfsPropagation"] = root
    assert box.lines(config, mount_later(box, box.rootfs / "data"), "ls /data") == (["file"] if arrives else [])


@pytest.mark.parametrize(("root", "arrives"), [("rslave", True), ("private", False)])
def test_mounts_of_the_host_arrive_in_a_user_namespace_too(box, root, arrives):
    user = box.user
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", box.path], check=True)
    box.command[-1] = user.tmp / "state-of-the-user"
    drop = [
        "setpriv",
        f"--reuid={user.uid}",
        f"--regid={user.gid}",
        "--clear-groups",
        "env",
        f"XDG_RUNTIME_DIR={user.runtime_dir}",
    ]
    box.command[:0] = drop
    config = base_config()
    config["linux"]["rootfsPropagation"] = root
    assert box.lines(config, mount_later(box, box.rootfs / "data"), "ls /data") == (["file"] if arrives else [])


def test_the_root_stays_shared_inside(box):
    """ "the rootfs mount belongs to a new peer group" """
    config = base_config()
    config["linux"]["rootfsPropagation"] = "shared"
    on_a_host(box, "true")
    table = mount_table(box.lines(config, "cat /proc/self/mountinfo"))
    assert [field.split(":")[0] for field in table["/"][1]] == ["shared"]
