"""Sweeps as root with a container that shares the mounts of the host: none of its mounts is left."""

from __future__ import annotations

import subprocess

import pytest

from tests.lib.accounts import User
from tests.lib.boxes import add_mount, set_namespaces
from tests.lib.bundles import base_config, make_bundle, own
from tests.lib.sweep import CONTAINER, ENDED_WELL, FIRST_STAGE, SPAWNED, WITHOUT_EFFECT, Case, Sweep
from tests.lib.sweep_lives import all_right, executor_was_killed, is_clear, rootless_was_killed, tracer

__all__ = ["tracer"]  # fixtures

pytestmark = pytest.mark.usefixtures("require_root")


class Root(User):
    """Root, with the directories of a user."""

    def __init__(self, user: User) -> None:
        self.__dict__.update(vars(user))
        self.uid = self.gid = 0

    def popen(self, argv, **options) -> subprocess.Popen:
        """Start `argv` as root."""
        return super().popen(argv, **options | {"user": 0, "group": 0})


def _config(*args):
    """Return a config.json without a mount namespace."""
    config = base_config(*args)
    set_namespaces(config, "pid", "network", "ipc", "uts")
    add_mount(config, "/data")
    return config


@pytest.fixture
def sweep(user, rootless_command, tracer):
    """Return a function that makes a Sweep of one of these lives."""
    root = Root(user)
    idle = make_bundle(root, _config("sleep", "1000"), name="idle")
    brief = make_bundle(root, _config("sh", "-c", f"exit {ENDED_WELL}"), name="brief")
    own(root, user.tmp)
    lives = {
        "create": [["create", "--bundle", idle, "ID"], ["start", "ID"], ["delete", "--force", "ID"]],
        "run": [["run", "--bundle", brief, "ID"]],
    }

    def make(life):
        swept = Sweep(root, tracer, rootless_command, lives[life], second=["run", "--bundle", brief, "ID"])
        assert "cover" in {operation["op"] for operation in swept.plan()}
        swept.workers = 1  # the mounts of two containers would cover each other
        return swept

    return make


@pytest.mark.parametrize(
    ("life", "role", "since", "least"),
    [("create", "0", "mkdirat", 20), ("create", "2", "pidfd_open", 8), ("run", "0", "flock", 20)],
)
def test_killed_rootless_leaves_no_mount(sweep, life, role, since, least):
    swept = sweep(life)
    cases = [Case(moment, role) for moment in swept.kinds(role, since=since, without=WITHOUT_EFFECT)]
    all_right(swept.run_all(cases, rootless_was_killed, least=least))


def test_killed_executor_leaves_no_mount(sweep):
    swept = sweep("create")
    moments = swept.kinds(SPAWNED + FIRST_STAGE + CONTAINER, without=WITHOUT_EFFECT)
    all_right(swept.run_all([Case(moment, moment.role) for moment in moments], executor_was_killed, least=30))


def test_a_failed_call_of_rootless_leaves_no_mount(sweep):
    swept = sweep("run")
    names = {"openat", "write", "read", "unlinkat", "clone3", "umount2"}
    moments = [moment for moment in swept.kinds("0", since="flock") if moment.name in names]
    all_right(swept.run_all([Case(moment) for moment in moments], is_clear, least=8))
