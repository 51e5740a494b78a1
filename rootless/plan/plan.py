"""A Plan: every operation that makes a container, in order, and the differences from config.json."""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.context import Note
    from rootless.plan.ops import Kind

HANDS_OVER = (ops.FORK, ops.YIELD, ops.READY, ops.WAIT_START)
"""Operations after which the executor waits for the launcher, or lets it continue."""


class Plan:
    """All decisions about a container or a process.

    Attributes:
        ops: the operations of the launcher and of the executor, in the order in which they run.
        notes: differences from config.json, for people.
    """

    __slots__ = ("notes", "ops")

    def __init__(self, operations: Sequence[Op], notes: Sequence[Note] = ()) -> None:
        self.ops = list(operations)
        self.notes = list(notes)

    def first(self, *kinds: Kind) -> Op | None:
        """Return the first operation of one of these kinds, or None."""
        return next((op for op in self.ops if op.kind in kinds), None)

    @property
    def has_terminal(self) -> bool:
        """Whether the container has a terminal, whose master side the executor sends."""
        return bool(self.first(ops.TERMINAL))

    def load_environment(self, entries: Sequence[str]) -> None:
        """Give the caller's environment to the hooks that inherit it; `explain` does not show it."""
        for op in self.ops:
            if op.kind is ops.HOOK and op.number("environment") == ops.CALLERS:
                path, args, _, about = op.strings
                op.strings = (path, args, entries, about)

    def executor_part(self) -> list[tuple[int, Op]]:
        """Return the executor's operations with their places in the list.

        A YIELD, at place -1, separates two operations with one of the launcher's between them, unless the first hands
        over.
        """
        part: list[tuple[int, Op]] = []
        yields = False
        for place, op in enumerate(self.ops):
            if op.kind.by == ops.LAUNCHER:
                yields = bool(part) and part[-1][1].kind not in HANDS_OVER
                continue
            if yields:
                part.append((-1, Op(ops.YIELD)))
                yields = False
            part.append((place, op))
        return part

    def started(self) -> list[Op]:
        """Return the operations from the start on, without the removal and what follows it."""
        rest = self.after(ops.WAIT_START)
        return rest[: next((index for index, op in enumerate(rest) if op.kind is ops.DELETE), len(rest))]

    def after(self, kind: Kind) -> list[Op]:
        """Return the operations after the one of `kind`; none where there is no such operation."""
        place = next((index + 1 for index, op in enumerate(self.ops) if op.kind is kind), len(self.ops))
        return self.ops[place:]
