"""A process that joins the namespaces of a container is out of its reach before it is in the first of them.

The container shares the host's pid namespace and has every capability over its own user namespace, CAP_SYS_PTRACE among
them: a process that joins that one could be entered through /proc/PID/root or ptrace(2) (CVE-2016-9962).
"""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager

import pytest

from tests.user.boxes import Box, add_mount, make_volume, set_namespaces
from tests.user.bundles import base_config, write_config
from tests.user.containers import PATIENCE, Reader
from tests.user.intruders import add_program, intruding, results

TRIES = 40
"""How often the namespaces are joined; the hunter needed four at most while it could win."""


@contextmanager
def hunter(box, secret):
    """Run a container that hunts for whatever joins it, and for `secret` on the host; it must have caught nothing."""
    config = intruding("hunt", "/volume/end", str(secret))
    set_namespaces(config, "network", "ipc", "uts", "mount")
    volume = make_volume(box.user)
    add_mount(config, "/volume", "bind", volume, "rbind")
    write_config(box.path, config)
    words = [*box.command, "run", "--bundle", box.path, "hunter"]
    with box.user.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            box._created.append("hunter")
            reader = Reader(process.stdout)
            assert reader.line() == "hunting"
            yield json.loads(box.user.run([*box.command, "state", "hunter"], check=True).stdout)["pid"]
        finally:
            (volume / "end").touch()
        found = results(reader.rest().decode())
        assert process.wait(timeout=PATIENCE) == 0
    assert int(found["looks"][0]) > TRIES
    assert int(found["seen"][0]) > 0, "it came by while they were set up"
    assert "read" not in found
    assert found["caught"] == ["0"]


@pytest.fixture
def secret(user):
    """A file of the caller's that only the caller may read."""
    path = user.tmp / "secret"
    user.run(["sh", "-c", f"umask 077; echo secret >{path}"], check=True)
    return path


@pytest.fixture
def joiner(box, rootless_command):
    """A second bundle of the same user."""
    joiner = Box(box.user, [rootless_command], name="joiner")
    yield joiner
    joiner.close()


def paths(pid, *kinds):
    files = {"network": "net", "mount": "mnt"}
    return {kind: f"/proc/{pid}/ns/{files.get(kind, kind)}" for kind in kinds}


def test_joining_by_path_exposes_no_file_of_the_caller(box, joiner, secret, need):
    add_program(box, need, "intruder")
    config = base_config("true")
    with hunter(box, secret) as pid:
        set_namespaces(config, "mount", **paths(pid, "user", "network", "ipc", "uts"))
        for _ in range(TRIES):
            joiner.run(config, check=True)


def test_joining_the_network_of_a_container_exposes_no_file_of_the_caller(box, joiner, secret, need):
    add_program(box, need, "intruder")
    config = base_config("true")
    set_namespaces(config, "pid", "ipc", "uts", "mount")
    with hunter(box, secret):
        for _ in range(TRIES):
            joiner.run(config, flags=["--network", "container:hunter"], check=True)


def test_clock_offsets_for_a_joined_user_namespace_expose_no_file_of_the_caller(box, joiner, secret, need):
    """/proc/self/timens_offsets of a process that hides belongs to root, user_namespaces(7): it is opened before."""
    add_program(box, need, "intruder")
    config = base_config("cat", "/proc/self/timens_offsets")
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 86400}}
    with hunter(box, secret) as pid:
        set_namespaces(config, "mount", "time", **paths(pid, "user", "network", "ipc", "uts"))
        for _ in range(TRIES):
            assert "86400" in joiner.run(config, check=True).stdout


def test_exec_exposes_no_file_of_the_caller(box, secret, need):
    add_program(box, need, "intruder")
    with hunter(box, secret):
        for _ in range(TRIES):
            box.user.run([*box.command, "exec", "hunter", "true"], check=True)
