"""From a bundle to a container that waits for its start: the verb `create`, and the first half of `run`."""

from __future__ import annotations

import posix
from _struct import Struct

from rootless import log, signals
from rootless.bundle.load import load
from rootless.container.outside import Outside
from rootless.container.prepare import prepare, write_pid_file
from rootless.container.request import request_for, resolve_network
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATED, CREATING
from rootless.container.state.state import AfterStart, State
from rootless.errors import RootlessError, place
from rootless.host import facts
from rootless.launch.protocol import Launch
from rootless.plan.compile import compile_plan
from rootless.procfs import Process, boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.bundle.load import Bundle
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.store import StateRoot
    from rootless.launch.scm_rights import PidfdReceiver
    from rootless.options import Options
    from rootless.plan.plan import Plan
    from rootless.plan.request import Request


_PIDFD_RECEIVER = "run.oci.pidfd_receiver"
"""Annotation: what --pidfd-socket says (crun)."""


def plan_for(options: Options) -> tuple[Request, Bundle, Plan, StateRoot]:
    """Read the bundle and the host, and compile the Plan; open the state directory. Nothing is changed.

    Raises:
        RootlessError: the bundle is wrong, or cannot be run here.
    """
    request = request_for(options)
    bundle = load(request.bundle, request.config)
    root = store.state_root(options.root)
    resolve_network(request, root)
    return request, bundle, compile_plan(bundle, facts.read(), request), root


def create(options: Options) -> None:
    """Make a container that waits for `start`; its process stays when this one ends."""
    from rootless.container.terminal.console import connect

    request, bundle, plan, root = plan_for(options)
    console = connect(request.console_socket, plan)
    launch = None
    start = -1
    entry = store.claim(root, request.container)
    try:
        prepare(plan)
        start = entry.listen()
        launch = make(request, bundle, plan, entry, start=start, console=console)
        if plan.cgroup and plan.cgroup.frozen:
            from rootless.container.confine import freeze_container

            freeze_container(entry)
        launch.close()
        signals.commit()
    except BaseException:
        if start >= 0:
            posix.close(start)  # descriptors may have run out, and what follows needs one
        from rootless.container.state.teardown import abandon

        if launch:
            launch.kill()
        abandon(entry)
        raise
    finally:
        entry.close()


def make(
    request: Request, bundle: Bundle, plan: Plan, entry: ContainerDir, *, start: int = -1, console: int = -1
) -> Launch:
    """Make the container; return when it only waits for its start.

    Args:
        request: what the caller asked.
        bundle: what it is made of.
        plan: how.
        entry: its claimed directory; removed again when anything fails.
        start: the listening start socket, or -1 when the caller will say it through the Launch.
        console: the socket that the terminal is sent over, or -1.
    """
    state = first_state(request, bundle, plan)
    outside = Outside(plan, entry, state)

    def note_process(pid: int) -> None:
        process = Process.read(pid)
        state.pid = pid
        state.start_time = process.start_time if process else 0
        if launch.namespaces:
            state.made = _made(plan, launch.namespaces)
        entry.write_config(bundle.text)
        entry.write(state)
        outside.enter(pid)

    pidfd_socket = request.pidfd_socket or state.annotations.get(_PIDFD_RECEIVER)
    where = "" if request.pidfd_socket else place("annotations", _PIDFD_RECEIVER)
    receiver = _pidfd_receiver(pidfd_socket, where) if pidfd_socket else None

    def run_hooks() -> None:
        outside.before_hooks()
        _run_hooks(plan, state)

    with_descriptors = bool(outside.reader)
    launch = Launch(
        plan,
        start=start,
        console=console,
        cgroup=outside.cgroup,
        keep=request.preserve_fds,
        descriptors=with_descriptors,
    )
    try:
        launch.until_ready(note_process, run_hooks, outside.reader)
        outside.finish()
        if receiver:
            receiver.send(launch.pid, b"standard")
        state.status = CREATED
        entry.write(state)
        if request.pid_file:
            write_pid_file(request.pid_file, launch.pid)
    except BaseException as error:
        if isinstance(error, RootlessError) and error.code == "RL-INIT":
            outside.blame(error)
        launch.kill()
        outside.abort()
        raise
    return launch


def _run_hooks(plan: Plan, state: State) -> None:
    from rootless.launch import run_hooks

    for kind in ("prestart", "createRuntime"):
        run_hooks.run(kind, plan.hooks.get(kind, ()), state.document(CREATING))


def _made(plan: Plan, numbers: bytes) -> dict[str, int]:
    """Return the namespaces that were made for the container, by kind, as state.json notes them for members.py."""
    kinds = plan.identifying
    return dict(zip(kinds, Struct(f"={len(kinds)}Q").unpack(numbers), strict=True))


def first_state(request: Request, bundle: Bundle, plan: Plan) -> State:
    """Return the state of a container before it has a process."""
    state = State(request.container)
    state.status = CREATING
    state.boot_id = boot_id()
    state.bundle = bundle.directory
    state.rootfs = bundle.rootfs
    state.created = log.timestamp()
    state.annotations = bundle.config.get("annotations") or {}
    state.owner = plan.owner
    state.after_start = AfterStart(*plan.after_start())
    state.user = list(plan.user)
    state.keyring = not request.no_new_keyring
    state.keyring_name = plan.keyring
    state.hooks = {kind: plan.hooks[kind] for kind in ("poststart", "poststop") if kind in plan.hooks}
    state.listener = plan.listener
    state.notify = plan.notify
    return state


def _pidfd_receiver(path: str, where: str) -> PidfdReceiver:
    from rootless.launch.scm_rights import PidfdReceiver

    return PidfdReceiver(path, where)
