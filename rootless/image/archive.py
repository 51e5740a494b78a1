"""Root filesystem archives, read without trusting them.

Every entry is checked and written to a second archive, which the host's GNU tar unpacks inside the user namespace: no
Python runs there, and tar sees only headers that were made here. Nothing is ever written outside the root filesystem or
through a symlink; the symlinks themselves may point anywhere.

Memory has limits: a few megabytes of compressed headers become gigabytes.
"""

from __future__ import annotations

import lzma
import subprocess
import tarfile
import zlib
from typing import cast

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedIOBase
    from typing import IO, BinaryIO, NoReturn, Self

_CHUNK = 1 << 18
_MAX_LINKS = 40

_LONGEST_PATH = 4095  # bytes: PATH_MAX without its NUL
_MOST_HEADERS = 1 << 20
"""Bytes of all headers of one entry: names, extended attributes, the table of holes."""
_MOST_GLOBAL = 1 << 16
"""The same for the pax records that hold for all entries, which tarfile applies to each."""
_MOST_NAMES = 1 << 29
"""Bytes of memory for the names in an archive: some three million."""
_LONGEST_SHOWN, _SHOWN = 255, 60  # characters
_NAME_COST = 120
_ENTRY_COST = 2048

_XATTR = "SCHILY.xattr."

_DIRECTORY, _LINK, _FILE, _PIPE, _DEVICE = "directory", "symbolic link", "file", "named pipe", "device node"

# isreg() recognizes REGTYPE and its kin; other types (multi-volume parts, incremental dumps) are refused.
_KINDS = {
    tarfile.DIRTYPE: _DIRECTORY,
    tarfile.SYMTYPE: _LINK,
    tarfile.FIFOTYPE: _PIPE,
    tarfile.CHRTYPE: _DEVICE,
    tarfile.BLKTYPE: _DEVICE,
}

# Exceptions of the standard library's readers for broken and hostile archives.
_BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, ArithmeticError, RecursionError)


class SinkError(Exception):
    """The reader of the rewritten archive has gone; it knows why."""


class Ids:
    """The IDs that may own files in the root filesystem: ranges of (first, count)."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: Sequence[tuple[int, int]], gids: Sequence[tuple[int, int]]) -> None:
        self.uids = tuple(uids)
        self.gids = tuple(gids)


ALL_IDS = Ids([(0, 1 << 32)], [(0, 1 << 32)])


class Contents:
    """The entries of an archive that were read so far.

    Attributes:
        entries: number of files, directories and symlinks that will be unpacked.
        size: bytes of regular files, without holes.
        devices: names of the device nodes that were left out.
        xattrs: names of the extended attributes that were left out.
        owners: every uid and gid in it.
    """

    __slots__ = ("_cost", "_kinds", "_targets", "devices", "entries", "owners", "size", "xattrs")

    def __init__(self) -> None:
        self.entries = 0
        self.size = 0
        self.devices: list[str] = []
        self.xattrs: set[str] = set()
        self.owners: set[int] = set()
        self._kinds: dict[str, str] = {"": _DIRECTORY}
        self._targets: dict[str, str] = {}
        self._cost = 0

    def kind(self, name: str) -> str | None:
        """Return the kind of the entry `name`; None for an unknown one."""
        return self._kinds.get(name)

    def note(self, name: str, kind: str, target: str = "") -> None:
        """Remember the kind of `name`, that its parents are directories, and the target of a symlink."""
        if target:
            self.charge(_NAME_COST + len(target))
            self._targets[name] = target
        while name not in self._kinds:
            self.charge(_NAME_COST + len(name))
            self._kinds[name] = kind
            kind = _DIRECTORY
            name = name.rpartition("/")[0]

    def charge(self, cost: int) -> None:
        """Count what has to be remembered until the end.

        Raises:
            RootlessError: it is too much.
        """
        self._cost += cost
        if self._cost > _MOST_NAMES:
            raise RootlessError(
                f"unpack entry {self.entries + 1}",
                cause=f"the names in the archive take more than {_MOST_NAMES >> 20} MB of memory",
                fix="split it, and unpack the rest into the bundle's rootfs",
                code="RL-ARCHIVE",
            )

    def target(self, name: str) -> str:
        """Return where the symbolic link `name` points; empty for other entries."""
        return self._targets.get(name, "")

    def has_file(self, path: str) -> bool:
        """Return whether `path` is a file; links are followed inside the root filesystem."""
        real, links = "", 0
        todo = path.split("/")[::-1]
        while todo and links <= _MAX_LINKS:
            name = todo.pop()
            if name == "..":
                real = real.rpartition("/")[0]
            if name in {"", ".", ".."}:
                continue
            here = f"{real}/{name}".lstrip("/")
            if self.kind(here) == _LINK:
                links += 1
                target = self.target(here)
                todo.extend(target.split("/")[::-1])
                real = "" if target.startswith("/") else real
            else:
                real = here
        return self.kind(real) == _FILE and not todo


def rewrite(source: BufferedIOBase, sink: BinaryIO, *, name: str, ids: Ids) -> Contents:
    """Write the entries of the archive `source` that may be unpacked to `sink`, as an archive for GNU tar.

    Args:
        source: the archive, decompressed; read to its very end.
        sink: a stream.
        name: of the archive, for messages.
        ids: entries with other owners are refused.

    Raises:
        RootlessError: an entry would escape or has no place in the id map (its name is in the message), or the
            archive is damaged, cut short, or no root filesystem. The end of the archive in `sink` is missing then.
        SinkError: writing to `sink` failed.
    """
    contents = Contents()
    try:
        metered = _Metered(source, name)
        archive = tarfile.open(  # noqa: SIM115 - closing a stream that is only read does nothing
            fileobj=cast("BinaryIO", metered),
            mode="r|",
            tarinfo=_Header,
            encoding="utf-8",
            errors="surrogateescape",
            bufsize=_CHUNK,
        )
        early: dict[str, list[tarfile.TarInfo]] = {}
        for entry in _entries(archive, metered):
            if not _is_early(entry, contents):
                _pass_on(archive, entry, contents, ids, sink)
            else:
                contents.charge(_ENTRY_COST + len(entry.name) + len(entry.linkname))
                entry.pax_headers = {}  # a hard link has the attributes of its target
                early.setdefault(entry.linkname, []).append(entry)
        found = [target for target in early if contents.kind(target) is not None]
        while found:
            for entry in early.pop(found.pop(), ()):
                _pass_on(archive, entry, contents, ids, sink)
                found.append(entry.name)
        for target, (entry, *_) in early.items():
            _refuse(entry, f"it is a hard link to {_shown(target)}, which is not in the archive")
        while source.read(_CHUNK):
            pass  # checksums are at the end, and the writer of a pipe expects a reader
    except _BROKEN as error:
        cause = f"damaged, cut short, or no tar archive: {_shown(str(error)) or type(error).__name__}"
        raise RootlessError(f"read {name}", cause=cause, code="RL-ARCHIVE") from error
    _check_whole(contents, name)
    _put(sink, bytes(2 * tarfile.BLOCKSIZE))
    return contents


def extract_command(tar: str, rootfs: str, *, keep_owners: bool) -> list[str]:
    """Return the command that unpacks what `rewrite` writes, from standard input into `rootfs`.

    Args:
        tar: path of the host's tar.
        rootfs: an empty directory.
        keep_owners: false where there is only one id that files can belong to.

    Raises:
        RootlessError: `tar` is not GNU tar; the others know nothing of extended attributes or holes.
    """
    version = subprocess.run([tar, "--version"], capture_output=True, text=True, check=False).stdout
    if "GNU tar" not in version:
        raise RootlessError(
            f"run {tar}", cause="it is not GNU tar", fix="install GNU tar (Alpine: apk add tar)", code="RL-HOST"
        )
    return [
        tar,
        "--extract",
        "--file=-",
        f"--directory={rootfs}",
        "--numeric-owner",
        "--same-owner" if keep_owners else "--no-same-owner",
        "--same-permissions",
        "--xattrs",
        "--xattrs-include=*",
        "--delay-directory-restore",
        "--warning=no-timestamp",
    ]


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

    def check(self, common: dict[str, str]) -> None:
        """Refuse too many records that hold for all entries.

        Raises:
            RootlessError: they are.
        """
        if common and sum(_NAME_COST + len(key) + len(value) for key, value in common.items()) > _MOST_GLOBAL:
            raise _too_long(self._name, "for all entries", "64 kB")


def _too_long(name: str, which: str, limit: str) -> RootlessError:
    return RootlessError(
        f"read {name}",
        cause=f"the headers {which} take more than {limit}",
        fix="pack it with GNU tar",
        code="RL-ARCHIVE",
    )


class _Header(tarfile.TarInfo):
    """A header that does not let a damaged or missing one pass for the end of the archive, as TarFile.next() does."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed has only its parent
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _entries(archive: tarfile.TarFile, metered: _Metered) -> Iterator[tarfile.TarInfo]:
    while True:
        metered.left = _MOST_HEADERS
        entry = archive.next()
        metered.left = None
        if entry is None:
            return
        metered.check(cast("dict[str, str]", archive.pax_headers))
        archive.members.clear()  # type: ignore[attr-defined]  # a long archive would fill the memory
        # tarfile lets the record "path" win, which holds a made-up name for those who know nothing of holes
        entry.name = entry.pax_headers.get("GNU.sparse.name", entry.name)
        # A pax header can hold what no path can: tar would cut the name there, and read another one than was checked.
        if "\0" in entry.name + entry.linkname:
            _refuse(entry, "there is a NUL in its name")
        entry.name = _inside(entry, entry.name)
        if entry.islnk():
            entry.linkname = _inside(entry, entry.linkname)
        for what, path in (("name", entry.name), ("target", entry.linkname)):
            if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
                _refuse(entry, f"its {what} has more than {_LONGEST_PATH} bytes")
        yield entry


def _inside(entry: tarfile.TarInfo, name: str) -> str:
    """Return `name` relative to the root, in its shortest form; the root itself is the empty string."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        _refuse(entry, f"{_shown(name)} leads out of the root filesystem")
    return "/".join(parts)


def _refuse(entry: tarfile.TarInfo, cause: str, fix: str = "") -> NoReturn:
    raise RootlessError(f"unpack the entry {_shown(entry.name) or '.'}", cause=cause, fix=fix, code="RL-ARCHIVE-ENTRY")


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_SHOWN] + "…"


def _is_early(entry: tarfile.TarInfo, contents: Contents) -> bool:
    """Return whether `entry` is a hard link that comes before its target."""
    return entry.islnk() and contents.kind(entry.linkname) is None


def _pass_on(archive: tarfile.TarFile, entry: tarfile.TarInfo, contents: Contents, ids: Ids, sink: BinaryIO) -> None:
    """Check `entry`, remember it and write it, unless it is one that is left out.

    A name keeps its kind from its first entry on. So a link never takes the place of a directory through which later
    entries are written, and what tar does when it does never matters.
    """
    kind = _kind(entry, contents)
    parent = entry.name
    while parent:
        parent = parent.rpartition("/")[0]
        before = contents.kind(parent)
        if before == _DIRECTORY:
            break  # and so is all above it
        if before:
            _refuse(entry, f"it would be written through {_shown(parent)}, which is a {before}")
    before = contents.kind(entry.name)
    if before not in {None, kind}:
        _refuse(entry, f"it is a {kind}, and the archive has it as a {before} already")
    _check_owner(entry, "uid", entry.uid, ids.uids)
    _check_owner(entry, "gid", entry.gid, ids.gids)
    if kind == _DEVICE:
        if before is None:
            contents.devices.append(entry.name)
    elif not (entry.islnk() and entry.linkname == entry.name):
        contents.entries += 1
        for owner in {entry.uid, entry.gid} - contents.owners:
            contents.charge(_NAME_COST)
            contents.owners.add(owner)
        _write(archive, entry, kind, contents, sink)
    contents.note(entry.name, kind, contents.target(entry.linkname) if entry.islnk() else entry.linkname)


def _kind(entry: tarfile.TarInfo, contents: Contents) -> str:
    if entry.islnk():
        kind = contents.kind(entry.linkname)
        if kind is None or kind == _DIRECTORY:
            _refuse(entry, f"it is a hard link to the directory {_shown(entry.linkname) or '.'}")
        return kind
    kind = _FILE if entry.isreg() else _KINDS.get(entry.type)
    if kind is None:
        _refuse(entry, f"entries of type {entry.type!r} are not known")
    return kind


def _check_owner(entry: tarfile.TarInfo, what: str, number: int, ranges: Sequence[tuple[int, int]]) -> None:
    if not any(first <= number < first + count for first, count in ranges):
        total = sum(count for _, count in ranges)
        _refuse(
            entry,
            f"its {what} {number} is not in your id map, which has {total} {what}s",
            fix=f"run as root: usermod --add-sub{what}s FIRST-LAST USER, with {number} ids or more",
        )


def _check_whole(contents: Contents, name: str) -> None:
    if not contents.entries:
        raise RootlessError(f"read {name}", cause="it is empty", code="RL-ARCHIVE")
    if contents.kind("oci-layout") or (contents.kind("manifest.json") and not contents.kind("etc")):
        raise RootlessError(
            f"read {name}",
            cause="it is an image with its layers, not a root filesystem",
            fix="export a container of the image: podman export $(podman create IMAGE) > FILE.tar",
            code="RL-ARCHIVE",
        )


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, kind: str, contents: Contents, sink: BinaryIO) -> None:
    clean = _Header(entry.name or ".")
    clean.mode, clean.uid, clean.gid, clean.mtime = entry.mode, entry.uid, entry.gid, int(entry.mtime)
    records = _kept_xattrs(entry, contents)
    if entry.islnk():
        clean.type, clean.linkname = tarfile.LNKTYPE, entry.linkname
    elif kind == _LINK:
        clean.type, clean.linkname = tarfile.SYMTYPE, entry.linkname
    elif kind == _FILE:
        _write_file(archive, entry, clean, records, sink)
        contents.size += entry.size
        return
    else:
        clean.type = entry.type
    _put(sink, _headers(clean, records))


def _write_file(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, clean: tarfile.TarInfo, records: dict[str, str], sink: BinaryIO
) -> None:
    """Write a regular file, a sparse one with its holes; `entry` comes out as one piece without them."""
    table = b""
    if entry.issparse():
        segments = _segments(entry)
        table = _describe_holes(entry, segments, records)
        entry.sparse, entry.size = None, sum(length for _, length in segments)
        records["size"] = str(len(table) + entry.size)
        clean = tarfile.TarInfo("sparse")
        clean.mode = entry.mode
    else:
        clean.size = entry.size
    _put(sink, _headers(clean, records) + table)
    _copy(archive.extractfile(entry), entry.size, sink)
    _put(sink, bytes(-entry.size % tarfile.BLOCKSIZE))


def _segments(entry: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return what is not a hole in a sparse file: start and length."""
    table = cast("list[tuple[int, int]]", entry.sparse)  # bytes, says typeshed
    segments = [(start, length) for start, length in table if length]
    end = 0
    for start, length in segments:
        if start < end or length < 0 or start + length > entry.size:
            _refuse(entry, "the table of its holes is wrong")
        end = start + length
    return segments


def _describe_holes(entry: tarfile.TarInfo, segments: list[tuple[int, int]], records: dict[str, str]) -> bytes:
    """Put a sparse file into `records`, in version 1.0 of GNU tar's format; return its table, decimal numbers.

    What GNU tar wants with it is a header of POSIX, which has no room for large numbers; so they are records as well.
    """
    records |= {"uid": str(entry.uid), "gid": str(entry.gid), "mtime": str(int(entry.mtime))}
    records |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    records |= {"GNU.sparse.name": entry.name, "GNU.sparse.realsize": str(entry.size)}
    numbers = [len(segments) + 1, *(number for pair in segments for number in pair), entry.size, 0]
    return _padded("".join(f"{number}\n" for number in numbers).encode())


def _kept_xattrs(entry: tarfile.TarInfo, contents: Contents) -> dict[str, str]:
    """Return the pax records of the extended attributes that an unprivileged user may set (xattr(7)).

    The kernel makes a file capability that is set in a user namespace good in that namespace only (capabilities(7)).
    """
    kept = {}
    for key, value in entry.pax_headers.items():
        if key.startswith(_XATTR):
            attribute = key.removeprefix(_XATTR)
            if attribute == "security.capability" or attribute.startswith("user."):
                kept[key] = value
            elif attribute not in contents.xattrs:
                contents.charge(_NAME_COST + len(attribute))
                contents.xattrs.add(attribute)
    return kept


def _headers(entry: tarfile.TarInfo, records: dict[str, str]) -> bytes:
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
    return pax.tobuf(tarfile.USTAR_FORMAT) + _padded(extension) + header


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return ``LENGTH KEY=VALUE``; the length counts its own digits (pax(1), POSIX)."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _copy(data: IO[bytes] | None, size: int, sink: BinaryIO) -> None:
    while size > 0:
        piece = data.read(min(size, _CHUNK)) if data else b""
        if not piece:
            message = "unexpected end of data"
            raise EOFError(message)
        _put(sink, piece)
        size -= len(piece)


def _put(sink: BinaryIO, data: bytes) -> None:
    try:
        sink.write(data)
    except OSError as error:
        raise SinkError from error
