"""The stream of files between `cp` and its process in the container (helpers/init/tree.c), and what is made of it.

    entry | path | target | content        for each file, a directory before what is in it
    entry with mode 0                      the end of a stream into the container

What comes out of a container is hostile: a path with `..`, a symlink and then a file behind it, a device, a setuid
program. Files are made below the open destination, through directories that are opened without following a symlink.
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
from io import RawIOBase
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from rootless import files, log
from rootless.errors import RootlessError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENTRY = struct.Struct("=IIIIIIqQ")
_LONGEST = 4096
_CHUNK = 1 << 16
_PERMISSIONS = 0o777
_ALL_MODES = 0o7777
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """A file of a tree.

    Attributes:
        path: from the root of the tree, whose own is empty.
        mode: its type and permissions.
        uid, gid: in the container.
        mtime: seconds since 1970.
        size: bytes of its content.
        target: of a symlink; of a hard link, the path of another entry.
    """

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""


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
        mode, uid, gid, path_length, target_length, _, mtime, size = _ENTRY.unpack(head)
        if path_length > _LONGEST or target_length > _LONGEST or size >> 62:
            raise _hostile("its sizes are impossible")
        path, target = source.read(path_length), source.read(target_length)
        if len(path) + len(target) < path_length + target_length:
            raise EOFError
        if (any(part in (b"", b".", b"..") for part in path.split(b"/")) and path) or b"\0" in path + target:
            raise _hostile(f"it names {path!r}")
        content = Content(source, size)
        yield Entry(path, mode, uid, gid, mtime, size, target), content
        while content.read(_CHUNK):
            pass


def pack(entry: Entry) -> bytes:
    """Return an entry as bytes, without its content."""
    path, mode, uid, gid, mtime, size, target = entry
    return _ENTRY.pack(mode, uid, gid, len(path), len(target), 0, mtime, size) + path + target


END = pack(Entry(b"", 0))


def _hostile(why: str) -> RootlessError:
    return RootlessError(
        "cp: cannot read what the container sends", cause=why, fix="do not trust the container", code="RL-CP"
    )


# --- Out of a container ----------------------------------------------------------------------------------------------


def to_tar(source: BinaryIO, name: str, output: BinaryIO) -> None:
    """Write the tree of a stream as a tar archive, in which its root has this name."""
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for entry, content in entries(source):
            path = os.fsdecode(entry.path)
            member = tarfile.TarInfo(f"{name}/{path}" if path else name)
            member.mode = entry.mode & _ALL_MODES
            member.uid, member.gid, member.mtime = entry.uid, entry.gid, entry.mtime
            kind = _TAR_TYPES.get(stat.S_IFMT(entry.mode))
            if kind is None:
                _skipped(path or name, entry.mode)
                continue
            member.type, member.linkname = kind, os.fsdecode(entry.target)
            member.size = entry.size
            archive.addfile(member, content if entry.size else None)


_TAR_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def to_files(source: BinaryIO, parent: int, name: str) -> None:
    """Make the tree of a stream below the directory `parent`: files of the caller's.

    Its root gets this name; with an empty one, its contents go into the directory itself.

    An existing file or symlink is replaced; an existing directory gets more content. Setuid and other special bits
    are left out.

    Raises:
        OSError: a file cannot be made, or a symlink has the name of a directory.
    """
    for entry, content in entries(source):
        steps = [step for step in (name, *os.fsdecode(entry.path).split("/")) if step]
        if not steps:
            continue  # the destination itself
        *parents, last = steps
        directory = _descend(parent, parents)
        try:
            _make(directory, last, entry, content)
        finally:
            os.close(directory)


def _descend(parent: int, names: list[str]) -> int:
    directory = os.open(".", _DIRECTORY, dir_fd=parent)
    for name in names:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory


def _make(directory: int, name: str, entry: Entry, content: Content) -> None:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFDIR:
        try:
            os.mkdir(name, entry.mode & _PERMISSIONS | 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise
        return
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        _skipped(os.fsdecode(entry.path) or name, entry.mode)
        return
    files.unlink(name, directory)
    if kind == stat.S_IFLNK:
        os.symlink(entry.target, name, dir_fd=directory)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
        os.fchmod(file.fileno(), entry.mode & _PERMISSIONS)
        os.utime(file.fileno(), (entry.mtime, entry.mtime))


def _skipped(path: str, mode: int) -> None:
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
    try:
        _send(root, f"/proc/self/fd/{root}", os.fsencode(name), owner, output, follow=True)
    finally:
        os.close(root)
    output.write(END)


def _send(parent: int, child: str, name: bytes, owner: tuple[int, int], output: BinaryIO, *, follow: bool) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    status = os.stat(child, dir_fd=parent, follow_symlinks=follow)
    kind = stat.S_IFMT(status.st_mode)
    entry = Entry(name, kind | status.st_mode & _ALL_MODES, *owner, int(status.st_mtime))
    if kind == stat.S_IFREG:
        with open(os.open(child, flags, dir_fd=parent), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            output.write(pack(entry._replace(size=size)))
            _pour(file, size, output)
    elif kind == stat.S_IFLNK:
        output.write(pack(entry._replace(target=os.fsencode(os.readlink(child, dir_fd=parent)))))
    elif kind == stat.S_IFDIR:
        if name:
            output.write(pack(entry))
        directory = os.open(child, flags | os.O_DIRECTORY, dir_fd=parent)
        try:
            for each in sorted(os.listdir(directory)):
                below = os.fsencode(each)
                _send(directory, each, name + b"/" + below if name else below, owner, output, follow=False)
        finally:
            os.close(directory)
    elif kind == stat.S_IFIFO:
        output.write(pack(entry))
    else:
        _skipped(os.fsdecode(name), status.st_mode)


def _pour(file: BinaryIO, size: int, output: BinaryIO) -> None:
    """Write exactly `size` bytes; a file that has become shorter ends with zeros."""
    while size > 0:
        data = file.read(min(size, _CHUNK)) or bytes(min(size, _CHUNK))
        output.write(data)
        size -= len(data)


def from_tar(source: BinaryIO, owner: tuple[int, int], output: BinaryIO) -> None:
    """Write the members of a tar archive, compressed or not, as a stream.

    Raises:
        RootlessError: `RL-ARCHIVE`: it is no tar archive, or a member has a name that leads out of it or an impossible
            time.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            for member in archive:
                _send_member(archive, member, owner, output)
    except tarfile.TarError as error:
        raise RootlessError(
            "cp -", cause=str(error), fix="write a tar archive to standard input", code="RL-ARCHIVE"
        ) from None
    output.write(END)


def _send_member(archive: tarfile.TarFile, member: tarfile.TarInfo, owner: tuple[int, int], output: BinaryIO) -> None:
    path, target = _inside(member.name), member.linkname
    kind = next((kind for kind, type_ in _TAR_TYPES.items() if type_ == member.type), 0)
    if member.islnk():
        kind, target = stat.S_IFREG, os.fsdecode(_inside(member.linkname))
    elif member.isreg():  # sparse files and others
        kind = stat.S_IFREG
    if not kind:
        log.warning(f"cp: {member.name} is left out: it is a device")
        return
    if not path:
        return
    file = archive.extractfile(member) if member.isreg() else None
    size = member.size if file else 0
    mode = kind | member.mode & _ALL_MODES
    try:
        packed = pack(Entry(path, mode, *owner, int(member.mtime), size, b"" if file else os.fsencode(target)))
    except (ValueError, OverflowError, struct.error):  # PAX has them as text
        raise _refused(member.name, "its time or size is impossible") from None
    output.write(packed)
    if file:
        _pour(file, size, output)  # type: ignore[arg-type]


def _inside(name: str) -> bytes:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(name, "it leads out of the archive")
    return os.fsencode("/".join(parts))


def _refused(name: str, cause: str) -> RootlessError:
    return RootlessError(f"cp -: {name!r}", cause=cause, fix="do not trust it", code="RL-ARCHIVE")
