"""Moves network interfaces into a container: config-linux.md "Network Devices", rtnetlink(7).

An interface keeps its hardware address and its MTU in another network namespace; it loses its addresses and goes down.
Imported for a config.json with linux.netDevices: pyroute2 takes 200 ms.
"""

from __future__ import annotations

import errno
import os

from rootless.plan.network.net_devices import RIGHTS, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless.errors import RootlessError
    from rootless.plan.network.net_devices import Interface

_PERMANENT = 0x80  # IFA_F_PERMANENT
_UNIVERSE = 0  # RT_SCOPE_UNIVERSE
_KEPT_FLAGS = 0x02 | 0x10 | 0x100 | 0x200 | 0x400
"""IFA_F_NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN: chosen by a user, not by the kernel."""

_FIXES = {
    errno.EPERM: RIGHTS,
    errno.EEXIST: "give it another name with linux.netDevices.NAME.name, such as eth%d",
    errno.EINVAL: "choose an interface that can leave its namespace; bridges and loopback cannot",
    errno.ENODEV: "name an interface of the namespace that rootless runs in (see `ip link`)",
}


def move(interfaces: Sequence[Interface], pid: int) -> None:
    """Move interfaces into the network namespace of the process `pid`, with their addresses, and bring them up there.

    All are checked before the first is moved. A refusal of the kernel ends the container: its namespace goes, and with
    it the interfaces in it (a physical one returns to the host, network_namespaces(7)).

    Raises:
        RootlessError: naming the interface and its place in config.json.
    """
    try:
        from pyroute2 import IPRoute, netns
        from pyroute2.netlink.exceptions import NetlinkError
    except ImportError:
        raise refused(
            interfaces[0],
            "the Python package pyroute2 is not installed",
            "install it: pip install pyroute2 (Debian: apt install python3-pyroute2)",
        ) from None
    current = interfaces[0]
    target = -1
    try:
        target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        # A socket belongs to the namespace that it was made in. NetNS() would fork for it, and hang now and then.
        netns.pushns(target)
        try:
            inside = IPRoute()
        finally:
            netns.popns()
        with inside, IPRoute() as outside:
            found = []
            taken = {each.get("ifname") for each in inside.get_links()}
            for current in interfaces:
                found.append(_look(outside, current))
                if current.new_name in taken:
                    raise _error(current, errno.EEXIST)
            for current, (index, addresses) in zip(interfaces, found, strict=True):
                before = {each["index"] for each in inside.get_links()}
                outside.link("set", index=index, ifname=current.new_name, net_ns_fd=target)
                # the name may be the kernel's choice, and so is the number where that was taken
                (there,) = (each["index"] for each in inside.get_links() if each["index"] not in before)
                _settle(inside, there, addresses)
    except NetlinkError as error:
        raise _error(current, error.code, str(error.args[-1])) from None
    except OSError as error:
        raise _error(current, error.errno or errno.EIO) from None
    finally:
        if target >= 0:
            os.close(target)


def _look(outside: Any, interface: Interface) -> tuple[int, list[Any]]:  # noqa: ANN401 - pyroute2 has no types
    """Return the index of an interface of the host, and the addresses that it keeps."""
    found = outside.link_lookup(ifname=interface.name)
    if not found:
        raise _error(interface, errno.ENODEV)
    index: int = found[0]
    addresses = [
        address
        for address in outside.get_addr(index=index)
        if (address.get("flags") or address["flags"]) & _PERMANENT and address["scope"] == _UNIVERSE
    ]
    return index, addresses


def _settle(inside: Any, index: int, addresses: Sequence[Any]) -> None:  # noqa: ANN401
    for address in addresses:
        chosen = {name: address.get(name) for name in ("address", "local", "broadcast")}
        inside.addr(
            "add",
            index=index,
            family=address["family"],
            prefixlen=address["prefixlen"],
            scope=_UNIVERSE,
            flags=(address.get("flags") or address["flags"]) & _KEPT_FLAGS,
            **{name: value for name, value in chosen.items() if value is not None},
        )
    inside.link("set", index=index, state="up")


def _error(interface: Interface, number: int, text: str = "") -> RootlessError:
    return refused(interface, text or os.strerror(number), _FIXES.get(number, ""))
