"""Tar archives, read entry by entry without trusting them.

tarfile parses the headers; the limits of what they may be are here, because it has none.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from typing import ClassVar, cast

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase
    from typing import BinaryIO, NoReturn, Self

CHUNK = 1 << 18
NAME_COST = 120
"""Bytes of memory that a name takes beside its characters."""
XATTR = "SCHILY.xattr."
CAPABILITY = "security.capability"
"""The extended attribute of a program's capabilities, capabilities(7)."""

DIRECTORY, LINK, FILE, PIPE, DEVICE = "directory", "symbolic link", "file", "named pipe", "device node"

BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, ArithmeticError, RecursionError)
"""Exceptions of the standard library's readers for broken and hostile archives."""

_LONGEST_PATH = 4095  # bytes: PATH_MAX without its NUL
_MOST_HEADERS = 1 << 20
"""Bytes of all headers of one entry: names, extended attributes, the table of holes."""
_MOST_GLOBAL = 1 << 16
"""The same for the pax records that hold for all entries, which tarfile applies to each."""
_LONGEST_SHOWN, _SHOWN = 255, 60  # characters

# isreg() recognizes REGTYPE and its kin; other types (multi-volume parts, incremental dumps) are refused.
_KINDS = {
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.SYMTYPE: LINK,
    tarfile.FIFOTYPE: PIPE,
    tarfile.CHRTYPE: DEVICE,
    tarfile.BLKTYPE: DEVICE,
}


class Reader:
    """An archive.

    Attributes:
        archive: tarfile's view of it.
    """

    __slots__ = ("_metered", "_name", "archive")

    def __init__(self, source: BufferedIOBase, name: str, *, seekable: bool = False) -> None:
        """Open it.

        Args:
            source: the archive, decompressed.
            name: of the archive, for messages.
            seekable: pass over the content of files instead of reading it. The archive may then end without the blocks
                that mark its end, because its length is known.

        Raises:
            tarfile.TarError, OSError, …: one of BROKEN.
        """
        self._name = name
        self._metered = _Metered(source, name)
        self.archive = tarfile.open(  # noqa: SIM115 - closing a stream that is only read does nothing
            fileobj=cast("BinaryIO", self._metered),
            mode="r:" if seekable else "r|",
            tarinfo=_LayerHeader if seekable else _Header,
            encoding="utf-8",
            errors="surrogateescape",
            bufsize=CHUNK,
        )

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield the entries; their names are relative to the root, which itself has an empty name.

        Raises:
            RootlessError: a limit is exceeded, or a name leads out of the root.
            tarfile.TarError, OSError, …: one of BROKEN.
        """
        while True:
            self._metered.left = _MOST_HEADERS
            entry = self.archive.next()
            self._metered.left = None
            if entry is None:
                return
            self._metered.check(cast("dict[str, str]", self.archive.pax_headers))
            self.archive.members.clear()  # type: ignore[attr-defined]  # a long archive would fill the memory
            # tarfile lets the record "path" win, which holds a made-up name for those who know nothing of holes
            entry.name = entry.pax_headers.get("GNU.sparse.name", entry.name)
            # A pax header can hold what no path can: tar would cut the name there and read another than was checked.
            if "\0" in entry.name + entry.linkname:
                refuse(entry, "there is a NUL in its name")
            entry.name = _inside(entry, entry.name)
            if entry.islnk():
                entry.linkname = _inside(entry, entry.linkname)
            for what, path in (("name", entry.name), ("target", entry.linkname)):
                if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
                    refuse(entry, f"its {what} has more than {_LONGEST_PATH} bytes")
            yield entry


def _inside(entry: tarfile.TarInfo, name: str) -> str:
    """Return `name` relative to the root, in its shortest form; the root itself is the empty string."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        refuse(entry, f"{shown(name)} leads out of the root filesystem")
    return "/".join(parts)


def refuse(entry: tarfile.TarInfo, cause: str, fix: str = "") -> NoReturn:
    """Raise the error `RL-ARCHIVE-ENTRY` for `entry`."""
    raise RootlessError(f"unpack the entry {shown(entry.name) or '.'}", cause=cause, fix=fix, code="RL-ARCHIVE-ENTRY")


def broken(name: str, error: Exception) -> RootlessError:
    """Return the error `RL-ARCHIVE` for an archive whose reader raised one of BROKEN."""
    cause = f"damaged, cut short, or no tar archive: {shown(str(error)) or type(error).__name__}"
    return RootlessError(f"read {name}", cause=cause, code="RL-ARCHIVE")


def shown(text: str) -> str:
    """Return `text`, shortened if it is long, for a message."""
    return text if len(text) <= _LONGEST_SHOWN else text[:_SHOWN] + "…"


def kind_of(entry: tarfile.TarInfo) -> str:
    """Return the kind of an entry that is no hard link.

    Raises:
        RootlessError: it is none that is known.
    """
    kind = FILE if entry.isreg() else _KINDS.get(entry.type)
    if kind is None:
        refuse(entry, f"entries of type {entry.type!r} are not known")
    return kind


def keeps_xattr(name: str) -> bool:
    """Return whether an extended attribute is one that an unprivileged user may set (xattr(7)), and only stores data.

    The kernel makes a file capability that is set in a user namespace good in that namespace only (capabilities(7)).
    Those of overlayfs would steer an overlay above the files.
    """
    return name == CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))


def segments_of(entry: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return what is not a hole in a sparse file: start and length, in order. The data stands in one piece.

    Raises:
        RootlessError: the segments overlap, or reach beyond its end.
    """
    table = cast("list[tuple[int, int]]", entry.sparse)  # bytes, says typeshed
    segments = [(start, length) for start, length in table if length]
    end = 0
    for start, length in segments:
        if start < end or length < 0 or start + length > entry.size:
            refuse(entry, "the table of its holes is wrong")
        end = start + length
    return segments


class _Metered:
    """What tarfile reads an archive through: it sets no limit itself to what one entry's headers may be.

    Attributes:
        left: how many bytes may be read until the next entry begins; None while its data is copied.
    """

    __slots__ = ("_name", "_source", "left")

    def __init__(self, source: BufferedIOBase, name: str) -> None:
        self._source = source
        self._name = name
        self.left: int | None = _MOST_HEADERS

    def read(self, size: int) -> bytes:
        """Read as many bytes; fewer at the end.

        Raises:
            RootlessError: the limit is reached.
        """
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise _too_long(self._name, "of one entry", "1 MB")
        return self._source.read(size)

    def seek(self, position: int) -> int:
        """Go on at byte `position`."""
        return self._source.seek(position)

    def tell(self) -> int:
        """Return the position."""
        return self._source.tell()

    def check(self, common: dict[str, str]) -> None:
        """Refuse too many records that hold for all entries.

        Raises:
            RootlessError: they are.
        """
        if common and sum(NAME_COST + len(key) + len(value) for key, value in common.items()) > _MOST_GLOBAL:
            raise _too_long(self._name, "for all entries", "64 kB")


def _too_long(name: str, which: str, limit: str) -> RootlessError:
    return RootlessError(
        f"read {name}",
        cause=f"the headers {which} take more than {limit}",
        fix="pack it with GNU tar",
        code="RL-ARCHIVE",
    )


class _Header(tarfile.TarInfo):
    """A header that is read more strictly than by tarfile.

    A damaged or missing one does not pass for the end of the archive, as in TarFile.next(). A negative size does not
    make tarfile go back, and read the same headers for ever (CVE-2025-8194, fixed in Python 3.13.6).
    """

    _ENDS: ClassVar[tuple[type[Exception], ...]] = (
        tarfile.EOFHeaderError,  # type: ignore[attr-defined]  # typeshed has only its parent
    )

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError(f"the size {count} is negative")
        return super()._block(count)  # type: ignore[misc,no-any-return]  # typeshed does not have it

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except cls._ENDS:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class _LayerHeader(_Header):
    """A header in an archive that may just end."""

    _ENDS = (*_Header._ENDS, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]  # noqa: SLF001
