"""Root filesystem archives, read without trusting them.

Every entry is checked and written to a second archive, which the host's GNU tar unpacks inside the user namespace: no
Python runs there, and tar sees only headers that were made here. Nothing is ever written outside the root filesystem or
through a symlink; the symlinks themselves may point anywhere.

Memory has limits: a few megabytes of compressed headers become gigabytes.
"""

from __future__ import annotations

import subprocess
import tarfile

from rootless.errors import RootlessError
from rootless.image.archive.tar_read import (
    BROKEN,
    CHUNK,
    DEVICE,
    DIRECTORY,
    FILE,
    LINK,
    NAME_COST,
    XATTR,
    Reader,
    broken,
    keeps_xattr,
    kind_of,
    refuse,
    segments_of,
    shown,
)
from rootless.image.archive.tar_write import END, describe_holes, headers, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import BufferedIOBase
    from typing import IO, BinaryIO

_MAX_LINKS = 40

_MOST_NAMES = 1 << 29
"""Bytes of memory for the names in an archive: some three million."""
_ENTRY_COST = 2048


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
        self._kinds: dict[str, str] = {"": DIRECTORY}
        self._targets: dict[str, str] = {}
        self._cost = 0

    def kind(self, name: str) -> str | None:
        """Return the kind of the entry `name`; None for an unknown one."""
        return self._kinds.get(name)

    def note(self, name: str, kind: str, target: str = "") -> None:
        """Remember the kind of `name`, that its parents are directories, and the target of a symlink."""
        if target:
            self.charge(NAME_COST + len(target))
            self._targets[name] = target
        while name not in self._kinds:
            self.charge(NAME_COST + len(name))
            self._kinds[name] = kind
            kind = DIRECTORY
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
            if self.kind(here) == LINK:
                links += 1
                target = self.target(here)
                todo.extend(target.split("/")[::-1])
                real = "" if target.startswith("/") else real
            else:
                real = here
        return self.kind(real) == FILE and not todo


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
        reader = Reader(source, name)
        early: dict[str, list[tarfile.TarInfo]] = {}
        for entry in reader:
            if not _is_early(entry, contents):
                _pass_on(reader.archive, entry, contents, ids, sink)
            else:
                contents.charge(_ENTRY_COST + len(entry.name) + len(entry.linkname))
                entry.pax_headers = {}  # a hard link has the attributes of its target
                early.setdefault(entry.linkname, []).append(entry)
        found = [target for target in early if contents.kind(target) is not None]
        while found:
            for entry in early.pop(found.pop(), ()):
                _pass_on(reader.archive, entry, contents, ids, sink)
                found.append(entry.name)
        for target, (entry, *_) in early.items():
            refuse(entry, f"it is a hard link to {shown(target)}, which is not in the archive")
        while source.read(CHUNK):
            pass  # checksums are at the end, and the writer of a pipe expects a reader
    except BROKEN as error:
        raise broken(name, error) from error
    _check_whole(contents, name)
    put(sink, END)
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
        if before == DIRECTORY:
            break  # and so is all above it
        if before:
            refuse(entry, f"it would be written through {shown(parent)}, which is a {before}")
    before = contents.kind(entry.name)
    if before not in {None, kind}:
        refuse(entry, f"it is a {kind}, and the archive has it as a {before} already")
    _check_owner(entry, "uid", entry.uid, ids.uids)
    _check_owner(entry, "gid", entry.gid, ids.gids)
    if kind == DEVICE:
        if before is None:
            contents.devices.append(entry.name)
    elif not (entry.islnk() and entry.linkname == entry.name):
        contents.entries += 1
        for owner in {entry.uid, entry.gid} - contents.owners:
            contents.charge(NAME_COST)
            contents.owners.add(owner)
        _write(archive, entry, kind, contents, sink)
    contents.note(entry.name, kind, contents.target(entry.linkname) if entry.islnk() else entry.linkname)


def _kind(entry: tarfile.TarInfo, contents: Contents) -> str:
    if entry.islnk():
        kind = contents.kind(entry.linkname)
        if kind is None or kind == DIRECTORY:
            refuse(entry, f"it is a hard link to the directory {shown(entry.linkname) or '.'}")
        return kind
    return kind_of(entry)


def _check_owner(entry: tarfile.TarInfo, what: str, number: int, ranges: Sequence[tuple[int, int]]) -> None:
    if not any(first <= number < first + count for first, count in ranges):
        total = sum(count for _, count in ranges)
        refuse(
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
    clean = tarfile.TarInfo(entry.name or ".")
    clean.mode, clean.uid, clean.gid, clean.mtime = entry.mode, entry.uid, entry.gid, int(entry.mtime)
    records = _kept_xattrs(entry, contents)
    if entry.islnk():
        clean.type, clean.linkname = tarfile.LNKTYPE, entry.linkname
    elif kind == LINK:
        clean.type, clean.linkname = tarfile.SYMTYPE, entry.linkname
    elif kind == FILE:
        _write_file(archive, entry, clean, records, sink)
        contents.size += entry.size
        return
    else:
        clean.type = entry.type
    put(sink, headers(clean, records))


def _write_file(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, clean: tarfile.TarInfo, records: dict[str, str], sink: BinaryIO
) -> None:
    """Write a regular file, a sparse one with its holes; `entry` comes out as one piece without them."""
    table = b""
    clean.size = entry.size
    if entry.issparse():
        segments = segments_of(entry)
        clean, table = describe_holes(clean, segments, records)
        entry.sparse, entry.size = None, sum(length for _, length in segments)
    put(sink, headers(clean, records) + table)
    _copy(archive.extractfile(entry), entry.size, sink)
    put(sink, bytes(-entry.size % tarfile.BLOCKSIZE))


def _kept_xattrs(entry: tarfile.TarInfo, contents: Contents) -> dict[str, str]:
    """Return the pax records of the extended attributes that are kept."""
    kept = {}
    for key, value in entry.pax_headers.items():
        if key.startswith(XATTR):
            attribute = key.removeprefix(XATTR)
            if keeps_xattr(attribute):
                kept[key] = value
            elif attribute not in contents.xattrs:
                contents.charge(NAME_COST + len(attribute))
                contents.xattrs.add(attribute)
    return kept


def _copy(data: IO[bytes] | None, size: int, sink: BinaryIO) -> None:
    while size > 0:
        piece = data.read(min(size, CHUNK)) if data else b""
        if not piece:
            message = "unexpected end of data"
            raise EOFError(message)
        put(sink, piece)
        size -= len(piece)
