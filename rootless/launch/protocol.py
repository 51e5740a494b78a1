"""The parent's side of the protocol with helpers/init; helpers/init/protocol.c is the child's.

    child                                  parent
    USERNS_READY  ───────────────────────▶ newuidmap and newgidmap, side by side
                  ◀─────────────────────── M
    NAMESPACES_READY pid ────────────────▶ the state on disk names the container's process
                  ◀─────────────────────── G
    SKIPPED op errno ────────────────────▶ noted; an alternative follows
    READY | FAILED op errno ─────────────▶ created, or an error
                  ◀─────────────────────── S   (`run`; after `create` the container waits on its start socket)
    FAILED op errno | end of file ───────▶ an error, or the program runs

A message is four 32-bit numbers (type, value, errno, length) and `length` bytes: the name of the call that failed, NUL,
and what else is known. The child stops at end of file, so a parent that dies takes an unfinished container with it.
"""

from __future__ import annotations

import os
from _struct import Struct

from rootless.errors import RootlessError
from rootless.launch import idmap, init
from rootless.plan.encode import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.plan.compile import Plan
    from rootless.plan.ops import Op

    Message = tuple[int, int, int, bytes]
    """Type, value, errno, detail."""

USERNS_READY = 1
NAMESPACES_READY = 2
READY = 3
FAILED = 4
SKIPPED = 5

_MESSAGE = Struct("=IiiI")
_LARGEST = 4096


class Launch:
    """One container on its way from a Plan to its program.

    Attributes:
        plan: what is executed.
        pid: the container's process as the caller's process tree sees it; 0 until it exists.
    """

    def __init__(self, plan: Plan, *, start: int = -1, console: int = -1, keep: int = 0) -> None:
        """Start helpers/init. `start` and `console` stay the caller's, to be closed once this returns."""
        self.plan = plan
        self.pid = 0
        self._report, child_report = os.pipe()
        child_reply, self._reply = os.pipe()
        try:
            encoded = encode(plan.ops)
            self._first = init.spawn(
                encoded, report=child_report, reply=child_reply, start=start, console=console, keep=keep
            )
        except BaseException:
            self.close()
            raise
        finally:
            os.close(child_report)
            os.close(child_reply)

    def until_ready(self, on_process: Callable[[int], None]) -> None:
        """Talk until everything but the program is there; `on_process` gets the pid as soon as there is one.

        Raises:
            RootlessError: an operation failed; nothing of the container runs any more.
        """
        if not self._talk(on_process):
            self.kill()
            raise RootlessError(
                "the init program ended without a word",
                cause="it was killed, by someone or for want of memory",
                fix="look at the kernel's log (dmesg) for the reason",
                code="RL-INIT",
            )

    def until_executed(self) -> None:
        """Talk until the program has taken the place of helpers/init.

        Raises:
            RootlessError: an operation failed; nothing of the container runs any more.
        """
        self._talk(None)

    def start(self) -> None:
        """Let the program of a container that is ready run, and return when it does."""
        os.write(self._reply, b"S")
        self.until_executed()

    def _talk(self, on_process: Callable[[int], None] | None) -> bool:
        """Answer messages up to READY; False is end of file."""
        skips: list[Message] = []
        try:
            while message := read_message(self._report):
                kind, value, _, _ = message
                if kind == USERNS_READY and self.plan.maps:
                    idmap.write(self._first, self.plan.maps)
                    os.write(self._reply, b"M")
                elif kind == NAMESPACES_READY and on_process:
                    self.pid = value
                    self.wait_first()
                    on_process(value)
                    os.write(self._reply, b"G")
                elif kind == SKIPPED:
                    skips.append(message)
                else:
                    self._tell_skips(skips, message)
                    if kind == READY:
                        return True
                    self._complain(message)
        except BaseException:
            self.kill()
            raise
        return False

    def _tell_skips(self, skips: list[Message], outcome: Message) -> None:
        """Log the operations that were skipped, but for one whose alternative failed likewise: the error tells it."""
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
        for pid in (self._first, self.pid):
            if pid:
                _end(pid)
        self._first = self.pid = 0

    def close(self) -> None:
        """Close the parent's ends of the pipes."""
        for name in ("_report", "_reply"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def wait_first(self) -> int:
        """Return the wait status of the first stage; for a Plan that does not fork it is the program's."""
        status = os.waitpid(self._first, 0)[1]
        self._first = 0
        return status


def read_message(fd: int) -> Message | None:
    """Return the next message (type, value, errno, detail), or None at end of file."""
    head = os.read(fd, _MESSAGE.size)
    if len(head) < _MESSAGE.size:
        return None
    kind, value, number, length = _MESSAGE.unpack(head)
    return kind, value, number, os.read(fd, min(length, _LARGEST)) if length else b""


def complain(op: Op | None, kind: int, number: int, detail: bytes) -> None:
    """Raise what a FAILED message about an operation means, or log a SKIPPED one."""
    from rootless.launch.failure import explained, skipped

    call, _, more = detail.partition(b"\0")
    if kind == SKIPPED:
        skipped(op, call.decode(), number)
    else:
        raise explained(op, call.decode(), number, more)


def _end(pid: int) -> None:
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
