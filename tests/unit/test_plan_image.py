"""Roots that are images or lie under an overlay, planned."""

from __future__ import annotations

import pytest

from rootless.linux import NODEV, READONLY
from rootless.plan import ops
from rootless.plan.rootfs.confine import serve
from rootless.plan.rootfs.image import FILE, READY, Image
from tests.unit.planning import NESTED, ROOT, SINGLE, base_config, chosen, plan_for, refused, the, without_namespace


def image_config(**root):
    config = base_config("true")
    config["root"] = {"path": "root.sqsh"} | root
    return config


def kinds(plan):
    return [op.kind for op in plan.ops]


def test_the_server_starts_while_the_container_process_does():
    order = kinds(plan_for(image_config()))
    places = [order.index(kind) for kind in (ops.UNSHARE, ops.FUSE, ops.FORK, ops.RECORD, ops.BEGIN_IMAGE, ops.BECOME)]
    assert places == sorted(places)
    places = [order.index(kind) for kind in (ops.PROPAGATION, ops.AWAIT_IMAGE, ops.ROOT, ops.OVERLAY, ops.MOUNT)]
    assert places == sorted(places)


def test_a_directory_has_nothing_of_it():
    order = kinds(plan_for())
    assert not {ops.FUSE, ops.OVERLAY, ops.BEGIN_IMAGE, ops.AWAIT_IMAGE, ops.OPEN_UPPER}.intersection(order)


@pytest.mark.parametrize(
    ("userns", "facts", "owner", "ids"),
    [
        ("", {}, (), ("0", "0")),
        ("keep-id", {}, (), ("0", "0")),
        ("", SINGLE, (1, 1), ("1", "1")),
        ("keep-id", SINGLE, (1000, 1000), ("1000", "1000")),
        ("", ROOT, (), ("0", "0")),
        ("", NESTED, (), ("0", "0")),
    ],
)
def test_files_belong_to_ids_that_the_container_has(userns, facts, owner, ids):
    plan = plan_for(image_config(), facts, userns=userns)
    image = the(plan, ops.BEGIN_IMAGE).value("image")
    assert image.owner == owner
    assert image.private is (facts not in (ROOT, NESTED))
    options = the(plan, ops.FUSE).string("options")
    assert ("user_id=" + ids[0], "group_id=" + ids[1]) == tuple(options[3:5])
    command = image.command(7)
    assert (f"uid={owner[0]},gid={owner[1]}" in command[3]) if owner else "uid=" not in command[3]
    assert "offset=7" in command[3]


def test_a_container_with_id_0_alone_gets_the_image_through_another_id():
    plan = plan_for(image_config(), SINGLE)
    order = kinds(plan)
    # no process may end as the first one of the pid namespace
    assert order.index(ops.ID_MAP) + 1 == order.index(ops.FUSE) < order.index(ops.UNSHARE)
    assert the(plan, ops.ID_MAP).strings == ("1 0 1\n", "1 0 1\n", "")
    assert "allow_other" not in the(plan, ops.FUSE).string("options")
    assert "allow_other" in the(plan_for(image_config(), SINGLE, userns="keep-id"), ops.FUSE).string("options")


def test_the_image_can_be_neither_written_nor_a_source_of_devices():
    assert the(plan_for(image_config()), ops.FUSE).number("attributes") == READONLY | NODEV
    assert the(plan_for(image_config()), ops.OVERLAY).number("attributes") == NODEV


def test_a_read_only_root_is_sealed_after_its_mounts():
    plan = plan_for(image_config(readonly=True))
    order = kinds(plan)
    assert order.index(ops.OVERLAY) < order.index(ops.MOUNT) < order.index(ops.ROOT_ATTRIBUTES)


@pytest.mark.parametrize(("facts", "options"), [({}, ["userxattr"]), (NESTED, ["userxattr"]), (ROOT, [])])
def test_only_root_of_the_host_may_use_trusted_attributes(facts, options):
    assert the(plan_for(image_config(), facts), ops.OVERLAY).string("options") == options


def names(plan):
    return [op.strings for op in chosen(plan, ops.ACCOUNT)]


def test_the_caller_has_a_name_in_an_image_with_keep_id():
    plan = plan_for(image_config(), userns="keep-id")
    assert names(plan) == [
        ("/etc/passwd", "user", "1000", "user:*:1000:1000:A User:/:/bin/sh"),
        ("/etc/group", "group", "1000", "group:x:1000:user"),
    ]
    order = kinds(plan)
    # a file of the host that is mounted there is not written to
    assert order.index(ops.OVERLAY) < order.index(ops.ACCOUNT) < order.index(ops.MOUNT)
    assert names(plan_for(image_config(), userns="keep-id", kept_ids=(7, -1)))[0][3].startswith("user:*:7:1000:")


def test_only_roots_with_an_overlay_and_keep_id_get_names():
    assert names(plan_for(base_config("true"), userns="keep-id", overlay="memory"))
    for config, facts, options in (
        (base_config("true"), {}, {"userns": "keep-id"}),
        (image_config(), {}, {}),
        (image_config(), {}, {"userns": "root"}),
        (image_config(), ROOT, {"userns": "keep-id"}),
        (image_config(), NESTED, {"userns": "keep-id"}),
    ):
        assert names(plan_for(config, facts, **options)) == []


@pytest.mark.parametrize(
    ("env", "mounted", "home"),
    [
        ((), "", "/work"),
        (("HOME=/a", "HOME=/b"), "/home", "/b"),
        (("HOME=",), "", "/work"),
        (("HOME=relative",), "", "/"),
        (("HOME=/a:b",), "", "/"),
        (("HOME=/a\nroot::0:0::/:",), "", "/"),
        ((), "/home", "/home/user"),
        ((), "home/user/", "/home/user"),
        ((), "/home/use", "/work"),
        ((), "/home/user/below", "/work"),
    ],
)
def test_the_home_of_the_caller_is_one_that_the_container_has(env, mounted, home):
    config = image_config()
    config["process"]["env"] = list(env)
    config["process"]["cwd"] = "/work"
    if mounted:
        config["mounts"].append({"destination": mounted, "type": "bind", "source": "/srv", "options": ["bind"]})
    assert names(plan_for(config, userns="keep-id"))[0][3] == f"user:*:1000:1000:A User:{home}:/bin/sh"


@pytest.mark.parametrize("config", [base_config("true"), image_config()], ids=["directory", "image"])
def test_a_directory_for_the_changes_is_checked_and_taken_along_with_the_callers_rights(config):
    plan = plan_for(config, overlay="/home/user/changes")
    order = kinds(plan)
    assert order.index(ops.CLAIM) < order.index(ops.OPEN_UPPER) < order.index(ops.SPAWN)
    assert order.index(ops.TREE) < order.index(ops.FORK) < order.index(ops.OVERLAY)
    assert the(plan, ops.TREE).string("source") == "/home/user/changes"
    assert the(plan, ops.OVERLAY).string("upper") == "/home/user/changes"


def test_the_directory_comes_before_other_trees():
    """OVERLAY takes the next tree, and is the first to take one."""
    config = base_config("true")
    config["mounts"].append({"destination": "/data", "type": "bind", "source": "/srv", "options": ["bind"]})
    plan = plan_for(config, ROOT, overlay="/home/user/changes", userns="single")
    assert [op.string("source") for op in chosen(plan, ops.TREE)][:2] == ["/home/user/changes", "/srv"]


@pytest.mark.parametrize(
    ("config", "facts", "options", "cause"),
    [
        (image_config(), {}, {"no_pivot": True}, "it needs pivot_root"),
        (base_config(), {}, {"no_pivot": True, "overlay": "memory"}, "it needs pivot_root"),
        (without_namespace("mount"), ROOT, {"overlay": "memory"}, "no mount namespace of its own"),
        (image_config(), {"squashfuse": ""}, {}, "squashfuse_ll is not installed"),
    ],
)
def test_what_cannot_be_is_refused(config, facts, options, cause):
    error = refused(config, facts, **options)
    assert (error.code, cause in error.cause, error.where) == ("RL-IMAGE", True, "root.path")


def test_the_server_is_confined_before_it_is_executed():
    for private in (True, False):
        plan = serve(Image("/i.sqsh", "/opt/squashfuse_ll", (), private=private), 0, "x86_64")
        order = [op.kind for op in plan]
        first = ops.NEW_USER if private else ops.BOUNDING
        wanted = [ops.SPAWN, first, ops.UNSHARE, ops.READONLY_HOST, ops.SESSION]
        wanted += [ops.NO_NEW_PRIVS, ops.LANDLOCK, ops.NO_SOCKETS, ops.FORK, ops.EXEC]
        assert [kind for kind in order if kind is not ops.RLIMIT] == wanted
        paths = plan[order.index(ops.LANDLOCK)].string("paths")
        assert {"/opt/squashfuse_ll", f"/proc/self/fd/{FILE}"} <= set(paths)
        assert not {"/", "/home", "/etc", "/tmp"} & set(paths)
        assert f"notify_pipe=/proc/self/fd/{READY}" in plan[-1].string("args")[3]
