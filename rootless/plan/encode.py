"""Encode operations for the executor; helpers/init/plan.h draws the layout."""

from __future__ import annotations

from _struct import Struct

from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.ops import Text

HANDS_OVER = (ops.FORK, ops.YIELD, ops.READY, ops.WAIT_START)
"""Operations after which the executor waits for the launcher, or lets it continue."""
_MAGIC = b"RLPLAN01"
_HEADER = Struct("=8sII")
_RECORD = Struct("=HBBI6q8I")
_NUMBERS = 6
_STRINGS = 4
_ABSENT = (0, 0)


def encode(operations: Sequence[Op]) -> bytes:
    """Return the Plan as bytes. Strings are UTF-8 with surrogate escapes (as os.fsencode)."""
    strings = bytearray(b"\0")
    records = []
    for op in operations:
        places: tuple[int, ...] = ()
        for value in op.strings:
            raw = _raw(value)
            places += (len(strings), len(raw))
            strings += raw
            strings.append(0)
        records.append(
            _RECORD.pack(
                op.kind.code,
                op.on_error,
                op.alternatives,
                0,
                *op.numbers,
                *(0,) * (_NUMBERS - len(op.numbers)),
                *places,
                *_ABSENT * (_STRINGS - len(op.strings)),
            )
        )
    return _HEADER.pack(_MAGIC, len(records), len(strings)) + b"".join(records) + bytes(strings)


def _raw(value: Text) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in value)


def executor_part(operations: Sequence[Op]) -> list[tuple[int, Op]]:
    """Return the executor's operations with their places in the list.

    A YIELD, at place -1, separates two operations with one of the launcher's between them, unless the first hands over.
    """
    part: list[tuple[int, Op]] = []
    yields = False
    for place, op in enumerate(operations):
        if op.kind.by == ops.LAUNCHER:
            yields = bool(part) and part[-1][1].kind not in HANDS_OVER
            continue
        if yields:
            part.append((-1, Op(ops.YIELD)))
            yields = False
        part.append((place, op))
    return part
