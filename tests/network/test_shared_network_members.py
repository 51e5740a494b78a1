"""Shared networks whose members come and go concurrently, and which expose nothing through their processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lib.bundles import DEFAULT_CAPABILITIES, write_config
from tests.lib.containers import Reader, Rootless, await_end, until
from tests.lib.netbox import HTTP, OUTSIDE, helpers, make_net_bundle

SERVE = ("python3", "/servers.py", "0.0.0.0", f"http:{HTTP}")
FETCH = ("curl", "-sS", "--max-time", "3")


@pytest.fixture
def rootless(net_user, rootless_command):
    net_user.env = net_user.env | {"XDG_CONFIG_HOME": str(net_user.tmp / "config")}
    with Rootless(net_user, rootless_command) as rootless:
        yield rootless
    until(lambda: not helpers(), "the end of the helpers")


@pytest.fixture
def backend(rootless, net_user):
    """Create a network and return its directory in the state directory."""
    rootless("network", "create", "backend", check=True)
    return rootless.root / "@networks/backend"


@pytest.fixture
def start(rootless, net_user):
    """Return a function that starts a container on the network and returns when its server is ready."""

    def start_container(name, *flags, network="backend", argv=SERVE):
        bundle = net_user.tmp / name
        if not bundle.exists():
            make_net_bundle(net_user, *argv, name=name)
        process = rootless.popen("run", "--network", network, *flags, bundle, stdout=subprocess.PIPE)
        assert Reader(process.stdout).line() == "ready"
        started.append(process)

    started = []
    yield start_container
    rootless.__exit__()
    for process in started:
        with process:
            process.wait()


def waits_for_a_lock(pid):
    return f"-> FLOCK  ADVISORY  WRITE {pid} " in Path("/proc/locks").read_text()


def addresses(rootless, container):
    return rootless.state(container)["network"]["addresses"]


def test_reused_address_is_reachable(rootless, backend, start):
    start("asking")
    seen = []
    for _ in range(2):
        start("web")
        seen.append(addresses(rootless, "web"))
        done = rootless("exec", "asking", *FETCH, f"http://web:{HTTP}/")
        assert (done.returncode, done.stderr) == (0, ""), done
        rootless("delete", "--force", "web", check=True)
    assert seen[0] == seen[1]


def test_an_address_whose_interface_still_exists_is_not_reused(rootless, backend, start):
    start("first")
    start("joined", network="container:first", argv=("sh", "-c", "echo ready; exec sleep 1000"))
    rootless("delete", "--force", "first", check=True)
    start("second")
    number = json.loads((backend / "state.json").read_text())["members"]["second"]["number"]
    assert number == 5
    refused = rootless("network", "rm", "backend")
    assert "still in use by second" in refused.stderr
    rootless("delete", "--force", "second", check=True)
    refused = rootless("network", "rm", "backend")
    assert "still in use by containers that joined the network of another" in refused.stderr
    rootless("delete", "--force", "joined", check=True)
    until(lambda: not helpers(), "the end of the helpers")
    rootless("network", "rm", "backend", check=True)
    assert not backend.exists()


def test_a_network_does_not_end_while_its_lock_is_held(rootless, backend, start):
    start("last")
    keeper = json.loads((backend / "state.json").read_text())["keeper"][0]
    lock = os.open(backend / "lock", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rootless("kill", "last", "KILL", check=True)
        until(lambda: waits_for_a_lock(keeper), "the netns holder waits for the lock")
    finally:
        os.close(lock)
    await_end(keeper)


@pytest.fixture
def abandoned(rootless, backend, start):
    """Start a container with a port on the network, and kill slirp4netns."""
    start("first", "-p", f"8080:{HTTP}")
    helper = json.loads((backend / "state.json").read_text())["helper"][0]
    os.kill(helper, signal.SIGKILL)
    await_end(helper)
    reached = rootless("exec", "first", *FETCH, f"http://{OUTSIDE}:{HTTP}/")
    assert reached.returncode != 0


def reaches_and_is_reached(rootless):
    outwards = rootless("exec", "first", *FETCH, f"http://{OUTSIDE}:{HTTP}/")
    inwards = rootless.user.run([*FETCH, "http://127.0.0.1:8080/"])
    return [done.returncode for done in (outwards, inwards)] == [0, 0]


@pytest.mark.usefixtures("abandoned")
def test_a_further_member_restarts_a_helper_that_has_ended(rootless):
    bundle = make_net_bundle(rootless.user, *FETCH, f"http://first:{HTTP}/", name="second")
    done = rootless("run", "--network", "backend", bundle)
    assert (done.returncode, done.stdout) == (0, addresses(rootless, "first")[0].replace(".4", ".5"))
    assert done.stderr == ""
    assert reaches_and_is_reached(rootless)


@pytest.mark.usefixtures("abandoned")
def test_reload_restarts_a_helper_that_has_ended(rootless, backend):
    assert rootless("network", "reload", check=True).stdout == "backend: slirp4netns has been started again\n"
    assert rootless("network", "reload", check=True).stdout == ""
    assert reaches_and_is_reached(rootless)
    helper = json.loads((backend / "state.json").read_text())["helper"][0]
    rootless("kill", "first", "KILL", check=True)
    await_end(helper)


@pytest.mark.usefixtures("abandoned")
def test_a_taken_port_of_a_restarted_helper_is_a_warning(rootless, net_user):
    listen = "import socket; s = socket.create_server(('0.0.0.0', 8080)); print('up'); input()"
    with net_user.popen(["python3", "-uc", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taking:
        assert Reader(taking.stdout).line() == "up"
        done = rootless("network", "reload")
        assert "cannot publish" in done.stderr, done
        taking.stdin.close()
        assert rootless("exec", "first", *FETCH, f"http://{OUTSIDE}:{HTTP}/").returncode == 0
    assert rootless("network", "reload", check=True).stderr == ""
    assert reaches_and_is_reached(rootless)


def test_a_network_whose_definition_is_gone_does_not_stop_the_reload(rootless, abandoned, net_user):
    (net_user.tmp / "config/rootless/networks/backend.json").unlink()
    done = rootless("network", "reload", check=True)
    assert done.stderr.startswith("rootless: warning: network backend: there is no such network")


def test_ports_of_a_member_that_failed_to_start_are_released(rootless, backend, start):
    start("first")
    twice = ("-p", f"8080:{HTTP}", "-p", f"127.0.0.1:8080:{HTTP}")
    bundle = make_net_bundle(rootless.user, *SERVE, name="second")
    refused = rootless("run", "--network", "backend", *twice, bundle)
    assert "cannot publish" in refused.stderr
    start("second", "-p", f"8080:{HTTP}")
    assert rootless.user.run([*FETCH, "http://127.0.0.1:8080/"]).returncode == 0


def test_other_interfaces_in_a_new_network_namespace_do_no_harm(rootless, backend, net_user):
    """Modules such as sit add interfaces to each new network namespace; here a hook does."""
    bundle = make_net_bundle(net_user, "cat", "/sys/class/net/eth0/ifindex")
    config = json.loads((bundle / "config.json").read_text())
    script = """pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/'); nsenter --preserve-credentials -U -n -t "$pid" \
        ip link add first type veth peer name second"""
    hook = {"path": "/bin/sh", "args": ["sh", "-euc", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
    config["hooks"] = {"createRuntime": [hook]}
    write_config(bundle, config)
    done = rootless("run", "--network", "backend", bundle)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")


@pytest.mark.parametrize("mode", ["auto", "pasta", "backend"])
def test_network_helpers_expose_nothing_to_a_container_that_sees_them(rootless, backend, net_user, mode):
    script = """for each in /proc/[0-9]*; do
        [ "$(readlink $each/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ] ||
            ls $each/root/ $each/cwd/ || readlink $each/fd/*
    done 2>/dev/null || true; echo looked"""
    bundle = make_net_bundle(net_user, "sh", "-uc", script)
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    every = [*DEFAULT_CAPABILITIES, "CAP_SYS_PTRACE"]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), every)
    write_config(bundle, config)
    done = rootless("run", "--network", mode, bundle)
    assert (done.returncode, done.stdout) == (0, "looked\n"), done


def test_published_port_implies_a_network(rootless, net_user):
    bundle = make_net_bundle(net_user, "sleep", "1000")
    rootless("run", "-d", "--bundle", bundle, "-p", "127.0.0.1::80", "c1", check=True, stdout=None, stderr=None)
    published = rootless("port", "c1").stdout
    assert published.startswith("80/tcp -> 127.0.0.1:")
    assert int(published.rpartition(":")[2]) > 1023


@pytest.mark.usefixtures("backend")
def test_concurrent_network_creation_is_serialized(rootless):
    """Otherwise both could take the same subnet or the same name."""
    directory = os.open(Path(rootless.user.env["XDG_CONFIG_HOME"]) / "rootless/networks", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        maker = rootless.popen("network", "create", "other", stdout=subprocess.DEVNULL)
        until(lambda: waits_for_a_lock(maker.pid) or maker.poll() is not None, "network create waits for the lock")
        assert maker.poll() is None
    finally:
        os.close(directory)
    assert maker.wait() == 0
    subnets = {each["subnet"] for each in json.loads(rootless("network", "ls", "-f", "json").stdout)}
    assert len(subnets) == 2
