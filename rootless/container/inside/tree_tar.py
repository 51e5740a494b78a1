"""The stream of `cp` as a tar archive, out of a container or into it; `save` makes an image of the same archive."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
from typing import TYPE_CHECKING, BinaryIO

from rootless import log
from rootless.container.inside.tree_stream import ALL_MODES, CHUNK, END, Dropped, Entry, entries, pack, pour, skipped
from rootless.errors import RootlessError
from rootless.image.archive import tar_write
from rootless.image.archive.tar_read import XATTR, keeps_xattr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.container.inside.tree_stream import Content

_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def to_tar(source: BinaryIO, name: str, output: BinaryIO) -> None:
    """Write the tree of a stream as a tar archive, in which its root has this name.

    Raises:
        SinkError: the reader of the archive has gone.
    """
    dropped = Dropped()
    write_tar(entries(source), name, output, dropped)
    dropped.report("cp")


def write_tar(tree: Iterable[tuple[Entry, Content]], name: str, output: BinaryIO, dropped: Dropped) -> None:
    """Write the entries of a tree as a tar archive: a second name of a file is a hard link to the first.

    Args:
        tree: the entries with their contents.
        name: of the root of the tree, before the names of all others; ``.`` for none.
        output: where the archive goes.
        dropped: gets the names of attributes that are left out.

    Raises:
        SinkError: writing failed.
    """
    first: dict[tuple[object, ...], str] = {}
    prefix = "" if name == "." else f"{name}/"
    for entry, content in tree:
        path = prefix + os.fsdecode(entry.path) if entry.path else name
        kind = _TYPES.get(stat.S_IFMT(entry.mode))
        if kind is None:
            skipped(path, entry.mode)
            continue
        member = tarfile.TarInfo(path)
        member.mode = entry.mode & ALL_MODES
        member.uid, member.gid, member.mtime = entry.uid, entry.gid, entry.mtime
        # the number of a file that is removed meanwhile may become another one's
        same = (entry.inode, entry.mode, entry.size, entry.mtime)
        if entry.inode[1] and first.setdefault(same, path) != path:
            member.type, member.linkname = tarfile.LNKTYPE, first[same]
            tar_write.put(output, tar_write.headers(member, {}))
            continue
        member.type, member.linkname, member.size = kind, os.fsdecode(entry.target), entry.size
        tar_write.put(output, tar_write.headers(member, _records(entry, dropped)))
        while chunk := content.read(CHUNK):
            tar_write.put(output, chunk)
        tar_write.put(output, bytes(-entry.size % tarfile.BLOCKSIZE))
    tar_write.put(output, tar_write.END)


def _records(entry: Entry, dropped: Dropped) -> dict[str, str]:
    """Return the pax records of a file."""
    dropped.add(name for name in entry.xattrs if not keeps_xattr(name))
    kept = {name: value for name, value in entry.xattrs.items() if keeps_xattr(name)}
    return {XATTR + name: value.decode("utf-8", "surrogateescape") for name, value in kept.items()}


# --- Into a container ------------------------------------------------------------------------------------------------


def from_tar(source: BinaryIO, owner: tuple[int, int], output: BinaryIO) -> None:
    """Write the members of a tar archive, compressed or not, as a stream.

    Raises:
        RootlessError: `RL-ARCHIVE`: it is no tar archive, or a member has a name that leads out of it or an impossible
            time.
    """
    dropped = Dropped()
    try:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            for member in archive:
                _send_member(archive, member, owner, output, dropped)
    except tarfile.TarError as error:
        raise RootlessError(
            "cp -", cause=str(error), fix="write a tar archive to standard input", code="RL-ARCHIVE"
        ) from None
    output.write(END)
    dropped.report("cp -")


def _send_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, owner: tuple[int, int], output: BinaryIO, dropped: Dropped
) -> None:
    path, target = _inside(member.name), member.linkname
    kind = next((kind for kind, type_ in _TYPES.items() if type_ == member.type), 0)
    if member.islnk():
        kind, target = stat.S_IFREG, os.fsdecode(_inside(member.linkname))
    elif member.isreg():  # sparse files and others
        kind = stat.S_IFREG
    if not kind:
        log.warning(f"cp: {member.name} is left out: it is a device")
        return
    if not path:
        return
    file = archive.extractfile(member) if member.isreg() else None
    size = member.size if file else 0
    mode = kind | member.mode & ALL_MODES
    xattrs = {
        key.removeprefix(XATTR): os.fsencode(value)
        for key, value in member.pax_headers.items()
        if key.startswith(XATTR)
    }
    dropped.add(name for name in xattrs if not keeps_xattr(name))
    kept = {name: value for name, value in xattrs.items() if keeps_xattr(name)}
    try:
        target_name = b"" if file else os.fsencode(target)
        packed = pack(Entry(path, mode, *owner, int(member.mtime), size, target_name, kept))
    except (ValueError, OverflowError, struct.error):  # PAX has them as text
        raise _refused(member.name, "its time or size is impossible") from None
    output.write(packed)
    if file:
        pour(file, size, output)  # type: ignore[arg-type]


def _inside(name: str) -> bytes:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(name, "it leads out of the archive")
    return os.fsencode("/".join(parts))


def _refused(name: str, cause: str) -> RootlessError:
    return RootlessError(f"cp -: {name!r}", cause=cause, fix="do not trust it", code="RL-ARCHIVE")
