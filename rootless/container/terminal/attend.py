"""Wait for a container in the foreground without Python: this process becomes helpers/front/attend.c by execve.

It keeps its process ID, its children and the descriptors that the program needs. When the container has ended, the
program notes the exit status, and removes the container; where that is not simple, it executes a command that does.
"""

from __future__ import annotations

import posix
import sys

from rootless import log, paths
from rootless.container.terminal.relay import caught_signals, forward_caught
from rootless.launch.spawn import program_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable, Sequence

    from rootless.container.terminal.relay import Deadline, Relay
else:
    import _signal

_VARIABLE = b"ROOTLESS_ATTEND"
"""It tells helpers/front/main.c how many words of the user come first."""
_NONE = -1


def become_attend(
    process: int,
    relay: Relay | None,
    *,
    pid: int,
    signals: int,
    deadline: Deadline | None = None,
    exit_fd: int = _NONE,
    keep: Iterable[int] = (),
    after: Sequence[str] | None = (),
) -> None:
    """Become the program that waits for a process. If that fails, return: this process waits itself.

    Args:
        process: a pidfd of the process.
        relay: the terminal, whose bytes have all been written, or None.
        pid: the process, a child of this one.
        signals: the descriptor from catch_signals().
        deadline: the end of its time, or None.
        exit_fd: the file for the exit status, or -1.
        keep: further descriptors that stay open.
        after: what removal() returns, or nothing if there is no container to remove.
    """
    late = deadline and deadline.is_over
    if after is None or late or paths.variable("ROOTLESS_FRONT") == "0":
        return
    ends, saved, typed = relay.state() if relay else ((_NONE,), "", 0)
    kept = [fd for fd in (process, exit_fd, *ends, *keep) if fd >= 0]
    caught = caught_signals()
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, caught)  # from here on they wait for the program
    forward_caught(signals, process, relay)
    mask = sum(1 << number - 1 for number in caught if number not in before)
    at = int(deadline.at * 1000) + 1 if deadline else _NONE
    decided = (pid, process, ends[0], exit_fd, f"{mask:x}", at, saved, typed)
    shown = sys.argv[1:]
    log.flush()
    try:
        for fd in kept:
            posix.set_inheritable(fd, True)  # noqa: FBT003 - it takes no keyword
        variables = posix.environ | {_VARIABLE: b"%d" % len(shown)}
        posix.execve(program_path("front"), ["rootless", *shown, *map(str, decided), *after], variables)
    except OSError:
        for fd in kept:
            posix.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keyword
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def removal(root: str, container_id: str) -> list[str] | None:
    """Return what the program needs to remove a container; None if this process cannot be started again.

    That is the state directory, the container, and a command that removes it where the program does not. The program
    replaces the zeros by the exit status, which the command returns.
    """
    arguments = len(sys.argv) - 1
    begin = len(sys.orig_argv) - arguments
    if not sys.executable or sys.orig_argv[begin:] != sys.argv[1:]:
        return None
    # signals are blocked, and stay blocked
    own = [word for word in sys.orig_argv[1:begin] if word != "-Xunblock"]
    command = [sys.executable, "-Xended=000", *own, "--root", root, *log.flags(), "delete", container_id]
    native = "" if log.is_debug() else root  # only Python logs each step
    return [native, container_id, *command]
