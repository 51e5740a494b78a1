r"""One image in one file: a squashfs, alone or inside a SIF file, and what stands behind it, the trailer.

    squashfs …| padding to 4 KiB | "rootless image 1 LENGTH\n" | JSON

The trailer holds the image's configuration, so that a file that was copied elsewhere is still the whole image. The
kernel, squashfuse and unsquashfs read a squashfs up to its own size and see no trailer. Images of enroot, pyxis and
apptainer have none.

Every byte of such a file may be hostile: each size is limited and each offset checked.

Source: https://dr-emann.github.io/squashfs/ (superblock); https://github.com/apptainer/sif, pkg/sif/sif.go (SIF).
"""

from __future__ import annotations

import errno
import posix
import stat
import struct
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from rootless import files, jsontext, paths
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEPT_FILES = ("/etc/passwd", "/etc/group")
"""Files of the image that the trailer repeats: they resolve the names of users."""
LARGEST_FILE = 1 << 20
"""Bytes of a file that `ImageFile.read` returns. containerd had no such limit: CVE-2026-47262."""
LARGEST_CONFIG = 4 << 20
"""Bytes of an image's configuration; registries refuse larger ones."""

_SQUASHFS = struct.Struct("<I 24x HH 8x Q")
_SQUASHFS_MAGIC = 0x73717368
_SQUASHFS_HEADER = 96
_BLOCK = 4096

_SIF_LAUNCHER = 32
"""Bytes of a line such as `#!/usr/bin/env run-singularity`, in front of the magic."""
_SIF_MAGIC = b"SIF_MAGIC\0"
_SIF_HEADER = struct.Struct("<32x 10s 22x 24x qq")
_SIF_DESCRIPTOR = struct.Struct("<i?12xqq 40x 128x ii 376x")
_SIF_MOST_DESCRIPTORS = 4096
_SIF_PARTITION = 0x4004
_SIF_SQUASHFS, _SIF_ENCRYPTED = 1, 5
_SIF_PRIMARY = 2

_TRAILER = b"rootless image 1 "
_LARGEST_TRAILER = LARGEST_CONFIG + 4 * LARGEST_FILE
_PATIENCE = 30  # seconds
_NO_MATCH = 2  # unsquashfs's exit status
_DIGEST_LENGTH = len("sha256:") + 64


class ImageFile:
    """A file that holds an image.

    Attributes:
        path: of the file.
        identity: device, inode, size and time of change, by which open() knows it again.
        offset: byte of the file at which its squashfs begins.
        size: bytes of the squashfs.
        digest: of the image's manifest, such as ``sha256:…``; empty if it is unknown.
        reference: the name that the image was pulled by; empty if it is unknown.
        config: the image's configuration (image specification, config.md); empty if the file has none.
    """

    __slots__ = ("_files", "config", "digest", "identity", "offset", "path", "reference", "size")

    def __init__(self, path: str, identity: tuple[int, int, int, int], offset: int, size: int) -> None:
        self.path = path
        self.identity = identity
        self.offset = offset
        self.size = size
        self.digest = ""
        self.reference = ""
        self.config: dict[str, Any] = {}
        self._files: dict[str, bytes | None] | None = None

    def open(self) -> int:
        """Return a descriptor of the file, for reading.

        Raises:
            RootlessError: `RL-IMAGE`: it cannot be opened, or it is not the one that open_image() has read.
        """
        fd = _opened(self.path)
        if _identity(posix.fstat(fd)) != self.identity:
            posix.close(fd)
            raise _bad(self.path, "it was changed or exchanged meanwhile")
        return fd

    def read(self, path: str) -> bytes:
        """Return the content of a file in the image, by its absolute path.

        A relative symlink is followed inside the image; unsquashfs follows no absolute one.

        Raises:
            FileNotFoundError: the image has no such file.
            RootlessError: `RL-IMAGE`: it is larger than LARGEST_FILE, or cannot be read.
        """
        if self._files is not None and path in KEPT_FILES:
            if path not in self._files:
                raise FileNotFoundError(errno.ENOENT, posix.strerror(errno.ENOENT), path)
            content = self._files[path]
            if content is None:
                raise _too_large(self.path, path)
            return content
        return _cat(self, path)

    def take(self, trailer: dict[str, Any]) -> None:
        """Take the properties of a trailer whose types are right; the others count as missing."""
        digest, reference, config = (trailer.get(key) for key in ("digest", "reference", "config"))
        if isinstance(digest, str) and len(digest) == _DIGEST_LENGTH and digest.startswith("sha256:"):
            self.digest = digest
        self.reference = reference if isinstance(reference, str) else ""
        self.config = config if isinstance(config, dict) else {}
        files = trailer.get("files")
        self._files = {}
        for path, text in files.items() if isinstance(files, dict) else ():
            try:
                self._files[path] = None if text is None else a2b_base64(text)[:LARGEST_FILE]
            except (Base64Error, TypeError, ValueError):
                continue


def is_image(path: str) -> bool:
    """Return whether a regular file begins as a squashfs or a SIF file does; False if it cannot be read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        head = posix.pread(fd, _SIF_LAUNCHER + len(_SIF_MAGIC), 0) if stat.S_ISREG(posix.fstat(fd).st_mode) else b""
    except OSError:
        return False
    finally:
        posix.close(fd)
    return head.startswith(_SQUASHFS_MAGIC.to_bytes(4, "little")) or head[_SIF_LAUNCHER:] == _SIF_MAGIC


def open_image(path: str) -> ImageFile:
    """Read what a file says of itself: where its squashfs is, and its trailer.

    Raises:
        RootlessError: `RL-IMAGE`: the file cannot be read, or holds no squashfs.
    """
    fd = _opened(path)
    try:
        status = posix.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _bad(path, "it is not a file")
        files.note_identity(path, fd)
        offset = _sif_offset(fd, path) if posix.pread(fd, len(_SIF_MAGIC), _SIF_LAUNCHER) == _SIF_MAGIC else 0
        image = ImageFile(path, _identity(status), offset, _squashfs_size(fd, offset, status.st_size, path))
        trailer = _trailer(fd, offset + image.size, path)
    except OSError as error:
        raise _bad(path, str(error.strerror)) from error
    finally:
        posix.close(fd)
    if trailer:
        image.take(trailer)
    return image


def write_trailer(
    fd: int, *, config: dict[str, Any], digest: str, reference: str, files: dict[str, bytes | None]
) -> None:
    """Write a trailer behind the squashfs that begins at byte 0 of `fd`, and cut off what follows it.

    Args:
        fd: a file, open for reading and writing.
        config: the image's configuration.
        digest: of its manifest.
        reference: the name that it was pulled by.
        files: the content of KEPT_FILES, those that the image has; None for one that is larger than LARGEST_FILE.

    Raises:
        OSError: writing failed.
        RootlessError: the file holds no squashfs.
    """
    kept = {
        path: None if content is None else b2a_base64(content, newline=False).decode()
        for path, content in files.items()
    }
    trailer = {"reference": reference, "digest": digest, "config": config, "files": kept}
    text = jsontext.render(trailer, None).encode() + b"\n"
    end = _padded(_squashfs_size(fd, 0, posix.fstat(fd).st_size, "the new image"))
    posix.truncate(fd, end)
    with open(posix.dup(fd), "r+b") as file:
        file.seek(end)
        file.write(b"%s%d\n%s" % (_TRAILER, len(text), text))


def _opened(path: str) -> int:
    try:
        # not to wait for the writer of a named pipe
        return posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError as error:
        raise _bad(path, str(error.strerror)) from error


def _identity(status: posix.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _squashfs_size(fd: int, offset: int, file_size: int, path: str) -> int:
    head = posix.pread(fd, _SQUASHFS_HEADER, offset)
    if len(head) < _SQUASHFS_HEADER:
        raise _bad(path, "it holds no squashfs file system")
    magic, major, _, size = _SQUASHFS.unpack_from(head)
    if magic != _SQUASHFS_MAGIC or major != 4:  # noqa: PLR2004 - the format's only present version
        raise _bad(path, "it holds no squashfs file system")
    if not _SQUASHFS_HEADER <= size <= file_size - offset:
        raise _bad(path, "it is cut short")
    return int(size)


def _sif_offset(fd: int, path: str) -> int:
    """Return where the squashfs of a SIF file begins: its primary system partition."""
    head = posix.pread(fd, _SIF_HEADER.size, 0)
    if len(head) < _SIF_HEADER.size:
        raise _bad(path, "it is cut short")
    _, total, start = _SIF_HEADER.unpack(head)
    if not (0 <= total <= _SIF_MOST_DESCRIPTORS and start >= _SIF_HEADER.size):
        raise _bad(path, "its SIF header is damaged")
    table = posix.pread(fd, total * _SIF_DESCRIPTOR.size, start)
    whole = len(table) - len(table) % _SIF_DESCRIPTOR.size
    for kind, used, offset, _, filesystem, role in _SIF_DESCRIPTOR.iter_unpack(table[:whole]):
        if used and kind == _SIF_PARTITION and role == _SIF_PRIMARY:
            if filesystem == _SIF_SQUASHFS and offset > 0:
                return int(offset)
            raise _bad(
                path,
                "its root file system is encrypted" if filesystem == _SIF_ENCRYPTED else "its root is no squashfs",
                fix="build the SIF file again, with an unencrypted squashfs",
            )
    raise _bad(path, "it has no primary system partition")


def _trailer(fd: int, end: int, path: str) -> dict[str, Any]:
    """Return the trailer behind byte `end`; nothing if there is none."""
    start = _padded(end)
    line = posix.pread(fd, 40, start)
    if not line.startswith(_TRAILER):
        return {}
    number, newline, _ = line.removeprefix(_TRAILER).partition(b"\n")
    if not newline or not number.isdigit() or int(number) > _LARGEST_TRAILER:
        raise _bad(path, "its trailer is damaged")
    text = posix.pread(fd, int(number), start + len(_TRAILER) + len(number) + 1)
    try:
        value = jsontext.parse(text, "trailer")
    except RootlessError as error:
        raise _bad(path, f"its trailer is damaged: {error.cause}") from None
    if len(text) < int(number) or not isinstance(value, dict):
        raise _bad(path, "its trailer is damaged")
    return value


def _cat(image: ImageFile, path: str) -> bytes:
    """Return the content of a file in the squashfs, by unsquashfs: no kernel and no mount is needed."""
    import threading

    paths.noted(paths.UNKNOWN, path)  # of an image without a trailer
    from rootless.image.squashfs.unsquashfs import Unsquashfs

    run = Unsquashfs(image, ["-follow-symlinks", "-cat"], [path.lstrip("/")])
    end = threading.Timer(_PATIENCE, run.kill)  # a damaged file system may have loops
    end.start()
    try:
        content = run.output.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            run.kill()
        status = run.wait()
    finally:
        end.cancel()
        end.join()
        run.close()
    if len(content) > LARGEST_FILE:
        raise _too_large(image.path, path)
    if status == _NO_MATCH:
        raise FileNotFoundError(errno.ENOENT, posix.strerror(errno.ENOENT), path)
    if status:
        raise _bad(image.path, f"unsquashfs cannot read {path} in it")
    return content


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _too_large(image: str, path: str) -> RootlessError:
    return _bad(image, f"{path} in it has more than {LARGEST_FILE >> 20} MB")


def _bad(path: str, cause: str, fix: str = "") -> RootlessError:
    return RootlessError(f"open the image {path}", cause=cause, fix=fix, code="RL-IMAGE")
