"""Which addresses a new network gets."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from rootless.errors import RootlessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_POOL = IPv4Network("10.89.0.0/16")
"""podman's; a /24 for each network."""
_LENGTH = 24
_LONGEST = 25
"""slirp4netns(1) wants 128 addresses."""


def choose(asked: str, taken: Mapping[str, str]) -> str:
    """Return a subnet: the one that is asked for, or the first that neither another network nor the host uses.

    Args:
        asked: what the caller wants; empty for any.
        taken: those of other networks, by their names.

    Raises:
        RootlessError: `RL-NETWORK`: it is no subnet, too small, or another network's.
    """
    others = {name: IPv4Network(subnet) for name, subnet in taken.items()}
    if not asked:
        used = [*others.values(), *routes()]
        free = (each for each in _POOL.subnets(new_prefix=_LENGTH) if not any(each.overlaps(other) for other in used))
        found = next(free, None)
        if not found:
            raise _refused("", f"every subnet of {_POOL} is in use", "name one with --subnet")
        return str(found)
    try:
        wanted = IPv4Network(asked)
    except ValueError as error:
        raise _refused(asked, str(error), "write it as 10.89.1.0/24") from None
    if not 0 < wanted.prefixlen <= _LONGEST:
        raise _refused(asked, "slirp4netns needs 128 addresses", "use a network of /25 or more")
    for name, other in others.items():
        if wanted.overlaps(other):
            raise _refused(asked, f"it overlaps {other} of network {name}", "choose another, or leave --subnet out")
    return str(wanted)


def routes() -> Iterator[IPv4Network]:
    """Yield the networks of the host's routes in /proc/net/route, without the default route."""
    try:
        with open("/proc/net/route", "rb") as file:
            lines = file.read().decode().splitlines()[1:]
    except OSError:
        return
    for fields in map(str.split, lines):
        destination, mask = (int.from_bytes(bytes.fromhex(fields[index]), "little") for index in (1, 7))
        if mask:
            yield IPv4Network((destination, mask.bit_count()))


def _refused(asked: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"--subnet {asked}".rstrip(), cause=cause, fix=fix, code="RL-NETWORK")
