"""Messages of rtnetlink(7): the bytes are those of pyroute2, and the kernel's answers are parsed."""

from __future__ import annotations

import errno
import socket

import pytest
from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from rootless.network import interfaces, rtnetlink
from rootless.plan.network.helpers import MTU

MAKE = 1 | 4 | 0x600
CHANGE = 1 | 4
UP = {"flags": 1, "change": 1}


def encoded(kind, order, flags, fields, attributes):
    """Return a message as pyroute2 writes it."""
    message = kind()
    message.update(fields)
    message["attrs"] = attributes
    message["header"] = {"type": order, "flags": flags, "sequence_number": 1}
    message.encode()
    return bytes(message.data)


def bridge():
    info = {"attrs": [["IFLA_INFO_KIND", "bridge"]]}
    attributes = [["IFLA_IFNAME", "br0"], ["IFLA_MTU", MTU], ["IFLA_LINKINFO", info]]
    return [encoded(ifinfmsg, RTM_NEWLINK, MAKE, {"index": 1000, **UP}, attributes)]


def port():
    attributes = [["IFLA_IFNAME", "tap0"], ["IFLA_MTU", MTU], ["IFLA_MASTER", 1000]]
    return [encoded(ifinfmsg, RTM_NEWLINK, CHANGE, UP, attributes)]


def pair():
    inside = [
        ["IFLA_IFNAME", "eth0"],
        ["IFLA_MTU", MTU],
        ["IFLA_ADDRESS", "02:00:0a:59:00:04"],
        ["IFLA_NET_NS_FD", 5],
    ]
    end = {"attrs": [["VETH_INFO_PEER", {"index": 1000, "attrs": inside}]]}
    info = {"attrs": [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", end]]}
    attributes = [["IFLA_IFNAME", "p12345"], ["IFLA_MTU", MTU], ["IFLA_MASTER", 1000], ["IFLA_LINKINFO", info]]
    return [encoded(ifinfmsg, RTM_NEWLINK, MAKE, {"index": 14345, **UP}, attributes)]


def inner(family, address, prefix, gateway):
    where = {"family": family, "index": 1000, "prefixlen": prefix, "flags": 2}
    route = {"family": family, "table": 254, "proto": 4, "scope": 0, "type": 1}
    return [
        encoded(ifinfmsg, RTM_NEWLINK, CHANGE, {"index": 1000, **UP}, []),
        encoded(ifaddrmsg, RTM_NEWADDR, MAKE, where, [["IFA_LOCAL", address], ["IFA_ADDRESS", address]]),
        encoded(rtmsg, RTM_NEWROUTE, MAKE, route, [["RTA_GATEWAY", gateway], ["RTA_OIF", 1000]]),
    ]


V4 = ("10.89.0.4", 24, "10.89.0.2")
V6 = ("fd00::4", 64, "fd00::2")
CASES = {
    "bridge": (interfaces.make_bridge, bridge()),
    "port": (lambda fd: interfaces.attach_to_bridge(fd, "tap0"), port()),
    "pair": (lambda fd: interfaces.make_pair(fd, "p12345", 12345, 5, ("eth0", "02:00:0a:59:00:04")), pair()),
    "IPv4": (lambda fd: interfaces.configure_inside(fd, *V4), inner(socket.AF_INET, *V4)),
    "IPv6": (lambda fd: interfaces.configure_inside(fd, *V6), inner(socket.AF_INET6, *V6)),
}


@pytest.mark.parametrize(("make", "expected"), CASES.values(), ids=CASES)
def test_messages_have_the_bytes_of_pyroute2(monkeypatch, make, expected):
    sent = []
    monkeypatch.setattr(rtnetlink, "ask", lambda _, *words: sent.append(rtnetlink.message(*words)))
    make(-1)
    assert sent == expected


def test_a_refusal_of_the_kernel_is_its_errno():
    nobody = rtnetlink.link(2**31 - 1, rtnetlink.UP)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel, pytest.raises(OSError, match=r".") as caught:
        rtnetlink.ask(channel.fileno(), rtnetlink.NEW_LINK, rtnetlink.REQUEST, nobody)
    assert caught.value.errno in (errno.ENODEV, errno.EPERM)
