"""create, start, state, kill, delete and list as engines call them: runtime.md of the specification."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lib.boxes import CRUN, config_with_maps
from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import PATIENCE, Reader, await_end, children_of, in_mount_namespace_of, until

CONTAINERD_KILL_GONE = ("container not running", "no such process", "does not exist")
"""The texts that containerd's shim and CRI-O look for, case-sensitively, in an error of `kill`."""
RFC3339_NANO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
FOREVER = ("sleep", "1000")
ECHO_LINES = 'echo ready; while read line; do echo "$line"; done; exit 3'


@pytest.fixture
def bundle(user):
    """A bundle whose program sleeps."""
    return make_bundle(user, base_config(*FOREVER))


@pytest.fixture
def stopped(rootless, user):
    """The name of a container that has ended."""
    rootless.create("stopped", make_bundle(user, base_config("true"), name="ends"))
    pid = rootless.pid("stopped")
    rootless.start("stopped")
    await_end(pid)
    return "stopped"


def is_one_line(text):
    return text.endswith("\n") and text.count("\n") == 1


# --- the states ------------------------------------------------------------------------------------------------------


def test_life_of_a_container(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", ECHO_LINES))
    with rootless.popen("create", "--bundle", bundle, "c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as create:
        assert create.wait() == 0
        container = Reader(create.stdout)
        created = rootless.state("c1")
        assert created["status"] == "created"
        pid = created["pid"]
        assert Path(f"/proc/{pid}").exists()

        assert rootless("start", "c1").returncode == 0
        assert container.line() == "ready", "the program's first line comes after start, so it did not run before"
        assert rootless.state("c1") == created | {"status": "running"}
        assert "sh" in Path(f"/proc/{pid}/cmdline").read_text(), "the created process became the program"

        create.stdin.close()
        assert container.rest() == b""
        await_end(pid)
        assert rootless.state("c1") == created | {"status": "stopped", "pid": 0}

    done = rootless("delete", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert rootless("state", "c1").returncode == 1
    assert list(rootless.root.iterdir()) == []


def test_program_does_not_run_before_start(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo > /data/started"))
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    assert not (bundle / "rootfs/data/started").exists()
    rootless.start("c1")
    await_end(pid)
    assert (bundle / "rootfs/data/started").exists()


def test_a_created_container_has_its_namespaces_and_mounts(rootless, bundle):
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    for kind in ("user", "pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert Path(f"/proc/{pid}/root/bin/busybox").exists()
    mounts = Path(f"/proc/{pid}/mountinfo").read_text()
    assert {line.split()[4] for line in mounts.splitlines()} >= {"/", "/proc", "/dev", "/dev/pts", "/sys"}


def test_changes_of_the_bundle_after_create_have_no_effect(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo first"))
    rootless.create("c1", bundle)
    write_config(bundle, base_config("sh", "-c", "echo second"))
    pid = rootless.pid("c1")
    rootless.start("c1")
    await_end(pid)
    assert rootless.output("c1") == "first\n"

    rootless.create("c2", bundle)
    (bundle / "config.json").unlink()
    pid = rootless.pid("c2")
    rootless.start("c2")
    await_end(pid)
    assert rootless.output("c2") == "second\n"
    assert rootless.status("c2") == "stopped"


def test_a_create_that_fails_leaves_the_id_free(rootless, user, bundle):
    config = base_config("/nope")
    done = rootless.create("c1", make_bundle(user, config, name="broken"), check=False)
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert not (rootless.root / "c1").exists()
    assert rootless.list() == []
    rootless.create("c1", bundle)


@pytest.mark.parametrize("sign", ["TERM", "INT", "HUP", "KILL"])
def test_a_created_container_can_be_ended_before_its_start(rootless, bundle, sign):
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    assert rootless("kill", "c1", sign).returncode == 0
    await_end(pid)
    assert rootless.state("c1")["status"] == "stopped"
    done = rootless("start", "c1")
    assert done.returncode == 1
    assert "cannot start a container that has stopped" in done.stderr
    assert rootless("delete", "c1").returncode == 0


@pytest.mark.parametrize("changed", ["bootId", "startTime"])
def test_process_with_the_same_pid_is_not_the_container(rootless, user, changed):
    """After a reboot, or when the kernel has reused the pid, rootless must not touch that process."""
    bundle = make_bundle(user, base_config("sh", "-c", FAMILY))
    first, others = _family(rootless, bundle, "c1")
    path = rootless.root / "c1/state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {changed: type(state[changed])(1)}))
    assert rootless.state("c1")["status"] == "stopped"
    done = rootless("kill", "c1", "KILL")
    assert done.returncode == 1
    assert "container not running" in done.stderr
    assert rootless("kill", "--all", "c1", "KILL").returncode == 0
    assert "has stopped" in rootless("start", "c1").stderr
    assert rootless("delete", "--force", "c1").returncode == 0
    alive = {pid for pid in (first, *others) if Path(f"/proc/{pid}/root/bin").exists()}
    os.kill(first, signal.SIGKILL)
    await_end(first)
    assert alive == {first, *others}


REUSE = """
import json, os, subprocess, sys
user, group, command, bundle = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:-1], sys.argv[-1]
ids = {"user": user, "group": group, "extra_groups": (), "stdin": subprocess.DEVNULL}
def call(*words):
    done = subprocess.run([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **ids)
    return [done.returncode, done.stdout, done.stderr]
subprocess.run([*command, "run", "--detach", "--bundle", bundle, "c1"], check=True, **ids)
pid = json.loads(call("state", "c1")[1])["pid"]
os.kill(pid, 9)
os.waitpid(pid, 0)  # this is process 1 here, and reaps what is left to it
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(pid - 1))
other = subprocess.Popen(["sleep", "1000"], **ids)
told = {" ".join(words): call(*words) for words in (
    ["state", "c1"], ["kill", "c1", "KILL"], ["kill", "--all", "c1", "KILL"], ["exec", "c1", "true"], ["start", "c1"],
    ["ps", "--format", "json", "c1"], ["delete", "--force", "c1"])}
print(json.dumps([pid, other.pid, other.poll(), told]))
other.kill()
"""


def test_pid_reused_by_another_process_is_not_the_container(rootless, user, need, require_root):
    """The test makes the kernel reuse the pid, in a new pid namespace."""
    bundle = make_bundle(user, base_config("sleep", "1000"))
    words = [need("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", REUSE]
    argv = [*words, str(user.uid), str(user.gid), *rootless.argv(), bundle]
    # no pipe: the container would keep it open
    with (user.tmp / "told").open("w+") as told, (user.tmp / "complaints").open("w+") as complaints:
        done = user.run(argv, user=0, group=0, stdout=told, stderr=complaints)
        told.seek(0)
        complaints.seek(0)
        assert done.returncode == 0, complaints.read()
        *found, said = json.loads(told.read())
    assert found == [found[0], found[0], None], "the pid was reused, and its process runs"
    assert json.loads(said["state c1"][1])["status"] == "stopped"
    assert "container not running" in said["kill c1 KILL"][2]
    assert said["kill --all c1 KILL"][0] == 0
    assert "cannot exec in a stopped container" in said["exec c1 true"][2]
    assert "has stopped" in said["start c1"][2]
    assert json.loads(said["ps --format json c1"][1]) == []
    assert said["delete --force c1"] == [0, "", ""]


# --- output ----------------------------------------------------------------------------------------------------------


def test_state_has_the_properties_that_callers_read(rootless, user):
    before = datetime.now(UTC)
    config = base_config(*FOREVER)
    config["annotations"] = {"org.example.key": "a value", "org.example.empty": "", "run.oci.é": "ü"}
    bundle = make_bundle(user, config)
    rootless.create("c1", bundle)
    state = rootless.state("c1")
    created = state.pop("created")
    pid = state.pop("pid")
    assert state == {
        "ociVersion": "1.3.0",
        "id": "c1",
        "status": "created",
        "bundle": str(bundle),
        "rootfs": str(bundle / "rootfs"),
        "annotations": config["annotations"],
        "owner": user.name,
    }
    assert type(pid) is int
    assert pid > 1
    assert RFC3339_NANO.fullmatch(created)
    assert before - timedelta(seconds=1) <= datetime.fromisoformat(created) <= datetime.now(UTC)
    text = rootless("state", "c1").stdout
    assert text.startswith('{\n  "ociVersion"')
    assert text.endswith("\n}\n")


def test_paths_in_the_state_are_absolute_whatever_the_caller_gave(rootless, user, bundle):
    rootless.create("c1", bundle.name, cwd=user.tmp)
    rootless.create("c2", ".", cwd=bundle)
    for state in rootless.list():
        assert state["bundle"] == str(bundle)
        assert state["rootfs"] == str(bundle / "rootfs")


def test_list_is_a_table_for_people_and_json_for_engines(rootless, bundle, stopped):
    rootless.create("b", bundle)
    rootless.create("a", bundle)
    rootless.start("a")
    states = [rootless.state(name) for name in ("a", "b", stopped)]
    assert [state["status"] for state in states] == ["running", "created", "stopped"]
    assert rootless.list() == states

    table = [line.split() for line in rootless("list", check=True).stdout.splitlines()]
    assert table[0] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    columns = ("id", "pid", "status", "bundle", "created", "owner")
    assert table[1:] == [[str(state[name]) for name in columns] for state in states]
    lines = rootless("list", "--format=table").stdout.splitlines()
    assert len({line.rindex(states[0]["owner"]) for line in lines[1:]}) == 1, "columns are aligned"
    assert lines[0].index("OWNER") == lines[1].rindex(states[0]["owner"])

    assert rootless("list", "-q").stdout == f"a\nb\n{stopped}\n"
    assert json.loads(rootless("list", "-f", "json").stdout) == states


def test_the_list_as_json_is_one_line_for_a_program(either, user):
    """The same bytes as runc; at a terminal it is indented."""
    config = config_with_maps(user) | {"annotations": {"com.example.key": "é value"}}
    for name in ("one", "two"):
        either.create(config, "true", name=name)
    said = user.run([*either.command, "list", "--format", "json"], check=True).stdout
    states = json.loads(said)
    assert said == json.dumps(states, ensure_ascii=False, separators=(",", ":")) + "\n"
    names = ("ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner")
    assert [tuple(state) for state in states] == [names] * 2


def test_the_list_as_json_is_indented_at_a_terminal(rootless, user):
    rootless.create("c1", make_bundle(user))
    master, slave = pty.openpty()
    with rootless.popen("list", "--format", "json", stdout=slave) as process:
        os.close(slave)
        assert Reader(master).until(b"]\r\n").startswith(b'[\r\n  {\r\n    "ociVersion": ')
        assert process.wait(PATIENCE) == 0
    os.close(master)


def test_an_empty_list_is_a_heading_nothing_or_null(rootless):
    def printed(*words):
        done = rootless("list", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert printed().split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert printed("-q") == ""
    assert printed("--format", "json") == "null\n"
    rootless.make_root()
    assert printed("--format", "json") == "null\n"


def test_pid_file_contains_digits_when_create_returns(rootless, user, bundle):
    pid_file = user.tmp / "the pid"
    rootless.create("c1", bundle, "--pid-file", pid_file)
    assert pid_file.read_bytes() == str(rootless.pid("c1")).encode()
    assert (pid_file.stat().st_uid, pid_file.stat().st_mode & 0o777) == (user.uid, 0o644)

    rootless.create("c2", bundle, "--pid-file", "the pid", cwd=user.tmp)
    assert pid_file.read_bytes() == str(rootless.pid("c2")).encode(), "an existing file is replaced"
    assert sorted(path.name for path in user.tmp.iterdir() if "pid" in path.name) == ["the pid"]


def test_a_pid_file_that_cannot_be_written_fails_create_and_leaves_nothing(rootless, bundle):
    done = rootless.create("c1", bundle, "--pid-file", "/proc/nope/pid", check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: --pid-file: cannot write /proc/nope/pid: no such file or directory; "
        "fix: name a file in a directory that you can write to\n"
    )
    assert rootless.list() == []


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["state"], ["start"], ["kill"], ["kill", "--all"], ["delete"]], ids=" ".join)
def test_an_unknown_container_does_not_exist(rootless, words):
    for _ in ("there is no state directory yet", "there is one"):
        done = rootless(*words, "nope")
        assert (done.returncode, done.stdout) == (1, "")
        assert is_one_line(done.stderr)
        assert done.stderr.startswith("rootless: container nope: container does not exist")
        assert any(text in done.stderr for text in CONTAINERD_KILL_GONE)
        rootless.make_root()


def test_delete_force_of_an_unknown_container_is_silent(rootless):
    for _ in ("there is no state directory yet", "there is one"):
        done = rootless("delete", "--force", "nope")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        rootless.make_root()


def test_id_in_use_is_refused(rootless, bundle):
    rootless.create("c1", bundle)
    before = rootless.state("c1")
    done = rootless.create("c1", bundle, check=False)
    assert done.returncode == 1
    assert "container with given ID already exists" in done.stderr
    assert is_one_line(done.stderr)
    assert rootless.list() == [before]


def test_start_is_for_created_containers_only(rootless, bundle, stopped):
    rootless.create("c1", bundle)
    rootless.start("c1")
    for name, cause in (
        ("c1", "cannot start an already running container"),
        (stopped, "cannot start a container that has stopped"),
    ):
        before = rootless.state(name)
        done = rootless("start", name)
        assert done.returncode == 1
        assert cause in done.stderr
        assert is_one_line(done.stderr)
        assert rootless.state(name) == before, "an error has no effect on the container"


@pytest.mark.parametrize("status", ["created", "running"])
def test_delete_without_force_is_for_stopped_containers_only(rootless, bundle, status):
    rootless.create("c1", bundle)
    if status == "running":
        rootless.start("c1")
    before = rootless.state("c1")
    done = rootless("delete", "c1")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: cannot delete container c1 that is not stopped: {status}")
    assert is_one_line(done.stderr)
    assert rootless.state("c1") == before

    done = rootless("delete", "--force", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not Path(f"/proc/{before['pid']}/root/bin").exists()
    assert rootless.list() == []


def test_kill_of_a_stopped_container(rootless, stopped):
    done = rootless("kill", stopped, "KILL")
    assert (done.returncode, done.stderr) == (1, f"rootless: container {stopped}: container not running\n")
    assert any(text in done.stderr for text in CONTAINERD_KILL_GONE)
    for words in (["--all", stopped], ["-a", stopped, "9"]):
        done = rootless("kill", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["NOPE", "SIGNOPE", "-1", "65", "1000", "RTMIN+64", "", "TERM ", "٩"])
def test_unknown_signal_is_refused(rootless, bundle, name):
    rootless.create("c1", bundle)
    done = rootless("kill", "c1", name)
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert rootless.status("c1") == "created"


def test_an_unknown_verb_and_an_unknown_flag_have_the_statuses_of_runc(rootless, bundle):
    assert rootless("frobnicate").returncode == 3
    assert rootless("create", "--frobnicate", "--bundle", bundle, "c1").returncode == 1
    assert rootless("create", "--bundle", bundle).returncode == 1
    assert rootless("state").returncode == 1
    assert rootless("state", "c1", "c2").returncode == 1
    assert rootless.list() == []


def test_the_log_of_a_failed_verb_is_one_object(rootless, user):
    log = user.tmp / "log"
    for verb in ("state", "kill", "start", "delete"):
        assert rootless("--log", log, "--log-format", "json", verb, "nope").returncode == 1
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == 4
    for record in records:
        assert record["level"] == "error"
        assert "container does not exist" in record["msg"]
        assert record["code"] == "RL-NOT-FOUND"
        assert RFC3339_NANO.fullmatch(record["time"])


# --- signals ---------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "TERM": 15, "SIGTERM": 15, "term": 15, "sigTerm": 15, "15": 15, "HUP": 1, "1": 1, "SIGINT": 2, "QUIT": 3,
    "USR1": 10, "SIGUSR2": 12, "WINCH": 28, "CONT": 18, "ALRM": 14, "RTMIN": 34, "SIGRTMIN+3": 37, "rtmin+3": 37,
    "37": 37, "RTMAX-1": 63, "64": 64,
}  # fmt: skip


def test_kill_takes_names_and_numbers(rootless, user):
    numbers = " ".join(str(number) for number in sorted(set(SPELLINGS.values())))
    script = f'for n in {numbers}; do trap "echo $n" $n; done; echo ready; sleep 1000 & while :; do wait; done'
    bundle = make_bundle(user, base_config("sh", "-c", script))
    with rootless.popen("create", "--bundle", bundle, "c1", stdout=subprocess.PIPE) as create:
        assert create.wait() == 0
        container = Reader(create.stdout)
        rootless.start("c1")
        assert container.line() == "ready"
        for spelling, number in SPELLINGS.items():
            done = rootless("kill", "c1", spelling)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), spelling
            assert container.line() == str(number), spelling
        rootless("kill", "c1")
        assert container.line() == "15", "TERM is the default"
        assert rootless("kill", "c1", "0").returncode == 0
        rootless("kill", "c1", "KILL")
        assert container.rest() == b""


def _family(rootless, bundle, name):
    """Start a container with a shell, a child and an orphan; return the pid of the first and those of the others."""
    with rootless.popen("create", "--bundle", bundle, name, stdout=subprocess.PIPE) as create:
        assert create.wait() == 0
        first = rootless.pid(name)
        rootless.start(name)
        container = Reader(create.stdout)
        assert {container.line(), container.line()} == {"child", "orphan"}
    until(lambda: len(in_mount_namespace_of(first)) == 2, "the orphan's parent ends")
    return first, in_mount_namespace_of(first)


FAMILY = "sh -c '(echo orphan; exec sleep 1000) &'; (echo child; exec sleep 1000) & trap 'exit 5' TERM; wait; wait"


@pytest.mark.parametrize("shared", [False, True], ids=["own pid namespace", "pid namespace of the host"])
def test_kill_all_reaches_every_process(rootless, user, shared):
    config = base_config("sh", "-c", FAMILY)
    if shared:
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    bundle = make_bundle(user, config)
    first, others = _family(rootless, bundle, "c1")
    done = rootless("kill", "--all", "c1", "KILL")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for pid in (first, *others):
        await_end(pid)
    assert rootless.status("c1") == "stopped"


@pytest.mark.parametrize("shared", [False, True], ids=["own pid namespace", "pid namespace of the host"])
def test_delete_force_ends_every_process(rootless, user, shared):
    config = base_config("sh", "-c", FAMILY)
    if shared:
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    bundle = make_bundle(user, config)
    first, others = _family(rootless, bundle, "c1")
    done = rootless("delete", "--force", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for pid in (first, *others):
        await_end(pid)
    assert rootless.list() == []


@pytest.mark.parametrize("verb", ["run", "start"])
def test_a_failed_poststart_hook_ends_every_process(rootless, user, verb):
    """Without a new pid namespace, the kernel does not end the others with the first process."""
    mark = user.tmp / "family"
    config = base_config("sh", "-c", FAMILY)
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    look = f"for pid in $(pgrep -x sleep -u {user.uid}); do readlink /proc/$pid/ns/mnt; done"
    wait = f"until [ $(pgrep -cx sleep -u {user.uid}) = 2 ]; do :; done"
    config["hooks"] = {"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", f"{wait}; {look} >{mark}; exit 1"]}]}
    bundle = make_bundle(user, config)
    if verb == "run":
        assert rootless("run", "--bundle", bundle, "c1").returncode == 1
    else:
        rootless.create("c1", bundle)
        assert rootless("start", "c1").returncode == 1
    assert mark.read_text().count("mnt:") == 2
    until(lambda: user.run(["pgrep", "-x", "sleep", "-u", str(user.uid)]).stdout == "", "they have ended")
    assert rootless.list() == []


@pytest.mark.parametrize("words", ["kill --all b KILL", "delete --force b"])
def test_container_in_a_joined_pid_namespace_ends_alone(rootless, user, words):
    bundle = make_bundle(user, base_config("sh", "-c", FAMILY))
    first, _ = _family(rootless, bundle, "a")
    config = base_config("sh", "-c", FAMILY)
    config["linux"]["namespaces"] = [{"type": "mount"}]
    config["linux"]["namespaces"] += [
        {"type": kind, "path": f"/proc/{first}/ns/{name}"} for kind, name in (("user", "user"), ("pid", "pid"))
    ]
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "sysfs"]
    other = make_bundle(user, config, name="other")
    second, children = _family(rootless, other, "b")
    assert rootless(*words.split()).returncode == 0
    for pid in (second, *children):
        await_end(pid)
    assert rootless.status("a") == "running"
    assert len(in_mount_namespace_of(first)) == 2, "and its other processes run too"


def test_kill_without_all_signals_the_first_process(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "sleep 1000 & trap 'echo told; wait' TERM; echo ready; wait"))
    with rootless.popen("create", "--bundle", bundle, "c1", stdout=subprocess.PIPE) as create:
        assert create.wait() == 0
        container = Reader(create.stdout)
        first = rootless.pid("c1")
        rootless.start("c1")
        assert container.line() == "ready"
        rootless("kill", "c1", "TERM")
        assert container.line() == "told"
        assert len(children_of(first)) == 1
        rootless("kill", "c1", "KILL")


def test_regular_expression_selects_all_matching_ids(rootless, bundle):
    names = ["web1", "web2", "db"]
    for name in names:
        rootless.create(name, bundle)
    pids = {name: rootless.pid(name) for name in names}
    assert rootless("kill", "--regex", "web[0-9]", "KILL").returncode == 0
    for name in ("web1", "web2"):
        await_end(pids[name])
    assert [state["status"] for state in rootless.list()] == ["created", "stopped", "stopped"]
    assert rootless("delete", "--regex", "^eb").returncode == 0
    assert len(rootless.list()) == 3
    assert rootless("delete", "-r", "eb").returncode == 0
    assert [state["id"] for state in rootless.list()] == ["db"]
    assert rootless("delete", "-f", "-r", ".*").returncode == 0
    assert rootless.list() == []
    done = rootless("delete", "--regex", "(")
    assert done.returncode == 1
    assert is_one_line(done.stderr)


@pytest.mark.crun
@pytest.mark.parametrize("either", ["rootless", CRUN], indirect=True)
@pytest.mark.parametrize(
    ("pattern", "left"),
    [("b1", ["db", "web2"]), ("^b", ["db", "web1", "web2"]), ("^web|b$", []), ("1$|^d", ["web2"]), ("e.[0-9]", ["db"])],
)
def test_regular_expression_matches_anywhere(either, pattern, left):
    """Anywhere in the id, unless the expression is anchored, as in crun."""
    for name in ("web1", "web2", "db"):
        either.create(config_with_maps(either.user), name=name)
    words = [*either.command, "delete", "--force", "--regex", pattern]
    assert either.user.run(words, **either.options).returncode == 0
    found = either.user.run([*either.command, "list", "--quiet"], **either.options, check=True).stdout.split()
    assert sorted(found) == left


def test_a_zombie_is_a_stopped_container(rootless, user, rootless_command):
    driver = """
import ctypes, json, os, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
command, bundle = sys.argv[1:-1], sys.argv[-1]
subprocess.run([*command, "create", "--bundle", bundle, "c1"], check=True, stdin=subprocess.DEVNULL, timeout=30)
state = json.loads(subprocess.check_output([*command, "state", "c1"]))
stat = open(f"/proc/{state['pid']}/stat").read().rpartition(")")[2].split()
print(int(stat[1]) == os.getpid())
subprocess.run([*command, "start", "c1"], check=True)
os.waitid(os.P_PID, state["pid"], os.WEXITED | os.WNOWAIT)
print(json.loads(subprocess.check_output([*command, "state", "c1"]))["status"])
print(os.waitpid(state["pid"], 0)[1] >> 8)
subprocess.run([*command, "delete", "c1"], check=True)
"""
    bundle = make_bundle(user, base_config("sh", "-c", "exit 7"))
    done = user.run(["/usr/bin/python3", "-c", driver, *rootless.argv(), bundle], check=True)
    assert done.stdout.split() == ["True", "stopped", "7"]


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a", "0", "n1.root.5.4294967291.0", "a_b+c-d.e", "-1", ".-1", "...", "A" * 255, "_", "+"]
)
def test_valid_ids(rootless, bundle, name):
    words = ["--", name] if name.startswith("-") else [name]
    done = rootless("create", "--bundle", bundle, *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
    assert rootless.list()[0]["id"] == name
    assert json.loads(rootless("state", *words).stdout)["status"] == "created"
    assert rootless("start", *words).returncode == 0
    assert rootless("kill", *(["--", name, "KILL"] if name.startswith("-") else [name, "KILL"])).returncode == 0
    assert rootless("delete", "--force", *words).returncode == 0
    assert rootless.list() == []


BAD_IDS = ("", ".", "..", "a/b", "../a", "/tmp/a", "a b", "a\nb", "a\x1b[31m", "é", "a:b", "a@b", "A" * 256, "a*", "$a")


@pytest.mark.parametrize("verb", ["create", "state", "delete --force"])
def test_invalid_ids_are_refused(rootless, bundle, verb):
    flags = ["--bundle", bundle] if verb == "create" else []
    for name in BAD_IDS:
        done = rootless(*verb.split(), *flags, name)
        assert done.returncode == 1, name
        assert is_one_line(done.stderr), name
        assert done.stderr[:-1].isprintable(), name
        assert ("invalid id format" in done.stderr) or ("longer than 255 characters" in done.stderr), name
    assert not rootless.root.exists() or list(rootless.root.iterdir()) == []


def test_ids_of_slurm(rootless, bundle):
    name = "n1.root.5.4294967291.0"
    rootless.create(name, bundle)
    assert rootless.state(name)["id"] == name
    done = rootless("state", "n1.root.5.4294967291.-1")
    assert done.returncode == 1
    assert "container does not exist" in done.stderr
    assert rootless("kill", "-a", name).returncode == 0
    until(lambda: rootless.status(name) == "stopped", "the container ends")
    assert rootless("delete", "--force", name).returncode == 0


# --- inheritance -----------------------------------------------------------------------------------------------------


def test_the_streams_of_create_are_those_of_the_container(rootless, user):
    script = "cat; echo to stderr >&2; readlink /proc/self/fd/0"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    given = user.tmp / "given"
    given.write_text("from a file\n")
    with given.open() as stdin:
        rootless.create("c1", bundle, stdin=stdin)
    pid = rootless.pid("c1")
    done = rootless("start", "c1", input="not for the container")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    await_end(pid)
    assert rootless.output("c1").startswith("from a file\n")
    assert rootless.complaints("c1") == "to stderr\n"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_only_preserved_descriptors_are_inherited(rootless, user, count):
    script = "exec 2>/dev/null; for n in 3 4 5 6 7 8 9; do (cat <&$n) 2>/dev/null; done; ls /proc/self/fd"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    files = []
    for number in range(3, 10):
        path = user.tmp / f"file{number}"
        path.write_text(f"file {number}\n")
        files.append(path)
    redirect = " ".join(f"{number}<{path}" for number, path in zip(range(3, 10), files, strict=True))
    flags = f"--preserve-fds {count}" if count else ""
    words = " ".join(rootless.argv())
    out = user.tmp / "out"
    user.run(["sh", "-c", f"{words} create {flags} --bundle {bundle} c1 >{out} 2>&1 {redirect}"], check=True)
    pid = rootless.pid("c1")
    held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")} if os.geteuid() in (0, user.uid) else set()
    assert {number for number in held if 3 <= number < 3 + count} == set(range(3, 3 + count))
    paths = {os.readlink(f"/proc/{pid}/fd/{number}") for number in held}
    assert paths.isdisjoint(str(path) for path in files[count:]), "the waiting process has no stray descriptor either"
    rootless.start("c1")
    await_end(pid)
    lines = out.read_text().splitlines()
    assert lines[:count] == [f"file {number}" for number in range(3, 3 + count)]
    # the last one is the directory that ls is reading
    assert lines[count:] == [str(number) for number in range(3 + count + 1)]


@pytest.mark.parametrize(("count", "cause"), [(1, "descriptor 3 is"), (3, "descriptors 3 to 5 are")])
def test_closed_descriptors_cannot_be_preserved(rootless, user, bundle, count, cause):
    words = " ".join(rootless.argv())
    done = user.run(["sh", "-c", f"exec 6</dev/null; {words} create --preserve-fds {count} --bundle {bundle} c1"])
    assert done.returncode == 1
    assert done.stderr == (
        f"rootless: --preserve-fds {count}: {cause} not open; fix: open one of them before, or leave the flag out\n"
    )
    assert rootless.list() == []


@pytest.mark.parametrize(("opened", "seen"), [("5", "0 1 2 3 5"), ("4", "0 1 2 3 4"), ("3 5 6", "0 1 2 3 4 5")])
def test_a_gap_among_preserved_descriptors_is_a_gap_in_the_container(rootless, user, opened, seen):
    """No descriptor of the runtime gets its number; podman run --preserve-fd 5 passes --preserve-fds 3."""
    script = "exec 2>/dev/null; ls /proc/self/fd | tr '\\n' ' '; for n in 3 4 5 6; do cat <&$n; done; true"
    files = {number: user.tmp / f"file{number}" for number in opened.split()}
    for number, path in files.items():
        path.write_text(f"{number} ")
    redirect = " ".join(f"{number}<{path}" for number, path in files.items())
    passed = [number for number in files if number < "6"]
    words = " ".join(rootless.argv())
    bundle = make_bundle(user, base_config("sh", "-c", script))

    ran = user.run(["sh", "-c", f"{words} run --preserve-fds 3 --bundle {bundle} c1 {redirect}"], check=True)

    # the last one is the directory that ls is reading
    assert ran.stdout.split() == [*seen.split(), *passed]
    rootless.create("c2", make_bundle(user, base_config("sleep", "1000"), name="other"))
    rootless.start("c2")
    line = f'{words} exec --preserve-fds 3 c2 sh -c "$SCRIPT" {redirect}'
    entered = user.run(["sh", "-c", line], env={"SCRIPT": script}, check=True)
    assert entered.stdout.split() == [*seen.split(), *passed]


def test_callers_environment_stays_outside(rootless, user):
    config = base_config("sh", "-c", "tr '\\0' '\\n' </proc/self/environ; echo --; env")
    config["process"]["env"] = ["PATH=/bin", "A=b", "A=c", "EMPTY=", "BLANK= x y "]
    bundle = make_bundle(user, config)
    caller = {"SECRET": "of the caller", "_OCI_SYNCPIPE": "3", "LISTEN_FDS": "0", "LISTEN_PID": "1"}
    rootless.create("c1", bundle, env=caller)
    pid = rootless.pid("c1")
    assert b"SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
    rootless.start("c1")
    await_end(pid)
    exact, _, seen = rootless.output("c1").partition("--\n")
    assert exact.splitlines() == ["PATH=/bin", "A=c", "EMPTY=", "BLANK= x y ", "HOME=/root"]
    assert "SECRET" not in seen
    assert "LISTEN_" not in seen


@pytest.mark.crun
@pytest.mark.parametrize("given", [["HOME=/first", "HOME=/last"], ["HOME=/first", "HOME="], ["HOME=", "HOME=/last"]])
def test_last_value_of_a_duplicate_variable_counts(either, user, given):
    config = config_with_maps(user, "cat", "/proc/self/environ")
    config["process"]["env"] = ["PATH=/nowhere", "ONE=1", *given, "ONE=2", "PATH=/bin"]
    home = given[-1] if given[-1] != "HOME=" else "HOME=/root"
    if given[-1] == "HOME=" and either.oracle:
        pytest.skip("runc before 1.2 and crun keep an empty HOME")
    assert sorted(either.run(config, check=True).stdout.strip("\0").split("\0")) == [home, "ONE=2", "PATH=/bin"]


def test_exec_passes_a_variable_once(rootless, user):
    bundle = make_bundle(user, base_config("sleep", "600"))
    rootless.create("c1", bundle)
    process = user.tmp / "process"
    env = ["PATH=/nowhere", "ONE=0", "ONE=1", "HOME=/first", "HOME=", "PATH=/bin"]
    process.write_text(json.dumps({"args": ["cat", "/proc/self/environ"], "cwd": "/", "env": env}))
    seen = rootless("exec", "--process", process, "--env", "ONE=2", "c1", check=True).stdout
    assert sorted(seen.strip("\0").split("\0")) == ["HOME=/root", "ONE=2", "PATH=/bin"]


def test_umask_and_signal_dispositions_are_reset(rootless, user):
    bundle = make_bundle(user, base_config("grep", "-E", "^(Sig...|Umask|ShdPnd):", "/proc/self/status"))
    ignoring = "import os, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 10, 13, 15)]; "
    ignoring += "signal.pthread_sigmask(signal.SIG_BLOCK, [12]); os.umask(0o077); os.execv(sys.argv[1], sys.argv[1:])"
    words = ["/usr/bin/python3", "-c", ignoring, *rootless.argv("create", "--bundle", bundle, "c1")]
    out = user.tmp / "out"
    user.run(["sh", "-c", 'exec "$@" >"$0" 2>&1', out, *words], check=True)
    pid = rootless.pid("c1")
    rootless.start("c1")
    await_end(pid)
    fields = dict(line.split(":\t") for line in out.read_text().splitlines())
    assert (fields["Umask"], int(fields["SigBlk"], 16), int(fields["SigIgn"], 16)) == ("0022", 0, 0)
