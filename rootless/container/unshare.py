"""The verb `unshare`: a command of the host in the ID maps that containers have, without a container."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress

from rootless import log
from rootless.errors import RootlessError
from rootless.launch.protocol import Descriptors
from rootless.launch.run_in_userns import own_maps
from rootless.launch.run_plan import Run
from rootless.plan.compile import compile_host_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from rootless.options import Options

_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends these to the command too."""
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def unshare(options: Options) -> int:
    """Run a command, or the caller's shell, as root of a new user namespace; return its exit status.

    Raises:
        RootlessError: `RL-EXEC-NOT-FOUND`, `RL-EXEC`: it cannot be executed.
    """
    name, *arguments = options.args or (os.environ.get("SHELL") or "/bin/sh",)
    program = shutil.which(name)
    if not program:
        raise RootlessError(
            f'exec: "{name}"',
            cause="executable file not found in $PATH" if "/" not in name else "no such file, or not executable",
            fix="name a program of this host",
            code="RL-EXEC-NOT-FOUND",
        )
    maps, shortcoming = own_maps()
    if shortcoming:
        log.warning(shortcoming.replace("in the container", "in it", 1))
    env = [f"{key}={value}" for key, value in os.environ.items()]
    run = Run(compile_host_command([program, *arguments], env, maps, own_mounts=True), Descriptors())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    run.until_or_kill()
    assert run.executor
    command = os.pidfd_open(run.executor.first)

    def forward(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(command, number)

    for number in _OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = os.waitstatus_to_exitcode(run.executor.wait_first())
    run.close()
    return status if status >= 0 else 128 - status
