"""config-linux.md "Seccomp": the effect of a filter on the programs of a container."""

from __future__ import annotations

import itertools
import platform
import signal
from pathlib import Path

import pytest

from tests.lib.boxes import add_probe, config_with_maps, status_of
from tests.lib.bundles import base_config, own
from tests.lib.configurations import PODMAN_SECCOMP
from tests.lib.oracles import differs

SIX = "process_vm_readv"
"""A system call with six 64-bit arguments that no program here makes."""


@pytest.fixture
def box(box, need):
    add_probe(box, need)
    return box


@pytest.fixture
def either(either, need):
    add_probe(either, need)
    return either


def rule(action, *names, **more):
    return {"names": list(names), "action": f"SCMP_ACT_{action}"} | more


def with_filter(config, *rules, default="ALLOW", **more):
    config["linux"]["seccomp"] = {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules)} | more
    return config


def argument(index, value, op, **more):
    return {"index": index, "value": value, "op": f"SCMP_CMP_{op}"} | more


# --- In force ---------------------------------------------------------------------------------------------------------


@pytest.mark.spec("linux.seccomp.syscalls[].names")
@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("capabilities", [[], ["CAP_KILL"], ["CAP_SYS_ADMIN", "CAP_KILL"]])
def test_the_filter_is_in_force(either, uid, no_new_privileges, capabilities):
    """It applies to the program and all its children, for every user, and the program gains no privileges."""
    config = with_filter(config_with_maps(either.user), rule("ERRNO", "getpriority", errnoRet=38))
    config["process"]["noNewPrivileges"] = no_new_privileges
    config["process"]["user"] = {"uid": uid, "gid": uid}
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
    lines = either.lines(
        config, "probe call getpriority; (sh -c 'setsid probe call getpriority'); cat /proc/self/status"
    )
    assert lines[:2] == ["ENOSYS", "ENOSYS"]
    status = lines[2:]
    assert status_of(status, "Seccomp", "Seccomp_filters") == ("2", "1")
    assert status_of(status, "NoNewPrivs") == str(int(no_new_privileges))
    mask = sum(1 << {"CAP_KILL": 5, "CAP_SYS_ADMIN": 21}[name] for name in capabilities)
    assert status_of(status, "CapEff", "CapBnd") == (f"{0 if uid else mask:016x}", f"{mask:016x}")


def test_without_a_filter_there_is_none(either):
    lines = either.lines(config_with_maps(either.user), "probe call getpriority; cat /proc/self/status")
    assert lines[0] == "20"
    assert status_of(lines[1:], "Seccomp", "Seccomp_filters") == ("0", "0")


@pytest.mark.parametrize("seccomp", [None, {}])
def test_an_empty_object_is_no_filter(box, seccomp):
    config = base_config()
    if seccomp == {}:
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
        assert status_of(box.lines(config, "cat /proc/self/status"), "Seccomp") == "2"
        return
    config["linux"]["seccomp"] = seccomp
    assert status_of(box.lines(config, "cat /proc/self/status"), "Seccomp") == "0"


def test_filter_need_not_allow_the_calls_of_the_set_up(box):
    """The filter is loaded last: it needs to allow only the calls of the program."""
    needed = (
        "execve brk mmap mprotect munmap arch_prctl set_tid_address set_robust_list rseq prlimit64 readlinkat readlink "
        "getrandom write exit_group fstat newfstatat getpriority rt_sigaction rt_sigprocmask"
    )
    config = with_filter(
        base_config("probe", "call", "getpriority"), rule("ALLOW", *needed.split()), default="KILL_PROCESS"
    )
    for no_new_privileges in (False, True):
        config["process"]["noNewPrivileges"] = no_new_privileges
        config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 50}]
        assert box.lines(config) == ["20"]


def test_the_filter_of_a_container_that_is_created_first(box):
    """It is loaded after `start`; the same filter is not compiled twice."""
    config = with_filter(base_config(), rule("ERRNO", "getpriority", errnoRet=38))
    output = box.user.tmp / "output"
    config["mounts"].append({"destination": "/out", "type": "bind", "source": str(box.user.tmp), "options": ["bind"]})
    pid = box.create(config, "probe call getpriority > /out/output; echo done >> /out/output; sleep 1000")
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    assert status_of(status, "Seccomp") == "0"
    box.user.run([*box.command, "start", "held"], check=True)
    while not output.exists() or not output.read_text().endswith("done\n"):
        assert Path(f"/proc/{pid}").exists()
    assert output.read_text() == "ENOSYS\ndone\n"


# --- Actions ----------------------------------------------------------------------------------------------------------

ACTIONS = {
    # rule, words for probe: exit status, output
    "ALLOW": (rule("ALLOW", "getpriority"), "call", 0, "20\n"),
    "LOG": (rule("LOG", "getpriority"), "call", 0, "20\n"),
    "ERRNO": (rule("ERRNO", "getpriority"), "call", 0, "EPERM\n"),
    "ERRNO with 0": (rule("ERRNO", "getpriority", errnoRet=0), "call", 0, "0\n"),
    "ERRNO with 110": (rule("ERRNO", "getpriority", errnoRet=110), "call", 0, "ETIMEDOUT\n"),
    "ERRNO with 4094": (rule("ERRNO", "getpriority", errnoRet=4094), "call", 0, "errno 4094\n"),
    "TRAP": (rule("TRAP", "getpriority"), "call", 128 + signal.SIGSYS, ""),
    "TRAP caught": (rule("TRAP", "getpriority"), "catch", 0, "SIGSYS, the call asked for: 1\n"),
    "TRACE without a tracer": (rule("TRACE", "getpriority"), "call", 0, "ENOSYS\n"),
    "TRACE": (rule("TRACE", "getpriority", errnoRet=1234), "trace", 0, "event 1234\n"),
    "TRACE by default": (rule("TRACE", "getpriority"), "trace", 0, "event 1\n"),
    "KILL": (rule("KILL", "getpriority"), "call", 128 + signal.SIGSYS, ""),
    "KILL one thread": (rule("KILL", "getpriority"), "thread", 0, "the first thread lives on\n"),
    "KILL_THREAD": (rule("KILL_THREAD", "getpriority"), "thread", 0, "the first thread lives on\n"),
    "KILL_PROCESS": (rule("KILL_PROCESS", "getpriority"), "thread", 128 + signal.SIGSYS, ""),
    "not caught": (rule("KILL_PROCESS", "getpriority"), "catch", 128 + signal.SIGSYS, ""),
}


@pytest.mark.spec("linux.seccomp.syscalls[].action", "linux.seccomp.syscalls[].errnoRet")
@pytest.mark.parametrize("case", ACTIONS)
def test_actions(either, case):
    wanted, how, status, output = ACTIONS[case]
    default = "LOG" if case == "ALLOW" else "ALLOW"
    config = with_filter(config_with_maps(either.user), wanted, default=default)
    # not as process 1, which ignores the signal of TRAP
    done = either.run(config, f"probe {how} getpriority; exit $?")
    assert (done.returncode, done.stdout) == (status, output), done.stderr


def everything_but(*refused):
    """Return a rule that allows what podman allows, except some calls."""
    rules = PODMAN_SECCOMP["syscalls"]
    allowed = {name for each in rules if each["action"] == "SCMP_ACT_ALLOW" for name in each["names"]}
    return rule("ALLOW", *sorted(allowed.difference(refused)))


@pytest.mark.spec("linux.seccomp.defaultAction", "linux.seccomp.defaultErrnoRet")
@pytest.mark.parametrize(
    ("default", "data", "output"),
    [
        ("ERRNO", {}, "EPERM"),
        ("ERRNO", {"defaultErrnoRet": 95}, "EOPNOTSUPP"),
        ("TRACE", {}, "ENOSYS"),
        ("LOG", {}, "20"),
    ],
)
def test_the_default_action(either, default, data, output):
    config = with_filter(config_with_maps(either.user), everything_but("getpriority"), default=default, **data)
    assert either.lines(config, "probe call getpriority") == [output]


def test_call_newer_than_the_profile(either):
    """It returns ENOSYS, whatever errno the default has, so that programs fall back to an older call."""
    config = with_filter(
        config_with_maps(either.user), everything_but("kexec_load"), default="ERRNO", defaultErrnoRet=1
    )
    assert either.lines(config, "probe call none; probe call kexec_load") == ["ENOSYS", "EPERM"]


# --- Arguments --------------------------------------------------------------------------------------------------------

BIG = 0x1_0000_0005
OPERATORS = {
    # operator: whether it holds for an argument one below, equal to, one above the value
    "NE": (True, False, True),
    "LT": (True, False, False),
    "LE": (True, True, False),
    "EQ": (False, True, False),
    "GE": (False, True, True),
    "GT": (False, False, True),
}


@pytest.mark.spec("linux.seccomp.syscalls[].args")
@pytest.mark.parametrize("operator", OPERATORS)
def test_comparisons(either, operator):
    """All 64 bits of each of the six arguments are compared."""
    rules = [
        rule("ERRNO", SIX, errnoRet=errno, args=[argument(index, BIG, operator)])
        for index, errno in enumerate(range(90, 96))
    ]
    names = ["EMSGSIZE", "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP"]
    config = config_with_maps(either.user)
    # the other five have a value for which no condition holds
    neutral = {"NE": BIG, "LT": BIG, "LE": BIG + 1, "EQ": 0, "GE": 0, "GT": 0}[operator]
    lines = []
    for index in range(6):
        for value in (BIG - 1, BIG, BIG + 1):
            given = [neutral] * 6
            given[index] = value
            lines.append(f"probe call {SIX} {' '.join(map(str, given))}")
    shown = either.lines(with_filter(config, *rules), *lines)
    for index, name in enumerate(names):
        held = tuple(word == name for word in shown[3 * index : 3 * index + 3])
        assert held == OPERATORS[operator]


@pytest.mark.spec("linux.seccomp.syscalls[].args")
def test_a_masked_comparison(either):
    mask, wanted = 0xFF00_0000_00F0, 0x1200_0000_0030
    config = with_filter(
        config_with_maps(either.user),
        rule("ERRNO", SIX, errnoRet=95, args=[argument(5, mask, "MASKED_EQ", valueTwo=wanted)]),
    )
    given = {
        wanted: True,
        wanted | 0xF: True,
        wanted | 1 << 60: True,
        wanted ^ 0x10: False,
        wanted ^ 1 << 40: False,
        0: False,
    }
    lines = either.lines(config, *(f"probe call {SIX} 0 0 0 0 0 {value}" for value in given))
    assert dict(zip(given, (line == "EOPNOTSUPP" for line in lines), strict=True)) == given


def test_conditions_on_several_arguments_must_all_hold(either):
    config = with_filter(
        config_with_maps(either.user),
        rule("ERRNO", SIX, errnoRet=95, args=[argument(0, 1, "EQ"), argument(1, 2, "GT"), argument(5, 3, "NE")]),
    )
    given = list(itertools.product((1, 0), (3, 2), (4, 3)))
    lines = either.lines(config, *(f"probe call {SIX} {a} {b} 0 0 0 {c}" for a, b, c in given))
    assert [line == "EOPNOTSUPP" for line in lines] == [given == (1, 3, 4) for given in given]


def test_conditions_on_one_argument_are_alternatives(either):
    """As in runc; engines rely on it (socket families)."""
    config = with_filter(
        config_with_maps(either.user),
        rule("ERRNO", SIX, errnoRet=95, args=[argument(0, 1, "EQ"), argument(0, 5, "EQ")]),
    )
    lines = either.lines(config, *(f"probe call {SIX} {value} 0 0 0 0 0" for value in range(7)))
    assert [number for number, line in enumerate(lines) if line == "EOPNOTSUPP"] == [1, 5]


# --- Flags and architectures ------------------------------------------------------------------------------------------

FLAGS = ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")


@pytest.mark.parametrize("flags", [[], *([flag] for flag in FLAGS), FLAGS], ids=str)
def test_flags(either, flags):
    """The effect of SPEC_ALLOW is checked if the CPU has the mitigation; LOG writes to the kernel's log."""
    if either.oracle and flags:
        pytest.skip("runc 1.1.15 supports no flags")
    config = with_filter(
        config_with_maps(either.user),
        rule("ERRNO", "getpriority"),
        flags=[f"SECCOMP_FILTER_FLAG_{flag}" for flag in flags],
    )
    lines = either.lines(config, "probe call getpriority; cat /proc/self/status")
    assert lines[0] == "EPERM"
    bypass = status_of(lines[1:], "Speculation_Store_Bypass")
    if "SPEC_ALLOW" in flags:
        assert bypass == status_of(Path("/proc/self/status").read_text().splitlines(), "Speculation_Store_Bypass")


@pytest.mark.spec("linux.seccomp.architectures")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="about the ABIs of x86_64")
@pytest.mark.parametrize("architectures", [["X86_64"], [], ["X86_64", "X86", "X32"], ["X86"]], ids=str)
def test_architectures(either, architectures):
    config = with_filter(
        config_with_maps(either.user),
        rule("ERRNO", "getpriority"),
        architectures=[f"SCMP_ARCH_{name}" for name in architectures],
    )
    assert either.lines(config, "probe call getpriority") == ["EPERM"]


# --- Profiles of engines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("uid", [0, 1000])
def test_the_default_profile_of_podman(either, uid, no_new_privileges):
    config = config_with_maps(either.user)
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    config["process"]["noNewPrivileges"] = no_new_privileges
    config["process"]["user"] = {"uid": uid, "gid": uid}
    lines = either.lines(
        config,
        "probe call kexec_load; probe call bpf; probe call mount; probe call add_key; probe call getpriority",
        "probe call none; probe call socket 16 3 9; probe call clone3 0 0; id -u; ls / | wc -l; echo a | cat",
    )
    # refused with the profile's errno; allowed; newer than the profile; netlink audit, which needs CAP_AUDIT_WRITE
    assert lines[0] == lines[1] == "EPERM"
    assert lines[4] == "20"
    assert lines[5] == "ENOSYS"
    assert lines[6] == "EINVAL"
    assert lines[8:] == [str(uid), "8", "a"]


def test_a_filter_is_kept_for_the_next_container(box):
    config = with_filter(base_config(), rule("ERRNO", "getpriority", errnoRet=38))
    runtime = {"XDG_RUNTIME_DIR": str(box.user.tmp / "runtime")}
    (box.user.tmp / "runtime").mkdir(mode=0o700)
    own(box.user, box.user.tmp / "runtime")
    for _ in range(2):
        assert box.lines(config, "probe call getpriority", env=runtime) == ["ENOSYS"]
    cache = box.user.tmp / "runtime/rootless/@seccomp"
    (kept,) = cache.iterdir()
    assert kept.stat().st_uid == box.user.uid
    with_filter(config, rule("ERRNO", "getpriority", errnoRet=1))
    assert box.lines(config, "probe call getpriority", env=runtime) == ["EPERM"]
    assert len(list(cache.iterdir())) == 2


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seccomp", "place", "words"),
    [
        ({"syscalls": [rule("NOTIFY", "getpriority")]}, "syscalls[0].action", "SCMP_ACT_NOTIFY needs"),
        ({"syscalls": [rule("NOTIFY", "mount")], "listenerPath": "agent"}, "syscalls[0].action", "absolute path"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "defaultAction", "SCMP_ACT_NOTIFY cannot be the default action"),
        ({"syscalls": [rule("NONSENSE", "getpriority")]}, "syscalls[0].action", "NONSENSE"),
        ({"syscalls": [rule("ERRNO")]}, "syscalls[0].names", "expected an array that is not empty"),
        ({"syscalls": [rule("ALLOW", "read", errnoRet=1)]}, "syscalls[0].errnoRet", "SCMP_ACT_ALLOW takes no errno"),
        ({"syscalls": [rule("ERRNO", "read", errnoRet=5000)]}, "syscalls[0].errnoRet", "5000"),
        ({"syscalls": [rule("ERRNO", "read", args=[argument(6, 0, "EQ")])]}, "syscalls[0].args[0].index", "6"),
        ({"architectures": ["SCMP_ARCH_NONSENSE"]}, "architectures[0]", "SCMP_ARCH_NONSENSE"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NONSENSE"]}, "flags[0]", "SECCOMP_FILTER_FLAG_NONSENSE"),
        ({"listenerMetadata": "x"}, "listenerMetadata", "listenerMetadata without listenerPath"),
    ],
)
def test_refused_filter_has_a_reason(box, seccomp, place, words):
    config = base_config()
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"} | seccomp
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert f"(config.json: linux.seccomp.{place})" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.spec("linux.seccomp.syscalls[].names")
def test_names_that_no_architecture_has_are_ignored(either):
    """A profile may name system calls that this libseccomp does not know."""
    config = with_filter(config_with_maps(either.user), rule("ERRNO", "no_such_call", "getpriority", "not a name"))
    assert either.lines(config, "probe call getpriority") == ["EPERM"]


def test_rule_with_the_default_action_is_no_error(either):
    config = with_filter(config_with_maps(either.user), rule("ALLOW", "read"), rule("ERRNO", "getpriority"))
    assert either.lines(config, "probe call getpriority") == ["EPERM"]


@pytest.mark.crun
def test_annotation_makes_an_unknown_name_an_error(either):
    """The annotation is crun's; runc ignores it."""
    config = with_filter(config_with_maps(either.user), rule("ERRNO", "mkdir", "of_tomorrow"))
    assert either.lines(config, "echo ran") == ["ran"]
    config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "1"}
    done = either.run(config, "echo ran")
    if either.runtime == "runc":
        assert done.stdout == "ran\n"
        return
    assert (bool(done.returncode), done.stdout) == (True, "")
    assert "of_tomorrow" in done.stderr
    if not either.oracle:
        assert "(config.json: linux.seccomp.syscalls[0]); fix: remove the name, or the annotation" in done.stderr


@differs("runc", '"list of flags to use with seccomp(2)": refused as not yet supported')
@pytest.mark.spec("linux.seccomp.flags")
@pytest.mark.parametrize("flag", ["LOG", "SPEC_ALLOW"])
def test_seccomp_flags(either, need, flag):
    add_probe(either, need)
    config = config_with_maps(either.user)
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [f"SECCOMP_FILTER_FLAG_{flag}"],
        "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert either.lines(config, "probe call getpriority") == ["EPERM"]
