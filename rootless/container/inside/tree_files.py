"""The stream of `cp` as files of the host.

What comes out of a container is hostile: a path with `..`, a symlink and then a file behind it, a device, a setuid
program. Files are made below the open destination, through directories that are opened without following a symlink.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from rootless import files
from rootless.container.inside.tree_stream import (
    ALL_MODES,
    CHUNK,
    END,
    NO_XATTRS,
    Dropped,
    Entry,
    entries,
    pack,
    pour,
    skipped,
)
from rootless.image.archive.tar_read import CAPABILITY, keeps_xattr

if TYPE_CHECKING:
    from rootless.container.inside.tree_stream import Content

_PERMISSIONS = 0o777
_LEAST_HOLE = 4096
"""Bytes of a block of most file systems."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        sparse = SparseFile(file)
        while chunk := content.read(CHUNK):
            sparse.write(chunk)
        sparse.finish()
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


class SparseFile:
    """A new file to which zeros are written as holes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append data."""
        self._size += len(data)
        if len(data) > _LEAST_HOLE and data.count(0) == len(data):
            self._file.seek(len(data), os.SEEK_CUR)
        else:
            self._file.write(data)

    def finish(self) -> None:
        """Give the file its size, which may end with a hole.

        Raises:
            OSError: the disk is full.
        """
        self._file.flush()
        self._file.truncate(self._size)


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
            return NO_XATTRS
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
