"""Links, addresses and routes of network namespaces, made from outside them: rtnetlink(7), with pyroute2's messages.

Each function takes a socket that was made in the namespace. It is used by the one who owns the user namespaces of both
ends of a pair, and from outside them: that one has every right over each, which nobody inside either has
(user_namespaces(7), "Capabilities"). The kernel asks for the rights of the socket's maker as well, unless a message is
addressed (netlink_ns_capable() in net/netlink/af_netlink.c): these are.
"""

from __future__ import annotations

import _socket
import os

from rootless.network.messages import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, ifaddrmsg, ifinfmsg, rtmsg
from rootless.plan.network.helpers import MTU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Attributes = list[list[Any]]
    """Of a message: name and value."""

BRIDGE = "br0"
_BRIDGE_INDEX = _INSIDE_INDEX = 1000
"""Above what is in a new namespace already: modules such as sit put links of their own there, as 2, 3 and so on."""
_FIRST_INDEX = 2000
_UP = 1  # IFF_UP
_REQUEST = 1 | 4  # NLM_F_REQUEST, NLM_F_ACK
_MAKE = _REQUEST | 0x600  # NLM_F_CREATE, NLM_F_EXCL
_NO_DAD = 2  # IFA_F_NODAD: nobody else can have it
_ERROR_AT = 16
_KERNEL = (0, 0)


def make_bridge(socket: int) -> None:
    """Make the bridge of a network."""
    info = {"attrs": [["IFLA_INFO_KIND", "bridge"]]}
    attributes: _Attributes = [["IFLA_IFNAME", BRIDGE], ["IFLA_MTU", MTU], ["IFLA_LINKINFO", info]]
    fields = {"index": _BRIDGE_INDEX, "flags": _UP, "change": _UP}
    _ask(socket, ifinfmsg, (RTM_NEWLINK, _MAKE), fields, attributes)


def plug_in(socket: int, name: str) -> None:
    """Make a link that is there a port of the bridge."""
    attributes: _Attributes = [["IFLA_IFNAME", name], ["IFLA_MTU", MTU], ["IFLA_MASTER", _BRIDGE_INDEX]]
    _ask(socket, ifinfmsg, (RTM_NEWLINK, _REQUEST), {"flags": _UP, "change": _UP}, attributes)


def make_pair(socket: int, name: str, number: int, namespace: int, inside: tuple[str, str]) -> None:
    """Make a port of the bridge whose other end is in another namespace.

    Args:
        socket: of the bridge's namespace.
        name: of the port.
        number: by which it differs from the other ports.
        namespace: a descriptor of the other network namespace.
        inside: the name of the end that is there, and its hardware address.
    """
    end = {
        "index": _INSIDE_INDEX,
        "attrs": [
            ["IFLA_IFNAME", inside[0]],
            ["IFLA_MTU", MTU],
            ["IFLA_ADDRESS", inside[1]],
            ["IFLA_NET_NS_FD", namespace],
        ],
    }
    info = {"attrs": [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", {"attrs": [["VETH_INFO_PEER", end]]}]]}
    attributes: _Attributes = [
        ["IFLA_IFNAME", name],
        ["IFLA_MTU", MTU],
        ["IFLA_MASTER", _BRIDGE_INDEX],
        ["IFLA_LINKINFO", info],
    ]
    fields = {"index": _FIRST_INDEX + number, "flags": _UP, "change": _UP}
    _ask(socket, ifinfmsg, (RTM_NEWLINK, _MAKE), fields, attributes)


def settle(socket: int, address: str, prefix: int, gateway: str) -> None:
    """Bring the inner end of a pair up, with an address, and everything that is further away behind `gateway`."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    _ask(socket, ifinfmsg, (RTM_NEWLINK, _REQUEST), {"index": _INSIDE_INDEX, "flags": _UP, "change": _UP}, [])
    fields = {"family": family, "index": _INSIDE_INDEX, "prefixlen": prefix, "flags": _NO_DAD}
    _ask(socket, ifaddrmsg, (RTM_NEWADDR, _MAKE), fields, [["IFA_LOCAL", address], ["IFA_ADDRESS", address]])
    fields = {"family": family, "table": 254, "proto": 4, "scope": 0, "type": 1}
    _ask(socket, rtmsg, (RTM_NEWROUTE, _MAKE), fields, [["RTA_GATEWAY", gateway], ["RTA_OIF", _INSIDE_INDEX]])


def _ask(socket: int, kind: Any, order: tuple[int, int], fields: dict[str, Any], attributes: _Attributes) -> None:  # noqa: ANN401
    """Send one request: a message of the class `kind`, of a type and with flags.

    Raises:
        OSError: the kernel says no.
    """
    message = kind()
    message.update(fields)
    message["attrs"] = attributes
    message["header"] = {"type": order[0], "flags": order[1], "sequence_number": 1}
    message.encode()
    channel = _socket.socket(fileno=os.dup(socket))  # its own: whatever comes in between, nothing is closed twice
    try:
        channel.sendto(bytes(message.data), _KERNEL)
        answer = channel.recv(65536)
    finally:
        channel.close()
    code = -int.from_bytes(answer[_ERROR_AT : _ERROR_AT + 4], "little", signed=True)
    if code:
        raise OSError(code, os.strerror(code))
