"""The container's cgroup: its manager, its place, and the limits that are reported as not enforced."""

from __future__ import annotations

import pytest

from rootless.host.delegation import Cgroups
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from tests.lib.bundles import base_config
from tests.unit.planning import mount, notes, plan_for, refused, the

MOUNT = "/sys/fs/cgroup"
SCOPE = f"{MOUNT}/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"
MANAGER = "/run/user/1000"
ALL = frozenset({"cpu", "io", "memory", "pids"})


def delegated(**more):
    """Return the facts of a caller in a delegated cgroup."""
    known = {
        "own": SCOPE, "base": SCOPE, "top": SCOPE, "reach": SCOPE.removesuffix("/app.slice/run-1.scope"),
        "controllers": ALL, "why_missing": lambda name: (f"{name} went astray", f"find {name}"),
        "why_nowhere": lambda _: None,
    }  # fmt: skip
    return {"cgroups": Cgroups(**known | more)}


def nothing(*nowhere, **more):
    """Return the facts of a caller without a delegated cgroup, on a host without some controllers."""
    known = {
        "obstacle": "it is root's",
        "why_nowhere": lambda name: (f"no {name} at all", f"buy {name}") if name in nowhere else None,
    }
    return {"cgroups": Cgroups(**known | more)}


def limited(path="", **resources):
    """Return a config.json with limits, and cgroupsPath."""
    config = base_config()
    config["linux"]["resources"] = resources or {"memory": {"limit": 1 << 20}}
    if path:
        config["linux"]["cgroupsPath"] = path
    return config


def settings(plan):
    return [f"{each.file}={each.value}" for each in plan.cgroup.settings]


def test_no_cgroup_without_limits_or_delegation():
    assert plan_for().cgroup is None
    assert notes(plan_for(), UNSUPPORTED) == {}


def test_delegated_cgroup_is_used():
    cgroup = plan_for(facts=delegated()).cgroup
    assert (cgroup.manager, cgroup.base, cgroup.path, cgroup.name) == ("cgroupfs", SCOPE, "", "rootless-c1")
    assert cgroup.settings == []
    assert not cgroup.managed


@pytest.mark.parametrize("asked", [{"cgroup_manager": "systemd"}, {"systemd_cgroup": True}])
def test_requested_systemd_scope_is_created(asked):
    cgroup = plan_for(facts=delegated() | {"user_manager": MANAGER}, **asked).cgroup
    assert (cgroup.manager, cgroup.slice, cgroup.unit) == ("systemd", "", "rootless-c1.scope")
    assert cgroup.user_manager == MANAGER


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("user.slice:libpod:abc", ("user.slice", "libpod-abc.scope")),
        (":docker:abc", ("", "docker-abc.scope")),
        # as in runc and crun
        ("machine.slice::abc", ("machine.slice", "-abc.scope")),
    ],
)
def test_a_path_names_a_unit(path, expected):
    cgroup = plan_for(limited(path), {"user_manager": MANAGER}).cgroup
    assert (cgroup.slice, cgroup.unit) == expected
    assert settings(plan_for(limited(path), {"user_manager": MANAGER})) == ["memory.max=1048576"]


def test_path_without_a_unit_is_refused_for_systemd():
    error = refused(limited("/docker/abc"), {"user_manager": MANAGER}, systemd_cgroup=True)
    assert (error.code, error.where) == ("RL-CGROUP", "linux.cgroupsPath")
    assert "slice:prefix:name" in error.cause


def test_limits_need_a_scope_if_the_own_cgroup_cannot_enforce_them():
    manager = {"user_manager": MANAGER}
    assert plan_for(facts=manager).cgroup is None
    assert plan_for(limited(), manager).cgroup.manager == "systemd"
    assert plan_for(limited(), delegated() | manager).cgroup.manager == "cgroupfs"
    # a unit of systemd is used, but its processes are not moved
    assert plan_for(limited(), delegated(managed=True) | manager).cgroup.manager == "systemd"
    enabled = delegated(managed=True, enabled=ALL)
    assert plan_for(limited(), enabled | manager).cgroup.manager == "cgroupfs"
    assert plan_for(limited(), delegated(controllers=frozenset()) | manager).cgroup.manager == "systemd"
    asked = plan_for(limited(), delegated(managed=True) | manager, cgroup_manager="cgroupfs").cgroup
    assert (asked.manager, asked.managed) == ("cgroupfs", False)
    asked = plan_for(limited("podman/c1"), delegated(managed=True) | manager).cgroup
    assert (asked.manager, asked.managed) == ("cgroupfs", False)
    assert plan_for(limited(), delegated(managed=True)).cgroup.managed
    assert plan_for(limited(), manager, cgroup_manager="cgroupfs").cgroup is None
    # systemd cannot provide a controller that the host does not have
    nowhere = delegated(why_nowhere=lambda name: ("no such", "buy one") if name == "cpuset" else None)
    both = limited(memory={"limit": 1 << 20}, cpu={"cpus": "0"})
    assert plan_for(both, delegated() | manager).cgroup.manager == "systemd"
    assert plan_for(both, nowhere | manager).cgroup.manager == "cgroupfs"


def test_path_outside_the_own_cgroup_becomes_a_scope():
    plan = plan_for(limited("/docker/abc"), nothing() | {"user_manager": MANAGER})
    assert (plan.cgroup.manager, plan.cgroup.unit) == ("systemd", "rootless-c1.scope")
    assert settings(plan) == ["memory.max=1048576"]
    assert "systemd creates rootless-c1.scope instead" in notes(plan, ADAPTED)["linux.cgroupsPath"]
    assert plan_for(limited("/docker/abc"), nothing()).cgroup is None


def test_without_a_manager_the_scope_is_a_plain_cgroup():
    plan = plan_for(limited("user.slice:libpod:abc"), delegated())
    assert (plan.cgroup.manager, plan.cgroup.path) == ("cgroupfs", f"{SCOPE}/libpod-abc.scope")
    assert "no systemd user manager" in notes(plan, ADAPTED)["linux.cgroupsPath"]
    plan = plan_for(limited(), nothing(), systemd_cgroup=True)
    assert plan.cgroup is None
    assert notes(plan, UNSUPPORTED)["linux.resources"].endswith(
        "memory.limit: it is root's, and user 1000 has no systemd manager to create another"
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # below the caller's reach: the path itself
        ("/user.slice/user-1000.slice/user@1000.service/pods/p1", f"{SCOPE.rpartition('/app.slice')[0]}/pods/p1"),
        (f"{SCOPE.removeprefix(MOUNT)}/sub/c", f"{SCOPE}/sub/c"),
        # elsewhere: below the caller's cgroup
        ("/docker/abc", f"{SCOPE}/docker/abc"),
        ("/user.slice/user-1000.slice/user@1000.service", f"{SCOPE}/user.slice/user-1000.slice/user@1000.service"),
        ("relative/c", f"{SCOPE}/relative/c"),
        ("../../../../../../x", f"{SCOPE}/x"),
        ("/../docker/./abc", f"{SCOPE}/docker/abc"),
    ],
)
def test_path_is_used_as_it_is_or_below_the_own_cgroup(path, expected):
    plan = plan_for(limited(path), delegated())
    assert plan.cgroup.path == expected
    assert ("linux.cgroupsPath" in notes(plan, ADAPTED)) == ("docker" in path or expected.endswith("@1000.service"))


def test_root_cgroup_is_no_path_for_a_container():
    plan = plan_for(limited("/"), delegated())
    assert plan.cgroup.path == ""
    assert "/ cannot be a container's cgroup" in notes(plan, UNSUPPORTED)["linux.cgroupsPath"]


def test_unusable_path_is_a_warning():
    config = base_config()
    config["linux"]["cgroupsPath"] = "/docker/abc"
    plan = plan_for(config, nothing())
    assert "stays in its caller's cgroup: " in notes(plan, UNSUPPORTED)["linux.cgroupsPath"]


def test_all_controllers_are_enabled_in_a_delegated_cgroup():
    config = base_config()
    there = delegated(enabled=frozenset({"pids"}))
    available = there["cgroups"].controllers
    assert plan_for(config, there).cgroup.spare == available - {"pids"}
    assert plan_for(config, delegated(enabled=available)).cgroup.spare == frozenset()
    assert plan_for(config, delegated(managed=True)).cgroup.spare == frozenset()
    assert plan_for(config, delegated(managed=True), cgroup_manager="cgroupfs").cgroup.spare == available
    config["linux"]["cgroupsPath"] = "a/b"
    assert plan_for(config, delegated(enabled=available)).cgroup.spare == available, "the controllers of a are unknown"


def test_cgroup_above_is_not_changed():
    plan = plan_for(limited("/user.slice/user-1000.slice/user@1000.service/pods/p1"), delegated())
    assert plan.cgroup.managed
    assert plan.cgroup.base == SCOPE.removesuffix("/app.slice/run-1.scope")


# --- Limits that are not enforced -------------------------------------------------------------------------------------


def test_one_line_names_every_limit_and_the_reason():
    config = limited(memory={"limit": 1 << 20, "swap": 1 << 21}, pids={"limit": 5}, cpu={"quota": -1})
    plan = plan_for(config)
    told = notes(plan, UNSUPPORTED)["linux.resources"]
    assert told == (
        "limits that are not enforced: memory.swap, memory.limit, pids.limit: your cgroup is not delegated to you"
    )
    assert plan.cgroup is None
    disabled = plan_for(config, delegated(), cgroup_manager="disabled")
    assert disabled.cgroup is None
    assert notes(disabled, UNSUPPORTED)["linux.resources"].endswith(": --cgroup-manager disabled")


def test_values_without_a_limit_are_not_reported():
    config = limited(memory={"limit": -1}, pids={"limit": -1}, cpu={"quota": -1, "period": 1000}, devices=[])
    assert notes(plan_for(config), UNSUPPORTED) == {}
    assert notes(plan_for(limited(devices=[{"allow": False}])), UNSUPPORTED) == {}


def test_the_reason_is_that_of_the_host():
    there = nothing(obstacle="the moon is full", fix="wait")["cgroups"]
    (note,) = [each for each in plan_for(limited(), {"cgroups": there}).notes if each.kind == UNSUPPORTED]
    assert (note.text.endswith("memory.limit: the moon is full"), note.fix) == (True, "wait")


@pytest.mark.parametrize(
    ("known", "facts", "options", "told", "fix"),
    [
        # each: cgroups, other facts, options, the reason, the fix
        ({}, {}, {}, "it is root's", "have root delegate one to you: see"),
        ({"systemd": True}, {}, {}, "it is root's, and user 1000 has no systemd manager", "log in through PAM"),
        ({"systemd": True}, {"uid": 7}, {"systemd_cgroup": True}, "user 7 has no systemd manager", "loginctl enable"),
        ({}, {}, {"systemd_cgroup": True}, "and user 1000 has no systemd manager", "have root delegate one"),
        ({"systemd": True}, {}, {"cgroup_manager": "cgroupfs"}, "user 1000 has no systemd manager", "log in"),
        (
            {"systemd": True}, {"user_manager": MANAGER}, {"cgroup_manager": "cgroupfs"},
            "it is root's", "leave out --cgroup-manager cgroupfs",
        ),
        ({"systemd": True, "fix": "remount it"}, {}, {}, "it is root's", "remount it"),
        ({"systemd": True}, {}, {"cgroup_manager": "disabled"}, "--cgroup-manager disabled", ""),
    ],
)  # fmt: skip
def test_fix_depends_on_the_host(known, facts, options, told, fix):
    (note,) = [
        each for each in plan_for(limited(), nothing(**known) | facts, **options).notes if each.kind == UNSUPPORTED
    ]
    assert told in note.text
    assert fix in note.fix
    assert bool(note.fix) == bool(fix)
    assert ("no systemd manager" in note.text) == ("no systemd manager" in told)


def test_limits_that_no_host_of_this_kind_has_are_distinguished():
    config = limited(memory={"limit": 1 << 20}, cpu={"cpus": "0"}, pids={"limit": 3})
    (note,) = [each for each in plan_for(config, nothing("cpuset")).notes if each.kind == UNSUPPORTED]
    assert note.text == (
        "limits that are not enforced: memory.limit, pids.limit: it is root's; cpu.cpus: no cpuset at all"
    )
    assert "buy cpuset" in note.fix


def test_limits_without_counterpart_are_reported_without_a_cgroup():
    config = limited(network={"classID": 1}, hugepageLimits=[{"pageSize": "2MB", "limit": 1}], memory={"limit": 0})
    assert "network.classID, hugepageLimits[0]: " in notes(plan_for(config), UNSUPPORTED)["linux.resources"]
    error = refused(config, delegated())
    assert (error.code, error.where) == ("RL-RESOURCES", "linux.resources.network.classID")


def test_limits_of_a_missing_controller_are_dropped():
    config = limited(memory={"limit": 1 << 20}, cpu={"cpus": "0", "shares": 5}, pids={"limit": 3})
    plan = plan_for(config, delegated(controllers=frozenset({"memory", "pids"})))
    assert settings(plan) == ["memory.max=1048576", "pids.max=3"]
    told = notes(plan, UNSUPPORTED)["linux.resources"]
    assert told == "limits that are not enforced: cpu.shares: cpu went astray; cpu.cpus: cpuset went astray"


def test_container_is_frozen_after_its_set_up():
    """A container that froze during its set-up would never be ready."""
    config = limited(unified={"cgroup.freeze": "1", "cgroup.max.depth": "3"})
    kinds = [op.kind for op in plan_for(config, delegated(), verb="create").ops]
    assert kinds.index(ops.READY) < kinds.index(ops.FREEZE) < kinds.index(ops.WAIT_START)
    kinds = [op.kind for op in plan_for(config, delegated(), verb="run").ops]
    assert kinds.index(ops.EXEC) < kinds.index(ops.FREEZE)
    cgroup = plan_for(config, delegated()).cgroup
    assert (cgroup.frozen, [each.file for each in cgroup.settings]) == (True, ["cgroup.max.depth"])
    cgroup = plan_for(limited(unified={"cgroup.freeze": "0"}), delegated()).cgroup
    assert (cgroup.frozen, [each.file for each in cgroup.settings]) == (False, ["cgroup.freeze"])


def test_a_missing_controller_of_unified_is_an_error():
    config = limited(unified={"misc.max": "x 1"})
    error = refused(config, delegated())
    assert (error.code, error.where) == ("RL-CGROUP", "linux.resources.unified.misc.max")
    assert settings(plan_for(limited(unified={"cgroup.max.depth": "3"}), delegated())) == ["cgroup.max.depth=3"]


@pytest.mark.parametrize("facts", [{}, delegated(controllers=frozenset())])
def test_limits_can_be_required(facts):
    error = refused(limited(), facts, require_limits=True)
    assert (error.code, error.what) == ("RL-LIMITS", "limits that are not enforced")
    assert error.cause.startswith("memory.limit: ")
    assert error.fix
    assert plan_for(limited(), delegated(), require_limits=True).cgroup.required
    assert plan_for(facts=facts, require_limits=True)


# --- The cgroup inside ------------------------------------------------------------------------------------------------


def inside(*options, uid=1000, namespace=True):
    config = base_config()
    config["process"]["user"] = {"uid": uid, "gid": uid}
    config["mounts"].append(mount(MOUNT, "cgroup", *options))
    if namespace:
        config["linux"]["namespaces"].append({"type": "cgroup"})
    return config


def owners(config, facts=None, **options):
    plan = plan_for(config, delegated() if facts is None else facts, **options)
    return [op.number("uid") for op in plan.ops if op.kind is ops.CGROUP_OWNER]


def test_programs_user_owns_the_cgroup():
    plan = plan_for(inside("rw"), delegated())
    kinds = [op.kind for op in plan.ops]
    assert kinds.count(ops.CGROUP_OWNER) == 1
    (namespace,) = [op for op in plan.ops if op.kind is ops.UNSHARE and op.where == "linux.namespaces[5]"]
    assert kinds.index(ops.BECOME) < kinds.index(ops.CGROUP_OWNER) < plan.ops.index(namespace)
    assert owners(inside("nosuid", "relatime")) == [1000]


def test_owner_gets_the_files_that_the_kernel_delegates():
    files = ["cgroup.procs", "memory.reclaim"]
    plan = plan_for(inside("rw"), delegated(delegated_files=lambda: files))
    assert the(plan, ops.CGROUP_OWNER).string("files") == files


def test_no_other_user_owns_the_cgroup():
    assert owners(inside("ro")) == []
    assert owners(inside("rw", namespace=False)) == []
    assert owners(inside("rw"), {}) == []
    # the container's root is the caller, who creates the cgroup
    assert owners(inside("rw", uid=0)) == []
    assert owners(inside("rw"), userns="keep-id") == []
    config = inside("rw")
    config["mounts"][-1]["destination"] = "/elsewhere"
    assert owners(config) == []


def test_unknown_resources_are_ignored_beside_an_invalid_limit():
    config = limited(cpu={"realtimeRuntime": 1, "shares": 512}, future=True, later=[1], pids={"limit": 5})
    told = notes(plan_for(config), UNSUPPORTED)["linux.resources"]
    assert "cpu.realtimeRuntime, cpu.shares, pids.limit: " in told
    assert "future" not in told
    assert "later" not in told
