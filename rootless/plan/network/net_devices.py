"""Network links of the host that move into the container: config-linux.md "Network Devices".

Imported for a config.json with linux.netDevices.
"""

from __future__ import annotations

from rootless.errors import RootlessError, place
from rootless.linux import CAP_NET_ADMIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.context import Context


class Link:
    """One link: its `name` on the host; its `new_name` in the container, whose %d is a number that the kernel chooses.

    `where` is its place in config.json.
    """

    __slots__ = ("name", "new_name", "where")

    def __init__(self, name: str, new_name: str) -> None:
        self.name = name
        self.new_name = new_name
        self.where = place("linux", "netDevices", name)

    def __str__(self) -> str:
        """Return what happens to it."""
        return f"move the network link {self.name}" + (f" as {self.new_name}" if self.new_name != self.name else "")


def moved(context: Context) -> list[Link]:
    """Return the links to move."""
    links = [
        Link(name, (link or {}).get("name") or name) for name, link in (context.linux.get("netDevices") or {}).items()
    ]
    if "network" not in context.created and "network" not in context.joined:
        raise _refused(
            links[0],
            "the container shares the host's network",
            'add {"type": "network"} to linux.namespaces, or remove netDevices',
        )
    names: set[str] = set()
    for link in links:
        if link.new_name in names and "%d" not in link.new_name:
            raise _refused(link, f"another link becomes {link.new_name} too", "give each a name of its own")
        names.add(link.new_name)
    if not context.facts.has(CAP_NET_ADMIN):
        raise _refused(links[0], "only root of the network namespace that has it may do that, and you are not", RIGHTS)
    return links


RIGHTS = (
    "let root run it, or make the link in a network namespace of your own and run rootless there "
    "(podman unshare --rootless-netns, rootlesskit, unshare --map-root-user --net)"
)
"""What to do about a link that the caller has no power over."""


def _refused(link: Link, cause: str, fix: str) -> RootlessError:
    return RootlessError(
        f"cannot move the network link {link.name}", cause=cause, where=link.where, fix=fix, code="RL-NET-DEVICE"
    )
