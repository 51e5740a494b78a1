"""A network that several containers of one user share."""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.network.helpers import MTU, SLIRP, SLIRP_GATEWAY6, Helper, tun_fix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rootless.host.host_network import HostNetwork

_FIRST_MEMBER = 4


class Shared:
    """A shared network: an IPv4 subnet and fd00::/64.

    In both, host number 2 is the gateway and 3 the DNS server, which slirp4netns provides; members begin at 4.
    """

    __slots__ = ("_subnet", "name", "subnet")

    def __init__(self, name: str, subnet: str) -> None:
        """Describe the network `name` with an IPv4 subnet such as 10.89.0.0/24.

        Raises:
            ValueError: `subnet` is not an IPv4 subnet.
        """
        from ipaddress import IPv4Network

        self.name = name
        self.subnet = subnet
        self._subnet = IPv4Network(subnet)

    @property
    def gateway(self) -> str:
        """The IPv4 address of the default gateway."""
        return str(self._subnet[2])

    @property
    def dns(self) -> str:
        """The IPv4 address at which slirp4netns forwards DNS queries to the host's server."""
        return str(self._subnet[3])

    def free_number(self, taken: Collection[int]) -> int:
        """Return the lowest host number for a member that is not in `taken`.

        Raises:
            RootlessError: `RL-NETWORK`: all are in use.
        """
        for number in range(_FIRST_MEMBER, self._subnet.num_addresses - 1):
            if number not in taken:
                return number
        raise RootlessError(
            f"network {self.name}",
            cause=f"every address of {self.subnet} is in use",
            fix="create a network with a larger --subnet",
            code="RL-NETWORK",
        )

    def addresses(self, number: int) -> list[tuple[str, int, str]]:
        """Return (address, prefix length, gateway) of a member, for IPv4 and for IPv6."""
        return [
            (str(self._subnet[number]), self._subnet.prefixlen, self.gateway),
            (f"fd00::{number:x}", 64, SLIRP_GATEWAY6),
        ]

    def hardware(self, number: int) -> str:
        """Return the MAC address for a host number: always the same, so that ARP caches stay valid."""
        return "02:00:" + ":".join(f"{byte:02x}" for byte in self._subnet[number].packed)

    @staticmethod
    def problem(host: HostNetwork) -> tuple[str, str]:
        """Return why it has no connection to the outside, and the fix; empty strings if slirp4netns can serve it.

        pasta cannot: it serves a single address.
        """
        if SLIRP not in host.programs:
            return "slirp4netns is not installed", "install slirp4netns"
        return (host.tun, tun_fix(host)) if host.tun else ("", "")

    def helper(self, host: HostNetwork) -> Helper | None:
        """Return the helper that connects it to the outside; None if problem() has a reason."""
        if self.problem(host)[0]:
            return None
        words = [f"--mtu={MTU}", f"--cidr={self.subnet}", "--disable-host-loopback", "--enable-ipv6"]
        return Helper(SLIRP, host.programs[SLIRP], words)

    def as_data(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {"name": self.name, "subnet": self.subnet, "gateway": self.gateway, "dns": self.dns}
