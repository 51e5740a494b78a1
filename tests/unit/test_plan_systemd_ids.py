"""`--userns systemd`: a range of IDs that systemd gives to the user namespace of an image."""

from __future__ import annotations

import pytest

from rootless.linux import READONLY
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.namespaces.new_or_joined import new_user
from rootless.plan.op_text import further_lines, sentence
from tests.unit.planning import NESTED, SINGLE, base_config, chosen, notes, plan_for, refused, the

SOCKET = "/run/systemd/io.systemd.NamespaceResource"
OFFERED = SINGLE | {"id_service": SOCKET}


def planned(*mounts, facts=OFFERED, root="root.sqsh", **options):
    config = base_config("true")
    config["root"] = {"path": root}
    config["mounts"] += mounts
    return plan_for(config, facts, userns="systemd", **options)


def test_systemd_writes_the_maps_instead_of_the_programs():
    plan = planned()
    order = [op.kind for op in plan.ops]
    assert order.index(ops.NEW_USER) + 1 == order.index(ops.ALLOCATE_IDS) < order.index(ops.UNSHARE)
    assert not chosen(plan, ops.BEGIN_ID_MAPS, ops.AWAIT_ID_MAPS)
    assert not ops.ALLOCATE_IDS.undo, "the range ends with the namespace"
    assert plan.maps.service == SOCKET
    assert (plan.maps.uid_program, plan.maps.gid_program, plan.maps.deny_setgroups) == ("", "", False)
    assert [op.kind for op in new_user(plan.maps)] == [ops.NEW_USER, ops.ALLOCATE_IDS]


def test_the_plan_says_that_the_range_is_free():
    op = the(planned(), ops.ALLOCATE_IDS)
    assert sentence(op) == "ask systemd to write the ID maps: 65536 ids that systemd lends it"
    assert list(further_lines(op)) == [
        f"uid map, written by {SOCKET}:",
        "  uid 0-65535 is a free range of the host",
        f"gid map, written by {SOCKET}:",
        "  gid 0-65535 is a free range of the host",
    ]


def test_no_owner_is_pretended_and_the_image_keeps_its_own():
    plan = planned()
    assert not chosen(plan, ops.PRETEND)
    assert the(plan, ops.BEGIN_IMAGE).value("image").owner == ()
    assert not notes(plan, UNSUPPORTED)


def test_every_user_of_an_image_exists():
    config = base_config("true")
    config["root"] = {"path": "root.sqsh"}
    config["process"]["user"] = {"uid": 65535, "gid": 65535}
    assert plan_for(config, OFFERED, userns="systemd")
    config["process"]["user"] = {"uid": 65536, "gid": 0}
    assert refused(config, OFFERED, userns="systemd").code == "RL-IDMAP-UNMAPPED"


@pytest.mark.parametrize("options", [["rbind"], ["bind", "rw"], ["rbind", "ro", "rrw"]])
def test_binds_are_read_only_copies_made_as_the_caller(options):
    bind = {"destination": "/data", "type": "bind", "source": "/home/user/data", "options": options}
    plan = planned(bind)
    order = [op.kind for op in plan.ops]
    assert order.index(ops.TREE) < order.index(ops.FORK) < order.index(ops.BECOME)
    trees = chosen(plan, ops.TREE)
    assert {tree.string("source") for tree in trees} == {"/home/user/data"}
    assert all(tree.number(name) & READONLY for tree in trees for name in ("set", "set_below"))
    assert not any(tree.number(name) & READONLY for tree in trees for name in ("clear", "clear_below"))
    assert not chosen(plan, ops.FILES_AS)
    told = "your files in /data are read-only and belong to nobody: the container has no ID of yours"
    assert notes(plan, UNSUPPORTED) == {"mounts[4]": told}


def test_maps_of_config_json_are_replaced():
    config = base_config("true")
    config["root"] = {"path": "root.sqsh"}
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1}]
    plan = plan_for(config, OFFERED, userns="systemd")
    assert notes(plan, ADAPTED)["linux.uidMappings"] == "--userns systemd replaces linux.uidMappings and gidMappings"


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"facts": SINGLE}, "systemd-nsresourced does not listen on this host"),
        ({"facts": NESTED}, "you are in a user namespace already"),
        ({"root": "rootfs"}, "the files of a bundle belong to you"),
        ({"join": "key"}, "the containers of a group share files on this host"),
        ({"overlay": "/home/user/changes"}, "it cannot write to a directory of yours"),
    ],
)
def test_what_needs_the_callers_own_id_is_refused(options, cause):
    with pytest.raises(Exception, match=cause) as caught:
        planned(**options)
    assert caught.value.code == "RL-IDMAP-SYSTEMD"
    assert caught.value.fix


def test_only_a_user_without_ids_hears_of_it():
    told = "or run an image with --userns systemd"
    for facts, hears in ((OFFERED, True), (SINGLE, False), ({"id_service": SOCKET}, False)):
        assert any(told in note.text for note in plan_for(None, facts).notes) == hears
