"""config.md "Mounts": idmap, ridmap, uidMappings and gidMappings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import Box, as_real_root, config_with_maps, make_volume, subordinate
from tests.lib.bundles import base_config
from tests.lib.oracles import assert_refused, differs

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
TMPFS = pytest.mark.skipif(KERNEL < (6, 3), reason="this kernel has no ID-mapped tmpfs")
MAPPED = ("mounts.uidMappings", "mounts.gidMappings", "mounts.options.idmap", "mounts.options.ridmap")
REFUSED = "the kernel lets only root of the host map ids of the host's file systems"
OWNERS = "stat -c '%n %u %g'"


def lines(*triples):
    return [dict(zip(("containerID", "hostID", "size"), each, strict=True)) for each in triples]


def add_mapped(config, kind, source, options, *triples):
    """Append a mount on /data with the same map for uids and gids; without triples it has no maps."""
    mount = {"destination": "/data", "type": kind, "source": str(source), "options": list(options)}
    if triples:
        mount |= {"uidMappings": lines(*triples), "gidMappings": lines(*triples)}
    config["mounts"].append(mount)
    return config


# --- As an ordinary user ----------------------------------------------------------------------------------------------


@pytest.mark.spec("mounts.uidMappings", "mounts.gidMappings", "mounts.options.idmap")
@TMPFS
@pytest.mark.parametrize("userns", ["", "keep-id"])
def test_a_new_file_system(box, userns):
    """For the program, the file system's root has uid 5, and the program's user is the file system's 7."""
    config = base_config()
    fifth = 4 if userns else 5
    triples = [(7, box.user.uid, 1), (0, subordinate(box.user, 5), 1)]
    add_mapped(config, "tmpfs", "tmpfs", ["idmap", "mode=0777"], *triples)
    flags = ["--userns", userns] if userns else []
    mine = box.user.uid if userns else 0
    found = box.lines(config, f"touch /data/own; {OWNERS} /data /data/own", flags=flags)
    assert found == [f"/data {fifth} {fifth}", f"/data/own {mine} {mine}"]
    # a user who is not mapped cannot create files
    config["process"]["user"] = {"uid": 33, "gid": 33}
    done = box.run(config, "touch /data/other", flags=flags)
    assert (done.returncode, done.stderr) == (1, "touch: /data/other: Value too large for defined data type\n")


@TMPFS
def test_a_new_file_system_of_the_containers_own_ids(box):
    config = add_mapped(base_config(), "tmpfs", "tmpfs", ["idmap", "mode=0777"])
    log = box.user.tmp / "log"
    found = box.lines(config, f"touch /data/own; {OWNERS} /data/own", global_flags=["--log", log])
    assert found == ["/data/own 0 0"]
    assert 'where="mounts[4]"' in log.read_text()


@pytest.mark.spec(*MAPPED, refused=REFUSED)
@pytest.mark.parametrize("options", [["bind", "idmap"], ["rbind", "ridmap"]])
@pytest.mark.parametrize("own_maps", [False, True])
def test_the_hosts_files_are_not_mapped_for_an_ordinary_user(box, options, own_maps):
    config = add_mapped(base_config(), "none", make_volume(box.user), options, *([(0, 0, 1)] if own_maps else []))
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: cannot map the ids of the mount on /data: the kernel lets only root of the host map ids of the "
        "host's file systems (config.json: mounts[4]); fix: "
    )


def nested(box, script):
    """Run the box's command in a new user namespace of the caller, after a shell script."""
    words = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]
    box.command = [*words, "sh", "-euc", f'{script}; exec "$@"', "sh", *box.command]
    return box


@TMPFS
def test_caller_in_a_user_namespace_maps_its_own_mounts(box):
    """As under `podman unshare`: the caller is root of the user namespace that owns this tmpfs."""
    volume = make_volume(box.user)
    nested(box, f"mount -t tmpfs -o mode=0755 tmpfs {volume}; touch {volume}/file; chown 5:6 {volume}/file")
    config = add_mapped(base_config(), "none", volume, ["bind", "idmap"], (5, 1005, 2))
    assert box.lines(config, f"{OWNERS} /data/file") == ["/data/file 1005 1006"]


def test_mounts_of_the_host_are_not_mapped(box):
    nested(box, "true")
    config = add_mapped(base_config(), "none", make_volume(box.user), ["bind", "idmap"], (5, 1005, 2))
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "mount_setattr(MOUNT_ATTR_IDMAP): Operation not permitted (config.json: mounts[4]); fix: let root of" in (
        done.stderr
    )


# --- As root ----------------------------------------------------------------------------------------------------------

BASE = 300_000


@pytest.fixture
def root_box(user, rootless_command, require_root):
    """A box that real root runs."""
    box = as_real_root(Box(user, [rootless_command]))
    yield box
    box.close()


@pytest.fixture
def volume(user):
    """A directory with a mount below it, and files of several owners in both."""
    top = make_volume(user, file="", other="")
    if os.statvfs(top).f_fsid == 0:
        pytest.skip("not on a file system of the host's own")
    os.chown(top, 0, 0)
    os.chown(top / "file", 5, 6)
    below = top / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], check=True)
    (below / "file").touch()
    os.chown(below / "file", 5, 6)
    yield top
    subprocess.run(["umount", below], check=True)


def in_user_namespace(box, **mappings):
    config = base_config()
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": lines((0, BASE, 65536)), "gidMappings": lines((0, BASE, 65536))} | mappings
    subprocess.run(["chown", "-R", f"{BASE}:{BASE}", box.rootfs], check=True)
    return config


def owners(box, config, *names):
    found = box.lines(config, f"cd /data; {OWNERS} {' '.join(names)}")
    return {name: (int(uid), int(gid)) for name, uid, gid in (line.split() for line in found)}


def test_a_volume_without_a_user_namespace(root_box, volume):
    config = add_mapped(base_config(), "none", volume, ["bind", "idmap"], (0, 0, 1), (5, 1005, 2))
    os.chown(volume / "other", 9, 9)
    assert owners(root_box, config, "file", "other") == {"file": (1005, 1006), "other": (65534, 65534)}
    # and back: a file that 1006 creates belongs to 6
    config["process"]["user"] = {"uid": 1006, "gid": 1005}
    volume.chmod(0o777)
    root_box.lines(config, "touch /data/new")
    made = (volume / "new").stat()
    assert (made.st_uid, made.st_gid) == (6, 5)


def test_a_volume_with_the_maps_of_the_container(root_box, volume):
    config = add_mapped(in_user_namespace(root_box), "none", volume, ["bind", "idmap"])
    assert owners(root_box, config, "file", ".") == {"file": (5, 6), ".": (0, 0)}
    root_box.lines(config, "touch /data/new")
    assert (volume / "new").stat().st_uid == 0


def test_a_volume_with_maps_of_its_own(root_box, volume):
    config = add_mapped(in_user_namespace(root_box), "none", volume, ["bind", "idmap"], (5, BASE + 1005, 2))
    assert owners(root_box, config, "file", "other") == {"file": (1005, 1006), "other": (65534, 65534)}


def test_a_volume_of_a_container_that_joins_a_user_namespace(root_box, volume):
    holder = subprocess.Popen(["unshare", "--user", "sleep", "60"])
    try:
        # unshare(1) has created the namespace when it differs
        while os.readlink(f"/proc/{holder.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
            assert holder.poll() is None
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{holder.pid}/{name}", "w") as file:
                file.write(f"0 {BASE} 65536\n")
        config = in_user_namespace(root_box, uidMappings=[], gidMappings=[])
        config["linux"]["namespaces"][-1]["path"] = f"/proc/{holder.pid}/ns/user"
        assert owners(root_box, add_mapped(config, "none", volume, ["bind", "idmap"]), "file") == {"file": (5, 6)}
    finally:
        holder.kill()
        holder.wait()


@TMPFS
@pytest.mark.parametrize(("option", "below"), [("idmap", (5, 6)), ("ridmap", (1005, 1006))])
def test_mounts_below_a_mapped_mount(root_box, volume, option, below):
    config = add_mapped(base_config(), "none", volume, ["rbind", option], (5, 1005, 2))
    assert owners(root_box, config, "file", "below/file") == {"file": (1005, 1006), "below/file": below}


def test_other_options_count_too(root_box, volume):
    config = in_user_namespace(root_box)
    add_mapped(config, "none", volume, ["rbind", "idmap", "ro", "rnosuid", "rslave"], (0, BASE, 9))
    done = root_box.run(config, "cat /proc/self/mountinfo; touch /data/x")
    options = {line.split()[4]: line.split()[5].split(",") for line in done.stdout.splitlines()}
    assert {"ro", "nosuid"} <= set(options["/data"])
    assert "nosuid" in options["/data/below"]
    assert "ro" not in options["/data/below"]
    assert "Read-only file system" in done.stderr


def test_inside_mounts_stay_inside(root_box, volume, user):
    """The copy is made in the host's mount namespace, from a mount that may be shared."""
    subprocess.run(["mount", "--make-shared", volume / "below"], check=True)
    config = add_mapped(base_config(), "none", volume / "below", ["bind", "idmap"], (0, 0, 9))
    config["process"]["capabilities"] = {name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    root_box.lines(config, "mkdir /data/in; mount -t tmpfs inside /data/in; grep -c ' /data/in ' /proc/self/mountinfo")
    assert "/below/in " not in Path("/proc/self/mountinfo").read_text()


@TMPFS
def test_new_file_system_of_root(root_box):
    config = add_mapped(base_config(), "tmpfs", "tmpfs", ["idmap", "mode=0777"], (7, 0, 1), (0, 1, 1))
    assert root_box.lines(config, f"touch /data/own; {OWNERS} /data/own") == ["/data/own 0 0"]


def test_no_maps_at_all(root_box, volume):
    done = root_box.run(add_mapped(base_config(), "none", volume, ["bind", "idmap"]), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the container has no user namespace to take them from (config.json: mounts[4]); fix: " in done.stderr


def test_a_file_system_that_the_kernel_does_not_map(root_box):
    done = root_box.run(add_mapped(base_config(), "none", "/proc/sys", ["bind", "idmap"], (0, 0, 1)), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "mount_setattr(MOUNT_ATTR_IDMAP): Invalid argument (config.json: mounts[4]); fix: use a file system" in (
        done.stderr
    )


def test_invalid_maps_are_refused(root_box, volume):
    config = add_mapped(base_config(), "none", volume, ["bind", "idmap"], (0, 2**32 - 4, 2))
    config["mounts"][-1]["gidMappings"] = lines((0, 0, 1))
    assert root_box.run(config, "true").returncode == 0
    done = nested_root(root_box).run(config, "true")
    assert "prepare the ID map of a mount: uid_map: Operation not permitted (config.json: mounts[4]); fix: " in (
        done.stderr
    )


def nested_root(box):
    box.command = ["unshare", "--user", "--map-users=0,0,9", "--map-groups=0,0,9", *box.command]
    return box


HOSTS_IDS = "the kernel lets only root of the host map ids of the host's file systems"


OWN_MAPPINGS = '"the runtime MUST use those values for the mount\'s mapping"'


@differs("runc", f"{OWN_MAPPINGS}: it knows none")
@differs("crun", f"{OWN_MAPPINGS}: for an ordinary user it fails to write the map")
@pytest.mark.spec("mounts.uidMappings", "mounts.gidMappings", "mounts.options.idmap")
def test_a_mount_with_mappings(either):
    config = config_with_maps(either.user)
    maps = [
        {"containerID": 0, "hostID": subordinate(either.user, 5), "size": 1},
        {"containerID": 7, "hostID": either.user.uid, "size": 1},
    ]
    mount = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["idmap", "mode=0777"]}
    config["mounts"].append(mount | {"uidMappings": maps, "gidMappings": maps})
    assert either.lines(config, "stat -c '%u %g' /data") == ["5 5"]


@differs("runc", f"{OWN_MAPPINGS}: it knows none")
@differs("crun", f"{OWN_MAPPINGS}: for an ordinary user it fails to write the map")
@pytest.mark.spec("mounts.options.ridmap", refused=HOSTS_IDS)
def test_a_tree_of_the_host_with_mappings(either):
    config = config_with_maps(either.user)
    maps = [{"containerID": 0, "hostID": either.user.uid, "size": 1}]
    mount = {"destination": "/data", "source": str(make_volume(either.user)), "options": ["rbind", "ridmap"]}
    config["mounts"].append(mount | {"uidMappings": maps, "gidMappings": maps})
    assert_refused(either, config, "map the ids", "idmap")
