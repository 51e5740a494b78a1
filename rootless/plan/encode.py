"""Encode operations for the executor; helpers/init/plan.h draws the layout."""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.ops import Op, Text

_MAGIC = b"RLPLAN01"
_HEADER = Struct("=8sII")
_RECORD = Struct("=HBBI6q8I")
_NUMBERS = 6
_STRINGS = 4
_ABSENT = (0, 0)


def encode(operations: Sequence[Op], magic: bytes = _MAGIC) -> bytes:
    """Return the Plan as bytes, which begin with `magic`. Strings are UTF-8 with surrogate escapes (as os.fsencode)."""
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
    return _HEADER.pack(magic, len(records), len(strings)) + b"".join(records) + bytes(strings)


def _raw(value: Text) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in value)
