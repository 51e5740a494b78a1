"""The verb `run`: create, start, wait, delete, in one process."""

from __future__ import annotations

from rootless import log, procfs, signals
from rootless.container.create import make, plan_for
from rootless.container.prepare import prepare
from rootless.container.state import store
from rootless.container.state.lifecycle import STOPPED, status
from rootless.container.state.teardown import abandon, destroy, end, readable
from rootless.container.terminal.console import Console
from rootless.errors import RootlessError, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.store import StateRoot
    from rootless.container.terminal.service import Reports
    from rootless.launch.protocol import Launch
    from rootless.options import Options


def run(options: Options) -> int:
    """Create and start a container; unless detached, wait for its program, remove it, and return its exit status."""
    from rootless.container.terminal.relay import catch_signals, prepare_terminal, wait_foreground

    request, bundle, plan, root = plan_for(options)
    console = Console.for_run(request, plan)
    launch = None
    entry = store.claim(root, request.container)
    try:
        prepare(plan)
        launch = make(request, bundle, plan, entry, console=console.passed)
        console.receive()
        if console.master >= 0:
            prepare_terminal(console.master)
        wakeup = -1 if request.detach else catch_signals()  # before there is a program to forward them to
        reports = _start(launch, entry)
        if plan.cgroup and plan.cgroup.frozen:
            from rootless.container.confine import freeze_container

            freeze_container(entry)
    except BaseException:
        console.close()
        if launch:
            _end(launch, root, request.container)
        abandon(entry)
        raise
    try:
        entry.close()
        launch.close()
        if request.detach:
            if reports:
                reports.await_ready(launch.pid)
            _warn_of_logout(launch.pid)
            signals.commit()
            return 0
        return wait_foreground(launch.pid, console, wakeup, reports)
    except BaseException:
        entry.close()
        _end(launch, root, request.container)
        remove_ended(root, request.container)
        raise
    finally:
        console.close()
        if not (request.keep or request.detach):
            remove_ended(root, request.container)


def _warn_of_logout(pid: int) -> None:
    """Tell who leaves a container to itself that it will not stay when they go."""
    from rootless.cgroup import logout

    try:
        found = logout.ends_with_session(procfs.cgroup(pid))
    except OSError:
        return  # nobody can tell just now
    if found:
        reason, fix = found
        log.warning(f"the container ends when you log out: {reason}", fix=fix)


def _start(launch: Launch, entry: ContainerDir) -> Reports | None:
    """Let the program run, and what is to happen around its beginning; if that fails the container is gone."""
    plan = launch.plan
    if not (plan.hooks or plan.listener or plan.notify):
        launch.start()
        return None
    from rootless.container.starting import Starting

    starting = Starting(store.existing_state(entry))
    launch.start(starting.reader)
    starting.run_poststart()
    return starting.reports


def _end(launch: Launch, root: StateRoot, container_id: str) -> None:
    """End the container after a failure, at least its first process; the caller gets the error of that failure."""
    try:
        with store.find(root, container_id, lock=False) as entry:
            state = readable(entry)
            if state:
                end(state)
    except (RootlessError, OSError):
        return
    finally:
        launch.kill()


def remove_ended(root: StateRoot, container_id: str) -> None:
    """Remove what a foreground container leaves, unless somebody else did. The exit status is the program's anyway."""
    try:
        with store.find(root, container_id) as entry:
            found = entry.read()
            if found is None or status(entry, found) == STOPPED:
                destroy(entry, found)
    except (RootlessError, OSError) as error:
        told = error if isinstance(error, RootlessError) else refused(error)
        if told.code != "RL-NOT-FOUND":
            log.warning(f"{told.what}: {told.cause}", fix=f"rootless delete --force {container_id}")
