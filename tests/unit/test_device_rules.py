"""Device rules as an eBPF program, which these tests interpret."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.host.delegation import Cgroups
from rootless.plan import ops
from rootless.plan.cgroup.device_filter import program
from rootless.plan.context import ADAPTED
from tests.lib.bundles import base_config
from tests.unit.planning import NESTED, ROOT, notes, plan_for, refused, the

DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}
FUSE = {"type": "c", "major": 10, "minor": 229}
BITS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}
PLACE = "linux.resources.devices"
OWN = {"cgroups": Cgroups(own="/sys/fs/cgroup/own", base="/sys/fs/cgroup/own", reach="/sys/fs/cgroup/own")}


def instructions(code):
    """Yield the opcode, the two registers, the offset and the immediate of each instruction."""
    for opcode, registers, offset, value in struct.iter_unpack("=BBhi", code):
        low, high = registers & 15, registers >> 4
        yield opcode, *((low, high) if sys.byteorder == "little" else (high, low)), offset, value


def run(code, kind, major, minor, access):
    """Return the result of the program, interpreted as in bpf(2) and the kernel's instruction-set.rst."""
    words = [TYPES[kind] | sum(BITS[letter] for letter in access) << 16, major, minor]
    registers = [None] * 11
    registers[1] = "context"
    listed = list(instructions(code))
    at = 0
    while True:
        opcode, to, source, offset, value = listed[at]
        at += 1
        if opcode == 0x61:
            assert registers[source] == "context"
            registers[to] = words[offset // 4]
        elif opcode == 0xB7:
            registers[to] = value
        elif opcode == 0xBF:
            registers[to] = registers[source]
        elif opcode == 0x57:
            registers[to] &= value
        elif opcode == 0x77:
            registers[to] >>= value
        elif opcode in (0x16, 0x56, 0x46):
            value &= 0xFFFFFFFF
            holds = {0x16: registers[to] == value, 0x56: registers[to] != value, 0x46: registers[to] & value}[opcode]
            at += offset if holds else 0
        elif opcode == 0x95:
            return bool(registers[0])
        else:
            pytest.fail(f"unknown instruction {opcode:#x}")


def allowed(rules, kind, major, minor, access):
    code = program(rules)
    return run(code, kind, major, minor, access) if code else True


def by_the_book(rules, kind, major, minor, letter):
    """Return the decision of the last rule for a device; without a rule it is forbidden."""
    verdict = False
    for rule in rules:
        if (
            rule.get("type") in (None, "", "a", kind)
            and rule.get("major") in (None, -1, major)
            and rule.get("minor") in (None, -1, minor)
            and letter in (rule.get("access") or "rwm")
        ):
            verdict = rule["allow"]
    return verdict


NUMBERS = (0, 1, 10, 0x7FFFFFFF, 0xFFFFFFFF)
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans()},
        optional={
            "type": st.sampled_from(["a", "b", "c", ""]),
            "major": st.sampled_from([-1, *NUMBERS]),
            "minor": st.sampled_from([-1, *NUMBERS]),
            "access": st.sampled_from(["r", "w", "m", "rw", "rwm", ""]),
        },
    ),
    max_size=8,
)


@given(
    RULES, st.sampled_from("bc"), st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.sampled_from(["r", "w", "rw"])
)
def test_the_last_rule_about_a_device_wins(rules, kind, major, minor, access):
    """ "The runtime MUST apply entries in the listed order"; no default device has these numbers."""
    expected = all(by_the_book(rules, kind, major, minor, letter) for letter in access)
    assert allowed(rules, kind, major, minor, access) == expected


@given(RULES)
def test_the_kernel_takes_every_program(rules):
    """The kernel refuses unreachable instructions and jumps out of the program; these jumps only go forward."""
    listed = list(instructions(program(rules)))
    reached = {0}
    for index, (opcode, _, _, offset, _) in enumerate(listed):
        assert index in reached
        if opcode != 0x95:
            reached.add(index + 1)
        if opcode in (0x16, 0x56, 0x46):
            assert offset >= 0
            reached.add(index + 1 + offset)
    assert not listed or max(reached) == len(listed) - 1


@pytest.mark.parametrize(
    ("rules", "device", "expected"),
    [
        ([DENY_ALL], ("c", 1, 3, "rw"), True),
        ([DENY_ALL], ("c", 136, 7, "rw"), True),
        ([DENY_ALL], ("c", 5, 2, "rw"), True),
        ([DENY_ALL], ("b", 8, 0, "m"), True),
        ([DENY_ALL], ("b", 8, 0, "r"), False),
        ([DENY_ALL], ("c", 1, 11, "r"), False),
        ([ALLOW_ALL, DENY_ALL], ("c", 10, 229, "r"), False),
        ([DENY_ALL, FUSE | {"allow": True, "access": "rw"}], ("c", 10, 229, "rw"), True),
        ([DENY_ALL, FUSE | {"allow": False, "access": "rwm"}], ("c", 10, 229, "m"), True),
        ([DENY_ALL, {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"}], ("c", 1, 3, "rw"), True),
        ([{"allow": True, "type": "c", "major": 10, "access": "r"}], ("c", 1, 3, "rw"), True),
    ],
)
def test_the_default_devices_and_making_nodes_stay_allowed(rules, device, expected):
    """As in runc and crun: docker's rules forbid 10:229, but containers may unpack images with such a node."""
    assert allowed(rules, *device) == expected


def test_rules_that_allow_everything_need_no_program():
    assert program([DENY_ALL, ALLOW_ALL]) == b""
    assert plan_for(ruled(ALLOW_ALL), ROOT | OWN).cgroup.device_rules == b""


# --- In a Plan --------------------------------------------------------------------------------------------------------


def ruled(*rules):
    config = base_config()
    config["linux"]["resources"] = {"devices": list(rules)}
    return config


def test_root_of_the_host_enforces_them():
    plan = plan_for(ruled(DENY_ALL), ROOT | OWN)
    assert plan.cgroup.device_rules == program([DENY_ALL])
    assert "default devices" in notes(plan, ADAPTED)[PLACE]
    attached = the(plan, ops.ATTACH_DEVICE_RULES)
    assert (attached.value("program"), attached.where) == (program([DENY_ALL]), "linux.resources.devices")


@pytest.mark.parametrize("caller", [{}, NESTED])
def test_for_others_one_note_says_that_they_are_not_enforced(caller):
    plan = plan_for(ruled(DENY_ALL, DENY_ALL), caller | OWN, require_limits=True)
    assert not plan.cgroup.device_rules
    (note,) = [note for note in plan.notes if note.where == PLACE]
    assert note.kind == ADAPTED
    assert "are not enforced" in note.text


def test_root_without_a_cgroup_gets_a_warning():
    plan = plan_for(ruled(DENY_ALL), ROOT | OWN, cgroup_manager="disabled")
    assert "limits that are not enforced: devices: --cgroup-manager disabled" in notes(plan)["linux.resources"]
    error = refused(ruled(DENY_ALL), ROOT | OWN, cgroup_manager="disabled", require_limits=True)
    assert error.code == "RL-LIMITS"
