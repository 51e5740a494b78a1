"""The verb `run`: create, start, wait, delete, in one process."""

from __future__ import annotations

import posix

from rootless import files, log, paths, procfs, signals
from rootless.container.create import CACHED, may_be_cached, plan_for
from rootless.container.operations.container_run import ContainerRun
from rootless.container.operations.teardown import end, end_quietly, give_up, remove_ended
from rootless.container.request import cache_key_of
from rootless.container.terminal.console import Console
from rootless.errors import RootlessError
from rootless.launch.protocol import Descriptors
from rootless.lazy import lazy
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.cgroup.logout import ends_with_session
    from rootless.container.cached_plan import keep as cache_plan
    from rootless.container.state.processes import is_process_1
    from rootless.container.terminal.attend import become_attend, removal
    from rootless.container.terminal.relay import Deadline, Relay, catch_signals, prepare_terminal, wait_foreground
    from rootless.options import Options
    from rootless.plan.request import Request
else:
    ends_with_session = lazy("rootless.cgroup.logout", "ends_with_session")
    cache_plan = lazy("rootless.container.cached_plan", "keep")
    is_process_1 = lazy("rootless.container.state.processes", "is_process_1")
    become_attend = lazy("rootless.container.terminal.attend", "become_attend")
    removal = lazy("rootless.container.terminal.attend", "removal")
    Deadline = lazy("rootless.container.terminal.relay", "Deadline")
    catch_signals = lazy("rootless.container.terminal.relay", "catch_signals")
    prepare_terminal = lazy("rootless.container.terminal.relay", "prepare_terminal")
    wait_foreground = lazy("rootless.container.terminal.relay", "wait_foreground")


def run(options: Options) -> int:
    """Create and start a container; unless detached, wait for its program, remove it, and return its exit status."""
    try:
        return _run(options)
    except Exception as error:
        if not options.plan or isinstance(error, (RootlessError, OSError, MemoryError)):
            raise
        raise RootlessError(
            f"--plan {options.plan}",
            cause=f"its operations do not fit together ({type(error).__name__}: {error})",
            fix="keep the order, and each operation that another one needs",
            code="RL-PLAN",
        ) from error


def _run(options: Options) -> int:
    cache_key = cache_key_of(options, CACHED)
    if cache_key:
        paths.note_reads()
    request, plan, root = plan_for(options)
    reads = paths.taken_reads()
    console = Console.for_run(plan)
    made = ContainerRun(plan, root, Descriptors(keep=request.preserve_fds, console=console.passed))
    try:
        made.until(ops.WAIT_START)
        said = log.said()
        console.receive()
        if console.master >= 0:
            prepare_terminal(console.master)
        wakeup = -1 if request.detach else catch_signals()  # before there is a program to forward them to
        made.until(ops.DELETE)
    except BaseException as error:
        console.close()
        give_up(made, error)
        raise
    try:
        if request.detach:
            reads += _await_ready(made)
        if cache_key and not made.reports and may_be_cached(plan, reads):
            cache_plan(made, cache_key, reads, said, leaves=request.detach)
        made.entry.close()
        made.close()
        if request.detach:
            signals.commit()
            if request.log_size:
                _print_id(request.container)
            return 0
        return _wait(made, console, wakeup, request)
    except BaseException:
        made.entry.close()
        end_quietly(made.state)
        made.kill()
        remove_ended(root, request.container)
        raise
    finally:
        console.close()
        files.close_fds(made, "exit_fd")
        if not (request.keep or request.detach):
            remove_ended(root, request.container)


def _wait(made: ContainerRun, console: Console, wakeup: int, request: Request) -> int:
    """Wait for the program in the foreground, and note its exit status for `wait`."""
    deadline = Deadline(request.timeout, lambda: end(made.state)) if request.timeout else None

    def hand_over(process: int, relay: Relay | None) -> None:
        become_attend(
            process,
            relay,
            pid=made.pid,
            signals=wakeup,
            deadline=deadline,
            exit_fd=made.exit_fd,
            # other members may enter the namespaces through this process
            keep=(*made.group.values(), *made.locks),
            after=() if request.keep else removal(made.root.path, request.container),
        )

    # only Python forwards reports, and kills a container without a pid namespace
    stays = made.reports or (deadline and not is_process_1(made.pid))
    status = wait_foreground(
        made.pid,
        console,
        wakeup,
        made.reports,
        deadline,
        hand_over=None if stays else hand_over,
        comes_back=bool(made.state.after_delete or made.image or made.network),
    )
    if made.exit_fd >= 0:
        posix.write(made.exit_fd, f"{status} {log.timestamp()}\n".encode())
    return status


def _print_id(container_id: str) -> None:
    """Print the id of a detached container, as podman does; an unread one is no error."""
    try:
        posix.write(1, f"{container_id}\n".encode())
    except OSError:
        return


def _await_ready(made: ContainerRun) -> list[tuple[object, ...]]:
    """Wait until a detached container is ready, and warn if it ends with the caller's session.

    Returns:
        The notes of what was read for the warning.
    """
    if made.reports:
        made.entry.close()  # others may use the container meanwhile
        made.reports.await_ready(made.pid)
    try:
        cgroup = procfs.cgroup(made.pid)
        paths.note_reads()
        procfs.cgroup("self")  # where the container is, or below it: noted
        found = ends_with_session(cgroup)
    except OSError:
        return [(paths.UNKNOWN, "logind")]  # it cannot be asked now
    if found:
        reason, fix = found
        log.warning(f"the container ends when you log out: {reason}", fix=fix)
    return paths.taken_reads()
