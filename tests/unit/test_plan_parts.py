"""Namespaces, unsupported properties, operations as words and bytes, the lifecycle: each decision alone."""

from __future__ import annotations

import pytest

from rootless.container.state.lifecycle import (
    ABSENT,
    CREATED,
    CREATING,
    EXECUTED,
    EXITED,
    FROZEN,
    PAUSED,
    READY,
    REFUSALS,
    RUNNING,
    STOPPED,
    TRANSITIONS,
    advance,
    allow,
)
from rootless.container.state.state import State
from rootless.errors import RootlessError
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.encode import encode
from rootless.plan.op_text import details, sentence
from tests.unit.planning import (
    NESTED,
    ROOT,
    base_config,
    chosen,
    executor_ops,
    joining,
    mount,
    mounts_of,
    notes,
    plan_for,
    refused,
    the,
    with_mounts,
    without_namespace,
)

# --- Namespaces -------------------------------------------------------------------------------------------------------


def kinds_of(plan):
    return [op.kind.name for op in executor_ops(plan)]


def test_user_namespace_is_added_for_ordinary_users():
    plan = plan_for()
    assert kinds_of(plan)[:7] == ["new_user_namespace", "yield", "unshare", "fork", "become", "session", "keyring"]
    assert "a user namespace is added: you are not root" in notes(plan, ADAPTED)["linux.namespaces"]
    assert the(plan, ops.BECOME).numbers == (0, 0)


@pytest.mark.parametrize("caller", [ROOT, NESTED])
def test_no_user_namespace_is_added_for_root(caller):
    plan = plan_for(facts=caller)
    assert kinds_of(plan)[:3] == ["unshare", "fork", "session"]
    assert plan.maps is None


@pytest.mark.parametrize("mode", ["root", "keep-id", "single"])
@pytest.mark.parametrize("caller", [ROOT, NESTED])
def test_userns_flag_adds_a_user_namespace_for_root(caller, mode):
    plan = plan_for(facts=caller, userns=mode)
    assert kinds_of(plan)[0] == "new_user_namespace"
    assert f"--userns {mode}" in notes(plan)["linux.namespaces"]


def test_namespaces_are_made_at_once_except_the_cgroup_namespace():
    config = base_config()
    config["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "time"}]
    config["linux"]["timeOffsets"] = {"monotonic": {"secs": 5}, "boottime": {"secs": -3, "nanosecs": 7}}
    plan = plan_for(config)
    first, cgroup = chosen(plan, ops.UNSHARE)
    wanted = sum(CLONE_FLAGS[kind] for kind in ("pid", "network", "ipc", "uts", "mount", "time"))
    assert first.numbers == (wanted,)
    assert cgroup.numbers == (CLONE_FLAGS["cgroup"],)
    assert cgroup.where == "linux.namespaces[5]"
    write = next(op for op in plan.ops if op.strings[:1] == ("self/timens_offsets",))
    assert write.string("value") == "monotonic 5 0\nboottime -3 7\n"
    order = [plan.ops.index(op) for op in (first, write, the(plan, ops.FORK), cgroup)]
    assert order == sorted(order)


def test_time_offsets_need_a_new_time_namespace():
    config = base_config()
    config["linux"]["timeOffsets"] = {"monotonic": {"secs": 5}}
    assert refused(config).where == "linux.timeOffsets"


def test_only_root_inherits_the_mount_namespace_of_the_caller():
    plan = plan_for(without_namespace("mount"), ROOT)
    assert not the(plan, ops.UNSHARE).number("namespaces") & CLONE_FLAGS["mount"]
    assert not chosen(plan, ops.PROPAGATION, ops.PIVOT)
    assert the(plan, ops.ROOT).number("propagation") == 0
    assert (the(plan, ops.CHROOT).number("move"), plan.covered) == (0, "/home/user/bundle/rootfs")
    assert "linux.namespaces" not in notes(plan, UNSUPPORTED)
    for facts, more in ((None, {}), (ROOT, {"userns": "root"})):
        plan = plan_for(without_namespace("mount"), facts, **more)
        assert the(plan, ops.UNSHARE).number("namespaces") & CLONE_FLAGS["mount"]
        assert notes(plan, UNSUPPORTED)["linux.namespaces"].startswith(
            "a mount namespace is added: only root of the host"
        )
        assert plan.covered == ""


def test_root_joins_before_it_makes_a_user_namespace_and_others_after():
    config = joining(network="/proc/5/ns/net", ipc="/proc/5/ns/ipc")
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    first = ["non_dumpable", "join", "join", "new_user_namespace", "yield", "unshare"]
    assert kinds_of(plan_for(config, ROOT))[:6] == first
    early = ["join_early", "join_early"]  # for what is the caller's own already
    assert kinds_of(plan_for(config))[:8] == [
        *early,
        *["new_user_namespace", "yield", "non_dumpable", "join", "join", "unshare"],
    ]


def test_a_user_namespace_is_joined_before_all_others():
    """Namespaces that the caller may join itself come first: the joined user namespace need not own them."""
    plan = plan_for(joining(network="/proc/5/ns/net", user="/proc/5/ns/user", pid="/proc/5/ns/pid"))
    joins = chosen(plan, ops.JOIN)
    assert [op.number("namespace") for op in joins] == [CLONE_FLAGS["user"], CLONE_FLAGS["network"], CLONE_FLAGS["pid"]]
    assert [op.where for op in joins] == [f"linux.namespaces[{i}].path" for i in (4, 3, 5)]
    early = chosen(plan, ops.JOIN_EARLY)
    assert [(op.numbers, op.strings, op.where) for op in early] == [
        (op.numbers, (*op.strings, own), op.where)
        for op, own in zip(joins[1:], ("self/ns/net", "self/ns/pid"), strict=True)
    ]
    assert executor_ops(plan)[: 1 + len(early) + len(joins)] == [the(plan, ops.NON_DUMPABLE), *early, *joins]
    assert not chosen(plan, ops.NEW_USER)
    assert the(plan, ops.BECOME).numbers == (0, 0)


def test_clock_offsets_are_opened_while_the_process_is_dumpable():
    config = joining(user="/proc/5/ns/user")
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"monotonic": {"secs": 5}}
    plan = plan_for(config)
    assert kinds_of(plan)[:5] == ["proc_open", "non_dumpable", "join", "unshare", "proc_write"]
    first, *_, fifth = executor_ops(plan)[:5]
    assert first.strings == fifth.strings[:1]


def test_namespaces_of_its_own_identify_a_container_that_has_no_pid_namespace():
    assert not chosen(plan_for(), ops.IDENTIFY)
    plan = plan_for(joining(pid="/proc/5/ns/pid", mount="/proc/5/ns/mnt", ipc="/proc/5/ns/ipc"))
    assert plan.identifying == ["uts", "net"]
    plan = plan_for(joining(pid="/proc/5/ns/pid"))
    assert plan.identifying == ["mnt", "uts", "ipc", "net"]
    assert plan.ops.index(the(plan, ops.UNSHARE)) < plan.ops.index(the(plan, ops.IDENTIFY))
    assert plan.ops.index(the(plan, ops.IDENTIFY)) < plan.ops.index(the(plan, ops.FORK))


def test_mount_and_cgroup_namespaces_are_joined_by_the_container_process():
    plan = plan_for(joining(mount="/proc/5/ns/mnt", cgroup="/proc/5/ns/cgroup"), ROOT)
    joins = chosen(plan, ops.JOIN)
    assert [op.number("namespace") for op in joins] == [CLONE_FLAGS["mount"], CLONE_FLAGS["cgroup"]]
    assert all(plan.ops.index(op) > plan.ops.index(the(plan, ops.FORK)) for op in joins)
    assert plan.ops.index(the(plan, ops.NON_DUMPABLE)) < plan.ops.index(the(plan, ops.FORK))


@pytest.mark.parametrize(("key", "kind"), [("hostname", ops.HOSTNAME), ("domainname", ops.DOMAINNAME)])
def test_host_names_of_a_shared_uts_namespace_are_unchanged(key, kind):
    config = base_config()
    config[key] = "box"
    assert the(plan_for(config), kind).strings == ("box",)
    shared = without_namespace("uts")
    shared[key] = "box"
    error = refused(shared, ROOT)
    assert (error.where, error.code) == (key, "RL-UTS-SHARED")
    joined = joining(uts="/proc/5/ns/uts")
    joined[key] = "box"
    assert the(plan_for(joined), kind).strings == ("box",)


def test_loopback_comes_up_in_a_new_network_namespace_only():
    assert the(plan_for(), ops.LINK_UP).strings == ("lo",)
    assert not chosen(plan_for(without_namespace("network")), ops.LINK_UP)
    assert not chosen(plan_for(joining(network="/proc/5/ns/net")), ops.LINK_UP)


def test_keys_are_refused_without_a_keyring_unless_the_callers_is_kept():
    plan = plan_for()
    named, unnamed, refusing = (the(plan, kind) for kind in (ops.KEYRING, ops.UNNAMED_KEYRING, ops.NO_KEYS))
    assert (named.strings, named.on_error, named.alternatives) == (("_ses.c1",), ops.ELSE, 2)
    assert (unnamed.on_error, unnamed.alternatives, refusing.on_error) == (ops.ELSE, 1, ops.FAIL)
    assert plan.ops.index(named) + 2 == plan.ops.index(unnamed) + 1 == plan.ops.index(refusing)


def test_the_name_of_the_keyring_is_secret_where_others_may_make_one():
    assert the(plan_for(None, ROOT, keyring="_ses.c1.secret"), ops.KEYRING).strings == ("_ses.c1.secret",)
    plan = plan_for(joining(user="/proc/5/ns/user"), keyring="_ses.c1.secret")
    assert the(plan, ops.KEYRING).strings == ("_ses.c1.secret",)
    assert the(plan_for(keyring="_ses.c1.secret"), ops.KEYRING).strings == ("_ses.c1",)


def test_the_keyring_of_the_caller_is_kept_on_demand():
    assert not chosen(plan_for(no_new_keyring=True), ops.KEYRING)


# --- Empty values and old kernels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"), [("hooks", {"prestart": []}), ("apparmorProfile", ""), ("selinuxLabel", "")]
)
def test_empty_values_are_accepted(path, value):
    config = base_config()
    (config if path == "hooks" else config["process"])[path] = value
    plan_for(config)


def test_limits_that_are_not_enforced_are_reported():
    config = base_config()
    config["linux"] |= {
        "cgroupsPath": "/x",
        "resources": {"pids": {"limit": 0}, "cpu": {"shares": 10}, "devices": [{"allow": False}]},
    }
    plan = plan_for(config)
    assert set(notes(plan, UNSUPPORTED)) == {"linux.resources"}
    assert "not enforced: cpu.shares: " in notes(plan)["linux.resources"]
    assert "linux.cgroupsPath" in notes(plan, ADAPTED)
    assert "not enforced: cpu.shares, devices: " in notes(plan_for(config, ROOT), UNSUPPORTED)["linux.resources"]


def test_empty_limits_are_not_reported():
    """Docker writes such objects."""
    config = base_config()
    config["linux"]["resources"] = {
        "memory": {"disableOOMKiller": False},
        "blockIO": {},
        "cpu": {"cpus": ""},
        "devices": [],
    }
    assert not notes(plan_for(config, ROOT), UNSUPPORTED)


def test_an_old_kernel_is_refused():
    assert refused(facts={"kernel": (5, 11)}).code == "RL-KERNEL"
    plan_for(facts={"kernel": (5, 12)})


def test_bundle_without_a_process_is_refused():
    config = base_config()
    del config["process"]
    assert refused(config).where == "process"


# --- Operations as words and as bytes ---------------------------------------------------------------------------------


def test_every_operation_has_words():
    for kind in ops.KINDS:
        op = ops.Op(kind, *(1 for _ in kind.numbers), *("x" for _ in kind.strings))
        assert sentence(op)
        assert op.as_data()["op"] == kind.name


@pytest.mark.parametrize("arguments", [(), (1,), ("a", "b", "c"), (1, 2, "a", "b")])
def test_an_operation_has_the_arguments_of_its_kind(arguments):
    with pytest.raises(TypeError, match="takes"):
        ops.Op(ops.JOIN, *arguments)


def test_arguments_by_name():
    op = ops.Op(ops.DEVICE_NODE, 1, 2, 3, 4, 5, "/dev/x", where="here", on_error=ops.ELSE, alternatives=1)
    assert (op.number("minor"), op.string("target")) == (3, "/dev/x")
    assert op.as_data() == {
        "op": "device_node", "mode": 1, "major": 2, "minor": 3, "uid": 4, "gid": 5, "target": "/dev/x",
        "where": "here", "on_error": "otherwise", "alternatives": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["rbind", "ro", "nosuid"], "recursive, ro, nosuid, dev, exec"),
        (["rbind", "rw", "strictatime"], "recursive, rw, suid, dev, exec, strictatime"),
        (["rbind", "relatime"], "recursive, relatime"),
        (["rbind", "rro", "rslave"], "recursive, with everything below: ro, rslave"),
        (["rbind"], "recursive"),
    ],
)
def test_options_as_words(options, words):
    made = mounts_of(plan_for(with_mounts(mount("/data", "bind", *options, source="/srv")), ROOT), "mounts[4]")
    assert details(made[0]) == words


def test_strings_are_bytes_as_the_system_has_them():
    encoded = encode([ops.Op(ops.EXEC, ["ü", "a\udcffb"], [])])
    assert b"\xc3\xbc\0a\xffb\0" in encoded


# --- The lifecycle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "status", "words"),
    [
        ("start", CREATING, "container c1: cannot start a container that is not created yet"),
        ("start", CREATED, ""),
        ("start", RUNNING, "container c1: cannot start an already running container"),
        ("start", STOPPED, "container c1: cannot start a container that has stopped"),
        ("kill", CREATING, "container c1: container not running"),
        ("kill", CREATED, ""),
        ("kill", RUNNING, ""),
        ("kill", STOPPED, "container c1: container not running"),
        ("delete", CREATING, "cannot delete container c1 that is not stopped: creating"),
        ("delete", CREATED, "cannot delete container c1 that is not stopped: created"),
        ("delete", RUNNING, "cannot delete container c1 that is not stopped: running"),
        ("delete", STOPPED, ""),
    ],
)
def test_verbs_in_each_status(verb, status, words):
    """runtime.md "Operations"; engines match the words of the errors."""
    if not words:
        allow(verb, "c1", status)
        return
    with pytest.raises(RootlessError) as caught:
        allow(verb, "c1", status)
    assert str(caught.value).startswith(words)
    assert caught.value.status == 1


STATES = (ABSENT, CREATING, CREATED, RUNNING, PAUSED, STOPPED)
VERBS = ("start", "kill", "delete", "exec", "checkpoint", "pause", "resume", "update", "events")


@pytest.mark.parametrize("status", [state for state in STATES if state != ABSENT])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_allowed_or_refused_in_every_state(verb, status):
    assert ((verb, status) in TRANSITIONS) != ((verb, status) in REFUSALS)
    if (verb, status) in TRANSITIONS:
        allow(verb, "c1", status)
        return
    with pytest.raises(RootlessError, match=r"not (running|stopped|paused)|cannot") as caught:
        allow(verb, "c1", status)
    assert caught.value.code == "RL-STATUS"


def test_tables_have_no_other_events_or_states():
    kernel = {(READY, CREATING), (EXECUTED, CREATED), (FROZEN, CREATED), (FROZEN, RUNNING)}
    kernel |= {(EXITED, status) for status in (CREATING, CREATED, RUNNING, PAUSED)}
    pairs = {(verb, status) for verb in VERBS for status in STATES if status != ABSENT}
    assert TRANSITIONS.keys() | REFUSALS.keys() == pairs | kernel | {("create", ABSENT)}
    assert set(TRANSITIONS.values()) == set(STATES)


def test_a_status_is_only_written_by_a_transition():
    state = State("c1")
    written = []
    for event in ("create", READY):
        advance(state, event)
        written.append(state.status)
    assert written == [CREATING, CREATED]
    for event in ("create", READY):
        with pytest.raises(KeyError):
            advance(state, event)
