"""Shares of caches and memory bandwidth: config-linux.md "IntelRdt", Documentation/filesystems/resctrl.rst.

Imported for a config.json with linux.intelRdt.
"""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context

_DEFAULT_CLASS = "/"
_OWN_NAMES = ("info", "mon_data", "mon_groups")
"""Directories that resctrl has in each place where a group could be made."""


class Group:
    """The resctrl group that the container goes into.

    Attributes:
        path: its directory.
        schemata: lines that are written to it, in this order.
        compared: how many of the first of them a class that is there already must have.
        own: the directory is named by the container, and if it is made for it, it is removed with it.
        must_exist: the directory has been made by somebody else.
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
    where = "linux.intelRdt"
    wanted = context.linux["intelRdt"]
    root = context.facts.resctrl
    if not root:
        raise RootlessError(
            "cannot give the container its share of the caches",
            cause="no resctrl file system is mounted",
            where=where,
            fix="mount it, as root: mount -t resctrl resctrl /sys/fs/resctrl (it needs a CPU with RDT or QoS), "
            "or remove intelRdt",
            code="RL-RESCTRL",
        )
    class_id: str = wanted.get("closID") or ""
    name = class_id or context.request.container
    if name != _DEFAULT_CLASS and ("/" in name or name in (".", "..", *_OWN_NAMES)):
        raise RootlessError(
            f"cannot use the class {name!r}",
            cause="it is no name of a resctrl group",
            where=f"{where}.closID",
            fix="write the name of one directory, or / for the default class",
            code="RL-CONFIG",
        )
    schemata = [line for line in (wanted.get("l3CacheSchema"), wanted.get("memBwSchema")) if line]
    compared = len(schemata) if class_id else 0
    schemata += wanted.get("schemata") or ()
    broken = next((line for line in schemata if "\n" in line.strip("\n")), "")
    if broken:
        raise RootlessError(
            "cannot give the container its share of the caches",
            cause=f"{broken!r} is more than one line",
            where=where,
            fix="write each line as an element of schemata",
            code="RL-CONFIG",
        )
    path = root if name == _DEFAULT_CLASS else f"{root}/{name}"
    return Group(
        path,
        [line.strip("\n") for line in schemata],
        compared=compared,
        own=not class_id,
        must_exist=name == _DEFAULT_CLASS or (bool(class_id) and not schemata),
        monitor=f"{path}/mon_groups/{context.request.container}" if wanted.get("enableMonitoring") else "",
    )
