"""`exec` in unusual and hostile containers, and in containers that end at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import (
    BOTH,
    SHORT,
    Box,
    add_mount,
    config_with_maps,
    make_box,
    set_namespaces,
    status_of,
)
from tests.lib.bundles import base_config
from tests.lib.containers import await_end, executors, until
from tests.lib.live import NOT_EXECUTED, Live
from tests.lib.namespaces import FILES
from tests.lib.traced import Stopped, interrupted, moments


@pytest.fixture
def live(box):
    return Live(box)


@pytest.fixture
def both(either):
    return Live(either)


# --- other containers -------------------------------------------------------------------------------------------------


def same_namespaces(live):
    """Return the kinds of namespaces that the command shares with the first process, and those with the host."""
    seen = dict(zip(FILES, live.lines(*(f"readlink /proc/self/ns/{file}" for file in FILES.values())), strict=True))
    first = {kind for kind, file in FILES.items() if seen[kind] == os.readlink(f"/proc/{live.pid}/ns/{file}")}
    return first, {kind for kind, file in FILES.items() if seen[kind] == os.readlink(f"/proc/self/ns/{file}")}


@pytest.mark.parametrize("shared", ["pid", "network", "ipc", "uts", "all"])
def test_a_container_that_shares_namespaces_with_the_host(either, shared):
    config = config_with_maps(either.user)
    new = {"pid", "network", "ipc", "uts"} - {shared} if shared != "all" else set()
    set_namespaces(config, "user", "mount", *sorted(new))
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in ("/sys", "/proc")]
    add_mount(config, "/proc", "bind", "/proc", "rbind")
    config["linux"].update(maskedPaths=[], readonlyPaths=[])
    first, host = same_namespaces(Live(either, config))
    assert first == set(FILES)
    assert host == {"pid", "network", "ipc", "uts", "cgroup", "time"} - new


def test_container_with_joined_namespaces(either):
    """The container joins those of another one, as in a pod."""
    other = config_with_maps(either.user)
    pid = either.create(other, name="other")
    config = base_config()
    paths = {kind: f"/proc/{pid}/ns/{FILES[kind]}" for kind in ("user", "network", "ipc", "uts")}
    set_namespaces(config, "pid", "mount", **paths)
    live = Live(either, config)
    assert same_namespaces(live)[0] == set(FILES)
    assert os.readlink(f"/proc/{live.pid}/ns/user") == os.readlink(f"/proc/{pid}/ns/user")


def test_container_in_a_joined_mount_namespace(box):
    """The container and the command have the container's root there."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; read line"]
    holder = box.user.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "ready\n"
    config = base_config()
    config["mounts"][2]["options"].remove("gid=5")
    paths = {"user": f"/proc/{holder.pid}/ns/user", "mount": f"/proc/{holder.pid}/ns/mnt"}
    set_namespaces(config, "pid", "network", "ipc", "uts", **paths)
    live = Live(box, config)
    assert live.lines("ls /; pwd") == [*sorted(os.listdir(box.rootfs)), "/"]
    assert live.lines("pwd; ls -d ../home 2>/dev/null || true", flags=["--cwd", "/data"]) == ["/data"]
    holder.communicate("\n")


def test_a_chrooted_container(either):
    config = config_with_maps(either.user)
    del config["mounts"][3]  # runc cannot mount sysfs then
    live = Live(either, config, flags=["--no-pivot"])
    assert live.lines("ls /; cd ../../..; ls") == sorted(os.listdir(either.rootfs)) * 2


def test_a_user_without_subordinate_ids(single_user, rootless_command):
    box = Box(single_user, [rootless_command])
    try:
        config = base_config()
        config["mounts"][2]["options"].remove("gid=5")
        live = Live(box, config)
        assert same_namespaces(live)[0] == set(FILES)
        assert live.lines("id -u; cat /proc/self/uid_map")[0] == "0"
        done = live.exec("true", flags=["--user", "5"])
        assert done.returncode == NOT_EXECUTED
        assert done.stderr == (
            "rootless: --user: cannot run as uid 5: the container has no such id; it has 0 to 0; fix: choose one of "
            "these, or create the container with more\n"
        )
    finally:
        box.close()


def test_a_container_without_a_root(single_user, rootless_command):
    box = Box(single_user, [rootless_command])
    try:
        config = base_config()
        config["mounts"][2]["options"].remove("gid=5")
        live = Live(box, config, flags=["--userns", "keep-id"])
        assert same_namespaces(live)[0] == set(FILES)
        assert live.lines("id -u; pwd; touch /data/file") == [str(single_user.uid), "/"]
        assert (box.rootfs / "data/file").owner() == single_user.name
        assert "it has " in live.exec("true", flags=["--user", "0"]).stderr
    finally:
        box.close()


@pytest.mark.usefixtures("require_root")
@pytest.mark.parametrize("runtime", BOTH)
@pytest.mark.parametrize("with_user_namespace", [False, True])
def test_called_by_real_root(user, rootless_command, need, runtime, with_user_namespace):
    as_root = {"user": 0, "group": 0, "env": {"HOME": str(user.tmp), "XDG_RUNTIME_DIR": ""}}
    box = make_box(user, runtime, rootless_command, need, options=as_root)
    box.command = [*box.command[:1], "--root", user.tmp / "state"]
    subprocess.run(["chown", "-R", "0:0", box.path], check=True)
    try:
        config = base_config()
        if with_user_namespace:
            config["linux"]["namespaces"].append({"type": "user"})
            mappings = [{"containerID": 0, "hostID": 300_000, "size": 65536}]
            config["linux"] |= {"uidMappings": mappings, "gidMappings": mappings}
            subprocess.run(["chown", "-R", "300000:300000", box.rootfs], check=True)
        config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
        live = Live(box, config)
        assert same_namespaces(live)[0] == set(FILES)
        assert live.lines("id -u; ulimit -n") == ["0", "100"]
        limits = [{"type": "RLIMIT_NOFILE", "soft": 30, "hard": 40}]
        file = live.process_file(args=["grep", "files", "/proc/self/limits"], rlimits=limits)
        assert live.exec(flags=["-p", file]).stdout.split()[3:5] == ["30", "40"]
    finally:
        box.close()


# --- hostile containers -----------------------------------------------------------------------------------------------


def test_a_directory_of_the_caller_cannot_be_the_working_directory(both):
    """CVE-2024-21626: /proc/self/fd/N of a directory that the runtime has open."""
    for number in range(3, 16):
        done = both.exec("pwd", flags=["--cwd", f"/proc/self/fd/{number}"])
        assert done.returncode == NOT_EXECUTED, f"{number}: {done.stdout}"
    stray = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (both.box.rootfs / "data/link").symlink_to(f"/proc/self/fd/{stray}")
        assert both.exec("pwd", flags=["--cwd", "/data/link"], pass_fds=[stray]).returncode == NOT_EXECUTED
    finally:
        os.close(stray)


def test_symlinks_do_not_lead_outside(live):
    (live.user.tmp / "secret").write_text("secret\n")
    (live.box.rootfs / "data/up").symlink_to("../../../../../../../../../.." + str(live.user.tmp))
    assert "No such file" in live.exec("cat", "secret", flags=["--cwd", "/data/up"]).stderr
    assert "no such file" in live.exec("/data/up/secret").stderr


def test_programs_that_are_the_executor_itself(live):
    """CVE-2019-5736: an interpreter /proc/self/exe runs the executor inside, which cannot be written to."""
    evil = live.box.rootfs / "bin/evil"
    evil.write_text("#!/proc/self/exe\n")
    evil.chmod(0o755)
    before = executors(live.user)
    assert live.exec("evil").returncode in (2, NOT_EXECUTED)
    assert executors(live.user) == before
    assert live.lines("echo well") == ["well"]


LOOK = """
for way in exe root cwd fd/3 fd/4 ns/mnt; do readlink /proc/$0/$way; done
for file in environ maps auxv stack syscall mem; do head -c 1 /proc/$0/$file; done
ls /proc/$0/fd
ls /proc/$0/map_files
cat /proc/$0/comm
"""


def inside_id(pid):
    """Return the pid of a process in its own pid namespace, if that is not the host's."""
    try:
        ids = status_of(Path(f"/proc/{pid}/status").read_text().splitlines(), "NSpid").split()
    except OSError:
        return ""
    return ids[1] if len(ids) > 1 else ""


def test_entering_process_cannot_be_inspected(box, need):
    """CVE-2016-9962: root of the container has CAP_SYS_PTRACE, and the entering process waits for its caller."""
    config = config_with_maps(box.user)
    config["process"]["capabilities"] = {name: ["CAP_SYS_PTRACE"] for name in ("bounding", "effective", "permitted")}
    live = Live(box, config)
    strace, words = need("strace"), live.argv("true")
    # the signal arrives at the end of the call: the executor is in the container and waits for the second answer
    first_answer, _ = moments(live.user, strace, words, count=2, since="clone3", names={"write"})
    before = executors(live.user)
    held = Stopped(live.user, strace, words, first_answer)
    try:
        (inside,) = map(inside_id, executors(live.user) - before)
        assert live.exec("sh", "-c", LOOK, inside).stdout == "rootless:init\n"
    finally:
        assert held.go_on() == (0, "")


# --- ends at any moment -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_early_end_of_exec_leaves_nothing(live, need, number):
    """It is ended at system calls throughout its life."""
    before = executors(live.user)
    strace, words = need("strace"), live.argv("true")
    for moment in moments(live.user, strace, words, count=12, since="state.json"):
        status, _ = interrupted(live.user, strace, words, number, moment)
        assert status in (0, -number, 128 + number), moment
        until(lambda: executors(live.user) == before, f"the executor ends with its parent: {moment}")
    assert live.lines("ps -o args | grep -c '[s]leep 1000'; set -- /proc/[0-9]*; echo $#") == ["1", "2"], (
        "its first process, and sh"
    )


def test_a_container_that_is_killed_ends_its_commands(both):
    process = both.popen("sleep", "1000", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: "1000" in both.lines("ps -o args | grep '[s]leep 1000' | wc -l; echo 1000"), "it runs")
    os.kill(both.pid, signal.SIGKILL)
    assert process.wait(SHORT) in (128 + signal.SIGKILL, NOT_EXECUTED)


def test_exec_in_a_container_that_ends_meanwhile(live):
    """At any moment, the command runs or one line gives the reason."""
    os.kill(live.pid, signal.SIGKILL)
    await_end(live.pid)
    done = live.exec("true")
    assert done.returncode == NOT_EXECUTED
    assert "container not running" in done.stderr


def test_twenty_execs_at_once(live):
    processes = [live.popen("sh", "-c", f"exit {number}", stdout=subprocess.DEVNULL) for number in range(20)]
    assert [process.wait(SHORT) for process in processes] == list(range(20))
