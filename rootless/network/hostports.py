"""Ports of the host that are about to be published: whether they are free, and who has them."""

from __future__ import annotations

import _socket
import errno
import posix

from rootless.errors import RootlessError
from rootless.lazy import lazy
from rootless.plan.network.ports import HIGHEST, TCP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rootless.host.subids import login_name
    from rootless.plan.network.ports import Port
else:
    login_name = lazy("rootless.host.subids", "login_name")

_ANY = ("0.0.0.0", "::")  # noqa: S104 - every address is what was asked for
_LISTENING = "0A"
_BOUND_UDP = "07"
_TRIES = 20
_OFFSET = 8000
"""What is added to a port that only root may have, for one that everybody may."""


def reserve(ports: Sequence[Port], first_port: int, publisher: Callable[[Port], str]) -> None:
    """Choose the ports that were left open, and see that the others can be had.

    Another program may take a port before the helper does, which then reports it.

    Args:
        ports: those to publish; `outside` is set where it was 0.
        first_port: the lowest that an ordinary user may have.
        publisher: returns the name of the container that has published a port, if one has.

    Raises:
        RootlessError: `RL-PUBLISH`: one is taken, is for root only, or is on an address that the host does not have.
    """
    for port in ports:
        taken = {other.outside for other in ports if other.protocol == port.protocol}
        error = _try(port, port.outside) if port.outside else _choose(port, taken)
        if error:
            raise _refused(port, error, first_port, publisher)


def _choose(port: Port, taken: set[int]) -> int:
    """Set `outside` to a port that is free; return 0, or the errno with which the kernel refuses every one."""
    for _ in range(_TRIES):
        try:
            with_number = _bind(port, port.address or _ANY[0], 0)
        except OSError as error:
            return error.errno or errno.EINVAL
        number: int = with_number.getsockname()[1]
        with_number.close()
        if number not in taken and not _try(port, number):
            port.outside = number
            return 0
    return errno.EADDRINUSE


def _try(port: Port, number: int) -> int:
    """Return the errno with which the kernel refuses a port; 0 when it is free."""
    for address in [port.address] if port.address else _ANY:
        try:
            _bind(port, address, number).close()
        except OSError as error:
            # a host without IPv6 has no :: to listen on
            if port.address or address == _ANY[0] or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return error.errno or errno.EINVAL
    return 0


def _bind(port: Port, address: str, number: int) -> _socket.socket:
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = _socket.SOCK_STREAM if port.protocol == TCP else _socket.SOCK_DGRAM
    made = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
    try:
        if port.protocol == TCP:
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)  # connections that have ended do not hold it
        if family == _socket.AF_INET6:
            made.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        made.bind((address, number))
        if port.protocol == TCP:
            made.listen(1)
    except BaseException:
        made.close()
        raise
    return made


def _refused(port: Port, number: int, first_port: int, publisher: Callable[[Port], str]) -> RootlessError:
    cause, fix = posix.strerror(number).lower(), ""
    if number == errno.EADDRINUSE and not port.outside:
        cause, fix = "no host port is free", "publish fewer ports, or end programs that listen (ss -ltup)"
    elif number == errno.EADDRINUSE:
        container = publisher(port)
        who = f"container {container}" if container else holder(port)
        cause = f"port {port.outside} of the host is taken" + (f" by {who}" if who else "")
        fix = f"use another port, or leave the host's out (--publish {port.inside}) for a free one"
    elif number == errno.EACCES:
        cause = f"permission denied: ports below {first_port} are for root (net.ipv4.ip_unprivileged_port_start)"
        free = port.outside + _OFFSET
        fix = (
            f"use port {free if first_port <= free <= HIGHEST else first_port}, or let root run: sysctl -w "
            f"net.ipv4.ip_unprivileged_port_start={port.outside}"
        )
    elif number == errno.EADDRNOTAVAIL:
        cause = f"the host has no address {port.address}"
        fix = "use an address of `ip address`, or none to publish on all"
    return RootlessError(f"cannot publish {port}", cause=cause, fix=fix, code="RL-PUBLISH")


def holder(port: Port) -> str:
    """Return who has a port, as far as the caller may know: a process, or at least its user; else nothing."""
    found = {inode: uid for number, inode, uid in _bound(port.protocol) if number == port.outside}
    links = {f"socket:[{inode}]" for inode in found}
    for pid in (name for name in posix.listdir("/proc") if name.isdecimal()):
        try:
            if any(_link(f"/proc/{pid}/fd/{fd}") in links for fd in posix.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
                    return f"process {pid} ({file.read().decode('utf-8', 'replace').strip()})"
        except OSError:
            continue  # it belongs to another user, or is gone
    return next((f"a process of user {login_name(uid)}" for uid in found.values()), "")


def _bound(protocol: str) -> Iterator[tuple[int, int, int]]:
    """Yield port, inode and user of every socket that has a port to itself: proc_net_tcp.rst of the kernel."""
    state = _LISTENING if protocol == TCP else _BOUND_UDP
    for name in (protocol, protocol + "6"):
        try:
            with open(f"/proc/net/{name}", "rb") as file:
                lines = file.read().decode().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == state:
                yield int(fields[1].rpartition(":")[2], 16), int(fields[9]), int(fields[7])


def _link(path: str) -> str:
    try:
        return posix.readlink(path)
    except OSError:
        return ""
