"""The launcher's side of its protocol with the executor; helpers/init/protocol.c is the executor's side.

    executor                               launcher
    TURN ────────────────────────────────▶ after NEW_USER: newuidmap and newgidmap, side by side
                  ◀─────────────────────── G
    TURN pid numbers ────────────────────▶ the state on disk names the container's process and its own namespaces
                  ◀─────────────────────── G
    TURN ────────────────────────────────▶ the hooks that run outside the container, if any
                  ◀─────────────────────── G
    SKIPPED op errno ────────────────────▶ logged, and an alternative follows
    READY | FAILED op errno ─────────────▶ created, or an error
                  ◀─────────────────────── S   (`run`; after `create` the container waits on its start socket);
                                           T requests PROGRESS too
    PROGRESS op errno microseconds ──────▶ after each operation, if the launcher requested it
    EXECUTING ───────────────────────────▶ execve is next, perhaps after the seccomp filter
    NOTIFY, with a descriptor ───────────▶ given to the process that forwards the program's sd_notify reports
    LISTENER pid, with two descriptors ──▶ the second leads to the seccomp agent, which gets the first; from another
                                           process, at any time after EXECUTING
    NETLINK, with a descriptor ──────────▶ configures a network namespace (only from netns holders, rootless/network)
    MONITORED pid ───────────────────────▶ a process between the launcher and the first stage keeps the output
    NAMESPACES, with two descriptors ────▶ joined by the container's netns holder before the container has a process
    FUSE, with a descriptor ─────────────▶ given to the server of the container's image
    FAILED op errno | end of file ───────▶ an error, or the program runs

End of file without EXECUTING means that a signal killed the executor. An executor that is killed after EXECUTING looks
like a program that started and ended at once.

A message is four 32-bit numbers (type, value, errno, length) and `length` bytes: the name of the call that failed, NUL,
and further details. The executor stops at end of file, so an unfinished container ends with its launcher.
"""

from __future__ import annotations

import posix
from _struct import Struct

from rootless import files, log
from rootless.errors import RootlessError
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.launch.spawn import spawn
    from rootless.plan.encode import encode
    from rootless.plan.ops import Op

    Message = tuple[int, int, int, bytes]
    """Type, value, errno, detail."""
else:
    spawn = lazy("rootless.launch.spawn", "spawn")
    encode = lazy("rootless.plan.encode", "encode")

TURN = 1
PROGRESS = 2
READY = 3
FAILED = 4
SKIPPED = 5
EXECUTING = 6
LISTENER = 7
NOTIFY = 8
NETLINK = 9
NAMESPACES = 10
MONITORED = 11
FUSE = 12
MESSAGES_WITH_DESCRIPTORS = (LISTENER, NOTIFY, NETLINK, NAMESPACES, FUSE)
START, START_AND_TRACE = b"S", b"T"

_PATIENCE = 10_000
"""Milliseconds."""
_MESSAGE = Struct("=IiiI")
_LARGEST = 4096
_INIT_NAME = b"(rootless:init"
_LOOKS, _MOMENT = 100, 0.001
HEAD_SIZE = _MESSAGE.size


class Descriptors:
    """Descriptors that the executor inherits, -1 where there is none.

    Attributes:
        start: a listening socket on which the container waits.
        console: a socket over which it sends the terminal.
        cgroup: the directory of the container's cgroup.
        process: a pidfd of the process whose namespaces are joined, or whose end is awaited.
        agent: a socket connected to the program that answers the seccomp filter's notifications.
        directory: the container's directory, in which the monitor keeps the output.
        keep: how many descriptors from 3 on belong to the container.
        placed: those that get the numbers 0, 1, 2 …; without any, the executor has the launcher's standard streams.
        masked: whether all signals are blocked for the executor and what it executes.
    """

    __slots__ = ("agent", "cgroup", "console", "directory", "keep", "masked", "placed", "process", "start")

    def __init__(
        self,
        *,
        start: int = -1,
        console: int = -1,
        cgroup: int = -1,
        process: int = -1,
        agent: int = -1,
        directory: int = -1,
        keep: int = 0,
        placed: Sequence[int] = (),
        masked: bool = False,
    ) -> None:
        self.masked = masked
        self.start = start
        self.console = console
        self.cgroup = cgroup
        self.process = process
        self.agent = agent
        self.directory = directory
        self.keep = keep
        self.placed = placed


class Executor:
    """A running executor and the connection to it.

    Attributes:
        first: the process of its first stage, the only stage of a Plan without FORK; 0 after wait_first().
        monitor: the process between this one and the first stage (MONITOR), or 0.
        report: the descriptor that receives its messages.
    """

    __slots__ = ("_reply", "first", "monitor", "report")

    def __init__(self, operations: Sequence[Op], descriptors: Descriptors, *, passing: bool, trace: bool) -> None:
        """Start it with operations.

        Args:
            operations: its part of a Plan.
            descriptors: the descriptors that it inherits; the caller closes its own copies afterwards.
            passing: whether some messages carry descriptors.
            trace: whether it reports each operation.

        Raises:
            RootlessError: `RL-INIT`: the executor cannot be started.
        """
        self.first = self.monitor = 0
        self._reply = child_reply = -1
        self.report, child_report = _socket_pair() if passing else posix.pipe()
        try:
            child_reply, self._reply = posix.pipe()
            self.first = spawn(encode(operations), descriptors, report=child_report, reply=child_reply, trace=trace)
        except BaseException:
            self.kill()  # a signal may come when it has been started
            raise
        finally:
            for fd in (child_report, child_reply):
                if fd >= 0:
                    posix.close(fd)

    @classmethod
    def connected(cls, connection: int) -> Executor:
        """Return the executor that waits behind a connection to its start socket, and take over the connection."""
        executor = object.__new__(cls)
        executor.first = executor.monitor = 0
        executor.report = connection
        executor._reply = posix.dup(connection)
        return executor

    def answer(self, word: bytes) -> None:
        """Let the executor continue. If it has exited, the next read finds end of file."""
        try:
            posix.write(self._reply, word)
        except BrokenPipeError:
            return

    def answer_last(self, word: bytes) -> None:
        """Let the executor continue, and return when it has closed its end, its last action.

        Raises:
            RootlessError: `RL-INIT`: it does not close its end.
        """
        import select

        self.answer(word)
        poll = select.poll()
        poll.register(self._reply, 0)  # POLLERR reports that the reading end is closed
        if not poll.poll(_PATIENCE):
            raise RootlessError("the executor cannot continue", cause="it hangs", code="RL-INIT")

    def kill(self) -> None:
        """Kill and reap the first stage; that of a monitor ends at the end of file."""
        self.close()
        if self.first and not self.monitor:
            end_child(self.first)
        self.first = 0

    def close(self) -> None:
        """Close the launcher's ends of the pipes."""
        files.close_fds(self, "report", "_reply")

    def interpose(self, first: int) -> None:
        """Note that the process that was started has become the monitor, and another one the first stage."""
        self.monitor, self.first = self.first, first

    def wait_first(self) -> int:
        """Return the wait status of the first stage; without FORK it is the program's."""
        status = posix.waitpid(self.first, 0)[1] if not self.monitor else 0
        self.first = 0
        return status


def read_message(fd: int) -> Message | None:
    """Return the next message (type, value, errno, detail), or None at end of file."""
    try:
        head = posix.read(fd, _MESSAGE.size)
    except ConnectionResetError:  # the executor was killed before it accepted
        return None
    return message_of(head, fd)


def message_of(head: bytes, fd: int) -> Message | None:
    """Return the message that begins with `head`, with its detail from `fd`; None for an incomplete head."""
    if len(head) < _MESSAGE.size:
        return None
    kind, value, number, length = _MESSAGE.unpack(head)
    return kind, value, number, posix.read(fd, min(length, _LARGEST)) if length else b""


def executor_killed() -> RootlessError:
    """Return the error for an executor that exited and reported no error."""
    return RootlessError(
        "the executor was killed",
        cause="it exited before the container's program started and reported no error",
        fix="check the kernel's log (dmesg) for an out-of-memory kill, or find the program that kills processes here",
        code="RL-INIT",
    )


def listener_lost() -> RootlessError:
    """Return the error for a program whose seccomp filter's notifications reach nobody."""
    return RootlessError(
        "cannot hand over the seccomp filter's notifications",
        cause="the executor's process that does it was killed",
        where="linux.seccomp.listenerPath",
        fix="find the program that kills processes here, and start the container again",
        code="RL-SECCOMP-LISTENER",
    )


def _stays_init(pid: int) -> bool:
    """Whether a process ends as the executor; end of file precedes the program's own name by a moment."""
    for _ in range(_LOOKS):
        with open(f"/proc/{pid}/stat", "rb") as file:
            name, _, rest = file.read().rpartition(b") ")
        if not name.endswith(_INIT_NAME):
            return False
        if rest[:1] in b"ZX":
            return True
        from time import sleep

        sleep(_MOMENT)
    return False


def warn_of_filter(pid: int) -> None:
    """Warn of a seccomp filter under which the executor could neither execute the program nor report why."""
    try:
        if not _stays_init(pid):
            return
    except OSError:
        return  # it has ended, and its name is unknown
    log.warning(
        "the seccomp filter ended the container before its program started",
        where="linux.seccomp",
        fix="allow execve, and write and exit_group for reports of failures",
    )


def complain(op: Op | None, kind: int, number: int, detail: bytes) -> None:
    """Raise the error of a FAILED message, or log a SKIPPED one."""
    from rootless.launch.failure import explained, skipped

    call, _, more = detail.partition(b"\0")
    if kind == SKIPPED:
        skipped(op, call.decode(), number)
    else:
        raise explained(op, call.decode(), number, more)


def end_child(pid: int) -> None:
    """Kill a child of this process and take its status."""
    try:
        posix.kill(pid, 9)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def end_process(process: int) -> None:
    """Kill the process of a pidfd, which is no child of this one, and return when it has ended."""
    import _signal  # type: ignore[import-not-found] # the C half of signal, which typeshed leaves out
    import select

    try:
        _signal.pidfd_send_signal(process, 9)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()


def reap(pid: int) -> None:
    """Take the status of a process that has ended, if it is a child of this one."""
    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:
        return


def _socket_pair() -> tuple[int, int]:
    """Return the two ends of a connection that can carry descriptors."""
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return ours.detach(), theirs.detach()
