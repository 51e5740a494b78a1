"""`rootless network reload`: running containers follow the host to another network."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from tests.lib.containers import Reader
from tests.lib.netbox import OUTSIDE, make_net_bundle

ELSEWHERE = f"nameserver {OUTSIDE}\nnameserver 203.0.113.7\nsearch elsewhere.test\n"
"""The host's resolv.conf on another network."""
SERVERS = [f"nameserver {OUTSIDE}", "nameserver 203.0.113.7"]


@contextlib.contextmanager
def running(rootless, *flags, name):
    bundle = make_net_bundle(rootless.user, "sh", "-c", "echo ready; exec sleep 1000", name=name)
    with rootless.popen("run", *flags, bundle, stdout=subprocess.PIPE) as process:
        try:
            assert Reader(process.stdout).line() == "ready"
            yield
        finally:
            rootless("delete", "--force", name)


def resolver(rootless, name):
    return rootless("exec", name, "cat", "/etc/resolv.conf", check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--network", "slirp4netns"), ["nameserver 10.0.2.3", *SERVERS, "search elsewhere.test"]),
        (("--network", "pasta"), [*SERVERS, "search elsewhere.test"]),
        (("--network", "host"), [*SERVERS, "search elsewhere.test"]),
        (("--network", "pasta", "--dns", "192.0.2.1"), ["nameserver 192.0.2.1", "search elsewhere.test"]),
    ],
    ids=["slirp4netns", "pasta", "host", "dns"],
)
def test_name_servers_are_those_of_the_hosts_present_network(net_rootless, netbox, flags, expected):
    with running(net_rootless, *flags, name="served"):
        before = resolver(net_rootless, "served")
        assert net_rootless("network", "reload", check=True).stdout == ""
        with netbox.resolver(ELSEWHERE):
            servers = ", ".join(line.partition(" ")[2] for line in expected if line.startswith("nameserver"))
            assert net_rootless("network", "reload", check=True).stdout == f"served: resolv.conf names {servers}\n"
            assert resolver(net_rootless, "served") == expected != before
            assert net_rootless("network", "reload", check=True).stdout == ""
            if "--dns" not in flags:
                net_rootless("exec", "served", "getent", "hosts", "outside.test", check=True)
        assert net_rootless("network", "reload", check=True).stdout.startswith("served: ")
        assert resolver(net_rootless, "served") == before


def test_files_of_others_stay_as_they_are(net_rootless, netbox):
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(net_rootless, "--network", "none", name="alone"))
        assert net_rootless("exec", "alone", "cat", "/etc/resolv.conf", check=True).stdout == "# the image's own\n"
        stack.enter_context(netbox.resolver(ELSEWHERE))
        assert net_rootless("network", "reload", check=True).stdout == ""
        assert net_rootless("exec", "alone", "cat", "/etc/resolv.conf", check=True).stdout == "# the image's own\n"


def test_it_takes_no_name(net_rootless):
    done = net_rootless("network", "reload", "backend")
    assert (done.returncode, done.stderr) == (
        1,
        "rootless: network reload: it takes no name; fix: run rootless network --help\n",
    )


def test_a_file_that_the_container_has_made_long_does_no_harm(net_rootless, netbox):
    """Its root may remount the file to write to it."""
    with running(net_rootless, "--network", "pasta", name="hostile"), netbox.resolver(ELSEWHERE):
        (net_rootless.root / "hostile/resolv.conf").write_text(f"nameserver 192.0.2.1\n{'#' * 100_000}")
        os.truncate(net_rootless.root / "hostile/resolv.conf", 1 << 40)
        limited = ["sh", "-c", 'ulimit -v 400000; exec "$@"', "sh", *net_rootless.argv("network", "reload")]
        net_rootless.user.run(limited, check=True)
        assert resolver(net_rootless, "hostile")[:2] == SERVERS
