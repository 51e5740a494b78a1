"""A process is protected from a container before it joins the first of the container's namespaces.

The container shares the host's pid namespace and has every capability over its own user namespace, CAP_SYS_PTRACE among
them: it could enter a process that joins that namespace through /proc/PID/root or ptrace(2) (CVE-2016-9962).
"""

from __future__ import annotations

import os

import pytest

from tests.lib.boxes import Box, set_namespaces
from tests.lib.bundles import base_config
from tests.lib.intruders import TRIES, add_program, hunter, namespace_paths


@pytest.fixture
def secret(user):
    """A file of the caller that only the caller may read."""
    path = user.tmp / "secret"
    user.run(["sh", "-c", f"umask 077; echo secret >{path}"], check=True)
    return path


@pytest.fixture
def joiner(box, rootless_command):
    """A second bundle of the same user."""
    joiner = Box(box.user, [rootless_command], name="joiner")
    yield joiner
    joiner.close()


def test_joining_by_path_exposes_no_file_of_the_caller(box, joiner, secret, need):
    add_program(box, need, "intruder")
    config = base_config("true")
    with hunter(box, secret) as pid:
        set_namespaces(config, "mount", **namespace_paths(pid, "user", "network", "ipc", "uts"))
        for _ in range(TRIES):
            joiner.run(config, check=True)


def test_joining_the_network_of_a_container_exposes_no_file_of_the_caller(box, joiner, secret, need):
    add_program(box, need, "intruder")
    config = base_config("true")
    set_namespaces(config, "pid", "ipc", "uts", "mount")
    with hunter(box, secret):
        for _ in range(TRIES):
            joiner.run(config, flags=["--network", "container:hunter"], check=True)


@pytest.mark.parametrize("network", [(), ("--network=pasta",)], ids=["none", "pasta"])
def test_joining_a_group_exposes_no_file_of_the_caller(box, joiner, secret, need, network):
    add_program(box, need, "intruder")
    config = base_config("readlink", "/proc/self/ns/user")
    with hunter(box, secret, flags=["--join=key"]) as pid:
        namespace = os.readlink(f"/proc/{pid}/ns/user")
        for _ in range(TRIES):
            assert joiner.run(config, flags=["--join=key", *network], check=True).stdout.strip() == namespace


def test_time_offsets_in_a_joined_userns_expose_no_file_of_the_caller(box, joiner, secret, need):
    """timens_offsets of a process that is not dumpable belongs to root, user_namespaces(7), so it is opened before."""
    add_program(box, need, "intruder")
    config = base_config("cat", "/proc/self/timens_offsets")
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 86400}}
    with hunter(box, secret) as pid:
        set_namespaces(config, "mount", "time", **namespace_paths(pid, "user", "network", "ipc", "uts"))
        for _ in range(TRIES):
            assert "86400" in joiner.run(config, check=True).stdout


def test_exec_exposes_no_file_of_the_caller(box, secret, need):
    add_program(box, need, "intruder")
    with hunter(box, secret):
        for _ in range(TRIES):
            box.user.run([*box.command, "exec", "hunter", "true"], check=True)
