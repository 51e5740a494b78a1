"""`--debug`: each verb reports on standard error what it has read and decided."""

from __future__ import annotations

import re

import pytest

from tests.lib.boxes import make_volume
from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import cgroup2
from tests.lib.cgroup_containers import bundle_for, cgroup_of, runs
from tests.lib.checkpoints import begin_counting, make_counting_bundle, restore, root_with_criu
from tests.lib.containers import Rootless, until

__all__ = ["cgroup2", "runs"]  # fixtures


def debug(rootless, *words, status=0):
    """Return the debug messages of a verb."""
    done = rootless("--debug", *words)
    assert done.returncode == status, done
    return re.findall(r'level=debug msg="(.*?)"(?: |$)', done.stderr, re.MULTILINE)


@pytest.fixture
def created(user, rootless):
    """A container c1 without a cgroup, not started."""
    rootless.create("c1", make_bundle(user, base_config("true")), "--network", "none")
    return rootless


@pytest.fixture
def running(runs, user):
    """A container c1 that sleeps in its own cgroup, and that cgroup."""
    runs.create("c1", bundle_for(user, "exec sleep 1000"))
    runs.start("c1")
    return runs, f"/sys/fs/cgroup{runs.view.path}/{cgroup_of(runs.view, runs.pid('c1'))}"


@pytest.mark.parametrize("words", [("state", "c1"), ("list",), ("ps", "--format", "json", "c1"), ("port", "c1")])
def test_debug_reports_the_state(created, words):
    messages = debug(created, *words)
    assert f"opened the state directory {created.root}" in messages
    assert f"read {created.root}/c1/state.json: created, pid {created.pid('c1')}" in messages


def test_missing_state_directory(rootless):
    assert debug(rootless, "list") == [f"the state directory {rootless.root} does not exist"]


def test_debug_reports_the_image_store(rootless, user):
    store = user.tmp / "store"
    assert debug(rootless, "images", "--store", str(store)) == [f"the image store {store} does not exist"]
    user.run(["mkdir", "-m", "700", store], check=True)
    assert debug(rootless, "images", "--store", str(store)) == [f"opened the image store {store}"]


def test_silent_without_debug(created):
    assert created("list").stderr == ""


def test_network_of_a_container(created):
    assert "network of c1: none, 0 published ports" in debug(created, "port", "c1")


def test_processes_of_a_cgroup(running):
    rootless, cgroup = running
    assert f"1 processes found by cgroup {cgroup}" in debug(rootless, "ps", "--format", "json", "c1")


def test_freezer(running):
    rootless, cgroup = running
    assert f"write 1 to {cgroup}/cgroup.freeze" in debug(rootless, "pause", "c1")
    messages = debug(rootless, "resume", "c1")
    assert f"read {rootless.root}/c1/state.json: paused, pid {rootless.pid('c1')}" in messages
    assert f"write 0 to {cgroup}/cgroup.freeze" in messages


def test_changed_limits(running):
    rootless, cgroup = running
    messages = debug(rootless, "update", "--pids-limit", "50", "c1")
    (has,) = [message for message in messages if message.startswith(f"cgroup {cgroup} has ")]
    if "pids" in has:
        assert f"write 50 to {cgroup}/pids.max" in messages
    else:
        assert any(message.startswith("controller pids is missing: ") for message in messages)


def test_usage(running):
    rootless, cgroup = running
    messages = debug(rootless, "events", "--stats", "c1")
    assert "read the usage once" in messages
    assert any(message.startswith(f"cgroup {cgroup} has ") for message in messages)
    assert f"usage of c1 from {cgroup}" in debug(rootless, "top", "--once")


def test_networks(rootless):
    directory = rootless.user.tmp / "config"
    configured = {"env": {"XDG_CONFIG_HOME": str(directory)}}
    made = rootless("--debug", "network", "create", "--subnet", "10.89.7.0/24", "backend", **configured)
    assert f"0 other networks; write {directory}/rootless/networks/backend.json, subnet 10.89.7.0/24" in made.stderr
    listed = rootless("--debug", "network", "ls", **configured)
    assert f"read {directory}/rootless/networks/backend.json: subnet 10.89.7.0/24, not in use" in listed.stderr


def test_bundles(rootless):
    directory = rootless.user.tmp / "hello"
    messages = debug(rootless, "new", directory, "echo", "hello")
    assert any("from programs of this host" in message for message in messages)
    assert any(message.endswith("process.args is echo hello") for message in messages)
    (directory / "config.json").unlink()
    assert debug(rootless, "spec", "--bundle", directory) == [f"write {directory}/config.json"]


def test_features_of_this_host(rootless):
    messages = debug(rootless, "features")
    assert any(message.startswith("libseccomp: ") for message in messages)
    assert any(message.startswith("checkpoint: ") for message in messages)


def test_checks_of_the_doctor(rootless):
    done = rootless("--debug", "doctor")
    for subject in ("kernel", "user namespaces", "libseccomp", "network helpers"):
        assert f"checked {subject}: " in done.stderr


def test_checkpoint_and_restore(require_root, need, rootless_command):
    with root_with_criu(need) as root, Rootless(root, rootless_command) as rootless:
        volume = make_volume(root)
        bundle = make_counting_bundle(root, volume)
        begin_counting(rootless, bundle, volume)
        images = root.tmp / "saved"
        messages = debug(rootless, "checkpoint", "--image-path", images, "c1")
        assert any(" dump --tree " in message and f"images in {images}" in message for message in messages)
        restore(rootless, bundle, "--debug", "--detach", "--image-path", images, "c1")
        complaints = rootless.complaints("c1")
        assert " restore " in complaints
        assert f"images in {images}" in complaints


def test_every_operation_of_a_run(user, rootless):
    bundle = make_bundle(user, base_config("true"))
    messages = debug(rootless, "run", "--network", "none", "-b", bundle, "c1")
    timed = [re.fullmatch(r" *(\d+)  (.*): done, \d+\.\d\d ms", message) for message in messages]
    found = [(int(match.group(1)), match.group(2)) for match in timed if match]
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers), "in the order in which they run"
    names = [name for _, name in found]
    for name in (
        "claim the directory of container c1",
        "start the executor",
        "create a user namespace",
        "wait until the ID maps are written",
        "mount proc on /proc",
        "write state.json: created",
        "become user 0, group 0",
    ):
        assert name in names
    explained = rootless("explain", "--network", "none", "--bundle", bundle).stdout
    for number, name in found:
        assert any(line.split(maxsplit=1)[:1] == [str(number)] for line in explained.splitlines()), name


def test_duration_of_the_fork(user, rootless):
    """The launcher measures it; the executor reports the other durations."""
    messages = debug(rootless, "run", "-b", make_bundle(user, base_config("true")), "c1")
    durations = [float(message.split()[-2]) for message in messages if "fork the container process" in message]
    assert len(durations) == 1
    assert durations[0] > 0.05, "the fork and the earlier operations take longer"


def test_operations_of_create_start_and_delete(user, rootless):
    bundle = make_bundle(user, base_config("true"))
    assert "listen on the start socket: done" in rootless.create("c1", bundle, "--debug").stderr
    started = debug(rootless, "start", "c1")
    assert any("no_new_privs" in message and "done" in message for message in started)
    until(lambda: rootless.status("c1") == "stopped", "the program ends")
    deleted = debug(rootless, "delete", "c1")
    assert f"read {rootless.root}/c1/state.json: stopped" in " ".join(deleted)


def test_operation_that_fails(user, rootless):
    config = base_config("true")
    config["mounts"].append({"destination": "/data", "type": "bind", "source": "/nonexistent", "options": ["bind"]})
    messages = debug(rootless, "run", "-b", make_bundle(user, config), "c1", status=1)
    assert any(re.search(r"bind /nonexistent on /data: no such file or directory, ", message) for message in messages)


def test_undo_of_a_cgroup(running):
    runs, directory = running
    messages = debug(runs, "delete", "--force", "c1")
    assert any(message.startswith("undo cgroup") and directory in message for message in messages)


def test_signal_that_was_sent(running):
    runs, _ = running
    assert any("signal 10" in message for message in debug(runs, "kill", "c1", "USR1"))


def test_operations_of_exec(running):
    runs, _ = running
    messages = debug(runs, "exec", "c1", "true")
    assert any("join the container's namespaces" in message and "done" in message for message in messages)
