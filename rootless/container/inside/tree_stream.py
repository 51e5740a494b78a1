"""The stream of files between `cp` and its process in the container (helpers/init/tree.c), and what is made of it.

    entry | path | target | attributes | content    for each file, a directory before what is in it
    entry with mode 0                               the end of a stream into the container

What comes out of a container is hostile: a path with `..`, a symlink and then a file behind it, a device, a setuid
program. Files are made below the open destination, through directories that are opened without following a symlink.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from io import RawIOBase
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from rootless import files, log
from rootless.errors import RootlessError
from rootless.image.archive.tar_read import CAPABILITY, keeps_xattr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ENTRY = struct.Struct("=IIIIIIqQQQ")
_XATTR = struct.Struct("=II")
_LONGEST = 4096
_MOST_XATTRS = 1 << 18
"""Bytes of all extended attributes of a file, with their names."""
_CHUNK = 1 << 16
_PERMISSIONS = 0o777
ALL_MODES = 0o7777
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_NONE: dict[str, bytes] = {}
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
    xattrs: dict[str, bytes] = _NONE
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
        while content.read(_CHUNK):
            pass


def _whole(source: BinaryIO, length: int) -> bytes:
    data = source.read(length) if length else b""
    if len(data) < length:
        raise EOFError
    return data


def _xattrs(data: bytes) -> dict[str, bytes]:
    found = {} if data else _NONE
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


# --- Out of a container ----------------------------------------------------------------------------------------------


def to_files(source: BinaryIO, parent: int, name: str) -> None:
    """Make the tree of a stream below the directory `parent`: files of the caller's.

    Its root gets this name; with an empty one, its contents go into the directory itself.

    An existing file or symlink is replaced; an existing directory gets more content. Setuid and other special bits
    are left out, and so are capabilities. Attributes of users are kept.

    Raises:
        OSError: a file cannot be made, or a symlink has the name of a directory.
    """
    dropped = Dropped()
    for entry, content in entries(source):
        steps = [step for step in (name, *os.fsdecode(entry.path).split("/")) if step]
        if not steps:
            continue  # the destination itself
        *parents, last = steps
        directory = _descend(parent, parents)
        try:
            _make(directory, last, entry, content, dropped)
        finally:
            os.close(directory)
    dropped.report("cp")


def _descend(parent: int, names: list[str]) -> int:
    directory = os.open(".", _DIRECTORY, dir_fd=parent)
    for name in names:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory


def _make(directory: int, name: str, entry: Entry, content: Content, dropped: Dropped) -> None:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFDIR:
        try:
            os.mkdir(name, entry.mode & _PERMISSIONS | 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise
            return
        if entry.xattrs:
            made = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _set_xattrs(made, entry.xattrs, dropped)
            finally:
                os.close(made)
        return
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        skipped(os.fsdecode(entry.path) or name, entry.mode)
        return
    files.unlink(name, directory)
    if kind == stat.S_IFLNK:
        os.symlink(entry.target, name, dir_fd=directory)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
        _set_xattrs(file.fileno(), entry.xattrs, dropped)
        os.fchmod(file.fileno(), entry.mode & _PERMISSIONS)
        os.utime(file.fileno(), (entry.mtime, entry.mtime))


def _set_xattrs(fd: int, xattrs: dict[str, bytes], dropped: Dropped) -> None:
    """Give a file of the host the attributes that only store data: a capability would be a privilege here."""
    for name, value in xattrs.items():
        if name == CAPABILITY or not keeps_xattr(name):
            dropped.add([name])
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
            dropped.add([name])


def skipped(path: str, mode: int) -> None:
    """Warn of a file that is not copied."""
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    log.warning(f"cp: {path} is left out: it is {kinds.get(stat.S_IFMT(mode), 'a device')}")


# --- Into a container ------------------------------------------------------------------------------------------------


def from_files(path: str, name: str, owner: tuple[int, int], output: BinaryIO) -> None:
    """Write the file or the directory at `path` as a stream, under this name; an empty one: the content alone.

    Another user may be able to change what is below: no symlink there is followed.

    Raises:
        OSError: a file cannot be read, or the reader has gone.
    """
    root = os.open(path, os.O_PATH | os.O_CLOEXEC)
    dropped = Dropped()
    try:
        _Sender(owner, output, dropped).send(root, f"/proc/self/fd/{root}", os.fsencode(name), follow=True)
    finally:
        os.close(root)
    output.write(END)
    dropped.report("cp")


class _Sender:
    """Files of the host, written as a stream."""

    def __init__(self, owner: tuple[int, int], output: BinaryIO, dropped: Dropped) -> None:
        self._owner = owner
        self._output = output
        self._dropped = dropped

    def send(self, parent: int, child: str, name: bytes, *, follow: bool) -> None:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        status = os.stat(child, dir_fd=parent, follow_symlinks=follow)
        kind = stat.S_IFMT(status.st_mode)
        entry = Entry(name, kind | status.st_mode & ALL_MODES, *self._owner, int(status.st_mtime))
        if kind == stat.S_IFREG:
            with open(os.open(child, flags, dir_fd=parent), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                self._output.write(pack(entry._replace(size=size, xattrs=self._xattrs(file.fileno()))))
                pour(file, size, self._output)
        elif kind == stat.S_IFLNK:
            self._output.write(pack(entry._replace(target=os.fsencode(os.readlink(child, dir_fd=parent)))))
        elif kind == stat.S_IFDIR:
            directory = os.open(child, flags | os.O_DIRECTORY, dir_fd=parent)
            try:
                if name:
                    self._output.write(pack(entry._replace(xattrs=self._xattrs(directory))))
                for each in sorted(os.listdir(directory)):
                    below = os.fsencode(each)
                    self.send(directory, each, name + b"/" + below if name else below, follow=False)
            finally:
                os.close(directory)
        elif kind == stat.S_IFIFO:
            self._output.write(pack(entry))
        else:
            skipped(os.fsdecode(name), status.st_mode)

    def _xattrs(self, fd: int) -> dict[str, bytes]:
        try:
            names = os.listxattr(fd)
        except OSError:  # the file system has none
            return _NONE
        found = {}
        for name in names:
            try:
                if keeps_xattr(name):
                    found[name] = os.getxattr(fd, name)
                    continue
            except OSError:  # removed meanwhile, or not for the caller
                pass
            self._dropped.add([name])
        return found


def pour(file: BinaryIO, size: int, output: BinaryIO) -> None:
    """Write exactly `size` bytes; a file that has become shorter ends with zeros."""
    while size > 0:
        data = file.read(min(size, _CHUNK)) or bytes(min(size, _CHUNK))
        output.write(data)
        size -= len(data)
