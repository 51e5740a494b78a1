"""The layers of an image as files that can be read at any place: compressed ones are decompressed once, to disk.

Merging needs the names of all layers before the first file is written, and then the files in another order. Reading a
compressed layer twice takes longer than writing it down; holding it in memory limits the size of images.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rootless.errors import EXHAUSTED, RootlessError
from rootless.image.archive.decompress import Source, decompressed, is_compressed
from rootless.image.archive.tar_read import BROKEN, CHUNK, shown
from rootless.image.store.temporary import Temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from io import BufferedIOBase
    from typing import IO, BinaryIO

LARGEST_IMAGE = 256 << 30
"""Bytes of all layers, decompressed; and of all files in an image with their holes."""

_ZEROS = bytes(CHUNK)
_MOST_THREADS = 4


class LayerFile:
    """A layer as it was downloaded.

    Attributes:
        path: of the file; ``/proc/self/fd/N`` for a descriptor.
        media_type: as in the image's manifest. The compression is recognized by the first bytes; this is for messages.
        overlay: it is the upper directory of an overlay, where whiteouts are device nodes and attributes.
    """

    __slots__ = ("media_type", "overlay", "path")

    def __init__(self, path: str, media_type: str = "", *, overlay: bool = False) -> None:
        self.path = path
        self.media_type = media_type
        self.overlay = overlay


class Layer:
    """A layer, decompressed.

    Attributes:
        file: a tar archive, at its beginning; the reader closes it.
        name: for messages.
        diff_id: digest of the archive (image specification, config.md).
        size: bytes of the archive.
    """

    __slots__ = ("diff_id", "file", "name", "size")

    def __init__(self, file: BinaryIO, name: str, diff_id: str, size: int) -> None:
        self.file = file
        self.name = name
        self.diff_id = diff_id
        self.size = size


class _Budget:
    """How many bytes all layers may still have, and whether it is time to stop."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = LARGEST_IMAGE

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise too_large("its layers")


@contextmanager
def temporary_file(directory: str) -> Iterator[Temporary]:
    """Give a file with a temporary name, which is removed at the end unless it was published.

    What a killed process leaves is known to `rootless image prune`, in a store.

    Raises:
        OSError: it cannot be created.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Temporary(fd, f"image-{os.urandom(8).hex()}") as file:
            yield file
    finally:
        os.close(fd)


def nameless_file(directory: str) -> BinaryIO:
    """Return a file that is gone when it is closed, or this process ends; open for reading and writing.

    Raises:
        RootlessError: `RL-LIMIT`, `RL-IMAGE`: it cannot be created.
    """
    try:
        with temporary_file(directory) as file:
            return open(os.dup(file.fd), "w+b")
    except OSError as error:
        raise disk_error(error) from error


def decompressed_layers(files: Sequence[LayerFile], directory: str) -> Generator[Layer]:
    """Decompress layers, several at a time, and yield them in their order.

    Args:
        files: the layers, the lowest first.
        directory: where temporary files may be made; they have no names, so that nothing is left of them.

    Raises:
        RootlessError: `RL-ARCHIVE`: a layer is damaged or cannot be read; `RL-IMAGE`: they are too large;
            `RL-LIMIT`: the disk is full.
    """
    budget = _Budget()
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        waiting = [pool.submit(_decompress, file, number, directory, budget) for number, file in enumerate(files, 1)]
        try:
            while waiting:
                yield waiting.pop(0).result()
        finally:
            budget.left = -1  # the others end soon
            pool.shutdown(cancel_futures=True)
            for each in waiting:
                if not each.cancelled() and not each.exception():
                    each.result().file.close()


def too_large(what: str) -> RootlessError:
    """Return the error for an image that exceeds LARGEST_IMAGE."""
    return RootlessError("make the image", cause=f"{what} have more than {LARGEST_IMAGE >> 30} GiB", code="RL-IMAGE")


def _decompress(file: LayerFile, number: int, directory: str, budget: _Budget) -> Layer:
    name = f"layer {number}"
    digest = hashlib.sha256()
    with Source(file.path) as source, decompressed(source) as stream:
        plain = not is_compressed(source.head)
        target = open(file.path, "rb") if plain else nameless_file(directory)  # noqa: SIM115
        try:
            size = _copy(stream, None if plain else target, name, digest.update, budget)
        except BaseException:
            target.close()
            raise
    return Layer(target, name, "sha256:" + digest.hexdigest(), size)


def _copy(
    stream: BufferedIOBase, target: IO[bytes] | None, name: str, update: Callable[[bytes], object], budget: _Budget
) -> int:
    """Read `stream` to its end and write it to `target`, with holes for zeros; return the number of bytes."""
    size = 0
    while True:
        try:
            piece = stream.read(CHUNK)
        except BROKEN as error:
            cause = f"it is damaged or cut short: {shown(str(error)) or type(error).__name__}"
            raise RootlessError(f"read {name}", cause=cause, code="RL-ARCHIVE") from error
        if not piece:
            break
        budget.spend(len(piece))
        update(piece)
        size += len(piece)
        if target:
            _write(target, piece)
    if target:
        target.truncate(size)
        target.seek(0)
    return size


def _write(target: IO[bytes], piece: bytes) -> None:
    try:
        if piece == _ZEROS:
            target.seek(CHUNK, os.SEEK_CUR)
        else:
            target.write(piece)
    except OSError as error:
        raise disk_error(error) from error


def disk_error(error: OSError) -> RootlessError:
    """Return the error for a file of the image that cannot be written."""
    fix = EXHAUSTED.get(error.errno or 0, "")
    return RootlessError(
        "make the image", cause=str(error.strerror).lower(), fix=fix, code="RL-LIMIT" if fix else "RL-IMAGE"
    )
