"""Tar archives, written: GNU tar's format, with pax records where it has no room. GNU tar and sqfstar read it."""

from __future__ import annotations

import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

_LATE = 8**11
"""Seconds: the header of POSIX has eleven octal digits."""

END = bytes(2 * tarfile.BLOCKSIZE)


class SinkError(Exception):
    """The reader of the archive has gone; it knows why."""


def headers(entry: tarfile.TarInfo, records: dict[str, str]) -> bytes:
    """Return the header blocks of `entry`: pax records, if any, then GNU tar's own format with any length of name."""
    header = entry.tobuf(
        tarfile.USTAR_FORMAT if "GNU.sparse.major" in records else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"
    )
    if not records:
        return header
    extension = b"".join(
        _pax_record(key.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for key, value in records.items()
    )
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(extension)
    return pax.tobuf(tarfile.USTAR_FORMAT) + padded(extension) + header


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return ``LENGTH KEY=VALUE``; the length counts its own digits (pax(1), POSIX)."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def padded(data: bytes) -> bytes:
    """Return `data` with zeros up to a whole block."""
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def describe_holes(
    entry: tarfile.TarInfo, segments: Sequence[tuple[int, int]], records: dict[str, str]
) -> tuple[tarfile.TarInfo, bytes]:
    """Put a sparse file into `records`, in version 1.0 of GNU tar's format.

    What GNU tar wants with it is a header of POSIX, which has no room for large numbers; so they are records as well.

    Args:
        entry: its size is that of the file with its holes.
        segments: what is not a hole: start and length, in order.
        records: pax records of the file, which get more.

    Returns:
        The entry for `headers`, and the table that precedes the segments' data.
    """
    numbers = [len(segments) + 1, *(number for pair in segments for number in pair), entry.size, 0]
    table = padded("".join(f"{number}\n" for number in numbers).encode())
    records |= {"uid": str(entry.uid), "gid": str(entry.gid)}
    records |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    records |= {"GNU.sparse.name": entry.name, "GNU.sparse.realsize": str(entry.size)}
    records["size"] = str(len(table) + sum(length for _, length in segments))
    clean = tarfile.TarInfo("sparse")
    clean.mode = entry.mode
    if 0 <= entry.mtime < _LATE:
        clean.mtime = entry.mtime
    else:
        records["mtime"] = str(int(entry.mtime))  # sqfstar, which reads none without a fraction, gets no such time
    return clean, table


def put(sink: BinaryIO, data: bytes) -> None:
    """Write `data`.

    Raises:
        SinkError: it failed.
    """
    try:
        sink.write(data)
    except OSError as error:
        raise SinkError from error
