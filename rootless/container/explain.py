"""`rootless explain`: the Plan of a bundle in the order in which it runs, in words or as data."""

from __future__ import annotations

from rootless.container.create import plan_for
from rootless.linux import CLONE_NEWUSER
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.op_text import details, further_lines, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.options import Options
    from rootless.plan.ops import Op
    from rootless.plan.plan import Plan

_CHAPTERS = {
    # by their first operation
    ops.CLAIM: "On the host",
    ops.SPAWN: "Namespaces",
    ops.RECORD: "The container process",
    ops.BECOME: "The container process",
    ops.PROPAGATION: "Mounts and paths",
    ops.STDIO_OWNER: "Rights and limits",
    ops.COMMAND: "The program",
    ops.DELETE: "Afterwards",
}
_TITLES = {ADAPTED: "Adapted to this caller and host:", UNSUPPORTED: "Asked for and not done:"}


def explain(options: Options) -> str:
    """Return the Plan of a bundle as text, or with --json as data that `run --plan` takes.

    Raises:
        RootlessError: the bundle cannot be run; the error is the one that `run` would give.
    """
    request, plan, _ = plan_for(options)
    if options.json:
        from rootless.container.replay import plan_as_data
        from rootless.jsontext import render

        return render(plan_as_data(plan, request.container), 2)
    return "\n".join(lines(plan))


def lines(plan: Plan) -> Iterator[str]:
    """Yield what `explain` prints of a Plan."""
    record = plan.first(ops.RECORD)
    if record:
        yield f"Bundle {record.value('about')['bundle']}"
        yield ""
    for kind, title in _TITLES.items():
        chosen = [note for note in plan.notes if note.kind == kind]
        if chosen:
            yield title
            yield from (f"  - {note.text}" + (f"  [{note.where}]" if note.where else "") for note in chosen)
            yield ""
    yield _ids(plan)
    yield ""
    yield "What is done, in this order; in brackets the place in config.json that asks for it:"
    chapters = dict(_CHAPTERS)
    alternatives = 0
    for number, op in enumerate(plan.ops):
        chapter = chapters.pop(op.kind, "")
        if chapter:
            chapters = {kind: title for kind, title in chapters.items() if title != chapter}
            yield ""
            yield f"  {chapter}"
        text = _line(op)
        if alternatives:
            text = "or, if that is refused: " + text
            alternatives -= 1
        if op.on_error == ops.ELSE:
            alternatives = op.alternatives
        who = " " if op.kind.by == ops.EXECUTOR else "*"
        yield f"  {number:4} {who} {text}" + (f"  [{op.where}]" if op.where else "")
        yield from (f"           {line}" for line in further_lines(op))
    yield ""
    yield "  * done by the launcher on the host, the others by the executor"


def _line(op: Op) -> str:
    text = sentence(op)
    more = details(op)
    if more:
        text += f" ({more})"
    if op.on_error == ops.SKIP_ABSENT:
        text += ", if it is there"
    elif op.on_error == ops.IGNORE or (op.on_error == ops.ELSE and not op.alternatives):
        text += ", if the kernel lets it"
    return text


def _ids(plan: Plan) -> str:
    """Return whose IDs the container has."""
    maps = plan.first(ops.BEGIN_ID_MAPS, ops.ALLOCATE_IDS, ops.ENTER_GROUP)
    if maps and maps.value("maps"):
        return f"IDs: {maps.value('maps')}"
    joined = next((op for op in plan.ops if op.kind is ops.JOIN and op.number("namespace") == CLONE_NEWUSER), None)
    if joined:
        return f"IDs: the container has the IDs of the user namespace {joined.string('path')!s}."
    return "IDs: the container has the IDs of its caller; no user namespace is made."
