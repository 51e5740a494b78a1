"""The verb `save`: the files of a container, a bundle or an image, as one image.

Of a container the image has what its processes see, without mounts: the root of its mount namespace, whose changes may
be in memory. A process inside reads it (running_container.py), while the container may go on.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from rootless import log
from rootless.container.inside.running_container import RunningContainer
from rootless.container.inside.tree_files import SparseFile
from rootless.container.inside.tree_stream import Dropped, entries
from rootless.container.inside.tree_tar import write_tar
from rootless.container.state import store
from rootless.container.state.lifecycle import CREATING, STOPPED, status
from rootless.container.state.root import state_root
from rootless.errors import RootlessError
from rootless.image.archive.tar_write import SinkError
from rootless.image.merge.layers import LARGEST_IMAGE, LayerFile, disk_error, nameless_file, too_large
from rootless.image.merge.tree import WHITEOUT
from rootless.image.save import configuration, save_bundle, target_of, write_image
from rootless.image.squashfs.image_file import is_image, open_image
from rootless.plan import ops
from rootless.plan.ops import Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack

    from rootless.container.inside.tree_stream import Content, Entry
    from rootless.container.state.directory import ContainerDir
    from rootless.container.state.state import State
    from rootless.options import Options


def save(options: Options) -> None:
    """Save a container, a bundle or an image as an image.

    A container wins over a directory of the same name, which has a path with a slash as well.

    Raises:
        RootlessError: nothing was made.
    """
    target_of(options.output)
    word = options.bundle or "."
    if not options.overlay and "overlay" in vars(options):
        fix = "name the directory that run --overlay was given, or leave it out"
        raise RootlessError("--overlay", cause="its value is empty", fix=fix, code="RL-USAGE")
    if not _names_container(options, word):
        save_bundle(word, options.overlay, options.output)
        return
    if options.overlay:
        raise RootlessError(
            f"--overlay {options.overlay}",
            cause=f"{word} is a container, whose changes are saved anyway",
            fix="leave it out, or name a bundle or an image",
            code="RL-USAGE",
        )
    with RunningContainer(options, word) as container:
        rootfs = container.state.rootfs
        config = configuration(container.entry.read_config(), open_image(rootfs) if is_image(rootfs) else None)
        write_image(
            lambda stack, directory: [_layer(container, stack, directory)], config, options.output, reference=word
        )


def _names_container(options: Options, word: str) -> bool:
    """Whether a word is the id of a container that does not only exist, but has its mounts.

    Raises:
        RootlessError: `RL-STATUS`: it has stopped; the fix says what is left of it.
    """
    if not store.is_id(word):
        return False
    try:
        entry = store.find(state_root(options.root), word, lock=False)
    except RootlessError as error:
        if error.code != "RL-NOT-FOUND":
            raise
        return False
    with entry:
        state = store.existing_state(entry)
        if status(entry, state) in (CREATING, STOPPED):
            raise RootlessError(
                f"container {word}",
                cause="container not running",
                fix=_what_is_left(entry, state),
                code="RL-STATUS",
            )
    return True


def _what_is_left(entry: ContainerDir, state: State) -> str:
    """Return how to save a container that has stopped: its mounts, and with them what was in memory, have ended."""
    asked = entry.read_request()
    overlay = str((asked.get("options") or {}).get("overlay") or "")
    source = state.rootfs if os.path.isfile(state.rootfs) else state.bundle
    if overlay not in ("", "memory"):
        return f"rootless save {source} --overlay {os.path.join(str(asked.get('directory', '')), overlay)} --output …"
    if overlay or os.path.isfile(state.rootfs):
        return "save it while it runs: its changes were in memory, unless it is run with --overlay DIR"
    return f"rootless save {os.path.join(source, '')} --output …"


def _layer(container: RunningContainer, stack: ExitStack, directory: str) -> LayerFile:
    """Return the root of a container as a tar archive, in a file without a name."""
    file = stack.enter_context(nameless_file(directory))
    sink = _Limited(file)
    dropped = Dropped()
    try:
        send = Op(ops.SEND_TREE, 1, 1, "/")
        container.run(send, lambda stream: write_tar(_presentable(entries(stream)), ".", sink, dropped))  # type: ignore[arg-type]
        sink.finish()
    except SinkError as error:
        raise disk_error(error.__cause__) from error  # type: ignore[arg-type]
    dropped.report("save")
    return LayerFile(f"/proc/self/fd/{file.fileno()}")


def _presentable(tree: Iterable[tuple[Entry, Content]]) -> Iterator[tuple[Entry, Content]]:
    """Leave out what no layer of an image can have: sockets, and names that mean the absence of a file there."""
    for entry, content in tree:
        path = os.fsdecode(entry.path)
        if any(part.startswith(WHITEOUT) for part in path.split("/")):
            log.warning(f"save: {path} is left out: images mark removed files by such names")
        elif stat.S_ISSOCK(entry.mode):
            log.info(f"save: {path} is left out: it is a socket")
        else:
            yield entry, content


class _Limited(SparseFile):
    """A file that does not become larger than the largest image."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self._size > LARGEST_IMAGE:
            raise too_large("its files")
