"""The stream of files between `cp` and its process in the container (helpers/init/tree.c).

    entry | path | target | attributes | content    for each file, a directory before what is in it
    entry with mode 0                               the end of a stream into the container

What comes out of a container is hostile. tree_files.py makes files of the stream, and tree_tar.py a tar archive.
"""

from __future__ import annotations

import os
import stat
import struct
from io import RawIOBase
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from rootless import log
from rootless.errors import RootlessError
from rootless.image.archive.tar_read import CAPABILITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ENTRY = struct.Struct("=IIIIIIqQQQ")
_XATTR = struct.Struct("=II")
_LONGEST = 4096
_MOST_XATTRS = 1 << 18
"""Bytes of all extended attributes of a file, with their names."""
CHUNK = 1 << 16
"""Bytes that are read at once."""
ALL_MODES = 0o7777
NO_XATTRS: dict[str, bytes] = {}
"""Shared by all files that have none, and never changed."""


class Entry(NamedTuple):
    """A file of a tree.

    Attributes:
        path: from the root of the tree, whose own is empty.
        mode: its type and permissions.
        uid, gid: in the container.
        mtime: seconds since 1970.
        size: bytes of its content.
        target: of a symlink; of a hard link, the path of another entry.
        xattrs: extended attributes, by name.
        inode: device and inode of a file with several hard links; else (0, 0).
    """

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    xattrs: dict[str, bytes] = NO_XATTRS
    inode: tuple[int, int] = (0, 0)


class Content(RawIOBase):
    """The content of one entry, in the stream."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        super().__init__()
        self._source = source
        self._left = size

    def readable(self) -> bool:
        """Return true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, all that are left without one; empty at the end.

        Raises:
            EOFError: the stream has ended before.
        """
        if size < 0 or size > self._left:
            size = self._left
        data = self._source.read(size) if size else b""
        if len(data) < size:
            raise EOFError
        self._left -= size
        return data


def entries(source: BinaryIO) -> Iterator[tuple[Entry, Content]]:
    """Yield the entries of a stream; the content that is not read is skipped.

    Raises:
        EOFError: the stream ends within an entry.
        RootlessError: `RL-CP`: it is not such a stream.
    """
    while head := source.read(_ENTRY.size):
        if len(head) < _ENTRY.size:
            raise EOFError
        mode, uid, gid, path_length, target_length, xattrs_length, mtime, size, device, inode = _ENTRY.unpack(head)
        if path_length > _LONGEST or target_length > _LONGEST or xattrs_length > _MOST_XATTRS or size >> 62:
            raise _hostile("its sizes are impossible")
        path, target, xattrs = (_whole(source, length) for length in (path_length, target_length, xattrs_length))
        if (any(part in (b"", b".", b"..") for part in path.split(b"/")) and path) or b"\0" in path + target:
            raise _hostile(f"it names {path!r}")
        content = Content(source, size)
        yield Entry(path, mode, uid, gid, mtime, size, target, _xattrs(xattrs), (device, inode)), content
        while content.read(CHUNK):
            pass


def _whole(source: BinaryIO, length: int) -> bytes:
    data = source.read(length) if length else b""
    if len(data) < length:
        raise EOFError
    return data


def _xattrs(data: bytes) -> dict[str, bytes]:
    found = {} if data else NO_XATTRS
    while data:
        name_length, value_length = _XATTR.unpack(data[: _XATTR.size]) if len(data) >= _XATTR.size else (0, 0)
        value_at = _XATTR.size + name_length
        name, value = data[_XATTR.size : value_at], data[value_at : value_at + value_length]
        if name.find(b"\0") != name_length - 1 or name_length <= 1 or len(value) < value_length:
            raise _hostile("its extended attributes are impossible")
        found[os.fsdecode(name[:-1])] = value
        data = data[value_at + value_length :]
    return found


def pack(entry: Entry) -> bytes:
    """Return an entry as bytes, without its content."""
    path, mode, uid, gid, mtime, size, target, xattrs, inode = entry
    attributes = b""
    for name, value in xattrs.items():
        encoded = os.fsencode(name) + b"\0"
        attributes += _XATTR.pack(len(encoded), len(value)) + encoded + value
    head = _ENTRY.pack(mode, uid, gid, len(path), len(target), len(attributes), mtime, size, *inode)
    return head + path + target + attributes


END = pack(Entry(b"", 0))


def _hostile(why: str) -> RootlessError:
    return RootlessError(
        "cp: cannot read what the container sends", cause=why, fix="do not trust the container", code="RL-CP"
    )


class Dropped:
    """The extended attributes that a copy does not have.

    Labels of security modules are the host's own affair, and nothing is said of them.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, names: Iterable[str]) -> None:
        """Note attributes that were left out."""
        self._names.update(name for name in names if name == CAPABILITY or not name.startswith("security."))

    def report(self, what: str) -> None:
        """Warn of them, if there are any."""
        if self._names:
            log.warning(f"{what}: left out extended attributes: {', '.join(sorted(self._names))}")


def skipped(path: str, mode: int) -> None:
    """Warn of a file that is not copied."""
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    log.warning(f"cp: {path} is left out: it is {kinds.get(stat.S_IFMT(mode), 'a device')}")


def pour(file: BinaryIO, size: int, output: BinaryIO) -> None:
    """Write exactly `size` bytes; a file that has become shorter ends with zeros."""
    while size > 0:
        data = file.read(min(size, CHUNK)) or bytes(min(size, CHUNK))
        output.write(data)
        size -= len(data)
