"""Name resolution in a container: the texts of resolv.conf(5) and hosts(5)."""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.network.ports import is_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.host.host_network import HostNetwork

_MOST_SERVERS = 3
"""MAXNS of resolv.conf(5)."""
HOST_NAMES = "host.containers.internal host.docker.internal"
"""Names that podman and docker give the host in containers."""
_LOOPBACK = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


class Names:
    """Flags and names that determine name resolution.

    Attributes:
        servers, search: values of --dns and --dns-search; empty for those of the host.
        hosts: (address, name) of each --add-host; HOST_GATEWAY as address means the host.
        own: the container's host name and id, which resolve to its own address. Only single words: config.json must not
            add lines to a file that other containers read.
    """

    __slots__ = ("hosts", "own", "search", "servers")

    def __init__(
        self, servers: Sequence[str], search: Sequence[str], hosts: Sequence[tuple[str, str]], own: Sequence[str]
    ) -> None:
        self.servers = servers
        self.search = search
        self.hosts = hosts
        self.own = [name for name in own if _is_name(name)]


HOST_GATEWAY = "host-gateway"
_OTHERS = frozenset(["localhost", "ip6-localhost", "ip6-loopback", HOST_GATEWAY])
"""Names that have a meaning already."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def known_as(members: Mapping[str, str]) -> dict[str, str]:
    """Return, by container id, the names under which other members of its network find it, separated by blanks.

    The names are the id, which the caller chooses, and the host name, which the image chooses. A host name counts only
    without a dot, and only if no other member has it. Otherwise a container could receive requests for pypi.org or for
    another container.

    Args:
        members: by id, the id and the host name separated by blanks, in the order in which the containers joined.
    """
    taken = {container_id.lower() for container_id in members} | _OTHERS
    known = {}
    for container_id, names in members.items():
        found = [container_id]
        for name in map(str.lower, names.split()):
            if name not in taken and _LETTERS.issuperset(name):
                taken.add(name)
                found.append(name)
        known[container_id] = " ".join(found)
    return known


def added(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return (address, name) for each --add-host NAME:IP.

    Raises:
        RootlessError: `RL-NAMES`: a value does not have that form.
    """
    found = []
    for text in texts:
        name, _, address = text.partition(":")
        address = address.removeprefix("[").removesuffix("]")
        if not _is_name(name) or not (is_address(address) or address == HOST_GATEWAY):
            raise RootlessError(
                f"--add-host {text!r}",
                cause="expected a name, a colon and an IP address",
                fix=f"write it as NAME:IP, or NAME:{HOST_GATEWAY} for the host",
                code="RL-NAMES",
            )
        found.append((address, name))
    return found


def _is_name(text: str) -> bool:
    """Whether `text` can stand as one word in hosts(5)."""
    return bool(text) and text.isprintable() and " " not in text and "#" not in text


def servers(texts: Sequence[str]) -> Sequence[str]:
    """Return the values of --dns after checking them.

    Raises:
        RootlessError: `RL-NAMES`: a value is not an IP address.
    """
    for text in texts:
        if not is_address(text):
            raise RootlessError(
                f"--dns {text!r}",
                cause="it is not an IP address",
                fix="write the IP address of the server",
                code="RL-NAMES",
            )
    return texts


def resolver(names: Names, host: HostNetwork, forwarder: str, *, shared: bool = False, alone: bool = False) -> str:
    """Return the text of resolv.conf.

    Args:
        names: what the flags request.
        host: the host's network.
        forwarder: the address at which the helper forwards DNS queries to the host's first server; empty without one.
        shared: the container is on the host's network and reaches servers on the host's loopback.
        alone: the container has its loopback only and reaches no server.
    """
    found, search, options = list(names.servers), [" ".join(names.search)] if names.search else [], []
    if not alone:
        if not found:
            found = [forwarder] if forwarder else []
            found += [server for server in host.resolv_conf_entry("nameserver") if shared or not is_loopback(server)]
            options = host.resolv_conf_entry("options")
        search = search or host.resolv_conf_entry("search")[-1:]
    lines = [f"nameserver {server}" for server in found[:_MOST_SERVERS]]
    lines += [f"search {domains}" for domains in search if domains != "."]
    lines += [f"options {each}" for each in options]
    return "".join(f"{line}\n" for line in lines)


def hosts(names: Names, addresses: Sequence[str], gateway: str) -> str:
    """Return the text of hosts.

    Args:
        names: what the flags request.
        addresses: the container's addresses; empty if it has its loopback only.
        gateway: the address at which it reaches the host; empty if it cannot.
    """
    own = " ".join(dict.fromkeys(names.own))
    lines = [f"{address} {name}" for address, name in names.hosts if address != HOST_GATEWAY]
    if own:
        lines += [f"{address} {own}" for address in addresses or ("127.0.1.1",)]
    if gateway:
        lines += [f"{gateway} {name}" for address, name in names.hosts if address == HOST_GATEWAY]
        lines.append(f"{gateway} {HOST_NAMES}")
    return _LOOPBACK + "".join(f"{line}\n" for line in lines)


def hosts_of_host(names: Names, text: str) -> str:
    """Return the text of hosts for a container on the host's network; `text` is that of the host."""
    lines = [f"{'127.0.0.1' if address == HOST_GATEWAY else address} {name}" for address, name in names.hosts]
    return "\n".join([*lines, text.strip() or _LOOPBACK.strip()]) + "\n"


def is_loopback(address: str) -> bool:
    """Whether an address is a loopback address, such as systemd-resolved's 127.0.0.53."""
    return address.startswith("127.") or address == "::1"
