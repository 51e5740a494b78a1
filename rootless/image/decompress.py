"""A compressed file as the stream of bytes that is in it, told apart by how it begins and not by its name."""

from __future__ import annotations

import errno
import io
import os
import select
import shutil
import stat
import subprocess
import threading

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import lzma
    from collections.abc import Callable

_MAGIC_LENGTH = 6
_CHUNK = 1 << 16
_XZ_MEMORY = 256 << 20
"""`xz -9` needs 65 MB; the format allows 4 GB. zstd has a limit of its own, 128 MB."""


class Source(io.RawIOBase):
    """Bytes of a file from its beginning, counted for a progress bar.

    Attributes:
        name: what people call it.
        size: how many bytes there are; None for a pipe.
        head: its first bytes, which are still to be read.
        progress: called with the number of bytes that were just read, possibly from another thread.
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
            while len(self.head) < _MAGIC_LENGTH and (piece := file.read(_MAGIC_LENGTH - len(self.head))):
                self.head += piece
        except OSError as error:
            raise RootlessError(f"open {self.name}", cause=str(error.strerror), code="RL-ARCHIVE") from error
        self._unread = self.head
        self._stop = os.eventfd(0)

    def stop(self) -> None:
        """End reading, in another thread too, which a pipe might keep waiting: from now on it is an OSError."""
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


def decompressed(source: Source) -> io.BufferedIOBase:
    """Return the stream of what is in `source`: gzip, bzip2, xz and zstd are understood, all else is taken as it is.

    Reading the stream raises OSError, EOFError, zlib.error or lzma.LZMAError where the compressed bytes are wrong.

    Raises:
        RootlessError: zstd, and nothing on this host can read it.
    """
    buffered = io.BufferedReader(source, 1 << 18)
    if source.head.startswith(b"\x1f\x8b"):
        import gzip

        return gzip.GzipFile(fileobj=buffered, mode="rb")
    if source.head.startswith(b"BZh"):
        import bz2

        return bz2.BZ2File(buffered)
    if source.head.startswith(b"\xfd7zXZ\x00"):
        return io.BufferedReader(_Xz(buffered, source.name), _CHUNK)
    if source.head.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(buffered, source.name)
    return buffered


class _Xz(io.RawIOBase):
    """What is in xz streams, one after the other; as lzma.LZMAFile, which takes no limit of memory."""

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
            RootlessError: it takes more memory than there should be for it.
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
        """Return what follows the end of a stream and its padding, zeros."""
        data = self._decompressor.unused_data if self._decompressor else b""
        while not (data := data.lstrip(b"\0")):
            data = self._compressed.read(_CHUNK)
            if not data:
                return b""
        return data


def _zstd(compressed: io.BufferedIOBase, name: str) -> io.BufferedIOBase:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        program = shutil.which("zstd")
    else:
        stream: io.BufferedIOBase = zstd.ZstdFile(compressed)
        return stream
    if program is None:
        raise RootlessError(
            f"read {name}",
            cause="it is compressed with zstd, which needs Python 3.14 or the program zstd, and neither is here",
            fix="install the package zstd",
            code="RL-ARCHIVE",
        )
    return _Filter([program, "-dcq"], compressed)


class _Filter(io.BufferedIOBase):
    """The output of a host program that is fed with `source` by a thread."""

    def __init__(self, argv: list[str], source: io.BufferedIOBase) -> None:
        super().__init__()
        self._source = source
        self._program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()
        self._failure: OSError | None = None

    def read(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes; fewer only at the end.

        Raises:
            EOFError: the program says that its input is wrong or cut short.
            OSError: `source` cannot be read.
        """
        assert self._program.stdout
        assert self._program.stderr
        data = self._program.stdout.read(-1 if size is None else size)
        if data or size == 0:
            return data
        complaint = self._program.stderr.read().decode(errors="replace").strip()
        status = self._program.wait()
        self._feeder.join()
        if self._failure:
            raise self._failure
        if status:
            raise EOFError(complaint or f"zstd ended with status {status}")
        return b""

    def close(self) -> None:
        """End the program, whether it has read all or not; `source` is at its end or stopped."""
        if not self.closed:
            for pipe in (self._program.stdout, self._program.stderr):
                if pipe:
                    pipe.close()
            self._program.kill()
            self._program.wait()
            self._feeder.join()
        super().close()

    def _feed(self) -> None:
        pipe = self._program.stdin
        try:
            while pipe and (data := self._source.read(_CHUNK)):
                pipe.write(data)
        except BrokenPipeError:
            pass  # it has stopped reading, and its status says why
        except OSError as error:
            self._failure = error
        finally:
            try:
                if pipe:
                    pipe.close()
            except OSError:
                pass
