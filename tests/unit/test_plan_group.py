"""`run --join`: which namespaces the containers of a group share, and how a container enters them."""

from __future__ import annotations

from rootless.bundle.edit.mounts import share_shm
from rootless.host.host_network import HostNetwork
from rootless.linux import CLONE_FLAGS, CLONE_NEWIPC, CLONE_NEWUSER
from rootless.plan import ops
from rootless.plan.context import ADAPTED
from rootless.plan.namespaces.group import shared_path
from rootless.plan.namespaces.group_maker import maker
from tests.unit.planning import (
    ROOT,
    base_config,
    chosen,
    executor_ops,
    joining,
    notes,
    plan_for,
    refused,
    the,
    without_namespace,
)


def joined(plan):
    """Return the types of the namespaces that are joined, in their order, with their paths."""
    kinds = {flag: kind for kind, flag in CLONE_FLAGS.items()}
    return [(kinds[op.number("namespace")], op.string("path")) for op in chosen(plan, ops.JOIN)]


def test_user_and_ipc_namespace_are_shared_and_entered_before_the_others_are_created():
    plan = plan_for(join="key")
    enter = the(plan, ops.ENTER_GROUP)
    assert (enter.value("key"), enter.value("namespaces")) == ("key", ["user", "ipc"])
    assert enter.value("maps").uids[0] == (0, 1000, 1)
    assert joined(plan) == [("user", shared_path("key")), ("ipc", shared_path("key"))]
    assert not chosen(plan, ops.NEW_USER, ops.BEGIN_ID_MAPS, ops.AWAIT_ID_MAPS)
    kinds = [op.kind for op in plan.ops]
    order = [ops.CLAIM, ops.ENTER_GROUP, ops.SPAWN, ops.NON_DUMPABLE, ops.JOIN_EARLY, ops.JOIN, ops.UNSHARE]
    assert sorted(order, key=kinds.index) == order
    assert kinds.index(ops.FORK) < kinds.index(ops.RECORD) < kinds.index(ops.NOTE_MEMBER)
    assert not the(plan, ops.UNSHARE).number("namespaces") & (CLONE_NEWUSER | CLONE_NEWIPC)


def test_members_have_no_pid_namespace_of_their_own():
    plan = plan_for(join="key")
    assert "no pid namespace is created" in notes(plan, ADAPTED)["linux.namespaces[0]"]
    assert not the(plan, ops.UNSHARE).number("namespaces") & CLONE_FLAGS["pid"]
    assert "ipc" not in plan.identifying
    assert "mnt" in plan.identifying


def test_the_keyring_has_a_name_that_nobody_else_in_the_user_namespace_has():
    assert the(plan_for(join="key", keyring="_ses.c1.secret"), ops.KEYRING).string("name") == "_ses.c1.secret"
    assert the(plan_for(keyring="_ses.c1.secret"), ops.KEYRING).string("name") == "_ses.c1"


def test_without_an_ipc_namespace_of_its_own_a_container_shares_the_user_namespace():
    plan = plan_for(without_namespace("ipc"), join="key")
    assert the(plan, ops.ENTER_GROUP).value("namespaces") == ["user"]


def test_containers_of_root_share_the_ipc_namespace():
    plan = plan_for(facts=ROOT, join="key")
    assert the(plan, ops.ENTER_GROUP).value("namespaces") == ["ipc"]
    assert the(plan, ops.ENTER_GROUP).value("maps") is None
    assert joined(plan) == [("ipc", shared_path("key"))]


def test_where_there_is_nothing_to_share_a_key_is_an_error():
    error = refused(joining(user="/proc/7/ns/user"), join="key")
    assert (error.code, error.what) == ("RL-JOIN", "--join key")
    assert error.cause == "the container joins a user namespace that exists"
    error = refused(without_namespace("ipc"), ROOT, join="key")
    assert error.cause == "the container has no user namespace and no ipc namespace of its own"


def test_the_namespaces_are_made_by_a_process_of_their_own():
    maps = the(plan_for(join="key"), ops.ENTER_GROUP).value("maps")
    kinds = [op.kind for op in maker(maps, ["user", "ipc"])]
    assert kinds == [
        ops.SPAWN, ops.NEW_USER, ops.BEGIN_ID_MAPS, ops.AWAIT_ID_MAPS, ops.UNSHARE, ops.READY, ops.WAIT_START
    ]  # fmt: skip
    assert ops.UNSHARE not in [op.kind for op in maker(maps, ["user"])]
    assert ops.NEW_USER not in [op.kind for op in maker(None, ["ipc"])]


def test_no_helper_of_a_network_shows_itself_to_other_members():
    """They may have every capability over its user namespace, and see the host's files through /proc/PID/root."""
    programs = {"slirp4netns": "/bin/slirp4netns", "pasta": "/bin/pasta"}
    host = HostNetwork(programs, resolver=(), hosts="", libslirp="4.9.6")
    error = refused(facts={"network": host}, network="slirp4netns", join="key")
    assert "the container joins a user namespace (--join)" in error.cause
    for facts in ({}, ROOT):
        network = plan_for(facts={"network": host} | facts, network="auto", userns="root", join="key").network
        assert [helper.name for helper in network.helpers] == ["pasta"]
        assert network.exposed
        assert not network.by_number
        assert not network.shows_holder(network.helpers[0])


def test_without_a_key_nothing_is_shared():
    assert not chosen(plan_for(), ops.ENTER_GROUP, ops.NOTE_MEMBER)
    assert not [op for op in executor_ops(plan_for()) if op.kind is ops.JOIN]


def test_dev_shm_is_that_of_the_host():
    mounts = share_shm(base_config())["mounts"]
    assert [each["source"] for each in mounts if each["destination"] == "/dev/shm"] == ["/dev/shm"]
    assert mounts == share_shm({"mounts": mounts})["mounts"]
