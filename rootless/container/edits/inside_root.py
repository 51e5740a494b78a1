"""Files of a container's root file system, read by descriptor: no path of an image leads out of its root."""

from __future__ import annotations

import ctypes
import posix
import stat

from rootless import files, paths
from rootless.bundle.edit.accounts import MOST_BYTES
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OPENAT2 = 437
"""The number of the system call on every architecture."""
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_CHUNK = 1 << 16


class _OpenHow(ctypes.Structure):
    """struct open_how, openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def reader(root: str) -> Callable[[str], bytes]:
    """Return a function that reads a short file below the directory `root`, by its path in the container.

    The function returns nothing for a missing file, and at most a byte more than MOST_BYTES.
    It raises RootlessError `RL-USER` for one that cannot be read, or is not a regular file.
    """

    def read(path: str) -> bytes:
        if paths.crosses_symlink(root + path, root):
            paths.noted(paths.UNKNOWN, path)
        try:
            top = posix.open(root, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
            try:
                found = _open_inside(top, path)
            finally:
                posix.close(top)
            try:
                if not stat.S_ISREG(posix.fstat(found).st_mode):
                    raise _refused(path, "it is not a regular file")
                files.note_identity(root + path, found)
                return _content(found)
            finally:
                posix.close(found)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise _refused(path, (error.strerror or str(error)).lower()) from None

    return read


def image_reader(image: str) -> Callable[[str], bytes]:
    """Return the same for the files in an image, by the path of its file."""

    def read(path: str) -> bytes:
        from rootless.image.squashfs.image_file import open_image

        try:
            return open_image(image).read(path)
        except FileNotFoundError:
            return b""

    return read


def _open_inside(top: int, path: str) -> int:
    """Return an O_PATH descriptor of a path: to open a device or a named pipe of an image would have effects."""
    library = ctypes.CDLL(None, use_errno=True)
    how = _OpenHow(posix.O_PATH | posix.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    fd = int(library.syscall(_OPENAT2, top, path.encode(), ctypes.byref(how), ctypes.sizeof(how)))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number), path)
    return fd


def _content(found: int) -> bytes:
    """Return the content of the file that an O_PATH descriptor stands for, up to a byte more than is allowed."""
    fd = posix.open(f"/proc/self/fd/{found}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = b""
        while len(text) <= MOST_BYTES and (chunk := posix.read(fd, _CHUNK)):
            text += chunk
        return text[: MOST_BYTES + 1]
    finally:
        posix.close(fd)


def _refused(path: str, cause: str) -> RootlessError:
    return RootlessError(
        f"cannot read {path} of the container",
        cause=cause,
        fix="give users and groups as numbers, UID:GID",
        code="RL-USER",
    )
