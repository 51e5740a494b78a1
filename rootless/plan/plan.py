"""A Plan: every operation that makes a container, in order, and the differences from config.json."""

from __future__ import annotations

from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.plan.context import Note
    from rootless.plan.ops import Kind, Op


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

    def after(self, kind: Kind) -> list[Op]:
        """Return the operations after the one of `kind`; none where there is no such operation."""
        place = next((index + 1 for index, op in enumerate(self.ops) if op.kind is kind), len(self.ops))
        return self.ops[place:]
