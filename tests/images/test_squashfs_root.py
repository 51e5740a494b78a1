"""Bundles whose root.path is a squashfs: the container's files, its changes, and the end of the server."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from rootless.plan.rootfs.image import FILE
from tests.lib.bundles import write_config
from tests.lib.containers import Reader, until
from tests.lib.squashfs import CAPABLE, entry, image_config, make_image_bundle, servers, spy


@pytest.fixture
def image(user):
    """A bundle whose root is an image with owners, modes and attributes that a user's files do not have."""
    return make_image_bundle(
        user,
        None,
        entry("data/of-user", uid=1000),
        entry("data/of-nobody", uid=65534),
        entry("data/setuid", mode=0o4755, uid=33),
        entry("data/sticky", tarfile.DIRTYPE, mode=0o3775, gid=50),
        entry("data/capable", mode=0o755, pax_headers=CAPABLE),
        entry("data/attribute", pax_headers={"SCHILY.xattr.user.colour": "blue"}),
        entry("data/link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("data/again", tarfile.LNKTYPE, "data/of-user"),
        entry("data/pipe", tarfile.FIFOTYPE, mode=0o600),
        entry("data/device", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=5),
    )


@pytest.fixture
def run(user, rootless_command):
    """Run a script in an image bundle; return its output."""

    def run_script(bundle, *script, flags=(), who=user, change=None):
        config = image_config("sh", "-c", "\n".join(script))
        if change:
            change(config)
        write_config(bundle, config)
        done = who.run([rootless_command, "run", *flags, "--network", "none", bundle], timeout=30)
        assert done.returncode == 0, done
        assert who is not user or not done.stderr
        return done.stdout

    return run_script


LIST = 'cd /data; stat -c "%n %f %u %g %h %t:%T" *'
SEEN = {
    "of-user": "81a4 1000 1000 2 0:0",
    "again": "81a4 1000 1000 2 0:0",
    "of-nobody": "81a4 65534 65534 1 0:0",
    "setuid": "89ed 33 33 1 0:0",
    "sticky": "47fd 0 50 2 0:0",
    "capable": "81ed 0 0 1 0:0",
    "attribute": "81a4 0 0 1 0:0",
    "link": "a1ff 0 0 1 0:0",
    "pipe": "1180 0 0 1 0:0",
    "device": "21b6 0 0 1 1:5",
}


def seen(output):
    return dict(line.split(" ", 1) for line in output.splitlines())


@pytest.mark.parametrize("userns", ["root", "keep-id"])
def test_ids_of_the_image_are_kept_in_the_container(image, run, userns):
    assert seen(run(image, LIST, flags=("--userns", userns))) == SEEN


def test_all_files_belong_to_a_single_id(image, run, single_user):
    owners = {" ".join(line.split()[2:4]) for line in run(image, LIST, who=single_user).splitlines()}
    assert owners == {"0 0"}
    kept = f"{single_user.uid} {single_user.gid}"
    change = ("cd /data", "echo x > of-nobody", "chown 0:0 of-user", "rm setuid", "mv of-user sticky/", "cat of-nobody")
    assert run(image, *change, who=single_user) == "x\n"
    output = run(image, "touch /x", LIST, who=single_user, flags=("--userns", "keep-id"), change=as_user(single_user))
    assert {" ".join(line.split()[2:4]) for line in output.splitlines()} == {kept}


def as_user(user):
    def change(config):
        config["process"]["user"] = {"uid": user.uid, "gid": user.gid}

    return change


def test_changes_end_with_the_container(image, run):
    before = (image / "root.sqsh").read_bytes()
    change = ("touch /new", "rm -r /etc", "mkdir /etc", "echo x > /data/of-user", "chown 5:6 /data", "ls /etc | wc -l")
    assert run(image, *change) == "0\n"
    assert run(image, "ls /new 2>&1 | wc -l; cat /etc/group | head -1; stat -c %u /data") == "1\nroot:x:0:\n0\n"
    assert (image / "root.sqsh").read_bytes() == before
    assert {path.name for path in image.iterdir()} == {"root.sqsh", "config.json"}


def test_missing_mount_points_are_added_to_a_read_only_root(image, run):
    def change(config):
        config["root"]["readonly"] = True
        config["mounts"].append({"destination": "/a/b", "type": "tmpfs", "source": "tmpfs"})

    script = ("touch /a/b/x && echo mounted", "touch /y 2>/dev/null || echo refused")
    assert run(image, *script, change=change) == "mounted\nrefused\n"


def test_nothing_of_the_host_is_mounted_in_the_container(image, run):
    lines = run(image, "cat /proc/self/mountinfo").splitlines()
    roots = [line.split() for line in lines if line.split()[4] == "/"]
    assert [(fields[3], fields[fields.index("-") + 1]) for fields in roots] == [("/", "overlay")]
    points = {line.split()[4] for line in lines}
    assert not [point for point in points if not point.startswith(("/proc", "/dev", "/sys")) and point != "/"]


def test_privileges_of_files_work_as_in_an_unpacked_image(user, rootless_command):
    """Set-user-ID programs and file capabilities are effective inside."""
    program = Path("/usr/bin/busybox").read_bytes()
    bundle = make_image_bundle(
        user,
        None,
        entry("data/busybox", data=program, mode=0o4755),
        entry("data/capable", tarfile.DIRTYPE, mode=0o755),
        entry("data/capable/busybox", data=program, mode=0o755, pax_headers=CAPABLE),
    )
    script = "/data/busybox grep ^Uid /proc/self/status; /data/capable/busybox grep ^CapEff /proc/self/status"
    config = image_config("sh", "-c", script)
    config["process"]["noNewPrivileges"] = False
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    for kind in ("bounding", "permitted", "effective", "inheritable"):
        config["process"]["capabilities"][kind] = ["CAP_NET_BIND_SERVICE"] if kind == "bounding" else []
    write_config(bundle, config)
    done = user.run([rootless_command, "run", "--network", "none", bundle])
    # busybox drops the effective ID and keeps the saved one
    assert done.stdout.split() == ["Uid:", "1000", "1000", "0", "1000", "CapEff:", f"{1 << 10:016x}"], done


def test_device_nodes_of_the_image_cannot_be_opened(image, run):
    assert "denied" in run(image, "cat /data/device 2>&1; true")


def started(rootless, bundle, name="c1", *flags):
    """Start a detached container of an image; return the PID of its server."""
    before = servers()
    write_config(bundle, image_config("sleep", "1000"))
    done = rootless("run", "-d", *flags, "--bundle", bundle, name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
    (server,) = servers() - before
    return server


def ended(server):
    until(lambda: server not in servers(), "the end of the server")


def test_the_server_ends_with_the_container(image, rootless):
    server = started(rootless, image)
    rootless("kill", "c1", "KILL", check=True)
    ended(server)
    rootless("delete", "c1", check=True)


def test_delete_force_ends_the_server(image, rootless):
    server = started(rootless, image)
    rootless("delete", "--force", "c1", check=True)
    assert server not in servers()


def test_exec_sees_the_files_of_the_image(image, rootless):
    started(rootless, image)
    assert rootless("exec", "c1", "cat", "/etc/hostname", check=False).returncode == 1
    assert rootless("exec", "c1", "head", "-1", "/etc/group", check=True).stdout == "root:x:0:\n"


def test_a_container_whose_server_was_killed_can_be_deleted(image, rootless):
    server = started(rootless, image)
    os.kill(server, signal.SIGKILL)
    ended(server)
    done = rootless("exec", "c1", "cat", "/data/of-nobody")
    assert done.returncode != 0
    rootless("delete", "--force", "c1", check=True)
    assert not rootless("list", "-q", check=True).stdout


def test_the_server_is_confined(image, rootless, user):
    server = started(rootless, image)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {f"{0:016x}"}
    assert status["NSpid"].split()[1:] == ["1"]
    assert set(status["Uid"].split()) == {str(user.uid)}
    assert status["Seccomp"] == "2"
    for kind in ("user", "mnt", "net", "pid", "ipc"):
        assert os.readlink(f"/proc/{server}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert os.getsid(server) != os.getsid(0)
    limits = Path(f"/proc/{server}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    held = {os.readlink(f"/proc/{server}/fd/{name}") for name in os.listdir(f"/proc/{server}/fd")}
    held = {target for target in held if not target.startswith(("pipe:", "/memfd:rootless-image-log"))}
    assert {target.removeprefix("/dev") for target in held} == {"/null", "/fuse", str(image / "root.sqsh")}


def test_a_server_that_is_taken_over_reaches_nothing_of_the_caller(image, user, rootless_command):
    """What it would do if an image could make it, done by a program in its place."""
    with spy(user, image=FILE, status=1, to_stderr=True) as program:
        words = [rootless_command, "explain", "--json", "--network", "none", "--bundle", image]
        plan = user.run(words, check=True).stdout
        assert plan.count('"/usr/bin/squashfuse_ll"') == 1
        file = user.tmp / "plan.json"
        file.write_text(plan.replace('"/usr/bin/squashfuse_ll"', f'"{program}"'))
        done = user.run([rootless_command, "run", "--plan", file, "c1"])
    assert done.returncode == 1
    assert f"cannot mount {image}/root.sqsh: read {program}; hsqs (config.json: root.path)" in done.stderr, done.stderr


def test_ctrl_c_does_not_end_the_server(image, user, rootless_command):
    before = servers()
    write_config(
        image,
        image_config("sh", "-c", "trap 'cat /data/of-user && echo alive; exit 0' INT; echo up; sleep 1000 & wait"),
    )
    words = [rootless_command, "run", "--network", "none", image]
    with user.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        reader = Reader(running.stdout)
        assert reader.line() == "up"
        os.killpg(running.pid, signal.SIGINT)
        assert reader.line() == "alive"
        assert running.wait() == 0, running.stderr.read()
    until(lambda: servers() <= before, "the end of the server")


def test_flags_of_run_resolve_user_names_in_the_image(image, user, rootless_command):
    write_config(image, image_config("true"))
    words = ["--network", "none", "-u", "www-data", "-e", "A=b", "-v", f"{user.tmp}:/mnt", "-w", "/tmp"]
    script = "id -u; id -g; echo $A; pwd; ls /mnt | grep -c bundle"
    done = user.run([rootless_command, "run", *words, image, "sh", "-c", script])
    assert (done.stdout.split(), done.stderr) == (["33", "33", "b", "/tmp", "2"], ""), done


def test_parallel_containers_share_one_squashfs(image, user, rootless_command):
    write_config(image, image_config("sh", "-c", "cat /data/of-user; echo $((6*7)); touch /x"))
    before = (image / "root.sqsh").stat().st_mtime_ns
    words = ["--network", "none", "--bundle", str(image)]
    script = "".join(f"{rootless_command} run {' '.join(words)} c{number} &\n" for number in range(64)) + "wait"
    done = user.run(["sh", "-c", script])
    assert (done.stdout, done.stderr) == ("42\n" * 64, "")
    assert (image / "root.sqsh").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"no image" * 100), "it holds no squashfs file system"),
        (lambda path: path.write_bytes(b""), "it holds no squashfs file system"),
        (lambda path: path.write_bytes(b"hsqs" + bytes(200)), "only version 4.0 supported"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096]), ""),
        (lambda path: path.chmod(0), "permission denied"),
    ],
    ids=["text", "empty", "magic only", "truncated", "unreadable"],
)
def test_an_invalid_image_is_refused_in_one_line(image, user, rootless_command, damage, words):
    damage(image / "root.sqsh")
    before = servers()
    done = user.run([rootless_command, "run", "--network", "none", image])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "(config.json: root.path); fix: " in done.stderr
    assert words in done.stderr, done.stderr
    assert not user.run([rootless_command, "list", "-q"]).stdout
    until(lambda: servers() <= before, "the end of the server")


def test_a_fifo_is_refused_without_waiting(image, user, rootless_command):
    (image / "root.sqsh").unlink()
    os.mkfifo(image / "root.sqsh")
    done = user.run([rootless_command, "run", image], timeout=10)
    assert (done.returncode, "neither a directory nor an image" in done.stderr) == (1, True), done


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_image_harms_only_its_container(image, user, rootless_command, seed):
    path = image / "root.sqsh"
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(40 if seed % 2 else 4):
        # half of them in the tables at the end
        place = chance.randrange(96, len(content)) if seed % 3 else len(content) - chance.randrange(1, 3000)
        content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    before = servers()
    write_config(image, image_config("sh", "-c", "find / -xdev -type f | xargs cat >/dev/null"))
    done = user.run([rootless_command, "run", "--network", "none", image], timeout=30)
    assert "Traceback" not in done.stderr
    assert not user.run([rootless_command, "list", "-q"]).stdout
    until(lambda: servers() <= before, "the end of the server")


def test_explain_shows_the_server_and_the_overlay(image, user, rootless_command):
    done = user.run([rootless_command, "explain", "--bundle", image], check=True)
    assert f"begin to serve the image {image}/root.sqsh  [root.path]" in done.stdout
    assert "served by /usr/bin/squashfuse_ll -f -o notify_pipe=" in done.stdout
    assert "cover the root with an overlay: changes go to memory" in done.stdout
    assert stat.S_ISREG((image / "root.sqsh").stat().st_mode)
