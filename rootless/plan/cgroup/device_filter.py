"""Compile linux.resources.devices into an eBPF program: cgroup-v2.rst "Device controller", bpf(2).

The kernel runs the program with a `struct bpf_cgroup_dev_ctx` (linux/bpf.h) whenever a process opens or creates a
device node, and allows the access if the program returns 1. The last matching rule wins, separately for read, write and
mknod. The program therefore checks the rules from the last to the first, and keeps the undecided kinds of access as a
mask in a register.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    Rule = dict[str, Any]

_ACCESS = {"m": 1, "r": 2, "w": 4}
"""BPF_DEVCG_ACC_…"""
_EVERY_ACCESS = 7
_TYPES = {"b": 1, "c": 2}
"""BPF_DEVCG_DEV_…"""

_ALWAYS: tuple[tuple[str, int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    *(("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    *(("c", 5, minor, "rwm") for minor in (0, 1, 2)),
    ("c", 136, None, "rwm"),
)
"""Rules that are always added, as in runc and crun: the default devices, terminals, and mknod of any device.

The runtime must supply the default devices (config-linux.md "Default Devices"), and engines list only additional ones.
mknod lets a container unpack images that contain device nodes; it cannot open a node unless a rule allows the device.
"""

_INSTRUCTION = Struct("=BBhi")
_LITTLE_ENDIAN = Struct("=H").pack(1)[0] == 1
_VERDICT, _WANTED, _TYPE, _MAJOR, _MINOR = 0, 2, 3, 4, 5
_CONTEXT = 1
_LOAD = 0x61  # BPF_LDX | BPF_W | BPF_MEM
_MOVE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_COPY = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_AND = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_EQUAL, _OTHER, _ANY_BIT = 0x16, 0x56, 0x46  # BPF_JMP32 | BPF_J… | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT


class _Code:
    """Instructions under construction. Jumps go forward only: a label is placed after every jump to it."""

    def __init__(self) -> None:
        self._written: list[list[int]] = []
        self._waiting: dict[str, list[int]] = {}

    def add(self, code: int, to: int = 0, value: int = 0, *, source: int = 0, offset: int = 0) -> None:
        registers = to | source << 4 if _LITTLE_ENDIAN else to << 4 | source
        value &= 0xFFFFFFFF
        self._written.append([code, registers, offset, value - (1 << 32 if value >> 31 else 0)])

    def jump(self, code: int, register: int, value: int, label: str) -> None:
        self._waiting.setdefault(label, []).append(len(self._written))
        self.add(code, register, value)

    def label(self, name: str) -> bool:
        """Place a label here; return whether any jump leads to it, because the kernel refuses unreachable code."""
        jumps = self._waiting.pop(name, [])
        for index in jumps:
            self._written[index][2] = len(self._written) - index - 1
        return bool(jumps)

    def give(self, verdict: int) -> None:
        self.add(_MOVE, _VERDICT, verdict)
        self.add(_EXIT)

    def bytes(self) -> bytes:
        return b"".join(_INSTRUCTION.pack(*instruction) for instruction in self._written)


def program(rules: Sequence[Rule]) -> bytes:
    """Return the eBPF program for linux.resources.devices, in native byte order; empty if it would allow everything."""
    code = _Code()
    code.add(_LOAD, _TYPE, source=_CONTEXT)
    code.add(_LOAD, _MAJOR, source=_CONTEXT, offset=4)
    code.add(_LOAD, _MINOR, source=_CONTEXT, offset=8)
    code.add(_COPY, _WANTED, source=_TYPE)
    code.add(_SHIFT, _WANTED, 16)
    code.add(_AND, _TYPE, 0xFFFF)
    otherwise = 0  # a device that no rule names is forbidden
    for number, (allow, conditions, access) in enumerate(_from_the_last(rules)):
        if not conditions and access == _EVERY_ACCESS:
            if allow and number == len(_ALWAYS):
                return b""
            otherwise = allow
            break
        following = f"after {number}"
        for register, value in conditions:
            code.jump(_OTHER, register, value, following)
        if allow:
            code.add(_AND, _WANTED, _EVERY_ACCESS & ~access)
            code.jump(_EQUAL, _WANTED, 0, "allow")
        else:
            code.jump(_ANY_BIT, _WANTED, access, "forbid")
        code.label(following)
    code.give(otherwise)
    for label, verdict in (("allow", 1), ("forbid", 0)):
        if code.label(label):
            code.give(verdict)
    return code.bytes()


def _from_the_last(rules: Sequence[Rule]) -> Iterator[tuple[int, list[tuple[int, int]], int]]:
    """Yield each rule from the last: 1 to allow or 0 to forbid, (register, value) pairs to compare, the access mask."""
    for always in _ALWAYS:
        yield _meaning(True, *always)  # noqa: FBT003
    for rule in reversed(rules):
        yield _meaning(rule["allow"], *(rule.get(name) for name in ("type", "major", "minor", "access")))


def _meaning(
    allow: bool,  # noqa: FBT001
    kind: str | None,
    major: int | None,
    minor: int | None,
    access: str | None,
) -> tuple[int, list[tuple[int, int]], int]:
    conditions = [(_TYPE, _TYPES[kind])] if kind in _TYPES else []
    conditions += [
        (register, number) for register, number in ((_MAJOR, major), (_MINOR, minor)) if number not in (None, -1)
    ]
    return int(allow), conditions, sum(_ACCESS[letter] for letter in set(access or "rwm"))
