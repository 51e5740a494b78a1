"""The places of hooks, a seccomp listener and a notify socket in a Plan."""

from __future__ import annotations

import json

import pytest

from rootless.container.operations.record import after_start
from rootless.plan import ops
from tests.lib.bundles import base_config
from tests.unit.planning import plan_for

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
RARE = (ops.RUN_HOOK, ops.HOOK_OUTPUT, ops.HOOK, ops.LISTENER, ops.NOTIFY_SOCKET, ops.PASS_NOTIFY)


def with_hooks(*kinds, **hook):
    """Return a config with a hook of each of these kinds."""
    return base_config("true") | {"hooks": {kind: [{"path": f"/{kind}"} | hook] for kind in kinds}}


def places(plan):
    """Return the first index of each kind of operation."""
    found = {}
    for index, op in enumerate(plan.ops):
        found.setdefault(op.kind, index)
    return found


def test_a_plan_without_hooks_has_none():
    for config in (base_config("true"), with_hooks(), base_config("true") | {"hooks": {"poststop": []}}):
        plan = plan_for(config)
        assert not places(plan).keys() & set(RARE)
        assert (plan.hooks, plan.listener, plan.notify) == ({}, {}, False)


def test_hooks_stand_between_the_mounts_and_the_new_root_and_before_the_program():
    plan = plan_for(with_hooks(*KINDS))
    at = places(plan)
    assert at[ops.MOUNT] < at[ops.RUN_HOOK] < at[ops.HOOK] < at[ops.READONLY_PATH] < at[ops.PIVOT]
    outside = [(op.value("kind"), index) for index, op in enumerate(plan.ops) if op.kind is ops.RUN_HOOK]
    assert [kind for kind, _ in outside] == ["prestart", "createRuntime", "poststart", "poststop"]
    assert outside[1][1] < at[ops.HOOK] < at[ops.EXEC] < outside[2][1] < at[ops.DELETE] < outside[3][1]
    inside = [(index, op) for index, op in enumerate(plan.ops) if op.kind is ops.HOOK]
    assert [op.where for _, op in inside] == ["hooks.createContainer[0]", "hooks.startContainer[0]"]
    (_, on_host), (place, in_image) = inside
    assert on_host.number("bound") == 0
    first, bound = place + 1 + in_image.number("first"), in_image.number("bound")
    assert [op.kind for op in plan.ops[first : first + bound + 1]] == [ops.NO_NEW_PRIVS, ops.EXEC]
    # the umask of what is made in the image is not for hooks
    assert plan.ops[inside[0][0] - 1].kind is ops.UMASK
    assert plan.ops[inside[0][0] - 1].number("mask") == 0o022
    assert plan.ops[place - 1].kind is ops.NON_DUMPABLE
    assert at[ops.WAIT_START] < inside[1][0] < at[ops.NO_NEW_PRIVS] < at[ops.EXEC]
    assert plan.hooks == {
        kind: [{"path": f"/{kind}"}] for kind in ("prestart", "createRuntime", "poststart", "poststop")
    }


@pytest.mark.parametrize(("kind", "due"), [("prestart", True), ("createRuntime", True), ("poststop", False)])
def test_executor_waits_only_for_hooks_of_the_host(kind, due):
    assert (ops.YIELD in [op.kind for _, op in plan_for(with_hooks(kind)).executor_part()][4:]) == due


def test_input_of_a_hook_inside_the_container():
    config = with_hooks("createContainer", timeout=7, args=["a", "", "b c"], env=["A=1"])
    config["annotations"] = {"quote": '"\n\u00e9'}
    op = next(op for op in plan_for(config).ops if op.kind is ops.HOOK)
    assert op.number("timeout") == 7
    assert (op.string("path"), op.string("args"), op.string("env")) == (
        "/createContainer", ["a", "", "b c"], ["A=1"],
    )  # fmt: skip
    _, text = op.string("about")
    state = json.loads(text + "123}")
    assert (state["status"], state["pid"], state["annotations"]) == ("creating", 123, config["annotations"])


@pytest.mark.parametrize(("kind", "inherited"), [("createContainer", ops.CALLERS), ("startContainer", ops.PROGRAMS)])
def test_only_a_hook_without_an_environment_inherits_one(kind, inherited):
    for given, expected in (({}, inherited), ({"env": None}, inherited), ({"env": []}, ops.GIVEN)):
        plan = plan_for(with_hooks(kind, **given))
        op = next(op for op in plan.ops if op.kind is ops.HOOK)
        assert (op.number("environment"), op.string("env")) == (expected, ())
        plan.load_environment(["A=1"])
        assert op.string("env") == (["A=1"] if expected == ops.CALLERS else ())


def test_output_is_opened_first_and_only_for_hooks_inside():
    config = with_hooks("startContainer")
    config["annotations"] = {"run.oci.hooks.stdout": "/log", "run.oci.hooks.stderr": "beside"}
    first = next(op for op in plan_for(config).ops if op.kind.by == ops.EXECUTOR)
    assert first.kind is ops.HOOK_OUTPUT
    assert first.string("stdout") == "/log"
    assert first.string("stderr").endswith("/beside")
    config["hooks"] = {"poststop": [{"path": "/x"}]}
    assert ops.HOOK_OUTPUT not in places(plan_for(config))


def test_hook_data_for_start_is_small():
    config = with_hooks("startContainer", env=["A=" + "x" * 5000])
    config["annotations"] = {"large": "x" * 5000}
    assert len(json.dumps(after_start(plan_for(config), ()).operations)) < 3000


def test_each_hook_of_the_image_is_bound_by_what_binds_its_program():
    config = with_hooks("startContainer")
    config["hooks"]["startContainer"] *= 3
    config["process"]["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    plan = plan_for(config, init=True)
    for place, op in enumerate(plan.ops):
        if op.kind is ops.HOOK:
            first = place + 1 + op.number("first")
            kinds = [op.kind for op in plan.ops[first : first + op.number("bound") + 1]]
            assert kinds == [ops.RLIMIT, ops.NO_NEW_PRIVS, ops.SECCOMP, ops.INIT]


def test_the_process_that_passes_the_listener_starts_before_limits_scheduler_and_filter():
    config = base_config("true")
    config["process"]["scheduler"] = {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 2}
    config["process"]["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": "/agent"}
    plan = plan_for(config)
    at = places(plan)
    assert at[ops.SPAWN] + 1 == at[ops.LISTENER] < at[ops.FORK] < at[ops.SCHEDULER] < at[ops.RLIMIT] < at[ops.SECCOMP]
    assert plan.listener == {"path": "/agent", "metadata": ""}


def test_a_service_has_a_socket_and_its_variables_replace_others():
    config = base_config("true")
    config["process"]["env"] += ["NOTIFY_SOCKET=/old", "LISTEN_FDS=9"]
    plan = plan_for(config, notify=True, environment=("NOTIFY_SOCKET=/new", "LISTEN_FDS=1"))
    at = places(plan)
    assert at[ops.MOUNT] < at[ops.NOTIFY_SOCKET] < at[ops.PIVOT] < at[ops.WAIT_START] < at[ops.PASS_NOTIFY]
    environment = plan.first(ops.EXEC).string("env")
    assert [entry for entry in environment if "=/" in entry[:20] or entry.startswith("LISTEN")][-2:] == [
        "NOTIFY_SOCKET=/new", "LISTEN_FDS=1",
    ]  # fmt: skip
    assert len({entry.partition("=")[0] for entry in environment}) == len(environment)
