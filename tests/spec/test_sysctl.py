"""config-linux.md "Sysctl": each property set, and observed from inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps, set_namespaces
from tests.lib.bundles import base_config

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.ping_group_range": "0 65536",
    "net.ipv4.conf.lo.rp_filter": "2",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.core.somaxconn": "1234",
    "kernel.msgmax": "7777",
    "kernel.sem": "100 20000 50 60",
    "kernel.shm_rmid_forced": "1",
    "kernel.shmmax": "123456789",
    "fs.mqueue.msg_max": "15",
}


@pytest.mark.spec("linux.sysctl")
def test_sysctl(either):
    config = config_with_maps(either.user)
    config["linux"]["sysctl"] = dict(SYSCTLS)
    paths = [f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS]
    lines = either.lines(config, f"cat {' '.join(paths)}; echo 0 2>&1 > {paths[0]} || true")
    assert [" ".join(line.split()) for line in lines[:-1]] == list(SYSCTLS.values())
    assert lines[-1] == f"sh: can't create {paths[0]}: Read-only file system"
    assert Path("/proc/sys/kernel/msgmax").read_text() != "7777\n"


def test_sysctl_with_slashes(either):
    config = config_with_maps(either.user)
    config["linux"]["sysctl"] = {"net/ipv4/ip_forward": "1", "kernel/msgmax": "6666"}
    lines = either.lines(config, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")
    assert lines == ["1", "6666"]


def test_sysctl_of_joined_namespaces(box):
    pid = box.create(base_config())
    config = base_config()
    paths = {"network": "net", "ipc": "ipc", "user": "user"}
    set_namespaces(config, "pid", "uts", "mount", **{kind: f"/proc/{pid}/ns/{file}" for kind, file in paths.items()})
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "6666"}
    lines = box.lines(config, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")
    assert lines == ["1", "6666"]


@pytest.mark.parametrize(
    ("name", "value", "missing", "words"),
    [
        ("kernel.panic", "77", "", "cannot set kernel.panic: it applies to the whole host"),
        ("vm.swappiness", "1", "", "cannot set vm.swappiness: it applies to the whole host"),
        ("kernel/core_pattern", "x", "", "cannot set kernel/core_pattern: it applies to the whole host"),
        (
            "net.ipv4.ip_forward",
            "1",
            "network",
            "cannot set net.ipv4.ip_forward: the container shares the host's network",
        ),
        ("kernel.msgmax", "1", "ipc", "cannot set kernel.msgmax: the container shares the host's ipc namespace"),
        (
            "fs.mqueue.msg_max",
            "1",
            "ipc",
            "cannot set fs.mqueue.msg_max: the container shares the host's ipc namespace",
        ),
        ("net/../kernel/panic", "1", "", "cannot set net/../kernel/panic: it is not the name of a sysctl"),
        ("net.ipv4.nonsense", "1", "", "write 1 to /proc/sys/net/ipv4/nonsense: open: No such file or directory"),
        ("net.ipv4.ip_forward", "many", "", "write many to /proc/sys/net/ipv4/ip_forward: write: Invalid argument"),
    ],
)
def test_a_sysctl_that_cannot_be_set(box, name, value, missing, words):
    config = base_config()
    set_namespaces(config, *(kind for kind in ("pid", "network", "ipc", "uts", "mount") if kind != missing))
    config["linux"]["sysctl"] = {name: value}
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: {words}")
    assert "(config.json: linux.sysctl" in done.stderr
    assert "; fix: " in done.stderr
    assert Path("/proc/sys/kernel/panic").read_text() != "77\n"
