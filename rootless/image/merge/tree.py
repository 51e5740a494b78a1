"""The layers of an image, merged: a tree of names in memory, without a file system.

Each layer is applied to the tree as the image specification says (layer.md), so no path of a layer is ever looked up on
the host. Where it is silent, the result is that of podman: the layers unpacked into a directory each, with overlayfs
above them. So a directory in a layer hides a symlink in a lower one, and a symlink leads on only inside its own layer.

Memory has limits: a few megabytes of compressed headers become gigabytes.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.image.archive.tar_read import (
    DEVICE,
    DIRECTORY,
    FILE,
    LINK,
    XATTR,
    keeps_xattr,
    kind_of,
    refuse,
    segments_of,
    shown,
)
from rootless.image.merge.layers import LARGEST_IMAGE, too_large

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

WHITEOUT = ".wh."
_AUFS = WHITEOUT + WHITEOUT
_OPAQUE = _AUFS + ".opq"
_OPAQUE_KEYS = ("user.overlay.opaque", "trusted.overlay.opaque")

_MAX_LINKS = 40  # as in the kernel, path_resolution(7)
_MOST_MEMORY = 1 << 30
"""Bytes for the tree: some two million files."""
_NODE_COST = 400
_ENTRY_COST = 2048
_SEGMENT_COST = 150
_MOST_ID = (1 << 32) - 2  # the number above it means "unchanged", chown(2)
_MOST_OWNERS = 1 << 16  # squashfs: as many ids, each of users and groups together
_LAST_SECOND = (1 << 32) - 1  # squashfs
_LONGEST_NAME = 255  # bytes

_NONE: dict[str, Any] = {}
"""Shared by all that have none, and never changed."""


class Content:
    """Where the data of a file is: bytes of a layer.

    Attributes:
        layer: number of the layer.
        offset: in the layer's archive.
        size: of the file, in bytes, with its holes.
        segments: what is not a hole: start in the file and length, in order; None for a file without holes.
    """

    __slots__ = ("layer", "offset", "segments", "size")

    def __init__(self, layer: int, offset: int, size: int, segments: list[tuple[int, int]] | None) -> None:
        self.layer = layer
        self.offset = offset
        self.size = size
        self.segments = segments


class Node:
    """A name in the tree. Hard links are nodes with the same `inode`.

    Attributes:
        kind: one of those in tar_read.
        layer: number of the last layer that has it or, of a directory, something in it.
        children: of a directory, by name.
        target: of a symlink.
        xattrs: pax records.
        inode: a number that hard links share; 0 for a node without hard links.
        pruned: number of the last layer that hides what lower ones have in a directory.
        content: of a file.
    """

    __slots__ = (
        "children", "content", "gid", "inode", "kind", "layer", "mode", "mtime", "pruned", "target", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.mode = 0o755
        self.uid = self.gid = self.mtime = self.inode = self.layer = self.pruned = 0
        self.target = ""
        self.xattrs = _NONE
        self.children: dict[str, Node] = {} if kind == DIRECTORY else _NONE
        self.content: Content | None = None

    def again(self, layer: int) -> Node:
        """Return a hard link to it in a layer."""
        link = Node(self.kind)
        for slot in ("mode", "uid", "gid", "mtime", "inode", "target", "xattrs", "content"):
            setattr(link, slot, getattr(self, slot))
        link.layer = layer
        return link


class Tree:
    """The files of an image.

    Attributes:
        root: the node of the root directory.
        devices: names of device nodes in the layers; they are not part of the image.
        xattrs: names of the extended attributes that were left out.
    """

    __slots__ = ("_cost", "_inodes", "_owners", "_size", "devices", "root", "xattrs")

    def __init__(self) -> None:
        self.root = Node(DIRECTORY)
        self.devices: list[str] = []
        self.xattrs: set[str] = set()
        self._owners: set[int] = {0}
        self._inodes = self._cost = self._size = 0

    def apply(self, entries: Iterable[tarfile.TarInfo], layer: int) -> None:
        """Apply the entries of a layer; `layer` counts from 1.

        Raises:
            RootlessError: `RL-ARCHIVE-ENTRY`: an entry cannot be applied; `RL-IMAGE`: the image is too large.
        """
        early: dict[str, list[tarfile.TarInfo]] = {}
        for entry in entries:
            self._charge(_NODE_COST + len(entry.name) + len(entry.linkname))
            directory, _, name = entry.name.rpartition("/")
            if len(entry.name) > _LONGEST_NAME // 4 and _has_long_part(entry.name):
                refuse(entry, f"a part of its name has more than {_LONGEST_NAME} bytes")
            if directory and WHITEOUT in directory and self._below_whiteout(entry, directory):
                continue
            if name.startswith(WHITEOUT):
                self._white_out(entry, directory, name, layer)
            elif not entry.islnk():
                self._add(entry, directory, name, layer)
            elif not self._link(entry, layer):
                self._charge(_ENTRY_COST)
                entry.pax_headers = {}  # a hard link has the attributes of its target
                early.setdefault(entry.linkname, []).append(entry)
        found = [target for target in early if _walk(self.root, target)]
        while found:
            for entry in early.pop(found.pop(), ()):
                self._link(entry, layer)
                found.append(entry.name)
        for target, (entry, *_) in early.items():
            refuse(entry, f"it is a hard link to {shown(target)}, which is not in the image")

    def find(self, path: str) -> Node | None:
        """Return the node of `path`; symlinks are followed inside the tree."""
        return _walk(self.root, path + "/.")

    def _add(self, entry: tarfile.TarInfo, directory: str, name: str, layer: int) -> None:
        kind = kind_of(entry)
        if not name and kind != DIRECTORY:
            refuse(entry, f"the root of the image is a {kind}")
        parent = self._parent(entry, directory, layer) if name else None
        before = parent.children.get(name) if parent else self.root
        if before and before.kind == kind == DIRECTORY:
            node = before
        else:
            node = Node(kind)
            if parent:
                parent.children[name] = node
        self._fill(node, entry, layer)

    def _fill(self, node: Node, entry: tarfile.TarInfo, layer: int) -> None:
        kind = node.kind
        node.layer, node.mode = layer, entry.mode & 0o7777
        node.uid, node.gid = self._owner(entry, "uid", entry.uid), self._owner(entry, "gid", entry.gid)
        node.mtime = min(max(int(entry.mtime), 0), _LAST_SECOND)
        node.xattrs = self._kept_xattrs(entry)
        if kind == LINK:
            if not entry.linkname:
                refuse(entry, "it is a symbolic link to nothing")
            node.target = entry.linkname
        elif kind == FILE:
            segments = segments_of(entry) if entry.issparse() else None
            self._charge(_SEGMENT_COST * len(segments or ()))
            self._size += entry.size
            if self._size > LARGEST_IMAGE:
                raise too_large("its files")
            node.content = Content(layer, entry.offset_data, entry.size, segments)
        elif kind == DEVICE:
            self.devices.append(entry.name)

    def _parent(self, entry: tarfile.TarInfo, directory: str, layer: int) -> Node:
        """Return the directory of an entry; what is missing above it is made, and belongs to root."""
        found = _walk(self.root, directory + "/.", layer=layer, make=self._implied)
        if found is None:
            refuse(entry, f"{shown(directory)} is a loop of symbolic links")
        if found.kind != DIRECTORY:
            refuse(entry, f"it would be written through a {found.kind}")
        return found

    def _implied(self) -> Node:
        self._charge(_NODE_COST)
        return Node(DIRECTORY)

    def _link(self, entry: tarfile.TarInfo, layer: int) -> bool:
        """Apply a hard link; return whether its target is there."""
        target = _walk(self.root, entry.linkname)
        if target is None:
            return False
        if target.kind == DIRECTORY:
            refuse(entry, f"it is a hard link to the directory {shown(entry.linkname) or '.'}")
        directory, _, name = entry.name.rpartition("/")
        if not name:
            refuse(entry, "the root of the image is a hard link")
        parent = self._parent(entry, directory, layer)
        if parent.children.get(name) is target:
            target.layer = layer
        else:
            if not target.inode:
                self._inodes += 1
                target.inode = self._inodes
            parent.children[name] = target.again(layer)
        return True

    def _white_out(self, entry: tarfile.TarInfo, directory: str, name: str, layer: int) -> None:
        """Remove what lower layers have; that of the same layer stays, whatever the order (layer.md, Whiteouts)."""
        hidden = name.removeprefix(WHITEOUT)
        if hidden in {"", ".", ".."}:
            refuse(entry, "it is a whiteout of nothing that has a name")
        parent = _walk(self.root, directory + "/.", layer=layer)
        if parent is None or parent.kind != DIRECTORY:
            return
        if name == _OPAQUE:
            _prune(parent, layer)
        elif child := parent.children.get(hidden):
            if child.layer < layer:
                del parent.children[hidden]
            else:
                _prune(child, layer)

    @staticmethod
    def _below_whiteout(entry: tarfile.TarInfo, directory: str) -> bool:
        """Return whether an entry is in one of the directories in which aufs kept its own data."""
        whiteout = next((part for part in directory.split("/") if part.startswith(WHITEOUT)), "")
        if whiteout and not whiteout.startswith(_AUFS):
            refuse(entry, f"it is below {shown(whiteout)}, which is a whiteout")
        return bool(whiteout)

    def _kept_xattrs(self, entry: tarfile.TarInfo) -> dict[str, str]:
        kept = _NONE
        for key, value in entry.pax_headers.items():
            if key.startswith(XATTR):
                name = key.removeprefix(XATTR)
                if keeps_xattr(name):
                    self._charge(len(key) + len(value))
                    kept = {**kept, key: value}
                elif name not in self.xattrs:
                    self._charge(_NODE_COST + len(name))
                    self.xattrs.add(name)
        return kept

    def _owner(self, entry: tarfile.TarInfo, what: str, number: int) -> int:
        if not 0 <= number <= _MOST_ID:
            refuse(entry, f"its {what} {number} is not possible")
        self._owners.add(number)
        if len(self._owners) > _MOST_OWNERS:
            raise RootlessError(
                "make the image", cause=f"its files have more than {_MOST_OWNERS} owners", code="RL-IMAGE"
            )
        return number

    def _charge(self, cost: int) -> None:
        self._cost += cost
        if self._cost > _MOST_MEMORY:
            raise RootlessError(
                "make the image",
                cause=f"the names of its files take more than {_MOST_MEMORY >> 30} GiB of memory",
                code="RL-IMAGE",
            )


def from_overlay(entries: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of an overlay's upper directory as those of a layer.

    Source: Documentation/filesystems/overlayfs.rst, "Whiteouts and opaque directories".
    """
    for entry in entries:
        directory, slash, name = entry.name.rpartition("/")
        if entry.ischr() and entry.devmajor == entry.devminor == 0:
            yield _whiteout(entry, f"{directory}{slash}{WHITEOUT}{name}")
            continue
        yield entry
        if entry.isdir() and any(entry.pax_headers.get(XATTR + key) == "y" for key in _OPAQUE_KEYS):
            yield _whiteout(entry, f"{entry.name}/{_OPAQUE}".lstrip("/"))


def _whiteout(entry: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    whiteout = type(entry)(name)
    whiteout.mode = 0
    return whiteout


def _has_long_part(name: str) -> bool:
    return any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME for part in name.split("/"))


def _walk(root: Node, path: str, *, layer: int = 0, make: Callable[[], Node] | None = None) -> Node | None:
    """Return the node of `path`; a symlink is followed where something comes after it, if only ``/.``.

    Args:
        root: where `path` and absolute symlinks begin, and ``..`` ends.
        path: names separated by slashes.
        layer: symlinks of lower layers lead nowhere.
        make: makes a directory of `layer` where there is none, or only something else of a lower layer.

    Returns:
        The node; None if there is none, or too many symlinks lead to it. With `make`: a node that is no directory, if
        `path` goes through one.
    """
    trail, links = [root], 0
    todo = path.split("/")[::-1]
    while todo:
        name = todo.pop()
        if name == "..":
            trail = trail[:-1] or trail
        if name in {"", ".", ".."}:
            continue
        here = trail[-1]
        if here.kind != DIRECTORY:
            return here if make else None
        child = here.children.get(name)
        if child and child.kind == LINK and todo and child.layer >= layer:
            links += 1
            if links > _MAX_LINKS:
                return None
            trail = [root] if child.target.startswith("/") else trail
            todo += child.target.split("/")[::-1]
            continue
        if make:
            if child is None or (child.kind != DIRECTORY and child.layer < layer):
                child = here.children[name] = make()
            child.layer = layer
        elif child is None:
            return None
        trail.append(child)
    return trail[-1]


def _prune(node: Node, layer: int) -> None:
    """Remove what lower layers have below a directory. Doing so again costs nothing, however large it is."""
    todo = [node]
    while todo:
        here = todo.pop()
        if here.pruned < layer:
            here.pruned = layer
            for name in [name for name, child in here.children.items() if child.layer < layer]:
                del here.children[name]
            todo.extend(child for child in here.children.values() if child.kind == DIRECTORY)
