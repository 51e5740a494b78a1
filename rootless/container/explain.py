"""`rootless explain`: what would be done with a bundle, and why, in words or as data. Nothing is touched."""

from __future__ import annotations

from rootless.container.create import plan_for
from rootless.linux import CLONE_NEWUSER
from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.network.helpers import command
from rootless.plan.op_text import details, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.bundle.load import Bundle
    from rootless.options import Options
    from rootless.plan.plan import Plan

_CHAPTERS = (
    # the first operation of each, and what it is about
    (ops.ID_MAP, "Copies of what is mounted on the host"),
    (ops.TREE, "Copies of what is mounted on the host"),
    (ops.PROC_WRITE, "Namespaces"),
    (ops.PROC_OPEN, "Namespaces"),
    (ops.NON_DUMPABLE, "Namespaces"),
    (ops.JOIN_EARLY, "Namespaces"),
    (ops.JOIN, "Namespaces"),
    (ops.NEW_USER, "Namespaces"),
    (ops.UNSHARE, "Namespaces"),
    (ops.FORK, "The container process"),
    (ops.PROPAGATION, "Mounts and paths"),
    (ops.RLIMIT, "Rights and limits"),
    (ops.STDIO_OWNER, "Rights and limits"),
    (ops.HOME, "The program"),
    (ops.COMMAND, "The program"),
)


def explain(options: Options) -> str:
    """Return the Plan of a bundle as text, or with --json as data.

    Raises:
        RootlessError: the bundle cannot be run; the error is the one that `run` would give.
    """
    _, bundle, plan, _ = plan_for(options)
    if options.json:
        from rootless.jsontext import render

        return render(_as_data(bundle, plan), 2)
    return "\n".join(_lines(bundle, plan))


def _as_data(bundle: Bundle, plan: Plan) -> dict[str, object]:
    data: dict[str, object] = {"bundle": bundle.directory, "rootfs": bundle.rootfs}
    if plan.maps:
        data["idMaps"] = {
            "source": plan.maps.source,
            "uid": [list(line) for line in plan.maps.uids],
            "gid": [list(line) for line in plan.maps.gids],
            "uidProgram": plan.maps.uid_program,
            "gidProgram": plan.maps.gid_program,
        }
    data["operations"] = [op.as_data() for op in plan.ops]
    if plan.filter:
        data["seccomp"] = plan.filter.summary()
    if plan.hooks:
        data["hooks"] = plan.hooks
    if plan.links:
        data["netDevices"] = {link.name: link.new_name for link in plan.links}
    if plan.group:
        data["resctrl"] = {"group": plan.group.path, "schemata": plan.group.schemata}
    if plan.network:
        data["network"] = plan.network.as_data()
    if plan.cgroup:
        data["cgroup"] = plan.cgroup.as_data()
    data["notes"] = [
        {"kind": note.kind, "where": note.where, "text": note.text} | ({"fix": note.fix} if note.fix else {})
        for note in plan.notes
    ]
    return data


def _lines(bundle: Bundle, plan: Plan) -> Iterator[str]:
    yield f"Bundle {bundle.directory}"
    yield ""
    yield from _id_maps(plan)
    yield from _notes(plan)
    yield from _outside(plan)
    yield "What is done, in this order; in brackets the place in config.json that asks for it:"
    shown = ""
    alternatives = 0
    for number, op in enumerate(plan.ops):
        chapter = next((name for kind, name in _CHAPTERS if kind is op.kind and name != shown), "")
        if chapter and _comes_later(chapter, shown):
            shown = chapter
            yield ""
            yield f"  {chapter}"
        text = sentence(op)
        if details(op):
            text += f" ({details(op)})"
        if op.kind is ops.SECCOMP and plan.filter:
            text += f" ({plan.filter.summary()})"
        if alternatives:
            text = "or, if that is refused: " + text
            alternatives -= 1
        elif op.on_error == ops.SKIP_ABSENT:
            text += ", if it is there"
        if op.on_error == ops.ELSE:
            alternatives = op.alternatives
            if not alternatives:
                text += ", if the kernel lets it"
        yield f"  {number:4}  {text}" + (f"  [{op.where}]" if op.where else "")
    yield from _hooks(plan)


def _outside(plan: Plan) -> Iterator[str]:
    if plan.network:
        yield f"Network: {plan.network}"
        if plan.network.shared:
            yield f"  {plan.network.shared.subnet} and fd00::/64"
        for number, helper in enumerate(plan.network.served_by()):
            yield f"  {'or, if that fails, by' if number else 'served by'} {' '.join(command(helper, plan.network))}"
        if flaws := plan.network.flaws():
            yield f"  slirp4netns: {flaws}"
        yield from (f"  publish {port}" for port in plan.network.ports)
        yield ""
    if plan.cgroup:
        yield f"Before anything else: {plan.cgroup}"
        yield ""
    outside = [(str(link), link.where) for link in plan.links]
    outside += [(str(plan.group), "linux.intelRdt")] if plan.group else []
    if outside:
        yield "From outside, as soon as there are namespaces:"
        yield from (f"  - {text}  [{where}]" for text, where in outside)
        yield ""


def _hooks(plan: Plan) -> Iterator[str]:
    if plan.hooks:
        yield ""
        yield "  Hooks outside the container"
    for kind, hooks in plan.hooks.items():
        yield from (f"        {kind}: run {hook['path']}  [hooks.{kind}[{index}]]" for index, hook in enumerate(hooks))


def _comes_later(chapter: str, shown: str) -> bool:
    order = list(dict.fromkeys(name for _, name in _CHAPTERS))
    return not shown or order.index(chapter) > order.index(shown)


def _id_maps(plan: Plan) -> Iterator[str]:
    if not plan.maps:
        joined = next((op for op in plan.ops if op.kind is ops.JOIN and op.number("namespace") == CLONE_NEWUSER), None)
        if joined:
            yield f"Ids: the container has the ids of the user namespace {joined.string('path')!s}."
        else:
            yield "Ids: the container has the ids of its caller; no user namespace is made."
        yield ""
        return
    yield f"Ids: {plan.maps.source}"
    for name, lines, program in (
        ("uid", plan.maps.uids, plan.maps.uid_program),
        ("gid", plan.maps.gids, plan.maps.gid_program),
    ):
        writer = f"written by {program}" if program else "written by rootless itself"
        yield f"  {name} map, {writer}:"
        for inside, outside, count in lines:
            last = count - 1
            ranges = f"{inside}-{inside + last} is {outside}-{outside + last}" if last else f"{inside} is {outside}"
            yield f"    {name} {ranges} of the host"
    yield ""


def _notes(plan: Plan) -> Iterator[str]:
    for kind, title in ((ADAPTED, "Adapted, to run without root:"), (UNSUPPORTED, "Asked for and not done:")):
        chosen = [note for note in plan.notes if note.kind == kind]
        if chosen:
            yield title
            yield from (f"  - {note.text}" + (f"  [{note.where}]" if note.where else "") for note in chosen)
            yield ""
