"""What --debug says of the operations of a Plan as they run: their numbers, sentences, durations and results."""

from __future__ import annotations

import posix
from sys import byteorder
from time import monotonic

from rootless import log
from rootless.plan import ops
from rootless.plan.op_text import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.plan.ops import Kind, Op


def trace_operation(position: int, op: Op, run: Callable[[], None]) -> None:
    """Run an operation of the launcher, and trace it."""
    begin = monotonic()
    outcome = "failed"
    try:
        run()
        outcome = "done"
    finally:
        _trace(position, op, (monotonic() - begin) * 1e6, outcome)


def trace_progress(sent: Sequence[tuple[int, Op]], index: int, number: int, detail: bytes) -> None:
    """Trace an operation of the executor from its message: errno, or 0, and the duration in microseconds."""
    if 0 <= index < len(sent):
        position, op = sent[index]
        if op.kind is ops.FORK or position < 0:
            return  # its end is after the launcher's turn
        outcome = posix.strerror(number).lower() if number else "done"
        _trace(position, op, int.from_bytes(detail, byteorder), outcome)


def trace_kind(sent: Sequence[tuple[int, Op]], kind: Kind, microseconds: float) -> None:
    """Trace the operation of a kind that the executor does not report.

    Of FORK the first operations of the first stage are in the time. After EXEC the executor has become the program.
    """
    for position, op in sent:
        if op.kind is kind:
            _trace(position, op, microseconds, "done")
            return


def _trace(position: int, op: Op, microseconds: float, outcome: str) -> None:
    place = f"{position:4}" if position >= 0 else "    "
    where = {"where": op.where} if op.where else {}
    log.debug(f"{place}  {sentence(op)}: {outcome}, {microseconds / 1000:.2f} ms", **where)
