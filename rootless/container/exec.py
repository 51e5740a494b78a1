"""The verb `exec`: another process in a container that runs."""

from __future__ import annotations

import errno
import select

from rootless import log, signals
from rootless.bundle.load import Bundle
from rootless.container.prepare import load_filter, tell_operations, write_pid_file
from rootless.container.request import exec_request, preserve_descriptors
from rootless.container.state import store
from rootless.container.state.lifecycle import PAUSED, RUNNING, STOPPED, allow, open_process, status
from rootless.container.terminal.console import Console
from rootless.errors import RootlessError
from rootless.host import facts, running
from rootless.launch.protocol import Launch
from rootless.plan.context import UNSUPPORTED
from rootless.plan.exec_plan import compile_exec
from rootless.plan.process.exec_object import process_object, said_by_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.cgroup.group import Group
    from rootless.container.state.state import State
    from rootless.launch.scm_rights import PidfdReceiver
    from rootless.launch.seccomp_listener import Listener
    from rootless.options import Options
    from rootless.plan.plan import Plan
    from rootless.plan.request import Request

_PROCESS = "process."


def execute(options: Options) -> int:
    """Run a command in a container; unless detached, wait for it and return its exit status."""
    preserved = preserve_descriptors(options.preserve_fds)
    with store.find(store.state_root(options.root), options.container, lock=False) as entry:
        state = store.existing_state(entry)
        now = status(entry, state)
        if now != PAUSED or not options.ignore_paused:
            allow("exec", entry.container_id, now)
        first = open_process(state)
        if first < 0:
            allow("exec", entry.container_id, STOPPED)
        try:
            request = exec_request(options, state, preserved)
            plan = _plan(options, request, state, entry.read_config())
            return _run(request, plan, first, state)
        except RootlessError as error:
            if _has_ended(first):
                allow("exec", entry.container_id, STOPPED)
            raise _placed(error, options) from None


def _plan(options: Options, request: Request, state: State, config: dict[str, Any]) -> Plan:
    """Compile the Plan for what the caller asked, and log where it differs from that."""
    own = config.get("process") or {}
    uid, gid = state.user
    own["user"] = (own.get("user") or {}) | {"uid": uid, "gid": gid}  # --userns may have chosen them
    config["process"] = process_object(own, _read(options.process) if options.process else None, options)
    said = said_by_flags(options)
    if said:
        from rootless.bundle.check import check_process

        check_process(config["process"])
    bundle = Bundle(state.bundle, config)
    plan = compile_exec(bundle, facts.read(subordinate=False), request, running.read(state.pid))
    for note in plan.notes:
        # create has said already what comes from the container's own process
        asked = options.process or note.where.startswith(tuple(said))
        tell = log.warning if note.kind == UNSUPPORTED and asked else log.info
        tell(note.text, where=note.where)
    load_filter(plan)
    tell_operations(plan)
    return plan


def _run(request: Request, plan: Plan, first: int, state: State) -> int:
    """Carry out the Plan.

    Args:
        request: what the caller asked.
        plan: how.
        first: a pidfd of the container's first process.
        state: the container's.
    """
    from rootless.container.terminal.relay import catch_signals, prepare_terminal

    receiver = _pidfd_receiver(request.pidfd_socket) if request.pidfd_socket else None
    cgroup = _cgroup(request, state) if state.cgroup or request.cgroup else None
    console = Console.for_run(request, plan)
    try:
        launch = _begin(request, plan, first, console, cgroup)
        try:
            if _has_ended(first):
                # the process that ended the container may not have seen this one
                allow("exec", request.container, STOPPED)
            if receiver:
                receiver.send(launch.pid, b"setns")
            if request.pid_file:
                write_pid_file(request.pid_file, launch.pid)
            console.receive()
            if console.master >= 0:
                prepare_terminal(console.master)
            listener = _listener(plan, state, launch.pid) if plan.listener else None
            wakeup = -1 if request.detach else catch_signals()  # before there is a program to forward them to
            launch.start(listener)
            if request.detach:
                signals.commit()
        except BaseException:
            launch.kill()
            raise
        launch.close()
        return 0 if request.detach else _wait_foreground(launch, console, wakeup)
    finally:
        console.close()
        if cgroup:
            cgroup.close()


def _begin(request: Request, plan: Plan, first: int, console: Console, cgroup: Group | None) -> Launch:
    """Return the process when only its program is missing; in the caller's cgroup where it may not leave that.

    Raises:
        RootlessError: it cannot be made.
    """

    def note_process(pid: int) -> None:
        if plan.group:
            from rootless.launch import join_resctrl

            join_resctrl.enter_existing(plan.group, pid)

    def begin(fd: int) -> Launch:
        launch = Launch(plan, console=console.passed, process=first, cgroup=fd, keep=request.preserve_fds)
        launch.until_ready(note_process)
        return launch

    try:
        return begin(cgroup.fd if cgroup else -1)
    except RootlessError as error:
        if not cgroup or request.cgroup or not _is_out_of_reach(error):
            raise
        log.warning(
            f"the process stays in the caller's cgroup: it may not move into {cgroup.path}",
            fix="call exec from where the container was created, if the container's limits are to hold",
        )
    return begin(-1)


def _is_out_of_reach(error: RootlessError) -> bool:
    """Whether the caller may not put a process into a cgroup from its own (cgroup-v2.rst, "Delegation Containment")."""
    return error.code == "RL-FORK" and error.number == errno.EACCES


def _wait_foreground(launch: Launch, console: Console, wakeup: int) -> int:
    """Stay until the process ends; one that cannot be waited for is ended."""
    from rootless.container.terminal.relay import wait_foreground

    try:
        return wait_foreground(launch.pid, console, wakeup)
    except BaseException:
        launch.kill()
        raise


def _cgroup(request: Request, state: State) -> Group | None:
    from rootless.container.confine import join

    return join(state, request.cgroup)


def _pidfd_receiver(path: str) -> PidfdReceiver:
    from rootless.launch.scm_rights import PidfdReceiver

    return PidfdReceiver(path)


def _listener(plan: Plan, state: State, pid: int) -> Listener:
    from rootless.launch.seccomp_listener import Listener

    return Listener(plan.listener, state.document(RUNNING), pid=pid)


def _has_ended(process: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _read(path: str) -> dict[str, Any]:
    """Return the process object in a file."""
    from rootless.bundle.check import check_process
    from rootless.jsontext import parse

    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read()
    except OSError as error:
        raise RootlessError(
            f"--process: cannot read {path}",
            cause=(error.strerror or "").lower(),
            fix="name a file that holds the process object of a config.json",
            code="RL-PROCESS",
        ) from None
    process = parse(text, path)
    if not isinstance(process, dict):
        raise RootlessError(
            f"--process: cannot use {path}",
            cause="it does not hold a JSON object",
            fix="write what a config.json has as process",
            code="RL-CONFIG",
        )
    check_process(process)
    return process


def _placed(error: RootlessError, options: Options) -> RootlessError:
    """Let the error name the place where the caller wrote what is wrong."""
    for place, flag in said_by_flags(options).items():
        if error.where.startswith(place):
            error.where = ""
            error.what = f"{flag}: {error.what}" if flag else error.what
            return error
    if options.process and error.where.startswith(_PROCESS):
        error.document = options.process
        error.where = error.where.removeprefix(_PROCESS)
    return error
