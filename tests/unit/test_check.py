"""Checks of config.json against the specification: bundle/check.py, check_linux.py and schema.py."""

from __future__ import annotations

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.bundle.check import check
from rootless.errors import RootlessError
from tests.lib.configurations import COMPLETE

REMOVED = object()


def tokens(where):
    """Split `linux.namespaces[2].type` into its keys and indexes."""
    found = re.findall(r'\["([^"]*)"\]|\[(\d+)\]|(\w+)', where)
    return [int(index) if index else quoted or key for quoted, index, key in found]


def changed(where, value):
    """Return the complete configuration with one value changed or removed."""
    config = copy.deepcopy(COMPLETE)
    *outer, last = tokens(where)
    parent = config
    for step in outer:
        parent = parent[step]
    if value is REMOVED:
        del parent[last]
    elif isinstance(parent, list) and last == len(parent):
        parent.append(value)
    else:
        parent[last] = value
    return config


def refused(config):
    with pytest.raises(RootlessError) as caught:
        check(config)
    error = caught.value
    assert error.code == "RL-CONFIG"
    assert error.what == "config.json is not valid"
    assert error.cause
    assert error.fix
    assert str(error).isprintable()
    return error


def test_a_complete_configuration_passes():
    check(COMPLETE)


def test_minimal_configuration_passes():
    check({"ociVersion": "1.0.0", "root": {"path": "rootfs"}})


def test_version_is_checked_first():
    assert refused({"linux": 5, "ociVersion": "2.0.0"}).where == "ociVersion"


def test_error_is_one_line():
    assert str(refused(changed("process.user.uid", "abc"))) == (
        'config.json is not valid: found the string "abc", expected an integer from 0 to 4294967294 '
        "(config.json: process.user.uid); fix: write a number"
    )


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("ociVersion", "1.0.0-rc5"),
        ("ociVersion", "1.0.0-rc5-dev"),
        ("ociVersion", "1.0.2-dev"),
        ("ociVersion", "1.1.0+dev"),
        ("ociVersion", "1.0.0-x-y-z.--+0.build.007"),
        ("ociVersion", "1.99.0"),
        ("process", REMOVED),
        ("process.user", REMOVED),
        ("process.user.uid", 2**32 - 2),
        ("process.user.umask", 0o7777),
        ("process.env", []),
        ("process.env[0]", "NO_EQUALS_SIGN"),
        ("process.env[0]", "=odd"),
        ("process.env[0]", "GREETING=grüß dich"),
        ("process.args", [""]),
        ("process.args[1]", "žluť"),
        ("process.rlimits[0].soft", 4096),
        ("process.oomScoreAdj", -1000),
        ("process.consoleSize", {"height": 0, "width": 65535}),
        ("process.execCPUAffinity.initial", ""),
        ("mounts", []),
        ("mounts[0]", {"destination": "relative/path"}),
        ("mounts[0].source", ""),
        ("hostname", "h" * 64),
        ("hostname", "é" * 32),
        ("hostname", ""),
        ("hooks.prestart", []),
        ("hooks.prestart[0].timeout", 1),
        ("annotations", {}),
        ("linux", REMOVED),
        ("linux", {}),
        ("linux.namespaces", []),
        ("linux.namespaces[1].path", ""),
        ("linux.uidMappings", []),
        ("linux.uidMappings", [{"containerID": i, "hostID": 1000 + i, "size": 1} for i in range(340)]),
        ("linux.uidMappings[0]", {"containerID": 65537, "hostID": 0, "size": 1000}),
        ("linux.devices", []),
        ("linux.devices[0].type", "u"),
        ("linux.devices[1]", {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}),
        ("linux.netDevices.eth0.name", "a-15-byte-name."),
        ("linux.resources", {}),
        ("linux.resources.devices[1].type", ""),
        ("linux.resources.devices[0].access", ""),
        ("linux.seccomp.syscalls", []),
        ("linux.seccomp.syscalls[1].errnoRet", 4095),
        ("linux.seccomp.listenerPath", ""),
        ("linux.rootfsPropagation", ""),
        ("linux.rootfsPropagation", "runbindable"),
        ("linux.maskedPaths", []),
        ("linux.timeOffsets", {}),
        ("linux.personality", {"domain": "LINUX"}),
        ("vm", {"hypervisor": 1}),
        ("windows", []),
        ("solaris", "anything"),
        ("notInTheSpecification", {"deep": [1.5, None]}),
        ("process.notInTheSpecification", 1),
        ("process.user.notInTheSpecification", "\0"),
        ("mounts[0].notInTheSpecification", []),
        ("linux.namespaces[0].notInTheSpecification", 1),
        ("linux.seccomp.syscalls[0].includes", {"caps": 1}),
        ("linux.resources.memory.notInTheSpecification", -1.5),
    ],
)
def test_accepted(where, value):
    check(changed(where, value))


@pytest.mark.parametrize(
    ("where", "value", "cause"),
    [
        ("ociVersion", "2.0.0", 'unsupported ociVersion "2.0.0": rootless supports 1.x'),
        ("ociVersion", "0.9.0", 'unsupported ociVersion "0.9.0": rootless supports 1.x'),
        ("ociVersion", "10.0.0", 'unsupported ociVersion "10.0.0": rootless supports 1.x'),
        ("ociVersion", "1.0", "expected a semantic version"),
        ("ociVersion", "1", "expected a semantic version"),
        ("ociVersion", "", "expected a semantic version"),
        ("ociVersion", "v1.0.0", "expected a semantic version"),
        ("ociVersion", "1.0.0.0", "expected a semantic version"),
        ("ociVersion", "1.02.0", "expected a semantic version"),
        ("ociVersion", "1.-1.0", "expected a semantic version"),
        ("ociVersion", "1.٣.0", "expected a semantic version"),
        ("ociVersion", "1.0.0-", "expected a semantic version"),
        ("ociVersion", "1.0.0-rc..1", "expected a semantic version"),
        ("ociVersion", "1.0.0-01", "expected a semantic version"),
        ("ociVersion", "1.0.0+", "expected a semantic version"),
        ("ociVersion", "1.0.0+a+b", "expected a semantic version"),
        ("ociVersion", "1.0.0 ", "expected a semantic version"),
        ("ociVersion", 1, "found the number 1, expected a semantic version"),
        ("root.path", "", 'found the string "", expected a path that is not empty'),
        ("root.readonly", "yes", 'found the string "yes", expected true or false'),
        ("root.readonly", 1, "found the number 1, expected true or false"),
        ("mounts", {}, "found an empty object, expected an array"),
        ("mounts[0]", "/proc", 'found the string "/proc", expected an object'),
        ("mounts[0].destination", "", "expected a path that is not empty"),
        ("mounts[0].options", "ro", 'found the string "ro", expected an array'),
        ("mounts[0].options[1]", 5, "found the number 5, expected a string"),
        ("mounts[1].uidMappings[0].size", 0, "found the number 0, expected an integer from 1"),
        ("process", [], "found an empty array, expected an object"),
        ("process.args", [], "found an empty array, expected an array that is not empty"),
        ("process.args", "sh", "expected an array that is not empty"),
        ("process.args[1]", None, "found null, expected a string"),
        ("process.cwd", "", 'found the string "", expected an absolute path'),
        ("process.cwd", "tmp", 'found the string "tmp", expected an absolute path'),
        ("process.terminal", "true", 'found the string "true", expected true or false'),
        ("process.consoleSize.height", 65536, "expected an integer from 0 to 65535"),
        ("process.user.uid", -1, "found the number -1, expected an integer from 0 to 4294967294"),
        ("process.user.uid", 2**32 - 1, "expected an integer from 0 to 4294967294"),
        ("process.user.gid", 1.0, "found the number 1.0, expected an integer"),
        ("process.user.gid", True, "found true, expected an integer"),
        ("process.user.additionalGids[1]", 2**32 - 1, "expected an integer from 0 to 4294967294"),
        ("process.user.umask", 2**32, "expected an integer from 0 to 4294967295"),
        ("process.env[1]", "", 'found the string "", expected NAME=value'),
        ("process.env[1]", "A=\0", "found a NUL character"),
        ("process.capabilities", ["CAP_KILL"], "found an array, expected an object"),
        ("process.capabilities.ambient[0]", 1, "expected a string"),
        ("process.rlimits[0].type", "RLIMIT_FRUIT", 'found the string "RLIMIT_FRUIT", expected one of RLIMIT_AS'),
        ("process.rlimits[0].type", "NOFILE", "expected one of RLIMIT_AS"),
        ("process.rlimits[1].type", "RLIMIT_NOFILE", "again, expected each type once (element 0 has it)"),
        ("process.rlimits[0].soft", 4097, "found 4097, expected at most 4096"),
        ("process.rlimits[0].soft", -1, "expected an integer from 0 to 18446744073709551615"),
        ("process.rlimits[1].hard", 2**64, "expected an integer from 0 to 18446744073709551615"),
        ("process.oomScoreAdj", 1001, "expected an integer from -1000 to 1000"),
        ("process.oomScoreAdj", -1001, "expected an integer from -1000 to 1000"),
        ("process.noNewPrivileges", 0, "expected true or false"),
        ("process.scheduler.policy", "SCHED_FAIR", "expected one of SCHED_OTHER"),
        ("process.scheduler.nice", 20, "expected an integer from -20 to 19"),
        ("process.scheduler.priority", 100, "expected an integer from 0 to 99"),
        ("process.scheduler.flags[0]", "SCHED_FLAG_NONE", "expected one of SCHED_FLAG_RESET_ON_FORK"),
        ("process.scheduler.period", -1, "expected an integer from 0 to 18446744073709551615"),
        ("process.ioPriority.class", "IOPRIO_CLASS_NONE", "expected one of IOPRIO_CLASS_RT"),
        ("process.ioPriority.priority", 8, "expected an integer from 0 to 7"),
        ("process.execCPUAffinity.final", "all", "expected a list of CPUs"),
        ("hostname", "h" * 65, "expected at most 64 bytes"),
        ("domainname", "é" * 33, "expected at most 64 bytes"),
        ("hostname", "a\0b", "found a NUL character in the string"),
        ("hooks.poststop[0].path", "hook", 'found the string "hook", expected an absolute path'),
        ("hooks.createRuntime[0].timeout", 0, "found the number 0, expected an integer from 1"),
        ("hooks.startContainer[0].env[0]", "", "expected NAME=value"),
        ("hooks.poststart", {"path": "/bin/hook"}, "found an object, expected an array"),
        ("annotations", [], "found an empty array, expected an object"),
        ('annotations[""]', "value", 'found the string "", expected a name that is not empty'),
        ('annotations["org.example.key"]', 7, "found the number 7, expected a string"),
        ('annotations["org.example.key"]', None, "found null, expected a string"),
        ("linux.namespaces[0].type", "net", 'found the string "net", expected one of pid, network, mount'),
        ("linux.namespaces[0].type", ["pid"], "found an array, expected one of pid"),
        ("linux.namespaces[2].type", "pid", 'found the string "pid" again, expected each type once (element 0 has it)'),
        ("linux.namespaces[1].path", "run/netns/a", "expected an absolute path"),
        ("linux.uidMappings[0].containerID", 2**32 - 1, "expected an integer from 0 to 4294967294"),
        ("linux.uidMappings[1].size", 0, "found the number 0, expected an integer from 1 to 4294967295"),
        ("linux.uidMappings[1].size", 2**32 - 1, "which includes ids up to 4294967295, expected none above 4294967294"),
        ("linux.uidMappings[1].containerID", 0, "found ids that element 0 also maps"),
        ("linux.uidMappings[1].hostID", 1000, "found ids that element 0 also maps"),
        ("linux.uidMappings[1].hostID", 900, "found ids that element 0 also maps"),
        (
            "linux.gidMappings",
            [{"containerID": i, "hostID": i, "size": 1} for i in range(341)],
            "found 341 mappings, expected at most 340",
        ),
        ('linux.timeOffsets["realtime"]', {"secs": 1}, 'found the string "realtime", expected one of boottime'),
        ("linux.timeOffsets.monotonic.nanosecs", 10**9, "expected an integer from 0 to 999999999"),
        ("linux.timeOffsets.boottime.secs", 2**63, "expected an integer from -9223372036854775808"),
        ("linux.devices[0].type", "d", "expected one of c, b, u, p"),
        ("linux.devices[0].path", "dev/fuse", "expected an absolute path"),
        ("linux.devices[0].major", 4096, "expected an integer from 0 to 4095"),
        ("linux.devices[0].minor", 2**20, "expected an integer from 0 to 1048575"),
        ("linux.devices[0].fileMode", "0666", "found the string"),
        ("linux.devices[0].uid", 2**32 - 1, "expected an integer from 0 to 4294967294"),
        ('linux.netDevices["eth/0"]', {}, "expected an interface name"),
        ('linux.netDevices[".."]', {}, "expected an interface name"),
        ("linux.netDevices.eth0.name", "sixteen-bytes-no", "expected an interface name"),
        ("linux.netDevices.eth0.name", "a b", "expected an interface name"),
        ("linux.cgroupsPath", 5, "expected a string"),
        ("linux.resources.devices[0].allow", "no", "expected true or false"),
        ("linux.resources.devices[1].type", "p", "expected one of a, b, c"),
        ("linux.resources.devices[0].access", "rx", "expected letters out of r, w and m"),
        ("linux.resources.memory.limit", "1g", 'found the string "1g", expected an integer'),
        ("linux.resources.memory.limit", 2**63, "to 9223372036854775807"),
        ("linux.resources.cpu.shares", -1, "expected an integer from 0"),
        ("linux.resources.cpu.cpus", 3, "expected a string"),
        ("linux.resources.blockIO.weight", 65536, "expected an integer from 0 to 65535"),
        ("linux.resources.blockIO.throttleReadBpsDevice[0].rate", -1, "expected an integer from 0"),
        ("linux.resources.hugepageLimits[0].pageSize", "2M", "expected a page size such as 2MB"),
        ("linux.resources.hugepageLimits[0].pageSize", "02MB", "expected a page size such as 2MB"),
        ("linux.resources.hugepageLimits[0].pageSize", "MB", "expected a page size such as 2MB"),
        ("linux.resources.hugepageLimits[0].pageSize", "", "expected a page size such as 2MB"),
        ("linux.resources.network.priorities[0].priority", -1, "expected an integer from 0"),
        ("linux.resources.pids.limit", 1.5, "found the number 1.5, expected an integer"),
        ("linux.resources.rdma.mlx5_1.hcaHandles", -1, "expected an integer from 0"),
        ('linux.resources.unified["../cgroup.procs"]', "1", "expected the name of a cgroup v2 file"),
        ('linux.resources.unified["memory.high"]', 1, "found the number 1, expected a string"),
        ("linux.intelRdt.memBwSchema", "0=20", "expected one line that starts with MB:"),
        ("linux.intelRdt.schemata", "L3", "expected an array"),
        ("linux.memoryPolicy.mode", "MPOL_BEST", "expected one of MPOL_DEFAULT"),
        ("linux.memoryPolicy.flags[0]", "STATIC", "expected one of MPOL_F_NUMA_BALANCING"),
        ('linux.sysctl["net.core.somaxconn"]', 256, "found the number 256, expected a string"),
        ("linux.seccomp.defaultAction", "SCMP_ACT_MAYBE", "expected one of SCMP_ACT_KILL"),
        ("linux.seccomp.defaultErrnoRet", 4096, "expected an integer from 0 to 4095"),
        ("linux.seccomp.architectures[0]", "amd64", "expected one of SCMP_ARCH_X86"),
        ("linux.seccomp.flags[0]", "SECCOMP_FILTER_FLAG_NEW_LISTENER", "expected one of SECCOMP_FILTER_FLAG_TSYNC"),
        ("linux.seccomp.syscalls[0].names", [], "expected an array that is not empty"),
        ("linux.seccomp.syscalls[0].names[1]", 4, "expected a string"),
        ("linux.seccomp.syscalls[0].action", "ALLOW", "expected one of SCMP_ACT_KILL"),
        ("linux.seccomp.syscalls[1].errnoRet", -1, "expected an integer from 0 to 4095"),
        ("linux.seccomp.syscalls[1].args[0].index", 6, "expected an integer from 0 to 5"),
        ("linux.seccomp.syscalls[1].args[0].value", 2**64, "expected an integer from 0 to 18446744073709551615"),
        ("linux.seccomp.syscalls[1].args[0].op", "==", "expected one of SCMP_CMP_NE"),
        ("linux.rootfsPropagation", "public", "expected one of private, shared, slave, unbindable"),
        ("linux.maskedPaths[0]", "proc/kcore", "expected an absolute path"),
        ("linux.readonlyPaths[0]", "", "expected an absolute path"),
        ("linux.personality.domain", "linux", "expected one of LINUX, LINUX32"),
        ("linux.personality.flags[0]", 1, "expected a string"),
    ],
)
def test_refused(where, value, cause):
    error = refused(changed(where, value))
    assert cause in error.cause
    assert error.where == where.replace('["realtime"]', ".realtime")


@pytest.mark.parametrize(
    ("where", "value", "culprit", "cause"),
    [
        ("linux.uidMappings[0].hostID", 100001, "linux.uidMappings[1].hostID", "element 0 also maps"),
        ("linux.uidMappings[0].containerID", 65536, "linux.uidMappings[1].containerID", "element 0 also maps"),
        ("linux.namespaces[0].type", "user", "linux.namespaces[2].type", "again, expected each type once"),
        ("linux.devices[1].type", "b", "linux.devices[1].major", "found nothing, expected an integer from 0 to 4095"),
        ("process.rlimits[0].hard", 1023, "process.rlimits[0].soft", "found 1024, expected at most 1023"),
    ],
)
def test_error_at_another_place_than_the_change(where, value, culprit, cause):
    error = refused(changed(where, value))
    assert cause in error.cause
    assert error.where == culprit


REQUIRED = [
    "ociVersion",
    "root",
    "root.path",
    "process.args",
    "process.cwd",
    "process.consoleSize.height",
    "process.consoleSize.width",
    "process.rlimits[0].type",
    "process.rlimits[0].soft",
    "process.rlimits[0].hard",
    "process.scheduler.policy",
    "process.ioPriority.class",
    "mounts[0].destination",
    "hooks.prestart[0].path",
    "linux.namespaces[0].type",
    "linux.uidMappings[0].containerID",
    "linux.uidMappings[0].hostID",
    "linux.uidMappings[0].size",
    "linux.devices[0].type",
    "linux.devices[0].path",
    "linux.devices[0].major",
    "linux.devices[0].minor",
    "linux.resources.devices[0].allow",
    "linux.resources.blockIO.weightDevice[0].major",
    "linux.resources.blockIO.throttleWriteIOPSDevice[0].minor",
    "linux.resources.hugepageLimits[0].pageSize",
    "linux.resources.hugepageLimits[0].limit",
    "linux.resources.network.priorities[0].name",
    "linux.resources.network.priorities[0].priority",
    "linux.resources.pids.limit",
    "linux.memoryPolicy.mode",
    "linux.seccomp.defaultAction",
    "linux.seccomp.syscalls[0].names",
    "linux.seccomp.syscalls[0].action",
    "linux.seccomp.syscalls[1].args[0].index",
    "linux.seccomp.syscalls[1].args[0].value",
    "linux.seccomp.syscalls[1].args[0].op",
    "linux.personality.domain",
]


@pytest.mark.parametrize("where", REQUIRED)
def test_required(where):
    missing = refused(changed(where, REMOVED))
    assert missing.where == where
    assert missing.cause.startswith("found nothing, expected ")
    assert missing.fix == "add it"
    null = refused(changed(where, None))
    assert null.where == where
    assert null.cause.startswith("found null, expected ")


def places(value=COMPLETE, where=""):
    """Yield every place in the complete configuration, with its value."""
    yield where, value
    if isinstance(value, dict):
        for key, item in value.items():
            plain = key.isidentifier()
            yield from places(item, f"{where}.{key}".lstrip(".") if plain else f'{where}["{key}"]')
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, f"{where}[{index}]")


PLACES = [where for where, _ in places() if where]
MAPPED = (
    "annotations",
    "linux.sysctl",
    "linux.timeOffsets",
    "linux.netDevices",
    "linux.resources.rdma",
    "linux.resources.unified",
)


def is_property(where):
    """Whether a step is a property of the specification: not an element, and not a key that is data."""
    parent = where.rpartition(".")[0]
    return not where.endswith("]") and parent not in MAPPED


def alike(where):
    """Return one name for all places with the same structure in the specification."""
    where = re.sub(r"\[\d+\]", "[0]", where)
    where = re.sub(r"^hooks\.\w+", "hooks.prestart", where)
    where = re.sub(r"^.*[ug]idMappings", "linux.uidMappings", where)
    return re.sub(r"blockIO\.\w+Device\[", "blockIO.weightDevice[", where)


@pytest.mark.parametrize("where", [where for where in PLACES if is_property(where)])
def test_a_property_is_required_or_may_be_null(where):
    if alike(where) in {alike(each) for each in REQUIRED}:
        refused(changed(where, None))
    else:
        check(changed(where, None))


@pytest.mark.parametrize("where", PLACES)
def test_every_property_is_checked(where):
    for wrong in (1.5, 2**64, "\0", "\ud800", [None], [[]], [1.5]):
        assert refused(changed(where, wrong)).where.startswith(where)


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        ("12", "remove the quotes"),
        (12.0, "write it without a fraction or an exponent"),
        (-1, "write a number in that range"),
        ("x", "write a number"),
        ([], "write a number"),
    ],
)
def test_the_fix_for_a_number(value, fix):
    assert refused(changed("process.user.uid", value)).fix == fix


def test_fix_for_a_number_instead_of_a_string():
    assert refused(changed('linux.sysctl["net.core.somaxconn"]', 256)).fix == "put it in quotes"


@pytest.mark.parametrize("config", [None, [], "text", 5, 1.5, True])
def test_configuration_must_be_an_object(config):
    error = refused(config)
    assert error.where == ""
    assert error.cause.endswith("expected an object")


def test_long_values_are_shortened():
    assert len(str(refused(changed("process.cwd", "x" * 1_000_000)))) < 300
    assert len(str(refused(changed("process.user.uid", 10**4000)))) < 300
    config = changed("annotations", {"k" * 1_000_000: 1})
    assert len(refused(config).where) < 100


def test_keys_cannot_start_a_second_line():
    assert "\n" not in str(refused(changed("annotations", {"a\nb": 1})))
    assert refused(changed("annotations", {"\ud800": "x"})).where == 'annotations["\ud800"]'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from([value for _, value in places()]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)

# Some rules compare elements of an array or properties of an object: the error may name another one than the changed
# one.
COMPARED = re.compile(r"(.*?(?:namespaces|rlimits|[ug]idMappings|linux\.devices)\b).*")


@given(st.sampled_from(PLACES), JSON)
@settings(deadline=None, max_examples=1000)
def test_any_value_in_any_place_passes_or_is_refused_there(where, value):
    try:
        check(changed(where, value))
    except RootlessError as error:
        assert str(error).isprintable()  # noqa: PT017 - refusing is one of two right answers
        assert error.where.startswith(where) or error.where.startswith(COMPARED.sub(r"\1", where))  # noqa: PT017


@given(JSON)
@settings(deadline=None)
def test_any_value_as_a_configuration_passes_or_is_refused(value):
    try:
        check(value)
    except RootlessError as error:
        assert str(error).isprintable()  # noqa: PT017 - refusing is one of two right answers
