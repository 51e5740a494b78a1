"""A merged tree of files as one tar archive: what sqfstar reads."""

from __future__ import annotations

import os
import tarfile

from rootless.errors import RootlessError
from rootless.image.archive.tar_read import CHUNK, DEVICE, DIRECTORY, FILE, LINK, PIPE
from rootless.image.archive.tar_write import END, describe_holes, headers, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from rootless.image.merge.tree import Content, Node, Tree

_TYPES = {DIRECTORY: tarfile.DIRTYPE, LINK: tarfile.SYMTYPE, FILE: tarfile.REGTYPE, PIPE: tarfile.FIFOTYPE}


def write_tar(tree: Tree, layers: Sequence[BinaryIO], sink: BinaryIO, *, root: bool = False) -> None:
    """Write the files of `tree`, sorted by name, without device nodes.

    Args:
        tree: the merged layers.
        layers: their archives, the lowest first.
        sink: a stream.
        root: write an entry for the root directory.

    Raises:
        RootlessError: `RL-ARCHIVE`: a layer is shorter than it was.
        SinkError: writing to `sink` failed.
        OSError: reading a layer failed.
    """
    first: dict[int, str] = {}
    for path, node in _sorted(tree.root):
        if node.kind == DEVICE or not (path or root):
            continue
        entry = tarfile.TarInfo(path or ".")
        entry.mode, entry.uid, entry.gid, entry.mtime = node.mode, node.uid, node.gid, node.mtime
        if node.inode and first.setdefault(node.inode, path) != path:
            entry.type, entry.linkname = tarfile.LNKTYPE, first[node.inode]
            put(sink, headers(entry, {}))
            continue
        entry.type, entry.linkname = _TYPES[node.kind], node.target
        if node.content:
            _write_file(entry, node, node.content, layers, sink)
        else:
            put(sink, headers(entry, node.xattrs))
    put(sink, END)


def content_of(content: Content, layers: Sequence[BinaryIO]) -> Iterator[bytes]:
    """Yield the data of a file, without its holes.

    Raises:
        RootlessError: `RL-ARCHIVE`: the layer is shorter than it was.
        OSError: reading the layer failed.
    """
    fd = layers[content.layer - 1].fileno()
    offset, left = content.offset, _stored(content)
    while left > 0:
        piece = os.pread(fd, min(left, CHUNK), offset)
        if not piece:
            raise RootlessError(f"read layer {content.layer}", cause="it is cut short", code="RL-ARCHIVE")
        yield piece
        offset += len(piece)
        left -= len(piece)


def _sorted(root: Node) -> Iterator[tuple[str, Node]]:
    todo = [("", root)]
    while todo:
        path, node = todo.pop()
        yield path, node
        prefix = path + "/" if path else ""
        todo.extend((prefix + name, node.children[name]) for name in sorted(node.children, reverse=True))


def _write_file(
    entry: tarfile.TarInfo, node: Node, content: Content, layers: Sequence[BinaryIO], sink: BinaryIO
) -> None:
    entry.size = content.size
    records, table = node.xattrs, b""
    if content.segments is not None:
        records = dict(records)
        entry, table = describe_holes(entry, content.segments, records)
    put(sink, headers(entry, records) + table)
    for piece in content_of(content, layers):
        put(sink, piece)
    put(sink, bytes(-_stored(content) % tarfile.BLOCKSIZE))


def _stored(content: Content) -> int:
    """Return how many bytes of the layer are the file's."""
    return content.size if content.segments is None else sum(length for _, length in content.segments)
