"""Network interfaces, addresses and routes, made from outside of their network namespaces: rtnetlink(7).

Each function takes a netlink socket that was made in the namespace. The caller owns the user namespaces of both ends of
a pair and is outside of them. So it has every right over each, which no process inside has (user_namespaces(7),
"Capabilities"). The kernel asks for the rights of the socket's maker as well, unless a message is addressed
(netlink_ns_capable() in net/netlink/af_netlink.c): these are.
"""

from __future__ import annotations

import _socket

from rootless.network import rtnetlink as rt
from rootless.network.rtnetlink import attribute
from rootless.plan.network.helpers import MTU

BRIDGE = "br0"
_BRIDGE_INDEX = _INSIDE_INDEX = 1000
"""Above those that a new namespace begins with: modules such as sit add interfaces of their own as 2, 3 and so on."""
_FIRST_INDEX = 2000


def make_bridge(socket: int) -> None:
    """Make the bridge of a network."""
    bridge = rt.link(
        _BRIDGE_INDEX,
        rt.UP,
        attribute(rt.IFLA_IFNAME, BRIDGE),
        attribute(rt.IFLA_MTU, MTU),
        attribute(rt.IFLA_LINKINFO, attribute(rt.INFO_KIND, "bridge")),
    )
    rt.ask(socket, rt.NEW_LINK, rt.CREATE, bridge)


def attach_to_bridge(socket: int, name: str) -> None:
    """Make an interface a port of the bridge."""
    port = rt.link(
        0,
        rt.UP,
        attribute(rt.IFLA_IFNAME, name),
        attribute(rt.IFLA_MTU, MTU),
        attribute(rt.IFLA_MASTER, _BRIDGE_INDEX),
    )
    rt.ask(socket, rt.NEW_LINK, rt.REQUEST, port)


def make_pair(socket: int, name: str, number: int, namespace: int, inside: tuple[str, str]) -> None:
    """Make a port of the bridge whose other end is in another namespace.

    Args:
        socket: of the bridge's namespace.
        name: of the port.
        number: by which it differs from the other ports.
        namespace: a descriptor of the other network namespace.
        inside: name and hardware address of the other end.
    """
    end = rt.link(
        _INSIDE_INDEX,
        0,
        attribute(rt.IFLA_IFNAME, inside[0]),
        attribute(rt.IFLA_MTU, MTU),
        attribute(rt.IFLA_ADDRESS, bytes.fromhex(inside[1].replace(":", ""))),
        attribute(rt.IFLA_NET_NS_FD, namespace),
    )
    peer = attribute(rt.INFO_DATA, attribute(rt.VETH_PEER, end))
    port = rt.link(
        _FIRST_INDEX + number,
        rt.UP,
        attribute(rt.IFLA_IFNAME, name),
        attribute(rt.IFLA_MTU, MTU),
        attribute(rt.IFLA_MASTER, _BRIDGE_INDEX),
        attribute(rt.IFLA_LINKINFO, attribute(rt.INFO_KIND, "veth") + peer),
    )
    rt.ask(socket, rt.NEW_LINK, rt.CREATE, port)


def configure_inside(socket: int, address: str, prefix: int, gateway: str) -> None:
    """Bring the inner end of a pair up, with an address, and a default route through `gateway`."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    own, router = (_socket.inet_pton(family, each) for each in (address, gateway))
    rt.ask(socket, rt.NEW_LINK, rt.REQUEST, rt.link(_INSIDE_INDEX, rt.UP))
    rt.ask(socket, rt.NEW_ADDRESS, rt.CREATE, rt.address(family, _INSIDE_INDEX, prefix, own))
    rt.ask(socket, rt.NEW_ROUTE, rt.CREATE, rt.default_route(family, _INSIDE_INDEX, router))
