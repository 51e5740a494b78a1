"""From the command line to the Request of a Plan: look-ups, and changes before the Plan runs."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import pytest

from rootless.container.operations import record, undo
from rootless.container.request import resolve_network
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATED
from rootless.container.state.root import StateRoot
from rootless.container.state.state import State
from rootless.errors import RootlessError
from rootless.host import running
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from rootless.plan.request import Request
from rootless.procfs import Process, boot_id


@pytest.fixture
def program():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def root(tmp_path, program):
    """A state directory with the running container c1."""
    made = StateRoot(str(tmp_path / "state"))
    state = State("c1")
    state.pid, state.start_time, state.boot_id = program.pid, Process.read(program.pid).start_time, boot_id()
    state.status, state.bundle, state.rootfs = CREATED, "/bundle", "/bundle/rootfs"
    with store.claim(made, "c1", undo.clear) as entry:
        entry.write(state)
    yield made
    os.close(made.fd)


def _resolved(root):
    request = Request(Options(verb="run", container="c2", network="container:c1"))
    resolve_network(request, root)
    return request


def test_network_of_a_running_container_is_joined(root, program):
    descriptors = os.listdir("/proc/self/fd")
    assert _resolved(root).peer.pid == program.pid
    assert os.listdir("/proc/self/fd") == descriptors


def test_network_of_a_container_that_ends_meanwhile_is_refused(root, program, monkeypatch):
    """A process that has ended seems to have no network namespace: the container would use the caller's."""
    look = running.read

    def read(pid):
        program.kill()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return look(pid)

    monkeypatch.setattr(running, "read", read)
    with pytest.raises(RootlessError) as raised:
        _resolved(root)
    assert (raised.value.code, raised.value.cause) == ("RL-NETWORK", "container not running")


class _TakenRoot(StateRoot):
    """A state directory whose name another user takes before it is created, so that a different one is used."""

    def make(self):
        self.path += ".other"
        super().make()


@pytest.mark.parametrize("has_files", [True, False])
def test_files_in_a_directory_that_another_user_has_taken_are_not_mounted(tmp_path, has_files):
    """The Plan names the directory of resolv.conf and hosts before CLAIM makes it."""
    claim = Op(ops.CLAIM, "c1")
    plan = Plan([claim, *([Op(ops.WRITE_NAMES, "", "")] * has_files)], [])
    run = SimpleNamespace(root=_TakenRoot(str(tmp_path / "state")), plan=plan, is_claimed=False)
    if has_files:
        with pytest.raises(RootlessError, match="another user has taken the name"):
            record.claim(run, claim)
    else:
        record.claim(run, claim)
    assert run.is_claimed
    run.entry.close()
