"""A root that is an image, or that an overlay covers: FUSE serves the squashfs, changes go to memory or a directory.

The executor mounts FUSE inside the container's user namespace, so that the IDs in the image are those of the container:
nothing is unpacked and no owner is changed. The launcher gives the connection to squashfuse_ll, which parses the image
outside, sees none of the caller's files (rootless/plan/rootfs/confine.py), and ends with the mount.

The overlay is there for a read-only root too, which is sealed later: an image does not have every mount point.

Source: Documentation/filesystems/fuse.rst, overlayfs.rst.
"""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.linux import NODEV, READONLY
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import PRIVATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless.plan.context import Context
    from rootless.plan.rootfs.accounts import names
else:
    names = lazy("rootless.plan.rootfs.accounts", "names")

MEMORY = "memory"
"""The overlay whose changes end with the container; any other name is a directory."""
PROGRAM, PACKAGE = "squashfuse_ll", "squashfuse"
DEVICE = "/dev/fuse"
CONNECTION, FILE, READY = 3, 4, 5
"""Descriptors of the server: its connection to the kernel, the image, the pipe on which it reports that it serves."""

_STAND_IN = 1
"""What the server calls the only ID of a container, where that is 0."""


class Image:
    """An image and its server.

    Attributes:
        path: of the file on the host.
        program: path of squashfuse_ll.
        owner: (uid, gid) of every file, for a container with a single ID; else empty.
        private: whether the server gets a user namespace, in which it has no capability.
    """

    __slots__ = ("owner", "path", "private", "program")

    def __init__(self, path: str, program: str, owner: tuple[int, ...], *, private: bool) -> None:
        self.path = path
        self.program = program
        self.owner = owner
        self.private = private

    def __str__(self) -> str:
        """Return the name of the file."""
        return self.path

    def as_data(self) -> dict[str, object]:
        """Return the image as JSON data."""
        return {"path": self.path, "program": self.program, "owner": self.owner, "private": self.private}

    def details(self) -> Iterator[str]:
        """Yield the command line of the server, for a squashfs that begins the file."""
        yield f"served by {' '.join([self.program, *self.command(0)[1:]])}"

    def command(self, offset: int) -> list[str]:
        """Return the command line of the server for a squashfs that begins `offset` bytes into the file."""
        options = [f"notify_pipe=/proc/self/fd/{READY}"]
        options += [f"offset={offset}"] if offset else []
        options += ["uid={},gid={}".format(*self.owner)] if self.owner else []
        return [self.program, "-f", "-o", ",".join(options), f"/proc/self/fd/{FILE}", f"/dev/fd/{CONNECTION}"]


def image_of(context: Context) -> Image:
    """Return the image of a container, and how it is served.

    Raises:
        RootlessError: `RL-IMAGE`: it cannot be served.
    """
    facts = context.facts
    if not facts.squashfuse:
        raise RootlessError(
            f"cannot mount {context.bundle.rootfs}",
            cause=f"{PROGRAM} is not installed, or {DEVICE} cannot be opened",
            where="root.path",
            fix="run `rootless doctor`, which names the command that changes it",
            code="RL-IMAGE",
        )
    ids = _single_ids(context)
    owner = (_STAND_IN, _STAND_IN) if 0 in ids else ids
    return Image(context.bundle.rootfs, facts.squashfuse, owner, private=not facts.privileged)


def _single_ids(context: Context) -> tuple[int, ...]:
    """Return the uid and the gid that own every file, for a container that has only one; else nothing."""
    maps = (context.uid_map, context.gid_map)
    single = any(sum(count for _, _, count in lines) == 1 for lines in maps)
    return tuple(lines[0][0] for lines in maps) if single else ()


def connect(context: Context) -> list[Op]:
    """Return the operations that mount the image, before the container process exists: its server starts meanwhile."""
    ids = _single_ids(context)
    user, group = ids or (lines[0][0] if lines else 0 for lines in (context.uid_map, context.gid_map))
    plan = []
    if 0 in ids:
        # squashfuse cannot have files belong to 0 (up to 0.6): they belong to another ID of a user namespace below
        maps = (f"{_STAND_IN} {user} 1\n", f"{_STAND_IN} {group} 1\n")
        plan.append(Op(ops.ID_MAP, int(bool(context.maps)), *maps, "", where="root.path"))
        user = group = _STAND_IN
    options = [
        *(f"source={context.bundle.rootfs.rpartition('/')[2]}", "subtype=squashfuse", "rootmode=40000"),
        *(f"user_id={user}", f"group_id={group}", "default_permissions"),
        # everybody in the container may use it; the user namespace below is closed to others, and has one user
        *(() if plan else ("allow_other",)),
    ]
    return [*plan, Op(ops.FUSE, READONLY | NODEV, options, where="root.path")]


def overlay(context: Context) -> list[Op]:
    """Return the operations that cover the root, and have the caller's directory for the changes taken along."""
    upper = context.request.overlay
    if upper and upper != MEMORY:
        context.sources.append(Op(ops.TREE, 0, PRIVATE, 0, 0, 0, 0, upper))
    # trusted.* attributes take CAP_SYS_ADMIN over the host
    options = ["userxattr"] if context.in_user_namespace else []
    nodev = NODEV if context.bundle.is_image else 0
    # the launcher fills in the directory; its tree is the first one
    return [
        Op(ops.OVERLAY, nodev, 0, 0, 0, upper or MEMORY, options, where="root.path"),
        *(names(context) if context.request.userns == "keep-id" else ()),
    ]


def refuse(context: Context) -> None:
    """Refuse what an overlay cannot be made for.

    Raises:
        RootlessError: `RL-IMAGE`: the container has no mount namespace of its own, or keeps the old root.
    """
    cause = fix = ""
    if "mount" not in context.created:
        cause = "the container has no mount namespace of its own"
        fix = 'add {"type": "mount"} to linux.namespaces'
    elif context.request.no_pivot:
        cause, fix = "it needs pivot_root", "leave out --no-pivot"
    if cause:
        what = f"cannot mount {context.bundle.rootfs}" if context.bundle.is_image else "--overlay"
        raise RootlessError(what, cause=cause, where="root.path", fix=fix, code="RL-IMAGE")
