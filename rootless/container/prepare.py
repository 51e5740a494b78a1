"""What has to be made ready around a Plan, and written down after it, by `create`, `run` and `exec`."""

from __future__ import annotations

import fcntl
import posix

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


def preserve_descriptors(count: int) -> int:
    """Have those of the descriptors from 3 on that the caller has opened passed on, and return how many to keep.

    Those that the caller has not opened stay holes, as with runc and crun: podman says only where the last one is. What
    this program opens from now on must not get their numbers, because the executor keeps what has one of them.

    Raises:
        RootlessError: none of them is open.
    """
    if not count:
        return 0
    wanted = range(3, 3 + count)
    given = [fd for fd in map(int, posix.listdir("/proc/self/fd")) if fd in wanted and is_inherited(fd)]
    if not given:
        raise RootlessError(
            f"--preserve-fds {count}",
            cause="descriptor 3 is not open" if count == 1 else f"descriptors 3 to {2 + count} are not open",
            fix="open one of them before, or leave the flag out",
            code="RL-DESCRIPTORS",
        )
    last = max(given)
    for fd in given:
        fcntl.fcntl(fd, fcntl.F_SETFD, 0)
    for hole in {*range(3, last)}.difference(given):
        fcntl.fcntl(last, fcntl.F_DUPFD_CLOEXEC, hole)
    return last - 2


def is_inherited(fd: int) -> bool:
    """Whether a descriptor is open and comes from the caller: what this program opens itself is closed by execve."""
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:
        return False


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
