"""The verb `exec`: another process in a running container."""

from __future__ import annotations

import errno

from rootless import log, paths, signals
from rootless.bundle.load import Bundle
from rootless.container.operations.container_run import ContainerRun
from rootless.container.request import cache_key_of, exec_request, preserve_descriptors
from rootless.container.state import store
from rootless.container.state.lifecycle import PAUSED, STOPPED, allow, status
from rootless.container.state.processes import has_ended
from rootless.container.state.root import state_root
from rootless.container.terminal.console import Console
from rootless.errors import RootlessError
from rootless.host import facts, running
from rootless.launch.protocol import Descriptors
from rootless.lazy import lazy
from rootless.plan import ops
from rootless.plan.context import UNSUPPORTED
from rootless.plan.exec_plan import compile_exec
from rootless.plan.process.exec_object import flags_by_place, names_something, process_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.bundle.check import check_process
    from rootless.container.cached_plan import keep_exec as cache_plan
    from rootless.container.edits.names import look_up
    from rootless.container.operations.cgroup import join as join_cgroup
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.container.terminal.attend import become_attend
    from rootless.container.terminal.relay import Relay, catch_signals, prepare_terminal, wait_foreground
    from rootless.jsontext import parse
    from rootless.options import Options
    from rootless.plan.plan import Plan
    from rootless.plan.request import Request
else:
    check_process = lazy("rootless.bundle.check", "check_process")
    cache_plan = lazy("rootless.container.cached_plan", "keep_exec")
    look_up = lazy("rootless.container.edits.names", "look_up")
    join_cgroup = lazy("rootless.container.operations.cgroup", "join")
    become_attend = lazy("rootless.container.terminal.attend", "become_attend")
    catch_signals = lazy("rootless.container.terminal.relay", "catch_signals")
    prepare_terminal = lazy("rootless.container.terminal.relay", "prepare_terminal")
    wait_foreground = lazy("rootless.container.terminal.relay", "wait_foreground")
    parse = lazy("rootless.jsontext", "parse")

_PROCESS = "process."
_CACHED = {
    "args", "cgroup_manager", "container", "cwd", "debug", "env", "log_format", "log_level", "root", "systemd_cgroup",
    "tty", "user", "verb",
}  # fmt: skip
"""The options of commands whose Plans may be cached."""


def execute(options: Options) -> int:
    """Run a command in a container; unless detached, wait for it and return its exit status."""
    cache_key = "" if names_something(options) else cache_key_of(options, _CACHED)
    preserved = preserve_descriptors(options.preserve_fds)
    root = state_root(options.root)
    with store.find(root, options.container, lock=False) as entry:
        state = store.existing_state(entry)
        now = status(entry, state)
        if now != PAUSED or not options.ignore_paused:
            allow("exec", entry.container_id, now)
        first = state.open_process()
        if first < 0:
            allow("exec", entry.container_id, STOPPED)
        try:
            if cache_key:
                paths.note_reads()
                state = store.existing_state(entry)
            request = exec_request(options, state, preserved)
            plan = _plan(options, request, state, entry.read_config())
            reads = paths.taken_reads()
            return _run(request, plan, first, entry, state, cached=(cache_key, reads))
        except RootlessError as error:
            if has_ended(first):
                allow("exec", entry.container_id, STOPPED)
            raise _placed(error, options) from None


def _plan(options: Options, request: Request, state: State, config: dict[str, Any]) -> Plan:
    """Compile the Plan of the caller's request, and log its differences from the request."""
    own = config.get("process") or {}
    uid, gid = state.user
    own["user"] = (own.get("user") or {}) | {"uid": uid, "gid": gid}  # --userns may have chosen them
    found = look_up(options, f"/proc/{state.pid}/root") if names_something(options) else None
    config["process"] = process_object(own, _read(options.process) if options.process else None, options, found)
    given = flags_by_place(options)
    if given:
        check_process(config["process"])
    bundle = Bundle(state.bundle, config)
    plan = compile_exec(bundle, facts.read(subordinate=False), request, running.read(state.pid))
    for note in plan.notes:
        # create has already reported the differences of the container's own process
        asked = options.process or note.where.startswith(tuple(given))
        report = log.warning if note.kind == UNSUPPORTED and asked else log.info
        report(note.text, where=note.where)
    return plan


def _run(
    request: Request,
    plan: Plan,
    first: int,
    entry: ContainerDir,
    state: State,
    *,
    cached: tuple[str, list[tuple[object, ...]]],
) -> int:
    """Run the Plan in the container whose first process is behind the pidfd `first`; return the exit status.

    `cached` has the key by which the front door will find the Plan, or an empty text, and what planning has read.
    """
    cgroup = join_cgroup(state, request.cgroup) if state.cgroup or request.cgroup else None
    console = Console.for_run(plan)

    def begin(fd: int) -> ContainerRun:
        keep = request.preserve_fds
        given = Descriptors(console=console.passed, process=first, cgroup=fd, keep=keep)
        run = ContainerRun(plan, entry.root, given)
        run.entry, run.state = entry, state
        run.until_or_kill(ops.WAIT_START)
        return run

    try:
        try:
            run = begin(cgroup.fd if cgroup else -1)
        except RootlessError as error:
            if not cgroup or request.cgroup or not _is_out_of_reach(error):
                raise
            log.warning(
                f"the process stays in the caller's cgroup: it may not move into {cgroup.path}",
                fix="call exec from where the container was created, if the container's limits are to hold",
            )
            run = begin(-1)
        try:
            console.receive()
            if console.master >= 0:
                prepare_terminal(console.master)
            wakeup = -1 if request.detach else catch_signals()  # before there is a program to forward them to
            said = log.said()
            run.until()
            if request.detach:
                signals.commit()
        except BaseException:
            run.kill()
            raise
        if cached[0]:
            cache_plan(run, *cached, said)
        run.close()
        return 0 if request.detach else _wait_foreground(run, console, wakeup)
    finally:
        console.close()
        if cgroup:
            cgroup.close()


def _is_out_of_reach(error: RootlessError) -> bool:
    """Whether the caller may not put a process into a cgroup from its own (cgroup-v2.rst, "Delegation Containment")."""
    return error.code == "RL-FORK" and error.number == errno.EACCES


def _wait_foreground(run: ContainerRun, console: Console, wakeup: int) -> int:
    """Stay until the process ends; one that cannot be waited for is ended."""

    def hand_over(process: int, relay: Relay | None) -> None:
        become_attend(process, relay, pid=run.pid, signals=wakeup)

    try:
        return wait_foreground(run.pid, console, wakeup, hand_over=hand_over)
    except BaseException:
        run.kill()
        raise


def _read(path: str) -> dict[str, Any]:
    """Return the process object in a file."""
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
    """Let the error name the flag, or the place in the file, that the caller has to change."""
    for place, flag in flags_by_place(options).items():
        if error.where.startswith(place):
            error.where = ""
            error.what = f"{flag}: {error.what}" if flag else error.what
            return error
    if options.process and error.where.startswith(_PROCESS):
        error.document = options.process
        error.where = error.where.removeprefix(_PROCESS)
    return error
