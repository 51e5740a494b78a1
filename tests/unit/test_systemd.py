"""Requests to systemd: names and properties of a scope, and D-Bus messages, compared with jeepney."""

from __future__ import annotations

import os

import jeepney
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney.low_level import HeaderFields, MessageType

from rootless.cgroup import dbus, systemd
from rootless.errors import RootlessError
from rootless.plan.cgroup import gvariant, unit_properties
from rootless.plan.cgroup.limits import Setting, settings
from rootless.plan.cgroup.unit_properties import INFINITY, Property, of_annotations, of_settings
from tests.lib.manager import JOB, Manager, failure, removed, reply

# --- Limits as properties --------------------------------------------------------------------------------------------


def made_of(resources):
    return {each.name: each.value for each in of_settings(settings(resources))}


def test_the_properties_of_limits():
    resources = {
        "memory": {"limit": 100, "swap": 150, "reservation": -1},
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-2,8", "mems": "0"},
        "pids": {"limit": 5},
        "blockIO": {
            "weight": 1000,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}, {"major": 8, "minor": 16, "rate": 8}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}],
        },
        "unified": {"memory.high": "2M", "memory.zswap.max": "0", "memory.oom.group": "1"},
    }
    assert made_of(resources) == {
        "MemoryMax": 100,
        "MemorySwapMax": 50,
        "MemoryLow": INFINITY,
        "CPUWeight": 100,
        "CPUQuotaPerSecUSec": 500000,
        "CPUQuotaPeriodUSec": 100000,
        "AllowedCPUs": bytes([0b111, 1]),
        "AllowedMemoryNodes": b"\x01",
        "TasksMax": 5,
        "IOWeight": 10000,
        "IODeviceWeight": [("/dev/block/8:0", 1)],
        "IOReadBandwidthMax": [("/dev/block/8:0", 7), ("/dev/block/8:16", 8)],
        "IOWriteIOPSMax": [("/dev/block/8:0", 9)],
        "MemoryHigh": 2 << 20,
        "MemoryZSwapMax": 0,
        "OOMPolicy": "kill",
    }


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"cpu": {"quota": -1, "period": 20000}}, {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 20000}),
        # rounded up to whole percents
        ({"cpu": {"quota": 33333, "period": 100000}}, {"CPUQuotaPerSecUSec": 340000, "CPUQuotaPeriodUSec": 100000}),
        ({"cpu": {"idle": 1, "shares": 1024}}, {"CPUWeight": 0}),
        ({"cpu": {"idle": 0}}, {}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
        # the last one counts, as in the file
        ({"pids": {"limit": 5}, "unified": {"pids.max": "6"}}, {"TasksMax": 6}),
        # numbers for Python but not for the kernel
        ({"unified": {"pids.max": "\u0666", "cpu.weight": "1_0", "cpu.max": "\u00b2 100000"}}, {}),
        ({"unified": {"io.weight": "default 50", "io.max": "8:0 rbps=1M wbps=max"}},
         {"IOWeight": 50, "IOReadBandwidthMax": [("/dev/block/8:0", 1 << 20)],
          "IOWriteBandwidthMax": [("/dev/block/8:0", INFINITY)]}),
    ],
)  # fmt: skip
def test_limits_with_a_twist(resources, expected):
    assert made_of(resources) == expected


@pytest.mark.parametrize(("asked", "kept"), [(10, 10), (100, 100), (101, 111), (300, 2300), (1000, 10000)])
def test_weight_property_from_which_systemd_derives_bfqs(asked, kept):
    block_io = {"weight": asked, "weightDevice": [{"major": 8, "minor": 0, "weight": asked}]}
    made = {each.name: each.value for each in of_settings(settings({"blockIO": block_io}), bfq=True)}
    assert made == {"IOWeight": kept, "IODeviceWeight": [("/dev/block/8:0", kept)]}
    # systemd's cgroup.c
    assert (kept if kept <= 100 else 100 + (kept - 100) * 900 // 9900) == asked


@given(
    file=st.sampled_from([*unit_properties._CONVERSIONS, "memory.numa_stat", "hugetlb.2MB.max", "cpu.uclamp.max"]),
    value=st.one_of(
        st.text(),
        st.text("0123456789max -,:=KMrwbpsio/", max_size=20),
        st.integers().map(str),
        st.sampled_from(
            ["max", "-1", "5 0", "max 0", "0-", "9-1", "8:0", "8:0 rbps=-1", "0-31:2/4", "99999999999999999999"]
        ),
    ),
)
def test_each_cgroup_file_has_an_encodable_property_or_none(file, value):
    for made in of_settings([Setting(file, value, "here")]):
        assert made.where == "here"
        dbus.message(dbus.CALL, 1, {dbus.PATH: "/"}, made.signature, (made.value,))


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "name", "unit"),
    [
        ("libpod", "0123abc", "libpod-0123abc.scope"),
        ("", "web", "-web.scope"),
        ("rootless", "a+b", "rootless-a\\x2bb.scope"),
        ("docker", "ü", "docker-\\xc3\\xbc.scope"),
        ("a/b", "c", "a-b-c.scope"),
    ],
)
def test_the_name_of_a_scope(prefix, name, unit):
    assert unit_properties.scope_name(prefix, name) == unit


@pytest.mark.parametrize(("prefix", "name"), [("p", ""), ("p", "x.slice"), ("p", "x" * 250)])
def test_invalid_scope_names_are_refused(prefix, name):
    with pytest.raises(RootlessError) as caught:
        unit_properties.scope_name(prefix, name)
    assert caught.value.where == "linux.cgroupsPath"


@pytest.mark.parametrize("name", ["", "user.slice", "-.slice", "a-b-c.slice", "user-1000.slice"])
def test_the_name_of_a_slice(name):
    assert unit_properties.slice_name(name) == name


@pytest.mark.parametrize(
    "name", ["user", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", ".slice", "a b.slice", "../x.slice"]
)
def test_invalid_slice_names_are_refused(name):
    with pytest.raises(RootlessError) as caught:
        unit_properties.slice_name(name)
    assert caught.value.where == "linux.cgroupsPath"


# --- Annotations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'text'", ("s", "text")),
        ('"a \\"b\\" \\u00e4\\n"', ("s", 'a "b" ä\n')),
        ("true", ("b", True)),
        (" 5 ", ("i", 5)),
        ("-0x10", ("i", -16)),
        ("010", ("i", 8)),
        ("1.5e3", ("d", 1500.0)),
        ("double 2", ("d", 2.0)),
        ("uint64 18446744073709551615", ("t", (1 << 64) - 1)),
        ("byte 255", ("y", 255)),
        ("@t 7", ("t", 7)),
        ("objectpath '/a'", ("o", "/a")),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[uint32 1, 2]", ("au", [1, 2])),
        ("@as []", ("as", [])),
        ("@a(st) [('/x', 1), ('/y', 2)]", ("a(st)", [("/x", 1), ("/y", 2)])),
        ("('a', uint16 5, [true])", ("(sqab)", ("a", 5, [True]))),
        ("(1,)", ("(i)", (1,))),
        ("{'a': <5>, 'b': <'x'>}", ("a{sv}", {"a": ("i", 5), "b": ("s", "x")})),
        ("<<true>>", ("v", ("v", ("b", True)))),
    ],
)
def test_values_as_people_write_them(text, expected):
    assert gvariant.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "text", "'a", "5 6", "[", "[1,", "[1, 'a']", "[]", "()", "{}", "uint64 -1", "byte 256", "2147483648", "@",
        "@s 5",
        "@as", "@a", "@( 5", "@(s) ('a', 'b')", "@(ss) ('a',)", "uint64 'a'", "boolean 5", "'\\uzzzz'", "{[1]: 2}",
        "{1 2}",
        "<", "5x", "uint64", "[" * 100, "1_000", "@ss 'a'",
        "\u0661", "@d \u0661.\u0665", "'\\u\u0660\u0660\u0664\u0661'", "'\\u+041'",
    ],
)  # fmt: skip
def test_invalid_values_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        gvariant.parse(text)


@given(st.text("@asuit64'\"[](){}<>,:0129.-+ex\\ true", max_size=30))
def test_a_value_fits_the_wire_or_is_refused(text):
    try:
        signature, value = gvariant.parse(text)
    except ValueError:
        return
    if signature.count("a") + signature.count("(") < 10:
        dbus.message(dbus.CALL, 1, {dbus.PATH: "/"}, signature, (value,))


def test_annotations_that_are_properties():
    annotations = {
        "org.systemd.property.TimeoutStopSec": "1.5",
        "org.systemd.property.RuntimeMaxUSec": "uint64 7",
        "org.systemd.property.CollectMode": "'inactive'",
        "org.example.other": "x",
    }
    found = [(each.name, each.signature, each.value) for each in of_annotations(annotations)]
    assert found == [
        ("TimeoutStopUSec", "t", 1500000),
        ("RuntimeMaxUSec", "t", 7),
        ("CollectMode", "s", "inactive"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PIDs", "[uint32 1]"), ("Slice", "'a.slice'"), ("TimeoutStopSec", "'a'"), ("TimeoutStopSec", "-1"), ("A b", "1"),
     ("", "1"), ("Delegate", "yes"), ("MemoryMax", "uint64 x")],
)  # fmt: skip
def test_an_annotation_that_is_refused_is_named(name, value):
    with pytest.raises(RootlessError) as caught:
        of_annotations({f"org.systemd.property.{name}": value})
    assert caught.value.where == f'annotations["org.systemd.property.{name}"]'
    assert caught.value.code == "RL-ANNOTATION"


# --- D-Bus -----------------------------------------------------------------------------------------------------------

BODIES = (
    ("", ()),
    ("s", ("text",)),
    ("ssa(sv)a(sa(sv))", ("a.scope", "fail", [("PIDs", ("au", [1, 2])), ("Delegate", ("b", True)),
                                               ("Slice", ("s", "ü.slice")), ("IO", ("a(st)", [("/dev/x", 5)]))], [])),
    ("ybnqiuxtd", (1, False, -2, 3, -4, 5, -6, 7, 0.5)),
    ("sba(sv)", ("u", True, [("AllowedCPUs", ("ay", b"\x01\x02\x03"))])),
    ("a{sv}o", ({"a": ("i", 1), "bc": ("as", ["", "x"])}, "/a/b")),
    ("a(yt)(s(i))g", ([(1, 2), (3, 4)], ("a", (5,)), "a{sv}")),
)  # fmt: skip


def as_jeepney(signature, body):
    address = jeepney.DBusAddress("/a/path", "org.example.service", "org.example.Interface")
    made = jeepney.new_method_call(address, "Member", signature or None, body)
    made.header.fields = {
        field: made.header.fields[field]
        for field in (HeaderFields.path, HeaderFields.interface, HeaderFields.member, HeaderFields.destination,
                      HeaderFields.signature)
        if field in made.header.fields
    }  # fmt: skip
    return made.serialise(serial=7)


@pytest.mark.parametrize(("signature", "body"), BODIES)
def test_call_equals_jeepneys(signature, body):
    fields = {
        dbus.PATH: "/a/path", dbus.INTERFACE: "org.example.Interface", dbus.MEMBER: "Member",
        dbus.DESTINATION: "org.example.service",
    }  # fmt: skip
    assert dbus.message(dbus.CALL, 7, fields, signature, body) == as_jeepney(signature, body)


@pytest.mark.parametrize(("signature", "body"), BODIES)
def test_a_message_is_read_as_it_was_written(signature, body):
    def plain(value):
        """Return a value as it is read: without the types of variants, and with lists of numbers for bytes."""
        if isinstance(value, bytes):
            return list(value)
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        if isinstance(value, tuple):
            is_variant = len(value) == 2 and isinstance(value[0], str) and value[0] in VARIANTS
            return plain(value[1]) if is_variant else tuple(plain(each) for each in value)
        return value

    read = dbus.parse(as_jeepney(signature, body))
    assert read.kind == MessageType.method_call.value
    assert read.fields[dbus.MEMBER] == "Member"
    assert read.body == [plain(each) for each in body]


VARIANTS = ("au", "b", "s", "a(st)", "ay", "i", "as")


@given(st.binary(max_size=80), st.sampled_from(BODIES[1:]), st.integers(0, 200), st.integers(0, 255))
def test_only_malformed_dbus_is_refused(noise, example, place, byte):
    broken = bytearray(as_jeepney(*example))
    broken[place % len(broken)] = byte
    for data in (noise, bytes(broken), bytes(broken[: place % len(broken)])):
        try:
            dbus.parse(data)
        except (ValueError, KeyError, IndexError, dbus.StructError, RecursionError):
            continue


class Wanted:
    """The part of a plan's Cgroup that a scope needs."""

    def __init__(self, directory, asked=()):
        self.unit = "rootless-x.scope"
        self.slice = "user.slice"
        self.container = "x"
        self.user_manager = str(directory)
        self.settings = list(asked)
        self.properties = []


@pytest.fixture
def manager(tmp_path):
    """Return a function that starts a Manager."""
    started = []

    def start(*answers):
        started.append(Manager(tmp_path, answers))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def answering(tmp_path, manager):
    """Return a function that starts a manager with some answers and requests a scope from it; it returns the error."""

    def start(*answers, asked=()):
        started = manager(*answers)
        with pytest.raises(RootlessError) as caught:
            systemd.start_scope(Wanted(tmp_path, asked), os.getpid())
        started.join(10)
        assert "\n" not in str(caught.value)
        return caught.value, started

    return start


def test_a_manager_that_hangs_up(answering):
    error, _ = answering(lambda _serial: ())
    assert error.code == "RL-SYSTEMD"
    assert error.cause == "the connection to systemd broke off: the connection has been closed"
    assert error.what == "cannot make rootless-x.scope"


def test_a_manager_that_hangs_up_half_way(answering):
    error, manager = answering(lambda serial: [reply(serial, "o", (JOB,)), removed("/another", "done")])
    assert "broke off" in error.cause
    method, (unit, mode, asked, _) = manager.heard[0]
    assert (method, unit, mode) == ("StartTransientUnit", "rootless-x.scope", "fail")
    assert dict(asked)["PIDs"] == ("au", [os.getpid()])
    assert dict(asked)["Slice"] == ("s", "user.slice")


@pytest.mark.parametrize(
    "noise", [b"HTTP/1.1 400 Bad Request\r\n", b"l\1\0\1\xff\xff\xff\xff" + bytes(20), b"l\2\0\1" + bytes(12)]
)
def test_a_manager_that_talks_nonsense(answering, noise):
    error, _ = answering(lambda _serial: (noise,))
    assert error.code == "RL-SYSTEMD"


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [("failed", "systemd could not put the process there"), ("canceled", "the unit was stopped meanwhile")],
)
def test_a_job_that_fails(answering, outcome, cause):
    error, _ = answering(lambda serial: [removed(JOB, outcome), reply(serial, "o", (JOB,))])
    assert error.cause == cause
    assert "journalctl --user --unit rootless-x.scope" in error.fix


def test_system_manager_is_not_a_users(answering, tmp_path, monkeypatch):
    monkeypatch.setattr(systemd, "SYSTEM", str(tmp_path))
    error, _ = answering(lambda serial: [removed(JOB, "failed"), reply(serial, "o", (JOB,))])
    assert error.fix == "read the log: journalctl --unit rootless-x.scope"


def test_a_scope_whose_process_has_ended_has_no_fix(monkeypatch):
    monkeypatch.setattr(systemd.procfs, "cgroup", lambda _: "")
    with pytest.raises(RootlessError) as caught:
        systemd._cgroup_of(1, "rootless-x.scope")
    assert (caught.value.cause, caught.value.fix) == ("its process has ended", "")


def test_refused_property_is_reported_with_its_place(answering):
    text = "Value specified in CPUWeight is out of range"
    asked = [
        Setting("cpu.weight", "20000", "linux.resources.unified.cpu.weight"),
        Setting("pids.max", "5", "elsewhere"),
    ]
    error, _ = answering(lambda serial: [failure(serial, "org.freedesktop.DBus.Error.InvalidArgs", text)], asked=asked)
    assert error.cause == f"systemd says: {text}"
    assert error.where == "linux.resources.unified.cpu.weight"


def test_unknown_spare_property_is_left_out(answering):
    def refuse(serial):
        text = "Cannot set property AllowedCPUs, or unknown property."
        return [failure(serial, "org.freedesktop.DBus.Error.PropertyReadOnly", text)]

    asked = [Setting("cpuset.cpus", "0", "here"), Setting("pids.max", "5", "there")]
    error, manager = answering(refuse, lambda _serial: (), asked=asked)
    assert "broke off" in error.cause
    first, second = ({name for name, _ in body[2]} for _, body in manager.heard)
    assert first - second == {"AllowedCPUs"}


def test_no_manager_at_all(tmp_path):
    with pytest.raises(RootlessError) as caught:
        systemd.start_scope(Wanted(tmp_path), os.getpid())
    assert caught.value.code == "RL-SYSTEMD-GONE"
    assert f"{tmp_path}/systemd/private: no such file or directory; {tmp_path}/bus: no such" in caught.value.cause
    # its units have ended with it
    systemd.stop_scope("rootless-x.scope", str(tmp_path))


def test_a_manager_of_somebody_else(tmp_path, manager, monkeypatch):
    manager()
    monkeypatch.setattr(systemd.posix, "geteuid", lambda: 4711)
    with pytest.raises(RootlessError) as caught:
        systemd.start_scope(Wanted(tmp_path), os.getpid())
    assert "it belongs to user" in caught.value.cause


def test_annotations_override_default_properties(tmp_path, manager):
    started = manager(lambda _serial: ())
    wanted = Wanted(tmp_path)
    wanted.properties = [Property("CollectMode", "s", "inactive", "annotations")]
    with pytest.raises(RootlessError):
        systemd.start_scope(wanted, os.getpid())
    started.join(10)
    assert [value for name, value in started.heard[0][1][2] if name == "CollectMode"] == [("s", "inactive")]
