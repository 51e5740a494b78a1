"""Plans for rare properties: scheduling, labels, ID-mapped mounts, network interfaces, shares of caches."""

from __future__ import annotations

import os
import struct

import pytest

from rootless.container.operations import undo
from rootless.container.state import store
from rootless.container.state.root import StateRoot
from rootless.errors import RootlessError
from rootless.host import facts
from rootless.host.facts import Facts
from rootless.launch import join_resctrl
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.rootfs.mount_options import SHARED, SLAVE
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

# --- Scheduling -------------------------------------------------------------------------------------------------------

SCHED_ATTR = struct.Struct("=IIQiIQQQII")


def with_process(**properties):
    config = base_config()
    config["process"] |= properties
    return config


def with_linux(**properties):
    config = base_config()
    config["linux"] |= properties
    return config


@pytest.mark.parametrize(
    ("scheduler", "fields", "told"),
    [
        ({"policy": "SCHED_OTHER", "nice": -5}, (0, 0, -5, 0, 0, 0, 0), "SCHED_OTHER, nice -5"),
        ({"policy": "SCHED_BATCH"}, (3, 0, 0, 0, 0, 0, 0), "SCHED_BATCH, nice 0"),
        ({"policy": "SCHED_IDLE"}, (5, 0, 0, 0, 0, 0, 0), "SCHED_IDLE"),
        ({"policy": "SCHED_FIFO", "priority": 50}, (1, 0, 0, 50, 0, 0, 0), "SCHED_FIFO, priority 50"),
        (
            {"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            (2, 1, 0, 1, 0, 0, 0),
            "SCHED_RR, priority 1, SCHED_FLAG_RESET_ON_FORK",
        ),
        (
            {
                "policy": "SCHED_DEADLINE",
                "runtime": 10,
                "deadline": 20,
                "period": 30,
                "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"],
            },
            (6, 6, 0, 0, 10, 20, 30),
            "SCHED_DEADLINE, runtime 10, deadline 20, period 30, SCHED_FLAG_RECLAIM, SCHED_FLAG_DL_OVERRUN",
        ),
        # a custom slice, since Linux 6.12
        (
            {"policy": "SCHED_OTHER", "runtime": 10**7},
            (0, 0, 0, 0, 10**7, 0, 0),
            "SCHED_OTHER, nice 0, runtime 10000000",
        ),
        # the kernel refuses this
        ({"policy": "SCHED_OTHER", "priority": 4}, (0, 0, 0, 4, 0, 0, 0), "SCHED_OTHER, nice 0, priority 4"),
    ],
)
def test_scheduler(scheduler, fields, told):
    plan = plan_for(with_process(scheduler=scheduler))
    op = the(plan, ops.SCHEDULER)
    assert (op.string("wanted"), op.where) == (told, "process.scheduler")
    assert SCHED_ATTR.unpack(op.string("attributes")) == (SCHED_ATTR.size, *fields, 0, 0)
    assert notes(plan, UNSUPPORTED) == {}


def test_options_that_the_kernel_ignores_are_reported():
    for policy in ("SCHED_FIFO", "SCHED_DEADLINE", "SCHED_IDLE"):
        plan = plan_for(with_process(scheduler={"policy": policy, "priority": 1, "nice": 3}))
        assert notes(plan, UNSUPPORTED) == {"process.scheduler.nice": f"nice has no effect under {policy}"}
    plan = plan_for(with_process(scheduler={"policy": "SCHED_BATCH", "period": 3}))
    assert notes(plan, UNSUPPORTED) == {"process.scheduler": "deadline and period have no effect under SCHED_BATCH"}


def test_sched_iso_is_refused():
    error = refused(with_process(scheduler={"policy": "SCHED_ISO"}))
    assert (error.code, error.where) == ("RL-SCHEDULER", "process.scheduler.policy")


@pytest.mark.parametrize(
    ("asked", "caller", "nice"),
    [
        ({}, dict(nice=10), 10),
        ({}, dict(nice=-3), 0),
        ({"nice": 0}, dict(nice=10), 0),
        ({}, ROOT | dict(nice=10), 0),
        ({}, NESTED | dict(nice=10), 10),
    ],
)
def test_default_nice_is_not_below_the_callers(asked, caller, nice):
    plan = plan_for(with_process(scheduler={"policy": "SCHED_OTHER"} | asked), caller)
    assert SCHED_ATTR.unpack(the(plan, ops.SCHEDULER).string("attributes"))[3] == nice
    assert ("process.scheduler.nice" in notes(plan, ADAPTED)) == (nice == 10)


@pytest.mark.parametrize(
    ("io_priority", "value"),
    [
        ({"class": "IOPRIO_CLASS_RT", "priority": 0}, 0x2000),
        ({"class": "IOPRIO_CLASS_BE", "priority": 7}, 0x4007),
        ({"class": "IOPRIO_CLASS_BE"}, 0x4000),
        ({"class": "IOPRIO_CLASS_IDLE", "priority": 4}, 0x6004),
    ],
)
def test_io_priority(io_priority, value):
    op = the(plan_for(with_process(ioPriority=io_priority)), ops.IO_PRIORITY)
    assert (op.number("value"), op.where) == (value, "process.ioPriority")
    assert io_priority["class"] in op.string("wanted")


@pytest.mark.parametrize(
    ("policy", "mode", "mask"),
    [
        ({"mode": "MPOL_DEFAULT"}, 0, b""),
        ({"mode": "MPOL_DEFAULT", "nodes": ""}, 0, b""),
        ({"mode": "MPOL_LOCAL", "nodes": " "}, 4, b""),
        ({"mode": "MPOL_PREFERRED"}, 1, b""),
        ({"mode": "MPOL_PREFERRED", "nodes": "1"}, 1, (2,)),
        ({"mode": "MPOL_BIND", "nodes": "0-3,7"}, 2, (0x8F,)),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "2-3", "flags": ["MPOL_F_STATIC_NODES"]}, 3 | 1 << 15, (0xC,)),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "62", "flags": ["MPOL_F_RELATIVE_NODES"]}, 5 | 1 << 14, (1 << 62,)),
        # the kernel ignores the last bit, so it must be an unused one
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "63"}, 6, (1 << 63, 0)),
        ({"mode": "MPOL_BIND", "nodes": "64", "flags": ["MPOL_F_NUMA_BALANCING"]}, 2 | 1 << 13, (0, 1)),
        ({"mode": "MPOL_BIND", "nodes": "1023"}, 2, (0,) * 15 + (1 << 63, 0)),
    ],
)
def test_memory_policy(policy, mode, mask):
    op = the(plan_for(with_linux(memoryPolicy=policy)), ops.MEMORY_POLICY)
    assert (op.number("mode"), op.where) == (mode, "linux.memoryPolicy")
    assert op.string("nodes") == (struct.pack(f"={len(mask)}Q", *mask) if mask else b"")


@pytest.mark.parametrize("nodes", ["x", "-1", "3-1", "1,,2", "1-2-3", "0x1", "1024", "0-99999999999999", "²"])
def test_invalid_nodes_are_refused(nodes):
    error = refused(with_linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": nodes}))
    assert (error.code, error.where) == ("RL-CONFIG", "linux.memoryPolicy.nodes")


@pytest.mark.parametrize(
    ("policy", "cause"),
    [
        ({"mode": "MPOL_BIND"}, "it needs nodes"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": ""}, "it needs nodes"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, "it takes no nodes"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "it takes no nodes"),
    ],
)
def test_a_memory_policy_with_and_without_nodes(policy, cause):
    error = refused(with_linux(memoryPolicy=policy))
    assert (error.cause, error.where) == (cause, "linux.memoryPolicy.nodes")


def test_personality():
    for domain, number in (("LINUX", 0), ("LINUX32", 8)):
        assert the(plan_for(with_linux(personality={"domain": domain})), ops.PERSONALITY).number("domain") == number
    assert chosen(plan_for(with_linux(personality={"domain": "LINUX", "flags": []})), ops.PERSONALITY)
    error = refused(with_linux(personality={"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}))
    assert error.where == "linux.personality.flags[0]"


def test_scheduling_comes_before_privileges_are_dropped():
    config = with_linux(memoryPolicy={"mode": "MPOL_LOCAL"}, personality={"domain": "LINUX"})
    config["process"] |= {"scheduler": {"policy": "SCHED_FIFO"}, "ioPriority": {"class": "IOPRIO_CLASS_RT"}}
    config["process"]["rlimits"] = [{"type": "RLIMIT_RTPRIO", "soft": 9, "hard": 9}]
    plan = plan_for(config, ROOT | dict(hard_limits={14: 0}))
    kinds = [op.kind for op in plan.ops]
    rare = [ops.SCHEDULER, ops.IO_PRIORITY, ops.MEMORY_POLICY, ops.PERSONALITY]
    first = kinds.index(ops.SCHEDULER)
    assert kinds[first : first + 4] == rare
    # a raised limit may permit a real-time policy
    assert kinds.index(ops.RLIMIT) < first < kinds.index(ops.BOUNDING) < kinds.index(ops.EXEC)


@pytest.mark.parametrize("empty", [None, {}])
def test_no_scheduling_operations_without_properties(empty):
    config = base_config()
    config["process"] |= {"scheduler": None, "ioPriority": None, "apparmorProfile": "", "selinuxLabel": ""}
    config["linux"] |= {"memoryPolicy": None, "personality": None, "netDevices": empty, "mountLabel": ""}
    config["linux"]["intelRdt"] = None
    config |= {"vm": empty, "windows": empty}
    plan = plan_for(config)
    usual = plan_for(base_config())
    assert [op.as_data() for op in executor_ops(plan)] == [op.as_data() for op in executor_ops(usual)]
    assert (plan.links, plan.group) == ((), None)


# --- Labels -----------------------------------------------------------------------------------------------------------

LABEL = "system_u:system_r:container_t:s0:c1,c2"
MOUNT_LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def writes(plan):
    return [(op.string("path"), op.string("value"), op.where) for op in chosen(plan, ops.PROC_WRITE)]


def test_an_apparmor_profile():
    plan = plan_for(with_process(apparmorProfile="docker-default"), dict(apparmor=True))
    assert writes(plan) == [("self/attr/apparmor/exec", "exec docker-default", "process.apparmorProfile")]
    kinds = [op.kind for op in plan.ops]
    # the host's /proc is closed before the first directory of the image is entered
    assert kinds.index(ops.PIVOT) < kinds.index(ops.PROC_WRITE) < kinds.index(ops.CHDIR)


def test_an_selinux_label():
    plan = plan_for(with_process(selinuxLabel=LABEL), dict(selinux=True))
    assert writes(plan) == [("self/attr/exec", LABEL, "process.selinuxLabel")]


@pytest.mark.parametrize(
    ("config", "where", "code"),
    [
        (with_process(apparmorProfile="docker-default"), "process.apparmorProfile", "RL-APPARMOR"),
        (with_process(selinuxLabel=LABEL), "process.selinuxLabel", "RL-SELINUX"),
        (with_linux(mountLabel=MOUNT_LABEL), "linux.mountLabel", "RL-SELINUX"),
    ],
)
def test_a_label_without_its_module_is_refused(config, where, code):
    error = refused(config)
    assert (error.where, error.code) == (where, code)
    assert "this kernel has no " in error.cause
    assert error.fix


def test_unconfined_needs_no_apparmor():
    assert writes(plan_for(with_process(apparmorProfile="unconfined"))) == []
    plan = plan_for(with_process(apparmorProfile="unconfined"), dict(apparmor=True))
    assert writes(plan) == [("self/attr/apparmor/exec", "exec unconfined", "process.apparmorProfile")]


def labelled(*mounts, **annotations):
    config = with_mounts(*mounts)
    config["linux"]["mountLabel"] = MOUNT_LABEL
    config["annotations"] = {f"run.oci.{name}": value for name, value in annotations.items()}
    return config


def options_of(plan, place):
    return mounts_of(plan, place)[0].string("options")


def test_mounts_of_new_file_systems_are_labelled():
    plan = plan_for(
        labelled(
            mount("/a"),
            mount("/b", "tmpfs", "context=other"),
            mount("/c", "bind", "bind"),
            mount("/d", "mqueue"),
            mount("/e", "overlay", "lowerdir=/" + "x" * 300),
            mount("/f", "", "remount", "ro"),
        ),
        dict(selinux=True),
    )
    assert options_of(plan, "mounts[0]") == []  # /proc
    assert options_of(plan, "mounts[1]")[-1] == f"context={MOUNT_LABEL}"  # /dev
    assert options_of(plan, "mounts[2]")[-1] == f"context={MOUNT_LABEL}"  # /dev/pts
    assert options_of(plan, "mounts[3]") == []  # /sys
    assert options_of(plan, "mounts[4]") == [f"context={MOUNT_LABEL}"]
    assert options_of(plan, "mounts[5]") == ["context=other"]
    assert notes(plan, UNSUPPORTED) == {}
    assert options_of(plan, "mounts[7]") == []
    # mount(2) takes all options as one text with commas
    assert options_of(plan, "mounts[8]")[-1].endswith(f',context="{MOUNT_LABEL}"')
    assert the(plan, ops.REMOUNT).string("options") == []


def test_mount_context_type_of_an_annotation():
    plan = plan_for(labelled(mount("/a"), mount_context_type="rootcontext"), dict(selinux=True))
    assert options_of(plan, "mounts[4]") == [f"rootcontext={MOUNT_LABEL}"]
    error = refused(labelled(mount_context_type="nonsense"), dict(selinux=True))
    assert error.where == 'annotations["run.oci.mount_context_type"]'


def test_rare_facts_are_read_at_their_first_use():
    here = facts.read()
    rare = {"apparmor", "selinux", "resctrl"}
    assert not rare & vars(here).keys()
    assert here.apparmor == (os.path.exists("/sys/kernel/security/apparmor") or here.apparmor)
    assert isinstance(here.selinux, bool)
    assert isinstance(here.resctrl, str)
    assert rare <= vars(here).keys()
    with pytest.raises(AttributeError):
        getattr(here, "nothing")  # noqa: B009 - no checker of types may see it
    with pytest.raises(AttributeError):
        Facts(nothing=1)


# --- Id-mapped mounts -------------------------------------------------------------------------------------------------


def lines(*triples):
    return [dict(zip(("containerID", "hostID", "size"), each, strict=True)) for each in triples]


def mapped(kind, *options, uids=((5, 1000, 1),), gids=((5, 1000, 1),), **more):
    return mount("/data", kind, *options, uidMappings=lines(*uids), gidMappings=lines(*gids), **more)


OWN_MAPS = "0 0 1\n1 100000 65536\n"


def test_a_new_file_system_is_mapped_in_the_containers_user_namespace():
    plan = plan_for(with_mounts(mapped("tmpfs", "idmap", uids=((5, 1000, 1), (7, 100009, 2)))))
    made, mounted = mounts_of(plan, "mounts[4]")
    assert made.kind is ops.ID_MAP
    # 1000 is the container's 0, and 100009 its 10
    assert (made.number("new"), made.string("uids"), made.string("gids")) == (1, "5 0 1\n7 10 2\n", "5 0 1\n")
    assert mounted.kind is ops.MOUNT
    assert mounted.number("flags") & (ops.MAPPED | ops.MAPPED_BELOW) == ops.MAPPED


def test_host_range_that_is_split_in_the_container():
    caller = dict(subuids=((100000, 10), (100010, 10)), subgids=((100000, 20),))
    plan = plan_for(with_mounts(mapped("tmpfs", uids=((0, 100005, 10),), gids=((0, 100005, 10),))), caller)
    made, _ = mounts_of(plan, "mounts[4]")
    assert (made.string("uids"), made.string("gids")) == ("0 6 5\n5 11 5\n", "0 6 10\n")


def test_host_ids_of_a_mount_refer_to_the_bundles_maps():
    config = with_mounts(mapped("tmpfs", uids=((0, 500000, 100),), gids=((0, 600000, 100),)))
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": lines((0, 500000, 65536)), "gidMappings": lines((0, 600000, 65536))}
    made, _ = mounts_of(plan_for(config), "mounts[4]")
    # split where the container's map changes from the caller's id to the subordinate ids
    assert (made.string("uids"), made.string("gids")) == ("0 0 1\n1 1 99\n",) * 2


def test_new_file_system_needs_no_map():
    plan = plan_for(with_mounts(mount("/data", "tmpfs", "idmap")))
    (mounted,) = mounts_of(plan, "mounts[4]")
    assert not mounted.number("flags") & (ops.MAPPED | ops.MAPPED_BELOW)
    assert "mounts[4]" in notes(plan, ADAPTED)


def test_maps_are_unchanged_without_a_user_namespace():
    made, mounted = mounts_of(plan_for(with_mounts(mapped("tmpfs", "ridmap")), ROOT), "mounts[4]")
    assert (made.number("new"), made.string("uids")) == (0, "5 1000 1\n")
    assert mounted.number("flags") & (ops.MAPPED | ops.MAPPED_BELOW) == ops.MAPPED_BELOW


def sources(plan):
    """Return the operations before any namespace is joined."""
    operations = executor_ops(plan)
    kinds = [op.kind for op in operations]
    return operations[: kinds.index(ops.UNSHARE if ops.NEW_USER not in kinds else ops.NEW_USER)]


def test_a_directory_of_the_host_is_mapped_with_the_callers_rights():
    config = with_mounts(mapped("bind", "rbind", "ridmap", "nosuid", "rro", "rslave", source="/srv"))
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": lines((0, 500000, 65536)), "gidMappings": lines((0, 500000, 65536))}
    plan = plan_for(config, ROOT)
    made, tree = sources(plan)
    assert (made.kind, made.number("new"), made.string("uids")) == (ops.ID_MAP, 0, "5 1000 1\n")
    assert (tree.kind, tree.string("source"), tree.where) == (ops.TREE, "/srv", "mounts[4]")
    assert tree.number("flags") == ops.RECURSIVE | ops.MAPPED_BELOW | ops.RECURSIVE_PROPAGATION
    assert (tree.number("propagation"), tree.number("set"), tree.number("set_below")) == (SLAVE, 2, 1)
    bound = the_bind(plan)
    assert bound.number("flags") == ops.RECURSIVE | ops.PREPARED | ops.RECURSIVE_PROPAGATION
    assert bound.numbers[1:] == (SLAVE, 0, 0, 0, 0)
    assert (bound.string("target"), bound.on_error) == ("/data", ops.FAIL)


def the_bind(plan):
    (op,) = [op for op in mounts_of(plan, "mounts[4]") if op.kind is ops.BIND]
    return op


def test_mapped_bind_without_maps_uses_the_containers():
    config = with_mounts(mount("/data", "bind", "bind", "idmap"))
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": lines((0, 500000, 9)), "gidMappings": lines((0, 600000, 9))}
    made, _ = sources(plan_for(config, ROOT))
    assert (made.string("uids"), made.string("gids"), made.string("path")) == ("0 500000 9\n", "0 600000 9\n", "")
    config = joining(user="/proc/7/ns/user")
    config["mounts"].append(mount("/data", "bind", "bind", "idmap"))
    plan = plan_for(config, ROOT)
    made, _ = executor_ops(plan)[:2]
    assert (made.kind, made.string("uids"), made.string("path")) == (ops.ID_MAP, "", "/proc/7/ns/user")


def test_host_mounts_propagate_to_a_shared_bind_only_without_a_user_namespace():
    for caller, userns, propagation in ((ROOT, "", 0), (ROOT, "root", SLAVE)):
        plan = plan_for(with_mounts(mapped("bind", "bind", "rshared")), caller, userns=userns)
        tree = next(op for op in plan.ops if op.kind is ops.TREE)
        assert tree.number("propagation") == propagation
        assert the_bind(plan).number("propagation") == SHARED


@pytest.mark.parametrize(
    ("asked", "where", "cause"),
    [
        (mapped("bind", "bind", "idmap"), "mounts[4]", "the kernel lets only root of the host map"),
        (mount("/data", "bind", "bind", "ridmap"), "mounts[4]", "the kernel lets only root of the host map"),
        (mount("/data", "tmpfs", "idmap", uidMappings=lines((0, 0, 1))), "mounts[4]", "only one of uidMappings"),
        (mount("/data", "tmpfs", gidMappings=lines((0, 0, 1))), "mounts[4]", "only one of uidMappings"),
        (mapped("", "remount", "idmap"), "mounts[4]", "an existing mount cannot be mapped"),
        (mapped("proc"), "mounts[4]", "the kernel cannot map a mount of type proc"),
        (mapped("cgroup2", "idmap"), "mounts[4]", "the kernel cannot map a mount of type cgroup2"),
        (
            mount("/data", "bind", "bind", "idmap=uids=0-1-10"),
            "mounts[4].options",
            "idmap=uids=0-1-10 is an option of another runtime",
        ),
        (
            mapped("tmpfs", uids=((0, 1000, 2),)),
            "mounts[4].uidMappings",
            "the host's id 1001 is not mapped into the container",
        ),
    ],
)
def test_unmappable_ids_are_refused(asked, where, cause):
    error = refused(with_mounts(asked))
    assert error.where == where
    assert cause in error.cause
    assert error.fix


def test_no_maps_and_no_user_namespace():
    error = refused(with_mounts(mount("/data", "bind", "bind", "idmap")), ROOT)
    assert (error.where, error.code) == ("mounts[4]", "RL-CONFIG")
    assert "has no user namespace to take them from" in error.cause


def test_ids_of_a_joined_user_namespace_are_unknown():
    config = joining(user="/proc/7/ns/user")
    config["mounts"].append(mapped("tmpfs"))
    assert "joins a user namespace" in refused(config).cause
    config["mounts"][-1] = mount("/data", "tmpfs", "idmap")
    plan_for(config)


# --- Network interfaces -----------------------------------------------------------------------------------------------


def test_interfaces():
    plan = plan_for(with_linux(netDevices={"eth0": {"name": "inside"}, "eth1": {}, "eth2": {"name": None}}), ROOT)
    assert [(link.name, link.new_name, link.where) for link in plan.links] == [
        ("eth0", "inside", "linux.netDevices.eth0"),
        ("eth1", "eth1", "linux.netDevices.eth1"),
        ("eth2", "eth2", "linux.netDevices.eth2"),
    ]
    assert [str(link) for link in plan.links] == [
        "eth0 as inside",
        "eth1",
        "eth2",
    ]


@pytest.mark.parametrize(
    ("config", "caller", "where", "cause"),
    [
        (with_linux(netDevices={"eth0": {}}), {}, "linux.netDevices.eth0", "only root of its network"),
        (
            with_linux(netDevices={"a": {"name": "x"}, "b": {"name": "x"}}),
            ROOT,
            "linux.netDevices.b",
            "another interface gets the name x too",
        ),
    ],
)
def test_immovable_interfaces_are_refused(config, caller, where, cause):
    error = refused(config, caller)
    assert (error.where, error.code) == (where, "RL-NET-DEVICE")
    assert cause in error.cause
    assert error.fix


def test_interfaces_need_a_network_namespace_of_the_container():
    config = without_namespace("network")
    config["linux"]["netDevices"] = {"eth0": {}}
    assert "shares the host's network" in refused(config, ROOT).cause


def test_names_that_the_kernel_makes_up_do_not_collide():
    plan = plan_for(with_linux(netDevices={"a": {"name": "eth%d"}, "b": {"name": "eth%d"}}), NESTED)
    assert len(plan.links) == 2


# --- Shares of caches -------------------------------------------------------------------------------------------------

RESCTRL = dict(resctrl="/sys/fs/resctrl")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ("c1", [], 0, True, False, "")),
        ({"schemata": ["L3:0=f", "MB:0=20\n"]}, ("c1", ["L3:0=f", "MB:0=20"], 0, True, False, "")),
        ({"closID": "gold"}, ("gold", [], 0, False, True, "")),
        (
            {"closID": "gold", "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f", "schemata": ["L2:0=1"]},
            ("gold", ["L3:0=f", "MB:0=20", "L2:0=1"], 2, False, False, ""),
        ),
        ({"closID": "/"}, ("", [], 0, False, True, "")),
        ({"closID": "/", "enableMonitoring": True}, ("", [], 0, False, True, "/sys/fs/resctrl/mon_groups/c1")),
        ({"enableMonitoring": True}, ("c1", [], 0, True, False, "/sys/fs/resctrl/c1/mon_groups/c1")),
    ],
)
def test_the_group(asked, wanted):
    group = plan_for(with_linux(intelRdt=asked), RESCTRL).group
    name, *others = wanted
    assert group.path == "/sys/fs/resctrl" + (f"/{name}" if name else "")
    assert [group.schemata, group.compared, group.own, group.must_exist, group.monitor] == others


def test_shares_without_resctrl():
    error = refused(with_linux(intelRdt={"closID": "gold"}))
    assert (error.where, error.code) == ("linux.intelRdt", "RL-RESCTRL")


@pytest.mark.parametrize("name", ["..", "a/b", "info", "mon_groups"])
def test_invalid_class_is_refused(name):
    assert refused(with_linux(intelRdt={"closID": name}), RESCTRL).where == "linux.intelRdt.closID"


def test_schemata_have_one_line_each():
    error = refused(with_linux(intelRdt={"schemata": ["L3:0=f\nMB:0=1"]}), RESCTRL)
    assert "is more than one line" in error.cause


def group_in(directory, **asked):
    return plan_for(with_linux(intelRdt=asked), dict(resctrl=str(directory))).group


def make_group(directory, schemata=""):
    """Create the files that a resctrl group contains."""
    directory.mkdir(exist_ok=True)
    (directory / "schemata").write_text(schemata)
    (directory / "tasks").write_text("")
    (directory / "mon_groups").mkdir(exist_ok=True)


def test_existing_class_is_joined(tmp_path):
    make_group(tmp_path / "gold", "    L3:0=00f;1=fff\n    MB:0= 20;1=100\n")
    group = group_in(tmp_path, closID="gold")
    assert join_resctrl.made_for_it(group) == []
    join_resctrl.enter(group, 17)
    assert (tmp_path / "gold/tasks").read_text() == "17\n"
    assert (tmp_path / "gold/schemata").read_text().startswith("    L3")
    # the same shares, written differently
    join_resctrl.enter(group_in(tmp_path, closID="gold", l3CacheSchema="L3:0=F", memBwSchema="MB:1=100;0=20"), 17)


def test_a_class_with_other_shares_is_refused(tmp_path):
    make_group(tmp_path / "gold", "    L3:0=00f;1=fff\n")
    with pytest.raises(RootlessError, match="has other shares than 'L3:0=7'") as caught:
        join_resctrl.enter(group_in(tmp_path, closID="gold", l3CacheSchema="L3:0=7"), 17)
    assert (caught.value.where, (tmp_path / "gold/tasks").read_text()) == ("linux.intelRdt", "")


def test_missing_class_is_refused(tmp_path):
    with pytest.raises(RootlessError, match="there is no resctrl group") as caught:
        join_resctrl.enter(group_in(tmp_path, closID="gold"), 17)
    assert caught.value.where == "linux.intelRdt.closID"
    assert list(tmp_path.iterdir()) == []


def test_group_of_the_container_is_removed_with_it(tmp_path):
    group = group_in(tmp_path)
    assert join_resctrl.made_for_it(group) == [str(tmp_path / "c1")]
    with pytest.raises(RootlessError, match="tasks: No such file"):  # not a real resctrl: its files do not appear
        join_resctrl.enter(group, 17)
    join_resctrl.leave([str(tmp_path / "c1"), str(tmp_path / "gone")])
    assert list(tmp_path.iterdir()) == []


def test_resctrl_group_is_removed_with_the_container(tmp_path):
    made = [tmp_path / "gold/mon_groups/c1", tmp_path / "c1"]
    for directory in made:
        directory.mkdir(parents=True)
    root = StateRoot(str(tmp_path / "state"))
    with store.claim(root, "c1", undo.clear) as entry:
        undo.note(entry, "resctrl", {"directories": [str(directory) for directory in made]})
    # the launcher was killed: the next container with its id removes the leftovers
    with store.claim(root, "c1", undo.clear) as entry:
        assert not any(directory.exists() for directory in made)
        made[1].mkdir()
        undo.note(entry, "resctrl", {"directories": [str(made[1])]})
        undo.remove(entry)
    assert not made[1].exists()


def test_existing_group_stays(tmp_path):
    make_group(tmp_path / "c1")
    group = group_in(tmp_path, schemata=["L3:0=f"])
    assert join_resctrl.made_for_it(group) == []
    join_resctrl.enter(group, 17)
    assert (tmp_path / "c1/schemata").read_text() == "L3:0=f\n"


def test_a_monitoring_group(tmp_path):
    make_group(tmp_path)
    group = group_in(tmp_path, closID="/", enableMonitoring=True)
    assert join_resctrl.made_for_it(group) == [str(tmp_path / "mon_groups/c1")]
    with pytest.raises(RootlessError, match="mon_groups/c1/tasks: No such file"):
        join_resctrl.enter(group, 17)
    assert (tmp_path / "tasks").read_text() == "17\n"


def test_error_includes_the_message_of_resctrl(tmp_path):
    make_group(tmp_path)
    (tmp_path / "info").mkdir()
    (tmp_path / "info/last_cmd_status").write_text("mask f00 has non-consecutive 1-bits\n")
    (tmp_path / "schemata").unlink()
    with pytest.raises(RootlessError, match="mask f00 has non-consecutive 1-bits"):
        join_resctrl.enter(group_in(tmp_path, closID="/", schemata=["L3:0=f00"]), 17)


# --- Other platforms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["vm", "windows", "solaris", "freebsd", "zos"])
def test_other_platforms(section):
    plan_for(base_config() | {section: {"something": [], "other": {"empty": ""}}})
    config = base_config() | {section: {"something": 1}}
    error = refused(config)
    assert (error.code, error.where) == ("RL-PLATFORM", section)
    assert error.fix


# --- Maps below other maps --------------------------------------------------------------------------------------------


def test_a_line_of_a_map_does_not_span_two_of_the_one_above():
    config = base_config()
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": lines((0, 0, 1000)), "gidMappings": lines((10, 1, 5), (0, 0, 1))}
    maps = plan_for(config, NESTED).maps
    assert maps.uids == ((0, 0, 1), (1, 1, 999))
    assert maps.gids == ((10, 1, 5), (0, 0, 1))
    made, _ = mounts_of(plan_for(with_mounts(mapped("tmpfs", uids=((5, 0, 3),))), NESTED), "mounts[4]")
    assert made.string("uids") == "5 0 1\n6 1 2\n"
