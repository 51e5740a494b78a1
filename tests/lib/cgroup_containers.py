"""Containers with their own cgroups, in a delegated part of a cgroup v2 tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView

FOREVER = "while :; do sleep 1000; done"


@pytest.fixture
def runs(cgroup2, user, rootless_command):
    with InView(cgroup2, user, rootless_command) as command:
        yield command
    assert [path for path in cgroup2.cgroups() if path != "rootless.caller"] == []


def bundle_for(user, *script, name="bundle", change=None):
    config = base_config("sh", "-c", "\n".join(script) or FOREVER)
    if change:
        change(config)
    return make_bundle(user, config, name=name)


def cgroup_of(view, pid):
    """Return the cgroup of a process, relative to the one in which commands start."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line[3:] for line in lines if line.startswith("0::"))
    return os.path.relpath(path, view.path)


def directory_of(runs, name="c1"):
    return runs.view.directory / cgroup_of(runs.view, runs.pid(name))


def procs(directory):
    return sorted(int(line) for line in (directory / "cgroup.procs").read_text().split())
