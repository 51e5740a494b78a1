"""The verb `cp`: files between the caller and a running container.

The host never looks up a path of the container. A process of the executor inside does (helpers/init/tree.c), which
sends or receives a stream of files; the image needs no tar.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, BinaryIO

from rootless import paths
from rootless.container.inside import tree_files, tree_tar
from rootless.container.inside.running_container import STDOUT, RunningContainer
from rootless.errors import EXIT_SIGPIPE, RootlessError
from rootless.image.archive.tar_write import SinkError
from rootless.plan import ops
from rootless.plan.ops import Op

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.options import Options

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
    with RunningContainer(options, source_id or target_id) as container:
        if source_id:
            _out(container, source, target)
        else:
            _into(container, source, target)


def _split(word: str) -> tuple[str, str]:
    """Return the container and the path of a word; a path of the host has no colon before its first slash."""
    before, colon, path = word.partition(":")
    return (before, path or "/") if colon and before and "/" not in before else ("", word)


def _misfit(what: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"cp {what}", cause=cause, fix=fix, code="RL-CP")


# --- Out of a container -----------------------------------------------------------------------------------------------


def _out(container: RunningContainer, source: str, target: str) -> None:
    """Copy `source` of the container to `target` of the host, as podman names the result."""
    source, contents = _normal("/" + source)
    name = paths.name(source) or "."
    send = Op(ops.SEND_TREE, 1, 0, source)
    if target == STREAM:
        if os.isatty(STDOUT):
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
            container.run(send, lambda stream: tree_files.to_files(stream, directory, name))
        finally:
            os.close(directory)
    except OSError as error:
        raise _misfit(
            target, (error.strerror or "").lower() + (f": {error.filename}" if error.filename else ""), "name another"
        ) from None


def _print_tar(stream: BinaryIO, name: str) -> None:
    try:
        tree_tar.to_tar(stream, name, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except (SinkError, BrokenPipeError):
        sys.exit(EXIT_SIGPIPE)  # the reader of the archive has gone; the process in the container still writes


def _mode_here(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


# --- Into a container -------------------------------------------------------------------------------------------------


def _into(container: RunningContainer, source: str, target: str) -> None:
    target = "/" + target.lstrip("/")
    uid, gid = container.state.user
    if source == STREAM:
        receive = Op(ops.RECEIVE_TREE, target)
        container.run(receive, lambda stream: tree_tar.from_tar(sys.stdin.buffer, (uid, gid), stream))
        return
    path, contents = _normal(source)
    mode = _mode_here(path)
    if not mode:
        raise _misfit(source, "no such file or directory", "name a file of the host")
    contents = contents or not paths.name(path)
    parent, name = _place(target, paths.name(path), mode, contents=contents, mode_of=container.mode_of)
    receive = Op(ops.RECEIVE_TREE, parent)
    container.run(receive, lambda stream: tree_files.from_files(path, name, (uid, gid), stream))


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
