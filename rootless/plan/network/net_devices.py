"""Network interfaces of the host to move into the container: config-linux.md "Network Devices".

Imported only if config.json has linux.netDevices.
"""

from __future__ import annotations

from rootless.errors import RootlessError, place
from rootless.linux import CAP_NET_ADMIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context


class Interface:
    """A network interface to move.

    Attributes:
        name: its name on the host.
        new_name: its name in the container; the kernel replaces %d by a number.
        where: its place in config.json.
    """

    __slots__ = ("name", "new_name", "where")

    def __init__(self, name: str, new_name: str) -> None:
        self.name = name
        self.new_name = new_name
        self.where = place("linux", "netDevices", name)

    def __str__(self) -> str:
        """Return its name, and its new name if that differs."""
        return self.name + (f" as {self.new_name}" if self.new_name != self.name else "")


def moved(context: Context) -> list[Interface]:
    """Return the interfaces to move.

    Raises:
        RootlessError: `RL-NET-DEVICE`: the container has no network namespace, names collide, or the caller may not.
    """
    found = [
        Interface(name, (device or {}).get("name") or name)
        for name, device in (context.linux.get("netDevices") or {}).items()
    ]
    if "network" not in context.created and "network" not in context.joined:
        raise refused(
            found[0],
            "the container shares the host's network",
            'add {"type": "network"} to linux.namespaces, or remove netDevices',
        )
    names: set[str] = set()
    for each in found:
        if each.new_name in names and "%d" not in each.new_name:
            raise refused(each, f"another interface gets the name {each.new_name} too", "give each a different name")
        names.add(each.new_name)
    if not context.facts.has(CAP_NET_ADMIN):
        raise refused(found[0], "only root of its network namespace may move it", RIGHTS)
    return found


RIGHTS = (
    "let root run it, or create the interface in a network namespace of your own and run rootless there "
    "(podman unshare --rootless-netns, rootlesskit, unshare --map-root-user --net)"
)
"""The fix if the caller has no CAP_NET_ADMIN over the interface."""


def refused(interface: Interface, cause: str, fix: str) -> RootlessError:
    """Return the error for an interface that cannot be moved."""
    return RootlessError(
        f"cannot move the network interface {interface.name}",
        cause=cause,
        where=interface.where,
        fix=fix,
        code="RL-NET-DEVICE",
    )
