"""What there is on this host to give a container a network without root, and what the host resolves names with."""

from __future__ import annotations

import posix

from rootless.files import text_of
from rootless.host.subids import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAMS = ("slirp4netns", "pasta")
TUN = "/dev/net/tun"


class HostNetwork:
    """The host's own network, as far as a container's depends on it.

    Attributes:
        programs: the path of each helper that is installed, by its name.
        tun: why the caller cannot make a link with /dev/net/tun; empty when that is possible.
        name: the host's name.
        resolver: the lines of the host's resolv.conf(5), comments left out.
        hosts: the text of the host's hosts(5).
        ipv6: it has IPv6.
        first_port: the lowest port that an ordinary user may listen on, ip(7) ip_unprivileged_port_start.
    """

    def __init__(
        self,
        programs: dict[str, str],
        *,
        tun: str = "",
        name: str = "",
        resolver: Sequence[str] = (),
        hosts: str = "",
        ipv6: bool = True,
        first_port: int = 1024,
    ) -> None:
        self.programs = programs
        self.tun = tun
        self.name = name
        self.resolver = resolver
        self.hosts = hosts
        self.ipv6 = ipv6
        self.first_port = first_port

    def said(self, word: str) -> list[str]:
        """Return what follows a keyword of resolv.conf(5), a line each: `nameserver`, `search`, `options`."""
        return [line.partition(" ")[2].strip() for line in self.resolver if line.partition(" ")[0] == word]


def read() -> HostNetwork:
    """Look. What cannot be read is as if it were not there."""
    found = {name: find_program(name) for name in _PROGRAMS}
    lines = [" ".join(line.split()) for line in text_of("/etc/resolv.conf").splitlines()]
    first_port = text_of("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return HostNetwork(
        {name: path for name, path in found.items() if path},
        tun=_tun(),
        name=posix.uname().nodename,
        resolver=[line for line in lines if line and line[0] not in "#;"],
        hosts=text_of("/etc/hosts"),
        ipv6=text_of("/proc/sys/net/ipv6/conf/all/disable_ipv6") == "0",
        first_port=int(first_port) if first_port.isdigit() else 1024,
    )


def _tun() -> str:
    try:
        posix.close(posix.open(TUN, posix.O_RDWR | posix.O_CLOEXEC))
    except OSError as error:
        return f"{TUN}: {(error.strerror or str(error)).lower()}"
    return ""
