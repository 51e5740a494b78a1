"""The verb `restore`: criu(8), which needs root, makes the processes of a container from a checkpoint."""

from __future__ import annotations

import os
import socket

from rootless import files, log
from rootless.bundle.load import load
from rootless.container.checkpoint.criu import NETWORK, Criu, chosen, joined_network
from rootless.container.checkpoint.criu_messages import Service
from rootless.container.operations.container_run import ContainerRun
from rootless.container.operations.teardown import give_up, remove_ended
from rootless.container.request import restore_request
from rootless.container.state.root import state_root
from rootless.container.terminal.console import Console, connect
from rootless.container.terminal.relay import catch_signals, wait_foreground
from rootless.errors import RootlessError
from rootless.host import facts
from rootless.launch.protocol import Descriptors
from rootless.plan import ops
from rootless.plan.compile import compile_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options

_PID_FILE = "criu.pid"
_NETWORK_FD = 3

_SWITCHES = (("tcp_close", "--tcp-close"),)
"""Attribute of Options, option of criu."""
_VALUES = (("lsm_mount_context", "--lsm-mount-context"),)


def restore(options: Options) -> int:
    """Make a container from a checkpoint; unless detached, wait for its end and return its exit status.

    Raises:
        RootlessError: `RL-CRIU`: criu fails; otherwise as `create`.
    """
    request = restore_request(options)
    bundle = load(request.bundle)
    plan = compile_plan(bundle, facts.read(), request)
    network = joined_network(bundle.config)
    if network:
        _open_network(network)
    terminal = Terminal(options, _NETWORK_FD + bool(network)) if plan.has_terminal or options.console_socket else None
    criu = Criu(options, bundle.rootfs, bundle.config.get("annotations") or {})
    streams = criu.directories.noted()
    skipped = [kind for kind, hooks in (bundle.config.get("hooks") or {}).items() if hooks and kind != "poststop"]
    if skipped:
        log.warning(f"hooks are not run again when a container is restored: {', '.join(skipped)}", where="hooks")
    root = state_root(options.root)
    run = ContainerRun(plan, root, Descriptors())
    try:
        wakeup = -1 if options.detach else catch_signals()
        run.only(ops.CLAIM)
        managed = options.manage_cgroups_mode in ("", "ignore")  # else criu restores the cgroups of the images
        _restore(options, run, criu, streams, terminal, network=network, cgroup=managed)
    except BaseException as error:
        give_up(run, error)
        raise
    run.entry.close()
    if options.detach:
        return 0
    try:
        return wait_foreground(run.pid, terminal.console if terminal else Console(), wakeup)
    finally:
        remove_ended(root, options.container)


def _restore(
    options: Options,
    run: ContainerRun,
    criu: Criu,
    streams: list[str],
    terminal: Terminal | None,
    *,
    network: str,
    cgroup: bool,
) -> None:
    """Let criu make the processes of a container; everything else about the container comes from its bundle."""
    pid_file = f"{run.entry.place}/{_PID_FILE}"
    words = ["restore", "--restore-detached", "--restore-sibling", "--pidfile", pid_file]
    for number, stream in enumerate(streams):
        words += ["--inherit-fd", f"fd[{number}]:{stream}"] if stream else []
    if network:
        words += ["--inherit-fd", f"fd[{_NETWORK_FD}]:{NETWORK}"]
    words += chosen(options, _SWITCHES, _VALUES)
    if cgroup:
        run.only(ops.MAKE_CGROUP)
    scope = run.plan.first(ops.START_SCOPE) if cgroup else None
    criu.run_on_root(words, terminal.service if terminal else None, run, scope, keep=bool(network) + bool(terminal))
    run.pid = int(run.entry.content(_PID_FILE))
    if cgroup:
        run.only(ops.ATTACH_DEVICE_RULES)
    if terminal:
        terminal.pass_on()
    run.only(ops.RECORD)
    run.only(ops.RECORD_CREATED)
    run.only(ops.WRITE_PID_FILE)


def _open_network(path: str) -> None:
    """Open a network namespace at the descriptor that criu inherits, before another file takes its number."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        cause = (error.strerror or "").lower()
        fix = "make the namespace that config.json names"
        raise RootlessError(
            f"cannot open {path}", cause=cause, where="linux.namespaces", fix=fix, code="RL-CRIU"
        ) from None
    if fd != _NETWORK_FD:
        os.dup2(fd, _NETWORK_FD)
        os.close(fd)
    os.set_inheritable(_NETWORK_FD, True)  # noqa: FBT003 - the signature of the standard library


class Terminal:
    """The terminal of a restored container: criu makes it and hands over its other side.

    Attributes:
        service: the criu that hands it over.
        console: the relay's side, unless the caller's socket gets it.
    """

    def __init__(self, options: Options, number: int) -> None:
        """Connect; `number` is the descriptor of criu's end.

        Raises:
            RootlessError: `RL-CONSOLE`, as for `create` and `run`.
        """
        self.service = Service(number)
        self.console = Console()
        passed = options.console_socket or options.detach
        self._connection = connect(options.console_socket) if passed else -1

    def pass_on(self) -> None:
        """Send its other side over the caller's socket, or keep it for the relay."""
        if self._connection < 0:
            self.console.master, self.service.master = self.service.master, -1
            return
        with socket.socket(fileno=self._connection) as connection:
            socket.send_fds(connection, [b"/dev/ptmx"], [self.service.master])
        files.close_fds(self.service, "master")
