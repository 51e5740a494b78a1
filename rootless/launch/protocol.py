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
from rootless.launch import spawn, write_idmaps
from rootless.plan.encode import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.launch.fd_messages import Received
    from rootless.launch.seccomp_listener import Listener
    from rootless.plan.ops import Op
    from rootless.plan.plan import Plan

    Message = tuple[int, int, int, bytes]
    """Type, value, errno, detail."""

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

_PATIENCE = 10_000
"""Milliseconds."""
_MESSAGE = Struct("=IiiI")
_LARGEST = 4096
_INIT_NAME = b"(rootless:init"
_LOOKS, _MOMENT = 100, 0.001
HEAD_SIZE = _MESSAGE.size


class Launch:
    """One container on its way from a Plan to its program.

    Attributes:
        plan: what is executed.
        pid: the container's process as the caller's process tree sees it; 0 until it exists.
        namespaces: from then on, the numbers of the namespaces that the Plan's IDENTIFY names, 64 bits each.
        first: the first stage's process, the only one of a Plan that does not fork; 0 when it has been waited for.
        report: the parent's end of the connection that messages come over.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        start: int = -1,
        console: int = -1,
        process: int = -1,
        cgroup: int = -1,
        keep: int = 0,
        descriptors: bool = False,
    ) -> None:
        """Start helpers/init; the descriptors (see init.spawn) stay the caller's, to be closed once this returns.

        Some come back where the Plan has a listener or a socket to notify, or where `descriptors` says so.

        Raises:
            RootlessError: it cannot be started, or nobody answers the seccomp filter's notifications.
        """
        agent = _connect_agent(plan.listener) if plan.listener else -1
        self.plan = plan
        self.pid = 0
        self.namespaces = b""
        names = [op.kind.name for op in plan.ops]
        self._yields = iter([names[index - 1] for index, name in enumerate(names) if name == "yield"])
        self._reply = child_reply = -1
        self.report, child_report = _socket_pair() if descriptors or plan.listener or plan.notify else posix.pipe()
        try:
            child_reply, self._reply = posix.pipe()
            encoded = encode(plan.ops)
            self.first = spawn.spawn(
                encoded,
                report=child_report,
                reply=child_reply,
                start=start,
                console=console,
                process=process,
                cgroup=cgroup,
                agent=agent,
                keep=keep,
            )
        except BaseException:
            self.close()
            raise
        finally:
            for fd in (child_report, child_reply, agent):
                if fd >= 0:
                    posix.close(fd)

    def until_ready(
        self,
        on_process: Callable[[int], None] | None = None,
        on_hooks: Callable[[], None] | None = None,
        reader: Received | None = None,
    ) -> None:
        """Talk until everything but the program is there; `on_process` gets the pid as soon as there is one.

        `on_hooks` runs the hooks that belong after the mounts; `reader` is for a Plan that passes descriptors.

        Raises:
            RootlessError: an operation failed; nothing of the container runs any more.
        """
        self._talk(READY, on_process, on_hooks, reader)

    def go_on(self, reader: Received | None = None) -> None:
        """Let a Plan that waits, and is ready a second time, go on until then.

        Raises:
            RootlessError: an operation failed; nothing of it runs any more.
        """
        self.answer(b"S")
        self._talk(READY, reader=reader)

    def until_executed(self, reader: Received | Listener | None = None) -> None:
        """Talk until the program has taken the place of helpers/init; `reader` is for a Plan that passes descriptors.

        Raises:
            RootlessError: an operation failed; nothing of the container runs any more.
        """
        self._talk(EXECUTING, reader=reader)

    def start(self, reader: Received | Listener | None = None) -> None:
        """Let the program of a container that is ready run, and return when it does."""
        self.answer(b"S")
        self.until_executed(reader)

    def _talk(
        self,
        last: int,
        on_process: Callable[[int], None] | None = None,
        on_hooks: Callable[[], None] | None = None,
        reader: Received | Listener | None = None,
    ) -> None:
        """Answer messages up to the kind `last`; when that is EXECUTING, up to the end of file that follows."""
        skips: list[Message] = []
        reached = 0
        read = reader.read if reader else read_message
        try:
            while reached != READY and (message := read(self.report)):
                kind, value, _, detail = message
                if kind == TURN:
                    self._take_turn(value, detail, on_process, on_hooks)
                    self.answer(b"G")
                elif kind == SKIPPED:
                    skips.append(message)
                else:
                    self._tell_skips(skips, message)
                    if kind == FAILED:
                        self._complain(message)
                    reached = kind
        except BaseException:
            self.kill()
            raise
        if reached != last:
            self.kill()
            raise init_killed()
        if last == EXECUTING and self.plan.filter:
            _warn_of_filter(self.pid or self.first)

    def _take_turn(
        self,
        pid: int,
        namespaces: bytes,
        on_process: Callable[[int], None] | None,
        on_hooks: Callable[[], None] | None,
    ) -> None:
        """Do what is due on this side: for the new process, for a new user namespace, or after the mounts."""
        if pid:
            self.pid, self.namespaces = pid, namespaces
            self.wait_first()
            if on_process:
                on_process(pid)
        elif next(self._yields) == "new_user_namespace":
            if self.plan.maps:
                write_idmaps.write(self.first, self.plan.maps)
        elif on_hooks:
            on_hooks()

    def answer(self, word: bytes) -> None:
        """Let the child go on. When it is gone, end of file says so."""
        try:
            posix.write(self._reply, word)
        except BrokenPipeError:
            return

    def answer_last(self, word: bytes) -> None:
        """Let the child go on, and return when it has closed its end, which is the last thing that it does.

        Raises:
            RootlessError: `RL-INIT`: it does not.
        """
        import select

        self.answer(word)
        poll = select.poll()
        poll.register(self._reply, 0)  # the end that writes hears of the other by POLLERR
        if not poll.poll(_PATIENCE):
            raise RootlessError("the init program cannot go on", cause="it hangs", code="RL-INIT")

    def _tell_skips(self, skips: list[Message], outcome: Message) -> None:
        """Log skipped operations, except one whose alternative failed too: the error is about that."""
        failed, number = (outcome[1], outcome[2]) if outcome[0] == FAILED else (-1, 0)
        for skip in skips:
            index = skip[1]
            if not (index < failed <= index + self.plan.ops[index].alternatives and skip[2] == number):
                self._complain(skip)

    def _complain(self, message: Message) -> None:
        kind, index, number, detail = message
        complain(self.plan.ops[index] if 0 <= index < len(self.plan.ops) else None, kind, number, detail)

    def kill(self) -> None:
        """End what there is of the container and take its status, so that nothing of it remains."""
        self.close()
        for pid in (self.first, self.pid):
            if pid:
                _end(pid)
        self.first = self.pid = 0

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


def init_killed() -> RootlessError:
    """Return the error for an executor that ended without a message."""
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


def _warn_of_filter(pid: int) -> None:
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


def _connect_agent(wanted: dict[str, str]) -> int:
    from rootless.launch.seccomp_listener import connect_to

    return connect_to(wanted)


def _end(pid: int) -> None:
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
