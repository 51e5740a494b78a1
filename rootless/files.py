"""Files that a reader finds whole or not at all, and small files of the host's."""

from __future__ import annotations

import _stat as stat
import errno
import posix

from rootless import paths
from rootless.errors import EXHAUSTED

_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR)
"""What open(2) says where a file system does not have O_TMPFILE: NFS, for one."""
HIGHEST_FD = 511
"""The highest number of PMI_FD, so that this process can open as many files: it usually may have 1024."""
CONTENT = "content"
"""Note of a path and the bytes in the file, None if it cannot be read (paths.noted)."""
IDENTITY = "identity"
"""Note of a path and the result of fstat(2) of the file, None if it cannot be read."""
LISTED = "listed"
"""Note of a path, and whether a line of the file is the id of this process."""
_WITHOUT_IDENTITY = ("/proc/", "/sys/")
"""Where a file may change and look the same to stat(2)."""
_CHUNK = 1 << 16
"""Bytes of a read; what a container's directory holds is mostly smaller."""


def text_of(path: str) -> str:
    """Return what is in a file of the host without the blanks around it; nothing where there is none to read.

    Raises:
        OSError: it may be there, but descriptors or memory have run out, or the disk is broken.
    """
    content, identity = _read(path)
    if path.startswith(_WITHOUT_IDENTITY):
        paths.noted(CONTENT, path, content)
    else:
        paths.noted(IDENTITY, path, identity)
    return _text(content)


def derived_text(path: str) -> str:
    """Do as text_of(), without a note of the read: the caller notes what it takes from the text."""
    return _text(_read(path)[0])


def fixed_text(path: str) -> str:
    """Do as text_of(), without a note, for a file that does not change before the next boot."""
    return _text(_read(path)[0])


def lists_caller(path: str) -> bool:
    """Whether a line of a file of the host's is the id of this process."""
    found = str(posix.getpid()) in derived_text(path).splitlines()
    paths.noted(LISTED, path, found)
    return found


def read_noted(path: str) -> bytes:
    """Return the content of a file of the caller's.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        content = file.read()
    paths.noted(CONTENT, path, content)
    return content


def note_identity(path: str, fd: int) -> None:
    """Note the read of a file that the caller names: by its identity, if that shows every change and can be looked at.

    A named pipe, for example, is read once.
    """
    if not paths.notes_reads():
        return
    found = posix.fstat(fd)
    has_one = stat.S_ISREG(found.st_mode) and not posix.readlink(f"/proc/self/fd/{fd}").startswith(_WITHOUT_IDENTITY)
    paths.noted(IDENTITY if has_one else paths.UNKNOWN, path, found)


def _read(path: str) -> tuple[bytes | None, posix.stat_result | None]:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(), posix.fstat(file.fileno()) if paths.notes_reads() else None
    except OSError as error:
        if error.errno in EXHAUSTED or error.errno == errno.EIO:
            raise
        return None, None


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace").strip()


def close_fds(owner: object, *names: str) -> None:
    """Close the descriptors that these attributes hold, each -1 first: none is closed twice, whatever comes between."""
    for name in names:
        fd = getattr(owner, name)
        setattr(owner, name, -1)
        if fd >= 0:
            posix.close(fd)


def is_inherited(fd: int) -> bool:
    """Whether a descriptor is open and comes from the caller: those that this process opens close on execve."""
    try:
        return posix.get_inheritable(fd)
    except OSError:
        return False


def put(path: str, content: bytes, mode: int, *, dir_fd: int | None = None) -> None:
    """Make or replace a file; a relative path starts at the directory `dir_fd`, if that is given.

    It gets its name when all is written: a process that is killed meanwhile leaves nothing, where the file system
    supports files without a name.

    Raises:
        OSError: nothing was left behind.
    """
    try:
        flags = posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC
        fd = posix.open(paths.parent(path) or ".", flags, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
        _put_by_rename(path, content, mode, dir_fd)
        return
    try:
        _write_all(fd, content)
        _link(fd, path, dir_fd)
    finally:
        posix.close(fd)


def make_private(directory: str) -> None:
    """Make a directory for the caller alone, and those above it that are missing; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    missing = [directory]
    while (parent := paths.parent(missing[-1])) and not paths.exists(parent):
        missing.append(parent)
    for each in reversed(missing):
        try:
            posix.mkdir(each, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(posix.stat(each).st_mode):
                raise


def open_own(path: str, dir_fd: int | None = None) -> int:
    """Open a directory that only the caller can change; return its descriptor.

    The check is of what was opened: a user who can rename a directory above can exchange it at any time.

    Raises:
        OSError: there is none, it is a symbolic link, or it belongs to another user or others can write there (EPERM).
    """
    fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=dir_fd)
    status = posix.fstat(fd)
    if status.st_uid != posix.geteuid() or status.st_mode & 0o022:
        posix.close(fd)
        raise PermissionError(errno.EPERM, "others can change it", path)
    return fd


def content(name: str, dir_fd: int, path: str = "") -> bytes:
    """Return the content of a file in the directory `dir_fd`; no symlink is followed, no named pipe waited for.

    With `path`, the note of the read is one of that file.

    Raises:
        OSError: it cannot be read, or is a symlink.
    """
    if not path:
        paths.noted(paths.UNKNOWN, name)
    fd = posix.open(name, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=dir_fd)
    try:
        # not by a file object: `list` reads one for each container, and that asks for size and position first
        chunks = []
        while chunk := posix.read(fd, _CHUNK):
            chunks.append(chunk)
        whole = b"".join(chunks)
        if path:
            paths.noted(CONTENT, path, whole)
        return whole
    finally:
        posix.close(fd)


def unlink(path: str, dir_fd: int | None = None) -> None:
    """Remove a file, if nobody else did."""
    try:
        posix.unlink(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return


def _link(fd: int, path: str, dir_fd: int | None) -> None:
    while True:
        try:
            # naming src_dir_fd makes this linkat(2), the only one that follows /proc/self/fd
            posix.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, dst_dir_fd=dir_fd, follow_symlinks=True)
        except FileExistsError:
            unlink(path, dir_fd)
        else:
            return


def _put_by_rename(path: str, content: bytes, mode: int, dir_fd: int | None = None) -> None:
    temporary = paths.join(paths.parent(path), f".{paths.name(path)}.{posix.getpid()}")
    fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        try:
            _write_all(fd, content)
        finally:
            posix.close(fd)
        posix.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        unlink(temporary, dir_fd)
        raise


def _write_all(fd: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += posix.write(fd, content[written:])
