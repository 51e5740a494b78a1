"""Cgroups that a container creates to hinder its removal."""

from __future__ import annotations

import json

import pytest

from tests.lib.boxes import add_mount, set_namespaces
from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.containers import until

__all__ = ["cgroup2"]  # the fixture


@pytest.fixture
def runs(cgroup2, user, rootless_command):
    with InView(cgroup2, user, rootless_command) as command:
        yield command
    assert [path for path in cgroup2.cgroups() if path != "rootless.caller"] == []


@pytest.mark.parametrize(("depth", "name"), [(1500, "a"), (1355, "aa")], ids=["deep", "a path over PATH_MAX outside"])
def test_deeply_nested_cgroups_hide_no_process_and_are_removed(runs, user, depth, name):
    config = base_config(
        "sh",
        "-c",
        f"""
        cd /sys/fs/cgroup
        for i in $(seq {depth}); do mkdir {name} && cd {name} || exit; done
        sh -c 'echo $$ >cgroup.procs; exec sleep 1000' &
        echo up
        wait
    """,
    )
    set_namespaces(config, "pid", "network", "ipc", "uts", "mount", "cgroup")
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup")
    runs.create("c1", make_bundle(user, config))
    runs.start("c1")
    until(lambda: runs.output("c1") == "up\n" and _processes(runs) == 2, "both processes are listed")
    assert runs("kill", "--all", "c1", "CONT").returncode == 0
    done = runs("delete", "--force", "c1")
    assert (done.returncode, done.stderr) == (0, "")


def _processes(runs):
    return len(json.loads(runs("ps", "--format", "json", "c1", check=True).stdout))
