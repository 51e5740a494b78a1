"""Options of a mount: config.md "Linux mount options", mount(8), mount_setattr(2)."""

from __future__ import annotations

from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

READONLY = 0x01
NOSUID = 0x02
NODEV = 0x04
NOEXEC = 0x08
NOATIME = 0x10
STRICTATIME = 0x20
ATIME = 0x70
"""The field of access time modes; relatime is 0 in it. It is cleared as a whole before a mode is set."""
NODIRATIME = 0x80
RESTRICTIONS = READONLY | NOSUID | NODEV | NOEXEC
"""Attributes whose absence among the options of a bind means that they are off."""
ANY_ATIME = ATIME | NODIRATIME
"""What a user namespace cannot change of a mount that it was given (mount_setattr(2), mount_namespaces(7))."""
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
"""The default, or without effect since the kernel has the new mount interface."""
_SWITCHES = {
    "remount": "remount",
    "tmpcopyup": "copy_up",
    # crun's; podman's no-dereference is copy-symlink
    "src-nofollow": "source_link",
    "dest-nofollow": "target_link",
    "copy-symlink": "copy_link",
}
_OPPOSITES = {"async": "sync", "nolazytime": "lazytime", "nomand": "mand"}
"""Defaults that revoke an earlier option of the file system."""


class MountOptions:
    """Parsed options.

    Attributes:
        set, clear: attributes of this mount, as bits of mount_setattr(2).
        set_below, clear_below: the same for this mount and all below it (rro, rnosuid, …).
        propagation: MS_PRIVATE, MS_SLAVE, …, or 0; `recursive_propagation` if for all below too.
        bind, recursive: a bind mount; with what is mounted below its source.
        remount: changes a mount that is there.
        copy_up: a tmpfs that begins with what it covers.
        source_link, target_link: a bind of a symbolic link itself, or over one.
        copy_link: a symbolic link of the host is made in the container, instead of a bind.
        idmap: an id-mapped mount is asked for; `idmap_below`: with what is mounted below.
        data: everything else, for the file system; what belongs to a superblock (sync, lazytime, …) is among it.
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
        """Read options in order; a later one overrides an earlier one that contradicts it."""
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

    @property
    def link_flags(self) -> int:
        """The flags of BIND and TREE that say what becomes of symbolic links."""
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
    """Take an option without an effect."""


_ID_MAPPED = ("idmap", "ridmap")
"""Options that may have a value, for compatibility with crun."""
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
"""The function that reads each option, and its arguments after the MountOptions."""


def known() -> list[str]:
    """Return every option with a meaning of its own; what is not among them is for the file system alone."""
    both = (*_ATTRIBUTES, *PROPAGATIONS, "bind", "idmap")
    singly = (*_SWITCHES, "dirsync", *_NOTHING, *_OPPOSITES, *_OPPOSITES.values())
    return sorted({*both, *(f"r{name}" for name in both), *singly})


def words(on: int, off: int) -> str:
    """Return attribute bits that are set and cleared as option words, for people."""
    found = [
        name
        for name, (sets, clears) in _ATTRIBUTES.items()
        if name not in _SYNONYMS and (on & sets == sets if sets else off & clears == clears and not on & clears)
    ]
    return ", ".join(found)
