"""Options of a mount: config.md "Linux mount options", mount(8), mount_setattr(2)."""

from __future__ import annotations

from rootless.linux import NODEV, NOEXEC, NOSUID, READONLY
from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NOATIME = 0x10
STRICTATIME = 0x20
ATIME = 0x70
"""The bits of the access time mode, where relatime is 0. They are cleared before a mode is set."""
NODIRATIME = 0x80
RESTRICTIONS = READONLY | NOSUID | NODEV | NOEXEC
"""Attributes that a bind mount switches off unless its options set them."""
ANY_ATIME = ATIME | NODIRATIME
"""Attributes that a user namespace cannot change on inherited mounts (mount_setattr(2), mount_namespaces(7))."""
NOSYMFOLLOW = 0x200000

UNBINDABLE = 1 << 17
PRIVATE = 1 << 18
SLAVE = 1 << 19
SHARED = 1 << 20

PROPAGATIONS = {"unbindable": UNBINDABLE, "private": PRIVATE, "slave": SLAVE, "shared": SHARED}

_ATTRIBUTES = {
    # option: (bits to set, bits to clear)
    "ro": (READONLY, 0),
    "rw": (0, READONLY),
    "nosuid": (NOSUID, 0),
    "suid": (0, NOSUID),
    "nodev": (NODEV, 0),
    "dev": (0, NODEV),
    "noexec": (NOEXEC, 0),
    "exec": (0, NOEXEC),
    "noatime": (NOATIME, ATIME),
    "atime": (0, ATIME),
    "relatime": (0, ATIME),
    "norelatime": (STRICTATIME, ATIME),
    "strictatime": (STRICTATIME, ATIME),
    "nostrictatime": (0, ATIME),
    "nodiratime": (NODIRATIME, 0),
    "diratime": (0, NODIRATIME),
    "nosymfollow": (NOSYMFOLLOW, 0),
    "symfollow": (0, NOSYMFOLLOW),
}
_SYNONYMS = ("atime", "norelatime", "nostrictatime")
_NOTHING = ("defaults", "iversion", "noiversion", "silent", "loud")
"""Options that are the default or have no effect."""
_SWITCHES = {
    "remount": "remount",
    "tmpcopyup": "copy_up",
    # from crun; podman writes copy-symlink for its no-dereference
    "src-nofollow": "source_link",
    "dest-nofollow": "target_link",
    "copy-symlink": "copy_link",
}
_OPPOSITES = {"async": "sync", "nolazytime": "lazytime", "nomand": "mand"}
"""Options that revoke an earlier option of the file system."""


class MountOptions:
    """Parsed options.

    Attributes:
        set, clear: attributes of this mount, as bits of mount_setattr(2).
        set_below, clear_below: the same for this mount and all mounts below it (rro, rnosuid, …).
        propagation: MS_PRIVATE, MS_SLAVE, …, or 0; `recursive_propagation`: also for all mounts below it.
        bind, recursive: a bind mount; including the mounts below its source.
        remount: changes an existing mount.
        copy_up: a tmpfs that starts with the files that it covers.
        source_link, target_link: the source, or the target, may be a symlink, which is not followed.
        copy_link: if the source is a symlink, the container gets a copy of it instead of a bind mount.
        idmap: an ID-mapped mount; `idmap_below`: including the mounts below it.
        data: all other options, which go to the file system, including those of the superblock (sync, lazytime, …).
    """

    __slots__ = (
        "bind",
        "clear",
        "clear_below",
        "copy_link",
        "copy_up",
        "data",
        "idmap",
        "idmap_below",
        "propagation",
        "recursive",
        "recursive_propagation",
        "remount",
        "set",
        "set_below",
        "source_link",
        "target_link",
    )

    def __init__(self, options: Sequence[str]) -> None:
        """Parse options in order; a later one overrides a contradictory earlier one."""
        self.set = self.clear = self.set_below = self.clear_below = self.propagation = 0
        self.bind = self.recursive = self.recursive_propagation = self.remount = False
        self.copy_up = self.idmap = self.idmap_below = False
        self.source_link = self.target_link = self.copy_link = False
        self.data: list[str] = []
        for option in options:
            name = option.partition("=")[0]
            read = _MEANINGS.get(option) or (_MEANINGS.get(name) if name in _ID_MAPPED else None)
            if read:
                read[0](self, *read[1:])
            else:
                self.data.append(option)

    def make_readonly(self) -> None:
        """Let nothing be written to this mount and to those below it, as the options ro and rro do."""
        _change(self, READONLY, 0)
        _change_below(self, READONLY, 0)

    @property
    def link_flags(self) -> int:
        """The flags of BIND and TREE for symlinks."""
        flags = ops.SOURCE_LINK if self.source_link else 0
        flags |= ops.TARGET_LINK if self.target_link else 0
        return flags | (ops.COPY_LINK if self.copy_link else 0)


def _change(made: MountOptions, on: int, off: int) -> None:
    made.set, made.clear = made.set & ~off | on, made.clear & ~on | off


def _change_below(made: MountOptions, on: int, off: int) -> None:
    made.set_below, made.clear_below = made.set_below & ~off | on, made.clear_below & ~on | off


def _bind(made: MountOptions, recursive: int) -> None:
    made.bind, made.recursive = True, made.recursive or bool(recursive)


def _propagate(made: MountOptions, flag: int, recursive: int) -> None:
    made.propagation, made.recursive_propagation = flag, bool(recursive)


def _map_ids(made: MountOptions, below: int) -> None:
    made.idmap, made.idmap_below = True, bool(below)


def _switch(made: MountOptions, name: str) -> None:
    setattr(made, name, True)


def _take_back(made: MountOptions, word: str) -> None:
    made.data = [each for each in made.data if each != word]


def _ignore(made: MountOptions) -> None:
    """Accept an option without effect."""


_ID_MAPPED = ("idmap", "ridmap")
"""Options that may have a value, as in crun."""
_MEANINGS: dict[str, tuple[Any, ...]] = {
    **{"r" + word: (_change_below, *bits) for word, bits in _ATTRIBUTES.items()},
    **{word: (_change, *bits) for word, bits in _ATTRIBUTES.items()},
    **{word: (_propagate, flag, 0) for word, flag in PROPAGATIONS.items()},
    **{"r" + word: (_propagate, flag, 1) for word, flag in PROPAGATIONS.items()},
    **{word: (_switch, name) for word, name in _SWITCHES.items()},
    **{word: (_take_back, opposite) for word, opposite in _OPPOSITES.items()},
    **dict.fromkeys((*_NOTHING, ""), (_ignore,)),
    "bind": (_bind, 0),
    "rbind": (_bind, 1),
    "idmap": (_map_ids, 0),
    "ridmap": (_map_ids, 1),
}
"""By option: the function that applies it, and its arguments after the MountOptions."""


def known() -> list[str]:
    """Return every option that rootless interprets; it passes all others to the file system."""
    both = (*_ATTRIBUTES, *PROPAGATIONS, "bind", "idmap")
    singly = (*_SWITCHES, "dirsync", *_NOTHING, *_OPPOSITES, *_OPPOSITES.values())
    return sorted({*both, *(f"r{name}" for name in both), *singly})


def words(on: int, off: int) -> str:
    """Return the options that set the bits `on` and clear the bits `off`, separated by commas, for people."""
    found = [
        name
        for name, (sets, clears) in _ATTRIBUTES.items()
        if name not in _SYNONYMS and (on & sets == sets if sets else off & clears == clears and not on & clears)
    ]
    return ", ".join(found)
