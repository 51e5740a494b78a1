"""Sweeps of features that few containers use: every operation is in one of the Plans that are swept."""

from __future__ import annotations

import pytest

from rootless.plan import ops
from tests.lib.sweep import CONTAINER, FIRST_STAGE, HARMLESS, WITHOUT_EFFECT, Case
from tests.lib.sweep_lives import (
    all_right,
    executor_was_killed,
    is_clear,
    rare_sweep,
    rootless_was_killed,
    sweep,
    tracer,
)

__all__ = ["rare_sweep", "sweep", "tracer"]  # fixtures

RARE = ["rare", "nested", "network", "shared network", "monitored", "image"]
ELSEWHERE = {
    "cgroup_owner": "needs a delegated cgroup: tests/sweep/test_cgroups.py",
    "proc_open": "only for clock offsets where a namespace is joined: tests/hostile/test_joining.py",
    "join_early": "only where config.json names a namespace by its path: tests/spec/test_namespaces.py",
    "identify": "only for containers without a pid namespace of their own: tests/hostile/test_processes.py",
    "account": "only for images with --userns keep-id: tests/executor/test_accounts.py",
    "device_rules": "only for real root, whose cgroup is in a hierarchy of its own",
    "pretend": "only for a single ID: tests/verbs/test_fake_chown.py",
    "text_file": "only for a single ID, likewise",
    "remove_tree": "only for rm-tree, which can be called again: tests/verbs/test_rm_tree.py",
    "send_tree": "only for cp, which leaves no process and nothing on the host: tests/verbs/test_cp.py",
    "receive_tree": "only for cp, likewise",
}
"""Operations of the executor that are in no Plan of these lives, and the reasons."""


def test_every_operation_of_the_executor_is_swept(sweep, rare_sweep):
    swept = set()
    for life in ("create", "exec"):
        swept |= sweep(life).operations
    for life in RARE:
        swept |= rare_sweep(life).operations
    executors = {kind.name for kind in ops.KINDS if kind.by == ops.EXECUTOR}
    assert executors - swept == ELSEWHERE.keys()


LAUNCHERS_ELSEWHERE = {
    "no_input": "only for a COMMAND without --interactive, and leaves nothing behind: tests/verbs/test_run_flags.py",
    "allocate_ids": "needs systemd-nsresourced, whose range ends with the namespace: tests/images/test_systemd_ids.py",
    "compile_pretence": "only for a single ID, and leaves nothing behind: tests/verbs/test_fake_chown.py",
    "cover": "only for real root, whose container shares the host's mounts: tests/sweep/test_root.py",
    "make_cgroup": "needs a delegated cgroup: tests/sweep/test_cgroups.py",
    "enter_group": "only for --join: tests/cluster/test_mpi.py kills members",
    "note_member": "only for --join, likewise",
    "freeze": "needs a delegated cgroup, and is undone with it",
    "start_scope": "needs a systemd: tests/unit/test_undo.py ends the launcher at it",
    "join_resctrl": "needs a CPU with RDT: tests/unit/test_undo.py ends the launcher at it",
    "add_to_resctrl": "needs a CPU with RDT, and leaves nothing behind",
    "move_interfaces": "only for real root; the kernel removes the interfaces with the namespace",
    "attach_device_rules": "only for real root, whose cgroup is in a hierarchy of its own",
}
"""The launcher's operations that are in no Plan of these lives, and the reasons."""


def test_every_operation_of_the_launcher_is_swept(sweep, rare_sweep):
    swept = set()
    for life in ("create", "exec", "run -d"):
        swept |= sweep(life).launcher_operations()
    for life in [*RARE, "pasta"]:
        swept |= rare_sweep(life).launcher_operations()
    launchers = {kind.name for kind in ops.KINDS if kind.by == ops.LAUNCHER}
    assert launchers - swept == LAUNCHERS_ELSEWHERE.keys()


EXECUTORS = [
    ("rare", FIRST_STAGE + CONTAINER),
    ("nested", FIRST_STAGE),
    ("network", FIRST_STAGE),
    ("shared network", FIRST_STAGE),
    ("image", FIRST_STAGE + CONTAINER),
]
"""A first stage is a netns holder here as well. The container's process makes no other calls with a network."""
MISSED = 8
"""Netns holders wait for events: some of their moments do not occur, at most one in this number."""


@pytest.mark.parametrize(("life", "roles"), EXECUTORS)
def test_killed_executor_of_a_rare_feature_leaves_nothing(rare_sweep, life, roles):
    swept = rare_sweep(life)
    moments = swept.kinds(roles, without=WITHOUT_EFFECT)
    all_right(
        swept.run_all([Case(moment, moment.role) for moment in moments], executor_was_killed, least=20, missed=MISSED)
    )


@pytest.mark.parametrize("life", [*RARE, "pasta"])
def test_rootless_killed_with_a_rare_feature_leaves_nothing(rare_sweep, life, need):
    if life == "pasta":
        need("pasta")
    swept = rare_sweep(life)
    moments = swept.kinds("0", since="mkdirat", without=WITHOUT_EFFECT)
    all_right(swept.run_all([Case(moment, "0") for moment in moments], rootless_was_killed, least=20, missed=MISSED))


@pytest.mark.parametrize(("life", "roles"), EXECUTORS)
def test_a_failed_operation_of_a_rare_feature_is_clear_or_harmless(rare_sweep, life, roles):
    swept = rare_sweep(life)
    moments = swept.kinds(roles, without=HARMLESS)
    all_right(swept.run_all([Case(moment) for moment in moments], is_clear, least=15, missed=MISSED))


JOINS = "setns"
"""A system call that only the executor of `exec` makes."""


def test_killed_executor_of_exec_leaves_nothing(sweep):
    swept = sweep("exec")
    moments = swept.kinds(FIRST_STAGE + CONTAINER, since=JOINS, without=WITHOUT_EFFECT)
    all_right(swept.run_all([Case(moment, moment.role) for moment in moments], executor_was_killed, least=25))


def test_rootless_killed_in_exec_leaves_nothing(sweep):
    swept = sweep("exec")
    moments = swept.moments("2", since="pipe2", without=WITHOUT_EFFECT)
    all_right(swept.run_all([Case(moment, "2") for moment in moments], rootless_was_killed, least=25))


def test_a_failed_operation_of_exec_is_reported_or_harmless(sweep):
    swept = sweep("exec")
    moments = swept.moments(FIRST_STAGE + CONTAINER, since=JOINS, without=HARMLESS)
    all_right(swept.run_all([Case(moment) for moment in moments], is_clear, least=40))
