"""The executor's decoder refuses malformed Plans and never reads beyond their bounds."""

from __future__ import annotations

import errno
import os
import select
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.launch import spawn
from rootless.launch.protocol import EXECUTING, FAILED, Descriptors, read_message
from rootless.plan import ops
from rootless.plan.encode import encode
from rootless.plan.ops import Op
from tests.lib.configurations import QUICK

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "helpers" / "init"
HEADER = struct.Struct("=8sII")
RECORD = struct.Struct("=HBBI6q8I")
LISTS = {
    (kind.code, which)
    for kind, places in (
        (ops.MOUNT, (3,)), (ops.REMOUNT, (1,)), (ops.COMMAND, (0,)), (ops.EXEC, (0, 1)), (ops.HOOK, (1, 2, 3)),
        (ops.IDENTIFY, (0,)), (ops.CGROUP_OWNER, (1,)), (ops.FUSE, (0,)), (ops.OVERLAY, (1,)), (ops.LANDLOCK, (0,)),
    )
    for which in places
}  # fmt: skip

LAST_CODE = max(kind.code for kind in ops.KINDS)
KINDS = st.sampled_from([kind for kind in ops.KINDS if kind.by == ops.EXECUTOR and kind is not ops.EXEC])
NUMBERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def plan_of(*changes: tuple[int, bytes]) -> bytes:
    """Return a small valid Plan with `changes`, (offset, bytes)."""
    plan = bytearray(encode([Op(ops.UMASK, 0o22), Op(ops.HOSTNAME, "name"), Op(ops.COMMAND, ["/a", "/b"], "a")]))
    for offset, data in changes:
        plan[offset : offset + len(data)] = data
    return bytes(plan)


def header(count: int, size: int) -> bytes:
    return HEADER.pack(b"RLPLAN01", count, size)


def record(index: int, field: int = 0) -> int:
    """Return the offset of an operation in a Plan, or of its field at offset `field`."""
    return HEADER.size + index * RECORD.size + field


def numbers(*values: int) -> bytes:
    return struct.pack(f"={len(values)}I", *values)


PLAN = plan_of()
STRINGS = len(PLAN) - record(3)
TEXT, LIST = 56, 56
"""The offset of the first string's reference in a record."""
HUGE = 0xFFFFFFFF

MALFORMED = {
    "empty": b"",
    "shorter than its header": PLAN[:15],
    "header alone": PLAN[:16],
    "another version": b"RLPLAN02" + PLAN[8:],
    "one byte missing": PLAN[:-1],
    "one byte too many": PLAN + b"\0",
    "half of it": PLAN[: len(PLAN) // 2],
    "no operations": header(0, len(PLAN) - HEADER.size) + PLAN[HEADER.size :],
    "nothing at all": header(0, 0),
    "no strings": header(3, 0) + PLAN[HEADER.size : record(3)],
    "one operation too few": header(2, STRINGS) + PLAN[HEADER.size :],
    "one operation too many": header(4, STRINGS) + PLAN[HEADER.size :],
    "four billion operations": header(HUGE, STRINGS) + PLAN[HEADER.size :],
    "four billion bytes of strings": header(3, HUGE) + PLAN[HEADER.size :],
    "sizes whose sum is right in 32 bits": header(3 + 2**29, STRINGS) + PLAN[HEADER.size :],
    "operation 0": plan_of((record(0), b"\0\0")),
    "an operation past the last": plan_of((record(1), struct.pack("=H", LAST_CODE + 1))),
    "operation 65535": plan_of((record(0), b"\xff\xff")),
    "an unknown on_error": plan_of((record(0, 2), b"\x04")),
    "alternatives up to the end": plan_of((record(0, 2), b"\x02\x03")),
    "alternatives past the end": plan_of((record(2, 2), b"\x02\x01")),
    "255 alternatives": plan_of((record(0, 2), b"\x02\xff")),
    "alternatives where none are taken": plan_of((record(0, 3), b"\xff")),
    "a string past the end": plan_of((record(1, TEXT), numbers(STRINGS, 0))),
    "a string up to the end, without its NUL": plan_of((record(1, TEXT), numbers(1, STRINGS - 1))),
    "a string that ends in another": plan_of((record(1, TEXT), numbers(1, 3))),
    "a string at four billion": plan_of((record(1, TEXT), numbers(HUGE, 1))),
    "a string of four billion bytes": plan_of((record(1, TEXT), numbers(1, HUGE))),
    "a string whose end is right in 32 bits": plan_of((record(1, TEXT), numbers(HUGE, 6))),
    "a string that no operation uses": plan_of((record(0, TEXT + 24), numbers(STRINGS, 0))),
    "strings without a last NUL": PLAN[:-1] + b"x",
    "a list without its last NUL": plan_of((record(2, LIST), numbers(6, 5))),
    "an operation after EXEC": encode([Op(ops.EXEC, ["/bin/true"], []), Op(ops.UMASK, 0)]),
}


def refused_here(plan: bytes) -> bool:
    """Whether the format in helpers/init/plan.h forbids a Plan: the same rules in Python."""
    magic, count, size = HEADER.unpack_from(plan) if len(plan) >= HEADER.size else (b"", 0, 0)
    if magic != b"RLPLAN01" or not count or not size or len(plan) != record(count) + size:
        return True
    strings = plan[record(count) :]
    for index in range(count):
        code, on_error, alternatives, _, *rest = RECORD.unpack_from(plan, record(index))
        if code not in range(ops.JOIN.code, LAST_CODE + 1) or (code == ops.EXEC.code and index != count - 1):
            return True
        if on_error > ops.ELSE or index + alternatives >= count:
            return True
        for which, (offset, length) in enumerate(zip(rest[6::2], rest[7::2], strict=True)):
            end = offset + length
            if strings[end : end + 1] != b"\0":
                return True
            if (code, which) in LISTS and length and strings[end - 1] != 0:
                return True
    return False


@st.composite
def valid_plans(draw) -> bytes:
    count = draw(st.integers(1, 6))
    plan = []
    for index in range(count):
        kind = ops.EXEC if index == count - 1 and draw(st.booleans()) else draw(KINDS)
        strings = [
            draw(st.lists(TEXTS, max_size=4) if (kind.code, which) in LISTS else TEXTS)
            for which in range(len(kind.strings))
        ]
        alternatives = draw(st.integers(0, count - index - 1))
        arguments = [draw(NUMBERS) for _ in kind.numbers]
        plan.append(Op(kind, *arguments, *strings, on_error=draw(st.integers(0, 2)), alternatives=alternatives))
    return encode(plan)


@st.composite
def damaged_plans(draw) -> bytes:
    plan = bytearray(draw(valid_plans()))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(plan) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                plan[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                plan[place : place + 4] = numbers(draw(st.sampled_from([0, 1, len(plan), 2**31, HUGE - 1, HUGE])))
            case 2:
                del plan[place:]
            case 3:
                plan += draw(st.binary(max_size=RECORD.size))
            case 4:
                plan[place:place] = draw(st.binary(max_size=8))
    return bytes(plan)


@given(plan=valid_plans())
@QUICK
def test_encoded_plan_is_decoded(decoder, plan):
    assert decoder(plan).startswith("accepted")


@given(plan=st.one_of(damaged_plans(), st.binary(max_size=300), st.binary(max_size=300).map(lambda b: PLAN[:16] + b)))
@settings(QUICK, max_examples=1000)
def test_what_was_damaged_is_refused_or_read_within_its_bounds(decoder, plan):
    assert (not decoder(plan).startswith("accepted")) == refused_here(plan)


@pytest.mark.parametrize("plan", MALFORMED.values(), ids=MALFORMED)
def test_malformed_plans_are_refused(decoder, plan):
    assert not decoder(plan).startswith("accepted")


def test_every_byte_of_every_string_is_readable(decoder):
    assert decoder(encode([Op(ops.EXEC, ["ab", "", "c"], ["A=b"])])) == "accepted 4 6"


@pytest.fixture
def executor():
    """Return a function that runs the executor with the bytes of a Plan: (messages, exit status)."""
    if not os.path.exists(spawn.program_path("init")):
        pytest.skip("needs the executor: start the tests with tests/run")
    return run


def run(plan: bytes):
    report, child_report = os.pipe()
    child_reply, reply = os.pipe()
    try:
        pid = spawn.spawn(plan, Descriptors(), report=child_report, reply=child_reply, trace=False)
    finally:
        os.close(child_report)
        os.close(child_reply)
    messages = []
    while select.select([report], [], [], 30)[0] and (message := read_message(report)):
        messages.append(message)
    os.close(report)
    os.close(reply)
    return messages, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_a_refusal(messages, status) -> bool:
    [(kind, index, number, detail)] = messages
    call, _, reason = detail.partition(b"\0")
    return (kind, index, number, call, status) == (FAILED, -1, errno.EINVAL, b"the plan", 1) and len(reason) > 0


@pytest.mark.parametrize("plan", MALFORMED.values(), ids=MALFORMED)
def test_the_executor_refuses_malformed_plans(executor, plan):
    assert is_a_refusal(*executor(plan))


@given(plan=st.one_of(damaged_plans(), st.binary(max_size=300)).filter(refused_here))
@settings(QUICK, max_examples=60)
def test_the_executor_refuses_damaged_plans(executor, plan):
    # no Plan that the rules above accept: the executor would execute it
    assert is_a_refusal(*executor(plan))


def test_a_plan_is_carried_out_to_its_end(executor):
    assert executor(encode([Op(ops.UMASK, 0o22), Op(ops.READY)])) == ([(3, 0, 0, b"")], 0)


def test_a_plan_is_sealed_before_it_is_read(executor):
    """Otherwise somebody could change it after the checks of plan_decode()."""
    plan = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(plan, encode([Op(ops.UMASK, 0o22)]))
    words = ["0", "0", "1", "-1", "-1", "-1", "-1", "-1", "-1", "-1", str(plan)]
    done = subprocess.run([spawn.program_path("init"), *words], pass_fds=[plan], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 1  # a descriptor below 3 belongs to the program
    with pytest.raises(PermissionError):
        os.pwrite(plan, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(plan, 0)
    os.close(plan)


def test_a_program_replaces_the_executor(executor):
    assert executor(encode([Op(ops.EXEC, ["/bin/sh", "-c", "exit 7"], [])])) == ([(EXECUTING, 0, 0, b"")], 7)


@pytest.mark.parametrize(
    "words", [[], ["3"], ["3", "4", "-1", "-1", "-1", "0"], [*"3456789", "10", "11", "12", "13", "14"]]
)
def test_the_executor_called_in_another_way_does_nothing(executor, words):
    assert subprocess.run([spawn.program_path("init"), *words], check=False).returncode == 2


def test_descriptors_that_are_both_the_programs_and_the_protocols_are_refused(executor):
    report, child_report = os.pipe()
    plan = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(plan, encode([Op(ops.READY)]))
    keep = child_report - 2
    words = [str(keep), "0", str(child_report), "-1", "-1", "-1", "-1", "-1", "-1", "-1", str(plan)]
    done = subprocess.run([spawn.program_path("init"), *words], pass_fds=[child_report, plan], check=False)
    os.close(child_report)
    os.close(plan)
    _, index, number, detail = read_message(report)
    os.close(report)
    assert (index, number, done.returncode) == (-1, errno.EINVAL, 1)
    assert b"descriptor" in detail
