"""A process in a running container that sends files or receives some: for `cp` and `save`.

The host never looks up a path of the container. A process of the executor inside does (helpers/init/tree.c), and a
stream of files connects it with this one.
"""

from __future__ import annotations

import errno
import os
import posix
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from rootless.bundle.load import Bundle
from rootless.container.inside import tree_stream
from rootless.container.operations.container_run import ContainerRun
from rootless.container.request import copy_request
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATING, STOPPED, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.host import facts, running
from rootless.launch.protocol import Descriptors
from rootless.plan import ops
from rootless.plan.copy_plan import compile_copy
from rootless.plan.ops import Op

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.options import Options

T = TypeVar("T")
STDIN, STDOUT = 0, 1


class RunningContainer:
    """A container that is created, runs or is paused; it is entered once for each tree.

    Attributes:
        entry: its directory.
        state: what state.json holds.
    """

    def __init__(self, options: Options, container_id: str) -> None:
        """Open it.

        Raises:
            RootlessError: `RL-NOT-FOUND`: it does not exist; `RL-STATUS`: it has stopped.
        """
        self.root = state_root(options.root)
        self.entry = store.find(self.root, container_id, lock=False)
        self._request = copy_request(options)
        try:
            self.state = store.existing_state(self.entry)
            self._first = _open_first(self.entry, self.state)
        except BaseException:
            self.entry.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its descriptors."""
        os.close(self._first)
        self.entry.close()

    def path(self, path: str) -> str:
        """Return a path for an error."""
        return f"{self.entry.container_id}:{path}"

    def mode_of(self, path: str) -> int:
        """Return the type and permissions of a file, 0 if it does not exist."""

        def first(stream: BinaryIO) -> int:
            return next(entry.mode for entry, _ in tree_stream.entries(stream))

        try:
            return self.run(Op(ops.SEND_TREE, 0, 0, path), first)
        except RootlessError as error:
            if error.number not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return 0

    def run(self, copy: Op, pump: Callable[[BinaryIO], T]) -> T:
        """Run an operation in the container; return what `pump` returns of the other end of its stream.

        Raises:
            RootlessError: the operation failed, or the stream is not one.
        """
        bundle = Bundle(self.state.bundle, self.entry.read_config())
        plan = compile_copy(bundle, facts.read(subordinate=False), self._request, running.read(self.state.pid), copy)
        run = ContainerRun(plan, self.root, Descriptors(process=self._first))
        sends = copy.kind is ops.SEND_TREE
        reader, writer = os.pipe2(os.O_CLOEXEC)
        failures: list[BaseException] = []
        rest = Thread(target=_collect, args=(run, failures))
        stream = open(reader if sends else writer, "rb" if sends else "wb")  # noqa: SIM115 - closed in time
        try:
            with _as_stream(STDOUT if sends else STDIN, writer if sends else reader):
                run.until(ops.WAIT_START)
            rest.start()
            result = pump(stream)
            stream.close()
            rest.join()
        except (EOFError, StopIteration, BrokenPipeError):
            _close(stream)  # or both sides would wait for each other
            rest.join()
            raise (failures or [_broken_off(self.entry.container_id)])[0] from None
        finally:
            run.kill()  # it has ended; or the host's side has failed
            if rest.ident:
                rest.join()
            _close(stream)
        if failures:
            raise failures[0]
        return result


def _open_first(entry: ContainerDir, state: State) -> int:
    """Return a pidfd of the first process of a container that is created, runs or is paused."""
    now = status(entry, state)
    process = state.open_process() if now not in (CREATING, STOPPED) else -1
    if process < 0:
        fix = f"run it again, such as by rootless restart {entry.container_id}: its mounts ended with it"
        if posix.access(state.rootfs + "/.", posix.R_OK | posix.X_OK):
            fix += f"; or look into {state.rootfs}"
        raise RootlessError(f"container {entry.container_id}", cause="container not running", fix=fix, code="RL-STATUS")
    return process


def _collect(run: ContainerRun, failures: list[BaseException]) -> None:
    try:
        run.until()
    except BaseException as error:  # noqa: BLE001 - raised again by the main thread
        failures.append(error)


@contextmanager
def _as_stream(number: int, fd: int) -> Iterator[None]:
    """Have a standard stream be another descriptor, which is closed at the end, while a process starts."""
    saved = os.dup(number)
    os.dup2(fd, number)
    os.close(fd)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


def _close(stream: BinaryIO) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return


def _broken_off(container_id: str) -> RootlessError:
    return RootlessError(
        f"container {container_id}",
        cause="the process that sends or receives files was killed",
        fix="try again while the container runs; a process of it may have ended all others",
        code="RL-CP",
    )
