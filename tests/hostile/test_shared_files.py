"""/etc/hosts and /etc/resolv.conf, which a container shares with the host and with other containers.

They are in the state directory of the caller. A container can neither write to them nor keep others from doing so, and
its host name reaches other containers only if it is unambiguous.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack

import pytest

from tests.lib.boxes import mount_table
from tests.lib.bundles import write_config
from tests.lib.containers import Reader
from tests.lib.netbox import make_net_bundle

NETWORK = ("--network", "backend")
FILES = ("/etc/hosts", "/etc/resolv.conf")
LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
for path in sys.argv[1:]:
    fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("leased", flush=True)
signal.pause()
"""
WAIT = ("sh", "-c", "echo ready; exec sleep 1000")


@pytest.fixture
def rootless(net_rootless):
    net_rootless("network", "create", "backend", check=True)
    return net_rootless


@pytest.fixture
def start(rootless):
    """Return a function that starts a container on the network and returns after its first line of output."""

    def start_container(name, *argv, hostname=""):
        bundle = make_net_bundle(rootless.user, *argv or WAIT, name=name)
        config = json.loads((bundle / "config.json").read_text())
        write_config(bundle, config | ({"hostname": hostname} if hostname else {}))
        process = started.enter_context(rootless.popen("run", *NETWORK, bundle, stdout=subprocess.PIPE))
        assert Reader(process.stdout).line()

    with ExitStack() as started:
        yield start_container
        rootless.__exit__()


@pytest.mark.parametrize("mode", ["pasta", "host", "backend"])
def test_shared_files_are_read_only(rootless, net_user, mode):
    """A container could otherwise fill /run/user, which has the state directory, for the whole session."""
    script = 'for file; do (echo full >>"$file") 2>/dev/null || echo refused; done; cat /proc/self/mountinfo'
    bundle = make_net_bundle(net_user, "sh", "-uc", script, "sh", *FILES)
    lines = rootless("run", "--network", mode, bundle, check=True).stdout.splitlines()
    assert lines[:2] == ["refused", "refused"]
    table = mount_table(lines[2:])
    for file in FILES:
        assert table[file][0] >= {"ro", "nosuid", "nodev", "noexec"}


def test_a_lease_on_shared_files_does_not_delay_new_members(rootless, start, net_user):
    """A container that owns a file may take a lease on it, even if it is mounted read-only: fcntl(2), "Leases".

    An open for writing waits until the lease is released, 45 s at most (/proc/sys/fs/lease-break-time).
    """
    start("first", "python3", "-c", LEASE, *FILES)
    start("second")
    bundle = make_net_bundle(net_user, "cat", "/etc/hosts", name="third")
    hosts = rootless("run", *NETWORK, bundle, check=True).stdout
    assert "10.89.0.4 first\n" in hosts
    assert "10.89.0.5 second\n" in hosts


@pytest.mark.parametrize(
    "hostname", ["pypi.org", "localhost", "LOCALHOST", "ip6-loopback", "host.containers.internal", "10.89.0.9", "x_:y"]
)
def test_ambiguous_host_names_do_not_reach_other_containers(rootless, start, hostname):
    start("first")
    start("second", hostname=hostname)
    hosts = rootless("exec", "first", "cat", "/etc/hosts", check=True).stdout
    assert "10.89.0.5 second\nfd00::5 second\n" in hosts
    assert hostname not in hosts.replace("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", "")


def test_a_duplicate_host_name_belongs_to_the_first_container(rootless, start):
    """Container IDs take precedence over host names."""
    start("reader")
    start("one", hostname="db")
    start("two", hostname="DB")
    start("three", hostname="reader")
    hosts = rootless("exec", "reader", "cat", "/etc/hosts", check=True).stdout
    assert [line for line in hosts.splitlines() if line.startswith("10.89.0.") and "reader" not in line] == [
        "10.89.0.5 one db",
        "10.89.0.6 two",
        "10.89.0.7 three",
    ]
    start("db")
    hosts = rootless("exec", "reader", "cat", "/etc/hosts", check=True).stdout
    assert "10.89.0.5 one\n" in hosts
    assert "10.89.0.8 db\n" in hosts
