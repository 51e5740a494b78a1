"""linux.seccomp as data: defaults, refusals, and cache keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.plan.process.pretence import filter_beside
from rootless.plan.process.seccomp import ERRNO, TRACE, filter_of
from tests.lib.configurations import PODMAN_SECCOMP

NEW_LISTENER = 8
"""SECCOMP_FILTER_FLAG_NEW_LISTENER"""


def planned(rules=(), arch="x86_64", **other):
    return filter_of({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)} | other, arch)


def rule(action, *names, **other):
    return {"names": list(names or ["getppid"]), "action": action} | other


def argument(index, value, op="SCMP_CMP_EQ", **other):
    return {"index": index, "value": value, "op": op} | other


def refusal(*args, **kwargs):
    with pytest.raises(RootlessError) as caught:
        planned(*args, **kwargs)
    return caught.value


def test_the_errno_is_eperm_unless_the_profile_says_otherwise():
    assert planned(defaultAction="SCMP_ACT_ERRNO").default == ERRNO | 1
    assert planned(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=38).default == ERRNO | 38
    assert planned([rule("SCMP_ACT_ERRNO")]).rules[0].action == ERRNO | 1
    assert planned([rule("SCMP_ACT_ERRNO", errnoRet=0)]).rules[0].action == ERRNO
    assert planned([rule("SCMP_ACT_TRACE")]).rules[0].action == TRACE | 1
    assert planned([rule("SCMP_ACT_TRACE", errnoRet=65535)]).rules[0].action == TRACE | 65535


def test_a_default_errno_is_not_that_of_the_rules():
    filter_ = planned([rule("SCMP_ACT_ERRNO")], defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=38)
    assert filter_.rules[0].action == ERRNO | 1


@pytest.mark.parametrize(
    ("config", "where", "word"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY"),
        ({"defaultAction": "SCMP_ACT_DENY"}, "linux.seccomp.defaultAction", "SCMP_ACT_DENY"),
        ({"defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet", "SCMP_ACT_ALLOW takes no errno"),
        ({"listenerMetadata": "x"}, "linux.seccomp.listenerMetadata", "listenerPath"),
        ({"flags": ["SECCOMP_FILTER_FLAG_LOG", "LOG"]}, "linux.seccomp.flags[1]", '"LOG"'),
        ({"architectures": ["SCMP_ARCH_X86", "amd64"]}, "linux.seccomp.architectures[1]", '"amd64"'),
    ],
)
def test_invalid_filters_are_refused(config, where, word):
    error = refusal(**config)
    assert (error.code, error.where) == ("RL-CONFIG", where)
    assert word in str(error)


@pytest.mark.parametrize(
    ("wrong", "where", "word"),
    [
        (rule("SCMP_ACT_ALLOWED"), ".action", "SCMP_ACT_ALLOWED"),
        (rule("SCMP_ACT_KILL", errnoRet=1), ".errnoRet", "takes no errno"),
        (rule("SCMP_ACT_ERRNO", errnoRet=4096), ".errnoRet", "4095"),
        (rule("SCMP_ACT_TRACE", errnoRet=65536), ".errnoRet", "65535"),
        (rule("SCMP_ACT_KILL", args=[argument(0, 0), argument(6, 0)]), ".args[1].index", "0 to 5"),
        (rule("SCMP_ACT_KILL", args=[argument(0, 0, "SCMP_CMP_IS")]), ".args[0].op", "SCMP_CMP_IS"),
    ],
)
def test_invalid_rules_are_refused(wrong, where, word):
    error = refusal([rule("SCMP_ACT_LOG"), wrong])
    assert (error.code, error.where) == ("RL-CONFIG", "linux.seccomp.syscalls[1]" + where)
    assert word in str(error)


def test_agent_of_notifications():
    wanted = planned([rule("SCMP_ACT_NOTIFY")], listenerPath="/run/agent", listenerMetadata="x", flags=[])
    assert wanted.listener == {"path": "/run/agent", "metadata": "x"}
    assert wanted.flags == NEW_LISTENER
    assert "1 syscall left to a listener" in wanted.summary()
    waiting = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert planned([rule("SCMP_ACT_NOTIFY")], listenerPath="/run/agent", flags=waiting).flags == NEW_LISTENER | 32


@pytest.mark.parametrize("path", [None, "", "agent", "./agent"])
def test_notify_needs_an_agent(path):
    error = refusal([rule("SCMP_ACT_LOG"), rule("SCMP_ACT_NOTIFY")], listenerPath=path)
    assert (error.code, error.where) == ("RL-CONFIG", "linux.seccomp.syscalls[1].action")


def test_listener_without_notifications_is_ignored():
    wanted = planned(listenerPath="/run/agent", listenerMetadata="x", flags=[])
    assert wanted.key() == planned(flags=[]).key()
    assert (wanted.listener, wanted.flags) == ({}, 0)


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (None, 4),
        ([], 0),
        (["SECCOMP_FILTER_FLAG_TSYNC"], 0),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"], 6),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], 0),
    ],
)
def test_flags(names, flags):
    assert planned(flags=names).flags == flags


def test_arguments_all_hold_unless_one_is_listed_twice():
    different = [argument(0, 1), argument(1, 2, "SCMP_CMP_MASKED_EQ", valueTwo=3)]
    assert planned([rule("SCMP_ACT_KILL", args=different)]).rules[0].alternatives == (((0, 4, 1, 0), (1, 7, 2, 3)),)
    same = [argument(0, 1), argument(1, 2), argument(0, 3)]
    assert planned([rule("SCMP_ACT_KILL", args=same)]).rules[0].alternatives == (
        ((0, 4, 1, 0),),
        ((1, 4, 2, 0),),
        ((0, 4, 3, 0),),
    )
    assert planned([rule("SCMP_ACT_KILL")]).rules[0].alternatives == ((),)


def test_filters_that_compile_alike_have_one_key():
    one = planned([rule("SCMP_ACT_KILL", args=[])], flags=["SECCOMP_FILTER_FLAG_LOG"])
    other = planned([rule("SCMP_ACT_KILL_THREAD", args=None)], architectures=[], flags=[])
    assert one.key() == other.key()


DIFFERENT = [
    planned(),
    planned(arch="aarch64"),
    planned(architectures=["SCMP_ARCH_X86"]),
    planned(architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    planned(defaultAction="SCMP_ACT_LOG"),
    planned([rule("SCMP_ACT_ERRNO")]),
    planned([rule("SCMP_ACT_ERRNO", errnoRet=2)]),
    planned([rule("SCMP_ACT_ERRNO", "a", "b")]),
    planned([rule("SCMP_ACT_ERRNO", "a"), rule("SCMP_ACT_ERRNO", "b")]),
    planned([rule("SCMP_ACT_ERRNO", "a', 'b")]),
    planned([rule("SCMP_ACT_ERRNO", args=[argument(0, 1)])]),
    planned([rule("SCMP_ACT_ERRNO", args=[argument(0, 1), argument(1, 1)])]),
    planned([rule("SCMP_ACT_ERRNO", args=[argument(0, 1), argument(0, 2)])]),
    planned([rule("SCMP_ACT_ERRNO", args=[argument(0, 2**64 - 1)])]),
]


def test_filters_that_differ_have_different_keys():
    assert len({filter_.key() for filter_ in DIFFERENT}) == len(DIFFERENT)


@given(st.text())
def test_any_name_has_a_key(name):
    assert isinstance(planned([rule("SCMP_ACT_KILL", name)]).key(), bytes)


@pytest.mark.parametrize(
    ("default", "newer"),
    [
        ({"defaultAction": "SCMP_ACT_ERRNO"}, True),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13}, True),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}, False),
        ({"defaultAction": "SCMP_ACT_KILL"}, False),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, False),
        ({"defaultAction": "SCMP_ACT_TRACE"}, False),
    ],
)
def test_newer_calls_are_unknown_only_with_an_errno_default(default, newer):
    assert planned(**default).newer_are_unknown is newer


def test_the_summary_of_podmans_profile():
    assert filter_of(PODMAN_SECCOMP, "x86_64").summary() == (
        "default: errno 38 (ENOSYS); 372 syscalls allowed, 58 refused with EPERM, 2 by argument; "
        "architectures x86_64 x86 x32"
    )


@pytest.mark.parametrize(
    ("filter_", "summary"),
    [
        (planned(arch="i686"), "default: allowed; architectures x86"),
        (
            planned([rule("SCMP_ACT_ERRNO", errnoRet=0)], defaultAction="SCMP_ACT_KILL_PROCESS", arch="aarch64"),
            "default: kill the process; 1 syscall skipped as if they had succeeded; architectures aarch64",
        ),
        (
            planned(
                [
                    rule("SCMP_ACT_TRAP", "a", "b"),
                    rule("SCMP_ACT_TRACE", "c", errnoRet=7),
                    rule("SCMP_ACT_ALLOW", "d", "e"),
                    rule("SCMP_ACT_ERRNO", "f"),
                    rule("SCMP_ACT_ALLOW", "a", "g", args=[argument(0, 1)]),
                    rule("SCMP_ACT_KILL", "a", "d"),
                ],
                defaultAction="SCMP_ACT_ERRNO",
                architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            ),
            (
                "default: errno 1 (EPERM); 2 syscalls allowed, 2 raise SIGSYS, 1 left to a tracer (7), 1 by argument; "
                "newer syscalls errno 38 (ENOSYS); architectures x86_64 x86"
            ),
        ),
    ],
)
def test_summaries(filter_, summary):
    assert filter_.summary() == summary


# --- Beside it, the filter of --fake-chown ----------------------------------------------------------------------------


def pretended(*rules, **profile):
    """Return the names that the filter answers, beside a profile."""
    return {name for rule in filter_beside(planned(rules, **profile), "x86_64").rules for name in rule.names}


def test_the_profile_decides_where_it_asks_an_agent_or_a_tracer():
    asked = rule("SCMP_ACT_NOTIFY", "mknodat", "chown")
    assert pretended() - pretended(asked, listenerPath="/agent") == {"mknodat", "chown"}
    assert pretended() - pretended(rule("SCMP_ACT_TRACE", "setuid", errnoRet=7)) == {"setuid"}


def test_a_profile_that_traces_by_default_is_asked_about_all_others():
    sometimes = rule("SCMP_ACT_ALLOW", "chown", args=[argument(1, 0)])
    rules = (rule("SCMP_ACT_ALLOW", "fchown"), sometimes)
    assert pretended(*rules, defaultAction="SCMP_ACT_TRACE") == {"fchown"}


def test_calls_that_work_with_a_single_id_are_made():
    assert pretended().isdisjoint(("capset", "setfsuid", "setfsgid", "chmod", "fchmodat", "setxattr"))


@pytest.mark.parametrize(
    ("machine", "native", "others"),
    [("x86_64", "x86_64", ("x86", "x32")), ("aarch64", "aarch64", ("arm",)), ("armv7l", "arm", ()), ("new", "new", ())],
)
def test_the_filter_covers_what_the_kernel_executes(machine, native, others):
    found = filter_beside(None, machine)
    assert (found.native, found.architectures) == (native, others)
