"""Shares of caches and memory bandwidth: config-linux.md "IntelRdt", Documentation/filesystems/resctrl.rst.

Imported for a config.json with linux.intelRdt.
"""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.plan.context import Context

_DEFAULT_CLASS = "/"
_OWN_NAMES = ("info", "mon_data", "mon_groups")
"""Directories that resctrl has in each place where a group could be made."""

_WHERE = "linux.intelRdt"
_SHARE = "cannot give the container its share of the caches"


class Group:
    """The resctrl group that the container goes into.

    Attributes:
        path: its directory.
        schemata: lines that are written to it, in this order.
        compared: how many of the first of them a class that is there already must have.
        own: the directory is named by the container, and if it is made for it, it is removed with it.
        must_exist: another program has made the directory.
        monitor: the directory of its monitoring group, or nothing.
    """

    __slots__ = ("compared", "monitor", "must_exist", "own", "path", "schemata")

    def __init__(
        self, path: str, schemata: list[str], *, compared: int, own: bool, must_exist: bool, monitor: str
    ) -> None:
        self.path = path
        self.schemata = schemata
        self.compared = compared
        self.own = own
        self.must_exist = must_exist
        self.monitor = monitor

    def __str__(self) -> str:
        """Return what happens, in words."""
        lines = "; ".join(self.schemata)
        return f"join the resctrl group {self.path}" + (f" with {lines}" if lines else "")


def group(context: Context) -> Group:
    """Return the group that linux.intelRdt asks for."""
    wanted = context.linux["intelRdt"]
    root = context.facts.resctrl
    if not root:
        raise RootlessError(
            _SHARE,
            cause="no resctrl file system is mounted",
            where=_WHERE,
            fix="mount it, as root: mount -t resctrl resctrl /sys/fs/resctrl (it needs a CPU with RDT or QoS), "
            "or remove intelRdt",
            code="RL-RESCTRL",
        )
    class_id: str = wanted.get("closID") or ""
    name = _checked_name(class_id or context.request.container)
    compared, schemata = _schemata(wanted)
    path = root if name == _DEFAULT_CLASS else f"{root}/{name}"
    return Group(
        path,
        schemata,
        compared=compared if class_id else 0,
        own=not class_id,
        must_exist=name == _DEFAULT_CLASS or (bool(class_id) and not schemata),
        monitor=f"{path}/mon_groups/{context.request.container}" if wanted.get("enableMonitoring") else "",
    )


def _checked_name(name: str) -> str:
    """Return the name of a class, which is a directory.

    Raises:
        RootlessError: `RL-CONFIG`: it is no such name.
    """
    if name != _DEFAULT_CLASS and ("/" in name or name in (".", "..", *_OWN_NAMES)):
        raise RootlessError(
            f"cannot use the class {name!r}",
            cause="it is not the name of a resctrl group",
            where=f"{_WHERE}.closID",
            fix="write the name of one directory, or / for the default class",
            code="RL-CONFIG",
        )
    return name


def _schemata(wanted: dict[str, Any]) -> tuple[int, list[str]]:
    """Return the lines for the file schemata, and how many of them an existing group must have already.

    Raises:
        RootlessError: `RL-CONFIG`: an element has several lines.
    """
    lines = [line for line in (wanted.get("l3CacheSchema"), wanted.get("memBwSchema")) if line]
    compared = len(lines)
    lines = [line.strip("\n") for line in (*lines, *(wanted.get("schemata") or ()))]
    broken = next((line for line in lines if "\n" in line), "")
    if broken:
        raise RootlessError(
            _SHARE,
            cause=f"{broken!r} is more than one line",
            where=_WHERE,
            fix="write each line as an element of schemata",
            code="RL-CONFIG",
        )
    return compared, lines
