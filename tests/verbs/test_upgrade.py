"""Containers of the previous release under this one, and of this one under the previous."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.lib.bundles import base_config, make_bundle, own
from tests.lib.containers import Reader, Rootless, await_end, until
from tests.lib.installing import CHECKOUT
from tests.lib.native import Runs, warm

PREVIOUS = "b691e2e194601972b732d2519edf07ec62b45e48"
"""The previous release: a tag. Before the first release, the last commit with cached Plans of format 1."""
RECORD = CHECKOUT / "tests/lib/data/previous_state.json"
"""What that release wrote as state.json for the bundle below."""
PROGRAM = ("sh", "-c", "echo begun; read line; echo $line")
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.fixture(scope="module")
def previous(module_user, need):
    """The command of the previous release, built from the repository that tests/run has copied."""
    repository = os.environ.get("ROOTLESS_TEST_CHECKOUT", CHECKOUT)
    words = [need("git"), "-c", "safe.directory=*", "-C", repository, "archive", PREVIOUS]
    archive = subprocess.run(words, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"needs {PREVIOUS} in the repository of the checkout; a shallow clone does not have it")
    tree, command = module_user.tmp / "previous", module_user.tmp / "bin/rootless"
    tree.mkdir()
    command.parent.mkdir()
    subprocess.run(["tar", "-xC", tree], input=archive.stdout, check=True)
    subprocess.run([sys.executable, tree / "helpers/init/build.py"], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "rootless.installation", command], cwd=tree, check=True)
    return str(command)


@pytest.fixture(params=["upgrade", "downgrade"])
def releases(request, user, previous, rootless_command):
    """The command that makes containers, and the one that replaces it; both for one state directory."""
    shutil.rmtree(user.runtime_dir / "rootless/@plans", ignore_errors=True)
    commands = (previous, rootless_command) if request.param == "upgrade" else (rootless_command, previous)
    with Rootless(user, commands[0]) as before, Rootless(user, commands[1]) as after:
        yield before, after


def test_running_containers_go_on_under_the_other_release(user, releases):
    before, after = releases
    bundle = make_bundle(user, base_config(*PROGRAM))
    hook = user.tmp / "hook-has-run"
    config = base_config("sleep", "1000")
    config["hooks"] = {"poststop": [{"path": "/usr/bin/touch", "args": ["touch", str(hook)]}]}
    before.create("runs", make_bundle(user, config, name="hooked"))
    before.start("runs")
    before.create("waits", bundle)
    assert before("run", "-d", "--name", "detached", bundle).returncode == 0
    until(lambda: after.status("detached") == "stopped", "it has read the end of its input")
    with before.popen("run", "--bundle", bundle, "foreground", **PIPES) as foreground:
        assert Reader(foreground.stdout).line() == "begun"
        statuses = {each["id"]: each["status"] for each in after.list()}
        assert statuses == {"runs": "running", "foreground": "running", "waits": "created", "detached": "stopped"}
        assert set(after("list", "-q").stdout.split()) == statuses.keys()
        foreground.communicate("the end\n", timeout=30)
        assert foreground.returncode == 0

    done = after("exec", "runs", "sh", "-c", "echo inside; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "inside\n", "")
    assert len(json.loads(after("ps", "--format", "json", "runs").stdout)) == 1
    after.start("waits")
    until(lambda: after.output("waits") == "begun\n\n", "the program has run")
    until(lambda: after.status("waits") == "stopped", "its end is seen")
    assert after("delete", "waits").returncode == 0
    pid = after.pid("runs")
    assert after("kill", "runs", "KILL").returncode == 0
    await_end(pid)
    assert after("delete", "runs").returncode == 0
    assert hook.exists()
    assert after("logs", "detached").stdout == "begun\n\n"
    assert after("wait", "detached").stdout == "0\n"
    assert after("delete", "detached").returncode == 0
    assert not [path for path in before.root.iterdir() if not path.name.startswith("@")]


def test_a_detached_container_is_stopped_and_run_again_by_the_other_release(user, releases):
    before, after = releases
    bundle = make_bundle(user, base_config("sh", "-c", "trap 'exit 7' TERM; echo begun; while :; do sleep 1; done"))
    assert before("run", "-d", "--name", "detached", bundle).returncode == 0
    until(lambda: "begun" in after("logs", "detached").stdout, "it runs")
    assert after("stop", "detached").returncode == 0
    assert after("wait", "detached").stdout == "7\n"
    assert after("restart", "detached").returncode == 0
    assert after.status("detached") == "running"
    assert after("delete", "--force", "detached").returncode == 0


def test_a_member_of_the_other_release_joins_a_group(user, releases):
    before, after = releases
    script = "readlink /proc/self/ns/user; read line"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    with before.popen("run", "--bundle", bundle, "--join=job", "first", **PIPES) as first:
        namespace = Reader(first.stdout).line()
        with after.popen("run", "--bundle", bundle, "--join=job", "second", **PIPES) as second:
            assert Reader(second.stdout).line() == namespace
            second.communicate("\n", timeout=30)
        first.communicate("\n", timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)
    assert list(before.root.iterdir()) == []


def test_a_cached_plan_of_the_other_release_is_not_followed(user, releases, need):
    before, after = releases
    words = ("run", "--bundle", make_bundle(user, base_config("echo", "done")), "c1")
    planned = warm(Runs(before, need), *words)
    plans = user.runtime_dir / "rootless/@plans"
    entries = {path.name: path.read_bytes() for path in plans.iterdir() if path.name != "seen"}
    assert entries
    runs = Runs(after, need)
    done, native = runs(*words)
    assert not native
    assert (done.returncode, done.stdout, done.stderr) == (0, planned.stdout, planned.stderr) == (0, "done\n", "")
    assert warm(runs, *words).stdout == "done\n"
    assert Runs(before, need)(*words)[0].stdout == "done\n"


def test_a_cached_exec_of_the_other_release_is_not_followed(user, releases, need):
    before, after = releases
    before.create("c1", make_bundle(user, base_config("sleep", "1000")))
    before.start("c1")
    words = ("exec", "c1", "echo", "inside")
    for _ in range(3):
        assert before(*words).stdout == "inside\n"
    done, native = Runs(after, need)(*words)
    assert (done.returncode, done.stdout, done.stderr, native) == (0, "inside\n", "", False)
    assert after("delete", "--force", "c1").returncode == 0
    assert list(before.root.iterdir()) == []


# --- Without the repository -------------------------------------------------------------------------------------------


def test_a_state_as_the_previous_release_wrote_it_is_used(user, rootless):
    """The record is of that release; what identifies the container comes from a living one."""
    bundle = make_bundle(user, base_config("sleep", "1000"))
    rootless.create("c1", bundle)
    file = rootless.root / "c1/state.json"
    present, record = json.loads(file.read_text()), json.loads(RECORD.read_text())
    identity = ("id", "pid", "startTime", "bootId", "bundle", "rootfs", "owner", "cgroup", "made")
    state = {name: value for name, value in record.items() if name not in identity}
    state |= {name: present[name] for name in identity if name in present}
    state["afterStart"]["first"] = present["afterStart"]["first"]
    file.write_text(json.dumps(state))
    rootless.start("c1")
    assert rootless.status("c1") == "running"
    assert [each["status"] for each in rootless.list()] == ["running"]
    assert rootless("exec", "c1", "echo", "inside").stdout == "inside\n"
    pid = rootless.pid("c1")
    assert rootless("kill", "c1", "KILL").returncode == 0
    await_end(pid)
    assert rootless("delete", "c1").returncode == 0
    assert list(rootless.root.iterdir()) == []


# --- Of a future release ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "start newer",
        "stop newer",
        "exec newer true",
        "ps newer",
        "pause newer",
        "update --pids-limit 9 newer",
        "delete newer",
        "clean",
    ],
)
def test_a_container_of_a_newer_release_stays_untouched(rootless, user, line):
    """After a downgrade each verb says so in one line, and the others go on."""
    bundle = make_bundle(user, base_config("sleep", "1000"))
    for name in ("newer", "present"):
        rootless.create(name, bundle)
        rootless.start(name)
    directory = rootless.root / "newer"
    file, record = directory / "state.json", directory / "status"
    pid, whole = rootless.pid("newer"), file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"format": 1000, "user": "somebody"}))
    record.write_bytes(b"RLSTAT9\0" + record.read_bytes()[8:])
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    done = rootless(*line.split())
    assert f"cannot use {file}: a newer release has written it" in done.stderr
    assert (bool(done.returncode), done.stdout, done.stderr.count("\n")) == (line != "clean", "", 1)
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()} == before
    os.kill(pid, 0)
    assert rootless.status("present") == "running"
    listed = rootless("list")
    assert "present" in listed.stdout
    assert listed.stderr.count("\n") == 1
    file.write_text(whole)


@pytest.mark.parametrize("sort", ["@groups", "@networks"])
def test_a_record_of_a_newer_release_stays_untouched(rootless, user, sort):
    """Its containers may run, and only that release knows where it has written them."""
    bundle = make_bundle(user, base_config("sleep", "1000"))
    rootless.create("c1", bundle)
    boot = json.loads((rootless.root / "c1/state.json").read_text())["bootId"]
    record = rootless.root / sort / "job/state.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"format": 1000, "bootId": boot, "entries": []}))
    own(user, record.parent.parent)
    done = rootless("clean")
    line = (
        f"cannot use {record}: a newer release has written it; fix: use that release until its containers have ended\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"rootless: warning: {line}")
    if sort == "@groups":
        done = rootless("run", "--join=job", "--bundle", bundle, "c2")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"rootless: {line}")
    assert json.loads(record.read_text())["format"] == 1000
    assert rootless("list", "-q").stdout == "c1\n"
