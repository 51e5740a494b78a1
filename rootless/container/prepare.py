"""What has to be made ready around a Plan, and written down after it, by `create`, `run` and `exec`."""

from __future__ import annotations

import fcntl

from rootless import files, log
from rootless.container.store import state_root
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.seccomp import compiled, refuse_unknown
from rootless.plan.context import UNMET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.plan import Plan


def prepare(plan: Plan) -> None:
    """Compile what the Plan leaves open, and log where it differs from config.json."""
    for note in plan.notes:
        tell = log.warning if note.kind == UNMET else log.info
        tell(note.text, where=note.where, **({"fix": note.fix} if note.fix else {}))
    load_filter(plan)
    plan.load_environment(paths.environment())


def load_filter(plan: Plan) -> None:
    """Compile the seccomp filter, if there is one."""
    if plan.filter:
        if plan.filter.knows_all:
            refuse_unknown(plan.filter)
        plan.load_filter(compiled(plan.filter, cache_directory()))


def cache_directory() -> str:
    """Return where the cache of compiled seccomp filters lies; nothing when the caller has no directory for state."""
    try:
        return state_root("")  # of all that the user runs, by whatever --root
    except RootlessError:
        return ""


def check_descriptors(count: int) -> None:
    """Refuse to pass on descriptors that are not open. To be called before anything is opened."""
    for fd in range(3, 3 + count):
        try:
            fcntl.fcntl(fd, fcntl.F_SETFD, 0)
        except OSError:
            raise RootlessError(
                f"--preserve-fds {count}",
                cause=f"descriptor {fd} is not open",
                fix="open it before, or ask for fewer",
                code="RL-DESCRIPTORS",
            ) from None


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
