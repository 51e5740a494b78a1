"""From a bundle to a container that waits for its start: the verb `create`, and the first half of `run`."""

from __future__ import annotations

import fcntl
import os

from rootless import OCI_VERSION, log
from rootless.bundle.load import load
from rootless.container import store
from rootless.container.lifecycle import CREATED, CREATING, Process, boot_id
from rootless.errors import RootlessError
from rootless.host import facts
from rootless.launch.protocol import Launch
from rootless.launch.seccomp import compiled
from rootless.plan.compile import compile_plan
from rootless.plan.context import UNMET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.bundle.load import Bundle
    from rootless.container.store import Entry
    from rootless.plan.compile import Plan
    from rootless.plan.options import Options


def plan_for(options: Options) -> tuple[Bundle, Plan]:
    """Read the bundle and the host, and compile the Plan. Nothing is changed.

    Raises:
        RootlessError: the bundle is wrong, or cannot be run here.
    """
    store.check_id(options.container)
    bundle = load(options.bundle, options.config)
    plan = compile_plan(bundle, facts.read(), options)
    _check_descriptors(options.preserve_fds)
    return bundle, plan


def prepare(plan: Plan) -> None:
    """Compile what the Plan leaves open, and log where it differs from config.json."""
    for note in plan.notes:
        tell = log.warning if note.kind == UNMET else log.info
        tell(note.text, where=note.where)
    if plan.filter:
        plan.load_filter(compiled(plan.filter, cache_directory()))


def create(options: Options) -> None:
    """Make a container that waits for `start`; its process stays when this one ends."""
    from rootless.container.console import connect

    bundle, plan = plan_for(options)
    console = connect(options.console_socket, plan)
    with store.claim(store.state_root(options.root), options.container) as entry:
        try:
            prepare(plan)
            make(options, bundle, plan, entry, start=entry.listen(), console=console).close()
        except BaseException:
            entry.remove()
            raise


def make(options: Options, bundle: Bundle, plan: Plan, entry: Entry, *, start: int = -1, console: int = -1) -> Launch:
    """Make the container; return when it only waits for its start.

    Args:
        options: what the caller asked.
        bundle: what it is made of.
        plan: how.
        entry: its claimed directory; removed again when anything fails.
        start: the listening start socket, or -1 when the caller will say it through the Launch.
        console: the socket that the terminal is sent over, or -1.
    """
    state = {
        "ociVersion": OCI_VERSION,
        "id": options.container,
        "pid": 0,
        "status": CREATING,
        "startTime": 0,
        "bootId": boot_id(),
        "bundle": bundle.directory,
        "rootfs": bundle.rootfs,
        "created": log.timestamp(),
        "annotations": bundle.config.get("annotations") or {},
        "owner": plan.owner,
        "afterStart": plan.after_start(),
    }

    def note_process(pid: int) -> None:
        process = Process.read(pid)
        state["pid"] = pid
        state["startTime"] = process.start_time if process else 0
        entry.write(state)

    launch = Launch(plan, start=start, console=console, keep=options.preserve_fds)
    launch.until_ready(note_process)
    try:
        state["status"] = CREATED
        entry.write(state)
        if options.pid_file:
            _write_pid_file(options.pid_file, launch.pid)
    except BaseException:
        launch.kill()
        raise
    return launch


def cache_directory() -> str:
    """Return where compiled seccomp filters are kept, or nothing when the caller has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        home = os.environ.get("HOME", "")
        base = f"{home}/.cache" if home.startswith("/") else ""
    return f"{base}/rootless" if base else ""


def _check_descriptors(count: int) -> None:
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


def _write_pid_file(path: str, pid: int) -> None:
    """Write digits only, by a rename: a reader sees all of it or nothing."""
    temporary = f"{os.path.dirname(path) or '.'}/.{os.path.basename(path)}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise RootlessError(
            f"--pid-file: cannot write {path}",
            cause=(error.strerror or "").lower(),
            fix="name a file in a directory that you can write to",
            code="RL-PID-FILE",
        ) from None
