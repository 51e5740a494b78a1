"""config.md "Hostname" and "Domainname": each property set, and observed from inside."""

from __future__ import annotations

import socket

import pytest

from tests.lib.boxes import config_with_maps, set_namespaces
from tests.lib.bundles import base_config
from tests.lib.oracles import IGNORED, differs


@pytest.mark.spec("hostname", "linux.namespaces.uts")
def test_hostname(either):
    config = config_with_maps(either.user) | {"hostname": "inside"}
    assert either.lines(config, "hostname") == ["inside"]


@differs("runc", '"specifies the container\'s domainname as seen by processes running inside": ' + IGNORED)
@pytest.mark.spec("domainname")
def test_domainname(either):
    config = config_with_maps(either.user) | {"domainname": "example.test"}
    assert either.lines(config, "cat /proc/sys/kernel/domainname") == ["example.test"]


def test_hostname_and_domainname(either):
    config = config_with_maps(either.user)
    config["hostname"] = "inside-" + "x" * 57
    config["domainname"] = "example.test"
    script = "hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"
    lines = either.lines(config, script)
    if either.oracle:
        lines[2] = "example.test"  # runc 1.1.15 ignores domainname
    assert lines == [config["hostname"], config["hostname"], "example.test"]
    assert socket.gethostname() != config["hostname"]


@pytest.mark.spec("linux.namespaces.uts")
def test_the_hosts_name_without_a_hostname(either):
    assert either.lines(config_with_maps(either.user), "hostname") == [socket.gethostname()]


@pytest.mark.parametrize("key", ["hostname", "domainname"])
def test_a_name_without_a_uts_namespace_is_refused(box, key):
    """If root called rootless, the name of the host would change."""
    config = base_config()
    set_namespaces(config, "pid", "network", "ipc", "mount")
    config[key] = "inside"
    done = box.run(config, "true")
    assert done.returncode == 1
    assert f"the container shares the host's uts namespace (config.json: {key}); fix: " in done.stderr
