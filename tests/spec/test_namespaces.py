"""config-linux.md "Namespaces": new, shared and joined ones, observed from inside."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import (
    add_mount,
    config_with_maps,
    mount_table,
    set_namespaces,
)
from tests.lib.bundles import base_config
from tests.lib.bundles import own as own_ids
from tests.lib.namespaces import FILES, LINKS, inside, maps, outside, own
from tests.lib.oracles import assert_refused, differs
from tests.lib.specification import NAMESPACES

NEWER = {"time"}
"""Namespaces that runc 1.1.15 does not support."""


@pytest.fixture
def holder(user):
    """Start a waiting shell of the user in new namespaces; return its pid."""
    started = []

    def start(*flags, script="true", root=True):
        maps = ["--map-root-user"] if root else []
        words = ["unshare", "--user", *maps, *flags, "sh", "-c", f"{script}; echo ready; read line"]
        process = user.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process.pid

    yield start
    for process in started:
        process.communicate("\n", timeout=30)


# --- New, or shared ---------------------------------------------------------------------------------------------------


def test_requested_namespaces_are_new(either):
    kinds = [kind for kind in FILES if not (either.oracle and kind in NEWER)]
    config = config_with_maps(either.user)
    set_namespaces(config, *kinds)
    seen = inside(either.lines(config, LINKS))
    assert {kind for kind in FILES if seen[kind] != own(kind)} == set(kinds)


@pytest.mark.spec("linux.namespaces: inherited")
def test_unrequested_namespaces_are_shared_with_the_host(either):
    """Except the user and mount namespaces, which an ordinary user needs."""
    config = config_with_maps(either.user)
    set_namespaces(config, *(["user", "mount"] if either.oracle else []))
    if either.oracle:
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] not in ("proc", "sysfs")]
        add_mount(config, "/proc", "none", "/proc", "rbind")
        config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
    seen = inside(either.lines(config, LINKS))
    assert {kind for kind in FILES if seen[kind] == own(kind)} == FILES.keys() - {"user", "mount"}


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("user", "mount")])
def test_only_the_requested_namespace_is_new(box, kind):
    config = base_config()
    set_namespaces(config, kind)
    seen = inside(box.lines(config, LINKS))
    assert {kind for kind in FILES if seen[kind] != own(kind)} == {kind, "user", "mount"}


@pytest.mark.spec("linux.namespaces.pid")
def test_the_pid_namespace(either):
    lines = either.lines(config_with_maps(either.user), "echo $$; echo /proc/[0-9]*; kill -TERM 1; echo alive")
    assert lines == ["1", "/proc/1", "alive"]


def test_a_shared_pid_namespace(box):
    config = base_config()
    set_namespaces(config, "network", "ipc", "uts", "mount")
    lines = box.lines(config, f"[ $$ != 1 ] && [ -e /proc/{os.getpid()} ] && echo shared")
    assert lines == ["shared"]


@pytest.mark.spec("linux.namespaces.network")
def test_the_loopback_is_up(either):
    script = (
        "ifconfig -a | grep -c Link; ifconfig lo | grep -oE 'UP LOOPBACK RUNNING|addr:[0-9.]+|::1/128'",
        "ls /sys/class/net; (echo hello | nc -l -p 8080 &) ; while ! nc -w 60 127.0.0.1 8080; do :; done",
    )
    assert either.lines(config_with_maps(either.user), *script) == [
        "1",
        "addr:127.0.0.1",
        "::1/128",
        "UP LOOPBACK RUNNING",
        "lo",
        "hello",
    ]


def test_a_shared_network(box):
    config = base_config()
    set_namespaces(config, "pid", "ipc", "uts", "mount")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        lines = box.lines(config, "ls /sys/class/net", f"grep -c 0100007F:{port:04X} /proc/net/tcp")
    assert sorted(lines[:-1]) == sorted(os.listdir("/sys/class/net"))
    assert lines[-1] == "1"


@pytest.mark.spec("linux.namespaces.mount")
def test_mounts_stay_inside(either):
    config = config_with_maps(either.user)
    config["process"]["capabilities"] = {name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    before = Path("/proc/self/mountinfo").read_text()
    pid = either.create(config, "mount -t tmpfs none /tmp; sleep 1000")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert f"{either.rootfs} / rw" in Path(f"/proc/{pid}/mountinfo").read_text()


@pytest.mark.spec("linux.namespaces.ipc")
def test_the_ipc_namespace(either):
    if not os.path.ismount("/dev/mqueue"):
        pytest.skip("needs /dev/mqueue on the host")
    config = config_with_maps(either.user)
    add_mount(config, "/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    Path("/dev/mqueue/of-the-host").touch()
    try:
        assert either.lines(config, "ls /dev/mqueue; touch /dev/mqueue/inside; wc -l < /proc/sysvipc/msg") == ["1"]
        assert not Path("/dev/mqueue/inside").exists()
    finally:
        Path("/dev/mqueue/of-the-host").unlink()


@pytest.mark.spec("linux.namespaces.cgroup")
def test_the_cgroup_namespace(either):
    config = config_with_maps(either.user)
    set_namespaces(config, "pid", "network", "ipc", "uts", "mount", "cgroup", "user")
    lines = either.lines(config, "cat /proc/self/cgroup")
    assert {line.split(":", 2)[2] for line in lines} == {"/"}


# --- Joined -----------------------------------------------------------------------------------------------------------

JOINABLE = ("pid", "network", "ipc", "uts", "cgroup", "time")


def joining(pid, *kinds):
    return {kind: f"/proc/{pid}/ns/{FILES[kind]}" for kind in kinds}


@pytest.mark.parametrize("kind", [*JOINABLE, "all"])
def test_a_namespace_of_another_container(either, kind):
    """Each is joined with the user namespace that owns it."""
    kinds = [each for each in JOINABLE if not (either.oracle and each in NEWER)]
    if kind != "all":
        if kind not in kinds:
            pytest.skip("runc 1.1.15 has no time namespaces")
        kinds = [kind]
    config = config_with_maps(either.user)
    config["hostname"] = "the-other"
    set_namespaces(config, *(each for each in FILES if not (either.oracle and each in NEWER)))
    other = outside(pid := either.create(config))
    config = base_config()
    new = [each for each in ("pid", "network", "ipc", "uts", "mount") if each not in kinds]
    set_namespaces(config, *new, user=f"/proc/{pid}/ns/user", **joining(pid, *kinds))
    lines = either.lines(config, "hostname; ls /sys/class/net; [ -e /proc/1 ] && echo $$", LINKS)
    assert lines[1] == "lo"
    seen = inside(lines[3:])
    shared = NEWER if either.oracle else set()
    assert {each for each in FILES if seen[each] == other[each]} == {"user", *kinds} | shared
    assert {each for each in FILES if seen[each] != own(each)} == {"user", *kinds, *new}
    assert lines[0] == ("the-other" if "uts" in kinds else socket.gethostname())
    assert (lines[2] == "1") == ("pid" not in kinds)


def test_a_joined_pid_namespace_shows_the_processes_of_both(either):
    config = config_with_maps(either.user)
    pid = either.create(config, "sleep 1000")
    either.user.run([*either.command, "start", "held"], check=True)
    config = base_config()
    set_namespaces(config, "network", "ipc", "uts", "mount", user=f"/proc/{pid}/ns/user", pid=f"/proc/{pid}/ns/pid")
    lines = either.lines(config, "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$ /proc/[0-9]*")
    assert lines[0].split() in (["sleep", "1000"], ["sh", "-c", "sleep", "1000"])
    own_pid, *processes = lines[1].split()
    assert {"/proc/1", f"/proc/{own_pid}"} <= set(processes)
    assert len(processes) <= 3, "its sh and sleep, or only sleep; and this sh"


def test_a_message_queue_between_two(either):
    config = config_with_maps(either.user)
    add_mount(config, "/dev/mqueue", "mqueue", "mqueue")
    pid = either.create(config, "touch /dev/mqueue/from-the-other; sleep 1000")
    either.user.run([*either.command, "start", "held"], check=True)
    set_namespaces(config, "pid", "network", "uts", "mount", user=f"/proc/{pid}/ns/user", ipc=f"/proc/{pid}/ns/ipc")
    for key in ("uidMappings", "gidMappings"):
        del config["linux"][key]
    assert either.lines(config, "while ! ls /dev/mqueue/from-the-other; do :; done 2>/dev/null") == [
        "/dev/mqueue/from-the-other"
    ]


@pytest.mark.spec("linux.namespaces[].path")
@pytest.mark.parametrize("kind", ["network", "uts", "ipc", "cgroup"])
def test_a_namespace_of_any_process(either, holder, kind):
    """A namespace of `unshare`, where setgroups(2) is denied."""
    flag = {"network": "net"}.get(kind, kind)
    pid = holder(f"--{flag}")
    config = base_config()
    config["mounts"][2]["options"].remove("gid=5")
    new = [each for each in ("pid", "network", "ipc", "uts", "mount") if each != kind]
    set_namespaces(config, *new, user=f"/proc/{pid}/ns/user", **joining(pid, kind))
    done = either.run(config, LINKS, check=True)
    seen = inside(done.stdout.splitlines())
    assert {each for each in FILES if seen[each] == outside(pid)[each]} >= {"user", kind}
    if not either.oracle:
        assert done.stderr == ""
        config["process"]["user"]["additionalGids"] = [0]
        assert (
            "the caller's groups are kept (config.json: process.user.additionalGids)"
            in either.run(config, "true").stderr
        )


def test_a_user_namespace_without_root(box, holder):
    """As with --userns keep-id for a user with a single id."""
    pid = holder("--map-user", str(box.user.uid), "--map-group", str(box.user.gid), "--net", root=False)
    config = base_config()
    config["mounts"][2]["options"].remove("gid=5")
    config["process"]["user"] = {"uid": box.user.uid, "gid": box.user.gid}
    set_namespaces(config, "pid", "ipc", "uts", "mount", user=f"/proc/{pid}/ns/user", **joining(pid, "network"))
    uid = str(box.user.uid)
    assert box.lines(config, "id -u; stat -c %u /dev; cat /proc/self/uid_map | tr -s ' '") == [
        uid,
        uid,
        f" {uid} {uid} 1",
    ]


def test_a_mount_namespace(either, holder):
    """Sources are looked up in it; processes in it keep their root."""
    pid = holder("--mount", script="mount -t tmpfs none /mnt; echo text > /mnt/file")
    config = base_config()
    config["mounts"][2]["options"].remove("gid=5")
    set_namespaces(config, "pid", "network", "ipc", "uts", user=f"/proc/{pid}/ns/user", mount=f"/proc/{pid}/ns/mnt")
    add_mount(config, "/data", "bind", "/mnt", "bind")
    lines = either.lines(config, "cat /data/file; readlink /proc/self/ns/mnt; ls -d /mnt || true")
    assert lines == ["text", os.readlink(f"/proc/{pid}/ns/mnt")]
    if not either.oracle:  # runc 1.1.15 changes the root of all processes there
        assert Path(f"/proc/{pid}/root/mnt/file").read_text() == "text\n"


def test_network_of_an_engine_in_a_user_namespace(box):
    """podman creates the network namespace and passes its path: no user namespace is added, /sys shows this network."""
    config = base_config()
    set_namespaces(config, "pid", "ipc", "uts", "mount", network=box.user.tmp / "netns")
    config["process"]["args"] = ["sh", "-c", f"{LINKS}; ls /sys/class/net; cat /proc/self/uid_map"]
    script = (
        "set -e; touch netns",
        "unshare --net sh -c 'mount --bind /proc/self/ns/net netns; ip link add extra type bridge'",
        'readlink /proc/self/ns/user; stat -Lc %i netns; exec "$@"',
    )
    box.command[:0] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "\n".join(script), "sh"]
    lines = box.lines(config)
    seen = inside(lines[2:10])
    assert seen["user"] == lines[0]
    assert seen["network"] == f"net:[{lines[1]}]"
    assert sorted(lines[10:12]) == ["extra", "lo"]
    assert maps(lines[12:]) == [(0, box.user.uid, 1)]


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "time"])
def test_a_namespace_that_is_the_callers_own_is_shared(box, kind):
    """A container needs no privileges over it to stay in it."""
    config = base_config()
    new = [each for each in ("pid", "network", "ipc", "uts", "mount") if each != kind]
    set_namespaces(config, *new, **{kind: f"/proc/self/ns/{FILES[kind]}"})
    done = box.run(config, LINKS)
    assert (done.returncode, done.stderr) == (0, "")
    seen = inside(done.stdout.splitlines())
    assert {each for each in FILES if seen[each] == own(each)} >= {kind}
    assert {each for each in FILES if seen[each] != own(each)} >= {*new, "user"}


def test_a_namespace_that_the_joined_user_namespace_does_not_own(box):
    """Root of a user namespace joins a user namespace that it has created there, and its own network namespace."""
    config = base_config()
    (namespaces := box.user.tmp / "ns").mkdir()
    own_ids(box.user, namespaces)
    set_namespaces(config, "pid", "ipc", "uts", "mount", user=str(namespaces / "user"), network=str(namespaces / "net"))
    config["mounts"][2]["options"].remove("gid=5")
    script = (
        f"set -e; cd {namespaces}; touch user net; mkfifo ready end",
        "unshare --net sh -c 'mount --bind /proc/self/ns/net net'",
        "unshare --user --map-root-user sh -c 'echo >ready; read line <end' & read line <ready",
        'mount --bind /proc/$!/ns/user user; echo >end; wait; stat -Lc %i user net; exec "$@"',
    )
    words = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", "\n".join(script), "sh"]
    box.command[:0] = words
    user, network, *lines = box.lines(config, LINKS)
    seen = inside(lines)
    assert (seen["user"], seen["network"]) == (f"user:[{user}]", f"net:[{network}]")


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        ("network", "/nowhere/net", "join the network namespace /nowhere/net: open: No such file or directory"),
        ("network", "/proc/self/ns/uts", "join the network namespace /proc/self/ns/uts: setns: Invalid argument"),
        ("uts", "/etc/passwd", "join the uts namespace /etc/passwd: setns: Invalid argument"),
        ("ipc", "/proc/1/ns/ipc", "join the ipc namespace /proc/1/ns/ipc: "),
        ("user", "/proc/self/ns/user", "join the user namespace /proc/self/ns/user: setns: Invalid argument"),
    ],
)
def test_a_namespace_that_cannot_be_joined(box, kind, path, words):
    config = base_config()
    new = [each for each in ("pid", "network", "ipc", "uts", "mount") if each != kind]
    set_namespaces(config, *new, **{kind: path})
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: {words}")
    assert f"(config.json: linux.namespaces[{len(new)}].path)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_id_missing_in_a_joined_user_namespace_is_refused(box, holder):
    pid = holder("--net")
    config = base_config()
    config["process"]["user"] = {"uid": 33, "gid": 0}
    config["mounts"][2]["options"].remove("gid=5")
    set_namespaces(config, "pid", "network", "ipc", "uts", "mount", user=f"/proc/{pid}/ns/user")
    done = box.run(config, "true")
    assert done.returncode == 1
    assert "become user 33, group 0: setresuid: Invalid argument (config.json: process.user" in done.stderr


# --- Mounts that belong to a namespace --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "point", "kind"),
    [("network", "/sys", "sysfs"), ("pid", "/proc", "proc"), ("ipc", "/dev/mqueue", "mqueue")],
)
def test_file_systems_of_shared_namespaces_are_the_hosts(box, namespace, point, kind):
    if not os.path.ismount(point):
        pytest.skip(f"needs {point} on the host")
    config = base_config()
    set_namespaces(config, *(each for each in ("pid", "network", "ipc", "uts", "mount") if each != namespace))
    add_mount(config, "/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    log = box.user.tmp / "log"
    lines = box.lines(config, "cat /proc/self/mountinfo", global_flags=["--log", log])
    table = mount_table(lines)
    assert table[point][2] == kind
    index = next(i for i, mount in enumerate(config["mounts"]) if mount["destination"] == point)
    note = f"the host's {point} is bind-mounted on {point}: the container shares the host's {namespace} namespace"
    assert f'msg="{note}" where="mounts[{index}]"' in log.read_text()
    asked = set(config["mounts"][index].get("options", ()))
    assert table[point][0] >= asked


def test_a_host_without_message_queues(box):
    """mqueue is the only one of these file systems that a host may not have: it is left out, with a warning."""
    config = base_config()
    config["mounts"][2]["options"].remove("gid=5")
    set_namespaces(config, "pid", "network", "uts", "mount")
    add_mount(config, "/dev/mqueue", "mqueue", "mqueue")
    without = (
        "mkdir dev; for name in null zero full random urandom tty",
        'do touch dev/$name; mount --bind /dev/$name dev/$name; done; mount --rbind dev /dev; exec "$@"',
    )
    box.command[:0] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "\n".join(without), "sh"]
    done = box.run(config, "ls -A /dev/mqueue", check=True)
    assert done.stdout == ""
    assert done.stderr == (
        "rootless: warning: bind /dev/mqueue on /dev/mqueue: open_tree: No such file or directory: left out "
        "(config.json: mounts[4])\n"
    )


TIME = '"time: the container will be able to have its own clocks"'


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=[
                pytest.mark.spec(f"linux.namespaces.{kind}"),
                *([differs("runc", f"{TIME}: it is not known, and refused")] if kind == "time" else []),
            ],
        )
        for kind in NAMESPACES
    ],
)
def test_a_new_namespace(either, kind):
    config = config_with_maps(either.user)
    set_namespaces(config, *{kind: None, "user": None, "mount": None, "pid": None, "network": None})
    seen = either.lines(config, f"readlink /proc/self/ns/{FILES[kind]}")
    assert seen != [os.readlink(f"/proc/self/ns/{FILES[kind]}")]


@pytest.mark.spec("linux.namespaces: duplicates")
def test_a_namespace_named_twice(either):
    """ "the runtime MUST generate an error"."""
    config = config_with_maps(either.user)
    config["linux"]["namespaces"].append({"type": "uts"})
    assert_refused(either, config, "uts", "duplicate", "twice")
