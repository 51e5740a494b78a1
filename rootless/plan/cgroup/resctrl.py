"""Cache and memory bandwidth allocation: config-linux.md "IntelRdt", Documentation/filesystems/resctrl.rst.

Imported only if config.json has linux.intelRdt.
"""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.plan.context import Context

_DEFAULT_CLASS = "/"
_OWN_NAMES = ("info", "mon_data", "mon_groups")
"""Directories that the kernel creates, which are not groups."""

_WHERE = "linux.intelRdt"
_SHARE = "cannot give the container its share of the caches"


class Group:
    """The resctrl group that the container goes into.

    Attributes:
        path: its directory.
        schemata: lines to write to its file schemata, in this order.
        compared: the number of leading lines that an existing group must already have.
        own: the group is named after the container; if it is created for the container, delete removes it.
        must_exist: the group must exist already; it is not created.
        monitor: the directory of the monitoring group; empty without one.
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
        """Describe the operation for people."""
        lines = "; ".join(self.schemata)
        return f"join the resctrl group {self.path}" + (f" with {lines}" if lines else "")


def group(context: Context) -> Group:
    """Return the group that linux.intelRdt requests.

    Raises:
        RootlessError: `RL-RESCTRL`: no resctrl file system is mounted; `RL-CONFIG`: a name or a line is invalid.
    """
    wanted = context.linux["intelRdt"]
    root = context.facts.resctrl
    if not root:
        raise RootlessError(
            _SHARE,
            cause="no resctrl file system is mounted",
            where=_WHERE,
            fix="run, as root: mount -t resctrl resctrl /sys/fs/resctrl (it needs a CPU with RDT or QoS), "
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
    """Return the name of a class, after checking that it can be the name of a group's directory.

    Raises:
        RootlessError: `RL-CONFIG`: it cannot.
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
    """Return the number of leading lines that an existing group must have, and all lines for the file schemata.

    Raises:
        RootlessError: `RL-CONFIG`: an element has more than one line.
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
