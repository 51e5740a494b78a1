"""The program: its user, capabilities, limits and settings, each decision alone."""

from __future__ import annotations

import struct

import pytest

from rootless.linux import CAPABILITIES, RLIMITS
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from tests.unit.planning import (
    NESTED,
    ROOT,
    SINGLE,
    base_config,
    chosen,
    notes,
    plan_for,
    refused,
    the,
    without_namespace,
)

# --- The program ------------------------------------------------------------------------------------------------------


def process(**changes):
    config = base_config()
    config["process"] |= changes
    return config


def mask(*names):
    return sum(1 << CAPABILITIES.index(name) for name in names)


def test_capabilities_by_number():
    """The numbers are those of linux/capability.h."""
    for name, number in {
        "CHOWN": 0,
        "SETGID": 6,
        "SETUID": 7,
        "SYS_ADMIN": 21,
        "MKNOD": 27,
        "CHECKPOINT_RESTORE": 40,
    }.items():
        assert CAPABILITIES.index(name) == number
    assert len(CAPABILITIES) == len(set(CAPABILITIES)) == 41


def test_resource_limits_by_number():
    import resource

    assert [getattr(resource, f"RLIMIT_{name}", index) for index, name in enumerate(RLIMITS)] == list(range(16))


def test_capability_sets():
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["cap_kill"],
        "inheritable": ["CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    plan = plan_for(process(capabilities=sets))
    assert the(plan, ops.BOUNDING).numbers == (mask("CHOWN", "KILL", "NET_RAW"),)
    assert the(plan, ops.CAPABILITIES).numbers == (mask("KILL"), mask("CHOWN", "KILL"), mask("CHOWN"))
    assert the(plan, ops.AMBIENT).numbers == (mask("CHOWN"),)


def test_unknown_capabilities_are_reported():
    plan = plan_for(process(capabilities={"bounding": ["CAP_KILL", "CAP_FLY"], "permitted": ["CAP_SWIM"]}))
    told = notes(plan, UNSUPPORTED)
    assert "CAP_FLY" in told["process.capabilities.bounding[1]"]
    assert "CAP_SWIM" in told["process.capabilities.permitted[0]"]
    assert the(plan, ops.BOUNDING).numbers == (mask("KILL"),)


def test_unavailable_capabilities_are_reported():
    config = process(
        capabilities={"bounding": ["CAP_KILL", "CAP_BPF"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    )
    plan = plan_for(config, ROOT | {"bounding": mask("KILL")})
    assert list(notes(plan, UNSUPPORTED)) == ["process.capabilities.bounding[1]"]
    assert the(plan, ops.BOUNDING).numbers == (mask("KILL"),)
    plan = plan_for(config, {"last_capability": 38})
    assert list(notes(plan, UNSUPPORTED)) == ["process.capabilities.bounding[1]"]
    assert not notes(plan_for(config, {"bounding": 0}), UNSUPPORTED)


def test_ambient_capabilities_are_permitted_and_inheritable_too():
    sets = {name: ["CAP_CHOWN"] for name in ("bounding", "permitted", "effective", "ambient")}
    plan = plan_for(process(capabilities=sets))
    assert the(plan, ops.AMBIENT).numbers == (0,)
    assert "process.capabilities.ambient" in notes(plan, ADAPTED)


@pytest.mark.parametrize("forbid", [True, False])
@pytest.mark.parametrize("filtered", [True, False])
def test_capability_to_load_a_filter_is_kept_until_the_program(forbid, filtered):
    config = process(noNewPrivileges=forbid)
    if filtered:
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    plan = plan_for(config)
    kept = filtered and not forbid
    effective, permitted, inheritable = the(plan, ops.CAPABILITIES).numbers
    assert bool(effective & permitted & mask("SYS_ADMIN")) == kept
    assert not (inheritable | the(plan, ops.BOUNDING).numbers[0]) & mask("SYS_ADMIN")
    last = [op.kind for op in plan.after(ops.WAIT_START) if op.kind.by == ops.EXECUTOR]
    assert last == [*([ops.NO_NEW_PRIVS] if forbid else []), *([ops.SECCOMP] if filtered else []), ops.EXEC]


@pytest.mark.parametrize(
    ("limits", "caller", "early", "late", "told"),
    [
        (("NOFILE", 10, 20), {}, [], [(7, 10, 20)], False),
        (("NOFILE", 100, 200), {}, [], [(7, 50, 50)], True),
        (("NOFILE", 10, 200), {}, [], [(7, 10, 50)], True),
        (("NOFILE", 2**64 - 1, 2**64 - 1), {}, [], [(7, 50, 50)], True),
        (("NOFILE", 100, 200), NESTED, [], [(7, 50, 50)], True),
        (("NOFILE", 100, 200), ROOT, [(7, 200, 200)], [(7, 100, 200)], False),
        (("NOFILE", 2**64 - 1, 2**64 - 1), ROOT, [(7, -1, -1)], [], False),
        (("CORE", 2**64 - 1, 2**64 - 1), {}, [], [(4, -1, -1)], False),
    ],
)
def test_limits_above_the_callers_own(limits, caller, early, late, told):
    """To raise a limit needs privileges and comes before they are dropped; a low limit would break the set-up."""
    kind, soft, hard = limits
    config = process(rlimits=[{"type": f"RLIMIT_{kind}", "soft": soft, "hard": hard}])
    plan = plan_for(config, {"hard_limits": {7: 50, 4: -1}} | caller)
    start = plan.ops.index(the(plan, ops.WAIT_START))
    first = next(index for index, op in enumerate(plan.ops) if op.kind in (ops.NEW_USER, ops.UNSHARE))
    assert [op.numbers for op in chosen(plan, ops.RLIMIT) if plan.ops.index(op) < first] == early
    assert [op.numbers for op in chosen(plan, ops.RLIMIT) if plan.ops.index(op) > start] == late
    assert ("process.rlimits[0]" in notes(plan, UNSUPPORTED)) == told


def test_supplementary_groups():
    config = process(user={"uid": 0, "gid": 0, "additionalGids": [5, 70000, 10]})
    plan = plan_for(config)
    assert the(plan, ops.GROUPS).strings == ("5,10", struct.pack("=2I", 5, 10))
    assert "70000" in notes(plan, UNSUPPORTED)["process.user.additionalGids"]
    assert the(plan_for(config, ROOT), ops.GROUPS).strings == ("5,70000,10", struct.pack("=3I", 5, 70000, 10))
    assert the(plan_for(), ops.GROUPS).strings == ("", b"")


@pytest.mark.parametrize("caller", [SINGLE, NESTED | {"setgroups_denied": True}])
def test_groups_are_kept_where_the_user_namespace_may_not_set_them(caller):
    config = process(user={"uid": 0, "gid": 0, "additionalGids": [5]})
    plan = plan_for(config, caller)
    assert not chosen(plan, ops.GROUPS)
    assert "the caller's groups are kept" in notes(plan, UNSUPPORTED)["process.user.additionalGids"]
    config = process(user={"uid": 0, "gid": 0, "additionalGids": [0]})
    assert "process.user.additionalGids" not in notes(plan_for(config, caller))


def test_groups_are_kept_when_an_annotation_says_so():
    config = base_config()
    config["annotations"] = {"run.oci.keep_original_groups": "1"}
    assert not chosen(plan_for(config), ops.GROUPS)


@pytest.mark.parametrize(
    ("wanted", "own", "caller", "tried"),
    [
        (100, 0, {}, False),
        (0, 0, {}, False),
        (-500, 0, {}, True),
        (-500, 0, ROOT, False),
        (100, 200, {}, True),
        (100, 200, NESTED, True),
    ],
)
def test_an_oom_score_that_the_kernel_may_refuse_is_tried(wanted, own, caller, tried):
    plan = plan_for(process(oomScoreAdj=wanted), {"oom_score_adj": own} | caller)
    (op,) = [op for op in plan.ops if op.where == "process.oomScoreAdj"]
    assert op.strings == ("self/oom_score_adj", str(wanted))
    assert op.on_error == (ops.ELSE if tried else ops.FAIL)


def sysctl(name, value="1", config=None):
    config = config or base_config()
    config["linux"]["sysctl"] = {name: value}
    return config


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.msgmax", "sys/kernel/msgmax"),
        ("kernel.shm_rmid_forced", "sys/kernel/shm_rmid_forced"),
        ("fs.mqueue.msg_max", "sys/fs/mqueue/msg_max"),
        ("user.max_net_namespaces", "sys/user/max_net_namespaces"),
    ],
)
def test_sysctl(name, path):
    plan = plan_for(sysctl(name, "7"))
    (op,) = (op for op in plan.ops if op.where == f'linux.sysctl["{name}"]')
    assert op.strings == (path, "7")


@pytest.mark.parametrize(("name", "kind"), [("kernel.domainname", ops.DOMAINNAME), ("kernel/hostname", ops.HOSTNAME)])
def test_host_name_sysctls_use_their_system_calls(name, kind):
    plan = plan_for(sysctl(name, "mine\n"))
    op = next(op for op in plan.ops if op.where == f'linux.sysctl["{name}"]')
    assert (op.kind, op.strings) == (kind, ("mine",))


@pytest.mark.parametrize(
    ("name", "config", "code", "words"),
    [
        ("vm.swappiness", None, "RL-SYSCTL-SHARED", "applies to the whole host"),
        ("kernel.core_pattern", None, "RL-SYSCTL-SHARED", "applies to the whole host"),
        ("net.core.somaxconn", without_namespace("network"), "RL-SYSCTL-SHARED", "shares the host's network namespace"),
        ("kernel.msgmax", without_namespace("ipc"), "RL-SYSCTL-SHARED", "shares the host's ipc namespace"),
        ("net/../kernel/core_pattern", None, "RL-CONFIG", "not the name of a sysctl"),
        ("net..core", None, "RL-CONFIG", "not the name of a sysctl"),
        ("net/./core", None, "RL-CONFIG", "not the name of a sysctl"),
        (".net", None, "RL-CONFIG", "not the name of a sysctl"),
    ],
)
@pytest.mark.parametrize("caller", [{}, ROOT])
def test_sysctl_that_reaches_the_host_is_refused(name, config, code, words, caller):
    error = refused(sysctl(name, config=config), caller)
    assert (error.code, error.where) == (code, f'linux.sysctl["{name}"]')
    assert words in error.cause


@pytest.mark.parametrize(
    ("value", "caller", "written"),
    [
        ("0 2147483647", {}, "0 65536"),
        ("0\t2147483647", SINGLE, "0 0"),
        ("0 65536", {}, "0 65536"),
        ("0 2147483647", ROOT, "0 2147483647"),
        ("0 2147483647", NESTED, "0 65536"),
        ("5 10", {}, "5 10"),
        ("1 0", SINGLE, "1 0"),
        ("nonsense", {}, "nonsense"),
        ("0 " + "9" * 5000, {}, "0 " + "9" * 5000),
    ],
)
def test_ping_is_allowed_to_the_groups_that_exist(value, caller, written):
    """Docker writes 0 2147483647, but the kernel refuses a range whose ends are not mapped."""
    plan = plan_for(sysctl("net.ipv4.ping_group_range", value), caller)
    assert [op.string("value") for op in plan.ops if op.where.startswith("linux.sysctl")] == [written]
    assert any(where.startswith("linux.sysctl") for where in notes(plan, ADAPTED)) == (written != value)


@pytest.mark.parametrize(
    ("args", "env", "candidates"),
    [
        (["sh"], ["PATH=/bin:/usr/bin"], ["/bin/sh", "/usr/bin/sh"]),
        (["sh"], ["PATH=bin:/usr/bin::."], ["/usr/bin/sh"]),
        (["/bin/sh"], ["PATH=/usr/bin"], ["/bin/sh"]),
        (["./sh"], [], ["./sh"]),
        (["sh"], ["PATH=/a", "PATH=/b"], ["/b/sh"]),
    ],
)
def test_directories_for_the_program(args, env, candidates):
    op = the(plan_for(process(args=args, env=env)), ops.COMMAND)
    assert op.strings == (candidates, args[0])


def test_program_without_path_is_in_the_default_directories():
    assert "/usr/bin/sh" in the(plan_for(process(env=[])), ops.COMMAND).string("candidates")


def test_an_empty_name_finds_nothing():
    error = refused(process(args=[""], env=["PATH=/bin"]))
    assert str(error).startswith('exec: "": executable file not found in $PATH (config.json: process.args[0])')


@pytest.mark.parametrize("path", ["", "bin", ".:"])
def test_a_path_without_directories_finds_nothing(path):
    error = refused(process(args=["sh"], env=[f"PATH={path}"]))
    assert str(error).startswith('exec: "sh": executable file not found in $PATH (config.json: process.args[0])')


@pytest.mark.parametrize(("env", "asked"), [(["A=b"], True), (["HOME="], True), (["HOME=/x"], False)])
def test_missing_home_is_looked_up(env, asked):
    plan = plan_for(process(env=[*env, "PATH=/bin"], user={"uid": 7, "gid": 0}))
    assert [op.numbers for op in chosen(plan, ops.HOME)] == ([(7,)] if asked else [])
    assert "HOME=" not in the(plan, ops.EXEC).string("env")


def umasks(plan):
    return [op.number("mask") for op in chosen(plan, ops.UMASK)]


def test_environment_of_the_program():
    plan = plan_for(
        process(args=["a b", "", "ü"], env=["X=1", "Y"], cwd="/tmp", user={"uid": 7, "gid": 8, "umask": 0o77})
    )
    assert the(plan, ops.EXEC).strings == (["a b", "", "ü"], ["X=1", "Y"])
    assert the(plan, ops.IDS).numbers == (7, 8)
    assert umasks(plan) == [0, 0o77]
    assert {op.string("path") for op in chosen(plan, ops.CHDIR)} == {"/tmp"}
    assert the(plan, ops.STDIO_OWNER).numbers == (7,)
    assert umasks(plan_for()) == [0, 0o022]
