"""Invariants of every Plan, tested with generated configurations and hosts."""

from __future__ import annotations

import copy
import ctypes
import json
import os
import re
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.bundle.check import check
from rootless.bundle.load import Bundle
from rootless.container import explain, replay
from rootless.errors import RootlessError
from rootless.host.delegation import Cgroups
from rootless.host.facts import Facts
from rootless.jsontext import render
from rootless.launch import protocol
from rootless.linux import CAPABILITIES, RLIMITS
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.compile import compile_plan
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.encode import encode
from rootless.plan.idmaps import id_maps
from rootless.plan.op_text import details, sentence
from rootless.plan.request import Request
from rootless.plan.rootfs.mount_options import _ATTRIBUTES, PROPAGATIONS
from rootless.procfs import ALL_IDS
from tests.lib.ops_header import SOURCES, includes
from tests.lib.ops_header import text as header_text
from tests.unit.planning import Decided, executor_ops

HIGHEST_ID = 2**32 - 2

# --- Configurations and hosts -----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NAME = st.text("abcXYZ09._- ü%{}'\"\\", min_size=1, max_size=8)
PART = st.one_of(NAME, st.sampled_from(["..", ".", "", "proc", "sys", "dev", "etc", "x" * 300]))
RELATIVE = st.lists(PART, min_size=1, max_size=4).map("/".join).filter(bool)
ABSOLUTE = RELATIVE.map(lambda path: "/" + path)
ID = st.one_of(st.integers(0, 70000), st.integers(0, HIGHEST_ID))

OPTION = st.one_of(
    st.sampled_from(
        [
            *_ATTRIBUTES,
            *("r" + word for word in _ATTRIBUTES),
            *PROPAGATIONS,
            *("r" + word for word in PROPAGATIONS),
            *(
                "bind",
                "rbind",
                "remount",
                "defaults",
                "tmpcopyup",
                "sync",
                "async",
                "idmap",
                "mode=755",
                "gid=5",
                "gid=99999",
            ),
        ]
    ),
    TEXT,
    st.builds("{}={}".format, NAME, TEXT),
    st.just("lowerdir=" + "y" * 400),
)
DESTINATION = st.one_of(ABSOLUTE, RELATIVE, st.sampled_from(["/proc", "/sys", "/dev", "/sys/fs/cgroup"]))
OPTIONS = st.lists(OPTION, max_size=5)
FILE_SYSTEM = st.sampled_from(["tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"])
MOUNT = st.one_of(
    st.fixed_dictionaries(
        {"destination": DESTINATION, "type": st.one_of(FILE_SYSTEM, NAME)},
        optional={"source": st.one_of(st.none(), TEXT), "options": st.one_of(st.none(), OPTIONS)},
    ),
    st.fixed_dictionaries(
        {"destination": DESTINATION, "type": st.just("bind"), "source": ABSOLUTE, "options": OPTIONS}
    ),
    st.fixed_dictionaries(
        {"destination": DESTINATION},
        optional={"type": TEXT, "source": TEXT, "options": OPTIONS.map(lambda options: ["bind", *options])},
    ),
)
CAPABILITY_SET = st.lists(
    st.one_of(st.sampled_from(CAPABILITIES).map("CAP_{}".format), st.sampled_from(["CAP_NONE", "chown", "", "CAP_"])),
    max_size=6,
)
RLIMIT = st.tuples(
    st.sampled_from(RLIMITS), *(st.one_of(st.integers(0, 5000), st.integers(0, 2**64 - 1)) for _ in range(2))
).map(lambda limit: {"type": f"RLIMIT_{limit[0]}", "soft": min(limit[1:]), "hard": max(limit[1:])})
PROCESS = st.fixed_dictionaries(
    {"args": st.lists(st.one_of(NAME, ABSOLUTE, TEXT), min_size=1, max_size=3), "cwd": ABSOLUTE},
    optional={
        "terminal": st.booleans(),
        "consoleSize": st.fixed_dictionaries({"width": st.integers(0, 65535), "height": st.integers(0, 65535)}),
        "env": st.lists(
            st.one_of(
                st.builds("{}={}".format, NAME, TEXT),
                st.sampled_from(["PATH=", "PATH=/bin:sbin", "HOME=", "HOME=/root", "PATH"]),
            ),
            max_size=4,
        ),
        "user": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {},
                optional={
                    "uid": ID,
                    "gid": ID,
                    "umask": st.one_of(st.none(), st.integers(0, 2**32 - 1)),
                    "additionalGids": st.one_of(st.none(), st.lists(ID, max_size=4)),
                },
            ),
        ),
        "capabilities": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {},
                optional={
                    name: st.one_of(st.none(), CAPABILITY_SET)
                    for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
                },
            ),
        ),
        "rlimits": st.lists(RLIMIT, max_size=4, unique_by=lambda limit: limit["type"]),
        "noNewPrivileges": st.booleans(),
        "oomScoreAdj": st.one_of(st.none(), st.integers(-1000, 1000)),
    },
)
EVERY_NAMESPACE = [{"type": kind} for kind in ("pid", "network", "mount", "ipc", "uts", "cgroup")]
NAMESPACES = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"])},
        optional={"path": st.one_of(st.none(), st.just(""), st.just("/proc/4242/ns/x"))},
    ),
    max_size=8,
    unique_by=lambda namespace: namespace["type"],
)
DEVICE = st.fixed_dictionaries(
    {
        "path": st.one_of(ABSOLUTE, st.sampled_from(["/dev/null", "/dev/fuse"])),
        "type": st.sampled_from("cbup"),
        "major": st.integers(0, 4095),
        "minor": st.integers(0, 2**20 - 1),
    },
    optional={"fileMode": st.one_of(st.none(), st.integers(0, 2**32 - 1)), "uid": ID, "gid": st.one_of(st.none(), ID)},
)
SETTING = st.one_of(
    st.sampled_from(["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel.msgmax", "vm.swappiness"]),
    st.lists(st.sampled_from(["net", "kernel", "msgmax", "..", ".", "", "user", "ü"]), max_size=4).map("/".join),
    st.lists(st.sampled_from(["net", "kernel", "shmall", "", "user", "a/b"]), max_size=4).map(".".join),
)
SYSCTL = st.one_of(
    st.dictionaries(SETTING.filter(bool), TEXT, max_size=2),
    st.builds("{}{}{}".format, st.integers(-1, 2**33), st.sampled_from(" \t"), st.integers(0, 2**33)).map(
        lambda value: {"net.ipv4.ping_group_range": value}
    ),
)
SECCOMP = st.fixed_dictionaries(
    {"defaultAction": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_NOTIFY"])},
    optional={
        "architectures": st.just(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
        "flags": st.lists(st.sampled_from(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]), max_size=2),
        "syscalls": st.just([{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]),
    },
)
LINUX = st.fixed_dictionaries(
    {},
    optional={
        "namespaces": st.one_of(st.none(), NAMESPACES, st.just(EVERY_NAMESPACE)),
        "devices": st.lists(DEVICE, max_size=3),
        "sysctl": st.one_of(st.none(), SYSCTL),
        "seccomp": st.one_of(st.none(), SECCOMP),
        "rootfsPropagation": st.sampled_from(["", *PROPAGATIONS, *("r" + word for word in PROPAGATIONS)]),
        "maskedPaths": st.lists(ABSOLUTE, max_size=3),
        "readonlyPaths": st.one_of(st.none(), st.lists(ABSOLUTE, max_size=3)),
        "timeOffsets": st.fixed_dictionaries(
            {},
            optional={
                "monotonic": st.fixed_dictionaries(
                    {}, optional={"secs": st.integers(-(2**63), 2**63 - 1), "nanosecs": st.integers(0, 10**9 - 1)}
                )
            },
        ),
        "resources": st.sampled_from(
            [None, {}, {"pids": {"limit": 5}}, {"devices": [{"allow": False}]}, {"memory": {}}]
        ),
        "cgroupsPath": TEXT,
    },
)
OUTER_MAPPINGS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0, 1, 1000, 100000, 165535]), ID), st.one_of(st.just(1), st.integers(1, 70000))
    ),
    max_size=3,
)


def disjoint(pairs):
    """Return mappings that check() accepts: each id at most once on either side."""
    mappings, inside, used = [], 0, []
    for outside, size in pairs:
        if outside + size <= HIGHEST_ID + 1 and all(outside + size <= low or high <= outside for low, high in used):
            mappings.append({"containerID": inside, "hostID": outside, "size": size})
            inside += size
            used.append((outside, outside + size))
    return mappings


@st.composite
def configurations(draw):
    config = {
        "ociVersion": "1.2.0",
        "root": {"path": draw(st.one_of(ABSOLUTE, RELATIVE)), "readonly": draw(st.booleans())},
        "process": draw(PROCESS),
        "mounts": draw(st.lists(MOUNT, max_size=4)),
        "linux": draw(LINUX),
        "annotations": draw(st.sampled_from([{}, {"run.oci.keep_original_groups": "1"}])),
    }
    config[draw(st.sampled_from(["hostname", "domainname"]))] = draw(st.one_of(st.none(), TEXT))
    if draw(st.booleans()):
        for key in ("uidMappings", "gidMappings"):
            config["linux"][key] = disjoint(draw(OUTER_MAPPINGS))
    return config


RANGES = st.lists(
    st.tuples(st.one_of(st.integers(0, 300000), ID), st.one_of(st.integers(1, 70000), st.integers(1, 2**32))),
    max_size=4,
).map(tuple)
HELD = st.sampled_from(
    [(ALL_IDS,), (ALL_IDS,), ((0, 1000, 1), (1, 100000, 65536)), ((0, 1000, 1),), ((1000, 0, 1), (0, 1, 1000))]
)
BITS = st.one_of(st.sampled_from([0, 2**41 - 1, 1 << 21, (1 << 6) | (1 << 7)]), st.integers(0, 2**41 - 1))
HOSTS = st.builds(
    Facts,
    uid=st.one_of(st.sampled_from([0, 1000]), ID),
    gid=st.one_of(st.sampled_from([0, 1000]), ID),
    kernel=st.sampled_from([(5, 12), (6, 18)]),
    uid_map=HELD,
    gid_map=HELD,
    setgroups_denied=st.booleans(),
    capabilities=BITS,
    bounding=BITS,
    last_capability=st.integers(37, 45),
    subuids=RANGES,
    subgids=RANGES,
    id_programs=st.sampled_from([("/usr/bin/newuidmap", "/usr/bin/newgidmap"), ()]),
    unified_cgroup=st.booleans(),
    hard_limits=st.dictionaries(st.integers(0, 15), st.one_of(st.just(-1), st.integers(0, 2**63 - 1)), max_size=4),
    oom_score_adj=st.integers(-1000, 1000),
    cgroups=st.one_of(
        st.none(),
        st.builds(
            Cgroups,
            base=st.just("/sys/fs/cgroup/user.slice/job"),
            reach=st.sampled_from(["/sys/fs/cgroup", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/user.slice/job"]),
            managed=st.booleans(),
            controllers=st.frozensets(st.sampled_from(["cpu", "io", "memory", "pids", "cpuset"])),
        ),
    ),
    user_manager=st.sampled_from(["", "", "/run/user/1000"]),
)
MANAGERS = st.sampled_from(["", "", "cgroupfs", "systemd", "disabled"])
USERNS = st.sampled_from(["", "", "keep-id", "root", "single"])


def plan_or_none(config, facts, **asked):
    """Return the Plan, or None if the bundle is refused; any other result fails the test."""
    check(copy.deepcopy(config))
    request = Request(Options(container="c1"))
    for name, value in asked.items():
        setattr(request, name, value)
    try:
        return Decided(compile_plan(Bundle("/home/user/bundle", config), facts, request))
    except RootlessError as error:
        refusal = error
    assert str(refusal).isprintable()
    assert refusal.code.startswith("RL-")
    assert refusal.what
    assert refusal.cause
    return None


MANY = settings(deadline=None, max_examples=300)

# --- Invariants -------------------------------------------------------------------------------------------------------


def arguments_can_be_carried(plan):
    operations = executor_ops(plan)
    for index, op in enumerate(operations):
        assert all(type(number) is int and -(2**63) <= number < 2**63 for number in op.numbers)
        for value in op.strings:
            if isinstance(value, bytes):
                assert op.kind in (ops.PRETEND, ops.SECCOMP, ops.NO_KEYS, ops.NO_SOCKETS, ops.GROUPS)
            else:
                texts = [value] if isinstance(value, str) else value
                assert all(isinstance(text, str) and "\0" not in text for text in texts)
        assert op.on_error in (ops.FAIL, ops.SKIP_ABSENT, ops.ELSE, ops.IGNORE)
        assert 0 <= op.alternatives <= 255
        assert not op.alternatives or op.on_error == ops.ELSE
        assert index + op.alternatives < len(operations)
        assert all(other.where == op.where for other in operations[index + 1 : index + 1 + op.alternatives])


def the_order_of_things(plan, asked):
    kinds = [op.kind for op in plan.ops]
    (root_change,) = (kind for kind in kinds if kind in (ops.CHROOT, ops.PIVOT))
    assert root_change is ops.CHROOT or not asked.get("no_pivot")
    assert (ops.PROPAGATION in kinds) != bool(plan.covered), "no mount of the caller is changed"
    once = [ops.FORK, *([] if plan.covered else [ops.PROPAGATION]), ops.ROOT, root_change]
    once += [ops.BOUNDING, ops.IDS, ops.CAPABILITIES, ops.AMBIENT, ops.COMMAND, ops.READY, ops.WAIT_START, ops.EXEC]
    places = [kinds.index(kind) for kind in once]
    assert places == sorted(places)
    assert all(kinds.count(kind) == 1 for kind in once)
    assert [kind for kind in kinds if kind.by == ops.EXECUTOR][-1] is ops.EXEC

    def between(kind, first, last):
        return all(kinds.index(first) < place < kinds.index(last) for place, found in enumerate(kinds) if found is kind)

    for kind in (ops.MOUNT, ops.BIND, ops.REMOUNT, ops.DEVICE_BIND, ops.DEVICE_NODE, ops.SYMLINK, ops.TERMINAL):
        assert between(kind, ops.ROOT, root_change)
    for kind in (ops.MASK, ops.READONLY_PATH, ops.MKDIR):
        assert between(kind, ops.ROOT, root_change)
    for kind in (ops.NO_NEW_PRIVS, ops.PRETEND, ops.SECCOMP):
        assert between(kind, ops.WAIT_START, ops.EXEC)
    assert kinds.index(root_change) < kinds.index(ops.CLOSE_FDS) < kinds.index(ops.CHDIR), "CVE-2024-21626"
    assert not kinds.count(ops.GROUPS) or kinds.index(ops.GROUPS) < kinds.index(ops.IDS)
    if ops.JOIN in kinds:
        assert kinds.index(ops.NON_DUMPABLE) < kinds.index(ops.JOIN), "no process can enter a process that joins"
    if ops.NEW_USER in kinds:
        assert kinds.index(ops.NEW_USER) < kinds.index(ops.FORK) < kinds.index(ops.BECOME)
        assert all(kinds.index(ops.NEW_USER) < place for place, kind in enumerate(kinds) if kind is ops.UNSHARE)
    assert (ops.NEW_USER in kinds) == (plan.maps is not None)
    assert (ops.TERMINAL in kinds) == plan.terminal
    assert (ops.SECCOMP in kinds) == (plan.filter is not None)


def cgroups_stay_where_they_may_be_made(plan, facts):
    cgroup = plan.cgroup
    if cgroup and cgroup.manager == "cgroupfs":
        assert f"{cgroup.base}/".startswith(f"{facts.cgroups.reach}/")
        assert not cgroup.path or cgroup.path.startswith(f"{cgroup.base}/")
        assert "/../" not in f"{cgroup.path}/"
        assert "/" not in cgroup.name


def paths_lead_nowhere_else(plan):
    for op in plan.ops:
        if op.kind is ops.PROC_WRITE:
            assert op.string("path").startswith(("sys/", "self/oom_score_adj", "self/timens_offsets"))
            assert ".." not in op.string("path").split("/")
        elif op.kind in (ops.MOUNT, ops.BIND, ops.REMOUNT, ops.MASK, ops.READONLY_PATH, ops.MKDIR):
            target = op.string("target")
            assert target.startswith("/")
            assert not {"..", "."} & set(target.split("/"))
            assert "//" not in target
    assert all(op.string("path").startswith("/") for op in plan.ops if op.kind is ops.ROOT)


def rights_are_none_that_the_bundle_does_not_ask_for(plan, config, facts):
    sets = config["process"].get("capabilities") or {}

    def asked_for(name):
        names = [capability.upper().removeprefix("CAP_") for capability in sets.get(name) or ()]
        return sum(1 << CAPABILITIES.index(known) for known in set(names) if known in CAPABILITIES)

    by_kind = {op.kind: op.numbers for op in plan.ops}
    loads_filters = plan.filter or ops.PRETEND in by_kind
    sys_admin = 1 << CAPABILITIES.index("SYS_ADMIN") if loads_filters else 0
    effective, permitted, inheritable = by_kind[ops.CAPABILITIES]
    assert not by_kind[ops.BOUNDING][0] & ~asked_for("bounding")
    assert not effective & ~asked_for("effective") & ~sys_admin
    assert not permitted & ~asked_for("permitted") & ~sys_admin
    assert not inheritable & ~asked_for("inheritable")
    assert not by_kind[ops.AMBIENT][0] & ~(asked_for("ambient") & permitted & inheritable)
    for op in plan.ops:
        if op.kind is ops.RLIMIT and not facts.may(24):
            ceiling = facts.hard_limits.get(op.number("resource"), -1) % 2**64
            assert op.number("soft") % 2**64 <= op.number("hard") % 2**64 <= ceiling


def everything_can_be_told(plan, config):
    for note in plan.notes:
        assert note.kind in (ADAPTED, UNSUPPORTED)
        assert note.text
        assert str(note).startswith(note.text)
    for op in plan.ops:
        assert sentence(op)
        assert isinstance(details(op), str)
    data = json.loads(render(replay.plan_as_data(plan, "c1"), 2))
    assert [op["op"] for op in data["operations"]] == [op.kind.name for op in plan.ops]
    again = replay.plan_from_data(data, "c1")
    assert replay.plan_as_data(again, "c1") == data
    assert "\n".join(explain.lines(plan))


class _Bytes(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Text(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint32), ("length", ctypes.c_uint32)]


class _Op(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("on_error", ctypes.c_uint8),
        ("alternatives", ctypes.c_uint8),
        ("reserved", ctypes.c_uint32),
        ("n", ctypes.c_int64 * 6),
        ("s", _Text * 4),
    ]


class _Plan(ctypes.Structure):
    _fields_ = [("ops", ctypes.POINTER(_Op)), ("count", ctypes.c_uint32), ("strings", ctypes.c_void_p)]


@pytest.fixture(scope="session")
def decode(tmp_path_factory, need):
    """Return a function that decodes a Plan with the executor's decoder and returns Python objects."""
    directory = tmp_path_factory.mktemp("decode")
    library = directory / "plan.so"
    words = [need("cc"), "-shared", "-fPIC", "-std=gnu11", *includes(directory), SOURCES / "plan.c", "-o", library]
    subprocess.run(words, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.plan_decode.restype = ctypes.c_char_p
    loaded.plan_decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(_Plan)]
    loaded.next_item.restype = ctypes.c_void_p
    loaded.next_item.argtypes = [_Bytes, ctypes.c_void_p]
    kinds = {kind.code: kind for kind in ops.KINDS}

    def string(plan, op, which, wanted):
        place = op.s[which]
        raw = ctypes.string_at(plan.strings + place.offset, place.length)
        if isinstance(wanted, bytes):
            return raw
        if isinstance(wanted, str):
            assert ctypes.string_at(plan.strings + place.offset) == raw
            return raw.decode("utf-8", "surrogateescape")
        items, item = [], None
        while item := loaded.next_item(_Bytes(plan.strings + place.offset, place.length), item):
            items.append(ctypes.string_at(item).decode("utf-8", "surrogateescape"))
        return items

    def read(encoded, wanted):
        plan = _Plan()
        assert loaded.plan_decode(encoded, len(encoded), ctypes.byref(plan)) is None
        found = []
        for op, like in zip(plan.ops[: plan.count], wanted, strict=True):
            kind = kinds[op.code]
            numbers = tuple(op.n[: len(kind.numbers)])
            strings = tuple(string(plan, op, which, value) for which, value in enumerate(like.strings))
            assert not any(op.n[len(numbers) :])
            found.append((kind, op.on_error, op.alternatives, numbers, strings))
        return found

    return read


def the_executor_reads_what_was_planned(plan, decode):
    wanted = [
        (
            op.kind,
            op.on_error,
            op.alternatives,
            op.numbers,
            tuple(value if isinstance(value, str | bytes) else list(value) for value in op.strings),
        )
        for op in executor_ops(plan)
    ]
    assert decode(encode(executor_ops(plan)), executor_ops(plan)) == wanted


@given(
    config=configurations(),
    facts=HOSTS,
    asked=st.fixed_dictionaries({}, optional={"userns": USERNS, "no_pivot": st.booleans(), "cgroup_manager": MANAGERS}),
)
@MANY
def test_invariants_of_every_plan(decode, config, facts, asked):
    plan = plan_or_none(config, facts, **asked)
    if plan is None:
        return
    arguments_can_be_carried(plan)
    the_order_of_things(plan, asked)
    cgroups_stay_where_they_may_be_made(plan, facts)
    paths_lead_nowhere_else(plan)
    rights_are_none_that_the_bundle_does_not_ask_for(plan, config, facts)
    everything_can_be_told(plan, config)
    the_executor_reads_what_was_planned(plan, decode)


# --- Id maps ----------------------------------------------------------------------------------------------------------


def overlap(ranges):
    ordered = sorted(ranges)
    return any(first + count > after for (first, count), (after, _) in pairwise(ordered))


@given(facts=HOSTS, mode=USERNS, user=st.fixed_dictionaries({"uid": ID, "gid": ID}))
@MANY
def test_id_maps(facts, mode, user):
    maps, _, _ = id_maps({}, {"user": user}, facts, mode)
    for lines, own, ranges, held in (
        (maps.uids, facts.uid, facts.subuids, facts.uid_map),
        (maps.gids, facts.gid, facts.subgids, facts.gid_map),
    ):
        assert 1 <= len(lines) <= 340
        assert all(count > 0 and inside >= 0 and inside + count <= HIGHEST_ID + 1 for inside, _, count in lines)
        assert not overlap([(inside, count) for inside, _, count in lines])
        assert not overlap([(outside, count) for _, outside, count in lines])
        if facts.privileged and facts.capabilities >> 6 & facts.capabilities >> 7 & 1 and mode != "single":
            assert [line[1:] for line in lines] == [(inside, count) for inside, _, count in held]
            continue
        assert [line for line in lines if line[1:] == (own, 1)]
        if mode == "keep-id":
            assert (own, own, 1) in lines
        elif mode in ("root", "single"):
            assert (0, own, 1) in lines
        for _, outside, count in lines:
            granted = any(first <= outside and outside + count <= first + size for first, size in ranges)
            exists = any(inside <= outside and outside + count <= inside + size for inside, _, size in held)
            assert (outside, count) == (own, 1) or (granted and exists)


@given(own=ID, ranges=RANGES, mode=st.sampled_from(["", "keep-id", "root"]))
@MANY
def test_no_subordinate_id_is_lost(own, ranges, mode):
    maps, _, shortcoming = id_maps({}, {}, Facts(uid=own, subuids=ranges), mode)
    if shortcoming:
        return
    granted = set()
    for first, count in ranges:
        granted.update((first, min(first + count, HIGHEST_ID + 1)))
    mapped = sum(count for _, _, count in maps.uids)
    ends = sorted(granted | {own, own + 1})
    expected = sum(
        high - low
        for low, high in pairwise(ends)
        if low == own or any(first <= low < first + count for first, count in ranges)
    )
    assert mapped == expected
    # from 0 on, without a gap except for the caller's id with keep-id
    kept = mode == "keep-id"
    position = 0
    for inside, _, count in sorted(line for line in maps.uids if not (kept and line == (own, own, 1))):
        assert inside == position + (kept and inside - 1 == own)
        position = inside + count


# --- One declaration in two languages ---------------------------------------------------------------------------------


def enumerators(text, name):
    """Return the names and values of an enumeration in C."""
    body = re.search(rf"enum {name} \{{(.*?)\}};", text, re.DOTALL).group(1)
    return {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", body)}


def test_codes_are_the_executors():
    names = {kind: name for name, kind in vars(ops).items() if isinstance(kind, ops.Kind)}
    codes = enumerators(header_text(), "opcode")
    last = codes.pop("OP_END")
    assert {f"OP_{name}": kind.code for kind, name in names.items() if kind.by == ops.EXECUTOR} == codes
    assert last == len(codes) + 1
    assert sorted(codes.values()) == list(range(1, len(codes) + 1))


def test_on_error_codes_are_the_executors():
    assert enumerators(header_text(), "on_error") == {
        "ON_ERROR_FAIL": ops.FAIL,
        "ON_ERROR_SKIP_ABSENT": ops.SKIP_ABSENT,
        "ON_ERROR_ELSE": ops.ELSE,
        "ON_ERROR_IGNORE": ops.IGNORE,
    }


def test_flags_are_the_executors():
    flags = [ops.RECURSIVE, ops.PLAIN_TARGET, ops.KEEP_MODE, ops.COPY_UP, ops.LEGACY, ops.RECURSIVE_PROPAGATION]
    flags += [ops.MAPPED, ops.MAPPED_BELOW, ops.PREPARED]
    flags += [ops.SOURCE_LINK, ops.TARGET_LINK, ops.COPY_LINK]
    assert flags == [1 << bit for bit in range(len(flags))]
    named = enumerators(header_text(), "flag")
    assert {name: getattr(ops, name) for name in named} == named
    assert set(flags) <= set(named.values())


def test_functions_have_the_operands_of_their_kind():
    text = header_text()
    for name, kind in vars(ops).items():
        if not isinstance(kind, ops.Kind) or kind.by != ops.EXECUTOR:
            continue
        types = re.search(rf"^int op_{name.lower()}\((.*)\);$", text, re.MULTILINE)[1]
        call = re.search(rf"case OP_{name}:\s+return op_{name.lower()}\((.*)\);", text)[1]
        numbers = 1 if kind.numbers == tuple(ops.CHANGE.split()) else len(kind.numbers)
        strings = [index for index, string in enumerate(kind.strings) if string not in kind.words]
        assert len(types.split(", ")) == max(numbers + len(strings), 1), types
        assert [int(index) for index in re.findall(r"(?:text|bytes)\(op, (\d)\)", call)] == strings
        assert re.findall(r"n\[(\d)\]", call) == ([] if "change" in call else [str(each) for each in range(numbers)])


def test_messages_are_the_executors():
    found = enumerators(header_text(), "message")
    assert {name: getattr(protocol, name.removeprefix("MESSAGE_")) for name in found} == found
    assert len(set(found.values())) == len(found)


def test_no_kind_has_more_arguments_than_a_record():
    sizes = re.search(r"PLAN_NUMBERS = (\d+), PLAN_STRINGS = (\d+)", (SOURCES / "layout.h").read_text())
    assert all(len(kind.numbers) <= int(sizes[1]) and len(kind.strings) <= int(sizes[2]) for kind in ops.KINDS)


# --- Operations as data -----------------------------------------------------------------------------------------------

WORDS = st.one_of(TEXT, st.binary(max_size=8).map(os.fsdecode))


@st.composite
def operations(draw):
    kind = draw(st.sampled_from([kind for kind in ops.KINDS if kind.by == ops.EXECUTOR]))
    strings = [
        draw(
            st.lists(WORDS, max_size=3) if name in kind.lists else st.binary(max_size=8) if name in kind.raw else WORDS
        )
        for name in kind.strings
    ]
    numbers = [draw(st.integers(-(2**63), 2**63 - 1)) for _ in kind.numbers]
    others = {"where": draw(WORDS), "on_error": draw(st.integers(0, 3)), "alternatives": draw(st.integers(0, 255))}
    return ops.Op(kind, *numbers, *strings, **others)


@given(operations())
@MANY
def test_an_operation_survives_as_data(op):
    back = ops.from_data(json.loads(json.dumps(op.as_data())))
    for name in ops.Op.__slots__:
        assert getattr(back, name) == getattr(op, name), name


def test_an_operation_of_the_launcher_keeps_any_operand():
    class Thing:
        def as_data(self):
            return {"a": [1]}

    kind = ops.launcher("cgroup", "count thing", undo="remove")
    op = ops.Op(kind, 3, Thing(), where="here")
    assert op.as_data() == {"op": "cgroup", "count": 3, "thing": {"a": [1]}, "where": "here"}
    assert (op.value("count"), kind.code, kind.by, kind.undo) == (3, 0, ops.LAUNCHER, "remove")
    with pytest.raises(TypeError, match="takes"):
        ops.Op(kind, 3)


def test_an_operation_with_other_numbers():
    op = ops.Op(ops.DEVICE_NODE, 1, 2, 3, 4, 5, "/dev/x", where="here", on_error=ops.ELSE, alternatives=1)
    changed = op.with_numbers(minor=9)
    assert (changed.numbers, changed.strings) == ((1, 2, 9, 4, 5), op.strings)
    assert (changed.where, changed.on_error, changed.alternatives) == ("here", ops.ELSE, 1)
    assert op.number("minor") == 3
    with pytest.raises(TypeError, match="has no color"):
        op.with_numbers(color=1)


def test_operand_names_do_not_collide():
    for kind in ops.KINDS:
        names = [*kind.numbers, *kind.strings, "op", "where", "on_error", "alternatives"]
        assert len(set(names)) == len(names), kind
