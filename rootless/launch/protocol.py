"""The parent's side of the protocol with helpers/init; helpers/init/protocol.c is the child's.

    child                                  parent
    TURN ────────────────────────────────▶ after NEW_USER: newuidmap and newgidmap, side by side
                  ◀─────────────────────── G
    TURN pid numbers ────────────────────▶ the state on disk names the container's process, and namespaces of its own
                  ◀─────────────────────── G
    TURN ────────────────────────────────▶ the hooks that run outside the container (only where there are any)
                  ◀─────────────────────── G
    SKIPPED op errno ────────────────────▶ noted; an alternative follows
    READY | FAILED op errno ─────────────▶ created, or an error
                  ◀─────────────────────── S   (`run`; after `create` the container waits on its start socket);
                                           T asks for PROGRESS too
    PROGRESS op errno microseconds ──────▶ after each operation, where the child was asked for it
    EXECUTING ───────────────────────────▶ only execve, perhaps with the seccomp filter before it, is left
    NOTIFY, with a descriptor ───────────▶ passed on to who reads what the program reports to its service manager
    LISTENER, with two descriptors ──────▶ the first is passed on, over the second, to who answers the notifications
                  ◀─────────────────────── L   (over the connection that the message came by)
    NETLINK, with a descriptor ──────────▶ configures a network namespace (only from netns holders, rootless/network)
    NAMESPACES, with two descriptors ────▶ joined by the netns holder of the container, before it has a process
    FAILED op errno | end of file ───────▶ an error, or the program runs

End of file without EXECUTING means that somebody killed the child; one that is killed later has begun, for all that
anybody can see, and ended at once.

A message is four 32-bit numbers (type, value, errno, length) and `length` bytes: the name of the call that failed, NUL,
and what else is known. The child stops at end of file, so a parent that dies takes an unfinished container with it.
"""

from __future__ import annotations

import posix
from _struct import Struct

from rootless import files, log
from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.plan.encode import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.launch.spawn import spawn
    from rootless.plan.ops import Op

    Message = tuple[int, int, int, bytes]
    """Type, value, errno, detail."""
else:
    spawn = lazy("rootless.launch.spawn", "spawn")

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
MESSAGES_WITH_DESCRIPTORS = (LISTENER, NOTIFY, NETLINK, NAMESPACES)
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
        keep: how many descriptors from 3 on belong to the container.
    """

    __slots__ = ("agent", "cgroup", "console", "keep", "process", "start")

    def __init__(
        self, *, start: int = -1, console: int = -1, cgroup: int = -1, process: int = -1, agent: int = -1, keep: int = 0
    ) -> None:
        self.start = start
        self.console = console
        self.cgroup = cgroup
        self.process = process
        self.agent = agent
        self.keep = keep


class Executor:
    """An executor that runs, and the connection to it.

    Attributes:
        first: the process of its first stage, the only one of a Plan that does not fork; 0 when it has been waited for.
        report: the descriptor that its messages come over.
    """

    __slots__ = ("_reply", "first", "report")

    def __init__(self, operations: Sequence[Op], descriptors: Descriptors, *, passing: bool, trace: bool) -> None:
        """Start it with operations.

        Args:
            operations: its part of a Plan.
            descriptors: what it inherits; they stay the caller's, to be closed once this returns.
            passing: some of its messages come with descriptors.
            trace: it is to report each operation.

        Raises:
            RootlessError: `RL-INIT`: it cannot be started.
        """
        self.first = 0
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
        """Return an executor that waits on its start socket, by a connection to that; the connection is its own."""
        executor = object.__new__(cls)
        executor.first = 0
        executor.report = connection
        executor._reply = posix.dup(connection)
        return executor

    def answer(self, word: bytes) -> None:
        """Let the executor go on. When it is gone, end of file says so."""
        try:
            posix.write(self._reply, word)
        except BrokenPipeError:
            return

    def answer_last(self, word: bytes) -> None:
        """Let the executor go on, and return when it has closed its end, which is the last thing that it does.

        Raises:
            RootlessError: `RL-INIT`: it does not.
        """
        import select

        self.answer(word)
        poll = select.poll()
        poll.register(self._reply, 0)  # the end that writes hears of the other by POLLERR
        if not poll.poll(_PATIENCE):
            raise RootlessError("the executor cannot go on", cause="it hangs", code="RL-INIT")

    def kill(self) -> None:
        """End the first stage and take its status."""
        self.close()
        if self.first:
            end_child(self.first)
        self.first = 0

    def close(self) -> None:
        """Close the parent's ends of the pipes."""
        files.close_fds(self, "report", "_reply")

    def wait_first(self) -> int:
        """Return the wait status of the first stage; for a Plan that does not fork it is the program's."""
        status = posix.waitpid(self.first, 0)[1]
        self.first = 0
        return status


def read_message(fd: int) -> Message | None:
    """Return the next message (type, value, errno, detail), or None at end of file."""
    try:
        head = posix.read(fd, _MESSAGE.size)
    except ConnectionResetError:  # a start socket whose listener was killed before it accepted
        return None
    return message_of(head, fd)


def message_of(head: bytes, fd: int) -> Message | None:
    """Return the message that begins with `head`, its detail from `fd`; None for a head that is not whole."""
    if len(head) < _MESSAGE.size:
        return None
    kind, value, number, length = _MESSAGE.unpack(head)
    return kind, value, number, posix.read(fd, min(length, _LARGEST)) if length else b""


def executor_killed() -> RootlessError:
    """Return the error for an executor that exited and reported no error."""
    return RootlessError(
        "the init program was killed",
        cause="it exited before the container's program started and reported no error",
        fix="check the kernel's log (dmesg) for exhausted memory, or find the program that kills processes here",
        code="RL-INIT",
    )


def _stays_init(pid: int) -> bool:
    """Whether a process ends as helpers/init; the end of file comes a moment before the program gives it its name."""
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
    """Warn of a seccomp filter under which helpers/init could neither execute the program nor report why."""
    try:
        if not _stays_init(pid):
            return
    except OSError:
        return  # it has ended, and nobody can say as what
    log.warning(
        "the seccomp filter ended the container before its program began",
        where="linux.seccomp",
        fix="allow execve, and write and exit_group for reports of failures",
    )


def complain(op: Op | None, kind: int, number: int, detail: bytes) -> None:
    """Raise what a FAILED message about an operation means, or log a SKIPPED one."""
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


def _socket_pair() -> tuple[int, int]:
    """Return two ends over which a descriptor can come."""
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return ours.detach(), theirs.detach()
