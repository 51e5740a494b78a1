"""Sweeps with a cgroup that is delegated to the user: no cgroup of a container is left."""

from __future__ import annotations

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import UserInView, cgroup2
from tests.lib.sweep import CONTAINER, ENDED_WELL, FIRST_STAGE, SPAWNED, WITHOUT_EFFECT, Case, Sweep
from tests.lib.sweep_lives import all_right, executor_was_killed, is_clear, rootless_was_killed, tracer

__all__ = ["cgroup2", "tracer"]  # fixtures


def _config(*args):
    """Return the config.json of a container that sees its cgroup and whose user may create others in it."""
    config = base_config(*args)
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"})
    config["linux"]["namespaces"].append({"type": "cgroup"})
    return config


@pytest.fixture
def sweep(cgroup2, user, rootless_command, tracer):
    """Return a function that makes a Sweep of one of these lives."""
    idle = make_bundle(user, _config("sleep", "1000"), name="idle")
    script = f"mkdir /sys/fs/cgroup/below; echo 0 >/sys/fs/cgroup/below/cgroup.procs; exit {ENDED_WELL}"
    brief = make_bundle(user, _config("sh", "-c", script), name="brief")
    lives = {
        "create": [["create", "--bundle", idle, "ID"], ["start", "ID"], ["delete", "--force", "ID"]],
        "run": [["run", "--bundle", brief, "ID"]],
    }

    def make(life):
        there = UserInView(cgroup2, user)
        swept = Sweep(there, tracer, rootless_command, lives[life], second=["run", "--bundle", brief, "ID"])
        swept.cgroups = cgroup2.directory
        return swept

    return make


@pytest.mark.parametrize(
    ("life", "role", "since", "least"),
    [("create", "0", "mkdir", 20), ("create", "2", "pidfd_open", 12), ("run", "0", "flock", 20)],
)
def test_killed_rootless_leaves_no_cgroup(sweep, life, role, since, least):
    swept = sweep(life)
    cases = [Case(moment, role) for moment in swept.kinds(role, since=since, without=WITHOUT_EFFECT)]
    all_right(swept.run_all(cases, rootless_was_killed, least=least))


@pytest.mark.parametrize("life", ["create", "run"])
def test_killed_executor_leaves_no_cgroup(sweep, life):
    swept = sweep(life)
    assert "cgroup_owner" in swept.operations
    moments = swept.kinds(SPAWNED + FIRST_STAGE + CONTAINER, without=WITHOUT_EFFECT)
    all_right(swept.run_all([Case(moment, moment.role) for moment in moments], executor_was_killed, least=40))


@pytest.mark.parametrize(
    ("life", "role", "since", "least"),
    [("create", "0", "mkdir", 9), ("create", "2", "pidfd_open", 8), ("run", "0", "flock", 10)],
)
def test_a_failed_call_of_rootless_leaves_no_cgroup(sweep, life, role, since, least):
    swept = sweep(life)
    names = {"mkdir", "openat", "write", "rmdir", "read", "unlinkat", "clone3", "getdents64"}
    moments = [moment for moment in swept.kinds(role, since=since) if moment.name in names]
    all_right(swept.run_all([Case(moment) for moment in moments], is_clear, least=least))
