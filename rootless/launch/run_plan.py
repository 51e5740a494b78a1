"""The loop that runs a Plan: launcher operations by their handlers, the others by the executor, in one order.

    launcher   claim … spawn ┐                  ┌ write ID maps ┐            ┌ state, network ┐         ┌ state …
    executor                 └ new user ns ─────┘ TURN          └ … fork ────┘ TURN           └ … ready ┘ READY

The executor gets its own operations of the whole list at once, and hands over where one of the launcher's follows.
Rejected: a message for each operation, which costs a round trip for each of about a hundred.
"""

from __future__ import annotations

import posix
from time import monotonic

from rootless import files, log, paths
from rootless.launch.protocol import (
    EXECUTING,
    FAILED,
    LISTENER,
    MESSAGES_WITH_DESCRIPTORS,
    MONITORED,
    PROGRESS,
    READY,
    SKIPPED,
    START,
    START_AND_TRACE,
    TURN,
    Executor,
    complain,
    end_child,
    end_process,
    executor_killed,
    listener_lost,
    read_message,
    reap,
    warn_of_filter,
)
from rootless.lazy import lazy
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.plan import HANDS_OVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rootless.launch.allocate_ids import allocate as allocate_ids
    from rootless.launch.fd_messages import Received
    from rootless.launch.protocol import Descriptors, Message
    from rootless.launch.trace import trace_kind, trace_operation, trace_progress
    from rootless.launch.write_idmaps import begin as begin_id_maps
    from rootless.launch.write_idmaps import wait as await_id_maps
    from rootless.plan.ops import Kind
    from rootless.plan.plan import Plan

    Handler = Callable[..., None]
    """Carries out an operation, given the Run and the operation."""
else:
    allocate_ids = lazy("rootless.launch.allocate_ids", "allocate")
    begin_id_maps = lazy("rootless.launch.write_idmaps", "begin")
    await_id_maps = lazy("rootless.launch.write_idmaps", "wait")
    Received = lazy("rootless.launch.fd_messages", "Received")
    trace_kind = lazy("rootless.launch.trace", "trace_kind")
    trace_operation = lazy("rootless.launch.trace", "trace_operation")
    trace_progress = lazy("rootless.launch.trace", "trace_progress")

_PASSING = (ops.PASS_NAMESPACES, ops.FORWARD_NOTIFICATIONS, ops.PASS_NOTIFY, ops.NETLINK, ops.FUSE)
"""Operations because of which messages carry descriptors."""


class Run:
    """One Plan being run.

    Attributes:
        plan: the Plan.
        position: the index of the next operation.
        descriptors: those that the executor inherits; handlers of operations before SPAWN fill it in.
        executor: the executor, from SPAWN on.
        pid: the container's process in the caller's process tree, from FORK on; before that 0.
        process: from then on, a pidfd of it if a monitor is its parent, or -1; open until kill() or close().
        namespaces: from then on, the numbers of the namespaces that IDENTIFY names, 64 bits each.
        takers: by kind of message, the function that gets its descriptors; without one they go into `passed`.
        passed: by kind of message, the descriptors that came with it.
        to_close: descriptors that only the executor needs after SPAWN.
        sent: the executor's operations by their numbers, each with its place in the list (plan/plan.py).
        skips: operation, errno and detail of each skipped one.
        begun: by kind of operation, the work that its `begin` has started and its `await` waits for.
    """

    def __init__(self, plan: Plan, descriptors: Descriptors, handlers: Mapping[Kind, Handler] | None = None) -> None:
        """Prepare; nothing is run yet. `handlers` are those of the launcher operations beyond launch/."""
        self.plan = plan
        self.position = 0
        self.descriptors = descriptors
        self.executor: Executor | None = None
        self.pid = 0
        self.process = -1
        self.namespaces = b""
        self.takers: dict[int, Callable[..., None]] = {}
        self.passed: dict[int, tuple[int, ...]] = {}
        self.begun: dict[str, Any] = {}
        self.to_close: list[int] = []
        self._handlers = handlers or HANDLERS
        self._answer = b""
        self._passing = False
        self.sent: list[tuple[int, Op]] = []
        self.skips: list[tuple[int, int, bytes]] = []

    def until(self, kind: Kind | None = None) -> None:
        """Run operations up to the next one of `kind`, which does not run, or to the end.

        After an error the container is still there, as far as it has come: kill() ends it.

        Raises:
            RootlessError: an operation failed.
        """
        operations = self.plan.ops
        while self.position < len(operations) and operations[self.position].kind is not kind:
            op = operations[self.position]
            if op.kind.by == ops.LAUNCHER:
                self._perform(op)
                self.position += 1
            else:
                self._follow_executor()

    def until_or_kill(self, kind: Kind | None = None) -> None:
        """Do as until(), and kill() after an error.

        Raises:
            RootlessError: an operation failed. Nothing that the executor made runs any more.
        """
        try:
            self.until(kind)
        except BaseException:
            self.kill()
            raise

    def only(self, *kinds: Kind) -> None:
        """Run the launcher's operations of these kinds, for a container whose processes another program makes."""
        for op in self.plan.ops:
            if op.kind in kinds:
                self._perform(op)

    def kill(self) -> None:
        """End the container's process and those of the executor, children of this one, and close the connection."""
        if self.executor:
            self.executor.kill()
        if self.process >= 0:
            end_process(self.process)
        elif self.pid:
            end_child(self.pid)
        self.pid = 0
        if self.executor and self.executor.monitor:
            end_child(self.executor.monitor)
        files.close_fds(self, "process")
        self._close_given()
        self.close_passed()

    def close(self) -> None:
        """Leave the container's process alone."""
        if self.executor:
            self.executor.close()
        files.close_fds(self, "process")

    def close_passed(self) -> None:
        """Close received descriptors that no handler has taken."""
        for descriptors in self.passed.values():
            for fd in descriptors:
                posix.close(fd)
        self.passed.clear()

    def spawn(self) -> None:
        """Start the executor with its part of the Plan.

        Raises:
            RootlessError: `RL-INIT`: it cannot be started.
        """
        if self.plan.first(ops.HOOK):
            self.plan.load_environment(paths.environment())
        self.sent = self.plan.executor_part()
        operations = [op for _, op in self.sent]
        self._passing = bool(self.plan.first(*_PASSING))
        self.executor = Executor(operations, self.descriptors, passing=self._passing, trace=log.is_debug())
        self._close_given()

    def _close_given(self) -> None:
        while self.to_close:
            posix.close(self.to_close.pop())

    def resume(self, connection: int, first: int, *, goes_on: bool = False) -> None:
        """Go on with an executor that waits for its start, over a connection to its start socket.

        Args:
            connection: a descriptor, which kill() and close() close.
            first: the number by which the executor knows the first of its operations in this Plan.
            goes_on: whether it goes on already.
        """
        self.sent = [(-1, Op(ops.YIELD))] * first + self.plan.executor_part()
        self._passing = bool(self.plan.first(*_PASSING))
        self._answer = b"" if goes_on else START_AND_TRACE if log.is_debug() else START
        self.executor = Executor.connected(connection)

    def _perform(self, op: Op) -> None:
        handler = self._handlers[op.kind]
        if log.is_debug():
            trace_operation(self.position, op, lambda: handler(self, op))
        else:
            handler(self, op)

    def _follow_executor(self) -> None:
        """Let the executor continue, and return when it hands over or its program starts."""
        executor = self.executor
        assert executor
        if self._answer:
            executor.answer(self._answer)
        operations = self.plan.ops
        end = self.position
        while True:
            last = operations[end].kind
            end += 1
            if last in HANDS_OVER or end == len(operations) or operations[end].kind.by == ops.LAUNCHER:
                break
        if last is not ops.WAIT_START:
            self._listen(executor)
        self.position = end
        if last is ops.WAIT_START:
            self._answer = START_AND_TRACE if log.is_debug() else START
        else:
            self._answer = b"" if last is ops.READY else b"G"

    def _listen(self, executor: Executor) -> None:
        """Read messages until the executor hands over, or up to the end of file after EXECUTING.

        Raises:
            RootlessError: an operation failed, or the executor was killed.
        """
        read = self._reader() if self._passing else read_message
        skipped: list[Message] = []
        reached = listener = 0
        begin = monotonic()
        while reached not in (TURN, READY) and (message := read(executor.report)):
            kind, value, number, detail = message
            if kind == PROGRESS:
                trace_progress(self.sent, value, number, detail)
            elif kind == SKIPPED:
                skipped.append(message)
            elif kind == MONITORED:
                executor.interpose(value)
            elif kind == LISTENER:
                listener = value
            else:
                self._tell_skips(skipped, message)
                if kind == FAILED:
                    self._complain(message)
                reached, last, begin = kind, begin, monotonic()
                if kind == TURN and value:
                    self._take_process(executor, value, detail, (begin - last) * 1e6)
        if not reached:
            raise executor_killed()
        if reached == EXECUTING:
            self._finish(executor, listener, (monotonic() - begin) * 1e6)

    def _finish(self, executor: Executor, listener: int, microseconds: float) -> None:
        """Complete the start of the program: `listener` is the process that has sent the filter's notifications, or 0.

        Raises:
            RootlessError: `RL-SECCOMP-LISTENER`: nobody has sent them.
        """
        if log.is_debug():
            trace_kind(self.sent, ops.EXEC, microseconds)
        if self.plan.first(ops.FORWARD_NOTIFICATIONS):
            if not listener:
                raise listener_lost()
            reap(listener)
        if self.plan.first(ops.SECCOMP):
            warn_of_filter(self.pid or executor.first)

    def _take_process(self, executor: Executor, pid: int, namespaces: bytes, microseconds: float) -> None:
        if executor.monitor:  # which may reap the process, so that its number is reused
            try:
                self.process = posix.pidfd_open(pid)
            except ProcessLookupError:
                raise executor_killed() from None
        self.pid, self.namespaces = pid, namespaces
        executor.wait_first()
        if log.is_debug():
            trace_kind(self.sent, ops.FORK, microseconds)

    def _reader(self) -> Callable[[int], Message | None]:
        """Return the function that reads messages, some of which carry descriptors."""

        def keep(kind: int) -> Callable[..., None]:
            return lambda *descriptors: self.passed.__setitem__(kind, descriptors)

        kept = {kind: keep(kind) for kind in MESSAGES_WITH_DESCRIPTORS}
        return Received(kept | self.takers).read

    def _tell_skips(self, skipped: list[Message], outcome: Message) -> None:
        """Log the skipped operations, except one whose alternative failed likewise: the error says so."""
        failed, number = (outcome[1], outcome[2]) if outcome[0] == FAILED else (-1, 0)
        for skip in skipped:
            self.skips.append(skip[1:])
            index = skip[1]
            if not (index < failed <= index + self.sent[index][1].alternatives and skip[2] == number):
                self._complain(skip)
        skipped.clear()

    def _complain(self, message: Message) -> None:
        kind, index, number, detail = message
        complain(self.sent[index][1] if 0 <= index < len(self.sent) else None, kind, number, detail)


def _spawn(run: Run, _op: Op) -> None:
    run.spawn()


def _begin_id_maps(run: Run, op: Op) -> None:
    assert run.executor
    run.begun["id maps"] = begin_id_maps(run.executor.first, op.value("maps"))


def _await_id_maps(run: Run, _op: Op) -> None:
    await_id_maps(run.begun.pop("id maps"))


def _allocate_ids(run: Run, op: Op) -> None:
    assert run.executor
    allocate_ids(run.executor.first, op.value("maps"))


HANDLERS: dict[Kind, Handler] = {
    ops.SPAWN: _spawn,
    ops.BEGIN_ID_MAPS: _begin_id_maps,
    ops.AWAIT_ID_MAPS: _await_id_maps,
    ops.ALLOCATE_IDS: _allocate_ids,
}
