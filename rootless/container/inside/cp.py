"""The verb `cp`: files between the caller and a running container.

The host never looks up a path of the container. A process of the executor inside does (helpers/init/tree.c), which
sends or receives a stream of files; the image needs no tar.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from rootless import paths
from rootless.bundle.load import Bundle
from rootless.container.inside import tree_stream
from rootless.container.operations.container_run import ContainerRun
from rootless.container.request import copy_request
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATING, STOPPED, status
from rootless.container.state.root import state_root
from rootless.errors import EXIT_SIGPIPE, RootlessError
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
_STDIN, _STDOUT = 0, 1
STREAM = "-"


def cp(options: Options) -> None:
    """Copy a file, a directory or a tar archive into a container or out of it.

    Raises:
        RootlessError: `RL-USAGE`: not one of the two is a container's. `RL-CP`: a path does not fit.
        SystemExit: the reader of the archive has gone; the status is that of a program ended by SIGPIPE.
    """
    (source_id, source), (target_id, target) = (_split(word) for word in (options.source, options.target))
    if bool(source_id) is bool(target_id):
        raise RootlessError(
            "cp",
            cause="one of the two has to be CONTAINER:PATH, and the other one a path of the host or -",
            fix="rootless cp web:/etc/hosts . or rootless cp page.html web:/srv",
            code="RL-USAGE",
        )
    with _Container(options, source_id or target_id) as container:
        if source_id:
            _out(container, source, target)
        else:
            _into(container, source, target)


def _split(word: str) -> tuple[str, str]:
    """Return the container and the path of a word; a path of the host has no colon before its first slash."""
    before, colon, path = word.partition(":")
    return (before, path or "/") if colon and before and "/" not in before else ("", word)


class _Container:
    """A running container, entered once for each tree."""

    def __init__(self, options: Options, container_id: str) -> None:
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
        return self

    def __exit__(self, *_: object) -> None:
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
            return self.run(Op(ops.SEND_TREE, 0, path), first)
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
            with _as_stream(_STDOUT if sends else _STDIN, writer if sends else reader):
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
        raise RootlessError(
            f"container {entry.container_id}",
            cause="container not running",
            fix="start it: its files are in its mount namespace",
            code="RL-STATUS",
        )
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
        "cp",
        cause=f"the process in container {container_id} was killed",
        fix="copy while the container runs; a process of it may have ended all others",
        code="RL-CP",
    )


def _misfit(what: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"cp {what}", cause=cause, fix=fix, code="RL-CP")


# --- Out of a container -----------------------------------------------------------------------------------------------


def _out(container: _Container, source: str, target: str) -> None:
    """Copy `source` of the container to `target` of the host, as podman names the result."""
    source, contents = _normal("/" + source)
    name = paths.name(source) or "."
    send = Op(ops.SEND_TREE, 1, source)
    if target == STREAM:
        if os.isatty(_STDOUT):
            raise _misfit("-", "standard output is a terminal", "redirect the tar archive to a file or a pipe")
        container.run(send, lambda stream: _print_tar(stream, "." if contents else name))
        return
    mode = container.mode_of(source)
    if not mode:
        raise _misfit(container.path(source), "no such file or directory", "name a file of the container")
    parent, name = _place(target, name, mode, contents=contents or name == ".", mode_of=_mode_here)
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            container.run(send, lambda stream: tree_stream.to_files(stream, directory, name))
        finally:
            os.close(directory)
    except OSError as error:
        raise _misfit(
            target, (error.strerror or "").lower() + (f": {error.filename}" if error.filename else ""), "name another"
        ) from None


def _print_tar(stream: BinaryIO, name: str) -> None:
    try:
        tree_stream.to_tar(stream, name, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader of the archive has gone; the process in the container still writes
        sys.exit(EXIT_SIGPIPE)


def _mode_here(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


# --- Into a container -------------------------------------------------------------------------------------------------


def _into(container: _Container, source: str, target: str) -> None:
    target = "/" + target.lstrip("/")
    uid, gid = container.state.user
    if source == STREAM:
        receive = Op(ops.RECEIVE_TREE, target)
        container.run(receive, lambda stream: tree_stream.from_tar(sys.stdin.buffer, (uid, gid), stream))
        return
    path, contents = _normal(source)
    mode = _mode_here(path)
    if not mode:
        raise _misfit(source, "no such file or directory", "name a file of the host")
    contents = contents or not paths.name(path)
    parent, name = _place(target, paths.name(path), mode, contents=contents, mode_of=container.mode_of)
    receive = Op(ops.RECEIVE_TREE, parent)
    container.run(receive, lambda stream: tree_stream.from_files(path, name, (uid, gid), stream))


# --- Names ------------------------------------------------------------------------------------------------------------


def _normal(path: str) -> tuple[str, bool]:
    """Return an absolute source, and whether only its contents are meant: its last component is `.`."""
    contents = path in (".", "..") or path.endswith(("/.", "/.."))
    return paths.absolute(path).replace("//", "/"), contents


def _place(target: str, name: str, mode: int, *, contents: bool, mode_of: Callable[[str], int]) -> tuple[str, str]:
    """Return the directory in which the tree of a source is made, and its name there, as podman-cp(1) describes.

    The name is empty if the contents of the source go into the directory itself.

    Args:
        target: the word of the command line.
        name: the last component of the source.
        mode: of the source.
        contents: whether a directory stands for its contents.
        mode_of: returns the mode of a path on the side of the target, 0 for a missing one.
    """
    there = mode_of(target)
    bare = target.rstrip("/")
    above, own = paths.parent(bare) or ("/" if target.startswith("/") else "."), paths.name(bare)
    if stat.S_ISDIR(there):
        return target, "" if stat.S_ISDIR(mode) and contents else name
    if stat.S_ISDIR(mode) and there:
        raise _misfit(target, "it is a file, and the source a directory", "name a directory")
    if target.endswith("/") and not stat.S_ISDIR(mode):
        raise _misfit(target, "no such directory", "create it, or leave the slash out to copy to a file of that name")
    return above, own
