"""A network that several containers of one user share."""

from __future__ import annotations

from rootless.errors import RootlessError
from rootless.plan.network.helpers import MTU, SLIRP, SLIRP_GATEWAY6, TUN_FIX, Helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from rootless.host.host_network import HostNetwork

_FIRST_MEMBER = 4


class Shared:
    """A network that several containers share.

    slirp4netns has the host numbers 2 (the gateway) and 3 (the name server) of its subnet, and of fd00::/64.
    """

    __slots__ = ("_subnet", "name", "subnet")

    def __init__(self, name: str, subnet: str) -> None:
        """Take a name and a subnet of IPv4, such as 10.89.0.0/24.

        Raises:
            ValueError: it is none.
        """
        from ipaddress import IPv4Network

        self.name = name
        self.subnet = subnet
        self._subnet = IPv4Network(subnet)

    @property
    def gateway(self) -> str:
        """The address that leads to the outside."""
        return str(self._subnet[2])

    @property
    def dns(self) -> str:
        """The address that questions for names of the outside are forwarded from."""
        return str(self._subnet[3])

    def free_number(self, taken: Collection[int]) -> int:
        """Return the lowest host number that no member has.

        Raises:
            RootlessError: `RL-NETWORK`: there is none.
        """
        for number in range(_FIRST_MEMBER, self._subnet.num_addresses - 1):
            if number not in taken:
                return number
        raise RootlessError(
            f"network {self.name}",
            cause=f"every address of {self.subnet} is in use",
            fix="make one with a larger --subnet",
            code="RL-NETWORK",
        )

    def addresses(self, number: int) -> list[tuple[str, int, str]]:
        """Return (address, length of the prefix, gateway) of a member, for IPv4 and for IPv6."""
        return [
            (str(self._subnet[number]), self._subnet.prefixlen, self.gateway),
            (f"fd00::{number:x}", 64, SLIRP_GATEWAY6),
        ]

    def hardware(self, number: int) -> str:
        """Return the hardware address of a member: that of the next with its number is the same, as others know it."""
        return "02:00:" + ":".join(f"{byte:02x}" for byte in self._subnet[number].packed)

    @staticmethod
    def lack(host: HostNetwork) -> tuple[str, str]:
        """Return why nothing leads outside, and the fix; nothing where slirp4netns does: pasta serves one address."""
        if SLIRP not in host.programs:
            return "slirp4netns is not installed", "install slirp4netns"
        return (host.tun, TUN_FIX) if host.tun else ("", "")

    def helper(self, host: HostNetwork) -> Helper | None:
        """Return what leads outside, if anything does."""
        if self.lack(host)[0]:
            return None
        words = [f"--mtu={MTU}", f"--cidr={self.subnet}", "--disable-host-loopback", "--enable-ipv6"]
        return Helper(SLIRP, host.programs[SLIRP], words)

    def as_data(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {"name": self.name, "subnet": self.subnet, "gateway": self.gateway, "dns": self.dns}
