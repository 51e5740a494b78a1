"""Published ports: --publish."""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TCP = "tcp"
UDP = "udp"
HIGHEST = 65535
_FORM = (
    "write it as [IP:]HOST:CONTAINER[/tcp|/udp], such as 8080:80, 127.0.0.1:5353:53/udp, [::1]:8080:80, "
    "9000-9009:9000-9009"
)


class Port:
    """A published port.

    Attributes:
        protocol: TCP or UDP.
        address: the host address to listen on; empty for all addresses, IPv4 and IPv6.
        outside: the port number on the host; 0 for any free port.
        inside: the port number in the container.
    """

    __slots__ = ("address", "inside", "outside", "protocol")

    def __init__(self, protocol: str, address: str, outside: int, inside: int) -> None:
        self.protocol = protocol
        self.address = address
        self.outside = outside
        self.inside = inside

    def __str__(self) -> str:
        """Return it as `rootless port` shows it."""
        host = f"[{self.address}]" if ":" in self.address else self.address or "0.0.0.0"  # noqa: S104 - shown only
        return f"{self.inside}/{self.protocol} -> {host}:{self.outside or '(a free one)'}"

    def as_data(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {
            "protocol": self.protocol,
            "hostIP": self.address,
            "hostPort": self.outside,
            "containerPort": self.inside,
        }


def from_data(data: dict[str, str | int]) -> Port:
    """Return the Port that Port.as_data() has written."""
    return Port(str(data["protocol"]), str(data["hostIP"]), int(data["hostPort"]), int(data["containerPort"]))


def published(texts: Sequence[str]) -> list[Port]:
    """Return the ports of all --publish flags, one Port for each number of a range.

    Raises:
        RootlessError: `RL-PUBLISH`: a text is malformed, or names a host port twice.
    """
    ports = [port for text in texts for port in _parse(text)]
    seen: set[tuple[str, str, int]] = set()
    for port in ports:
        key = (port.protocol, port.address, port.outside)
        if port.outside and key in seen:
            raise _wrong(str(port.outside), "this host port is published twice", "use another host port")
        seen.add(key)
    return ports


def _parse(text: str) -> list[Port]:
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else TCP
    if protocol not in (TCP, UDP):
        raise _wrong(text, f"{protocol!r} is not a protocol that can be published")
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise _wrong(text, "an IPv6 address must be followed by ]:")
    *front, outside, inside = ["", "", *rest.split(":")][-3:] if rest.count(":") <= 2 - bool(address) else [""] * 3
    if not inside:
        raise _wrong(text, "the container port is missing")
    address = address or front[0]
    if address and not is_address(address):
        raise _wrong(text, f"{address!r} is not an IP address")
    first, last = _range(text, inside)
    outside_first, outside_last = _range(text, outside) if outside not in ("", "0") else (0, 0)
    if outside_first and outside_last - outside_first != last - first:
        raise _wrong(text, "the two ranges have different lengths")
    return [
        Port(protocol, address, outside_first and outside_first + number, first + number)
        for number in range(last - first + 1)
    ]


def _range(text: str, numbers: str) -> tuple[int, int]:
    first, dash, last = numbers.partition("-")
    ends = (first, last if dash else first)
    if not all(end.isascii() and end.isdigit() and 1 <= int(end.lstrip("0")[:6] or "0") <= HIGHEST for end in ends):
        raise _wrong(text, f"{numbers!r} is neither a port nor a range of ports from 1 to {HIGHEST}")
    if int(ends[0]) > int(ends[1]):
        raise _wrong(text, f"the range {numbers} ends before it begins")
    return int(ends[0]), int(ends[1])


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    from _socket import AF_INET, AF_INET6, inet_pton  # `ipaddress` would take 3 ms

    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _wrong(text: str, cause: str, fix: str = _FORM) -> RootlessError:
    return RootlessError(f"--publish {text}", cause=cause, fix=fix, code="RL-PUBLISH")
