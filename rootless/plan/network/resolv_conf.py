"""The files by which a container finds names: resolv.conf(5), hosts(5)."""

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
"""Names of the host in containers of podman and docker."""
_LOOPBACK = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


class Names:
    """How the container finds names, by the flags.

    Attributes:
        servers, search: of --dns and --dns-search; empty for the host's own.
        hosts: (address, name) of each --add-host; HOST_GATEWAY instead of an address is the host's.
        own: the container's host name and id, by which it finds itself; words only, because config.json must not add
            lines to a file that other containers read.
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
"""Host names that already have a meaning."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def known_as(members: Mapping[str, str]) -> dict[str, str]:
    """Return the names of each container for others on its network, separated by blanks.

    They are its id, which the caller chose, and its host name, which the image chose: only without a dot, and only when
    no other container has the name. Otherwise a container could receive requests for pypi.org or another container.

    Args:
        members: id and host name of each container separated by blanks, by id, in the order in which they joined.
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
    """Return (address, name) for each --add-host, NAME:IP.

    Raises:
        RootlessError: `RL-NAMES`: a text is not of that form.
    """
    found = []
    for text in texts:
        name, _, address = text.partition(":")
        address = address.removeprefix("[").removesuffix("]")
        if not _is_name(name) or not (is_address(address) or address == HOST_GATEWAY):
            raise RootlessError(
                f"--add-host {text!r}",
                cause="it is not a name, a colon and an IP address",
                fix=f"write it as NAME:IP, or NAME:{HOST_GATEWAY} for the host",
                code="RL-NAMES",
            )
        found.append((address, name))
    return found


def _is_name(text: str) -> bool:
    """Whether `text` is one word of hosts(5)."""
    return bool(text) and text.isprintable() and " " not in text and "#" not in text


def servers(texts: Sequence[str]) -> Sequence[str]:
    """Check every --dns.

    Raises:
        RootlessError: `RL-NAMES`: one is not an address.
    """
    for text in texts:
        if not is_address(text):
            raise RootlessError(
                f"--dns {text!r}",
                cause="it is not an IP address",
                fix="give the address of the server",
                code="RL-NAMES",
            )
    return texts


def resolver(names: Names, host: HostNetwork, forwarder: str, *, shared: bool = False, alone: bool = False) -> str:
    """Return the text of resolv.conf.

    Args:
        names: of the flags.
        host: the host's network.
        forwarder: the address at which the helper forwards DNS queries to the host's first server; empty without one.
        shared: the container is on the host's network, and reaches servers on the host's loopback.
        alone: the container has its loopback only, and reaches no server.
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
        names: of the flags.
        addresses: the container's own; empty when it has its loopback only.
        gateway: the address at which it reaches the host; empty when it cannot.
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
    """Return the text of hosts for a container on the host's network, from the host's own text."""
    lines = [f"{'127.0.0.1' if address == HOST_GATEWAY else address} {name}" for address, name in names.hosts]
    return "\n".join([*lines, text.strip() or _LOOPBACK.strip()]) + "\n"


def is_loopback(address: str) -> bool:
    """Whether an address is one that only the host itself can reach, such as systemd-resolved's 127.0.0.53."""
    return address.startswith("127.") or address == "::1"
