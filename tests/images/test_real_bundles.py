"""Real bundles run by an ordinary user, compared with runc where runc can run them."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import own_mappings
from tests.lib.bundles import base_config, make_bundle, make_rootfs, own, write_config


@pytest.fixture
def debian(user, rootless_command, trixie):
    """A bundle of the Debian root file system, unpacked through the user's id map by `rootless new --from`."""
    bundle = user.tmp / "debian"
    with trixie.open("rb") as archive:
        user.run([rootless_command, "new", bundle, "--from", "-"], stdin=archive, check=True)
    return bundle


def for_runc(user, config: dict) -> dict:
    """Return the same configuration with the properties that runc requires from an ordinary user."""
    config = copy.deepcopy(config)
    linux = config["linux"]
    linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
    linux |= own_mappings(user)
    linux.pop("resources", None)
    if not any(namespace["type"] == "network" for namespace in linux["namespaces"]):
        # runc does not bind the host's /sys automatically where sysfs is refused
        bound = {
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        }
        config["mounts"] = [bound if mount["destination"] == "/sys" else mount for mount in config["mounts"]]
    return config


def set_command(bundle: Path, script: str) -> dict:
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["/bin/sh", "-c", script], "terminal": False}
    write_config(bundle, config)
    return config


def run_both(user, rootless_command, runc, bundle: Path) -> tuple[str, str]:
    """Return the output of the bundle under rootless, unchanged, and under runc, with the ID maps added.

    Neither gives it a network.
    """
    ours = user.run([rootless_command, "run", "--bundle", bundle, "ours"], check=True).stdout
    config = json.loads((bundle / "config.json").read_text())
    write_config(bundle, for_runc(user, config))
    theirs = user.run([runc, "run", "--bundle", bundle, "oracle"], check=True).stdout
    write_config(bundle, config)
    return ours, theirs


def test_debian_bundle_has_the_same_output_as_with_runc(user, rootless_command, need, debian):
    set_command(
        debian,
        "apt-get --version | head -n 1; id; cat /proc/self/uid_map; touch /tmp/x; chown 33:33 /tmp/x; "
        "stat -c '%u %g' /tmp/x; "
        "mount | awk '{print $3, $5}' | grep -E '^(/|/proc|/dev|/dev/pts) '; dpkg --print-architecture; "
        "ls -ln /etc/shadow; "
        "setpriv --reuid 33 --regid 33 --clear-groups id",
    )
    ours, theirs = run_both(user, rootless_command, need("runc"), debian)

    assert ours.splitlines()[0].startswith("apt ")
    assert "uid=0(root) gid=0(root)" in ours
    assert "33 33" in ours
    assert "uid=33(www-data)" in ours
    assert ours.splitlines() == theirs.splitlines()


def test_setuid_program_of_an_image_runs_as_its_owner(user, rootless_command, debian):
    config = set_command(
        debian, "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && setpriv --reuid 33 --clear-groups /tmp/id"
    )
    config["process"]["noNewPrivileges"] = False
    write_config(debian, config)

    printed = user.run([rootless_command, "run", debian], check=True).stdout

    assert "uid=33(www-data)" in printed
    assert "euid=0(root)" in printed


def test_owners_of_an_unpacked_archive_are_kept(user, rootless_command, debian):
    set_command(debian, "stat -c '%U:%G %a' /etc/shadow /usr/bin/su /var/mail")

    printed = user.run([rootless_command, "run", debian], check=True).stdout.split("\n")

    assert printed[0] == "root:shadow 640"
    assert printed[1] == "root:root 4755"
    assert printed[2].startswith("root:mail")
    gid_of_shadow = own_mappings(user)["gidMappings"][1]["hostID"] + 42 - 1
    assert (debian / "rootfs/etc/shadow").stat().st_gid == gid_of_shadow


def test_busybox_bundle_has_the_same_output_as_with_runc(user, rootless_command, need):
    script = (
        "id; cat /proc/self/uid_map /proc/self/gid_map; grep -E '^(Cap|NoNewPrivs|Seccomp:|Umask)' /proc/self/status; "
        "hostname; ls /dev | grep -v core; readlink /dev/fd /dev/stdin /dev/ptmx; ifconfig lo | grep -c UP; "
        "env | sort; pwd; "
        "awk '{print $5}' /proc/self/mountinfo | sort; ls /proc/self/fd | wc -l; cat /proc/kcore | wc -c; "
        "ls /sys/firmware"
    )
    config = base_config("sh", "-c", script)
    config["hostname"] = "box"
    bundle = make_bundle(user, config)

    ours, theirs = run_both(user, rootless_command, need("runc"), bundle)

    assert ours.splitlines() == theirs.splitlines()


def test_bundle_of_runc_spec_runs_unchanged(user, rootless_command, need):
    bundle = user.tmp / "spec"
    (bundle / "rootfs").mkdir(parents=True)
    make_rootfs(bundle / "rootfs2")
    (bundle / "rootfs").rmdir()
    (bundle / "rootfs2").rename(bundle / "rootfs")
    own(user, bundle)
    user.run([need("runc"), "spec", "--bundle", bundle], check=True)
    # the bundle requires a terminal: `script` provides it
    done = user.run(
        ["script", "-qec", f"{rootless_command} run {bundle}", "/dev/null"], input="echo 'in:' $((6*7)); exit 9\n"
    )

    assert "in: 42" in done.stdout
    assert done.returncode == 9


def test_bundle_of_runc_spec_rootless_runs_unchanged(user, rootless_command, need):
    bundle = make_bundle(user)
    (bundle / "config.json").unlink()
    user.run([need("runc"), "spec", "--rootless", "--bundle", bundle], check=True)

    done = user.run(
        ["script", "-qec", f"{rootless_command} run {bundle}", "/dev/null"], input="cat /proc/self/uid_map; exit 3\n"
    )

    assert f"0       {user.uid}          1" in done.stdout
    assert done.returncode == 3


def test_single_id_user_gets_a_container_and_the_fix(single_user, rootless_command):
    bundle = make_bundle(single_user, base_config("sh", "-c", "id -u; cat /proc/self/uid_map"))

    done = single_user.run([rootless_command, "run", bundle], check=True)

    assert done.stdout.split() == ["0", "0", str(single_user.uid), "1"]
    assert f"/etc/subuid has no range for {single_user.name}" in done.stderr
    assert "usermod --add-subuids" in done.stderr


def test_user_without_uidmap_gets_a_container_and_the_fix(user, rootless_command, require_root):
    bundle = make_bundle(user, base_config("sh", "-c", "id -u; cat /proc/self/uid_map"))
    hide = "for name in newuidmap newgidmap; do mount --bind /dev/null /usr/bin/$name; done"
    become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", f'{hide}; exec "$@"', "sh", *become, rootless_command, "run", bundle],
        env=user.env,
        cwd=user.tmp,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.split() == ["0", "0", str(user.uid), "1"]
    assert "newuidmap and newgidmap are not installed; fix: apt install uidmap" in done.stderr


def test_single_id_user_can_have_another_id_inside(single_user, rootless_command):
    config = base_config("id", "-u")
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle = make_bundle(single_user, config)

    assert single_user.run([rootless_command, "run", bundle], check=True).stdout == "1000\n"


@pytest.mark.parametrize(
    "surroundings",
    [
        ["unshare", "--user", "--map-root-user"],
        ["rootlesskit"],
        ["rootlesskit", "--net=slirp4netns", "--copy-up=/etc", "--disable-host-loopback"],
        ["podman", "unshare"],
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"],
    ],
    ids=["unshare", "rootlesskit", "rootlesskit-net", "podman-unshare", "unshare-pid"],
)
def test_no_user_namespace_is_added_inside_a_user_namespace(user, rootless_command, need, surroundings):
    need(surroundings[0])
    bundle = make_bundle(user, base_config("sh", "-c", "readlink /proc/self/ns/user; cat /proc/self/uid_map; exit 5"))

    look = 'readlink /proc/self/ns/user; cat /proc/self/uid_map; exec "$@"'
    done = user.run([*surroundings, "sh", "-c", look, "sh", rootless_command, "run", bundle])

    lines = done.stdout.splitlines()
    outside, inside = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert inside[0].startswith("user:[")
    assert inside == outside
    assert done.returncode == 5, done.stderr


def test_a_user_namespace_of_config_json_is_created_inside_another(user, rootless_command):
    config = base_config("cat", "/proc/self/uid_map")
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [{"containerID": 5, "hostID": 0, "size": 1}]
    config["process"]["user"] = {"uid": 5, "gid": 5}
    bundle = make_bundle(user, config)

    done = user.run(["unshare", "--user", "--map-root-user", rootless_command, "run", bundle], check=True)

    assert done.stdout.split() == ["5", "0", "1"]


PODMAN_SCRIPT = (
    "id; grep -E '^(Cap|NoNewPrivs|Seccomp:|Umask|Groups)' /proc/self/status; cat /proc/self/uid_map; ulimit -n; pwd; "
    "awk '{print $5, $6}' /proc/self/mountinfo | grep -v -e /etc/ -e /run/ -e cgroup | sort; "
    "env | grep -v -e HOSTNAME -e CONTAINER_ID | sort; "
    "touch /tmp/x && stat -c %u /tmp/x; cat /proc/kcore | wc -c; exit 4"
)


@pytest.fixture
def podman(user, need):
    """Run the user's podman with a runtime, on an image of busybox that is imported once per test."""
    command = [
        need("podman"),
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
        f"--root={user.tmp}/storage",
        f"--runroot={user.tmp}/podman",
        "--storage-driver=vfs",
    ]
    rootfs = make_rootfs(user.tmp / "image")
    own(user, rootfs)
    tar = subprocess.run(["tar", "-C", rootfs, "-c", "."], capture_output=True, check=True).stdout
    user.run([*command, "import", "-", "box"], input=tar, text=False, check=True)

    def run(runtime, *args):
        return user.run([*command, "--runtime", runtime, "run", "--rm", "--network=none", *args])

    yield run
    user.run(["podman", "unshare", "rm", "-rf", user.tmp / "storage", user.tmp / "podman"])


def test_podman_container_has_the_same_output_as_with_runc(podman, rootless_command, need):
    ours = podman(rootless_command, "box", "sh", "-c", PODMAN_SCRIPT)
    theirs = podman(need("runc"), "box", "sh", "-c", PODMAN_SCRIPT)

    assert ours.returncode == 4, ours.stderr
    assert "Seccomp:\t2" in ours.stdout
    assert ours.stdout.splitlines() == theirs.stdout.splitlines()


def test_podman_derives_its_exit_status_from_the_error(podman, rootless_command):
    missing = podman(rootless_command, "box", "/nope")
    refused = podman(rootless_command, "box", "/etc/passwd")

    assert missing.returncode == 127, missing.stderr
    assert refused.returncode == 126, refused.stderr
