"""Containers with their own cgroups, in a delegated part of a cgroup v2 tree, and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import Box, add_mount, as_real_root, set_namespaces
from tests.lib.bundles import base_config, own
from tests.lib.cgroup2 import InView, View, cgroup2
from tests.lib.cgroup_containers import FOREVER, bundle_for, cgroup_of, directory_of, procs, runs
from tests.lib.containers import PATIENCE, Rootless, await_end, until

__all__ = ["cgroup2", "runs"]  # the fixture

EVERY_NAMESPACE = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def with_cgroups(config, *options, namespaces=EVERY_NAMESPACE):
    """Add a cgroup namespace and a cgroup mount to a config."""
    set_namespaces(config, *namespaces)
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", *options)


@pytest.fixture
def running(runs, user):
    """A container c1 of a shell and two sleeping children."""
    runs.create("c1", bundle_for(user, "sleep 1000 & sleep 1001 & echo up; wait"))
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "the program runs")
    return runs


def cgroup2_path(runs):
    return f"/sys/fs/cgroup{runs.view.path}"


def events_of(directory):
    return dict(line.split() for line in (directory / "cgroup.events").read_text().splitlines())


# --- Its path ---------------------------------------------------------------------------------------------------------


def test_the_container_is_alone_in_a_cgroup_of_its_own(running, user):
    name = cgroup_of(running.view, running.pid("c1"))
    assert name.startswith("rootless-c1.")
    assert running.view.cgroups() == [name]
    found = procs(running.view.directory / name)
    assert running.pid("c1") in found
    assert len(found) == 3
    assert json.loads(running("ps", "--format", "json", "c1").stdout) == found
    assert (running.view.directory / name).stat().st_uid == user.uid
    assert running("delete", "--force", "c1").returncode == 0
    assert running.view.cgroups() == []


def test_container_begins_in_its_cgroup(runs, user, need):
    """CLONE_INTO_CGROUP: no process is moved."""
    bundle = bundle_for(user, "cat /proc/self/cgroup")
    trace = user.tmp / "trace"
    strace = [need("strace"), "-f", "-e", "trace=clone3,openat", "-o", trace]
    done = user.run([*strace, *runs.argv("run", "--bundle", bundle, "c1")], **View.options)
    assert "/rootless-c1." in done.stdout, done
    lines = trace.read_text().splitlines()
    assert [line for line in lines if "clone3" in line and "CLONE_INTO_CGROUP" in line and "= -1" not in line]
    (moved,) = [line for line in lines if "cgroup.procs" in line and "O_WRONLY" in line]
    assert f"{cgroup2_path(runs)}/cgroup.procs" in moved, "by the prefix of the View"


@pytest.mark.parametrize("how", ["", "namespace"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("relative/deep/c1", "relative/deep/c1"),
        ("/made/for/root", "made/for/root"),
        ("OWN/absolute", "absolute"),
        ("../../../escape", "escape"),
        ("user.slice:libpod:c1", "libpod-c1.scope"),
    ],
)
def test_cgroups_path_of_config_json(cgroup2, user, rootless_command, how, path, expected):  # noqa: PLR0917 - fixtures
    runs = InView(cgroup2, user, rootless_command, how=how)
    path = path.replace("OWN", "" if how else cgroup2.path)
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath=path))
    with runs:
        runs.create("c1", bundle)
        assert cgroup_of(cgroup2, runs.pid("c1")) == expected
    assert cgroup2.cgroups() == []


def test_delegated_path_above_the_own_cgroup(cgroup2, user, rootless_command):
    own_cgroup = cgroup2.directory / "caller"
    own_cgroup.mkdir()
    cgroup2.delegate(own_cgroup)
    runs = InView(cgroup2, user, rootless_command, path=f"{cgroup2.path}/caller")
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath=f"{cgroup2.path}/beside/c1"))
    with runs:
        runs.create("c1", bundle)
        assert cgroup_of(cgroup2, runs.pid("c1")) == "beside/c1"


def test_cgroup_with_foreign_processes_is_refused(runs, user):
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath="/the/same"))
    runs.create("c1", bundle)
    done = runs.create("c2", bundle, check=False)
    assert done.returncode == 1
    assert "it is that of container c1 (config.json: linux.cgroupsPath); fix: rootless delete c1" in done.stderr
    assert runs.status("c1") == "created"
    assert runs("state", "c2").returncode == 1
    assert procs(runs.view.directory / "the/same") == [runs.pid("c1")]


def test_cgroup_of_a_container_of_another_root_is_refused(runs, user, rootless_command):
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath="/the/same"))
    runs.create("c1", bundle)
    other = InView(runs.view, user, rootless_command)
    other.root = user.tmp / "other"
    done = other.create("c2", bundle, check=False)
    assert done.returncode == 1
    assert (
        "container's cgroup is not empty: 1 process(es) found: it is another container's "
        "(config.json: linux.cgroupsPath)"
    ) in done.stderr
    assert procs(runs.view.directory / "the/same") == [runs.pid("c1")]


def test_cgroup_of_a_stopped_container_is_refused_until_its_deletion(runs, user):
    bundle = bundle_for(user, "sleep 600", change=lambda config: config["linux"].update(cgroupsPath="/the/same"))
    runs(
        "run",
        "--keep",
        "--bundle",
        bundle_for(user, "true", name="short", change=lambda config: config["linux"].update(cgroupsPath="/the/same")),
        "c1",
        check=True,
    )
    assert runs.status("c1") == "stopped"
    done = runs.create("c2", bundle, check=False)
    assert "it is that of container c1 (config.json: linux.cgroupsPath); fix: rootless delete c1" in done.stderr
    assert runs("delete", "c1").returncode == 0
    runs.create("c2", bundle)


@pytest.mark.parametrize("path", ["cgroup.procs", "new/cgroup.procs/c1", "a\nb/c"])
def test_impossible_cgroup_path_is_refused(runs, user, path):
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath=path))
    done = runs("run", "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: cannot make the cgroup /sys/fs/cgroup/")
    assert done.stderr.count("\n") == 1
    assert runs.view.cgroups() == []
    assert runs("list", "-q").stdout == ""


def test_existing_empty_cgroup_is_used(runs, user):
    (runs.view.directory / "prepared").mkdir()
    runs.view.delegate(runs.view.directory / "prepared")
    runs.create("c1", bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath="prepared")))
    assert cgroup_of(runs.view, runs.pid("c1")) == "prepared"
    runs("delete", "--force", "c1", check=True)
    (runs.view.directory / "prepared").rmdir()


def test_the_same_id_in_two_roots(runs, user, rootless_command):
    bundle = bundle_for(user)
    with InView(runs.view, user, rootless_command) as other:
        other.root = user.tmp / "other"
        runs.create("c1", bundle)
        other.create("c1", bundle)
        assert len(runs.view.cgroups()) == 2
    assert runs.view.cgroups() == [cgroup_of(runs.view, runs.pid("c1"))]


@pytest.mark.parametrize("name", ["cgroup.procs", "x" * 255, "+.-_"])
def test_every_id_can_name_a_cgroup(runs, user, name):
    bundle = bundle_for(user, "cat /proc/self/cgroup")
    assert "/rootless-" in runs("run", "--bundle", bundle, name, check=True).stdout


# --- Inside -----------------------------------------------------------------------------------------------------------

LOOK = "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>&1"


def test_own_cgroup_is_the_root_inside(runs, user):
    bundle = bundle_for(user, LOOK, change=lambda config: with_cgroups(config, "ro"))
    done = runs("run", "--bundle", bundle, "c1")
    lines = done.stdout.splitlines()
    assert "0::/" in lines
    assert "1" in lines
    assert lines[-1].endswith("Read-only file system")


def test_container_creates_cgroups_below_its_own(runs, user):
    script = "cd /sys/fs/cgroup; mkdir -p a/b c; for i in a/b c; do sleep 1000 & echo $! >$i/cgroup.procs; done"
    bundle = bundle_for(user, script, "echo up", "wait", change=lambda config: with_cgroups(config, "rw"))
    runs.create("c1", bundle)
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "it has made them")
    directory = directory_of(runs)
    inside = [procs(directory / name) for name in ("a/b", "c")]
    assert [len(found) for found in inside] == [1, 1]
    assert sorted([*procs(directory), *inside[0], *inside[1]]) == json.loads(runs("ps", "-f", "json", "c1").stdout)
    assert runs("pause", "c1").returncode == 0
    until(lambda: events_of(directory / "a/b")["frozen"] == "1", "those below are frozen")
    assert runs("delete", "--force", "c1").returncode == 0
    assert runs.view.cgroups() == []


def test_containers_user_owns_the_delegated_files(runs, user):
    def change(config):
        with_cgroups(config, "rw")
        config["process"]["user"] = {"uid": 33, "gid": 33}

    script = "cd /sys/fs/cgroup; stat -c '%n %u' . *; mkdir mine mine/deeper && sleep 1000 & echo $!"
    bundle = bundle_for(user, script, "sleep 1000", change=change)
    runs.create("c1", bundle)
    runs.start("c1")
    until((directory_of(runs) / "mine/deeper").exists, "it has made one")
    owners = dict(line.split() for line in runs.output("c1").splitlines() if " " in line)
    given = Path("/sys/kernel/cgroup/delegate").read_text().split()
    assert owners.pop(".") == "33"
    assert {name for name, uid in owners.items() if uid == "33"} == {name for name in given if name in owners}
    assert runs("kill", "--all", "c1", "KILL").returncode == 0
    assert runs("delete", "--force", "c1").returncode == 0
    assert runs.view.cgroups() == [], "cgroups of another user are removed too"


def test_container_cannot_reach_cgroups_above_its_own(runs, user):
    script = "cat /sys/fs/cgroup/../cgroup.procs; ls -d /sys/fs/cgroup/../*; cat /proc/1/cgroup | tail -n 1"
    done = runs("run", "--bundle", bundle_for(user, script, change=lambda config: with_cgroups(config, "rw")), "c1")
    assert runs.view.path not in done.stdout
    assert done.stdout.splitlines()[-1] == "0::/"


# --- pause, resume ----------------------------------------------------------------------------------------------------


def test_paused_is_a_separate_status(running):
    assert running("pause", "c1").returncode == 0
    assert events_of(directory_of(running))["frozen"] == "1"
    assert running.status("c1") == "paused"
    assert running.list()[0]["status"] == "paused"
    for verb, words in {
        "pause": "not running or created: paused",
        "exec": "cannot exec in a paused container",
        "delete": "cannot delete container c1 that is not stopped: paused",
        "start": "paused",
    }.items():
        done = running(verb, "c1", *(["true"] if verb == "exec" else []))
        assert done.returncode in (1, 255)
        assert words in done.stderr
    assert running("resume", "c1").returncode == 0
    assert running.status("c1") == "running"
    assert events_of(directory_of(running))["frozen"] == "0"
    done = running("resume", "c1")
    assert (done.returncode, done.stderr) == (1, "rootless: container c1: container not paused\n")


def test_pause_freezes_all_processes(runs, user):
    runs.create("c1", bundle_for(user, "while :; do echo x; sleep 0.01; done"))
    runs.start("c1")
    until(lambda: len(runs.output("c1")) > 20, "it counts")
    assert runs("pause", "c1").returncode == 0
    count = runs.output("c1")
    assert not runs("kill", "--all", "c1", "CONT").returncode
    assert runs("ps", "c1").returncode == 0
    assert runs.output("c1") == count
    assert runs("resume", "c1").returncode == 0
    until(lambda: len(runs.output("c1")) > len(count) + 20, "it counts on")


def test_created_container_is_paused_and_started_later(runs, user):
    runs.create("c1", bundle_for(user, "echo up; " + FOREVER))
    assert runs("pause", "c1").returncode == 0
    assert runs.status("c1") == "paused"
    assert runs("resume", "c1").returncode == 0
    assert runs.status("c1") == "created"
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "it runs")


def test_container_in_a_frozen_cgroup_is_paused_until_resumed(runs, user):
    """With `cgroup.freeze` in unified, it is set up and then frozen until `resume`."""

    def change(config):
        config["linux"]["resources"] = {"unified": {"cgroup.freeze": "1"}}

    runs.create("c1", bundle_for(user, "echo up; " + FOREVER, change=change))
    assert runs.status("c1") == "paused"
    assert events_of(directory_of(runs))["frozen"] == "1"
    assert runs("resume", "c1").returncode == 0
    assert runs.status("c1") == "created"
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "it runs")


@pytest.mark.parametrize("line", ["kill c1 KILL", "kill --all c1 KILL", "delete --force c1"])
def test_paused_container_can_be_killed(running, line):
    words = line.split()
    pid = running.pid("c1")
    found = procs(directory_of(running))
    assert running("pause", "c1").returncode == 0
    assert running(*words).returncode == 0
    for each in (pid, *found):
        await_end(each)
    if words[0] == "kill":
        until(lambda: running.status("c1") == "stopped", "it has stopped")
        assert running("delete", "c1").returncode == 0


def test_catchable_signal_waits_for_resume(runs, user):
    runs.create("c1", bundle_for(user, "trap 'echo told; exit' TERM; echo up; while :; do sleep 0.01; done"))
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "it runs")
    assert runs("pause", "c1").returncode == 0
    assert runs("kill", "c1", "TERM").returncode == 0
    assert runs.output("c1") == "up\n"
    assert runs("resume", "c1").returncode == 0
    until(lambda: runs.output("c1") == "up\ntold\n", "it got the signal")


# --- kill and the end -------------------------------------------------------------------------------------------------


def sharing_pids(config):
    set_namespaces(config, *[each for each in EVERY_NAMESPACE if each != "pid"])


def test_kill_reaches_all_processes_with_the_hosts_pids(runs, user):
    script = "setsid sleep 1000 & setsid sleep 1000 & echo up; wait"
    runs.create("c1", bundle_for(user, script, change=sharing_pids))
    runs.start("c1")
    until(lambda: len(procs(directory_of(runs))) == 3, "they run")
    found = procs(directory_of(runs))
    assert runs("kill", "--all", "c1", "KILL").returncode == 0
    for pid in found:
        await_end(pid)


def test_orphans_of_an_ended_container_are_killed(runs, user):
    runs.create("c1", bundle_for(user, "setsid sleep 1000 & echo up", change=sharing_pids))
    pid = runs.pid("c1")
    directory = directory_of(runs)
    runs.start("c1")
    await_end(pid)
    until(lambda: len(procs(directory)) == 1, "the orphan is alone")
    orphan = procs(directory)[0]
    assert runs.status("c1") == "stopped"
    assert runs("delete", "c1").returncode == 0
    await_end(orphan)
    assert runs.view.cgroups() == []


def test_container_of_another_boot_has_no_cgroup(runs, user):
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath="/the/same"))
    runs.create("old", bundle)
    runs("kill", "old", "KILL", check=True)
    until(lambda: runs.status("old") == "stopped", "it has stopped")
    state = runs.root / "old/state.json"
    found = json.loads(state.read_text())
    state.write_text(json.dumps(found | {"bootId": "another"}))
    runs.create("new", bundle)
    assert runs("kill", "--all", "old", "KILL").returncode == 0
    assert runs.status("new") == "created"


def test_signals_reach_all_or_one(runs, user):
    script = "for i in 1 2; do sh -c 'trap \"echo child\" USR1; echo up; while :; do sleep 0.01; done' & done"
    runs.create("c1", bundle_for(user, "trap 'echo first' USR1", script, "while :; do sleep 0.01; done"))
    runs.start("c1")
    until(lambda: runs.output("c1").count("up") == 2, "they run")
    assert runs("kill", "c1", "USR1").returncode == 0
    until(lambda: "first" in runs.output("c1"), "one got the signal")
    assert "child" not in runs.output("c1")
    assert runs("kill", "--all", "c1", "USR1").returncode == 0
    until(lambda: [runs.output("c1").count(word) for word in ("first", "child")] == [2, 2], "all got the signal")


def test_a_foreground_container_leaves_no_cgroup(runs, user):
    bundle = bundle_for(user, "sleep 1000 & exit 7")
    assert runs("run", "--bundle", bundle, "c1").returncode == 7
    assert runs.view.cgroups() == []
    assert runs("run", "--keep", "--bundle", bundle, "c2").returncode == 7
    assert len(runs.view.cgroups()) == 1
    assert runs("delete", "c2").returncode == 0


def test_failed_create_leaves_no_cgroup(runs, user):
    def change(config):
        config["process"]["args"] = ["/nope"]
        config["linux"]["cgroupsPath"] = "deep/er/c1"

    done = runs("run", "--bundle", bundle_for(user, change=change), "c1")
    assert done.returncode == 1
    assert runs.view.cgroups() == []


def test_foreign_process_in_the_cgroup_ends_with_the_container(runs, user):
    runs.create("c1", bundle_for(user))
    directory = directory_of(runs)
    stranger = user.popen(["sleep", "1000"])
    (directory / "cgroup.procs").write_text(str(stranger.pid))
    assert stranger.pid in json.loads(runs("ps", "--format", "json", "c1").stdout)
    assert runs("delete", "--force", "c1").returncode == 0
    assert stranger.wait(PATIENCE) == -signal.SIGKILL


def test_cgroup_that_is_already_removed(runs, user):
    runs.create("c1", bundle_for(user))
    directory, pid = directory_of(runs), runs.pid("c1")
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    until(lambda: events_of(directory)["populated"] == "0", "it is empty")
    directory.rmdir()
    assert runs.status("c1") == "stopped"
    assert runs("ps", "c1").returncode == 0
    assert runs("delete", "c1").returncode == 0


# --- Kills at any moment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "one/two"])
def test_cgroup_is_removed_after_a_kill_at_any_moment(runs, user, need, path):
    bundle = bundle_for(user, "true", change=lambda config: path and config["linux"].update(cgroupsPath=path))
    command = runs.argv("run", "--bundle", bundle, "c1")
    seen = set()
    for name, count in [(call, count) for call in ("mkdir", "rmdir") for count in (1, 2, 3)] + [("pivot_root", 1)]:
        inject = f"inject={name}:signal=KILL:when={count}"
        with open(user.tmp / "said", "w+") as said:
            words = [need("strace"), "-qq", "-f", "-o", "/dev/null", "-e", inject, *command]
            user.run(words, stdout=said, stderr=said, **View.options)
        seen.update(runs.view.cgroups())
        assert runs("delete", "--force", "c1").returncode == 0
        assert runs.view.cgroups() == [], (name, count)
    assert seen, "no moment came after the creation of the cgroup"
    assert runs("run", "--bundle", bundle, "c1").returncode == 0


def test_unconfirmed_note_kills_no_process(runs, user):
    """The command was killed before it knew whose the cgroup is: only an empty one is removed."""
    runs.create("c1", bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath="mine")))
    (runs.root / "c2").mkdir(mode=0o700)
    note = (runs.root / "c1/undo").read_text().splitlines()[-1]
    assert '"certainty":"own"' in note
    (runs.root / "c2/undo").write_text(note.replace('"own"', '"perhaps"') + "\n")
    own(user, runs.root / "c2")
    assert runs("delete", "--force", "c2").returncode == 0
    assert runs.status("c1") == "created"
    assert not (runs.root / "c2").exists()


def test_the_note_of_a_killed_create_keeps_its_cgroup_from_others(runs, user):
    """The undo of that note kills every process in the cgroup."""
    bundle = bundle_for(user, change=lambda config: config["linux"].update(cgroupsPath="mine"))
    runs.create("c1", bundle)
    notes = (runs.root / "c1/undo").read_text()
    assert runs("delete", "--force", "c1").returncode == 0
    (runs.root / "killed").mkdir(mode=0o700)
    (runs.root / "killed/undo").write_text(notes)
    own(user, runs.root / "killed")
    done = runs.create("c1", bundle, check=False)
    assert "it is that of container killed (config.json: linux.cgroupsPath)" in done.stderr
    assert "fix: rootless delete --force killed, or name another" in done.stderr
    assert runs("delete", "--force", "killed").returncode == 0
    runs.create("c1", bundle)
    assert runs.status("c1") == "created"


NOTE = '["cgroup","BOOT",{"path":"PATH","parents":[],"certainty":"own","unit":"","userManager":""}'


@pytest.mark.parametrize(
    "note", ["", "x\n", "[]\n", '["cgroup"]\n', '["cgroup","BOOT",7]\n', NOTE, NOTE.replace("BOOT", "before") + "]\n"]
)
def test_note_of_another_boot_kills_no_process(runs, user, note):
    runs.create("c1", bundle_for(user))
    (runs.root / "c2").mkdir(mode=0o700)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (runs.root / "c2/undo").write_text(note.replace("PATH", str(runs.view.path)).replace("BOOT", boot))
    own(user, runs.root / "c2")
    assert runs("delete", "--force", "c2").returncode == 0
    assert runs.status("c1") == "created"


# --- exec -------------------------------------------------------------------------------------------------------------


def test_exec_starts_in_the_containers_cgroup(running, user, need):
    trace = user.tmp / "trace"
    strace = [need("strace"), "-f", "-e", "trace=clone3", "-o", trace]
    done = user.run([*strace, *running.argv("exec", "c1", "cat", "/proc/self/cgroup")], **View.options)
    assert f"/{cgroup_of(running.view, running.pid('c1'))}" in done.stdout, done
    assert "CLONE_INTO_CGROUP" in trace.read_text()


def test_exec_in_a_paused_container_waits(running, user):
    assert running("pause", "c1").returncode == 0
    with running.popen("exec", "--ignore-paused", "c1", "echo", "said", stdout=subprocess.PIPE) as process:
        until(lambda: len(procs(directory_of(running))) == 4, "it is in the cgroup")
        assert running.status("c1") == "paused"
        assert running("resume", "c1").returncode == 0
        assert process.communicate(timeout=PATIENCE)[0] == "said\n"


@pytest.fixture
def dividing(runs, user):
    """A container that has moved its sleep into a cgroup a/b, and prints its own."""
    script = "mkdir -p /sys/fs/cgroup/a/b; sleep 1000 & echo $! >/sys/fs/cgroup/a/b/cgroup.procs; echo up; wait"
    runs.create("c1", bundle_for(user, script, change=lambda config: with_cgroups(config, "rw")))
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "it has made it")
    return runs


def test_exec_can_be_in_a_cgroup_below(dividing):
    for path, expected in (("a/b", "0::/a/b"), ("/a", "0::/a"), ("/", "0::/")):
        done = dividing("exec", "--cgroup", path, "c1", "tail", "-n", "1", "/proc/self/cgroup", check=True)
        assert done.stdout.strip() == expected
    done = dividing("exec", "--cgroup", "nowhere", "c1", "true")
    assert done.returncode == 255
    assert "no such file or directory; fix: name one that the container has made" in done.stderr


# --- events, update ---------------------------------------------------------------------------------------------------


def test_stats_are_those_of_the_cgroup(running):
    done = running("events", "--stats", "c1", check=True)
    event = json.loads(done.stdout)
    assert (event["type"], event["id"]) == ("stats", "c1")
    assert {"cpu", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"} <= event["data"].keys()
    assert event["data"]["cpu"]["usage"]["total"] > 0


def test_events_come_until_the_container_ends(running):
    with running.popen("events", "--interval", "20ms", "c1", stdout=subprocess.PIPE) as process:
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert running("kill", "c1", "KILL").returncode == 0
        assert process.wait(PATIENCE) == 0
    assert [line["type"] for line in lines] == ["stats"] * 3
    totals = [line["data"]["cpu"]["usage"]["total"] for line in lines]
    assert totals == sorted(totals)


@pytest.mark.parametrize("interval", ["x", "5", "-1s", "0s", "5y", "s"])
def test_invalid_interval_is_refused(running, interval):
    done = running("events", f"--interval={interval}", "c1")
    assert done.returncode == 1
    assert f"--interval {interval}: it is not a time" in done.stderr


def test_update_without_controllers_is_reported(running):
    done = running("update", "--memory", "64m", "--pids-limit", "5", "c1")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("rootless: warning: limits that are not enforced: ")
    assert "--memory" in line
    assert "--pids-limit" in line
    assert running("update", "--require-limits", "--memory", "64m", "c1").returncode == 1


@pytest.mark.parametrize(
    ("words", "given", "named"),
    [
        (["--kernel-memory", "64m"], None, "--kernel-memory"),
        (["--kernel-memory-tcp", "1g"], None, "--kernel-memory-tcp"),
        (["--resources", "-"], '{"memory": {"kernel": 1048576}}', "memory.kernel"),
    ],
)
def test_update_without_counterpart_in_v2_is_a_warning(running, words, given, named):
    done = running("update", *words, "c1", input=given)
    assert done.returncode == 0
    assert done.stderr == (
        f"rootless: warning: limits that are not enforced: {named}: it is deprecated, and cgroup v2 has nothing of the "
        "kind; fix: leave it out\n"
    )
    assert running("update", "--require-limits", *words, "c1", input=given).returncode == 1


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--memory", "lots"], "--memory lots: it is not a number"),
        (["--memory", "1m", "--memory-swap", "1k"], "--memory-swap: cannot limit resources"),
        (["--cpu-rt-runtime", "5"], "--cpu-rt-runtime: cannot limit resources: cgroup v2 has no realtime limits"),
        (["--resources", "/nowhere"], "--resources: cannot read /nowhere: no such file"),
        (["--l3-cache-schema", "L3:0=f"], "settled when it is created"),
    ],
)
def test_invalid_update_is_refused(running, words, cause):
    done = running("update", *words, "c1")
    assert done.returncode == 1
    assert cause in done.stderr


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "standard input: not valid JSON"),
        ('{"memory": {"limit": "x"}}', "the resources are not valid: "),
        ('{"memory": {"limit": -5}}', "(standard input: memory.limit)"),
    ],
)
def test_resources_on_standard_input_are_checked(running, text, cause):
    done = running("update", "--resources", "-", "c1", input=text)
    assert done.returncode == 1
    assert cause in done.stderr
    assert running("update", "-r", "-", "c1", input='{"cpu": {}, "devices": null}').returncode == 0


def test_update_writes_a_file_of_unified(running):
    resources = '{"unified": {"cgroup.max.descendants": "7"}}'
    assert running("update", "--resources", "-", "c1", input=resources).returncode == 0
    assert (directory_of(running) / "cgroup.max.descendants").read_text() == "7\n"
    done = running("update", "--resources", "-", "c1", input='{"unified": {"cgroup.max.descendants": "x"}}')
    assert done.returncode == 1
    assert "write 'x' to cgroup.max.descendants: the kernel does not take this value" in done.stderr


def test_partly_refused_update_changes_nothing(running):
    resources = '{"unified": {"cgroup.max.depth": "3", "cgroup.max.descendants": "x"}}'
    done = running("update", "--resources", "-", "c1", input=resources)
    assert done.returncode == 1
    assert "write 'x' to cgroup.max.descendants" in done.stderr
    assert (directory_of(running) / "cgroup.max.depth").read_text() == "max\n"


def test_unified_is_written_before_the_program_runs(runs, user):
    def change(config):
        with_cgroups(config, "ro")
        config["linux"]["resources"] = {"unified": {"cgroup.max.depth": "3"}}

    bundle = bundle_for(user, "cat /sys/fs/cgroup/cgroup.max.depth", change=change)
    done = runs("run", "--bundle", bundle, "c1")
    assert (done.stdout, done.stderr) == ("3\n", "")


# --- Without a cgroup -------------------------------------------------------------------------------------------------


def limits(config):
    config["linux"]["resources"] = {"memory": {"limit": 1 << 28}, "pids": {"limit": 99}}


NAMED = "rootless: warning: limits that are not enforced: memory.limit, pids.limit: "


def test_container_runs_without_a_cgroup(runs, user):
    bundle = bundle_for(user, "cat /proc/self/cgroup", change=limits)
    words = runs.argv("--cgroup-manager", "disabled", "run", "--bundle", bundle, "c1")
    done = user.run(words, **View.options)
    assert f"0::{runs.view.path}" in done.stdout.splitlines()
    assert done.stderr.startswith(NAMED + "--cgroup-manager disabled")


def test_real_root_needs_no_delegation(user, rootless_command, cgroup2):
    box = as_real_root(Box(user, [rootless_command]))
    words = [*cgroup2.prefix()]
    words[-3:-1] = ["0", "0"]
    box.command = [*words, *box.command]
    lines = box.lines(base_config(), "cat /proc/self/cgroup")
    assert [line for line in lines if line.startswith(f"0::{cgroup2.path}/rootless-box.")]
    assert set(cgroup2.cgroups()) <= {"rootless.caller"}


# --- Comparison with crun and runc ------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.crun
@pytest.mark.parametrize("oracle", ["crun", "runc"])
def test_cgroup_files_equal_those_of_other_runtimes(runs, user, need, oracle):
    """At the same path, the same config.json leads to the same values."""

    def change(config):
        set_namespaces(config, *EVERY_NAMESPACE, "user")
        for key in ("uidMappings", "gidMappings"):
            config["linux"][key] = [{"containerID": 0, "hostID": getattr(user, key[:3]), "size": 1}]
        config["process"]["user"] = {"uid": 0, "gid": 0}
        config["linux"]["cgroupsPath"] = f"{runs.view.path}/compared"
        config["linux"]["resources"] = {"unified": {"cgroup.max.depth": "4", "cgroup.max.descendants": "9"}}
        config["mounts"] = [each for each in config["mounts"] if each["destination"] not in ("/dev/pts", "/sys")]

    bundle = bundle_for(user, change=change)
    directory = runs.view.directory / "compared"
    other = [*runs.before, need(oracle), "--root", user.tmp / oracle]

    def files():
        return {
            path.name: (path.read_text(), path.stat().st_uid)
            for path in sorted(directory.iterdir())
            if path.name in ("cgroup.freeze", "cgroup.max.depth", "cgroup.max.descendants", "cgroup.subtree_control")
        }

    def verb(command, *words):
        with open(user.tmp / "said", "w+") as said:
            done = user.run([*command, *words], stdout=said, stderr=said, **View.options)
        assert done.returncode == 0, (user.tmp / "said").read_text()

    ours = [*runs.before, *Rootless.argv(runs)]
    found = []
    for command in (other, ours):
        verb(command, "create", "--bundle", bundle, "both")
        found.append([files()])
        for word in ("pause", "resume"):
            verb(command, word, "both")
            found[-1].append(files())
        verb(command, "delete", "--force", "both")
        assert not directory.exists()
    assert found[0] == found[1]


# --- Foreign cgroups --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["cold", "cold/below/c1"])
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_frozen_cgroup_is_refused(runs, user, verb, path):
    cold = runs.view.directory / "cold"
    cold.mkdir()
    runs.view.delegate(cold)
    (cold / "cgroup.freeze").write_text("1")
    bundle = bundle_for(user, "true", change=lambda config: config["linux"].update(cgroupsPath=path))
    done = runs(verb, "--bundle", bundle, "c1")
    assert done.returncode == 1
    assert f"{cgroup2_path(runs)}/cold" in done.stderr
    assert "is frozen (config.json: linux.cgroupsPath); fix: resume the container" in done.stderr
    assert "(rootless resume)" in done.stderr
    assert runs.list() == []
    cold.rmdir()


@pytest.mark.parametrize("uid", [0, 33], ids=["the caller", "another owner"])
def test_existing_cgroup_stays(runs, user, uid):
    mine = runs.view.directory / "mine"
    mine.mkdir()
    runs.view.delegate(mine)

    def change(config):
        config["linux"]["cgroupsPath"] = "mine"
        config["process"]["user"] = {"uid": uid, "gid": uid}
        with_cgroups(config)

    runs.create("c1", bundle_for(user, "mkdir -p /sys/fs/cgroup/a/b; sleep 1000 & echo up; wait", change=change))
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n", "the program runs")
    assert (mine / "a/b").is_dir()
    runs("delete", "--force", "c1", check=True)
    assert procs(mine) == []
    mine.rmdir()  # no process of the container is in it


def test_exec_follows_moved_processes(running):
    directory = directory_of(running)
    elsewhere = running.view.directory / "elsewhere"
    elsewhere.mkdir()
    running.view.delegate(elsewhere)
    for pid in procs(directory):
        (elsewhere / "cgroup.procs").write_text(str(pid))
    directory.rmdir()
    done = running("exec", "c1", "cat", "/proc/self/cgroup", check=True)
    assert done.stdout.splitlines()[-1].endswith("/elsewhere")
    running("delete", "--force", "c1", check=True)
    until(lambda: procs(elsewhere) == [], "its end")
    elsewhere.rmdir()


def test_exec_from_another_session_stays_in_its_cgroup_with_a_warning(running, user, rootless_command):
    """Only root may move a process from there (cgroup-v2.rst, "Delegation Containment"); runc does the same."""
    login = running.view.top / "login"
    login.mkdir()
    other = InView(running.view, user, rootless_command, path=f"/{login.relative_to(running.view.top.parent)}")
    done = other("exec", "c1", "cat", "/proc/self/cgroup", check=True)
    assert done.stdout.splitlines()[-1].endswith("/login")
    assert "rootless: warning: the process stays in the caller's cgroup: it may not move into " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["../..", "..", "a/../../b"])
def test_exec_into_a_cgroup_above_is_refused(running, path):
    done = running("exec", "--cgroup", path, "c1", "true")
    assert (done.returncode, done.stderr.startswith(f"rootless: --cgroup {path}: it may lead out of ")) == (255, True)


def test_kill_ends_all_processes_in_the_cgroup_without_a_pid_namespace(runs, user):
    bundle = bundle_for(
        user,
        "(setsid sleep 1000 &)\nsleep 1001 & echo up; wait",
        change=lambda config: set_namespaces(config, "mount", "network", "ipc", "uts"),
    )
    runs.create("c1", bundle)
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n" and len(procs(directory_of(runs))) == 3, "the program runs")
    found = procs(directory_of(runs))
    runs("kill", "c1", "KILL", check=True)
    for pid in found:
        await_end(pid)
