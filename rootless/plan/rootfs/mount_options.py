"""Options of a mount: config.md "Linux mount options", mount(8), mount_setattr(2)."""

from __future__ import annotations

from rootless.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
"""Defaults that take back what was said before about the file system."""


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
            self._read(option)

    def _read(self, option: str) -> None:
        if option in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option]
            self.set, self.clear = self.set & ~off | on, self.clear & ~on | off
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, self.recursive or option == "rbind"
        elif option in _NOTHING or not option:
            pass
        elif option in _OPPOSITES:
            self.data = [word for word in self.data if word != _OPPOSITES[option]]
        elif option[0] == "r" and option[1:] in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option[1:]]
            self.set_below, self.clear_below = self.set_below & ~off | on, self.clear_below & ~on | off
        elif option in PROPAGATIONS or (option[0] == "r" and option[1:] in PROPAGATIONS):
            self.recursive_propagation = option not in PROPAGATIONS
            self.propagation = PROPAGATIONS[option[1:] if self.recursive_propagation else option]
        elif option in _SWITCHES:
            setattr(self, _SWITCHES[option], True)
        elif option.partition("=")[0] in ("idmap", "ridmap"):
            self.idmap, self.idmap_below = True, option[0] == "r"
        else:
            self.data.append(option)

    @property
    def link_flags(self) -> int:
        """The flags of BIND and TREE that say what becomes of symbolic links."""
        flags = ops.SOURCE_LINK if self.source_link else 0
        flags |= ops.TARGET_LINK if self.target_link else 0
        return flags | (ops.COPY_LINK if self.copy_link else 0)


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
