"""Launcher operations that claim a container's directory, keep its state there, and report to the caller."""

from __future__ import annotations

import posix
from _struct import Struct

from rootless import files, jsontext, log
from rootless.container.operations import undo
from rootless.container.operations.status_record import status_record
from rootless.container.state import store
from rootless.container.state.directory import REQUEST
from rootless.container.state.lifecycle import READY, STOPPED, advance, allow
from rootless.container.state.root import state_root
from rootless.container.state.state import AfterStart, NetworkState, State
from rootless.errors import EXHAUSTED, RootlessError
from rootless.launch.protocol import LISTENER, NOTIFY
from rootless.lazy import lazy
from rootless.plan import ops
from rootless.procfs import Process, boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.container.operations.cgroup import record as record_cgroup
    from rootless.container.operations.container_run import ContainerRun
    from rootless.container.state.processes import has_ended
    from rootless.container.terminal.console import connect as connect_terminal
    from rootless.container.terminal.service import Reports
    from rootless.launch.run_hooks import run_hook as run_hook_program
    from rootless.launch.scm_rights import PidfdReceiver
    from rootless.launch.seccomp_compile import compiled, refuse_unknown
    from rootless.launch.seccomp_listener import Listener
    from rootless.launch.seccomp_listener import connect_to as connect_to_agent
    from rootless.plan.ops import Kind, Op
    from rootless.plan.plan import Plan
    from rootless.plan.process.seccomp import SeccompFilter
else:
    record_cgroup = lazy("rootless.container.operations.cgroup", "record")
    has_ended = lazy("rootless.container.state.processes", "has_ended")
    connect_terminal = lazy("rootless.container.terminal.console", "connect")
    Reports = lazy("rootless.container.terminal.service", "Reports")
    run_hook_program = lazy("rootless.launch.run_hooks", "run_hook")
    PidfdReceiver = lazy("rootless.launch.scm_rights", "PidfdReceiver")
    compiled = lazy("rootless.launch.seccomp_compile", "compiled")
    refuse_unknown = lazy("rootless.launch.seccomp_compile", "refuse_unknown")
    Listener = lazy("rootless.launch.seccomp_listener", "Listener")
    connect_to_agent = lazy("rootless.launch.seccomp_listener", "connect_to")


def connect_console(run: ContainerRun, op: Op) -> None:
    """Connect to the socket that gets the terminal.

    Raises:
        RootlessError: `RL-CONSOLE`: nobody listens there.
    """
    run.descriptors.console = connect_terminal(op.value("path"))
    run.to_close.append(run.descriptors.console)


def no_input(run: ContainerRun, op: Op) -> None:
    """Make /dev/null this process's standard input, which the executor inherits."""
    del run, op
    fd = posix.open("/dev/null", posix.O_RDONLY | posix.O_CLOEXEC)
    posix.dup2(fd, 0)
    posix.close(fd)


def connect_pidfd(run: ContainerRun, op: Op) -> None:
    """Connect to the socket that gets a pidfd, before anything has started.

    Raises:
        RootlessError: `RL-PIDFD-SOCKET`: nobody listens there.
    """
    run.pidfd_receiver = PidfdReceiver(op.value("path"), op.where)


def connect_agent(run: ContainerRun, op: Op) -> None:
    """Connect to the program that answers the seccomp filter's notifications.

    Raises:
        RootlessError: `RL-SECCOMP-LISTENER`: nobody listens.
    """
    run.descriptors.agent = connect_to_agent(op.value("path"))
    run.to_close.append(run.descriptors.agent)


def claim(run: ContainerRun, op: Op) -> None:
    """Make the container's directory and lock it; undo what a killed command left there.

    Raises:
        RootlessError: `RL-EXISTS`, `RL-STATE`: the id is taken, or the directory cannot be made.
    """
    planned = run.root.path
    run.entry = store.claim(run.root, op.value("id"), undo.clear)
    run.is_claimed = True
    if run.root.path != planned and run.plan.first(ops.WRITE_NAMES):
        raise RootlessError(  # the Plan mounts resolv.conf and hosts from there
            f"cannot keep state in {planned}",
            cause="another user has taken the name meanwhile",
            fix="run the command again: it uses another directory",
            code="RL-STATE",
        )
    report_differences(run.plan)


def report_differences(plan: Plan) -> None:
    """Log the differences between the Plan and config.json: a warning for each property without effect."""
    from rootless.plan.context import UNSUPPORTED  # `start` runs a Plan without loading it

    for note in plan.notes:
        report = log.warning if note.kind == UNSUPPORTED else log.info
        report(note.text, where=note.where, **({"fix": note.fix} if note.fix else {}))


def note_request(run: ContainerRun, op: Op) -> None:
    """Write down the options of a person's command; without a monitor, this process will note the exit status.

    Raises:
        RootlessError: `RL-STATE`: they cannot be written.
    """
    if not run.plan.first(ops.MONITOR):
        run.exit_fd = run.entry.hold_exit()
    run.entry.put(REQUEST, jsontext.render(op.value("request"), None).encode("utf-8", "surrogateescape"))


def show_directory(run: ContainerRun, _op: Op) -> None:
    """Open the container's directory for the monitor: the descriptor that is there would keep its lock."""
    run.descriptors.directory = posix.open(".", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=run.entry.fd)
    run.to_close.append(run.descriptors.directory)


def listen(run: ContainerRun, _op: Op) -> None:
    """Listen on the start socket, which the executor waits on."""
    run.descriptors.start = run.entry.listen()


def compile_filter(run: ContainerRun, op: Op) -> None:
    """Compile the seccomp filter for the executor's operation SECCOMP.

    Raises:
        RootlessError: `RL-SECCOMP`: libseccomp is missing, or does not know a required name.
    """
    seccomp_filter = op.value("filter")
    if seccomp_filter.knows_all:
        refuse_unknown(seccomp_filter)
    _compile_for(run, ops.SECCOMP, seccomp_filter)


def compile_pretence(run: ContainerRun, op: Op) -> None:
    """Compile the filter for the executor's operation PRETEND; without one, the container runs and the calls fail."""
    try:
        _compile_for(run, ops.PRETEND, op.value("filter"))
    except RootlessError as error:
        log.warning(f"--fake-chown: {error.what}: {error.cause}", fix=error.fix)


def _compile_for(run: ContainerRun, kind: Kind, seccomp_filter: SeccompFilter) -> None:
    program = compiled(seccomp_filter, _cache_directory())
    for each in run.plan.ops:
        if each.kind is kind:
            each.strings = (program,)


def _cache_directory() -> str:
    """Return the directory for compiled seccomp filters; empty if the caller has no state directory."""
    try:
        return state_root("").path  # one for all containers of the user, independent of --root
    except RootlessError:
        return ""


def record(run: ContainerRun, op: Op) -> None:
    """Write config.json and state.json, which name the container's process: from here on `delete` finds it.

    Raises:
        RootlessError: `RL-STATE`: they cannot be written.
    """
    process = Process.read(run.pid)
    state = _state_of(run.entry.container_id, op.value("about"))
    state.pid, state.start_time = run.pid, process.start_time if process else 0
    state.boot_id, state.created = boot_id(), log.timestamp()
    ids, keyring, identify = (run.plan.first(kind) for kind in (ops.IDS, ops.KEYRING, ops.IDENTIFY))
    state.user = [ids.number("uid"), ids.number("gid")] if ids else [0, 0]
    state.keyring_name = keyring.value("name") if keyring else ""
    if run.namespaces and identify:
        kinds = identify.value("kinds")
        state.made = dict(zip(kinds, Struct(f"={len(kinds)}Q").unpack(run.namespaces), strict=True))
    if run.cgroup:
        record_cgroup(run, state)
    state.after_start = after_start(run.plan, run.sent)
    state.after_delete = [each.as_data() for each in run.plan.after(ops.DELETE)]
    run.entry.write_config(op.value("config").encode("utf-8", "surrogateescape"))
    run.entry.write(state)
    run.state = state
    run.is_recorded = True


def _state_of(container_id: str, about: dict[str, Any]) -> State:
    """Return the state of a container before it has a process."""
    state = State(container_id)
    advance(state, "create")
    for name in ("bundle", "rootfs", "annotations", "owner", "keyring"):
        setattr(state, name, about[name])
    state.fake_chown = about.get("fakeChown", False)
    if "network" in about:
        state.network = NetworkState.from_data(about["network"])
    return state


def after_start(plan: Plan, sent: Sequence[tuple[int, Op]]) -> AfterStart:
    """Return the operations after WAIT_START, without their bulk: `start` runs them, and explains failures by them.

    `sent` has the executor's operations by the numbers by which it knows them.
    """
    data = [op.as_data() for op in plan.started()]
    for each in data:
        each.update({name: blank for name, blank in (("filter", ""), ("env", []), ("about", [])) if name in each})
    first = next((number + 1 for number, (_, op) in enumerate(sent) if op.kind is ops.WAIT_START), 0)
    return AfterStart(first, data)


def record_created(run: ContainerRun, _op: Op) -> None:
    """Write down that the container is created.

    Raises:
        RootlessError: `RL-STATE`: state.json cannot be written.
    """
    advance(run.state, READY)
    run.entry.write(run.state, lambda identity: status_record(run.entry, run.state, run.plan, identity))


def send_pidfd(run: ContainerRun, op: Op) -> None:
    """Send a pidfd of the process; `whose` says which process it is, as runc does.

    Raises:
        RootlessError: `RL-PIDFD-SOCKET`: the receiver has closed its socket.
    """
    assert run.pidfd_receiver
    run.pidfd_receiver.send(run.pid, op.value("whose").encode())


def write_pid_file(run: ContainerRun, op: Op) -> None:
    """Write the process id, digits only; a reader sees all of them or no file.

    Raises:
        RootlessError: `RL-PID-FILE`: the file cannot be written.
    """
    path = op.value("path")
    try:
        files.put(path, str(run.pid).encode(), 0o644)
    except OSError as error:
        raise RootlessError(
            f"--pid-file: cannot write {path}",
            cause=(error.strerror or "").lower(),
            fix=EXHAUSTED.get(error.errno or 0, "name a file in a directory that you can write to"),
            code="RL-PID-FILE",
        ) from None


def forward_notifications(run: ContainerRun, op: Op) -> None:
    """Prepare to forward the seccomp filter's notifications to the program that answers them."""
    pid = run.pid
    listener = Listener(op.value("path"), op.value("metadata"), run.state.document(op.value("status")), pid)
    run.takers[LISTENER] = listener.pass_on


def forward_reports(run: ContainerRun, _op: Op) -> None:
    """Take the socket that the program reports on by sd_notify(3); the caller's service manager gets the reports."""
    run.reports = Reports(*run.passed.pop(NOTIFY))


def run_hook(run: ContainerRun, op: Op) -> None:
    """Run a hook outside the container.

    Raises:
        RootlessError: `RL-HOOK`: it failed.
    """
    state = run.state
    run_hook_program(op.value("hook"), op.where, state.document(op.value("status")), state.bundle, state.annotations)


def check_running(run: ContainerRun, _op: Op) -> None:
    """Check that the container has not ended: a concurrent `kill` or `delete` may have missed this process.

    Raises:
        RootlessError: `RL-STATUS`: it has.
    """
    if has_ended(run.descriptors.process):
        allow("exec", run.entry.container_id, STOPPED)
