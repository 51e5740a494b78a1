"""What has to be made ready around a Plan, and written down after it, by `create`, `run` and `exec`."""

from __future__ import annotations

from rootless import files, log, paths
from rootless.container.state.store import state_root
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.seccomp_compile import compiled, refuse_unknown
from rootless.plan.context import UNSUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.plan import Plan


def prepare(plan: Plan) -> None:
    """Compile what the Plan leaves open, and log where it differs from config.json."""
    for note in plan.notes:
        tell = log.warning if note.kind == UNSUPPORTED else log.info
        tell(note.text, where=note.where, **({"fix": note.fix} if note.fix else {}))
    load_filter(plan)
    tell_operations(plan)
    plan.load_environment(paths.environment())


def tell_operations(plan: Plan) -> None:
    """Log what is about to be done, for --debug."""
    if log.is_debug():
        from rootless.plan.op_text import sentence

        for op in plan.ops:
            log.debug(sentence(op), **({"where": op.where} if op.where else {}))


def load_filter(plan: Plan) -> None:
    """Compile the seccomp filter, if there is one."""
    if plan.filter:
        if plan.filter.knows_all:
            refuse_unknown(plan.filter)
        plan.load_filter(compiled(plan.filter, cache_directory()))


def cache_directory() -> str:
    """Return where the cache of compiled seccomp filters lies; nothing when the caller has no directory for state."""
    try:
        return state_root("").path  # of all that the user runs, by whatever --root
    except RootlessError:
        return ""


def write_pid_file(path: str, pid: int) -> None:
    """Write digits only; a reader sees all of them or no file."""
    try:
        files.put(path, str(pid).encode(), 0o644)
    except OSError as error:
        raise RootlessError(
            f"--pid-file: cannot write {path}",
            cause=(error.strerror or "").lower(),
            fix=EXHAUSTED.get(error.errno or 0, "name a file in a directory that you can write to"),
            code="RL-PID-FILE",
        ) from None
