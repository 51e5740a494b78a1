"""The helpers of a container's network give it no access to the files and processes of the host.

slirp4netns and pasta parse every packet that a hostile container sends, and they and the netns holders are in
namespaces of the container. Here a container that sees the host's processes, with every capability over its own user
namespace, attacks them.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import Box, set_namespaces
from tests.lib.bundles import base_config, write_config
from tests.lib.containers import PATIENCE, Reader
from tests.lib.intruders import EVERYTHING, TRIES, add_program, hunter, namespace_paths
from tests.lib.netbox import ECHO, HOST, helpers, make_net_bundle, running
from tests.lib.states import undo_notes

MODES = ("slirp4netns", "pasta", "auto", "backend")
LOOK = """
import contextlib, ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, DETACH = 0x4206, 17

def attempts(pid):
    place = f"/proc/{pid}"
    yield "root", lambda: os.listdir(f"{place}/root/")
    yield "cwd", lambda: os.listdir(f"{place}/cwd/")
    yield "fd", lambda: [os.readlink(f"{place}/fd/{fd}") for fd in os.listdir(f"{place}/fd")]
    yield "exe", lambda: open(f"{place}/exe", "rb")
    yield "mem", lambda: open(f"{place}/mem", "r+b")
    yield "environ", lambda: open(f"{place}/environ", "rb").read()
    yield "ns", lambda: os.open(f"{place}/ns/net", os.O_RDONLY)
    yield "ptrace", lambda: seize(pid)

def seize(pid):
    if libc.ptrace(SEIZE, pid, None, None) < 0:
        raise OSError
    libc.ptrace(DETACH, pid, None, None)

for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
    if pid == os.getpid():
        continue
    print("seen", pid)
    for what, attempt in attempts(pid):
        with contextlib.suppress(OSError):
            found = attempt()
            print("reached", pid, open(f"/proc/{pid}/comm").read().strip(), what, found)
print("looked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def rootless(net_rootless):
    net_rootless("network", "create", "backend", check=True)
    return net_rootless


def directories(pid):
    """Return the directories that a process has open."""
    held = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        place = f"/proc/{pid}/fd/{fd}"
        if stat.S_ISDIR(os.stat(place).st_mode):
            held.append(os.readlink(place))
    return held


@pytest.mark.parametrize("mode", MODES)
def test_no_helper_or_netns_holder_holds_a_directory(rootless, mode):
    """From a directory of the host, openat(2) with ".." reaches all files of the caller."""
    before = helpers().keys()
    with running(rootless, "--network", mode, "-p", f"7001:{ECHO}"):
        serving = {pid: name for pid, name in helpers().items() if pid not in before}
        assert {name.split(".")[0] for name in serving.values()} > {"rootless:init"}
        assert {(pid, name): directories(pid) for pid, name in serving.items() if directories(pid)} == {}
        assert {os.readlink(f"/proc/{pid}/cwd") for pid in serving} == {"/"}
        for pid, name in serving.items():
            if name != "rootless:init":
                assert not Path(f"/proc/{pid}/root{rootless.root}").exists()


def looking(user, **changes):
    """Return the bundle of a container that has every capability, sees the host's processes and runs LOOK."""
    bundle = make_net_bundle(user, "python3", "-c", LOOK, name="looking")
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    config["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    config["process"]["capabilities"] = dict.fromkeys(
        ("bounding", "permitted", "effective", "inheritable", "ambient"), EVERYTHING
    )
    write_config(bundle, config | changes)
    return bundle


@pytest.mark.parametrize("mode", MODES)
def test_a_container_cannot_reach_the_host_processes_that_it_sees(rootless, net_user, mode):
    words = ("run", "--network", mode, "-p", f"7001:{ECHO}", looking(net_user))
    with rootless.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said = Reader(process.stdout).until(b"looked\n").decode().splitlines()
        noted = undo_notes(rootless.root / "looking")["network"]
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    seen = {int(line.split()[1]) for line in said if line.startswith("seen ")}
    assert "holder" in noted
    assert {noted[name][0] for name in ("holder", "helper") if name in noted} <= seen
    assert [line for line in said if line.startswith("reached ")] == []


@pytest.mark.parametrize("mode", ["slirp4netns", "pasta", "backend"])
def test_a_container_cannot_reach_the_helpers_of_a_joined_network(rootless, net_user, mode):
    with running(rootless, "--network", mode, name="first"):
        words = ("run", "--network", "container:first", looking(net_user))
        with rootless.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            said = Reader(process.stdout).until(b"looked\n").decode().splitlines()
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        serving = helpers().keys()
    seen = {int(line.split()[1]) for line in said if line.startswith("seen ")}
    assert serving <= seen
    assert [line for line in said if line.startswith("reached ") and int(line.split()[1]) in serving] == []


@pytest.mark.parametrize("mode", ["auto", "pasta"])
def test_a_network_in_a_joined_user_namespace_exposes_no_file_of_the_caller(net_user, rootless_command, need, mode):
    """A container attacks all that enters its user namespace: another container's first process, holder and helper."""
    secret = net_user.tmp / "secret"
    net_user.run(["sh", "-c", f"umask 077; echo secret >{secret}"], check=True)
    first, second = (Box(net_user, [rootless_command], name=name) for name in ("first", "second"))
    add_program(first, need, "intruder")
    config = base_config("ip", "address")
    try:
        with hunter(first, secret) as pid:
            set_namespaces(config, "network", "ipc", "uts", "mount", "pid", **namespace_paths(pid, "user"))
            for _ in range(TRIES):
                assert HOST in second.run(config, flags=["--network", mode], check=True).stdout
    finally:
        first.close()
        second.close()


def test_slirp4netns_is_refused_in_a_joined_user_namespace(rootless, net_user):
    """It would run there, within reach of the namespace's other processes."""
    with running(rootless, "--network", "none", name="first"):
        bundle = make_net_bundle(net_user, "true", name="second")
        config = json.loads((bundle / "config.json").read_text())
        kinds = [each["type"] for each in config["linux"]["namespaces"]]
        set_namespaces(config, *kinds, **namespace_paths(rootless.pid("first"), "user"))
        write_config(bundle, config)
        done = rootless("run", "--network", "slirp4netns", bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert "joins a user namespace" in done.stderr
