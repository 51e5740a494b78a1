"""The squashfs of an image as a tar archive, which is then unpacked as any other: checked, in a user namespace.

unsquashfs would unpack it without these checks. Here it only reads, and describes the files on its standard output: a
line for each, then the data of all (squashfs-tools, README-4.6, "pseudo file").
"""

from __future__ import annotations

import os
import re
import tarfile
import threading
from binascii import Error as Base64Error
from binascii import a2b_base64, unhexlify
from contextlib import suppress

from rootless.errors import RootlessError
from rootless.image.archive.tar_read import CHUNK, XATTR
from rootless.image.archive.tar_write import END, SinkError, headers, put
from rootless.image.squashfs.unsquashfs import Unsquashfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self

    from rootless.image.squashfs.image_file import ImageFile

_DATA = b"\n#\n# START OF DATA - DO NOT MODIFY\n#\n"
_MOST_LINES = 1 << 29
"""Bytes of the description: some four million files."""

_LINE = re.compile(
    rb"(?P<name>(?:[^\\\s]|\\.)+) "
    rb"(?:(?P<kind>[DRSBCI]) (?P<mtime>-?\d+) (?P<mode>[0-7]+) (?P<uid>\d+) (?P<gid>\d+)(?: (?P<rest>[^\n]*))?"
    rb"|L (?P<target>(?:[^\\\s]|\\.)+)"
    rb"|x (?P<xattr>[^\n]*))\n",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_OCTAL = re.compile(rb"\\([0-7]{3}|\\)")
_TYPES = {
    b"D": tarfile.DIRTYPE,
    b"R": tarfile.REGTYPE,
    b"S": tarfile.SYMTYPE,
    b"B": tarfile.BLKTYPE,
    b"C": tarfile.CHRTYPE,
    b"I": tarfile.FIFOTYPE,
}


class SquashfsTar:
    """A pipe from which the files of an image come as a tar archive, while it is open.

    Attributes:
        path: of the pipe, to be opened by this process.
    """

    def __init__(self, image: ImageFile) -> None:
        """Start unsquashfs.

        Raises:
            RootlessError: `RL-IMAGE`: it is not installed, or the image cannot be opened.
        """
        self._run = Unsquashfs(image, ["-pseudo-file", "-"])
        self._image = image.path
        self._error: BaseException | None = None
        self._stopped = False
        self._read_end, self._write_end = os.pipe()
        self.path = f"/proc/self/fd/{self._read_end}"
        self._thread = threading.Thread(target=self._convert)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End unsquashfs.

        Raises:
            RootlessError: `RL-IMAGE`: the image is damaged, which is why the archive is cut short.
        """
        self._stopped = True
        os.close(self._read_end)
        self._run.kill()
        self._thread.join()
        self._run.close()
        if self._error:
            raise self._error

    def _convert(self) -> None:
        with suppress(BrokenPipeError), self._run.output as source, os.fdopen(self._write_end, "wb", CHUNK) as sink:
            # An error is known before the reader sees the end of the pipe.
            try:
                write_tar(source, sink)
                if self._run.wait():
                    self._fail(_failed(self._image, "unsquashfs cannot read all of it"))
                else:
                    put(sink, END)
            except SinkError:
                pass  # the reader has enough, and knows why
            except (OSError, ValueError) as error:
                self._fail(_failed(self._image, str(error)))
            except BaseException as error:  # noqa: BLE001 - raised in the other thread
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._stopped:
            self._error = error


def write_tar(source: BinaryIO, sink: BinaryIO) -> None:
    """Write the files that `source` describes as a tar archive without its end.

    Raises:
        ValueError: the description makes no sense, or is cut short.
        SinkError: writing failed.
    """
    lines, data = _split(source)
    position = 0
    for entry, records, offset in _entries(lines):
        put(sink, headers(entry, records))
        if not entry.isreg():
            continue
        if offset != position:
            raise ValueError(f"the data of {entry.name} is not where it should be")
        left = entry.size
        while left:
            piece, data = (data[:left], data[left:]) if data else (source.read(min(left, CHUNK)), b"")
            if not piece:
                raise ValueError("its data is cut short")
            put(sink, piece)
            left -= len(piece)
        position += entry.size
        put(sink, bytes(-entry.size % tarfile.BLOCKSIZE))


def _split(source: BinaryIO) -> tuple[bytes, bytes]:
    """Return the lines that describe the files, and what was read of their data."""
    text = bytearray()
    searched = 0
    while (at := text.find(_DATA, searched)) < 0:
        searched = max(0, len(text) - len(_DATA))
        piece = source.read(CHUNK)
        if not piece:
            return bytes(text), b""
        text += piece
        if len(text) > _MOST_LINES:
            raise ValueError(f"the names of its files take more than {_MOST_LINES >> 20} MB")
    return bytes(text[: at + 1]), bytes(text[at + len(_DATA) :])


def _entries(lines: bytes) -> Iterator[tuple[tarfile.TarInfo, dict[str, str], int]]:
    """Yield headers, the pax records of extended attributes, and where the data begins."""
    waiting: tuple[tarfile.TarInfo, dict[str, str], int] | None = None
    position = 0
    while position < len(lines):
        line = _LINE.match(lines, position)
        if not line:
            text = lines[position : position + 60].split(b"\n")[0].decode("utf-8", "replace")
            raise ValueError(f"unsquashfs describes a file in an unknown way: {text}")
        position = line.end()
        if line["xattr"] is not None:
            if waiting:
                name, _, value = line["xattr"].partition(b"=")
                waiting[1][XATTR + _text(name)] = _text(_value(value))
            continue
        if waiting:
            yield waiting
        waiting = _entry(line)
    if waiting:
        yield waiting


def _entry(line: re.Match[bytes]) -> tuple[tarfile.TarInfo, dict[str, str], int]:
    entry = tarfile.TarInfo(_text(_ESCAPED.sub(rb"\1", line["name"])))
    if line["target"] is not None:
        entry.type, entry.linkname = tarfile.LNKTYPE, _text(_ESCAPED.sub(rb"\1", line["target"]))
        return entry, {}, 0
    entry.type, entry.mode = _TYPES[line["kind"]], int(line["mode"], 8)
    entry.mtime, entry.uid, entry.gid = int(line["mtime"]), int(line["uid"]), int(line["gid"])
    rest = line["rest"] or b""
    if line["kind"] == b"S":
        entry.linkname = _text(rest)
    elif line["kind"] == b"R":
        size, offset, _ = (int(word) for word in rest.split())
        entry.size = size
        return entry, {}, offset
    return entry, {}, 0


def _value(text: bytes) -> bytes:
    """Return the value of an extended attribute as mksquashfs reads it."""
    try:
        if text.startswith(b"0t"):
            return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]) if found[1] != b"\\" else b"\\", text[2:])
        if text.startswith((b"0x", b"0X")):
            return unhexlify(text[2:])
        if text.startswith((b"0s", b"0S")):
            return a2b_base64(text[2:])
    except (Base64Error, ValueError):
        pass
    return text


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _failed(path: str, cause: str, fix: str = "") -> RootlessError:
    return RootlessError(f"unpack the image {path}", cause=cause, fix=fix, code="RL-IMAGE")
