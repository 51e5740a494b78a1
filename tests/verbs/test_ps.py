"""`ps`, and other verbs that act on all processes of a container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import await_end, in_mount_namespace_of, until

TWO = "sleep 600 & sleep 601 & wait"


@pytest.fixture
def running(user, rootless):
    """A container with a shell and two children."""
    rootless.create("c1", make_bundle(user, base_config("sh", "-c", TWO)))
    rootless.start("c1")
    await_members(rootless, "c1", 3)
    return rootless


def pids(rootless, container):
    done = rootless("ps", "--format", "json", container)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def await_members(rootless, container, count):
    until(lambda: len(pids(rootless, container)) == count, f"{count} processes")


def test_ps_prints_pids_of_the_host(running):
    first = running.pid("c1")
    found = pids(running, "c1")
    assert found == sorted(found)
    assert set(found) == {first} | in_mount_namespace_of(first)


def test_without_a_pid_namespace_the_mount_namespace_counts(user, rootless):
    config = base_config("sh", "-c", TWO)
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    rootless.create("c1", make_bundle(user, config))
    rootless.start("c1")
    await_members(rootless, "c1", 3)
    first = rootless.pid("c1")
    members = in_mount_namespace_of(first) | {first}
    assert set(pids(rootless, "c1")) == members
    assert rootless("kill", "--all", "c1", "KILL").returncode == 0
    for pid in members:
        await_end(pid)


def test_a_created_container_has_one_and_a_stopped_one_none(user, rootless):
    rootless.create("c1", make_bundle(user, base_config("true")))
    first = rootless.pid("c1")
    assert pids(rootless, "c1") == [first]
    rootless.start("c1")
    until(lambda: rootless.status("c1") == "stopped", "the end")
    assert pids(rootless, "c1") == []
    assert rootless("ps", "c1").stdout.split()[1] == "PID"
    assert len(rootless("ps", "c1").stdout.splitlines()) == 1


def test_the_table_is_that_of_ps(running):
    head, *lines = running("ps", "c1", check=True).stdout.splitlines()
    assert head.split()[:3] == ["UID", "PID", "PPID"]
    assert [int(line.split()[1]) for line in lines] == pids(running, "c1")
    assert sum(line.endswith("sleep 601") for line in lines) == 1


@pytest.mark.parametrize("options", ["-e -o pid,args", "-- -eo pid,args", "axo pid,args", "-eLo pid,lwp"])
def test_options_for_ps(running, options):
    head, *lines = running("ps", "c1", *options.split(), check=True).stdout.splitlines()
    assert head.split()[0] == "PID"
    assert [int(line.split()[0]) for line in lines] == pids(running, "c1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nope"], "ps --nope: error: unknown gnu long option; fix: "),
        (["-eo", "args"], "its table has no column PID; fix: add the column"),
        (["-eo", "lstart,pid"], "is no process id; fix: put the column PID before"),
    ],
)
def test_unknown_ps_column_is_refused(running, options, words):
    done = running("ps", "c1", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_ps_program(running, user, rootless_command):
    (user.tmp / "empty").mkdir()
    done = running("ps", "c1", env={"PATH": str(user.tmp / "empty")})
    assert done.returncode == 1
    assert "no such file or directory; fix: install procps, or use rootless ps --format json" in done.stderr


def test_an_unknown_container(rootless):
    done = rootless("ps", "--format", "json", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "container does not exist" in done.stderr


def test_ps_includes_processes_of_exec(running):
    before = pids(running, "c1")
    running("exec", "--detach", "c1", "sleep", "602", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await_members(running, "c1", 4)
    [executed] = set(pids(running, "c1")) - set(before)
    running("kill", "--all", "c1", "KILL", check=True)
    for pid in (*before, executed):
        await_end(pid)


def test_kill_all_reaches_every_process(user, rootless):
    child = "(trap 'echo child; exit' TERM; while :; do sleep 0.1; done) &"
    script = f"trap 'echo first; told=yes' TERM; {child} {child} until [ $told ]; do wait; sleep 0.1; done; wait"
    rootless.create("c1", make_bundle(user, base_config("sh", "-c", script)))
    rootless.start("c1")
    first = rootless.pid("c1")
    until(lambda: caught(pids(rootless, "c1"), signal.SIGTERM) == 3, "three traps")
    assert rootless("kill", "--all", "c1").returncode == 0
    await_end(first)
    assert sorted(rootless.output("c1").split()) == ["child", "child", "first"]
    assert rootless("kill", "--all", "c1").returncode == 0
    done = rootless("kill", "c1")
    assert (done.returncode, "container not running" in done.stderr) == (1, True)


def caught(members, number):
    """Return the number of processes that catch a signal."""
    count = 0
    for pid in members:
        try:
            with open(f"/proc/{pid}/status") as file:
                mask = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt:"))
        except OSError:
            continue
        count += mask >> (number - 1) & 1
    return count


def test_running_container_is_deleted_only_by_force(running):
    done = running("delete", "c1")
    assert done.returncode == 1
    assert "cannot delete container c1 that is not stopped: running" in done.stderr
    members = pids(running, "c1")
    begin = time.monotonic()
    assert running("delete", "--force", "c1").returncode == 0
    assert time.monotonic() - begin < 5, "it waits for exactly that process"
    assert not [pid for pid in members if os.path.exists(f"/proc/{pid}/ns/mnt") and alive(pid)]
    assert running("state", "c1").returncode == 1


def alive(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("line", ["pause", "resume", "update --memory 64m", "events --stats"])
def test_verbs_that_need_a_cgroup_are_refused(running, line):
    done = running(*line.split(), "c1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "it has no cgroup of its own: " in done.stderr
    assert running.status("c1") == "running"


def test_an_ordinary_user_cannot_checkpoint(running, user):
    done = running("checkpoint", "--image-path", "saved", "c1")
    assert (done.returncode, done.stdout) == (1, "")
    cause = f"criu needs root on the host, and you are {user.name}"
    assert done.stderr == f"rootless: cannot checkpoint or restore: {cause}; fix: run it as root\n"
    assert not (user.tmp / "saved").exists()
    assert running.status("c1") == "running"
    assert "criu needs root" in running("restore", "--bundle", user.tmp / "bundle", "c2").stderr
    assert running("checkpoint", "nobody").stderr.startswith("rootless: container nobody: container does not exist")
