"""config-linux.md "Devices" and "Default Devices": each property set, and observed from inside."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.lib.boxes import MOUNTINFO, add_mount, as_real_root, config_with_maps, mount_table
from tests.lib.bundles import base_config, own
from tests.lib.oracles import assert_refused


@pytest.mark.spec("linux.devices[].path")
def test_device_on_an_existing_file_is_refused(either):
    """ "If a file already exists at path that does not match …, the runtime MUST generate an error"."""
    (either.rootfs / "data/null").write_text("a file")
    config = config_with_maps(either.user)
    config["linux"]["devices"] = [{"path": "/data/null", "type": "c", "major": 1, "minor": 3}]
    assert_refused(either, config, "/data/null", "device")


@pytest.fixture
def block_device(require_root):
    """A block device in the /dev of tests/run, which no process opens."""
    if " - tmpfs rootless-test-dev " not in Path("/proc/self/mountinfo").read_text():
        pytest.skip("needs a private /dev: start the tests with tests/run")
    path = Path("/dev/rootless-test-block")
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 0))
    yield path
    path.unlink()


@pytest.mark.spec("linux.devices[].type b")
def test_a_block_device(either, block_device):
    config = config_with_maps(either.user)
    config["linux"]["devices"] = [{"path": str(block_device), "type": "b", "major": 7, "minor": 0}]
    assert either.lines(config, f"stat -c '%F %t:%T' {block_device}") == ["block special file 7:0"]


@pytest.mark.spec("linux.devices: default devices")
def test_default_devices(either):
    lines = either.lines(
        config_with_maps(either.user),
        "cd /dev; stat -c '%n %F %t:%T' null zero full random urandom tty",
        "echo x > null; head -c 2 zero | od -An -tx1; echo x 2>&1 > full || true; head -c 5 urandom | wc -c",
        "for name in fd stdin stdout stderr ptmx; do readlink $name; done",
    )
    special = "character special file"
    assert lines[:6] == [
        f"null {special} 1:3",
        f"zero {special} 1:5",
        f"full {special} 1:7",
        f"random {special} 1:8",
        f"urandom {special} 1:9",
        f"tty {special} 5:0",
    ]
    assert [line.strip() for line in lines[6:9]] == ["00 00", "sh: write error: No space left on device", "5"]
    assert lines[9:] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]


def test_terminals_belong_to_the_container(either):
    config = config_with_maps(either.user)
    lines = either.lines(config, "ls /dev/pts; exec 3<>/dev/ptmx; ls /dev/pts", MOUNTINFO)
    assert lines[:3] == ["ptmx", "0", "ptmx"]
    assert mount_table(lines[3:])["/dev/pts"][2] == "devpts"


def test_devices_without_a_file_system_on_dev(either):
    """They are created in the image, which keeps the files on which they were bound."""
    config = config_with_maps(either.user)
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    lines = either.lines(config, "stat -c '%n %t:%T' /dev/null /dev/urandom; echo x > /dev/null; readlink /dev/fd")
    assert lines == ["/dev/null 1:3", "/dev/urandom 1:9", "/proc/self/fd"]
    assert stat.S_ISREG((either.rootfs / "dev/null").stat().st_mode)


FIFO = '"lists devices that MUST be available in the container": the host\'s is bound, where there is none'


def device(path, major, minor, kind="c", **more):
    return {"path": path, "type": kind, "major": major, "minor": minor} | more


@pytest.mark.spec("linux.devices[].path", "linux.devices[].type c", "linux.devices[].type u")
def test_devices_are_bound_if_mknod_is_not_permitted(either, require_root):
    if not Path("/dev/fuse").exists() or not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/fuse and /dev/net/tun")
    config = config_with_maps(either.user)
    config["linux"]["devices"] = [
        device("/dev/fuse", 10, 229, fileMode=0o600, uid=0, gid=0),
        device("/dev/net/tun", 10, 200, kind="u"),
        device("/dev/null", 1, 3),
    ]
    log = either.user.tmp / "log"
    lines = either.lines(config, "cd /dev; stat -c '%n %t:%T %a %u' fuse net/tun null", global_flags=["--log", log])
    # of the host: its mode, and an owner that is not mapped
    assert lines == ["fuse a:e5 666 65534", "net/tun a:c8 666 65534", "null 1:3 666 65534"]
    if not either.oracle:
        for index, path in enumerate(("/dev/fuse", "/dev/net/tun", "/dev/null")):
            note = f"the host's {path} is bind-mounted, with its owner and mode: a user namespace does not permit mknod"
            assert f'msg="{note}" where="linux.devices[{index}]"' in log.read_text()


def test_a_device_with_another_name_is_found_by_its_number(box):
    config = base_config()
    config["linux"]["devices"] = [device("/dev/deep/nothing", 1, 3)]
    assert box.lines(config, "stat -c %t:%T /dev/deep/nothing; echo x >/dev/deep/nothing") == ["1:3"]


@pytest.mark.parametrize("caller", ["user", "root"])
def test_every_device_of_the_host_leaves_the_terminals_to_the_container(box, caller, request):
    """podman and ctr list all of them for a privileged container."""
    if caller == "root":
        request.getfixturevalue("require_root")
        as_real_root(box)
    config = base_config()
    config["linux"]["devices"] = [
        device("/dev/ptmx", 5, 2),
        device("/dev/tty", 5, 0),
        device("/dev/null", 1, 3),
        device("/dev/stdout", 1, 3),
    ]
    lines = box.lines(config, "readlink /dev/ptmx; readlink /dev/stdout; stat -c %t:%T /dev/tty /dev/null; ls /dev/pts")
    assert lines[:4] == ["pts/ptmx", "/proc/self/fd/1", "5:0", "1:3"]
    script = "exec 3<>/dev/ptmx; ls /dev/pts"
    assert box.lines(config, script) == ["0", "ptmx"], "a terminal of the container's own devpts"


def test_masks_and_devices_have_no_peers_on_a_host_whose_root_is_shared(box):
    """systemd makes the root shared; criu cannot restore a mount with peers outside the container."""
    config = base_config("cat", "/proc/self/mountinfo")
    config["linux"]["maskedPaths"] = ["/proc/keys", "/proc/interrupts", "/sys/firmware"]
    share = 'mount --make-rshared / && exec "$@"'
    box.command[:0] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", share, "sh"]
    config["mounts"][2]["options"].remove("gid=5")
    table = mount_table(box.lines(config))
    assert "/proc/keys" in table
    assert "/dev/null" in table
    peers = {point: fields for point, (_, fields, *_) in table.items() if fields}
    assert peers == {}


@pytest.mark.differs("runc", FIFO)
@pytest.mark.differs("crun", FIFO)
@pytest.mark.spec("linux.devices[].type p", "linux.devices[].fileMode", "linux.devices[].uid", "linux.devices[].gid")
def test_a_fifo_is_made(either):
    config = config_with_maps(either.user)
    fifo = {"path": "/dev/deep/fifo", "type": "p", "fileMode": 0o640, "uid": 33, "gid": 34}
    config["linux"]["devices"] = [fifo]
    assert either.lines(config, "stat -c '%F %a %u:%g' /dev/deep/fifo") == ["fifo 640 33:34"]


def test_the_mode_of_a_fifo_does_not_depend_on_the_callers_umask(box):
    config = base_config()
    config["linux"]["devices"] = [{"path": "/dev/fifo", "type": "p"}]
    assert box.lines(config, "stat -c %a /dev/fifo", umask=0o077) == ["666"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            device("/dev/nowhere", 240, 77),
            "bind the host's device /dev/nowhere (240:77) on /dev/nowhere: open_tree: No such file",
        ),
        (device("/dev/null", 1, 5), "bind the host's device /dev/null (1:5) on /dev/null: open_tree: No such device"),
        (
            device("/dev/null", 1, 3, kind="b"),
            "bind the host's device /dev/null (1:3) on /dev/null: open_tree: No such device",
        ),
    ],
)
def test_impossible_device_is_refused(box, asked, words):
    config = base_config()
    config["linux"]["devices"] = [asked]
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: {words}")
    assert "(config.json: linux.devices[0]); fix: " in done.stderr


def test_bind_mounted_dev_is_unchanged(box):
    """runc 1.1.15 does the same, and then fails without /dev/null."""
    directory = box.user.tmp / "dev"
    directory.mkdir()
    (directory / "mine").write_text("mine")
    own(box.user, directory)
    config = base_config()
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    add_mount(config, "/dev", "bind", directory, "bind")
    assert box.lines(config, "ls /dev") == ["mine"]
