"""Decompresses a stream; the format is recognized by its first bytes, not by its name."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import lzma
    from collections.abc import Callable

_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
MAGIC_LENGTH = 6
"""Bytes by which is_compressed() decides."""
_CHUNK = 1 << 16
_XZ_MEMORY = 256 << 20
"""`xz -9` needs 65 MB; the format allows 4 GB. libzstd has a limit itself, 128 MB."""


class Source(io.RawIOBase):
    """Bytes of a file from its beginning, counted for a progress bar.

    Attributes:
        name: for messages.
        size: in bytes; None for a pipe.
        head: its first bytes; reading starts with them.
        progress: called with the number of bytes of each read, possibly from another thread.
    """

    _file: io.FileIO | None = None

    def __init__(self, path: str) -> None:
        """Open the file `path`, or standard input when it is ``-``.

        Raises:
            RootlessError: it cannot be opened, or is a directory.
        """
        super().__init__()
        self.name = "standard input" if path == "-" else path
        self.progress: Callable[[int], object] = lambda _count: None
        try:
            file = open(os.dup(0) if path == "-" else path, "rb", buffering=0)  # noqa: SIM115 - see close()
            self._file = file
            status = os.fstat(file.fileno())
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
            self.head = b""
            while len(self.head) < MAGIC_LENGTH and (piece := file.read(MAGIC_LENGTH - len(self.head))):
                self.head += piece
        except OSError as error:
            raise RootlessError(f"open {self.name}", cause=str(error.strerror), code="RL-ARCHIVE") from error
        self._unread = self.head
        self._stop = os.eventfd(0)

    def stop(self) -> None:
        """Make reading an OSError from now on, in another thread too, which may wait for a pipe."""
        os.eventfd_write(self._stop, 1)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase names a wider buffer type
        """Read at most ``len(buffer)`` bytes and return how many; 0 at the end."""
        data = self._unread[: len(buffer)]
        self._unread = self._unread[len(data) :]
        if not data and self._file:
            ready, _, _ = select.select([self._file.fileno(), self._stop], [], [])
            if self._stop in ready:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.progress(len(data))
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if self._file and not self.closed:
            self._file.close()
            os.close(self._stop)
        super().close()


def is_compressed(head: bytes) -> bool:
    """Whether decompressed() does not return a file that begins like this unchanged."""
    return head.startswith((_GZIP, _BZIP2, _XZ, _ZSTD))


def decompressed(source: Source) -> io.BufferedIOBase:
    """Return the content of `source` as a stream: of gzip, bzip2, xz or zstd, or else unchanged.

    Reading the stream raises OSError, EOFError, ValueError, zlib.error or lzma.LZMAError where the file is damaged.

    Raises:
        RootlessError: `RL-ARCHIVE`: zstd is not available.
    """
    buffered = io.BufferedReader(source, 1 << 18)
    if source.head.startswith(_GZIP):
        import gzip

        return gzip.GzipFile(fileobj=buffered, mode="rb")
    if source.head.startswith(_BZIP2):
        import bz2

        return bz2.BZ2File(buffered)
    if source.head.startswith(_XZ):
        return io.BufferedReader(_Xz(buffered, source.name), _CHUNK)
    if source.head.startswith(_ZSTD):
        return io.BufferedReader(_Zstd(buffered, source.name), _CHUNK)
    return buffered


class _Xz(io.RawIOBase):
    """The content of xz streams, one after the other, as lzma.LZMAFile but with a limit of memory."""

    def __init__(self, compressed: io.BufferedIOBase, name: str) -> None:
        super().__init__()
        self._compressed = compressed
        self._name = name
        self._decompressor: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase names a wider buffer type
        """Read at most ``len(buffer)`` bytes and return how many; 0 at the end.

        Raises:
            EOFError: it is cut short.
            lzma.LZMAError: it is damaged.
            RootlessError: `RL-ARCHIVE`: it needs more memory than the limit.
        """
        import lzma

        while True:
            data = b""
            if self._decompressor is None or self._decompressor.eof:
                data = self._next_stream()
                if not data:
                    return 0
                self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
            elif self._decompressor.needs_input:
                data = self._compressed.read(_CHUNK)
                if not data:
                    message = "the compressed file ends before its end-of-stream marker"
                    raise EOFError(message)
            try:
                piece = self._decompressor.decompress(data, len(buffer))
            except lzma.LZMAError as error:
                if "Memory usage limit" not in str(error):
                    raise
                raise RootlessError(
                    f"read {self._name}",
                    cause=f"decompressing it takes more than {_XZ_MEMORY >> 20} MB of memory",
                    fix="compress it again: xz -9",
                    code="RL-ARCHIVE",
                ) from None
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)

    def _next_stream(self) -> bytes:
        """Return the first bytes after the end of a stream and its padding, zeros."""
        data = self._decompressor.unused_data if self._decompressor else b""
        while not (data := data.lstrip(b"\0")):
            data = self._compressed.read(_CHUNK)
            if not data:
                return b""
        return data


class _Zstd(io.RawIOBase):
    """The content of zstd frames; ZstdError, which is no error of the standard library, becomes ValueError."""

    def __init__(self, compressed: io.BufferedIOBase, name: str) -> None:
        """Open it.

        Raises:
            RootlessError: `RL-ARCHIVE`: neither Python nor a package can decompress zstd.
        """
        super().__init__()
        try:
            if sys.version_info >= (3, 14):
                from compression import zstd
            else:
                from backports import zstd
        except ImportError:
            raise RootlessError(
                f"read {name}",
                cause="it is compressed with zstd, which needs Python 3.14 or the Python package backports.zstd",
                fix="install it: pip install backports.zstd",
                code="RL-ARCHIVE",
            ) from None
        self._file = zstd.ZstdFile(compressed)
        self._damaged = zstd.ZstdError

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase names a wider buffer type
        """Read at most ``len(buffer)`` bytes and return how many; 0 at the end.

        Raises:
            EOFError: it is cut short.
            ValueError: it is damaged, or takes more than 128 MB of memory.
        """
        try:
            return self._file.readinto(buffer)
        except self._damaged as error:
            raise ValueError(str(error)) from None
