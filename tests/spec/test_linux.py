"""config-linux.md from "Devices" to "Rootfs Mount Propagation", config.md "Annotations" and "Extensibility"."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.lib.boxes import (
    add_mount,
    as_real_root,
    config_with_maps,
    mount_table,
    set_namespaces,
)
from tests.lib.bundles import base_config, own

MOUNTINFO = "cat /proc/self/mountinfo"


# --- Devices ----------------------------------------------------------------------------------------------------------


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


def test_the_terminals_are_the_containers_own(either):
    config = config_with_maps(either.user)
    lines = either.lines(config, "ls /dev/pts; exec 3<>/dev/ptmx; ls /dev/pts", MOUNTINFO)
    assert lines[:3] == ["ptmx", "0", "ptmx"]
    assert mount_table(lines[3:])["/dev/pts"][2] == "devpts"


def test_devices_without_a_file_system_on_dev(either):
    """They are made in the image, which keeps the places they were bound on."""
    config = config_with_maps(either.user)
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    lines = either.lines(config, "stat -c '%n %t:%T' /dev/null /dev/urandom; echo x > /dev/null; readlink /dev/fd")
    assert lines == ["/dev/null 1:3", "/dev/urandom 1:9", "/proc/self/fd"]
    assert stat.S_ISREG((either.rootfs / "dev/null").stat().st_mode)


FIFO = '"lists devices that MUST be available in the container": the host\'s is bound, where there is none'


def device(path, major, minor, kind="c", **more):
    return {"path": path, "type": kind, "major": major, "minor": minor} | more


@pytest.mark.spec("linux.devices[].path", "linux.devices[].type c", "linux.devices[].type u")
def test_devices_are_bound_where_mknod_is_refused(either, require_root):
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
    # of the host: its mode, and an owner that is nobody here
    assert lines == ["fuse a:e5 666 65534", "net/tun a:c8 666 65534", "null 1:3 666 65534"]
    if not either.oracle:
        for index, path in enumerate(("/dev/fuse", "/dev/net/tun", "/dev/null")):
            note = f"{path} of the host is bound, with the host's owner and mode: mknod is refused in a user namespace"
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
    """systemd shares it; criu restores no mount whose peers are outside the container."""
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
def test_a_device_that_cannot_be_had(box, asked, words):
    config = base_config()
    config["linux"]["devices"] = [asked]
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: {words}")
    assert "(config.json: linux.devices[0]); fix: " in done.stderr


def test_a_dev_of_the_callers_is_left_alone(box):
    """runc 1.1.15 does the same, and then misses /dev/null."""
    directory = box.user.tmp / "dev"
    directory.mkdir()
    (directory / "mine").write_text("mine")
    own(box.user, directory)
    config = base_config()
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    add_mount(config, "/dev", "bind", directory, "bind")
    assert box.lines(config, "ls /dev") == ["mine"]


# --- Kernel parameters ------------------------------------------------------------------------------------------------

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.ping_group_range": "0 65536",
    "net.ipv4.conf.lo.rp_filter": "2",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.core.somaxconn": "1234",
    "kernel.msgmax": "7777",
    "kernel.sem": "100 20000 50 60",
    "kernel.shm_rmid_forced": "1",
    "kernel.shmmax": "123456789",
    "fs.mqueue.msg_max": "15",
}


@pytest.mark.spec("linux.sysctl")
def test_sysctl(either):
    config = config_with_maps(either.user)
    config["linux"]["sysctl"] = dict(SYSCTLS)
    paths = [f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS]
    lines = either.lines(config, f"cat {' '.join(paths)}; echo 0 2>&1 > {paths[0]} || true")
    assert [" ".join(line.split()) for line in lines[:-1]] == list(SYSCTLS.values())
    assert lines[-1] == f"sh: can't create {paths[0]}: Read-only file system"
    assert Path("/proc/sys/kernel/msgmax").read_text() != "7777\n"


def test_sysctl_with_slashes(either):
    config = config_with_maps(either.user)
    config["linux"]["sysctl"] = {"net/ipv4/ip_forward": "1", "kernel/msgmax": "6666"}
    lines = either.lines(config, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")
    assert lines == ["1", "6666"]


def test_sysctl_of_joined_namespaces(box):
    pid = box.create(base_config())
    config = base_config()
    paths = {"network": "net", "ipc": "ipc", "user": "user"}
    set_namespaces(config, "pid", "uts", "mount", **{kind: f"/proc/{pid}/ns/{file}" for kind, file in paths.items()})
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "6666"}
    lines = box.lines(config, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")
    assert lines == ["1", "6666"]


@pytest.mark.parametrize(
    ("name", "value", "missing", "words"),
    [
        ("kernel.panic", "77", "", "cannot set kernel.panic: it is one setting for the whole host"),
        ("vm.swappiness", "1", "", "cannot set vm.swappiness: it is one setting for the whole host"),
        ("kernel/core_pattern", "x", "", "cannot set kernel/core_pattern: it is one setting for the whole host"),
        (
            "net.ipv4.ip_forward",
            "1",
            "network",
            "cannot set net.ipv4.ip_forward: the container shares the host's network",
        ),
        ("kernel.msgmax", "1", "ipc", "cannot set kernel.msgmax: the container shares the host's ipc namespace"),
        (
            "fs.mqueue.msg_max",
            "1",
            "ipc",
            "cannot set fs.mqueue.msg_max: the container shares the host's ipc namespace",
        ),
        ("net/../kernel/panic", "1", "", "cannot set net/../kernel/panic: this is not the name of a setting"),
        ("net.ipv4.nonsense", "1", "", "write 1 to /proc/sys/net/ipv4/nonsense: open: No such file or directory"),
        ("net.ipv4.ip_forward", "many", "", "write many to /proc/sys/net/ipv4/ip_forward: write: Invalid argument"),
    ],
)
def test_a_sysctl_that_cannot_be_set(box, name, value, missing, words):
    config = base_config()
    set_namespaces(config, *(kind for kind in ("pid", "network", "ipc", "uts", "mount") if kind != missing))
    config["linux"]["sysctl"] = {name: value}
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: {words}")
    assert "(config.json: linux.sysctl" in done.stderr
    assert "; fix: " in done.stderr
    assert Path("/proc/sys/kernel/panic").read_text() != "77\n"


# --- Paths hidden and protected ---------------------------------------------------------------------------------------


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


def test_a_link_does_not_show_what_is_masked(box):
    """The link is followed, inside the container; runc 1.1.15 refuses it."""
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
    if not either.oracle:  # runc 1.1.15 leaves what is mounted below as it is
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
    """Nobody in the container can take away what covers them, nor mount a /proc that shows them."""
    prepare_paths(either)
    config = config_with_maps(either.user)
    config["linux"]["maskedPaths"] = ["/data/directory", "/proc/version"]
    # user_namespaces(7): who maps root to root must be able to set file capabilities
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


# --- Propagation of the root ------------------------------------------------------------------------------------------

ROOT_PROPAGATION = {
    "": [],
    "private": [],
    "rprivate": [],
    "slave": [],
    "rslave": [],
    "shared": ["shared"],
    "rshared": ["shared"],
    "unbindable": ["unbindable"],
    "runbindable": ["unbindable"],
}


@pytest.mark.parametrize("propagation", ROOT_PROPAGATION)
def test_rootfs_propagation(either, propagation):
    if either.oracle and ROOT_PROPAGATION[propagation]:
        pytest.skip("runc 1.1.15 leaves the root private, or fails")
    config = config_with_maps(either.user)
    config["linux"]["rootfsPropagation"] = propagation
    table = mount_table(either.lines(config, MOUNTINFO))
    assert [field.split(":")[0] for field in table["/"][1]] == ROOT_PROPAGATION[propagation]


def test_recursive_propagation_of_the_root_reaches_every_mount(box):
    config = base_config()
    config["linux"]["rootfsPropagation"] = "rshared"
    table = mount_table(box.lines(config, MOUNTINFO))
    assert {point: fields[0].split(":")[0] for point, (_, fields, *_) in table.items()} == dict.fromkeys(
        table, "shared"
    )


# --- Annotations, and what is not known -------------------------------------------------------------------------------


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


@pytest.mark.spec("ociVersion")
@pytest.mark.parametrize(
    "version", ["1.0.0", "1.0.0-rc5", "1.0.2", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0", "1.4.7"]
)
def test_every_version_of_the_first_specification(box, version):
    config = base_config()
    config["ociVersion"] = version
    assert box.lines(config, "echo ran") == ["ran"]


@pytest.mark.parametrize("version", ["2.0.0", "0.9.0", "1", "", "latest", None, 1])
def test_versions_that_are_not_known(box, version):
    config = base_config()
    config["ociVersion"] = version
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rootless: config.json is not valid: ")
    assert "(config.json: ociVersion); fix: " in done.stderr


# --- What is not there yet --------------------------------------------------------------------------------------------

RESOURCES = {
    "memory": {"limit": 2**30},
    "cpu": {"shares": 512},
    "pids": {"limit": 100},
    "blockIO": {"weight": 100},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
    "network": {"classID": 1},
    "rdma": {"mlx5_1": {"hcaHandles": 3}},
    "unified": {"memory.high": "1000000"},
}


def test_every_limit_that_is_not_enforced_is_named(box):
    config = base_config()
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}], **RESOURCES}
    done = box.run(config, "echo ran", check=True)
    assert done.stdout == "ran\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("rootless: warning: limits that are not enforced: ")
    assert "(config.json: linux.resources)" in line
    for section, asked in RESOURCES.items():
        for name in asked if isinstance(asked, dict) else ["[0]"]:
            assert f"{section}{name}" in line or f"{section}.{name}" in line


def test_a_cgroup_that_is_not_made_is_logged(box):
    config = base_config()
    config["linux"]["cgroupsPath"] = "user.slice:libpod:some"
    log = box.user.tmp / "log"
    assert box.lines(config, "echo ran", global_flags=["--log", log]) == ["ran"]
    assert 'where="linux.cgroupsPath"' in log.read_text()
